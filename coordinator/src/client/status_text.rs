//! Describes the status of a sweep: its size, progress, audits and stopping rule.

use ergodic_common::escape::escape_line;
use ergodic_common::number_format::{format_count, format_shortest, format_significant};
use ergodic_proto::v1;

use super::Client;
use super::render::non_empty;

/// The state of a sweep in one word, including whether the coordinator can run it.
pub fn status_word(status: &v1::SweepStatus) -> &'static str {
    match (status.unreadable, status.withheld.is_empty()) {
        (true, _) => "unreadable",
        (false, false) => "read-only",
        (false, true) => state_word(status.state()),
    }
}

/// A state in one word.
pub fn state_word(state: v1::SweepState) -> &'static str {
    match state {
        v1::SweepState::Running => "running",
        v1::SweepState::Completed => "completed",
        v1::SweepState::Cancelled => "cancelled",
        v1::SweepState::Paused => "paused",
        v1::SweepState::Unspecified => "unknown",
    }
}

/// The user who launched a sweep, if known.
pub fn launched_by(s: &v1::SweepStatus) -> Option<&str> {
    non_empty(&s.launched_by)
}

/// Formats `6 cells × 20 to 500 repeats = 120 trials so far, about 340 in all`.
pub fn format_sweep_size(s: &v1::SweepStatus) -> String {
    let v1::SweepStatus {
        cells,
        repeats,
        trials,
        ..
    } = s;
    let [cells, total] =
        [(*cells, "cell"), (*trials, "trial")].map(|(n, noun)| format_count(n, noun));
    let (min, about) = match (&s.precision, &s.halving) {
        (None, None) => {
            let repeats = format_count((*repeats).into(), "repeat");
            return format!("{cells} × {repeats} = {total}");
        }
        (Some(precision), _) => (precision.min, "about "),
        // Halving fixes in advance how many cells go on, so the number is exact.
        (None, Some(halving)) => (halving.min, ""),
    };
    let size = format!(
        "{cells} × {min} to {} = {total}",
        format_count((*repeats).into(), "repeat")
    );

    let expected = expected_trials(s);
    if expected > *trials {
        format!("{size} so far, {about}{expected} in all")
    } else {
        size
    }
}

/// Expected number of trials in the end, as far as the stopping rule lets one tell.
pub fn expected_trials(s: &v1::SweepStatus) -> u64 {
    let precision = s
        .precision
        .as_ref()
        .map(|precision| precision.expected_trials);
    let halving = s.halving.as_ref().map(|halving| halving.expected_trials);
    precision.or(halving).unwrap_or(s.trials)
}

/// Number of trials with a row.
pub fn count_done_trials(status: &v1::SweepStatus) -> u64 {
    status.completed + status.diverged + status.failed
}

/// Who answers for the status of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusSource {
    /// A coordinator, which knows the workers.
    Coordinator,
    /// A store, which this process only reads: nothing runs here.
    Store,
}

impl StatusSource {
    /// What a client's statuses come from.
    pub fn of_client(client: &Client) -> Self {
        match client.is_on_store() {
            true => Self::Store,
            false => Self::Coordinator,
        }
    }
}

/// Formats `12.5/s  eta 1m 20s  2 workers/4 slots  3 diverged  best test_acc 0.981 at lr=0.1`.
pub fn format_progress(status: &v1::SweepStatus, source: StatusSource) -> String {
    let mut parts = Vec::new();
    if status.state() == v1::SweepState::Paused {
        parts.push(format!(
            "paused: `ergodic resume {}` continues it",
            status.id
        ));
    }

    if status.rate > 0.0 {
        parts.push(format!("{}/s", format_significant(status.rate, 3)));
        parts.push(format!("eta {}", format_duration(status.eta_seconds)));
    }

    if status.state() == v1::SweepState::Running {
        parts.push(match status.workers {
            // A standby knows no workers, so it names the leader.
            0 if !status.leader.is_empty() => format!("the coordinator at {} leads", status.leader),
            0 if source == StatusSource::Store => {
                "nothing runs here: only the store is read".to_owned()
            }
            0 => "no worker yet".to_owned(),
            n => format!(
                "{}/{} slots",
                format_count(n.into(), "worker"),
                status.slots
            ),
        });
    }

    parts.extend(Some(format_incomplete_counts(status)).filter(|text| !text.is_empty()));
    parts.extend(describe_cells(status));
    parts.join("  ")
}

/// Describes what cells and audits still need, and the best cell so far.
fn describe_cells(status: &v1::SweepStatus) -> Vec<String> {
    let mut parts = Vec::new();
    let audits = status.audit.as_ref().map_or(0, remaining_audits);
    if audits > 0 && status.state() == v1::SweepState::Running {
        parts.push(format!("{audits} to be audited"));
    }

    if let Some(precision) = &status.precision {
        parts.push(format!(
            "{}/{} known",
            precision.reached,
            format_count(status.cells, "cell")
        ));
    }

    if let Some(halving) = &status.halving {
        parts.push(format!(
            "{} of {} to {}",
            halving.climbing,
            format_count(status.cells, "cell"),
            format_count(halving.rung.into(), "repeat")
        ));
    }

    if status.best_n > 0 {
        parts.push(format!(
            "best {} {} at {}",
            status.metric,
            format_significant(status.best_mean, 4),
            escape_line(&status.best_cell)
        ));
    }

    parts
}

