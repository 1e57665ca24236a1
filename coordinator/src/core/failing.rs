//! Programs that always fail: a sweep of which the first trials fail without one success pauses itself.

use ergodic_common::ids::SweepNumber;

use super::{Core, Effect, Sweep};
use crate::records::SweepState;

/// Number of failures without a success after which the sweep of a program pauses itself.
const FAILURES_BEFORE_PAUSE: u64 = 10;

impl Sweep {
    /// Whether the first trials of a program have failed, and none has succeeded.
    pub(super) fn is_failing(&self) -> bool {
        self.spec.program().is_some()
            && self.counts.failed >= FAILURES_BEFORE_PAUSE
            && self.counts.done() == self.counts.failed
    }

    /// The cause of the last failure, if the sweep has paused itself and all of its trials so far have failed.
    pub fn describe_failing(&self) -> Option<&str> {
        let is_stopped =
            self.state == SweepState::Paused && self.has_paused_itself && self.is_failing();
        self.last_failure.as_deref().filter(|_| is_stopped)
    }
}

impl Core {
    /// Pauses the sweep of a program if its failures have just become too many. A user who resumes it is not contradicted.
    pub(super) fn pause_if_failing(
        &mut self,
        number: SweepNumber,
        failed_before: u64,
    ) -> Option<Effect> {
        let sweep = self.sweeps.get_mut(&number)?;
        let has_just_begun = failed_before < FAILURES_BEFORE_PAUSE && sweep.is_failing();
        if !has_just_begun || sweep.state != SweepState::Running {
            return None;
        }
        sweep.state = SweepState::Paused;
        sweep.has_paused_itself = true;
        Some(Effect::SetSweepState(number, SweepState::Paused))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ergodic_common::ids::{Epoch, LeaseId, WorkerId};
    use ergodic_common::spec::SpecSource;
    use ergodic_common::{Outcome, Spec, TrialKey};

    use super::*;
    use crate::core::StoredRow;
    use crate::core::verbs::results::NO_LEASE;
    use crate::core::{CommitOutcome, CoreTime, MetricPositions, SweepChange, Timing};
    use crate::records::{DataPin, SweepRow, SweepTallies};

    const NUMBER: SweepNumber = SweepNumber(1);

    fn core_with_program() -> Core {
        let source = SpecSource {
            text: "name = \"t\"\nrepeats = 30\n[program]\ncommand = [\"false\"]\nmetrics = { loss = \"min\" }\n"
                .to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).expect("a sweep");
        let record = SweepRow {
            number: NUMBER,
            id: "abcdefgh".into(),
            source,
            data: DataPin::default(),
            state: SweepState::Running,
            share: spec.scheduling.share,
            launched_at: 0.0,
            launched_by: String::new(),
            tallies: SweepTallies::default(),
        };
        let timing = Timing {
            lease_ttl: std::time::Duration::from_secs(30),
        };
        let mut core = Core::new(timing, Epoch(1), LeaseId(1));
        let sweep = Sweep::new(Arc::new(record), Arc::new(spec));
        core.on_sweep_added(sweep, [], CoreTime::ZERO);
        core
    }

    fn row(repeat: u32, outcome: Outcome) -> StoredRow {
        let positions = MetricPositions::default();
        positions.build_row(TrialKey::new(0, repeat), outcome, |_| None, 0.0)
    }

    /// Commits the rows of these repeats; returns whether the sweep pauses itself then.
    fn commit(core: &mut Core, repeats: std::ops::Range<u32>, outcome: &Outcome) -> bool {
        let committed = CommitOutcome {
            stored: repeats.map(|repeat| row(repeat, outcome.clone())).collect(),
            ..CommitOutcome::default()
        };
        let worker = WorkerId::from("w");
        let effects =
            core.on_batch_committed(&worker, NO_LEASE, NUMBER, &committed, CoreTime::ZERO);
        effects.contains(&Effect::SetSweepState(NUMBER, SweepState::Paused))
    }

    fn failed() -> Outcome {
        Outcome::Failed {
            cause: "it exited with 1: no such file".into(),
        }
    }

    #[test]
    fn a_program_that_always_fails_pauses_its_sweep_once() {
        let mut core = core_with_program();
        assert!(!commit(&mut core, 0..9, &failed()));
        assert!(commit(&mut core, 9..12, &failed()));
        let sweep = core.sweep(NUMBER).expect("a sweep");
        assert_eq!(
            sweep.describe_failing(),
            Some("it exited with 1: no such file")
        );

        let resumed = SweepChange::State(SweepState::Running);
        core.on_sweep_steered(NUMBER, resumed, CoreTime::ZERO);
        assert!(!commit(&mut core, 12..20, &failed()), "the user knows");
        let sweep = core.sweep(NUMBER).expect("a sweep");
        assert_eq!(sweep.describe_failing(), None);

        let paused = SweepChange::State(SweepState::Paused);
        core.on_sweep_steered(NUMBER, paused, CoreTime::ZERO);
        let sweep = core.sweep(NUMBER).expect("a sweep");
        assert_eq!(sweep.describe_failing(), None, "the user paused it");
    }

    #[test]
    fn one_success_is_enough() {
        let mut core = core_with_program();
        assert!(!commit(&mut core, 0..1, &Outcome::Completed));
        assert!(!commit(&mut core, 1..20, &failed()));
    }
}
