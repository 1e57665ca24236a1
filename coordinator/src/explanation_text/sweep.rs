//! Sentences about sweeps.

use std::time::Duration;

use ergodic_common::duration::format_duration;
use ergodic_common::number_format::{format_count, format_shortest};
use ergodic_common::program::{find_version, is_program_class};
use ergodic_proto::v1;
use v1::explain_finding::Finding;

/// A finding about the sweep of this id; `None` for any other, or one that this program does not know.
pub(super) fn render_sweep_finding(finding: &Finding, sweep: &str) -> Option<String> {
    Some(match finding {
        Finding::Progress(progress) => render_progress(progress),
        Finding::Withheld(withheld) => format!(
            "The sweep is read-only, and none of its trials are run: {}.",
            withheld.why
        ),
        Finding::Stopped(stopped) => return render_stopped(stopped, sweep),
        Finding::TimeLimit(limit) => format!(
            "A trial that takes longer than {} is stopped and fails.",
            format_duration(Duration::from_millis(limit.milliseconds))
        ),
        Finding::Precision(precision) => render_precision(precision),
        Finding::Halving(halving) => render_halving(halving),
        Finding::Audits(audits) => render_audits(audits, sweep),
        Finding::Mismatches(mismatches) => format!(
            "ALARM: {} differed from rows stored earlier, though every trial should yield the same bits.",
            format_count(mismatches.results, "result")
        ),
        Finding::Variations(variations) => format!(
            "{} differed from rows stored earlier, as results of a program may that is not declared deterministic.",
            format_count(variations.results, "result")
        ),
        Finding::Failing(failing) => format!(
            "The sweep paused itself, because its first trials failed and none succeeded. One failed so: {}",
            failing.why
        ),
        Finding::Unreadable(unreadable) => format!(
            "This program cannot read the sweep, and runs none of its trials: {}.",
            unreadable.why
        ),
        Finding::Removable(_) => {
            format!("`ergodic rm {sweep}` removes it; a backup includes it unchanged.")
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
            "The offered class belongs to another version of the same engine, and a sweep does not mix results of different \
             versions: to finish it, join a worker of the version that it was launched with, or launch its file again as a \
             sweep of the offered version. Its rows stay as they are."
                .to_owned()
        }
        Finding::Capacity(capacity) => render_capacity(capacity),
        Finding::WorkerAway(away) => format!(
            "{} does not answer and holds {}, reassigned when its lease ends.",
            away.worker,
            format_count(away.trials, "trial")
        ),
        Finding::Quarantine(v1::ExplainQuarantine { trials, limit }) => format!(
            "{} may have been running when workers crashed, more than once: each is run again at the end, \
             alone; after {limit} crashes it is given up.",
            format_count(*trials, "trial")
        ),
        Finding::WorkerUnable(unable) => {
            format!("{} cannot run it: {}", unable.worker, unable.why)
        }
        Finding::HigherPriority(higher) => format!(
            "Its priority is {}; sweeps with a higher priority get workers first: {}.",
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

fn render_capacity(capacity: &v1::ExplainCapacity) -> String {
    let v1::ExplainCapacity {
        workers,
        slots,
        names,
    } = capacity;

    let more = u64::from(*workers).saturating_sub(names.len() as u64);
    let named = match (names.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(": {}", names.join(", ")),
        (false, _) => format!(": {} and {more} more", names.join(", ")),
    };
    format!(
        "{} with {} can run it{named}.",
        format_count((*workers).into(), "worker"),
        format_count((*slots).into(), "slot")
    )
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
        "{done} of {trials} trials have a row ({completed} completed, {diverged} diverged, {failed} failed); {leased} are \
         leased, {waiting} are waiting."
    )
}

fn render_stopped(stopped: &v1::ExplainStopped, sweep: &str) -> Option<String> {
    match stopped.state() {
        v1::SweepState::Completed => Some("The sweep is complete.".to_owned()),
        v1::SweepState::Cancelled => {
            Some("The sweep was cancelled: no more trials are run.".to_owned())
        }
        v1::SweepState::Paused => Some(format!(
            "The sweep is paused: leased trials finish, and no new ones start until `ergodic resume {sweep}`."
        )),
        v1::SweepState::Running | v1::SweepState::Unspecified => None,
    }
}

fn render_missing_class(missing: &v1::ExplainMissingClass) -> String {
    if is_program_class(&missing.numerics) {
        return "No joined worker runs programs: start one with `ergodic-worker --programs`."
            .to_owned();
    }
    let offered: Vec<String> = missing
        .offered
        .iter()
        .map(|offer| format!("{} ({})", offer.numerics, offer.workers))
        .collect();
    if let Some((name, version)) = find_version(&missing.numerics) {
        return format!(
            "No joined worker has version {version} of the experiment '{name}' that the sweep is pinned to: start a worker program \
             that has it; offered: {}.",
            offered.join(", ")
        );
    }
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
    let all = format_count(*cells, "cell");
    let mut line = format!("In {known} of {all} the mean of {metric} is known to ± {ci95}");

    if *known > 0 {
        let parts: Vec<String> = precision
            .reached
            .iter()
            .map(|reached| format!("{} at {}", reached.cells, reached.repeats))
            .collect();
        line += &format!(" (cells by repeats: {})", parts.join(", "));
    }

    if precision.exhausted > 0 {
        line += &format!(
            "; not reached with all {}: {}",
            format_count(precision.most.into(), "repeat"),
            precision.exhausted
        );
    }

    if *open > 0 {
        line += &format!(
            "; {open} continue, and by their spread so far the sweep will take about {} in all",
            format_count(*expected_trials, "trial")
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

    let of_cells = format_count(*cells, "cell");
    let climb = match *standing {
        1 if *cells == 1 => "the only cell is".to_owned(),
        all if all == *cells => format!("all {of_cells} are"),
        1 => format!("the best of {of_cells} is"),
        best => format!("the {best} best of {of_cells} are"),
    };

    let then = if rung < most {
        format!("; then one in {factor} continues, by mean rank in {metric}")
    } else {
        String::new()
    };
    format!(
        "By successive halving, {climb} repeated {} ({ready} of {standing} done){then}.",
        format_count((*rung).into(), "time")
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
    let were = if made == 1 { "was" } else { "were" };
    let rest = match (left, audits.state()) {
        (0, _) => String::new(),
        (_, v1::SweepState::Completed) => format!(
            " For {left} no other worker process was available: `ergodic retry {sweep}` runs them once there is one."
        ),
        (_, v1::SweepState::Cancelled) => format!(" {left} will not be run."),
        _ => format!(" {left} are still to be run."),
    };

    format!(
        "Audit: {made} of {} {were} run again by another worker process: {same} yielded the same bits, {different} \
         different bits, {failed} failed.{rest}",
        format_count(*due, "trial")
    )
}

#[cfg(test)]
mod tests {
    use crate::explanation_text::sweep::*;

    #[test]
    fn workers_are_named_where_not_all_have_what_a_sweep_needs() {
        let capacity = |workers, names: &[&str]| {
            render_capacity(&v1::ExplainCapacity {
                workers,
                slots: 8,
                names: names.iter().map(|name| (*name).to_owned()).collect(),
            })
        };
        assert_eq!(capacity(1, &[]), "1 worker with 8 slots can run it.");
        assert_eq!(
            capacity(2, &["desk", "rack"]),
            "2 workers with 8 slots can run it: desk, rack."
        );
        assert_eq!(
            capacity(9, &["desk", "rack"]),
            "9 workers with 8 slots can run it: desk, rack and 7 more."
        );
    }
}
