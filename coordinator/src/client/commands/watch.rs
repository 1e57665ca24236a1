//! `ergodic watch`: shows a sweep's grid and a progress bar on a terminal, and otherwise prints a
//! line now and then. Always on stderr.

use std::time::{Duration, Instant};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_lines;
use ergodic_common::ids::SweepId;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::progress_display::ProgressDisplay;
use crate::app::{CommandOutcome, wait_for_interrupt};
use crate::client::Client;
use crate::client::args::{DEFAULT_COORDINATOR, SweepTarget};
use crate::client::failure_causes::{FailureCauses, RetryCommand, query_failures};
use crate::client::query::query_status;
use crate::client::render::print_stderr_line;
use crate::client::status_text::StatusSource;
use crate::client::wait_reason::{is_waiting, query_wait_reason};

/// Time limit for reconnecting to the coordinator.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after which it is said why no trial is running: workers need a moment to join and to finish
/// other trials.
const IDLE_TIME: Duration = Duration::from_secs(3);
/// Time between two queries of why no trial is running.
const QUERY_INTERVAL: Duration = Duration::from_secs(5);

/// `ergodic watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
}

/// Follows a sweep to its end.
///
/// # Errors
/// The sweep is unknown, or the coordinator stays away.
pub async fn run_watch(args: WatchArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    if client.is_on_store() && !has_ended(&query_status(&mut client, &id).await?) {
        print_stderr_line(&format_store_notice(&client.url));
    }
    let Some(status) = follow_until_interrupt(&mut client, &id).await? else {
        return Ok(CommandOutcome::Interrupted);
    };

    if status.failed > 0 {
        let failures = query_failures(&mut client, &status.sweep_id()).await;
        let retry = RetryCommand::choose(&client, false);
        let lines = failures.unwrap_or_default().describe(&status.id, retry);
        lines.iter().for_each(|line| print_stderr_line(line));
    }

    Ok(CommandOutcome::from_sweep(&status))
}

/// What to expect of a sweep in a store that is only read.
fn format_store_notice(place: &str) -> String {
    format!(
        "only the store is read, and nothing runs here: what a coordinator on it stores appears; `ergodic serve --store {place}` starts \
         one, and `ergodic watch` with --coordinator URL asks one that runs"
    )
}

/// Watches a sweep to its end. `None` if the user interrupts that, who is told that the sweep goes
/// on and how to come back.
///
/// # Errors
/// As for [`follow_sweep`].
pub async fn follow_until_interrupt(
    client: &mut Client,
    sweep: &SweepId,
) -> Result<Option<v1::SweepStatus>, UserError> {
    let url = client.url.clone();
    let followed = tokio::select! {
        status = follow_sweep(client, sweep) => Some(status?),
        () = wait_for_interrupt() => None,
    };

    if followed.is_none() && !client.is_on_store() {
        let option = format_coordinator_option(&url);
        print_stderr_line(&format!(
            "the sweep goes on: `ergodic watch {sweep}{option}` follows it again, `ergodic cancel {sweep}{option}` ends it"
        ));
    }
    Ok(followed)
}

/// The option that names this coordinator, with a space before it; empty if the environment or the
/// default does.
fn format_coordinator_option(url: &str) -> String {
    let named = std::env::var("ERGODIC_COORDINATOR");
    let known = named.as_deref().unwrap_or(DEFAULT_COORDINATOR);
    match known.trim_end_matches('/') == url.trim_end_matches('/') {
        true => String::new(),
        false => format!(" --coordinator {url}"),
    }
}

/// Watches a sweep to its end, through restarts of the coordinator.
///
/// # Errors
/// The sweep is unknown, or the coordinator stays away.
pub async fn follow_sweep(
    client: &mut Client,
    sweep: &SweepId,
) -> Result<v1::SweepStatus, UserError> {
    follow_titled_sweep(client, sweep, "").await
}