/// Formats `3 diverged  1 failed`.
pub fn format_incomplete_counts(status: &v1::SweepStatus) -> String {
    let counts = [(status.diverged, "diverged"), (status.failed, "failed")];
    counts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect::<Vec<_>>()
        .join("  ")
}

/// Formats `by test_acc, 4 of 12 cells are repeated 18 times: 1 of them has been`.
pub fn format_halving_status(s: &v1::SweepStatus) -> Option<String> {
    let v1::HalvingStatus {
        metric,
        rung,
        climbing: standing,
        ready,
        ..
    } = s.halving.as_ref()?;
    let is = if *standing == 1 { "is" } else { "are" };

    let has = if *ready == 1 { "has" } else { "have" };
    Some(format!(
        "by {metric}, {standing} of {} {is} repeated {}: {ready} of them {has} been",
        format_count(s.cells, "cell"),
        format_count((*rung).into(), "time")
    ))
}

/// Formats `in 4 of 6 cells the mean of test_acc is known to ± 0.001; not reached with all 500 repeats: 1`.
pub fn format_precision_status(s: &v1::SweepStatus) -> Option<String> {
    let v1::PrecisionStatus {
        metric,
        ci95,
        reached,
        exhausted,
        ..
    } = s.precision.as_ref()?;
    let mut line = format!(
        "in {reached} of {} the mean of {metric} is known to ± {}",
        format_count(s.cells, "cell"),
        format_shortest(*ci95)
    );

    if *exhausted > 0 {
        let all = format_count(s.repeats.into(), "repeat");
        line += &format!("; not reached with all {all}: {exhausted}");
    }

    Some(line)
}

/// Formats `audit: 12 of 12 trials run again by another worker process, 12 with the same bits`.
pub fn format_audit_status(status: &v1::SweepStatus) -> Option<String> {
    let audit = status.audit.as_ref()?;
    let left = remaining_audits(audit);
    let made = audit.due - remaining_audits(audit);
    let mut line = format!(
        "audit: {made} of {} run again by another worker process, {} with the same bits",
        format_count(audit.due, "trial"),
        audit.same
    );

    let parts = [
        (audit.different, "with OTHER bits"),
        (audit.failed, "failed"),
    ];
    parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .for_each(|(n, what)| line += &format!(", {n} {what}"));

    line += &match (left, status.state()) {
        (0, _) => String::new(),
        (left, v1::SweepState::Completed) => {
            format!("; no other worker process was available for {left}")
        }
        (left, v1::SweepState::Cancelled) => format!("; {left} were not made"),
        (left, _) => format!("; {left} to come"),
    };

    Some(line)
}

/// Number of audits without a finding.
pub fn remaining_audits(audit: &v1::AuditStatus) -> u64 {
    audit
        .due
        .saturating_sub(audit.same + audit.different + audit.failed)
}

/// Formats `45s`, `3m 20s`, `2h 5m` or `3d 4h`.
pub fn format_duration(seconds: f64) -> String {
    let s = seconds.max(0.0).ceil() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use crate::client::status_text::*;

    #[test]
    fn a_small_best_value_is_no_zero() {
        let best = |mean| v1::SweepStatus {
            best_n: 3,
            best_mean: mean,
            metric: "test_loss".into(),
            ..Default::default()
        };
        let progress = |mean| format_progress(&best(mean), StatusSource::Coordinator);
        assert!(
            progress(2.3e-10).contains("best test_loss 2.3e-10 at"),
            "{}",
            progress(2.3e-10)
        );

        assert!(progress(0.98123).contains("best test_loss 0.9812 at"));
    }

    #[test]
    fn a_store_that_is_only_read_awaits_no_worker() {
        let running = v1::SweepStatus {
            state: v1::SweepState::Running.into(),
            ..v1::SweepStatus::default()
        };
        assert_eq!(
            [StatusSource::Coordinator, StatusSource::Store]
                .map(|source| format_progress(&running, source)),
            ["no worker yet", "nothing runs here: only the store is read"]
        );
    }

    #[test]
    fn one_of_a_kind_is_singular() {
        let one = v1::SweepStatus {
            cells: 1,
            repeats: 1,
            trials: 1,
            audit: Some(v1::AuditStatus {
                due: 1,
                same: 1,
                ..v1::AuditStatus::default()
            }),
            ..v1::SweepStatus::default()
        };
        assert_eq!(format_sweep_size(&one), "1 cell × 1 repeat = 1 trial");
        assert_eq!(
            format_audit_status(&one).as_deref(),
            Some("audit: 1 of 1 trial run again by another worker process, 1 with the same bits")
        );

        let several = v1::SweepStatus {
            cells: 2,
            repeats: 3,
            trials: 6,
            ..v1::SweepStatus::default()
        };
        assert_eq!(
            format_sweep_size(&several),
            "2 cells × 3 repeats = 6 trials"
        );
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(
            [0.2, 59.5, 61.0, 7500.0, 200_000.0].map(format_duration),
            ["1s", "1m 0s", "1m 1s", "2h 5m", "2d 7h"]
        );
    }
}
