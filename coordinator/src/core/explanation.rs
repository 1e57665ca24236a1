//! Why a sweep is where it is, in sentences for its user.

use std::collections::BTreeMap;

use ergodic_common::duration::format_duration;
use ergodic_common::number_format::format_shortest;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::spec::stopping_rule::{StoppingCriterion, StoppingRule};

use crate::core::Sweep;
use crate::core::audits::AuditCounts;
use crate::core::quarantine::CRASH_LIMIT;
use crate::core::state::Core;
use crate::core::stopping::{AdaptiveRepeats, PrecisionRepeats, SuccessiveHalving};
use crate::records::SweepState;

/// How far its cells are, if that decides how often they are repeated.
pub(crate) fn explain_adaptive_repeats(sweep: &Sweep) -> Option<String> {
    let rule = sweep.spec.stopping_rule.as_ref()?;
    match (sweep.adaptive_repeats.as_ref()?, rule.criterion) {
        (AdaptiveRepeats::Precision(adaptive), StoppingCriterion::Precision { ci95 }) => {
            Some(explain_precision(sweep, adaptive, rule, ci95))
        }
        (AdaptiveRepeats::Halving(adaptive), StoppingCriterion::Halving { factor }) => {
            Some(explain_halving(sweep, adaptive, rule, factor))
        }
        _ => None,
    }
}

pub(crate) fn explain_precision(
    sweep: &Sweep,
    adaptive: &PrecisionRepeats,
    rule: &StoppingRule,
    ci95: f64,
) -> String {
    let standing = adaptive.progress();
    let cells = sweep.spec.grid.cell_count();
    let name = rule.metric.name();
    let known = standing.count_known_cells();
    let open = standing.count_open_cells(cells);
    let ci95 = format_shortest(ci95);
    let mut line = format!("{known} of {cells} cells know the mean of {name} to ± {ci95}");

    if known > 0 {
        let parts: Vec<String> = standing
            .reached_cells
            .iter()
            .map(|(n, cells)| format!("{cells} at {n}"))
            .collect();
        line += &format!(" (cells at so many repeats: {})", parts.join(", "));
    }

    if standing.exhausted_cells > 0 {
        line += &format!(
            "; not even with all {} repeats: {}",
            sweep.spec.repeats, standing.exhausted_cells
        );
    }

    if open > 0 {
        let expected = sweep.expected_trials();
        line += &format!(
            "; {open} go on, by their spread so far to about {expected} trials of the sweep in all"
        );
    }

    line + "."
}

pub(crate) fn explain_halving(
    sweep: &Sweep,
    adaptive: &SuccessiveHalving,
    rule: &StoppingRule,
    factor: u32,
) -> String {
    let cells = sweep.spec.grid.cell_count();
    let name = rule.metric.name();
    let rung = adaptive.current_rung();
    let (standing, ready) = adaptive.rung_progress();
    let climb = match standing {
        all if all == cells => format!("all {cells} cells are"),
        1 => format!("the best of {cells} cells is"),
        best => format!("the {best} best of {cells} cells are"),
    };

    let then = match rung < sweep.spec.repeats {
        true => format!("; then one in {factor} goes on, by the mean of {name}"),
        false => String::new(),
    };
    format!(
        "By successive halving, {climb} repeated {rung} times ({ready} of {standing} done){then}."
    )
}

/// How far a sweep's audits are, if it has any.
pub(crate) fn explain_audits(sweep: &Sweep) -> Option<String> {
    let AuditCounts {
        due,
        same,
        different,
        failed,
    } = sweep.audits.counts;

    // Trials whose files were lost are audited, too.
    if sweep.spec.scheduling.audit_share == 0.0 && due == 0 {
        return None;
    }

    let made = format!(
        "Audit: {} of {due} trials were run again by another worker process",
        due - sweep.audits.counts.remaining()
    );
    let found = format!("{same} yielded the same bits, {different} others, {failed} failed");
    let rest = match (sweep.audits.counts.remaining(), sweep.state) {
        (0, _) => String::new(),
        (left, SweepState::Completed) => {
            format!(
                " For {left} no other worker process was there: `ergodic retry {}` makes them once one is.",
                sweep.id
            )
        }
        (left, SweepState::Cancelled) => format!(" {left} will not be made."),
        (left, _) => format!(" {left} are still to come."),
    };

    Some(format!("{made}: {found}.{rest}"))
}

/// The engine of a numerics class, without its version.
fn engine_name(class: &str) -> &str {
    class.split('/').next().unwrap_or_default()
}

fn join_ids<'a>(sweeps: impl Iterator<Item = &'a &'a Sweep>) -> String {
    let ids: Vec<&str> = sweeps.map(|sweep| sweep.id.as_str()).collect();
    ids.join(", ")
}

