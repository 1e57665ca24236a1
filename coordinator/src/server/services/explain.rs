//! `Explain`: why a sweep, cell or trial is where it is.

use ergodic_common::number_format::format_significant;
use ergodic_common::{ErrorCode, TrialKey};
use ergodic_proto::status::UserError;
use tonic::Status;

use crate::core::quarantine::CRASH_LIMIT;
use crate::core::queries::{SweepMatch, TrialLocation};
use crate::core::{Core, Sweep, UnreadableSweep};
use crate::records::{Finding, SweepState};
use crate::server::services::access::SweepApi;
use crate::server::status::explain_cell;
use crate::server::store_error;
use crate::store::{StoreReader, StoredTrial};

/// A worker process in words: several may have the same name.
pub(crate) fn describe_worker(worker: &str, process: &str) -> String {
    if process.is_empty() {
        return worker.to_owned();
    }
    format!("{worker} (process {})", process.get(..8).unwrap_or(process))
}

pub(crate) fn explain_end(row: &StoredTrial) -> String {
    use ergodic_common::Outcome;
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

    let isa = if result.isa.is_empty() {
        String::new()
    } else {
        format!(", on {}", result.isa)
    };

    let what = format!("The trial {} {how}.", result.key);
    // Whoever is given up was computed by nobody.
    if row.worker.is_empty() {
        what
    } else {
        format!(
            "{what} It took {} {} s{isa}.",
            row.worker,
            format_significant(result.seconds, 4)
        )
    }
}

/// Why a sweep is where it is.
pub(crate) fn explain_match(core: &Core, meant: SweepMatch<'_>) -> Vec<String> {
    match meant {
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

impl SweepApi {
    pub(crate) async fn explain_trial(
        &self,
        id: &str,
        key: TrialKey,
    ) -> Result<Vec<String>, Status> {
        let place = move |core: &Core, sweep: &Sweep| {
            if !sweep.spec.has_trial(key) {
                let message = format!(
                    "the sweep {} has no trial {key}: its cells are numbered below {}, its repeats below {}",
                    sweep.id,
                    sweep.spec.grid.cell_number_bound(),
                    sweep.spec.repeats
                );
                return Err(UserError::new(ErrorCode::NotFound, message));
            }

            let state = sweep.state;
            let kept = core.checkpoint_steps(sweep.number, key);
            let lines = (explain_cell(sweep, key), core.explain_sweep(sweep));
            Ok((
                sweep.number,
                lines,
                core.locate_trial(sweep, key),
                kept,
                state,
            ))
        };
        let (number, (mut lines, sweep_lines), place, kept, state) =
            self.with_sweep(id, place).await??;
        match place {
            TrialLocation::Done => {
                let row = self
                    .read_store(move |reader| reader.read_trial(number, key).map_err(store_error))
                    .await?;
                lines.extend(row.map(|row| explain_end(&row)));
            }
            TrialLocation::Unneeded => {
                lines.push(format!(
                    "The trial {key} is not run: as far as is known, its cell needs fewer repeats."
                ));
            }
            TrialLocation::Leased {
                fence,
                worker,
                running,
            } => lines.push(format!(
                "The trial {key} is {} {worker}, under lease {} of epoch {}.",
                if running {
                    "being run by"
                } else {
                    "granted to"
                },
                fence.lease,
                fence.epoch
            )),
            TrialLocation::Quarantined(killed) => {
                lines.push(format!(
                    "The trial {key} was in flight when {} died.",
                    killed.join(", ")
                ));
                lines.push(match state {
                    SweepState::Cancelled => "The sweep was cancelled: it will not be run.".into(),
                    _ if killed.len() < CRASH_LIMIT => "It is run again at the end, alone.".into(),
                    _ => "It is given up.".into(),
                });

                lines.extend(sweep_lines);
            }
            TrialLocation::Pending => {
                lines.push(format!("The trial {key} waits for a worker."));
                if state.is_open() {
                    lines.extend(sweep_lines);
                } else {
                    lines.push("The sweep was cancelled: it will not be run.".into());
                }
            }
        }

        lines.extend(self.explain_audit(number, key).await?);
        lines.extend(kept.map(|steps| {
            format!("A checkpoint of it after {steps} steps is kept: it goes on from there.")
        }));
        let attempts = self
            .read_store(move |reader| reader.read_attempts(number, key).map_err(store_error))
            .await?;
        lines.extend(attempts.iter().map(|attempt| match &attempt.worker[..] {
            "" => format!("An earlier attempt failed: {}.", attempt.cause),
            worker => {
                format!(
                    "An earlier attempt on {worker} failed after {} s: {}.",
                    format_significant(attempt.seconds, 4),
                    attempt.cause
                )
            }
        }));

        Ok(lines)
    }

    /// What became of a trial's audit, if it has one.
    pub(crate) async fn explain_audit(
        &self,
        number: i64,
        key: TrialKey,
    ) -> Result<Option<String>, Status> {
        let read = move |reader: &dyn StoreReader| {
            let audit = reader.read_audit(number, key);
            let row = reader.read_trial(number, key);
            Ok((audit.map_err(store_error)?, row.map_err(store_error)?))
        };
        let (Some(audit), row) = self.read_store(read).await? else {
            return Ok(None);
        };

        let place = self.query_core(move |core| {
            let sweep = core.sweep(number)?;
            Some((core.locate_audit(sweep, key), sweep.state))
        });
        let first = describe_worker(
            &row.map(|row| row.worker).unwrap_or_default(),
            &audit.process,
        );

        // Where it is not known whose the row is, or matters no more, any process may.
        let any = audit.process.is_empty();
        let second = describe_worker(&audit.auditor, &audit.auditor_process);
        Ok(Some(match audit.finding {
            Some(Finding::Same) => {
                format!("Audit: {second} ran it again, after {first}, and got the same bits.")
            }
            Some(Finding::Different) => format!(
                "ALARM: {second} ran it again and got other bits than {first}, whose row is kept; what differs: {}.",
                audit.why
            ),
            Some(Finding::Failed) if audit.auditor.is_empty() => {
                format!("Its audit was given up: {}.", audit.why)
            }
            Some(Finding::Failed) => format!("Its audit, by {second}, failed: {}.", audit.why),
            None => match place.await? {
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
                Some((_, SweepState::Completed)) if any => {
                    "It was chosen to be run again, but no worker process was there.".into()
                }
                Some((_, SweepState::Completed)) => {
                    format!(
                        "It was chosen to be audited, but no other worker process than {first} was there."
                    )
                }
                Some((_, SweepState::Cancelled)) => {
                    "It was chosen to be audited, and will not be.".into()
                }
                _ if any => "It is to be run again by any worker process, and compared.".into(),
                _ => format!("It is to be audited by another worker process than {first}."),
            },
        }))
    }
}
