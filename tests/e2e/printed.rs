//! What people see: the human output of every command, and what is refused, in snapshots that one can read in one place.
//!
//! `INSTA_UPDATE=always cargo test --workspace --locked --test e2e printed` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use ergodic_tests::{Cluster, Finished, run};

/// Real trainings, with predictions and weights; the largest rate diverges.
const NET: &str = r#"name    = "net"
repeats = 6
seed    = 7
[data]
dataset = "glyphs"
train   = 200
test    = 100
[model]
kind   = "mlp"
hidden = [8]
[train]
steps      = 20
batch_size = 32
[grid]
lr = [0.05, 0.2, 1e38]
wd = [0.0, 1e-3]
[measure]
every   = "10 steps"
metrics = ["test_acc", "train_loss", "weight_norm"]
probe   = { points = 10 }
save    = ["final"]
"#;

/// Trials with crossed streams, and of the toy loss: microseconds each.
const CROSSED: &str = r#"name    = "crossed"
repeats = 12
seeds   = { crossed = { init = 4, order = 3 } }
[data]
dataset = "glyphs"
train   = 100
test    = 50
[model]
kind   = "mlp"
hidden = [4]
[train]
steps      = 10
batch_size = 16
[grid]
lr = [0.05, 0.2]
[measure]
every   = "10 steps"
metrics = ["train_loss"]
"#;

/// Commands as typed, with what they printed.
struct Transcript<'a> {
    cluster: &'a Cluster,
    text: String,
}

impl<'a> Transcript<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let text = String::new();
        Self { cluster, text }
    }

    fn add(&mut self, args: &[&str]) -> Finished {
        let finished = self.cluster.run(args);
        self.text += &render(args, &finished);
        finished
    }

    fn add_alone(&mut self, args: &[&str]) {
        self.text += &render(args, &run(args));
    }

    /// The list of sweeps. How wide its columns are depends on the names of this user and machine, so that is left out.
    fn add_list(&mut self) {
        let text = render(&["list"], &self.cluster.run(&["list"]));
        for line in text.lines() {
            let words: Vec<String> = line
                .split_whitespace()
                .map(|word| match word.trim_matches(['─', '═']) {
                    "" => word.chars().take(3).collect(),
                    _ => word.to_owned(),
                })
                .collect();
            self.text += &(words.join(" ") + "\n");
        }
    }

    /// Compares it with the snapshot of this name.
    fn check(self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);

        let folder = self.cluster.path("").to_string_lossy().into_owned();
        settings.add_filter(&escape(folder.trim_end_matches('/')), "DIR");
        settings.add_filter(&escape(&self.cluster.url), "URL");
        for (pattern, shown) in FILTERS {
            settings.add_filter(pattern, *shown);
        }

        settings.bind(|| insta::assert_snapshot!(name, self.text));
    }
}

/// What differs from run to run or from machine to machine, and how it is shown.
const FILTERS: &[(&str, &str)] = &[
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"\b[0-9a-f]{16,32}\b", "HASH"),
    (r"\b(\d+(\.\d+)?) ?(ms|µs|s|min|h)\b( ago)?", "TIME"),
    (
        r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?Z?)?( UTC)?",
        "DATE",
    ),
    (r"\b\d\d [A-Z][a-z][a-z] \d\d:\d\d\b", "DATE"),
    (r"\b(avx512|avx2|portable)\b", "ISA"),
    (r"\d+(\.\d+)? ([KMG]i|M)B\b", "BYTES"),
    (r"[\w.-]+@[\w.-]+", "USER@HOST"),
    (r"[ ]+\n", "\n"),
];

fn escape(text: &str) -> String {
    text.replace('.', r"\.").replace('/', r"\/")
}

fn render(args: &[&str], finished: &Finished) -> String {
    let quoted: Vec<String> = args.iter().map(|arg| quote(arg)).collect();
    let mut text = format!("$ ergodic {}\n{}", quoted.join(" "), finished.stdout);
    for line in finished.stderr.lines() {
        let _ = writeln!(text, "stderr: {line}");
    }
    if finished.code != 0 {
        let _ = writeln!(text, "exit code {}", finished.code);
    }

    text + "\n"
}

fn quote(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c);
    if arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{arg}'")
    }
}

fn write_file(cluster: &Cluster, name: &str, text: &str) -> String {
    let path = cluster.path(name);
    std::fs::write(&path, text).expect("a file can be written");
    path.to_string_lossy().into_owned()
}

/// The id of a completed sweep.
fn complete(cluster: &mut Cluster, text: &str) -> String {
    let id = cluster.launch(text);
    let _worker = cluster.worker(2, &["--name", "desktop"]);
    cluster.wait_for_end(&id);
    id
}

