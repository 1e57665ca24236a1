//! A middleman between worker and coordinator, who understands what passes, and spoils one result of many.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::v1;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use ergodic_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use ergodic_tests::{Cluster, connection};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::empty_sweep;

type Messages<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// Hands everything on, but the first result of one repeat never whole.
struct Middleman {
    coordinator: WorkerServiceClient<Channel>,
    spoilt: u32,
    /// Refused batches in which others came along.
    refused: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl WorkerService for Middleman {
    type SessionStream = Messages<v1::SessionResponse>;
    type FetchCheckpointStream = Messages<v1::FetchCheckpointResponse>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let said = request.into_inner().map_while(Result::ok);
        let heard = self.coordinator.clone().session(said).await?.into_inner();
        Ok(Response::new(Box::pin(heard)))
    }

    async fn commit_results(
        &self,
        request: Request<v1::CommitResultsRequest>,
    ) -> Result<Response<v1::CommitResultsResponse>, Status> {
        let mut request = request.into_inner();
        assert!(request.verify_checksum(), "a worker seals what it sends");
        let completed =
            |result: &&mut v1::TrialResult| result.outcome() == v1::OutcomeKind::Completed;
        for result in request.results.iter_mut().filter(completed) {
            if result.key.is_some_and(|key| key.repeat == self.spoilt) {
                result.digest.truncate(5);
            }
        }

        let several = request.results.len() > 1;
        let answer = self
            .coordinator
            .clone()
            .commit_results(request.with_checksum())
            .await;
        self.refused
            .fetch_add(usize::from(several && answer.is_err()), Ordering::Relaxed);

        answer
    }

    async fn get_sweep(
        &self,
        request: Request<v1::GetSweepRequest>,
    ) -> Result<Response<v1::GetSweepResponse>, Status> {
        self.coordinator
            .clone()
            .get_sweep(request.into_inner())
            .await
    }

    async fn keep_checkpoint(
        &self,
        request: Request<Streaming<v1::KeepCheckpointRequest>>,
    ) -> Result<Response<v1::KeepCheckpointResponse>, Status> {
        self.coordinator
            .clone()
            .keep_checkpoint(request.into_inner().map_while(Result::ok))
            .await
    }

    async fn fetch_checkpoint(
        &self,
        request: Request<v1::FetchCheckpointRequest>,
    ) -> Result<Response<Self::FetchCheckpointStream>, Status> {
        let pieces = self
            .coordinator
            .clone()
            .fetch_checkpoint(request.into_inner())
            .await?
            .into_inner();
        Ok(Response::new(Box::pin(pieces)))
    }
}

#[test]
fn one_result_that_cannot_be_taken_fails_alone_and_the_others_of_its_batch_are_stored() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");

    let mut cluster = Cluster::counted(&[]);
    let refused = Arc::new(AtomicUsize::new(0));
    let url = runtime.block_on(async {
        let coordinator = WorkerServiceClient::new(connection(&cluster.url).await);
        let middleman = WorkerServiceServer::new(Middleman {
            coordinator,
            spoilt: 171,
            refused: refused.clone(),
        });

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let serving = Server::builder()
            .add_service(middleman)
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serving);

        format!("http://{address}")
    });

    let id = cluster.launch(&empty_sweep(400));
    let worker = cluster.worker_by(&url, 1, &[]);
    let status = cluster.wait_for_end(&id);
    assert_eq!(
        (&status["completed"], &status["failed"]),
        (&399.into(), &1.into()),
        "{status}"
    );

    assert!(
        refused.load(Ordering::Relaxed) > 0,
        "it was never sent with others"
    );
    let explained = cluster.ask(&["explain", &id, "0/171"]);
    let why = "failed: the coordinator refused its result: the field digest of TrialResult is not 32 bytes long";
    assert!(explained.contains(why), "{explained}");

    let named =
        |line: &str| line.contains("reporting their trials as failed") && line.contains("0/171");
    assert!(
        worker.log().lines().any(named),
        "the worker names it:\n{}",
        worker.log()
    );

    let done = cluster.done();
    assert_eq!(
        (done.begun, done.stored),
        (400, 400),
        "nothing is run again, and nothing was sent twice"
    );

    worker.signal("TERM");
    assert_eq!(worker.wait(), 0);
    drop(runtime);
}
