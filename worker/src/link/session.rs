//! The session with the coordinator: joins, presents leases, sends heartbeats, requests work and
//! accepts grants, until there is no work left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic_common::ids::{Fence, SweepId};
use ergodic_common::{Spec, TrialKey};
use ergodic_proto::channel::connect::ClientChannel;
use ergodic_proto::v1;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::v1::session_response::Message as Response;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

pub use crate::link::hello::WorkerIdentity;
use crate::link::hello::{hello_message, receive_welcome};
use crate::link::outputs;
use crate::link::sweeps;
use crate::link::sweeps::SweepCache;
use crate::memory;
use crate::shared_queue::SharedQueue;

/// Interval at which the queue is checked without any message.
const QUEUE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum time from the start of a trial until it is reported as running. The coordinator then
/// knows which trial to suspect if the worker dies.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The reason why a session ended.
pub(crate) enum SessionEnd {
    /// The worker left: everything is delivered or returned.
    Left,
    /// The connection was lost, with the reason; the worker should join again.
    Lost(String),
}

/// The stream of the session accepts no more messages.
#[derive(Debug)]
struct Disconnected;

pub(crate) struct WorkerSession<'a> {
    identity: &'a WorkerIdentity,
    queue: &'a Arc<SharedQueue>,
    outgoing: mpsc::Sender<v1::SessionRequest>,
    incoming: Streaming<v1::SessionResponse>,
    /// Messages that arrived while a sweep was being fetched.
    pending_messages: VecDeque<v1::SessionResponse>,
    heartbeat_interval: Duration,
    work_requested: bool,
    idle_since: Instant,
    /// The trials that were last reported as running, and the time of the report.
    reported: (Vec<(Fence, TrialKey)>, Instant),
}

