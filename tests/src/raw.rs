//! A worker made by hand: speaks the protocol, and does with results what no honest worker would.

use ergodic_common::trial::CPU_F32;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::v1::session_response::Message as Response;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// A connection to a coordinator.
///
/// # Panics
/// Nobody answers.
pub async fn connection(url: &str) -> Channel {
    let endpoint = Channel::from_shared(url.to_owned()).expect("the cluster has an address");
    endpoint.connect().await.expect("a coordinator answers")
}

/// An open session.
pub struct RawWorker {
    /// The service.
    pub client: WorkerServiceClient<Channel>,
    id: String,
    outgoing: mpsc::Sender<v1::SessionRequest>,
    incoming: Streaming<v1::SessionResponse>,
}

impl RawWorker {
    /// Joins as a worker of one slot speaking this protocol version.
    ///
    /// # Errors
    /// The coordinator refuses.
    ///
    /// # Panics
    /// Nobody answers.
    pub async fn join(url: &str, id: &str, protocol: u32) -> Result<Self, Status> {
        let hello = v1::Hello {
            protocol,
            build: "by hand".into(),
            worker: id.repeat(32)[..32].to_owned(),
            name: format!("raw-{id}"),
            slots: 1,
            numerics: vec![CPU_F32.into()],
            held: Vec::new(),
            programs: false,
            experiments: Vec::new(),
            supply: None,
            sends_output: false,
            begins_for_ms: None,
            drains: false,
        };

        Self::greet(url, hello).await
    }

    /// Joins as whoever says this.
    ///
    /// # Errors
    /// The coordinator refuses.
    ///
    /// # Panics
    /// Nobody answers.
    pub async fn greet(url: &str, hello: v1::Hello) -> Result<Self, Status> {
        let mut client = WorkerServiceClient::new(connection(url).await);
        let (outgoing, messages) = mpsc::channel(16);
        let id = hello.worker.clone();
        outgoing
            .send(v1::SessionRequest {
                message: Some(Request::Hello(hello)),
            })
            .await
            .expect("the channel is open");

        let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
        let mut incoming = client.session(stream).await?.into_inner();
        match incoming.message().await? {
            Some(v1::SessionResponse {
                message: Some(Response::Welcome(_)),
            }) => {}
            other => panic!("expected a welcome, found {other:?}"),
        }

        Ok(Self {
            client,
            id,
            outgoing,
            incoming,
        })
    }

    /// Joins with the right protocol version.
    ///
    /// # Panics
    /// The coordinator refuses.
    pub async fn joined(url: &str, id: &str) -> Self {
        Self::join(url, id, PROTOCOL_VERSION)
            .await
            .expect("the coordinator takes the worker")
    }

    /// The same worker over this one's connection, for what needs no session.
    pub fn as_worker(&self, other: &Self) -> ResultSender {
        ResultSender {
            client: self.client.clone(),
            id: other.id.clone(),
        }
    }

    /// Waits for the next message of the coordinator, which may be of a kind that is not known here.
    async fn next_message(&mut self) -> Option<Response> {
        let message = self.incoming.message().await;
        let message = message.expect("the session goes on");
        message.expect("the session goes on").message
    }

    /// Asks for a lease and waits for it.
    ///
    /// # Panics
    /// The session ends instead.
    pub async fn lease(&mut self) -> v1::Grant {
        self.say(Request::RequestWork(v1::RequestWork { idle_slots: 1 }))
            .await;

        loop {
            let message = self.next_message().await;
            if let Some(Response::Grant(grant)) = message {
                return grant;
            }
        }
    }

    /// Says something.
    ///
    /// # Panics
    /// The session has ended.
    pub async fn say(&self, message: Request) {
        self.outgoing
            .send(v1::SessionRequest {
                message: Some(message),
            })
            .await
            .expect("the session goes on");
    }

    /// Says something, unless the session has ended: whether it was said.
    pub async fn try_say(&self, message: Request) -> bool {
        self.outgoing
            .send(v1::SessionRequest {
                message: Some(message),
            })
            .await
            .is_ok()
    }

