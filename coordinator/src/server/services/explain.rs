//! `Explain`: why a sweep, cell or trial is where it is.

use ergodic_common::number_format::format_significant;
use ergodic_common::{ErrorCode, Outcome, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::core::quarantine::CRASH_LIMIT;
use crate::core::queries::{SweepMatch, TrialLocation};
use crate::core::{Core, Sweep, UnreadableSweep};
use crate::records::{Finding, SweepState};
use crate::server::services::access::SweepApi;
use crate::server::status::explain_cell;
use crate::server::store_error;
use crate::store::{Attempt, Audit, StoredTrial};

/// A worker's name and the beginning of its process's id: several processes may have the same name.
fn describe_worker(worker: &str, process: &str) -> String {
    if process.is_empty() {
        return worker.to_owned();
    }
    format!("{worker} (process {})", process.get(..8).unwrap_or(process))
}

fn explain_end(row: &StoredTrial) -> String {
    let result = &row.result;
    let how = match &result.outcome {
        Outcome::Completed => format!("completed after {} steps", result.steps),
        Outcome::Diverged { step } => {
            format!(
                "diverged at step {step}: the loss or a weight was no longer finite, which is a result"
            )
        }
        Outcome::Failed { cause } => format!("failed: {cause}"),
    };

    let what = format!("The trial {} {how}.", result.key);
    // A trial that was given up was computed by nobody.
    if row.worker.is_empty() {
        return what;
    }

    let isa = if result.isa.is_empty() {
        String::new()
    } else {
        format!(", on {}", result.isa)
    };
    let seconds = format_significant(result.seconds, 4);
    format!("{what} It took {} {seconds} s{isa}.", row.worker)
}

/// Why a sweep is where it is.
fn explain_match(core: &Core, sweep: SweepMatch<'_>) -> Vec<String> {
    match sweep {
        SweepMatch::Readable(sweep) => core.explain_sweep(sweep),
        SweepMatch::Unreadable(UnreadableSweep { record, why }) => vec![
            format!("The sweep cannot be read by this program, and nothing of it is run: {why}."),
            format!(
                "`ergodic rm {}` removes it; a backup takes it along as it is.",
                record.id
            ),
        ],
    }
}

/// What the core knows of a trial.
struct TrialFacts {
    sweep: i64,
    state: SweepState,
    location: TrialLocation,
    /// Steps after which its checkpoint was taken.
    checkpoint_steps: Option<u64>,
    cell_lines: Vec<String>,
    sweep_lines: Vec<String>,
}

impl SweepApi {
    /// The body of `Explain`.
    pub(crate) async fn answer_explain(
        &self,
        request: v1::ExplainRequest,
    ) -> Result<Vec<String>, Status> {
        let mut lines = match request.trial {
            None => self.with_any_sweep(&request.sweep, explain_match).await?,
            Some(key) => self.explain_trial(&request.sweep, key.into()).await?,
        };
        lines.extend(
            self.0
                .storage_trouble()
                .map(|why| format!("The coordinator cannot store results: {why}.")),
        );

        Ok(lines)
    }

    async fn explain_trial(&self, id: &str, key: TrialKey) -> Result<Vec<String>, Status> {
        let facts = self
            .with_sweep(id, move |core, sweep| collect_trial_facts(core, sweep, key))
            .await??;
        let sweep = facts.sweep;
        let checkpoint_steps = facts.checkpoint_steps;

        let mut lines = match facts.location {
            TrialLocation::Done => {
                let row = self
                    .read_store(move |reader| reader.read_trial(sweep, key).map_err(store_error));
                let end = row.await?.map(|row| explain_end(&row));
                facts.cell_lines.into_iter().chain(end).collect()
            }
            _ => explain_unfinished(facts, key),
        };
        lines.extend(self.explain_audit(sweep, key).await?);
        lines.extend(checkpoint_steps.map(|steps| {
            format!("A checkpoint of it after {steps} steps is kept: it goes on from there.")
        }));

        let attempts = self
            .read_store(move |reader| reader.read_attempts(sweep, key).map_err(store_error))
            .await?;
        lines.extend(attempts.iter().map(explain_attempt));

        Ok(lines)
    }

    /// What became of a trial's audit, if it has one.
    async fn explain_audit(&self, number: i64, key: TrialKey) -> Result<Option<String>, Status> {
        let read = self.read_store(move |reader| {
            let audit = reader.read_audit(number, key);
            let row = reader.read_trial(number, key);
            Ok((audit.map_err(store_error)?, row.map_err(store_error)?))
        });
        let (Some(audit), row) = read.await? else {
            return Ok(None);
        };

        let first = describe_worker(
            &row.map(|row| row.worker).unwrap_or_default(),
            &audit.process,
        );
        if let Some(finding) = audit.finding {
            return Ok(Some(explain_finding(finding, &audit, &first)));
        }

        let progress = self
            .query_core(move |core| {
                let sweep = core.sweep(number)?;
                Some((core.locate_audit(sweep, key), sweep.state))
            })
            .await?;
        // Where it is not known whose the row is, or matters no more, any process may audit it.
        let is_any_process = audit.process.is_empty();
        Ok(Some(explain_open_audit(progress, is_any_process, &first)))
    }
}

fn collect_trial_facts(core: &Core, sweep: &Sweep, key: TrialKey) -> Result<TrialFacts, UserError> {
    if !sweep.spec.has_trial(key) {
        let message = format!(
            "the sweep {} has no trial {key}: its cells are numbered below {}, its repeats below {}",
            sweep.id,
            sweep.spec.grid.cell_number_bound(),
            sweep.spec.repeats
        );
        return Err(UserError::new(ErrorCode::NotFound, message));
    }

    Ok(TrialFacts {
        sweep: sweep.number,
        state: sweep.state,
        location: core.locate_trial(sweep, key),
        checkpoint_steps: core.checkpoint_steps(sweep.number, key),
        cell_lines: explain_cell(sweep, key),
        sweep_lines: core.explain_sweep(sweep),
    })
}

/// Why a trial has no row yet.
fn explain_unfinished(facts: TrialFacts, key: TrialKey) -> Vec<String> {
    const CANCELLED: &str = "The sweep was cancelled: it will not be run.";
    let mut lines = facts.cell_lines;

    match facts.location {
        TrialLocation::Done => {}
        TrialLocation::Unneeded => lines.push(format!(
            "The trial {key} is not run: as far as is known, its cell needs fewer repeats."
        )),
        TrialLocation::Leased {
            fence,
            worker,
            running,
        } => {
            let how = if running {
                "being run by"
            } else {
                "granted to"
            };
            lines.push(format!(
                "The trial {key} is {how} {worker}, under lease {} of epoch {}.",
                fence.lease, fence.epoch
            ));
        }
        TrialLocation::Quarantined(killed) => {
            lines.push(format!(
                "The trial {key} was in flight when {} died.",
                killed.join(", ")
            ));
            lines.push(match facts.state {
                SweepState::Cancelled => CANCELLED.into(),
                _ if killed.len() < CRASH_LIMIT => "It is run again at the end, alone.".into(),
                _ => "It is given up.".into(),
            });

            lines.extend(facts.sweep_lines);
        }
        TrialLocation::Pending => {
            lines.push(format!("The trial {key} waits for a worker."));
            if facts.state.is_open() {
                lines.extend(facts.sweep_lines);
            } else {
                lines.push(CANCELLED.into());
            }
        }
    }

    lines
}

fn explain_attempt(attempt: &Attempt) -> String {
    let cause = &attempt.cause;
    match &attempt.worker[..] {
        "" => format!("An earlier attempt failed: {cause}."),
        worker => format!(
            "An earlier attempt on {worker} failed after {} s: {cause}.",
            format_significant(attempt.seconds, 4)
        ),
    }
}

/// What came of an audit of a row that `first` computed.
fn explain_finding(finding: Finding, audit: &Audit, first: &str) -> String {
    let second = describe_worker(&audit.auditor, &audit.auditor_process);
    match finding {
        Finding::Same => {
            format!("Audit: {second} ran it again, after {first}, and got the same bits.")
        }
        Finding::Different => format!(
            "ALARM: {second} ran it again and got other bits than {first}, whose row is kept; what differs: {}.",
            audit.why
        ),
        Finding::Failed if audit.auditor.is_empty() => {
            format!("Its audit was given up: {}.", audit.why)
        }
        Finding::Failed => format!("Its audit, by {second}, failed: {}.", audit.why),
    }
}

/// Where an audit stands that nothing has come of, of a row that `first` computed; `progress` is unknown of a removed sweep.
fn explain_open_audit(
    progress: Option<(TrialLocation, SweepState)>,
    is_any_process: bool,
    first: &str,
) -> String {
    match progress {
        Some((
            TrialLocation::Leased {
                worker, running, ..
            },
            _,
        )) => {
            let how = if running {
                "is being run again by"
            } else {
                "is to be run again by"
            };
            format!("Audit: it {how} {worker}, after {first}.")
        }
        Some((_, SweepState::Completed)) if is_any_process => {
            "It was chosen to be run again, but no worker process was there.".into()
        }
        Some((_, SweepState::Completed)) => {
            format!(
                "It was chosen to be audited, but no other worker process than {first} was there."
            )
        }
        Some((_, SweepState::Cancelled)) => "It was chosen to be audited, and will not be.".into(),
        _ if is_any_process => "It is to be run again by any worker process, and compared.".into(),
        _ => format!("It is to be audited by another worker process than {first}."),
    }
}