impl<'a> WorkerSession<'a> {
    pub(crate) async fn open(
        identity: &'a WorkerIdentity,
        queue: &'a Arc<SharedQueue>,
        mut client: WorkerServiceClient<ClientChannel>,
    ) -> Result<Self, tonic::Status> {
        let (outgoing, messages) = mpsc::channel(64);
        let first = v1::SessionRequest {
            message: Some(Request::Hello(hello_message(identity, queue))),
        };
        outgoing
            .send(first)
            .await
            .map_err(|_| tonic::Status::unavailable("the session ended"))?;

        let mut incoming = client
            .session(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let welcome = receive_welcome(&mut incoming).await?;
        queue.takes_output.send_replace(Some(welcome.takes_output));
        tracing::info!(
            coordinator = identity.coordinator_url,
            build = welcome.build,
            "joined"
        );

        let heartbeat_interval = Duration::from_millis(welcome.heartbeat_ms.clamp(50, 60_000));
        // Waits at least two heartbeats: with a shorter TTL no heartbeat could renew a lease in
        // time.
        let ttl = Duration::from_millis(welcome.lease_ttl_ms).max(2 * heartbeat_interval);
        queue.with_queue(|leases| leases.start_renewal_watch(ttl, queue.uptime()));
        let idle_since = Instant::now();

        Ok(Self {
            identity,
            queue,
            outgoing,
            incoming,
            pending_messages: VecDeque::new(),
            heartbeat_interval,
            work_requested: false,
            idle_since,
            reported: (Vec::new(), idle_since),
        })
    }

    pub(crate) async fn run_until_ended(
        &mut self,
        sweeps: &mut SweepCache,
        leave: &mut watch::Receiver<bool>,
    ) -> SessionEnd {
        let mut beats = tokio::time::interval(self.heartbeat_interval);
        let mut ticks = tokio::time::interval(QUEUE_CHECK_INTERVAL);
        // A coordinator that has missed four heartbeats is treated as disconnected.
        let silence = self.heartbeat_interval * 4;
        self.repeat_returned_trials().await;

        let mut heard = Instant::now();
        loop {
            let sent = tokio::select! {
                message = next_message(&mut self.pending_messages, &mut self.incoming) => match message {
                    Ok(Some(message)) => {
                        let sent = self.handle_message(message, sweeps).await;
                        heard = Instant::now();
                        sent
                    }
                    Ok(None) => return SessionEnd::Lost("the coordinator ended the session".into()),
                    Err(status) => return SessionEnd::Lost(status.message().to_owned()),
                },
                _ = beats.tick() => self.send_heartbeat().await,
                () = self.queue.queue_changed.notified() => self.request_work().await,
                _ = ticks.tick() => self.check_queue().await,
                Ok(()) = leave.changed() => self.return_dropped().await,
            };
            if sent.is_err() || heard.elapsed() > silence {
                return SessionEnd::Lost("the coordinator is silent".into());
            }

            if self.is_drained() {
                let _ = self.send_message(Request::Goodbye(v1::Goodbye {})).await;
                self.await_close().await;
                return SessionEnd::Left;
            }
        }
    }

    /// Repeats which trials were returned, because the last session may have lost the message.
    async fn repeat_returned_trials(&mut self) {
        for fence in self.queue.with_queue(|queue| queue.held_fences()) {
            let _ = self.return_unstarted(fence, 0).await;
        }
    }

    /// Whether the queue is closed and empty. Closes it first if it has been idle for too long.
    fn is_drained(&mut self) -> bool {
        if self.is_idle_too_long() {
            self.queue.with_queue(|queue| queue.close());
        }
        self.queue
            .with_queue(|queue| queue.is_closed() && queue.is_empty())
    }

    fn is_idle_too_long(&mut self) -> bool {
        if self.queue.with_queue(|queue| !queue.is_empty()) {
            self.idle_since = Instant::now();
        }
        self.identity
            .idle_exit
            .is_some_and(|limit| self.idle_since.elapsed() > limit)
    }

    /// Waits until the coordinator has received the goodbye and ended the stream.
    async fn await_close(&mut self) {
        let ended = async { while let Ok(Some(_)) = self.incoming.message().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
    }

    async fn handle_message(
        &mut self,
        message: v1::SessionResponse,
        sweeps: &mut SweepCache,
    ) -> Result<(), Disconnected> {
        match message.message {
            Some(Response::Grant(grant)) => {
                self.work_requested = false;
                self.accept_grant(grant, sweeps).await
            }
            Some(Response::Revoke(revoke)) => self.revoke_leases(revoke).await,
            Some(Response::Renewed(_)) => {
                self.queue
                    .with_queue(|queue| queue.renew_leases(self.queue.uptime()));
                Ok(())
            }
            Some(Response::Retract(wanted)) => {
                let Some(fence) = wanted.fence.map(Fence::from) else {
                    return Ok(());
                };
                self.return_unstarted(fence, wanted.trials).await?;
                self.request_work().await
            }
            Some(Response::SendOutput(wanted)) => {
                let part = outputs::read_part(self.queue, &wanted);
                self.send_message(Request::Output(part)).await
            }
            Some(Response::Drain(_)) => {
                self.queue.drain_requested.notify_one();
                Ok(())
            }
            Some(Response::Welcome(_)) | None => Ok(()),
        }
    }

    /// Drops leases that the coordinator has revoked, and requests work again.
    async fn revoke_leases(&mut self, revoke: v1::Revoke) -> Result<(), Disconnected> {
        tracing::info!(leases = revoke.fences.len(), "leases revoked");
        self.queue.with_queue(|queue| {
            for fence in revoke.fences {
                queue.revoke_lease(fence.into());
            }
        });

        // The coordinator drops a worker's open request when it revokes its leases, so it is sent
        // again.
        self.work_requested = false;
        self.request_work().await
    }

    /// Accepts a lease after fetching what its sweep needs. Releases it if that fails.
    async fn accept_grant(
        &mut self,
        grant: v1::Grant,
        sweeps: &mut SweepCache,
    ) -> Result<(), Disconnected> {
        let Some(fence) = grant.fence.map(Fence::from) else {
            return Ok(());
        };
        let keys: Vec<TrialKey> = grant
            .cells
            .iter()
            .zip(&grant.repeats)
            .map(|(cell, repeat)| TrialKey::new(*cell, *repeat))
            .collect();
        let checkpointed = grant.checkpointed.into_iter().map(TrialKey::from).collect();

        let (identity, queue) = (self.identity, self.queue);
        let id = SweepId::from(grant.sweep);
        let fetching = sweeps.get_or_fetch(&id, |spec| {
            let lack = queue.with_queue(|queue| queue.supply().explain_lack(spec.trial_needs()));
            lack.or_else(|| check_fits_memory(identity, spec, &keys))
        });
        match self.with_heartbeats(fence, fetching).await {
            Ok(sweep) => {
                tracing::debug!(lease = fence.lease.0, trials = keys.len(), "lease granted");
                let is_leaving = self.queue.with_queue(|queue| {
                    let is_closed = queue.is_closed();
                    if !is_closed {
                        queue.add_lease(fence, sweep, keys, checkpointed);
                    }
                    is_closed
                });
                if is_leaving {
                    self.return_lease(fence, String::new()).await?;
                }
            }
            Err(why) => self.release_lease(fence, &id, why).await?,
        }

        self.request_work().await
    }

    /// Releases a lease whose sweep this worker cannot run.
    async fn release_lease(
        &self,
        fence: Fence,
        sweep: &SweepId,
        why: String,
    ) -> Result<(), Disconnected> {
        tracing::error!(
            sweep = sweep.as_str(),
            why,
            "cannot run this sweep; releasing the lease"
        );
        self.return_lease(fence, why).await
    }

    /// Returns a lease, with the reason if this worker cannot run its sweep.
    async fn return_lease(&self, fence: Fence, why: String) -> Result<(), Disconnected> {
        let release = v1::Release {
            fence: Some(fence.into()),
            why,
        };
        self.send_message(Request::Release(release)).await
    }

    /// Waits for `work`, which may take longer than a lease lasts, and sends heartbeats meanwhile.
    /// The result of `work` counts even if the session ends, because the next one may present the
    /// lease again.
    async fn with_heartbeats<T>(&mut self, fence: Fence, work: impl Future<Output = T>) -> T {
        let held: Vec<v1::Fence> = self
            .queue
            .with_queue(|queue| queue.held_fences())
            .into_iter()
            .chain([fence])
            .map(v1::Fence::from)
            .collect();

        let mut beats = tokio::time::interval(self.heartbeat_interval);
        beats.reset();
        let mut work = std::pin::pin!(work);
        let mut open = true;

        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                message = self.incoming.message(), if open => match message {
                    Ok(Some(v1::SessionResponse { message: Some(Response::Renewed(_)) })) => {
                        self.queue.with_queue(|queue| queue.renew_leases(self.queue.uptime()));
                    }
                    Ok(Some(v1::SessionResponse { message: Some(Response::Drain(_)) })) => {
                        self.queue.drain_requested.notify_one();
                    }
                    Ok(Some(other)) => self.pending_messages.push_back(other),
                    Ok(None) | Err(_) => open = false,
                },
                _ = beats.tick() => {
                    let beat = v1::Heartbeat { held: held.clone(), ..v1::Heartbeat::default() };
                    let _ = self.send_message(Request::Heartbeat(beat)).await;
                }
            }
        }
    }