/// Watches a sweep to its end, one of several: its progress begins with a title, unless that is empty.
///
/// # Errors
/// As for [`follow_sweep`].
pub async fn follow_titled_sweep(
    client: &mut Client,
    sweep: &SweepId,
    title: &str,
) -> Result<v1::SweepStatus, UserError> {
    let mut progress = ProgressDisplay::new(StatusSource::of_client(client), title);
    let mut notes = ProgressNotes::default();
    let mut away_since: Option<Instant> = None;

    loop {
        match follow_stream(client, sweep, &mut progress, &mut notes).await {
            Ok(Some(status)) => {
                progress.finish(&status);
                describe_failing(&status)
                    .iter()
                    .for_each(|line| print_stderr_line(line));
                return Ok(status);
            }
            // The stream ended early: the coordinator is stopping or the connection is lost, so the
            // watch reconnects.
            Ok(None) => {}
            Err(error) if error.code != ErrorCode::Unreachable => return Err(error),
            Err(error) => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > RECONNECT_TIMEOUT {
                    return Err(error);
                }
                progress.show_message("the coordinator does not answer; waiting for it");
            }
        }

        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Ok(again) = client.reconnect().await {
            *client = again;
            away_since = None;
        }
    }
}

/// Reads one stream of updates; returns the last status if the sweep has ended.
async fn follow_stream(
    client: &mut Client,
    sweep: &SweepId,
    progress: &mut ProgressDisplay,
    notes: &mut ProgressNotes,
) -> Result<Option<v1::SweepStatus>, UserError> {
    let request = v1::WatchRequest {
        sweep: sweep.to_string(),
    };
    let mut stream = client
        .call(async |client| client.sweeps.watch(request).await)
        .await?;
    let mut last: Option<v1::WatchResponse> = None;

    loop {
        // A sweep of which nothing runs sends no updates, but why nothing runs may change.
        let next = tokio::time::timeout(IDLE_TIME, client.next_message(&mut stream)).await;
        match next {
            Ok(Err(error)) => return Err(error),
            Ok(Ok(None)) => return Ok(None),
            Ok(Ok(Some(message))) => last = Some(message),
            Err(_) => {}
        }

        let Some(status) = last.as_ref().and_then(|message| message.status.as_ref()) else {
            continue;
        };
        if has_ended(status) {
            return Ok(Some(status.clone()));
        }

        notes.update(client, status).await;
        let grid = last.as_ref().and_then(|message| message.grid.as_ref());
        progress.show_status(status, grid, &notes.lines());
    }
}

/// What is said of a sweep that paused itself.
fn describe_failing(status: &v1::SweepStatus) -> Option<String> {
    (!status.failing.is_empty()).then(|| {
        format!(
            "the sweep paused itself, because its first trials failed and none succeeded; one failed so:\n{}",
            escape_lines(&status.failing)
        )
    })
}

fn has_ended(status: &v1::SweepStatus) -> bool {
    let open = matches!(
        status.state(),
        v1::SweepState::Running | v1::SweepState::Paused
    );
    // A sweep that paused itself goes on only if somebody resumes it.
    !open || !status.withheld.is_empty() || !status.failing.is_empty()
}

/// What is said beside the numbers: why trials failed, and why none is running.
#[derive(Default)]
struct ProgressNotes {
    failures: FailureCauses,
    /// Number of failed trials when `failures` was queried.
    failures_of: Option<u64>,
    wait_reason: Option<String>,
    /// The time from which on no trial is running.
    idle_since: Option<Instant>,
    wait_reason_at: Option<Instant>,
}

impl ProgressNotes {
    /// Queries what may have changed. Errors are left out: these lines are an addition.
    async fn update(&mut self, client: &mut Client, status: &v1::SweepStatus) {
        // The coordinator reads all rows for this, so it is asked again only for twice the failures.
        let is_due = self
            .failures_of
            .is_none_or(|failed| status.failed >= 2 * failed);
        if status.failed > 0 && is_due {
            self.failures_of = Some(status.failed);
            self.failures = query_failures(client, &status.sweep_id())
                .await
                .unwrap_or_default();
        }

        if client.is_on_store() || !is_waiting(status) {
            self.idle_since = None;
            self.wait_reason = None;
            self.wait_reason_at = None;
            return;
        }

        let idle = self.idle_since.get_or_insert_with(Instant::now).elapsed();
        let is_due = self
            .wait_reason_at
            .is_none_or(|at| at.elapsed() >= QUERY_INTERVAL);
        if idle >= IDLE_TIME && is_due {
            self.wait_reason_at = Some(Instant::now());
            self.wait_reason = query_wait_reason(client, &status.sweep_id())
                .await
                .ok()
                .flatten();
        }
    }

    fn lines(&self) -> Vec<String> {
        let causes = self.failures.format_most_frequent();
        self.wait_reason.iter().cloned().chain(causes).collect()
    }
}
