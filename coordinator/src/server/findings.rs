//! Findings of `ergodic explain` in the words of the wire.

use ergodic_common::{Outcome, TrialKey};
use ergodic_proto::v1;
use v1::explain_finding::Finding as WireFinding;

use crate::core::Sweep;
use crate::core::explanation::{
    CellFinding, HalvingFinding, PrecisionFinding, RunningFinding, SweepFinding, UserAction,
};
use crate::core::quarantine::CRASH_LIMIT;
use crate::records::Finding;
use crate::server::status::state_to_wire;
use crate::store::{Attempt, Audit, StoredTrial};

/// A finding about which a user can do nothing in particular.
pub(crate) fn build_finding(finding: WireFinding) -> v1::ExplainFinding {
    v1::ExplainFinding {
        finding: Some(finding),
        actions: Vec::new(),
    }
}

/// A finding and what a user can do about it.
pub(crate) fn build_finding_with_actions(
    finding: WireFinding,
    actions: &[UserAction],
) -> v1::ExplainFinding {
    let actions = actions
        .iter()
        .map(|action| action_to_wire(*action).into())
        .collect();
    v1::ExplainFinding {
        finding: Some(finding),
        actions,
    }
}

fn action_to_wire(action: UserAction) -> v1::ExplainAction {
    match action {
        UserAction::Resume => v1::ExplainAction::Resume,
        UserAction::Retry => v1::ExplainAction::Retry,
        UserAction::Remove => v1::ExplainAction::Remove,
        UserAction::JoinWorker => v1::ExplainAction::JoinWorker,
        UserAction::LaunchAgain => v1::ExplainAction::LaunchAgain,
    }
}

/// A finding that says all by being there.
pub(crate) fn no_details() -> v1::ExplainNothing {
    v1::ExplainNothing {}
}

/// A finding with a reason.
pub(crate) fn build_reason(why: String) -> v1::ExplainReason {
    v1::ExplainReason { why }
}

/// A finding of the core about a sweep.
pub(crate) fn to_sweep_finding(finding: SweepFinding) -> v1::ExplainFinding {
    let actions = finding.actions();
    let wire = match finding {
        SweepFinding::Progress {
            trials,
            counts,
            leased,
        } => WireFinding::Progress(v1::ExplainProgress {
            trials,
            completed: counts.completed,
            diverged: counts.diverged,
            failed: counts.failed,
            leased,
            waiting: trials.saturating_sub(counts.done() + leased),
        }),
        SweepFinding::Withheld { why } => WireFinding::Withheld(build_reason(why)),
        SweepFinding::Stopped { state } => WireFinding::Stopped(v1::ExplainStopped {
            state: state_to_wire(state).into(),
        }),
        SweepFinding::TimeLimit { limit } => WireFinding::TimeLimit(v1::ExplainTimeLimit {
            milliseconds: limit.as_millis().try_into().unwrap_or(u64::MAX),
        }),
        SweepFinding::Precision(precision) => {
            WireFinding::Precision(to_precision_finding(precision))
        }
        SweepFinding::Halving(halving) => WireFinding::Halving(to_halving_finding(halving)),
        SweepFinding::Audits { counts, state } => WireFinding::Audits(v1::ExplainAudits {
            due: counts.due,
            same: counts.same,
            different: counts.different,
            failed: counts.failed,
            state: state_to_wire(state).into(),
        }),
        SweepFinding::Mismatches { results } => {
            WireFinding::Mismatches(v1::ExplainMismatches { results })
        }
        SweepFinding::Variations { results } => {
            WireFinding::Variations(v1::ExplainMismatches { results })
        }
        SweepFinding::Failing { cause } => WireFinding::Failing(build_reason(cause)),
        SweepFinding::Running(running) => to_running_finding(running),
    };

    build_finding_with_actions(wire, actions)
}

fn to_running_finding(finding: RunningFinding) -> WireFinding {
    match finding {
        RunningFinding::NoWorker => WireFinding::NoWorker(no_details()),
        RunningFinding::MissingClass { numerics, offered } => {
            let offered = offered
                .into_iter()
                .map(|(numerics, workers)| v1::ExplainOffer { numerics, workers })
                .collect();
            WireFinding::MissingClass(v1::ExplainMissingClass { numerics, offered })
        }
        RunningFinding::OtherVersion => WireFinding::OtherVersion(no_details()),
        RunningFinding::Capacity {
            workers,
            slots,
            names,
        } => WireFinding::Capacity(v1::ExplainCapacity {
            workers,
            slots,
            names,
        }),
        RunningFinding::WorkerAway { worker, trials } => {
            WireFinding::WorkerAway(v1::ExplainWorkerAway { worker, trials })
        }
        RunningFinding::Quarantine { trials } => WireFinding::Quarantine(v1::ExplainQuarantine {
            trials,
            limit: CRASH_LIMIT as u32,
        }),
        RunningFinding::WorkerUnable { worker, why } => {
            WireFinding::WorkerUnable(v1::ExplainWorkerUnable { worker, why })
        }
        RunningFinding::HigherPriority { priority, sweeps } => {
            let sweeps = sweeps.into_iter().map(String::from).collect();
            WireFinding::HigherPriority(v1::ExplainPriority { priority, sweeps })
        }
        RunningFinding::SharedWorkers { weight, sweeps } => {
            let sweeps = sweeps.into_iter().map(String::from).collect();
            WireFinding::SharedWorkers(v1::ExplainWeight { weight, sweeps })
        }
    }
}