    /// Returns up to `trials` trials that have not begun, and tells the coordinator which, unless
    /// there are none.
    async fn return_unstarted(&mut self, fence: Fence, trials: u64) -> Result<(), Disconnected> {
        let keys = self
            .queue
            .with_queue(|queue| queue.retract_trials(fence, trials));
        if keys.is_empty() {
            return Ok(());
        }

        self.send_retracted(fence, &keys).await
    }

    /// Returns what had not begun when the worker began to leave.
    async fn return_dropped(&mut self) -> Result<(), Disconnected> {
        for (fence, keys) in self.queue.take_dropped() {
            self.send_retracted(fence, &keys).await?;
        }
        Ok(())
    }

    async fn send_retracted(&self, fence: Fence, keys: &[TrialKey]) -> Result<(), Disconnected> {
        tracing::debug!(
            lease = fence.lease.0,
            trials = keys.len(),
            "trials returned to the coordinator"
        );
        let (cells, repeats) = keys.iter().map(|key| (key.cell.0, key.repeat.0)).unzip();
        self.send_message(Request::Retracted(v1::Retracted {
            fence: Some(fence.into()),
            cells,
            repeats,
        }))
        .await
    }

    /// Gives leases back, requests work and reports running trials, if any of these is due.
    async fn check_queue(&mut self) -> Result<(), Disconnected> {
        for lease in self.queue.with_queue(|queue| queue.take_given_back()) {
            self.release_lease(lease.fence, &lease.sweep, lease.why)
                .await?;
        }
        self.request_work().await?;
        self.report_running().await
    }

