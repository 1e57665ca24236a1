//! Sentences about sweeps.

use std::time::Duration;

use ergodic_common::duration::format_duration;
use ergodic_common::number_format::format_shortest;
use ergodic_proto::v1;
use v1::explain_finding::Finding;

/// A finding about the sweep of this id; `None` for any other, or one that this program does not know.
pub(super) fn render_sweep_finding(finding: &Finding, sweep: &str) -> Option<String> {
    Some(match finding {
        Finding::Progress(progress) => render_progress(progress),
        Finding::Withheld(withheld) => format!(
            "The sweep is only shown, and nothing of it is run or changed: {}.",
            withheld.why
        ),
        Finding::Stopped(stopped) => return render_stopped(stopped, sweep),
        Finding::TimeLimit(limit) => format!(
            "A trial that takes longer than {} is broken off and fails.",
            format_duration(Duration::from_millis(limit.milliseconds))
        ),
        Finding::Precision(precision) => render_precision(precision),
        Finding::Halving(halving) => render_halving(halving),
        Finding::Audits(audits) => render_audits(audits, sweep),
        Finding::Mismatches(mismatches) => format!(
            "ALARM: {} results differed from rows stored earlier, though every trial should yield the same bits.",
            mismatches.results
        ),
        Finding::Unreadable(unreadable) => format!(
            "The sweep cannot be read by this program, and nothing of it is run: {}.",
            unreadable.why
        ),
        Finding::Removable(_) => {
            format!("`ergodic rm {sweep}` removes it; a backup takes it along as it is.")
        }
        Finding::StorageTrouble(trouble) => {
            format!("The coordinator cannot store results: {}.", trouble.why)
        }
        other => return render_worker_finding(other),
    })
}

/// A finding about the workers of a sweep; `None` for any other.
fn render_worker_finding(finding: &Finding) -> Option<String> {
    Some(match finding {
        Finding::NoWorker(_) => {
            "No worker is joined: start one with `ergodic-worker --coordinator URL`.".to_owned()
        }
        Finding::MissingClass(missing) => render_missing_class(missing),
        Finding::OtherVersion(_) => {
            "That is another version of the same engine, and bits of different versions are not mixed in a sweep: for \
             what is missing of it, join a worker of the version that it was launched with, or launch its file again, as a sweep \
             of the version that is offered. Its rows stay as they are."
                .to_owned()
        }
        Finding::Capacity(v1::ExplainCapacity { workers, slots }) => {
            format!("{workers} workers with {slots} slots can run it.")
        }
        Finding::WorkerAway(away) => format!(
            "{} is away and holds {} trials; they are given out again when its lease ends.",
            away.worker, away.trials
        ),
        Finding::Quarantine(v1::ExplainQuarantine { trials, limit }) => format!(
            "{trials} trials may have been running when workers crashed, more than once: each is run again at the end, \
             alone; after {limit} crashes it is given up."
        ),
        Finding::WorkerUnable(unable) => {
            format!("{} cannot work on it: {}", unable.worker, unable.why)
        }
        Finding::HigherPriority(higher) => format!(
            "Its priority is {}; of a higher one, and first, are: {}.",
            higher.priority,
            higher.sweeps.join(", ")
        ),
        Finding::SharedWorkers(shared) => format!(
            "Its weight is {}; it shares workers with: {}.",
            format_shortest(shared.weight),
            shared.sweeps.join(", ")
        ),
        _ => return None,
    })
}

fn render_progress(progress: &v1::ExplainProgress) -> String {
    let v1::ExplainProgress {
        trials,
        completed,
        diverged,
        failed,
        leased,
        waiting,
    } = *progress;

    let done = completed.saturating_add(diverged).saturating_add(failed);
    format!(
        "{done} of {trials} trials have a row ({completed} completed, {diverged} diverged, {failed} failed); {leased} are in \
         leases, {waiting} wait."
    )
}

fn render_stopped(stopped: &v1::ExplainStopped, sweep: &str) -> Option<String> {
    match stopped.state() {
        v1::SweepState::Completed => Some("The sweep is complete.".to_owned()),
        v1::SweepState::Cancelled => {
            Some("The sweep was cancelled: nothing more is run.".to_owned())
        }
        v1::SweepState::Paused => Some(format!(
            "The sweep is paused: what is in leases is finished, and nothing more is given out until `ergodic resume {sweep}`."
        )),
        v1::SweepState::Running | v1::SweepState::Unspecified => None,
    }
}

fn render_missing_class(missing: &v1::ExplainMissingClass) -> String {
    let offered: Vec<String> = missing
        .offered
        .iter()
        .map(|offer| format!("{} ({})", offer.numerics, offer.workers))
        .collect();
    format!(
        "No joined worker offers the numerics class {} that the sweep is pinned to; offered: {}.",
        missing.numerics,
        offered.join(", ")
    )
}

fn render_precision(precision: &v1::ExplainPrecision) -> String {
    let v1::ExplainPrecision {
        metric,
        cells,
        known,
        open,
        expected_trials,
        ..
    } = precision;

    let ci95 = format_shortest(precision.ci95);
    let mut line = format!("{known} of {cells} cells know the mean of {metric} to ± {ci95}");

    if *known > 0 {
        let parts: Vec<String> = precision
            .reached
            .iter()
            .map(|reached| format!("{} at {}", reached.cells, reached.repeats))
            .collect();
        line += &format!(" (cells at so many repeats: {})", parts.join(", "));
    }

    if precision.exhausted > 0 {
        line += &format!(
            "; not even with all {} repeats: {}",
            precision.most, precision.exhausted
        );
    }

    if *open > 0 {
        line += &format!(
            "; {open} go on, by their spread so far to about {expected_trials} trials of the sweep in all"
        );
    }

    line + "."
}

fn render_halving(halving: &v1::ExplainHalving) -> String {
    let v1::ExplainHalving {
        metric,
        factor,
        cells,
        rung,
        standing,
        ready,
        most,
    } = halving;

    let climb = match *standing {
        all if all == *cells => format!("all {cells} cells are"),
        1 => format!("the best of {cells} cells is"),
        best => format!("the {best} best of {cells} cells are"),
    };

    let then = if rung < most {
        format!("; then one in {factor} goes on, by mean rank in {metric}")
    } else {
        String::new()
    };
    format!(
        "By successive halving, {climb} repeated {rung} times ({ready} of {standing} done){then}."
    )
}

fn render_audits(audits: &v1::ExplainAudits, sweep: &str) -> String {
    let v1::ExplainAudits {
        due,
        same,
        different,
        failed,
        ..
    } = audits;

    let made = same.saturating_add(*different).saturating_add(*failed);
    let left = due.saturating_sub(made);
    let rest = match (left, audits.state()) {
        (0, _) => String::new(),
        (_, v1::SweepState::Completed) => format!(
            " For {left} no other worker process was there: `ergodic retry {sweep}` makes them once one is."
        ),
        (_, v1::SweepState::Cancelled) => format!(" {left} will not be made."),
        _ => format!(" {left} are still to come."),
    };

    format!(
        "Audit: {made} of {due} trials were run again by another worker process: {same} yielded the same bits, {different} \
         others, {failed} failed.{rest}"
    )
}
