//! What a program prints while it runs, asked of its worker again and again.

use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_common::ids::Fence;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::access::SweepApi;
use super::stored_outputs::OutputTrial;
use crate::core::queries::TrialLocation;
use crate::server::engine::{OutputQuestion, OutputRefusal, UserEvent};
use crate::server::ha::leadership::Leadership;
use crate::server::limits::PageSender;

/// Time from an answer of the worker to the next request.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// Time limit for an answer of the worker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which a result may be on its way, for whoever does not follow.
const RESULT_TIMEOUT: Duration = Duration::from_secs(20);

/// The output of an attempt that a worker runs.
pub(super) struct LiveOutput {
    api: SweepApi,
    trial: OutputTrial,
    fence: Fence,
    /// Name of the worker.
    worker: String,
    /// Number of the attempt, from 1.
    attempt: u32,
    /// Number of bytes that were sent, or are not kept.
    known: u64,
}

impl LiveOutput {
    pub(super) fn new(
        api: SweepApi,
        trial: OutputTrial,
        (fence, worker): (Fence, String),
        attempt: u32,
    ) -> Self {
        Self {
            api,
            trial,
            fence,
            worker,
            attempt,
            known: 0,
        }
    }

    /// Asks the worker where the trial is, and what it has printed beyond what is known.
    ///
    /// # Errors
    /// The worker cannot tell, or does not answer.
    pub(super) async fn ask_worker(&self) -> Result<v1::OutputPart, Status> {
        let question = OutputQuestion {
            fence: self.fence,
            key: self.trial.key,
            known: self.known,
        };
        let (reply, answered) = oneshot::channel();
        let engine = &self.api.0.engine;
        engine.send_event(UserEvent::AskForOutput { question, reply });

        let refusal = match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(Ok(part))) => return Ok(part),
            Ok(Ok(Err(refusal))) => refusal,
            Ok(Err(_)) => return Err(self.explain_no_engine()),
            Err(_) => OutputRefusal::Busy,
        };
        match refusal {
            OutputRefusal::NoLease => Ok(v1::OutputPart::default()),
            refusal => Err(explain_refusal(refusal, &self.worker).into()),
        }
    }

    fn explain_no_engine(&self) -> Status {
        match &self.api.0.leadership {
            Leadership::Reading(_) => UserError::new(
                ErrorCode::Refused,
                "a store does not tell what a running program prints: `ergodic log` with --coordinator URL asks its worker",
            )
            .into(),
            _ => self.api.0.unanswered_status(),
        }
    }

    /// Sends what the worker tells and, once the attempt has ended, the rest of what it printed. Unless `follow` is set, only what
    /// there is.
    pub(super) async fn send_parts(
        mut self,
        first: v1::OutputPart,
        follow: bool,
        pages: &PageSender<v1::OutputResponse>,
    ) {
        let begun = Instant::now();
        let mut stopping = self.api.0.stopping.clone();
        let mut part = Some(first);
        loop {
            if let Some(part) = part.take_if(|part| part.place() == v1::TrialPlace::Running)
                && (!self.send_part(part, pages).await || !follow)
            {
                return;
            }

            tokio::select! {
                () = sleep(ASK_INTERVAL) => {}
                () = pages.wait_closed() => return,
                () = async { _ = stopping.wait_for(|stopping| *stopping).await } => {
                    pages.send_page(Err(self.api.0.unanswered_status())).await;
                    return;
                }
            }

            match self.is_leased().await {
                Ok(true) if follow || begun.elapsed() < RESULT_TIMEOUT => {
                    part = self.ask_worker().await.ok();
                }
                Ok(true) => {
                    let refused = explain_refusal(OutputRefusal::Busy, &self.worker);
                    pages.send_page(Err(refused.into())).await;
                    return;
                }
                Ok(false) => {
                    let rest = self.read_rest().await;
                    pages.send_page(rest).await;
                    return;
                }
                Err(status) => {
                    pages.send_page(Err(status)).await;
                    return;
                }
            }
        }
    }

    /// Sends a part that the worker told. Returns whether more is wanted.
    async fn send_part(
        &mut self,
        part: v1::OutputPart,
        pages: &PageSender<v1::OutputResponse>,
    ) -> bool {
        let response = self.take_bytes(part.before, part.bytes);
        pages.send_page(Ok(response)).await
    }

    /// The response with bytes that follow the first `before` ones, which are known or lost.
    fn take_bytes(&mut self, before: u64, bytes: Vec<u8>) -> v1::OutputResponse {
        let missing = before.saturating_sub(self.known);
        self.known = before + bytes.len() as u64;
        v1::OutputResponse {
            attempt: self.attempt,
            missing,
            bytes,
            note: String::new(),
        }
    }

    /// Whether the trial is still in the lease.
    async fn is_leased(&self) -> Result<bool, Status> {
        let OutputTrial { sweep, key } = self.trial;
        let location = self
            .api
            .query_core(move |core| Some(core.locate_trial(core.sweep(sweep)?, key)))
            .await?;
        Ok(matches!(location, Some(TrialLocation::Leased { fence, .. }) if fence == self.fence))
    }

    /// What the attempt printed beyond what is known, once it is over.
    async fn read_rest(&mut self) -> Result<v1::OutputResponse, Status> {
        let ended = self.api.read_ended_attempts(self.trial).await?;
        if ended.count() < self.attempt {
            return Ok(self.note_no_result());
        }
        let Some((output, bytes)) = self
            .api
            .read_stored_output(self.trial, self.attempt)
            .await?
        else {
            let note = match self.known {
                0 => ended.explain_nothing(self.attempt, self.trial.key),
                _ => return Ok(self.note_no_result()),
            };
            return Ok(v1::OutputResponse {
                attempt: self.attempt,
                note,
                ..v1::OutputResponse::default()
            });
        };

        // Another run of the trial, whose result came first, may have printed less.
        if output.printed < self.known {
            return Ok(self.note_no_result());
        }
        let forgotten = output.printed - bytes.len() as u64;
        let before = self.known.max(forgotten);
        let rest = bytes[(before - forgotten) as usize..].to_vec();
        Ok(self.take_bytes(before, rest))
    }

    fn note_no_result(&self) -> v1::OutputResponse {
        v1::OutputResponse {
            attempt: self.attempt,
            note: format!(
                "{} ended this attempt at the trial {} without a result, so its output is not kept: `ergodic explain` says what becomes of \
                 the trial",
                self.worker, self.trial.key
            ),
            ..v1::OutputResponse::default()
        }
    }
}

