//! When a worker leaves, and how: in order, with what it has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic_common::ErrorCode;
use ergodic_common::duration::format_duration;
use ergodic_common::ids::WorkerId;
use ergodic_proto::status::UserError;
use tokio::sync::watch;

use crate::cli::JoinArgs;
use crate::program::host::ProgramHost;
use crate::shared_queue::SharedQueue;

/// Time limit for uploading the last checkpoints, delivering the last results and saying goodbye.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(8);
/// The largest share of the time limit by which a worker leaves early, so that workers that began together do not leave together.
const MAX_STAGGER: f64 = 0.05;

/// When a worker leaves without being told, and how long it then takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    /// How long running trials may go on.
    drain: Duration,
    /// When it begins to leave, if its time is limited.
    pub(super) leaves_at: Option<Instant>,
    /// Whether it leaves when stdin ends.
    at_eof: bool,
}

impl Departure {
    /// The departure of a worker that started at this moment.
    ///
    /// # Errors
    /// The time limit leaves no time for trials.
    pub(super) fn from_args(
        args: &JoinArgs,
        worker: &WorkerId,
        started: Instant,
    ) -> Result<Self, UserError> {
        let wait = args.time_limit.map(|limit| {
            let needed = args.drain + FAREWELL_TIMEOUT;
            compute_wait(limit, needed, worker).ok_or_else(|| too_short(limit, args.drain))
        });
        Ok(Self {
            drain: args.drain,
            leaves_at: wait.transpose()?.map(|wait| started + wait),
            at_eof: args.leave_at_eof,
        })
    }
}

/// Time until a worker begins to leave: what `limit` has beyond what leaving takes, less a share that differs from worker to worker.
/// `None` if there is none.
fn compute_wait(limit: Duration, needed: Duration, worker: &WorkerId) -> Option<Duration> {
    // The id is random.
    let digits = worker.as_str().get(..4).unwrap_or("0");
    let share = f64::from(u16::from_str_radix(digits, 16).unwrap_or(0)) / 65_536.0;
    let stagger = limit.mul_f64(share * MAX_STAGGER);
    let wait = limit.checked_sub(needed)?.saturating_sub(stagger);
    (!wait.is_zero()).then_some(wait)
}

fn too_short(limit: Duration, drain: Duration) -> UserError {
    let message = format!(
        "--time-limit {}: the worker needs {} of it to leave, --drain and {} for its last results: give it more time, or less to drain",
        format_duration(limit),
        format_duration(drain + FAREWELL_TIMEOUT),
        format_duration(FAREWELL_TIMEOUT)
    );
    UserError::new(ErrorCode::BadInput, message)
}

/// Drains the worker once it is to leave: no trial begins, and running ones get the drain time to end before they are stopped. A
/// signal meanwhile stops them at once, because batch systems may send two. Stopped trials are returned to the coordinator.
///
/// If the coordinator is gone by then, the worker does not wait for it. Results that it did not
/// acknowledge are lost with this process, unless the spool has them.
pub(super) async fn drain_when_due(
    queue: Arc<SharedQueue>,
    departure: Departure,
    (leave, programs): (watch::Sender<bool>, Option<ProgramHost>),
) {
    let (why, drain) = wait_for_reason(&queue, departure).await;
    tracing::info!(
        why,
        ?drain,
        running = queue.with_queue(|queue| queue.running_count()),
        "leaving: finishing running trials"
    );

    queue.begin_leaving();
    let _ = leave.send(true);
    if let Some(host) = programs {
        host.note_leaving();
    }
    tokio::select! {
        () = tokio::time::sleep(drain) => {}
        () = wait_for_signal() => {}
    }

    stop_running_trials(&queue);
    tokio::time::sleep(FAREWELL_TIMEOUT).await;
    let results = queue.with_queue(|queue| queue.unacknowledged_count());
    let fate = if queue.spool().is_some() {
        "wait in the spool"
    } else {
        "are lost"
    };
    tracing::warn!(
        results,
        "the coordinator did not end the session; exiting anyway: results without acknowledgement {fate}"
    );

    std::process::exit(1);
}

/// Waits until the worker is to leave; the reason, and how long running trials may go on.
async fn wait_for_reason(queue: &SharedQueue, departure: Departure) -> (&'static str, Duration) {
    let Departure {
        drain,
        leaves_at,
        at_eof,
    } = departure;
    let time_is_over = async {
        match leaves_at {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait_for_signal() => ("a signal", drain),
        () = queue.drain_requested.notified() => ("the coordinator asks for it", drain),
        () = time_is_over => ("its time is over", drain),
        // Stdin closes when the process that started this worker ends. The coordinator went with
        // it, so nothing is left to drain.
        () = wait_for_stdin_eof(), if at_eof => ("stdin has ended", Duration::ZERO),
    }
}

fn stop_running_trials(queue: &SharedQueue) {
    let running = queue.with_queue(|queue| {
        queue.stop_running_trials();
        queue.running_count()
    });
    if running > 0 {
        tracing::warn!(
            running,
            "stopping running trials and returning them to the coordinator"
        );
    }
}

/// Waits until stdin is closed at the other end. The reading thread does not keep the process
/// alive.
async fn wait_for_stdin_eof() {
    let (closed, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = wait.await;
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened for");
    let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be listened for");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::departure::*;

    #[test]
    fn workers_leave_in_time_and_not_together() {
        let hour = Duration::from_secs(3600);
        let needed = Duration::from_secs(100);
        let wait = |limit, id: &str| compute_wait(limit, needed, &WorkerId::from(id));

        assert_eq!(wait(hour, "0000"), Some(hour - needed));
        let earliest = wait(hour, "ffff").expect("an hour is enough");
        assert!(earliest > hour - needed - hour.mul_f64(MAX_STAGGER) && earliest < hour - needed);
        for short in [needed / 2, needed] {
            assert_eq!(wait(short, "0000"), None);
        }
    }
}
