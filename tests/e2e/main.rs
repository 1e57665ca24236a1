//! End-to-end tests over the real programs.

mod commands;
mod deploy;
mod disk;
mod door;
mod exactness;
mod files;
mod http;
mod kept;
mod layering;
mod postgres;
mod refusals;
mod same_bits;
mod terms;

/// A sweep of many short real trainings: six cells of a small network with batch norm on generated digits.
const SWEEP: &str = r#"
name    = "small"
repeats = 12
seed    = 7
[data]
dataset = "glyphs"
train   = 500
test    = 100
[model]
kind   = "mlp"
hidden = [24]
[train]
steps      = 40
batch_size = 32
optimizer  = { momentum = 0.9 }
[grid]
lr = [0.05, 0.2, 1e38]
wd = [0.0, 1e-3]
[measure]
every   = "10 steps"
metrics = ["test_acc", "train_loss", "effective_lr"]
"#;

/// The same trials in `n` repeats.
fn repeated(n: u32) -> String {
    SWEEP.replace("repeats = 12", &format!("repeats = {n}"))
}

/// A sweep of empty trials with one metric.
fn empty_sweep(repeats: u32) -> String {
    format!(
        "name = \"empty\"\nrepeats = {repeats}\n[model]\nkind = \"empty\"\n[train]\nsteps = 1\n[measure]\n\
         metrics = [\"test_acc\"]\n"
    )
}
