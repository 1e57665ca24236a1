//! What programs printed, as it is stored.

use ergodic_common::ids::SweepNumber;
use ergodic_common::program::output::{PackedOutput, SHOWN_OUTPUT, last_lines};
use ergodic_common::{ErrorCode, Outcome, TrialKey};
use ergodic_proto::output::unpack_output;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;
use v1::explain_finding::Finding as WireFinding;

use super::access::SweepApi;
use crate::server::findings::{build_finding, to_attempt_finding};
use crate::server::store_error;
use crate::store::{StoreReader, StoredTrial};

/// A trial whose output is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputTrial {
    pub(super) sweep: SweepNumber,
    pub(super) key: TrialKey,
}

/// The attempts at a trial that have ended.
#[derive(Debug)]
pub(super) struct EndedAttempts {
    /// Name of the worker of each; empty if none lived to tell.
    workers: Vec<String>,
    /// Whether the last one has become a row.
    pub(super) has_row: bool,
}

impl EndedAttempts {
    /// Number of these attempts, which is that of the last one.
    pub(super) fn count(&self) -> u32 {
        self.workers.len() as u32
    }

    /// What there is to say of an attempt of which no output is stored.
    pub(super) fn explain_nothing(&self, attempt: u32, key: TrialKey) -> String {
        let worker = self.workers.get(attempt as usize - 1);
        match worker.map_or("", String::as_str) {
            "" => format!(
                "nothing is kept of what attempt {attempt} at the trial {key} printed: no worker lived to tell"
            ),
            _ => format!(
                "attempt {attempt} at the trial {key} printed nothing, or ran before this version, which keeps it"
            ),
        }
    }
}

/// The attempts at a trial, explained.
pub(super) struct ExplainedAttempts {
    /// Each earlier attempt, and what it printed.
    pub(super) earlier: Vec<v1::ExplainFinding>,
    /// What was printed in the attempt of the row.
    pub(super) of_row: Option<v1::ExplainFinding>,
    /// Number of the attempt that follows the earlier ones.
    pub(super) next: u32,
}

impl ExplainedAttempts {
    /// The finding that the attempt which follows the earlier ones runs now.
    pub(super) fn explain_running(&self) -> v1::ExplainFinding {
        build_finding(WireFinding::Output(v1::ExplainOutput {
            attempt: self.next,
            running: true,
            ..v1::ExplainOutput::default()
        }))
    }
}

impl SweepApi {
    /// The attempts at a trial that have ended.
    pub(super) async fn read_ended_attempts(
        &self,
        trial: OutputTrial,
    ) -> Result<EndedAttempts, Status> {
        let OutputTrial { sweep, key } = trial;
        let read = self.read_store(move |reader| {
            let attempts = reader.read_attempts(sweep, key).map_err(store_error)?;
            let row = reader.read_trial(sweep, key).map_err(store_error)?;
            let earlier = attempts.into_iter().map(|attempt| attempt.worker);
            Ok(EndedAttempts {
                has_row: row.is_some(),
                workers: earlier.chain(row.map(|row| row.worker)).collect(),
            })
        });
        read.await
    }

    /// What is stored of an attempt, by its number from 1.
    pub(super) async fn read_stored_output(
        &self,
        trial: OutputTrial,
        attempt: u32,
    ) -> Result<Option<(PackedOutput, Vec<u8>)>, Status> {
        let OutputTrial { sweep, key } = trial;
        let read = self.read_store(move |reader| {
            let found = reader.read_output(sweep, key, attempt.saturating_sub(1));
            let Some(output) = found.map_err(store_error)? else {
                return Ok(None);
            };
            let bytes = unpack_output(&output).map_err(|error| {
                let message = format!("what the trial {key} printed cannot be read: {error}");
                UserError::new(ErrorCode::Internal, message)
            })?;
            Ok(Some((output, bytes)))
        });
        read.await
    }

    /// Explains the attempts at a trial: what each printed, and how the earlier ones failed. `row` is the trial's row, if it has one.
    pub(super) async fn explain_attempts(
        &self,
        trial: OutputTrial,
        row: Option<&StoredTrial>,
        is_program: bool,
    ) -> Result<ExplainedAttempts, Status> {
        let OutputTrial { sweep, key } = trial;
        let row_cause = row.map(|row| read_cause(&row.result.outcome).to_owned());
        let read = self.read_store(move |reader| {
            let attempts = reader.read_attempts(sweep, key).map_err(store_error)?;
            let mut explained = ExplainedAttempts {
                earlier: Vec::new(),
                of_row: None,
                next: attempts.len() as u32 + 1,
            };
            for (number, attempt) in (1..).zip(attempts) {
                let cause = attempt.cause.clone();
                explained.earlier.push(to_attempt_finding(attempt));
                if is_program {
                    let output = explain_output(reader, trial, (number, true), &cause);
                    explained.earlier.extend(output);
                }
            }
            if let Some(cause) = row_cause.filter(|_| is_program) {
                explained.of_row = explain_output(reader, trial, (explained.next, false), &cause);
            }
            Ok(explained)
        });
        read.await
    }
}

/// Why a trial failed; empty for another outcome.
fn read_cause(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed { cause } => cause,
        Outcome::Completed | Outcome::Diverged { .. } => "",
    }
}

/// Explains what was printed in an attempt, given by its number from 1 and whether it is an earlier one. An output that is damaged
/// is logged, and hides nothing else.
fn explain_output(
    reader: &dyn StoreReader,
    trial: OutputTrial,
    attempt: (u32, bool),
    cause: &str,
) -> Option<v1::ExplainFinding> {
    let OutputTrial { sweep, key } = trial;
    match reader.read_output(sweep, key, attempt.0 - 1) {
        Ok(output) => output.map(|output| describe_output(attempt, cause, &output)),
        Err(error) => {
            tracing::warn!(sweep = sweep.0, trial = %key, %error, "an output is not explained");
            None
        }
    }
}

fn describe_output(
    (attempt, earlier): (u32, bool),
    cause: &str,
    output: &PackedOutput,
) -> v1::ExplainFinding {
    let bytes = unpack_output(output).unwrap_or_default();
    let lines = last_lines(&bytes, SHOWN_OUTPUT);
    build_finding(WireFinding::Output(v1::ExplainOutput {
        attempt,
        earlier,
        running: false,
        printed: output.printed,
        kept: bytes.len() as u64,
        // How a program failed is told with its last lines.
        last_lines: match cause.contains(&lines) {
            true => String::new(),
            false => lines,
        },
    }))
}

#[cfg(test)]
mod tests {
    use ergodic_proto::output::pack_output;

    use super::*;

    const KEY: TrialKey = TrialKey::new(0, 3);

    #[test]
    fn lines_that_a_cause_has_are_not_told_twice() {
        let output = pack_output(100, b"one\ntwo\n").expect("packed");
        let lines = |cause: &str| match describe_output((2, false), cause, &output).finding {
            Some(WireFinding::Output(found)) => {
                assert_eq!((found.attempt, found.printed, found.kept), (2, 100, 8));
                found.last_lines
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(lines(""), "one\ntwo");
        assert_eq!(
            lines("it ended with exit status 3; its last lines are:\none\ntwo"),
            ""
        );
    }

    #[test]
    fn an_attempt_without_output_says_why() {
        let ended = EndedAttempts {
            workers: vec![String::new(), "w".into()],
            has_row: true,
        };
        assert!(ended.explain_nothing(1, KEY).contains("no worker lived"));
        assert!(ended.explain_nothing(2, KEY).contains("printed nothing"));
    }
}
