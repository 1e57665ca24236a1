//! Workers that keep sessions with a coordinator and train nothing.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ergodic_common::trial::CPU_F32;
use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::channel::connect::{ClientChannel, connect_now};
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::v1::session_response::Message as Response;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Number of workers that join at the same time. A coordinator opens 1024 sessions at a time at most.
const JOINING_AT_ONCE: usize = 200;
/// Messages of a worker that wait to be sent.
const UNSENT_MESSAGES: usize = 4;
/// Time limit for the answers to all messages of a round.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval at which heartbeats that are due are sent.
const PACE: Duration = Duration::from_millis(1);

/// Numbers of messages that the coordinator has sent to all workers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerCounts {
    pub(super) grants: u64,
    pub(super) renewals: u64,
    /// Number of sessions that have ended.
    ended: u64,
}

/// What the coordinator has told the workers.
#[derive(Debug, Default)]
struct FleetBoard {
    counts: watch::Sender<AnswerCounts>,
    /// The reason why the first session ended.
    first_end: OnceLock<String>,
}

impl FleetBoard {
    fn note_end(&self, why: String) {
        let _ = self.first_end.set(why);
        self.counts.send_modify(|counts| counts.ended += 1);
    }
}

/// Workers in session.
pub(super) struct PretendFleet {
    workers: Vec<PretendWorker>,
    board: Arc<FleetBoard>,
    /// The tasks that read what the coordinator says. They end with the fleet.
    readers: JoinSet<()>,
}

/// One worker in session.
struct PretendWorker {
    id: String,
    client: WorkerServiceClient<ClientChannel>,
    outgoing: mpsc::Sender<v1::SessionRequest>,
    lease: HeldLease,
}

/// The last lease that a worker was granted.
#[derive(Debug, Clone, Default)]
struct HeldLease(Arc<Mutex<Option<v1::Grant>>>);

impl HeldLease {
    fn lock_grant(&self) -> MutexGuard<'_, Option<v1::Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PretendFleet {
    /// Joins this many workers over this many connections.
    ///
    /// # Errors
    /// The coordinator refuses one, or does not answer.
    pub(super) async fn join(
        url: &str,
        workers: usize,
        connections: usize,
    ) -> Result<Self, UserError> {
        let mut clients = Vec::with_capacity(connections);
        for _ in 0..connections {
            let channel = connect_now(url, &ClientAuth::default()).await?;
            clients.push(WorkerServiceClient::new(channel));
        }

        let mut fleet = Self {
            workers: Vec::with_capacity(workers),
            board: Arc::default(),
            readers: JoinSet::new(),
        };
        while fleet.workers.len() < workers {
            let from = fleet.workers.len();
            let to = workers.min(from + JOINING_AT_ONCE);
            fleet.join_range(&clients, from..to).await?;
        }

        Ok(fleet)
    }

    async fn join_range(
        &mut self,
        clients: &[WorkerServiceClient<ClientChannel>],
        numbers: Range<usize>,
    ) -> Result<(), UserError> {
        let mut joining = JoinSet::new();
        for number in numbers {
            let client = clients[number % clients.len()].clone();
            joining.spawn(PretendWorker::join(number, client));
        }

        while let Some(joined) = joining.join_next().await {
            let joined = joined.map_err(|e| fleet_error(&e.to_string()))?;
            let (worker, incoming) = joined.map_err(|status| UserError::from(&status))?;
            let reader = read_messages(incoming, worker.lease.clone(), self.board.clone());
            self.readers.spawn(reader);
            self.workers.push(worker);
        }

        Ok(())
    }

    /// Requests work for these workers.
    pub(super) async fn request_work(&self, workers: Range<usize>) -> Result<(), UserError> {
        for worker in &self.workers[workers] {
            let request = v1::RequestWork { idle_slots: 1 };
            self.send(worker, Request::RequestWork(request)).await?;
        }
        Ok(())
    }

    /// Sends a heartbeat of each of these workers.
    pub(super) async fn send_heartbeats(&self, workers: Range<usize>) -> Result<(), UserError> {
        for worker in &self.workers[workers] {
            self.send(worker, Request::Heartbeat(worker.build_heartbeat()))
                .await?;
        }
        Ok(())
    }

    /// Sends heartbeats of all workers in turn for a time, as many as there are with one worker's at this interval. Returns how
    /// many were sent, when all are answered.
    pub(super) async fn keep_beating(
        &self,
        interval: Duration,
        duration: Duration,
    ) -> Result<u64, UserError> {
        let before = self.counts().renewals;
        let per_second = self.workers.len() as f64 / interval.as_secs_f64();
        let mut ticks = tokio::time::interval(PACE);
        let started = Instant::now();
        let mut sent = 0;

        loop {
            ticks.tick().await;
            let elapsed = started.elapsed().min(duration);
            let due = (elapsed.as_secs_f64() * per_second) as u64;
            while sent < due {
                let next = (sent % self.workers.len() as u64) as usize;
                self.send_heartbeats(next..next + 1).await?;
                sent += 1;
            }

            if elapsed == duration {
                break;
            }
        }

        self.wait_for("heartbeats", |counts| counts.renewals >= before + sent)
            .await?;
        Ok(sent)
    }

