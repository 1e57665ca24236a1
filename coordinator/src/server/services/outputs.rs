//! `Output`: what a trial's program printed, as stored, or as its worker tells while it runs.

use ergodic_common::{ErrorCode, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use super::access::{SweepApi, check_has_trial};
use super::live_output::LiveOutput;
use super::stored_outputs::{EndedAttempts, OutputTrial};
use crate::core::Sweep;
use crate::core::queries::TrialLocation;
use crate::server::auth::Principal;
use crate::server::limits::{PageSender, ResponseStream};

impl SweepApi {
    /// The body of `Output`. The stream of an attempt that runs ends with it, or when the principal's token is revoked.
    pub(crate) async fn stream_output(
        &self,
        request: v1::OutputRequest,
        principal: Option<Principal>,
    ) -> Result<ResponseStream<v1::OutputResponse>, Status> {
        let permit = self.0.limits.watchers.try_acquire()?;
        let Some(key) = request.trial.map(TrialKey::from) else {
            let message = "the field trial of OutputRequest is missing";
            return Err(Status::invalid_argument(message));
        };
        let (trial, location) = self
            .with_sweep(&request.sweep, move |core, sweep| {
                let trial = find_trial(sweep, key)?;
                Ok::<_, UserError>((trial, core.locate_trial(sweep, key)))
            })
            .await??;
        let ended = self.read_ended_attempts(trial).await?;
        // The row may have been stored since the core was asked.
        let location = match ended.has_row {
            true => TrialLocation::Done,
            false => location,
        };

        let mut attempt = choose_attempt(request.attempt, ended.count(), &location, key)?;
        let (pages, stream) = PageSender::new(permit);
        if attempt > ended.count()
            && let TrialLocation::Leased { fence, worker, .. } = location
        {
            let api = Self(self.0.clone());
            let live = LiveOutput::new(api, trial, (fence, worker.clone()), attempt);
            let first = live.ask_worker().await?;
            if first.place() != v1::TrialPlace::Queued {
                let context = self.0.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = live.send_parts(first, request.follow, &pages) => {}
                        () = context.wait_until_revoked(principal) => {}
                    }
                });
                return Ok(stream);
            }
            attempt = choose_before_queued(request.attempt, ended.count(), &worker, key)?;
        }

        let response = self.read_response(trial, attempt, &ended).await?;
        pages.send_page(Ok(response)).await;
        Ok(stream)
    }

    async fn read_response(
        &self,
        trial: OutputTrial,
        attempt: u32,
        ended: &EndedAttempts,
    ) -> Result<v1::OutputResponse, Status> {
        let response = v1::OutputResponse {
            attempt,
            ..v1::OutputResponse::default()
        };
        Ok(match self.read_stored_output(trial, attempt).await? {
            Some((output, bytes)) => v1::OutputResponse {
                missing: output.printed - bytes.len() as u64,
                bytes,
                ..response
            },
            None => v1::OutputResponse {
                note: ended.explain_nothing(attempt, trial.key),
                ..response
            },
        })
    }
}

/// Finds a trial that may have printed something.
fn find_trial(sweep: &Sweep, key: TrialKey) -> Result<OutputTrial, UserError> {
    let refused = |message: &str| Err(UserError::new(ErrorCode::Refused, message));
    match sweep.spec.program() {
        None => refused(
            "the trials of this sweep are built-in trainings, which print nothing: `ergodic curves` shows what they measured",
        ),
        Some(program) if program.experiment.is_some() => refused(
            "the trials of this sweep are an experiment inside the worker, which has no output of its own: what it prints is in the \
             output of the worker",
        ),
        Some(_) => {
            check_has_trial(sweep, key)?;
            Ok(OutputTrial {
                sweep: sweep.number,
                key,
            })
        }
    }
}

/// Chooses the attempt that is asked for, or the last one. One beyond those that `ended` is in a lease.
fn choose_attempt(
    wanted: Option<u32>,
    ended: u32,
    location: &TrialLocation,
    key: TrialKey,
) -> Result<u32, UserError> {
    let is_leased = matches!(location, TrialLocation::Leased { .. });
    let begun = ended + u32::from(is_leased);
    let attempt = wanted.unwrap_or(begun);
    match (1..=begun).contains(&attempt) {
        true => Ok(attempt),
        false => Err(refuse_attempt(begun, location, key)),
    }
}