    /// Sends heartbeats from now on, for as long as the session lasts or until the task is aborted.
    pub fn keep_beating(&self) -> tokio::task::JoinHandle<()> {
        let outgoing = self.outgoing.clone();
        tokio::spawn(async move {
            let beat = || v1::SessionRequest {
                message: Some(Request::Heartbeat(v1::Heartbeat::default())),
            };
            while outgoing.send(beat()).await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            }
        })
    }

    /// Sends a heartbeat and waits until the coordinator has heard it, and with it all that was said before.
    ///
    /// # Panics
    /// The session ends instead.
    pub async fn beat(&mut self) {
        self.beats(1).await;
    }

    /// Sends a heartbeat and waits until this many have been answered.
    ///
    /// # Panics
    /// The session ends instead.
    pub async fn beats(&mut self, mut unanswered: u32) {
        self.say(Request::Heartbeat(v1::Heartbeat::default())).await;
        while unanswered > 0 {
            let message = self.next_message().await;
            unanswered -= u32::from(matches!(message, Some(Response::Renewed(_))));
        }
    }

    /// Waits until the coordinator takes leases back.
    ///
    /// # Panics
    /// The session ends instead.
    pub async fn revoked(&mut self) -> v1::Revoke {
        loop {
            let message = self.next_message().await;
            if let Some(Response::Revoke(revoke)) = message {
                return revoke;
            }
        }
    }

    /// Waits until the coordinator asks for trials back.
    ///
    /// # Panics
    /// The session ends instead.
    pub async fn asked_back(&mut self) -> v1::Retract {
        loop {
            let message = self.next_message().await;
            if let Some(Response::Retract(wanted)) = message {
                return wanted;
            }
        }
    }

    /// Waits until the coordinator asks for the output of a trial.
    ///
    /// # Panics
    /// The session ends instead.
    pub async fn asked_for_output(&mut self) -> v1::SendOutput {
        loop {
            let message = self.next_message().await;
            if let Some(Response::SendOutput(wanted)) = message {
                return wanted;
            }
        }
    }

    /// Delivers results under a grant.
    ///
    /// # Errors
    /// The coordinator does not take them.
    pub async fn deliver(
        &self,
        grant: &v1::Grant,
        results: Vec<v1::TrialResult>,
    ) -> Result<v1::CommitResultsResponse, Status> {
        self.as_worker(self).deliver(grant, results).await
    }

    /// Keeps the first trial of a grant.
    ///
    /// # Errors
    /// The coordinator does not.
    pub async fn keep(
        &self,
        grant: &v1::Grant,
        steps: u64,
        checkpoint: &[u8],
    ) -> Result<(), Status> {
        let head = v1::CheckpointHead {
            worker: self.id.clone(),
            fence: grant.fence,
            sweep: grant.sweep.clone(),
            key: Some(v1::TrialKey {
                cell: grant.cells[0],
                repeat: grant.repeats[0],
            }),
            steps,
            hash: blake3::hash(checkpoint).as_bytes().to_vec(),
            checksum: Vec::new(),
        };
        let first = v1::KeepCheckpointRequest {
            head: Some(head.with_checksum()),
            chunk: Vec::new(),
        };

        let pieces = checkpoint.chunks(1 << 20);
        let pieces = pieces.map(|chunk| v1::KeepCheckpointRequest {
            head: None,
            chunk: chunk.to_vec(),
        });
        let messages: Vec<_> = std::iter::once(first).chain(pieces).collect();
        self.client
            .clone()
            .keep_checkpoint(tokio_stream::iter(messages))
            .await
            .map(|_| ())
    }

    /// What is kept of the first trial of a grant.
    ///
    /// # Errors
    /// The coordinator does not hand it out.
    pub async fn kept(&self, grant: &v1::Grant) -> Result<Vec<u8>, Status> {
        let request = v1::FetchCheckpointRequest {
            worker: self.id.clone(),
            fence: grant.fence,
            sweep: grant.sweep.clone(),
            key: Some(v1::TrialKey {
                cell: grant.cells[0],
                repeat: grant.repeats[0],
            }),
        };
        let mut pieces = self
            .client
            .clone()
            .fetch_checkpoint(request)
            .await?
            .into_inner();

        let mut checkpoint = Vec::new();
        while let Some(piece) = pieces.message().await? {
            checkpoint.extend(piece.chunk);
        }

        Ok(checkpoint)
    }

    /// A made-up result for the `i`-th trial of a grant, with one metric.
    pub fn result(grant: &v1::Grant, i: usize, metric: f64) -> v1::TrialResult {
        v1::TrialResult {
            key: Some(v1::TrialKey {
                cell: grant.cells[i],
                repeat: grant.repeats[i],
            }),
            outcome: v1::OutcomeKind::Completed.into(),
            steps: 1,
            seconds: 0.01,
            metrics: vec![metric],
            digest: vec![7; 32],
            ..v1::TrialResult::default()
        }
    }
}

/// Delivers results in a worker's name.
#[derive(Debug, Clone)]
pub struct ResultSender {
    client: WorkerServiceClient<Channel>,
    id: String,
}

impl ResultSender {
    /// Delivers results under a grant.
    ///
    /// # Errors
    /// The coordinator does not take them.
    pub async fn deliver(
        &mut self,
        grant: &v1::Grant,
        results: Vec<v1::TrialResult>,
    ) -> Result<v1::CommitResultsResponse, Status> {
        let request = v1::CommitResultsRequest {
            worker: self.id.clone(),
            fence: grant.fence,
            results,
            sweep: grant.sweep.clone(),
            checksum: Vec::new(),
        };
        Ok(self
            .client
            .commit_results(request.with_checksum())
            .await?
            .into_inner())
    }
}