#[test]
fn commands_that_run_sweeps() {
    let mut cluster = Cluster::start(&[]);
    let file = write_file(&cluster, "net.toml", NET);
    let mut transcript = Transcript::new(&cluster);
    transcript.add_alone(&["plan", &file]);
    transcript.add_alone(&[
        "plan",
        &file,
        "--set",
        "repeats=2",
        "--set",
        "grid.lr=[0.1]",
    ]);
    transcript.check("plan");

    let id = complete(&mut cluster, NET);
    let mut transcript = Transcript::new(&cluster);
    transcript.add(&["launch", &file]);
    transcript.add_list();
    transcript.add(&["status", &id]);
    transcript.add(&["watch", &id]);
    transcript.add(&["explain", &id]);
    transcript.add(&["explain", &id, "0/0"]);
    transcript.add(&["explain", &id, "4/1"]);
    transcript.text = transcript.text.replace(&id, "SWEEP_ID");
    transcript.check("run");
}

#[test]
fn commands_that_steer_sweeps() {
    let cluster = Cluster::start(&[]);
    let id = cluster.launch(NET);
    let wider = NET.replace("lr = [0.05, 0.2, 1e38]", "lr = [0.05, 0.1, 0.2, 1e38]");
    let wider = write_file(&cluster, "wider.toml", &wider);

    let mut transcript = Transcript::new(&cluster);
    transcript.add(&["explain", &id]);
    transcript.add(&["pause", &id]);
    transcript.add(&["explain", &id]);
    transcript.add(&["explain", &id, "0/0"]);
    transcript.add(&["pause", &id]);
    transcript.add(&["resume", &id]);
    transcript.add(&["update", &id, "--priority", "5"]);
    transcript.add(&["extend", &id, "--repeats", "8"]);
    transcript.add(&["extend", &id, &wider]);
    transcript.add(&["cancel", &id]);
    transcript.add(&["resume", &id]);
    transcript.add(&["retry", &id]);
    transcript.add(&["rm", &id]);
    transcript.add(&["rm", "latest"]);
    transcript.add_list();
    transcript.text = transcript.text.replace(&id, "SWEEP_ID");
    transcript.check("steer");
}

#[test]
fn commands_that_show_results() {
    let mut cluster = Cluster::start(&[]);
    let id = complete(&mut cluster, NET);
    let picture = cluster.path("map.svg").to_string_lossy().into_owned();
    let page = cluster.path("report").to_string_lossy().into_owned();
    let export = cluster.path("export").to_string_lossy().into_owned();
    let weights = cluster.path("w.safetensors").to_string_lossy().into_owned();

    let mut transcript = Transcript::new(&cluster);
    transcript.add(&["table", &id]);
    transcript.add(&["table", &id, "--rows", "lr", "--cols", "wd"]);
    transcript.add(&["table", &id, "--metric", "train_loss", "--by", "lr"]);
    transcript.add(&["table", &id, "--top", "2"]);
    transcript.add(&["table", &id, "--where", "lr < 1"]);
    transcript.add(&["table", &id, "--stat", "median,q25,q75"]);
    transcript.add(&["table", &id, "--format", "md"]);
    transcript.add(&["table", &id, "--format", "latex"]);
    transcript.add(&["curves", &id, "--metric", "train_loss"]);
    transcript.add(&["plot", &id, "-o", &picture]);
    transcript.add(&["report", &id, "-o", &page]);
    transcript.add(&["export", &id, "-o", &export]);
    transcript.add(&["export", &id, "-o", &export]);
    transcript.add(&["weights", &id, "0/0", "-o", &weights]);
    transcript.text = transcript.text.replace(&id, "SWEEP_ID");
    transcript.check("results");
}

#[test]
fn commands_that_analyse() {
    let mut cluster = Cluster::start(&[]);
    let id = complete(&mut cluster, NET);
    let crossed = complete(&mut cluster, CROSSED);

    let mut transcript = Transcript::new(&cluster);
    transcript.add(&["compare", &id, "--baseline", "lr=0.05,wd=0"]);
    transcript.add(&["effects", &id]);
    transcript.add(&["effects", &id, "--metric", "train_loss"]);
    transcript.add(&["distance", &id]);
    transcript.add(&["variance", &crossed]);
    transcript.add(&["variance", &id]);
    transcript.text = transcript
        .text
        .replace(&id, "SWEEP_ID")
        .replace(&crossed, "CROSSED_ID");
    transcript.check("analysis");
}