/// Chooses the attempt before one that has not begun.
fn choose_before_queued(
    wanted: Option<u32>,
    ended: u32,
    worker: &str,
    key: TrialKey,
) -> Result<u32, UserError> {
    if wanted.is_none() && ended > 0 {
        return Ok(ended);
    }
    let message = format!(
        "the trial {key} was granted to {worker} and has not begun: there is no output of it yet"
    );
    Err(UserError::new(ErrorCode::NotFound, message))
}

fn refuse_attempt(begun: u32, location: &TrialLocation, key: TrialKey) -> UserError {
    let message = match begun {
        0 => return explain_missing(location, key),
        1 => format!("the trial {key} has had one attempt: --attempt can only be 1"),
        _ => format!(
            "the trial {key} has had {begun} attempts: --attempt is a number from 1 to {begun}"
        ),
    };
    UserError::new(ErrorCode::NotFound, message)
}

/// Why there is no output of a trial that no worker holds.
fn explain_missing(location: &TrialLocation, key: TrialKey) -> UserError {
    let message = match location {
        TrialLocation::Quarantined(_) => format!(
            "no worker holds the trial {key}: those that may have been running it crashed, and nothing is kept of its output"
        ),
        TrialLocation::Unneeded => format!(
            "the trial {key} is not run: by the results so far, its cell needs fewer repeats"
        ),
        _ => {
            format!("no worker holds the trial {key}, and it has no result: there is no output yet")
        }
    };
    UserError::new(ErrorCode::NotFound, message)
}

#[cfg(test)]
mod tests {
    use ergodic_common::ids::{Epoch, Fence, LeaseId};

    use super::*;

    const KEY: TrialKey = TrialKey::new(0, 3);

    fn leased() -> TrialLocation {
        TrialLocation::Leased {
            fence: Fence {
                lease: LeaseId(1),
                epoch: Epoch(1),
            },
            worker: "w".into(),
            running: false,
        }
    }

    fn told(wanted: Option<u32>, ended: u32, location: &TrialLocation) -> String {
        let refused = choose_attempt(wanted, ended, location, KEY).expect_err("refused");
        assert_eq!(refused.code, ErrorCode::NotFound);
        refused.message
    }

    #[test]
    fn the_last_attempt_counts_unless_another_is_asked_for() {
        let (done, leased) = (TrialLocation::Done, leased());
        let choose = |wanted, ended, location| choose_attempt(wanted, ended, location, KEY).ok();
        assert_eq!(choose(None, 3, &done), Some(3));
        assert_eq!(choose(Some(1), 3, &done), Some(1));
        assert_eq!(choose(None, 2, &leased), Some(3));
        assert_eq!(choose(Some(3), 2, &leased), Some(3));
        assert_eq!(choose(Some(2), 2, &leased), Some(2));
        let pending = TrialLocation::Pending;
        assert_eq!(choose(None, 1, &pending), Some(1));

        let before = |wanted, ended| choose_before_queued(wanted, ended, "w", KEY).ok();
        assert_eq!(before(None, 2), Some(2));
        assert_eq!(before(Some(3), 2), None);
        assert_eq!(before(None, 0), None);
    }

    #[test]
    fn each_refusal_says_what_there_is() {
        assert!(told(Some(3), 2, &TrialLocation::Done).contains("from 1 to 2"));
        assert!(told(Some(0), 2, &TrialLocation::Done).contains("from 1 to 2"));
        assert!(told(Some(2), 1, &TrialLocation::Done).contains("can only be 1"));
        assert!(told(Some(2), 0, &leased()).contains("can only be 1"));
        for wanted in [None, Some(1)] {
            assert!(told(wanted, 0, &TrialLocation::Pending).contains("no output yet"));
            assert!(told(wanted, 0, &TrialLocation::Unneeded).contains("fewer repeats"));
            let quarantined = TrialLocation::Quarantined(vec!["w".into()]);
            assert!(told(wanted, 0, &quarantined).contains("crashed"));
        }
    }
}