impl Core {
    /// Why a sweep is where it is, one finding per line.
    pub fn explain_sweep(&self, sweep: &Sweep) -> Vec<String> {
        let total = sweep.total_trials();
        let done = sweep.counts.done();
        let mut lines = vec![format!(
            "{} of {total} trials have a row ({} completed, {} diverged, {} failed); {} are in leases, {} wait.",
            done,
            sweep.counts.completed,
            sweep.counts.diverged,
            sweep.counts.failed,
            sweep.leased,
            total.saturating_sub(done + sweep.leased)
        )];

        if let Some(why) = &sweep.withheld {
            lines.push(format!(
                "The sweep is only shown, and nothing of it is run or changed: {why}."
            ));
        }

        match sweep.state {
            SweepState::Running if sweep.withheld.is_some() => {}
            SweepState::Completed => lines.push("The sweep is complete.".into()),
            SweepState::Cancelled => lines.push("The sweep was cancelled: nothing more is run.".into()),
            SweepState::Running => self.explain_running(sweep, &mut lines),
            SweepState::Paused => lines.push(format!(
                "The sweep is paused: what is in leases is finished, and nothing more is given out until `ergodic resume {}`.",
                sweep.id
            )),
        }

        if let Some(limit) = sweep
            .spec
            .scheduling
            .time_limit
            .filter(|_| sweep.state.is_open())
        {
            lines.push(format!(
                "A trial that takes longer than {} is broken off and fails.",
                format_duration(limit)
            ));
        }

        lines.extend(explain_adaptive_repeats(sweep));
        lines.extend(explain_audits(sweep));

        if sweep.tallies.mismatches > 0 {
            lines.push(format!(
                "ALARM: {} results differed from rows stored earlier, though every trial should yield the same bits.",
                sweep.tallies.mismatches
            ));
        }

        lines
    }

    pub(crate) fn explain_running(&self, sweep: &Sweep, lines: &mut Vec<String>) {
        self.explain_capacity(sweep, lines);

        for lease in self
            .leases
            .values()
            .filter(|lease| lease.row.sweep == sweep.number)
        {
            if let Some(worker) = self
                .workers
                .get(&lease.row.worker)
                .filter(|worker| !worker.connected)
            {
                lines.push(format!(
                    "{} is away and holds {} trials; they are given out again when its lease ends.",
                    worker.name,
                    lease.row.trials.len()
                ));
            }
        }

        if sweep.quarantine.waiting_count() > 0 {
            lines.push(format!(
                "{} trials were in flight when workers died, more than once: each is run again at the end, alone; after \
                 {CRASH_LIMIT} dead workers it is given up.",
                sweep.quarantine.waiting_count()
            ));
        }

        for worker in self.workers.values().filter(|worker| worker.connected) {
            if let Some((_, why)) = worker.unable_sweeps.get(&sweep.number) {
                lines.push(format!("{} cannot work on it: {why}", worker.name));
            }
        }

        self.explain_share(sweep, lines);
    }

    /// Which workers can run a sweep, or why none can.
    fn explain_capacity(&self, sweep: &Sweep, lines: &mut Vec<String>) {
        let (able, slots) = self.capacity_for(&sweep.spec);
        if !self.workers.values().any(|worker| worker.connected) {
            lines.push(
                "No worker is joined: start one with `ergodic-worker --coordinator URL`.".into(),
            );
        } else if able == 0 {
            self.explain_missing_class(&sweep.spec.numerics, lines);
        } else {
            lines.push(format!("{able} workers with {slots} slots can run it."));
        }
    }

    fn explain_missing_class(&self, numerics: &str, lines: &mut Vec<String>) {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for class in self.workers.values().flat_map(|worker| &worker.numerics) {
            *counts.entry(class).or_default() += 1;
        }

        let offered: Vec<String> = counts
            .iter()
            .map(|(class, count)| format!("{class} ({count})"))
            .collect();
        lines.push(format!(
            "No joined worker offers the numerics class {numerics} that the sweep is pinned to; offered: {}.",
            offered.join(", ")
        ));

        if counts
            .keys()
            .any(|class| engine_name(class) == engine_name(numerics))
        {
            lines.push(
                "That is another version of the same engine, and bits of different versions are not mixed in a sweep: for \
                 what is missing of it, join a worker of the version that it was launched with, or launch its file again, as a sweep \
                 of the version that is offered. Its rows stay as they are."
                    .into(),
            );
        }
    }

    pub(crate) fn explain_share(&self, sweep: &Sweep, lines: &mut Vec<String>) {
        let rivals = self.rival_sweeps(sweep);
        let Share { priority, weight } = sweep.share;
        let before = join_ids(
            rivals
                .iter()
                .filter(|rival| rival.share.priority > priority),
        );
        let beside = join_ids(
            rivals
                .iter()
                .filter(|rival| rival.share.priority == priority),
        );

        if !before.is_empty() {
            lines.push(format!(
                "Its priority is {priority}; of a higher one, and first, are: {before}."
            ));
        }

        if !beside.is_empty() {
            lines.push(format!(
                "Its weight is {}; it shares workers with: {beside}.",
                format_shortest(weight)
            ));
        }
    }
}
