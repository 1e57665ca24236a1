//! Common parts of the RPCs of `SweepService`: queries of the core, reads of the store, and the
//! requester.

use std::sync::Arc;

use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepNumber;
use ergodic_common::spec::SpecSource;
use ergodic_common::{BUILD, ErrorCode, Spec, TrialKey};
use ergodic_proto::status::{UserError, not_leader};
use ergodic_proto::{USER_METADATA, v1};
use tonic::{Request, Status};

use crate::core::queries::{SweepMatch, UnmatchedSweep};
use crate::core::{Core, Sweep, UnreadableSweep};
use crate::server::auth::Principal;
use crate::server::status::sweep_status;
use crate::server::{ProgramPolicy, ServerContext, store_error};
use crate::store::StoreReader;

pub(crate) struct SweepApi(pub(crate) Arc<ServerContext>);

/// Maximum bytes of a user's name.
const MAX_NAME_BYTES: usize = 256;

/// The requester: the token's id or, without tokens, the user that the client names.
pub(crate) fn requester_name<T>(request: &Request<T>) -> String {
    if let Some(principal) = request.extensions().get::<Principal>() {
        return principal.token_id.clone();
    }

    let name = request
        .metadata()
        .get_bin(USER_METADATA)
        .and_then(|name| name.to_bytes().ok())
        .unwrap_or_default();
    let name = &name[..name.len().min(MAX_NAME_BYTES)];
    escape_line(&String::from_utf8_lossy(name)).into_owned()
}

/// Who sent a request, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requester {
    /// The token's id or, without tokens, the user that the client names.
    pub(crate) name: String,
    /// Whether they may have programs run, where any are.
    may_run_programs: bool,
    /// Whether it is the process of the coordinator itself.
    is_own_process: bool,
}

impl Requester {
    /// The sender of a request that came in through the port. Without tokens, everybody may do everything.
    pub(crate) fn of_request<T>(request: &Request<T>) -> Self {
        let principal = request.extensions().get::<Principal>();
        Self {
            name: requester_name(request),
            may_run_programs: principal.is_none_or(|principal| principal.may_run_programs),
            is_own_process: false,
        }
    }

    /// The process of the coordinator, in the name of a user.
    pub(crate) fn own_process(name: String) -> Self {
        Self {
            name,
            may_run_programs: true,
            is_own_process: true,
        }
    }

    /// Checks that a requester may have programs run.
    ///
    /// # Errors
    /// The requester may not; the message says what to do.
    pub(crate) fn check_programs(&self, policy: ProgramPolicy) -> Result<(), UserError> {
        let message = match policy {
            ProgramPolicy::Nobody => {
                "[program]: this coordinator runs no programs: start it with `ergodic serve --programs`"
            }
            ProgramPolicy::WithRight if !self.may_run_programs => {
                "[program]: your token has no right to programs: an administrator makes one that has by `ergodic token new \
                 --role user --programs`"
            }
            ProgramPolicy::OwnProcess if !self.is_own_process => {
                "[program]: the coordinator of `ergodic run` and `ergodic verify` runs no programs but those of its own command: \
                 name this sweep there, or start `ergodic serve --programs`"
            }
            ProgramPolicy::WithRight | ProgramPolicy::OwnProcess => return Ok(()),
        };
        Err(UserError::new(ErrorCode::Refused, message))
    }
}

/// Checks that a program that knows grammars up to `grammar` reads a sweep file as intended.
///
/// # Errors
/// The file needs a later grammar.
pub(crate) fn check_grammar_support(
    grammar: u32,
    source: &SpecSource,
    program: &str,
) -> Result<(), Status> {
    if source.grammar <= grammar.max(1) {
        return Ok(());
    }

    let message = format!(
        "the sweep uses version {} of the sweep file format, which this {program} is too old to read: use the coordinator's \
         version, {BUILD}",
        source.grammar
    );
    Err(UserError::new(ErrorCode::Version, message).into())
}

/// Checks that a sweep has a trial.
///
/// # Errors
/// The sweep has no such trial; the message tells the numbers of its cells and repeats.
pub(crate) fn check_has_trial(sweep: &Sweep, key: TrialKey) -> Result<(), UserError> {
    if sweep.spec.has_trial(key) {
        return Ok(());
    }
    let message = format!(
        "the sweep {} has no trial {key}: its cells are numbered below {}, its repeats below {}",
        sweep.id,
        sweep.spec.grid.cell_number_bound(),
        sweep.spec.repeats
    );
    Err(UserError::new(ErrorCode::NotFound, message))
}

