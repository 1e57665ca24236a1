//! Serves the gRPC services over connections.

use std::sync::Arc;
use std::time::Duration;

use ergodic_proto::MAX_MESSAGE_BYTES;
use ergodic_proto::transfer::CHUNK_BYTES;
use ergodic_proto::v1::admin_service_server::AdminServiceServer;
use ergodic_proto::v1::file_service_server::FileServiceServer;
use ergodic_proto::v1::sweep_service_server::SweepServiceServer;
use ergodic_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::server::ServerContext;
use crate::server::auth::AuthLayer;
use crate::server::engine::{EngineEvent, EngineHandle};
use crate::server::limits::LimitLayer;
use crate::server::services::access::SweepApi;
use crate::server::services::admin::AdminApi;
use crate::server::services::files::FileApi;
use crate::server::services::session::KEEPALIVE_INTERVAL;
use crate::server::services::workers::WorkerApi;

/// Interval at which the core gets the time.
pub(crate) const TICK_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) fn spawn_ticks(handle: EngineHandle, mut stopping: tokio::sync::watch::Receiver<bool>) {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => handle.send_event(EngineEvent::Tick),
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    });
}

/// The gRPC services.
pub struct GrpcServices(pub(crate) Arc<ServerContext>);

impl GrpcServices {
    /// Serves these connections, and sends ticks to the core, until the term ends.
    ///
    /// # Errors
    /// Accepting connections failed.
    pub async fn serve_connections<C>(
        self,
        connections: impl Stream<Item = std::io::Result<C>>,
    ) -> Result<(), tonic::transport::Error>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        spawn_ticks(self.0.engine.clone(), self.0.stopping.clone());
        serve_grpc(connections, self.0).await
    }
}

pub(crate) async fn serve_grpc<C>(
    connections: impl Stream<Item = std::io::Result<C>>,
    context: Arc<ServerContext>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut stopping = context.stopping.clone();
    let guard = AuthLayer::new(
        context.tokens.clone(),
        context.leadership.clone(),
        stopping.clone(),
    );
    let metrics = context.metrics.clone();
    let limited = LimitLayer::new(context.limits.clone());
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };

    Server::builder()
        // The guard is outermost, so that requests that it rejects are neither counted nor given
        // labels.
        .layer(guard)
        .layer(metrics)
        .layer(limited)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_connection_window_size(8 << 20)
        .initial_stream_window_size(4 << 20)
        .max_concurrent_streams(256)
        .add_service(build_worker_service(&context))
        .add_service(build_file_service(&context))
        .add_service(build_sweep_service(&context))
        .add_service(build_admin_service(&context))
        .serve_with_incoming_shutdown(connections, stopped)
        .await
}

fn build_worker_service(context: &Arc<ServerContext>) -> WorkerServiceServer<WorkerApi> {
    WorkerServiceServer::new(WorkerApi(context.clone()))
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

fn build_file_service(context: &Arc<ServerContext>) -> FileServiceServer<FileApi> {
    FileServiceServer::new(FileApi(context.clone()))
        .accept_compressed(CompressionEncoding::Zstd)
        // One chunk of a file, and room for the message around it.
        .max_decoding_message_size(2 * CHUNK_BYTES)
}

fn build_sweep_service(context: &Arc<ServerContext>) -> SweepServiceServer<SweepApi> {
    SweepServiceServer::new(SweepApi(context.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(64 << 20)
}

fn build_admin_service(context: &Arc<ServerContext>) -> AdminServiceServer<AdminApi> {
    let admin = AdminApi {
        tokens: context.tokens.clone(),
        context: context.clone(),
    };
    AdminServiceServer::new(admin).max_decoding_message_size(64 << 10)
}