#[test]
fn commands_that_operate() {
    let mut cluster = Cluster::start(&[]);
    let id = complete(&mut cluster, CROSSED);
    let backup = cluster.path("all.ergodic").to_string_lossy().into_owned();
    let store = cluster.path("restored").to_string_lossy().into_owned();

    let mut transcript = Transcript::new(&cluster);
    transcript.add(&["backup", "-o", &backup]);
    transcript.add_alone(&["restore", &backup, "--store", &store]);
    transcript.add_alone(&["restore", &backup, "--store", &store]);
    transcript.add(&["token", "list"]);
    transcript.add(&["replay", &id, "0/0"]);
    transcript.text = transcript.text.replace(&id, "SWEEP_ID");
    transcript.check("operate");
}

/// One mistake each in a sweep file: what is replaced, and by what.
const MISTAKES: &[(&str, &str)] = &[
    ("lr = [0.05, 0.2, 1e38]", "lr = []"),
    ("lr = [0.05, 0.2, 1e38]", "lr = [0.1, 0.1]"),
    (
        "lr = [0.05, 0.2, 1e38]",
        "lr = { log = [0, 1], points = 3 }",
    ),
    ("lr = [0.05, 0.2, 1e38]", "lr = [nan]"),
    ("lr = [0.05, 0.2, 1e38]", "lr = \"small\""),
    ("lr = [0.05, 0.2, 1e38]", "learning_rate = [0.1]"),
    ("lr = [0.05, 0.2, 1e38]", "lr = [0.05, 0.2"),
    ("batch_size = 32", "batch_size = 0"),
    ("batch_size = 32", "batch_size = 201"),
    ("batch_size = 32", "batch_sise = 32"),
    ("batch_size = 32", "batch_size = \"many\""),
    ("batch_size = 32", ""),
    ("\"mlp\"", "\"mpl\""),
    ("\"glyphs\"", "\"mnits\""),
    ("train   = 200", "train   = 0"),
    ("train   = 200", "train   = 200\nvalidation = 200"),
    ("repeats = 6", "repeats = 0"),
    ("repeats = 6", "repeats = 1000000000"),
    ("repeats = 6", "repeats = 6\nrepeats = 7"),
    ("steps      = 20", "steps      = 20\nepochs = 3"),
    ("steps      = 20", "steps      = -1"),
    ("\"test_acc\"", "\"test_accuracy\""),
    ("\"test_acc\"", "\"val_acc\""),
    ("\"10 steps\"", "\"10 stepps\""),
    ("seed    = 7", "seed    = -7"),
    (
        "seed    = 7",
        "seed    = 7\n[until]\nmetric = \"test_acc\"\nwidth = 0.01\nmin = 5",
    ),
    ("seed    = 7", "seed    = 7\n[wehre]\nkeep = \"lr > 0.1\""),
    ("seed    = 7", "seed    = -7\naudits  = 2"),
];

#[test]
fn refusals() {
    let mut cluster = Cluster::start(&[]);
    let id = complete(&mut cluster, NET);
    let mut transcript = Transcript::new(&cluster);

    for (right, wrong) in MISTAKES {
        let file = write_file(&cluster, "net.toml", &NET.replacen(right, wrong, 1));
        let finished = run(&["plan", &file]);
        let _ = writeln!(transcript.text, "# {}", wrong.replace('\n', " ⏎ "));
        transcript.text += &render(&["plan", "net.toml"], &finished);
    }

    let file = write_file(&cluster, "net.toml", NET);
    for args in [
        &["plan", "missing.toml"][..],
        &["plan", &file, "--set", "lr"],
        &["plan", &file, "--set", "train.lrr=1"],
        &["status", "nothere1"],
        &["status", "latest2"],
        &["table", &id, "--rows", "lrr"],
        &["table", &id, "--metric", "test_accuracy"],
        &["table", &id, "--where", "lr <"],
        &["table", &id, "--where", "lrr < 1"],
        &["table", &id, "--stat", "mode"],
        &["curves", &id],
        &["compare", &id, "--baseline", "lr=7"],
        &["compare", &id, "--baseline", "lr=0.05"],
        &["explain", &id, "99/0"],
        &["explain", &id, "x"],
        &["weights", &id, "4/0", "-o", "w.safetensors"],
        &["plot", &id, "-o", "map.gif"],
        &["export", &id, "-o", "http://example.org/x"],
        &["extend", &id, "--repeats", "3"],
        &["sample-size", &id, "test_acc"],
        &["update", &id],
    ] {
        transcript.add(args);
    }

    transcript.add_alone(&["run", &file, "--rows", "lrr", "--cols", "wd"]);
    transcript.add_alone(&["restore", "missing.ergodic", "--store", "here"]);
    transcript.add_alone(&["list", "--coordinator", "http://127.0.0.1:1"]);
    transcript.add_alone(&["list", "--coordinator", "127.0.0.1"]);
    transcript.text = transcript.text.replace(&id, "SWEEP_ID");
    transcript.check("refusals");
}