fn explain_refusal(refusal: OutputRefusal, worker: &str) -> UserError {
    let (code, message) = match refusal {
        OutputRefusal::TooOld => (
            ErrorCode::Refused,
            format!(
                "{worker}, which runs the trial, is too old to tell what a running program prints; workers of this version can"
            ),
        ),
        OutputRefusal::Away => (
            ErrorCode::Unreachable,
            format!(
                "{worker}, which runs the trial, is not connected: try again once it is, or once the trial has ended"
            ),
        ),
        OutputRefusal::Busy | OutputRefusal::NoLease => (
            ErrorCode::Unreachable,
            format!("{worker}, which runs the trial, does not answer at the moment: try again"),
        ),
    };
    UserError::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_that_cannot_tell_is_named() {
        for (refusal, code, words) in [
            (OutputRefusal::TooOld, ErrorCode::Refused, "is too old"),
            (OutputRefusal::Away, ErrorCode::Unreachable, "not connected"),
            (OutputRefusal::Busy, ErrorCode::Unreachable, "try again"),
        ] {
            let error = explain_refusal(refusal, "spare-1");
            assert_eq!(error.code, code);
            let message = error.message;
            assert!(
                message.starts_with("spare-1, which") && message.contains(words),
                "{message}"
            );
        }
    }
}