impl SweepApi {
    pub(crate) async fn query_core<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.0
            .engine
            .query_core(question)
            .await
            .map_err(|_| self.0.unanswered_status())
    }

    /// Queries the sweep that a word means.
    pub(crate) async fn with_sweep<T: Send + 'static>(
        &self,
        word: &str,
        question: impl FnOnce(&Core, &Sweep) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let answer = self.with_any_sweep(word, |core, sweep| match sweep {
            SweepMatch::Readable(sweep) => Ok(question(core, sweep)),
            SweepMatch::Unreadable(sweep) => Err(unreadable_error(sweep)),
        });
        Ok(answer.await??)
    }

    /// Queries the sweep that a word means, whether this program can read it or not.
    pub(crate) async fn with_any_sweep<T: Send + 'static>(
        &self,
        word: &str,
        question: impl FnOnce(&Core, SweepMatch<'_>) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let word = word.to_owned();
        let answer = self
            .query_core(move |core| {
                core.find_any_sweep(&word)
                    .map(|sweep| question(core, sweep))
            })
            .await?;
        answer.map_err(|unmatched| match self.0.leadership.other_leader() {
            // A standby may not have read a sweep that was launched a moment ago, so the leader is
            // asked.
            Some(leader) if !leader.is_empty() => not_leader(&leader, ""),
            _ => unmatched_error(&unmatched).into(),
        })
    }

    /// Reads the store outside the runtime's threads.
    pub(crate) async fn read_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn StoreReader) -> Result<T, UserError> + Send + 'static,
    ) -> Result<T, Status> {
        let context = self.0.clone();
        let permit = self.0.limits.readers.try_acquire()?;
        let task = tokio::task::spawn_blocking(move || {
            let _held = permit;
            work(context.store.open_reader().map_err(store_error)?.as_ref())
        });
        let result = task.await.map_err(|e| Status::internal(e.to_string()))?;
        result.map_err(Into::into)
    }

    /// Checks that a requester may have the trials of a sweep run.
    ///
    /// # Errors
    /// The trials are a program, and the requester may not.
    pub(crate) fn check_right_to_run(
        &self,
        requester: &Requester,
        spec: &Spec,
    ) -> Result<(), Status> {
        match spec.program() {
            // The code of an experiment came with the worker.
            Some(program) if program.experiment.is_none() => requester
                .check_programs(self.0.programs)
                .map_err(Into::into),
            _ => Ok(()),
        }
    }

    pub(crate) async fn query_status(
        &self,
        number: SweepNumber,
    ) -> Result<Option<v1::SweepStatus>, Status> {
        self.query_core(move |core| core.sweep(number).map(|sweep| sweep_status(core, sweep)))
            .await
    }
}

fn unmatched_error(unmatched: &UnmatchedSweep) -> UserError {
    let message = match unmatched {
        UnmatchedSweep::NoneYet => "there is no sweep yet: launch one".to_owned(),
        UnmatchedSweep::Unknown { word } => {
            format!("there is no sweep '{word}'; `ergodic list` shows all")
        }
        UnmatchedSweep::Ambiguous {
            word,
            first,
            second,
        } => {
            format!(
                "'{word}' is ambiguous: it is a prefix of {first} and of {second}; give more characters"
            )
        }
    };
    UserError::new(ErrorCode::NotFound, message)
}

fn unreadable_error(sweep: &UnreadableSweep) -> UserError {
    let message = format!(
        "this program cannot read the sweep {}: {}",
        sweep.record.id, sweep.why
    );
    UserError::new(ErrorCode::Version, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start of what a requester is told; empty if they may have programs run.
    fn told(policy: ProgramPolicy, may_run_programs: bool, is_own_process: bool) -> String {
        let requester = Requester {
            name: "anna".into(),
            may_run_programs,
            is_own_process,
        };
        let checked = requester.check_programs(policy);
        checked
            .err()
            .map_or_else(String::new, |error| error.message)
    }

    #[test]
    fn wrong_requesters_of_programs_are_told_what_gives_the_right() {
        assert_eq!(told(ProgramPolicy::WithRight, true, false), "");
        assert_eq!(told(ProgramPolicy::OwnProcess, true, true), "");
        for (policy, may, own, words) in [
            (
                ProgramPolicy::Nobody,
                true,
                true,
                "`ergodic serve --programs`",
            ),
            (
                ProgramPolicy::WithRight,
                false,
                false,
                "`ergodic token new --role user --programs`",
            ),
            (
                ProgramPolicy::OwnProcess,
                true,
                false,
                "runs no programs but those of its own command",
            ),
        ] {
            let message = told(policy, may, own);
            assert!(
                message.starts_with("[program]: ") && message.contains(words),
                "{message}"
            );
        }
    }
}
