//! Why trials of a sweep failed: their causes by kind, with the first trial of each.

use std::borrow::Cow;
use std::collections::HashMap;

use ergodic_common::TrialKey;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::Client;
use super::query::query_failed_trials;

/// Maximum number of kinds of causes that are described.
const MAX_KINDS: usize = 5;

/// Trials that failed for the same kind of cause.
#[derive(Debug, Clone, PartialEq)]
struct CauseKind {
    /// The cause of the first trial.
    cause: String,
    /// The first trial, by cell and repeat.
    first: TrialKey,
    trials: u64,
}

/// What runs failed trials again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCommand {
    /// `ergodic retry`, of a coordinator that stays.
    Retry,
    /// The same `ergodic run`, which finds its sweep in the store: nothing else runs there.
    RunAgain,
}

impl RetryCommand {
    /// The command for the sweeps that a client shows. `ends_with_command` tells whether their coordinator ends with this command.
    pub fn choose(client: &Client, ends_with_command: bool) -> Self {
        match client.is_on_store() || ends_with_command {
            true => Self::RunAgain,
            false => Self::Retry,
        }
    }

    fn describe(self, sweep: &str) -> String {
        match self {
            Self::Retry => format!("`ergodic retry {sweep}` runs them again"),
            Self::RunAgain => {
                "`ergodic run` with the same file and store runs them again".to_owned()
            }
        }
    }
}

/// The kinds of causes of failed trials, from the most frequent on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FailureCauses(Vec<CauseKind>);

/// Queries why trials failed.
///
/// # Errors
/// There is no such sweep, or the coordinator does not respond.
pub async fn query_failures(
    client: &mut Client,
    sweep: &SweepId,
) -> Result<FailureCauses, UserError> {
    let pages = query_failed_trials(client, sweep).await?;
    let rows = pages.iter().flat_map(|page| &page.rows);
    Ok(FailureCauses::from_results(
        rows.filter_map(|row| row.result.as_ref()),
    ))
}

impl FailureCauses {
    /// Counts the causes of the failed ones among these results, which are sorted by trial.
    fn from_results<'a>(results: impl Iterator<Item = &'a v1::TrialResult>) -> Self {
        let mut kinds: Vec<CauseKind> = Vec::new();
        let mut positions: HashMap<String, usize> = HashMap::new();
        for result in results.filter(|result| result.outcome() == v1::OutcomeKind::Failed) {
            let kind = mask_numbers(&result.cause);
            let at = *positions.entry(kind).or_insert_with(|| {
                kinds.push(CauseKind {
                    cause: result.cause.clone(),
                    first: result.key.unwrap_or_default().into(),
                    trials: 0,
                });
                kinds.len() - 1
            });
            kinds[at].trials += 1;
        }

        // A stable sort: of equally frequent kinds, the first trial comes first.
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.trials));
        Self(kinds)
    }

    /// Lines that say how many trials failed for which cause, and which commands say more.
    pub fn describe(&self, sweep: &str, retry: RetryCommand) -> Vec<String> {
        let Some(most) = self.0.first() else {
            return Vec::new();
        };

        let failed = self.0.iter().map(|kind| kind.trials).sum();
        let mut lines = vec![format!("{} failed:", format_count(failed, "trial"))];
        let kinds = self.0.iter().take(MAX_KINDS);
        lines.extend(kinds.map(|kind| format!("  {}", format_kind(kind))));
        if let Some(more) = self.0.len().checked_sub(MAX_KINDS).filter(|more| *more > 0) {
            lines.push(format!(
                "  and {} of causes: `ergodic trials {sweep} --where 'outcome == \"failed\"'` lists all",
                format_count(more as u64, "more kind")
            ));
        }
        lines.push(format!(
            "  `ergodic explain {sweep} {}` says more, {}",
            most.first,
            retry.describe(sweep)
        ));

        lines
    }

    /// The most frequent cause for a line of progress, without numbers, which change meanwhile.
    pub fn format_most_frequent(&self) -> Option<String> {
        let most = self.0.first()?;
        let more = match self.0.len() - 1 {
            0 => String::new(),
            n => format!("; {} more", format_count(n as u64, "cause")),
        };
        let cause = format_cause(&most.cause);
        Some(format!("failed: {cause}, as {}{more}", most.first))
    }
}

/// Formats `3 × no memory is left, first 4/1`.
fn format_kind(kind: &CauseKind) -> String {
    let cause = format_cause(&kind.cause);
    format!("{} × {cause}, first {}", kind.trials, kind.first)
}

fn format_cause(cause: &str) -> Cow<'_, str> {
    match cause.is_empty() {
        true => "no cause was given".into(),
        false => escape_line(cause),
    }
}

/// A cause without its numbers, in which causes of one kind differ.
fn mask_numbers(cause: &str) -> String {
    let mut out = String::with_capacity(cause.len());
    for c in cause.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::client::failure_causes::*;

    fn causes(list: &[(v1::OutcomeKind, &str)]) -> FailureCauses {
        let results: Vec<v1::TrialResult> = (0..)
            .zip(list)
            .map(|(repeat, (outcome, cause))| v1::TrialResult {
                key: Some(v1::TrialKey { cell: 4, repeat }),
                outcome: (*outcome).into(),
                cause: (*cause).to_owned(),
                ..v1::TrialResult::default()
            })
            .collect();
        FailureCauses::from_results(results.iter())
    }

    #[test]
    fn causes_that_differ_in_numbers_are_of_one_kind() {
        let failed = v1::OutcomeKind::Failed;
        let found = causes(&[
            (failed, "no memory"),
            (v1::OutcomeKind::Completed, ""),
            (failed, "not done after 17 s"),
            (failed, "not done after 9 s"),
        ]);
        assert_eq!(
            found.describe("abcdefgh", RetryCommand::Retry),
            [
                "3 trials failed:",
                "  2 × not done after 17 s, first 4/2",
                "  1 × no memory, first 4/0",
                "  `ergodic explain abcdefgh 4/2` says more, `ergodic retry abcdefgh` runs them again",
            ]
        );
        let alone = found.describe("abcdefgh", RetryCommand::RunAgain);
        assert_eq!(
            alone.last().map(String::as_str),
            Some(
                "  `ergodic explain abcdefgh 4/2` says more, `ergodic run` with the same file and store runs them again"
            )
        );
        assert_eq!(
            found.format_most_frequent().as_deref(),
            Some("failed: not done after 17 s, as 4/2; 1 cause more")
        );
    }

    #[test]
    fn nothing_is_said_where_nothing_failed() {
        assert!(
            FailureCauses::default()
                .describe("abcdefgh", RetryCommand::Retry)
                .is_empty()
        );
        assert_eq!(FailureCauses::default().format_most_frequent(), None);
    }

    #[test]
    fn many_kinds_are_cut_and_counted() {
        let failed = v1::OutcomeKind::Failed;
        let found = causes(&["a", "b", "c", "d", "e", "f", "g"].map(|cause| (failed, cause)));
        let lines = found.describe("abcdefgh", RetryCommand::Retry);
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert!(lines[6].contains("and 2 more kinds"), "{lines:?}");
    }
}