fn to_precision_finding(precision: PrecisionFinding) -> v1::ExplainPrecision {
    let reached = precision
        .reached_cells
        .iter()
        .map(|(repeats, cells)| v1::ExplainReached {
            repeats: *repeats,
            cells: *cells,
        })
        .collect();

    v1::ExplainPrecision {
        metric: precision.metric,
        ci95: precision.ci95,
        cells: precision.cells,
        known: precision.reached_cells.values().sum(),
        reached,
        exhausted: precision.exhausted_cells,
        most: precision.max_repeats,
        open: precision.open_cells,
        expected_trials: precision.expected_trials,
    }
}

fn to_halving_finding(halving: HalvingFinding) -> v1::ExplainHalving {
    v1::ExplainHalving {
        metric: halving.metric,
        factor: halving.factor,
        cells: halving.cells,
        rung: halving.rung,
        standing: halving.standing_cells,
        ready: halving.ready_cells,
        most: halving.max_repeats,
    }
}

/// The cell of a trial, and how well it is known.
pub(crate) fn to_cell_findings(sweep: &Sweep, key: TrialKey) -> Vec<v1::ExplainFinding> {
    let cell = key.cell;
    let grid = &sweep.spec.grid;
    let values = grid.axes().iter().zip(grid.axis_values(cell));
    let values = values.map(|(axis, value)| v1::ExplainAxisValue {
        axis: axis.name.clone(),
        text: axis.format_value(&value),
        value: Some((&value).into()),
    });

    let mut findings = vec![WireFinding::Cell(v1::ExplainCell {
        cell: cell.0,
        values: values.collect(),
    })];
    findings.extend(
        grid.derived_values_in(cell)
            .into_iter()
            .map(|(field, value)| {
                WireFinding::Derived(v1::ExplainDerived {
                    field: field.to_owned(),
                    value,
                })
            }),
    );
    findings.extend(sweep.explain_cell(cell).map(to_repeats_finding));

    findings.into_iter().map(build_finding).collect()
}

fn to_repeats_finding(finding: CellFinding) -> WireFinding {
    match finding {
        CellFinding::Precision {
            metric,
            ci95,
            reached,
            allowed,
            max_repeats,
        } => WireFinding::CellPrecision(v1::ExplainCellPrecision {
            metric,
            ci95,
            reached,
            allowed,
            most: max_repeats,
        }),
        CellFinding::Halving {
            metric,
            eliminated_after,
            allowed,
            max_repeats,
        } => WireFinding::CellHalving(v1::ExplainCellHalving {
            metric,
            eliminated_after,
            allowed,
            most: max_repeats,
        }),
    }
}

/// How a trial with a row ended.
pub(crate) fn to_end_finding(row: StoredTrial) -> v1::ExplainFinding {
    let result = row.result;
    let mut end = v1::ExplainEnd {
        steps: result.steps,
        seconds: result.seconds,
        worker: row.worker,
        isa: result.isa,
        ..v1::ExplainEnd::default()
    };

    match result.outcome {
        Outcome::Completed => end.set_outcome(v1::OutcomeKind::Completed),
        Outcome::Diverged { step } => {
            end.set_outcome(v1::OutcomeKind::Diverged);
            end.diverged_at = step;
        }
        Outcome::Failed { cause } => {
            end.set_outcome(v1::OutcomeKind::Failed);
            end.cause = cause;
        }
    }

    build_finding(WireFinding::Ended(end))
}

/// An earlier attempt at a trial.
pub(crate) fn to_attempt_finding(attempt: Attempt) -> v1::ExplainFinding {
    build_finding(WireFinding::Attempt(v1::ExplainAttempt {
        worker: attempt.worker,
        seconds: attempt.seconds,
        cause: attempt.cause,
    }))
}

/// Explains the finding of an audit of a row that `first` computed.
pub(crate) fn to_audit_finding(
    finding: Finding,
    audit: Audit,
    first: v1::ExplainProcess,
) -> v1::ExplainFinding {
    let finding = match finding {
        Finding::Same => v1::ExplainAuditFinding::Same,
        Finding::Different => v1::ExplainAuditFinding::Different,
        Finding::Failed => v1::ExplainAuditFinding::Failed,
    };
    let second = v1::ExplainProcess {
        worker: audit.auditor,
        process: audit.auditor_process.into(),
    };

    build_finding(WireFinding::AuditFound(v1::ExplainAuditFound {
        finding: finding.into(),
        first: Some(first),
        second: Some(second).filter(|second| !second.worker.is_empty()),
        why: audit.why,
    }))
}