    /// Delivers a result of the trial that a worker holds, which took this long.
    ///
    /// # Errors
    /// The worker holds none, or the coordinator does not take the result.
    pub(super) async fn deliver_result(
        &self,
        worker: usize,
        trial_seconds: f64,
    ) -> Result<(), UserError> {
        let worker = &self.workers[worker];
        let grant = worker.lease.lock_grant().take();
        let grant = grant.ok_or_else(|| fleet_error("a worker was granted no lease"))?;
        let request = v1::CommitResultsRequest {
            worker: worker.id.clone(),
            fence: grant.fence,
            results: vec![build_result(&grant, trial_seconds)],
            sweep: grant.sweep,
            checksum: Vec::new(),
        };

        let mut client = worker.client.clone();
        let committed = client.commit_results(request.with_checksum()).await;
        committed
            .map(|_| ())
            .map_err(|status| UserError::from(&status))
    }

    /// What the coordinator has sent up to now.
    pub(super) fn counts(&self) -> AnswerCounts {
        *self.board.counts.borrow()
    }

    /// Waits until the coordinator has sent enough.
    ///
    /// # Errors
    /// A session has ended, or the answers do not come in time.
    pub(super) async fn wait_for(
        &self,
        what: &str,
        are_there: impl Fn(&AnswerCounts) -> bool,
    ) -> Result<(), UserError> {
        let mut counts = self.board.counts.subscribe();
        let reached = counts.wait_for(|counts| counts.ended > 0 || are_there(counts));
        let reached = tokio::time::timeout(ANSWER_TIMEOUT, reached).await;
        match reached.map(|counts| counts.map(|counts| counts.ended)) {
            Ok(Ok(0)) => Ok(()),
            Ok(_) => Err(self.ended_error()),
            Err(_) => Err(fleet_error(&format!(
                "the coordinator has not answered all {what} within {} s",
                ANSWER_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn send(&self, worker: &PretendWorker, message: Request) -> Result<(), UserError> {
        let request = v1::SessionRequest {
            message: Some(message),
        };
        let sent = worker.outgoing.send(request).await;
        sent.map_err(|_| self.ended_error())
    }

    fn ended_error(&self) -> UserError {
        let why = self.board.first_end.get().map_or("", String::as_str);
        fleet_error(&format!("a session ended: {why}"))
    }
}

impl PretendWorker {
    async fn join(
        number: usize,
        mut client: WorkerServiceClient<ClientChannel>,
    ) -> Result<(Self, Streaming<v1::SessionResponse>), Status> {
        let (outgoing, messages) = mpsc::channel(UNSENT_MESSAGES);
        let hello = v1::Hello {
            protocol: PROTOCOL_VERSION,
            build: BUILD.to_owned(),
            worker: format!("{number:032x}"),
            name: format!("pretend-{number}"),
            slots: 1,
            numerics: vec![CPU_F32.to_owned()],
            ..v1::Hello::default()
        };
        let first = v1::SessionRequest {
            message: Some(Request::Hello(hello.clone())),
        };
        outgoing
            .send(first)
            .await
            .map_err(|_| Status::unavailable("the session ended"))?;

        let mut incoming = client
            .session(ReceiverStream::new(messages))
            .await?
            .into_inner();
        // The first message is the welcome, whose heartbeat interval is that of another lease time.
        incoming.message().await?;

        let worker = Self {
            id: hello.worker,
            client,
            outgoing,
            lease: HeldLease::default(),
        };
        Ok((worker, incoming))
    }

    fn build_heartbeat(&self) -> v1::Heartbeat {
        let grant = self.lease.lock_grant();
        let Some((grant, fence)) = grant.as_ref().and_then(|grant| Some((grant, grant.fence?)))
        else {
            return v1::Heartbeat::default();
        };
        let running = v1::RunningTrial {
            lease: fence.lease,
            key: first_trial(grant),
        };
        v1::Heartbeat {
            running: vec![running],
            held: vec![fence],
            ..v1::Heartbeat::default()
        }
    }
}

/// Reads what the coordinator says to a worker until the session ends.
async fn read_messages(
    mut incoming: Streaming<v1::SessionResponse>,
    lease: HeldLease,
    board: Arc<FleetBoard>,
) {
    let why = loop {
        match incoming.message().await {
            Ok(Some(response)) => match response.message {
                Some(Response::Grant(grant)) => {
                    *lease.lock_grant() = Some(grant);
                    board.counts.send_modify(|counts| counts.grants += 1);
                }
                Some(Response::Renewed(_)) => {
                    board.counts.send_modify(|counts| counts.renewals += 1);
                }
                _ => {}
            },
            Ok(None) => break "the coordinator closed it".to_owned(),
            Err(status) => break status.message().to_owned(),
        }
    };

    board.note_end(why);
}

fn first_trial(grant: &v1::Grant) -> Option<v1::TrialKey> {
    let (cell, repeat) = grant.cells.first().zip(grant.repeats.first())?;
    Some(v1::TrialKey {
        cell: *cell,
        repeat: *repeat,
    })
}

/// A made-up result of the first trial of a grant, with one metric.
fn build_result(grant: &v1::Grant, seconds: f64) -> v1::TrialResult {
    v1::TrialResult {
        key: first_trial(grant),
        outcome: v1::OutcomeKind::Completed.into(),
        steps: 1,
        seconds,
        metrics: vec![0.5],
        digest: vec![0; 32],
        ..v1::TrialResult::default()
    }
}

fn fleet_error(problem: &str) -> UserError {
    UserError::new(ErrorCode::Internal, problem)
}
