//! Which quantity a loss is in each of several sweeps: a cross-entropy in one may be a squared error in another.

use ergodic_common::Spec;
use ergodic_common::metric::Metric;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::{describe_loss_quantity, find_mixed_losses};

/// The losses that a text names, such as a metric or an expression.
pub(super) fn find_losses(text: &str) -> Vec<Metric> {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let named = Metric::NAMES
        .into_iter()
        .filter(|(name, metric)| metric.is_loss() && words.contains(name));
    named.map(|(_, metric)| metric).collect()
}

/// The quantity that a loss is in all cells of a sweep; `None` if it differs among them, or if this program cannot read the sweep file.
pub(super) fn describe_loss(source: &SpecSource, loss: &Metric) -> Option<String> {
    let spec = Spec::read_stored(source).ok()?;
    if find_mixed_losses(&spec, loss).is_some() {
        return None;
    }
    let cell = spec.grid.iter().next()?;
    describe_loss_quantity(&spec, loss, cell)
}

/// Says what a loss is in the first sweep, and in the first other one in which it is another quantity; `None` if there is none. Each
/// sweep comes with its label.
pub(super) fn describe_mixture(loss: &str, kinds: &[(&str, Option<String>)]) -> Option<String> {
    let mut known = kinds
        .iter()
        .filter_map(|(label, kind)| Some((*label, kind.as_deref()?)));
    let (first, kind) = known.next()?;
    let (other, another) = known.find(|(_, another)| *another != kind)?;
    Some(format!(
        "{loss} is another quantity in each sweep: {kind} in {first}, {another} in {other}"
    ))
}

#[cfg(test)]
mod tests {
    use crate::client::sweep_set::loss_kinds::*;

    fn kind(text: &str, metric: &str) -> Option<String> {
        let source = SpecSource {
            text: format!(
                "name = \"x\"\nmodel = {{ kind = \"mlp\" }}\n[train]\nsteps = 10\nbatch_size = 8\nlr = 0.1\n{text}"
            ),
            ..SpecSource::default()
        };
        describe_loss(&source, find_losses(metric).first()?)
    }

    #[test]
    fn losses_that_are_other_quantities_are_told() {
        let plain = kind("", "test_loss");
        let squared = kind("loss = \"mse\"\n", "test_loss");
        let both = "[grid]\nloss = [\"mse\", \"cross-entropy\"]\n";
        let mixed = kind(both, "test_loss");
        assert_eq!(mixed, None);
        assert_eq!(kind("", "test_acc"), None);
        let named =
            find_losses("gain test_loss_x gain = jump(train_loss, decay)/at(test_loss,end)");
        assert_eq!(named, [Metric::TrainLoss, Metric::TestLoss]);

        let all = [("a", plain.clone()), ("b", mixed), ("c", squared)];
        assert_eq!(
            describe_mixture("test_loss", &all).as_deref(),
            Some("test_loss is another quantity in each sweep: cross-entropy in a, mse in c")
        );
        assert_eq!(describe_mixture("test_loss", &all[..2]), None);
        assert_eq!(
            describe_mixture("test_loss", &[("a", plain.clone()), ("b", plain)]),
            None
        );
    }
}
