//! Sentences about trials, their cells and their audits.

use ergodic_common::TrialKey;
use ergodic_common::number_format::{format_count, format_shortest, format_significant};
use ergodic_common::spec_file::node::SpecValue;
use ergodic_common::spec_file::node::format_short_value;
use ergodic_proto::v1;
use v1::explain_finding::Finding;

/// A finding about a trial's cell; `None` for any other.
pub(super) fn render_cell_finding(finding: &Finding) -> Option<String> {
    match finding {
        Finding::Cell(cell) => Some(render_cell(cell)),
        Finding::Derived(derived) => Some(format!(
            "derived: {} = {}",
            derived.field,
            format_short_value(&SpecValue::Float(derived.value))
        )),
        Finding::CellPrecision(precision) => Some(render_cell_precision(precision)),
        Finding::CellHalving(halving) => Some(render_cell_halving(halving)),
        _ => None,
    }
}

/// A finding about a trial; `None` for any other, or one that this program does not know.
pub(super) fn render_trial_finding(finding: &Finding, key: TrialKey) -> Option<String> {
    Some(match finding {
        Finding::Ended(end) => return render_end(end, key),
        Finding::NotNeeded(_) => {
            format!(
                "The trial {key} is not run: by the results so far, its cell needs fewer repeats."
            )
        }
        Finding::Leased(lease) => {
            let how = if lease.running {
                "being run by"
            } else {
                "granted to"
            };
            format!(
                "The trial {key} is {how} {}, under lease {} of epoch {}.",
                lease.worker, lease.lease, lease.epoch
            )
        }
        Finding::Crashes(crashes) => format!(
            "The trial {key} may have been running when {} crashed.",
            crashes.workers.join(", ")
        ),
        Finding::RunsAlone(_) => "It is run again at the end, alone.".to_owned(),
        Finding::GivenUp(_) => "It is given up.".to_owned(),
        Finding::Waiting(_) => format!("The trial {key} waits for a worker."),
        Finding::NeverRun(_) => "The sweep was cancelled: it will not be run.".to_owned(),
        Finding::Checkpoint(v1::ExplainCheckpoint { steps }) => {
            let steps = format_count(*steps, "step");
            format!("A checkpoint after {steps} is stored: the trial continues from there.")
        }
        Finding::Attempt(attempt) => render_attempt(attempt),
        _ => return None,
    })
}

/// A finding about a trial's audit; `None` for any other, or one that this program does not know.
pub(super) fn render_audit_finding(finding: &Finding) -> Option<String> {
    match finding {
        Finding::AuditFound(found) => render_audit_found(found),
        Finding::AuditLeased(lease) => {
            let how = if lease.running {
                "is being run again by"
            } else {
                "is to be run again by"
            };
            Some(format!(
                "Audit: it {how} {}, after {}.",
                lease.worker,
                describe_process(lease.first.as_ref())
            ))
        }
        Finding::AuditDue(due) => Some(render_audit_due(due)),
        _ => None,
    }
}

fn render_cell(cell: &v1::ExplainCell) -> String {
    let parts: Vec<String> = cell
        .values
        .iter()
        .map(|value| format!("{}={}", value.axis, value.text))
        .collect();
    let values = if parts.is_empty() {
        "the only cell".to_owned()
    } else {
        parts.join(", ")
    };

    format!("cell {}: {values}", cell.cell)
}

fn render_cell_precision(precision: &v1::ExplainCellPrecision) -> String {
    let v1::ExplainCellPrecision {
        metric,
        allowed,
        most,
        ..
    } = precision;
    let ci95 = format_shortest(precision.ci95);

    match precision.reached {
        Some(n) => {
            let repeats = format_count(n.into(), "repeat");
            format!("The mean of {metric} in its cell was known to ± {ci95} after {repeats}.")
        }
        None => format!(
            "The mean of {metric} in its cell is not known to ± {ci95}; {allowed} of at most {most} repeats are run."
        ),
    }
}

fn render_cell_halving(halving: &v1::ExplainCellHalving) -> String {
    let v1::ExplainCellHalving {
        metric,
        allowed,
        most,
        ..
    } = halving;

    match halving.eliminated_after {
        Some(n) => format!(
            "By {metric} its cell was not among the best after {}.",
            format_count(n.into(), "repeat")
        ),
        None => format!(
            "Its cell is among the best so far, by {metric}; {allowed} of at most {most} repeats are run."
        ),
    }
}

fn render_end(end: &v1::ExplainEnd, key: TrialKey) -> Option<String> {
    let how = match end.outcome() {
        v1::OutcomeKind::Completed => {
            format!("completed after {}", format_count(end.steps, "step"))
        }
        v1::OutcomeKind::Diverged => format!(
            "diverged at step {}: the loss or a weight was no longer finite, which counts as a result",
            end.diverged_at
        ),
        v1::OutcomeKind::Failed => format!("failed: {}", end.cause),
        v1::OutcomeKind::Unspecified => return None,
    };

    let what = format!("The trial {key} {how}.");
    // No worker computed a trial that was given up.
    if end.worker.is_empty() {
        return Some(what);
    }

    let isa = if end.isa.is_empty() {
        String::new()
    } else {
        format!(", on {}", end.isa)
    };
    let seconds = format_significant(end.seconds, 4);
    Some(format!("{what} It took {} {seconds} s{isa}.", end.worker))
}

fn render_attempt(attempt: &v1::ExplainAttempt) -> String {
    let cause = &attempt.cause;
    match &attempt.worker[..] {
        "" => format!("An earlier attempt failed: {cause}."),
        worker => format!(
            "An earlier attempt on {worker} failed after {} s: {cause}.",
            format_significant(attempt.seconds, 4)
        ),
    }
}

fn render_audit_found(found: &v1::ExplainAuditFound) -> Option<String> {
    let first = describe_process(found.first.as_ref());
    let second = describe_process(found.second.as_ref());
    let why = &found.why;

    match found.finding() {
        v1::ExplainAuditFinding::Same => Some(format!(
            "Audit: {second} ran it again, after {first}, and got the same bits."
        )),
        v1::ExplainAuditFinding::Different => Some(format!(
            "ALARM: {second} ran it again and got different bits than {first}, whose row is kept; difference: {why}."
        )),
        v1::ExplainAuditFinding::Failed if found.second.is_none() => {
            Some(format!("Its audit was given up: {why}."))
        }
        v1::ExplainAuditFinding::Failed => Some(format!("Its audit, by {second}, failed: {why}.")),
        v1::ExplainAuditFinding::Unspecified => None,
    }
}

fn render_audit_due(due: &v1::ExplainAuditDue) -> String {
    let first = describe_process(due.first.as_ref());
    match due.state() {
        v1::SweepState::Completed if due.any_process => {
            "It was chosen to be run again, but no worker process was available.".to_owned()
        }
        v1::SweepState::Completed => format!(
            "It was chosen to be audited, but no worker process other than {first} was available."
        ),
        v1::SweepState::Cancelled => "It was chosen to be audited, and will not be.".to_owned(),
        _ if due.any_process => {
            "It is to be run again by any worker process, and compared.".to_owned()
        }
        _ => format!("It is to be audited by a worker process other than {first}."),
    }
}

/// A worker's name and the first digits of its process's id, because several processes may share a
/// name.
fn describe_process(process: Option<&v1::ExplainProcess>) -> String {
    let Some(v1::ExplainProcess { worker, process }) = process else {
        return String::new();
    };
    if process.is_empty() {
        return worker.clone();
    }
    format!("{worker} (process {})", process.get(..8).unwrap_or(process))
}