    /// Sends a heartbeat early if the running trials have changed since the last report.
    async fn report_running(&mut self) -> Result<(), Disconnected> {
        let (trials, reported_at) = &self.reported;
        let is_due = reported_at.elapsed() >= REPORT_INTERVAL;
        if is_due && self.queue.with_queue(|queue| queue.running_trials()) != *trials {
            self.send_heartbeat().await?;
        }

        Ok(())
    }

    async fn send_heartbeat(&mut self) -> Result<(), Disconnected> {
        let trials = self.queue.with_queue(|queue| queue.running_trials());
        let running = trials
            .iter()
            .map(|(fence, key)| v1::RunningTrial {
                lease: fence.lease.0,
                key: Some((*key).into()),
            })
            .collect();
        let beat = self.queue.with_queue(|queue| v1::Heartbeat {
            running,
            queued: queue.queued_count(),
            unacknowledged: queue.unacknowledged_count(),
            held: queue.held_fences().into_iter().map(Into::into).collect(),
        });

        self.reported = (trials, Instant::now());
        self.send_message(Request::Heartbeat(beat)).await
    }

    /// Requests work, if it is needed and no request is open.
    async fn request_work(&mut self) -> Result<(), Disconnected> {
        if self.work_requested {
            return Ok(());
        }

        match self.queue.with_queue(|queue| queue.slots_to_request()) {
            None => Ok(()),
            Some(idle_slots) => {
                self.work_requested = true;
                self.send_message(Request::RequestWork(v1::RequestWork { idle_slots }))
                    .await
            }
        }
    }

    async fn send_message(&self, message: Request) -> Result<(), Disconnected> {
        let request = v1::SessionRequest {
            message: Some(message),
        };
        self.outgoing.send(request).await.map_err(|_| Disconnected)
    }
}

/// Takes the next message, first those that arrived while a sweep was being fetched.
async fn next_message(
    pending: &mut VecDeque<v1::SessionResponse>,
    incoming: &mut Streaming<v1::SessionResponse>,
) -> Result<Option<v1::SessionResponse>, tonic::Status> {
    match pending.pop_front() {
        Some(message) => Ok(Some(message)),
        None => incoming.message().await,
    }
}

/// Returns why these trials, which have one shape, do not fit into memory; `None` if they fit.
fn check_fits_memory(identity: &WorkerIdentity, spec: &Spec, keys: &[TrialKey]) -> Option<String> {
    let (trial, dataset) = keys
        .first()
        .map_or((0, 0), |key| sweeps::required_bytes(spec, key.cell));
    memory::explain_shortage(identity.memory, identity.slots, trial, dataset)
}
