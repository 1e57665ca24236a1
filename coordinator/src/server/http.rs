//! The HTTP port: liveness, readiness and metrics. It only serves numbers and authenticates nobody,
//! so connections are few and short.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex as Guarded, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use ergodic_proto::status::not_leader;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, oneshot};
use tokio::time::Sleep;

use super::context::ServerContext;
use super::engine::events::UserEvent;
use super::limits::peer_network;
use super::listen::{ACCEPT_RETRY_DELAY, raise_file_limit};
use super::metrics::CoreSnapshot;
use crate::throttled_log::ThrottledLog;

/// Time after which a store that has not responded counts as not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for which an answer about the store is reused.
const READY_CACHE_TTL: Duration = Duration::from_millis(500);

/// Maximum number of connections, or a sixteenth of the files that the process may open, if that is less.
const MAX_CONNECTIONS: u64 = 64;
/// Number of connections that there may be with however few files.
const MIN_CONNECTIONS: u64 = 8;
/// Maximum duration of a connection.
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(10);

struct HttpState {
    context: Arc<ServerContext>,
    ready: Mutex<Option<(Instant, Result<(), String>)>>,
}

/// Serves until the coordinator stops.
pub(super) async fn serve_http(
    listener: Arc<TcpListener>,
    context: Arc<ServerContext>,
) -> std::io::Result<()> {
    let mut stopping = context.stopping.clone();
    let http = Arc::new(HttpState {
        context,
        ready: Mutex::new(None),
    });
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(handle_readyz))
        .route("/readyz/reads", get(handle_readyz_reads))
        .route("/metrics", get(handle_metrics))
        .with_state(http);

    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let capacity = (raise_file_limit() / 16).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS);
    let connections = HttpConnections::new(capacity as usize);
    axum::serve(
        LimitedListener {
            listener,
            connections,
            throttled_log: ThrottledLog::default(),
        },
        router,
    )
    .with_graceful_shutdown(stopped)
    .await
}

async fn handle_readyz(State(http): State<Arc<HttpState>>) -> (StatusCode, String) {
    let mut known = http.ready.lock().await;
    let is_fresh = known
        .take_if(|(checked_at, _)| checked_at.elapsed() >= READY_CACHE_TTL)
        .is_none()
        && known.is_some();
    if !is_fresh {
        *known = Some((Instant::now(), check_readiness(&http.context).await));
    }

    match known.as_ref().map(|(_, answer)| answer.clone()) {
        Some(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        _ => (StatusCode::OK, "ready\n".to_owned()),
    }
}

/// Answers whether this coordinator serves reads, as the leader or a standby.
async fn handle_readyz_reads(State(http): State<Arc<HttpState>>) -> (StatusCode, String) {
    match tokio::time::timeout(READY_TIMEOUT, http.context.engine.query_core(|_| ())).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(_)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", http.context.unanswered_status().message()),
        ),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store has not answered within a second\n".to_owned(),
        ),
    }
}

/// Checks that the store accepts results, as far as is known, and that a write succeeds.
async fn check_readiness(context: &ServerContext) -> Result<(), String> {
    if let Some(leader) = context.leadership.other_leader() {
        return Err(not_leader(&leader, "").message().to_owned());
    }
    if let Some(why) = context.storage_trouble() {
        return Err(why);
    }

    let (reply, answered) = oneshot::channel();
    context
        .engine
        .send_event(UserEvent::CheckWritable { reply });

    match tokio::time::timeout(READY_TIMEOUT, answered).await {
        Ok(Ok(written)) => written.map_err(|e| e.to_string()),
        Ok(Err(_)) => Err("the coordinator is stopping".to_owned()),
        Err(_) => Err("the store has not answered within a second".to_owned()),
    }
}

async fn handle_metrics(State(http): State<Arc<HttpState>>) -> Response {
    match http
        .context
        .engine
        .query_core(CoreSnapshot::from_core)
        .await
    {
        Ok(snapshot) => {
            let kind = [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )];
            (kind, http.context.metrics.render_text(&snapshot)).into_response()
        }
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", http.context.unanswered_status().message()),
        )
            .into_response(),
    }
}

/// The open connections. A new one beyond the limit displaces the oldest, so that a probe is
/// answered soon, however many slow connections there are.
struct HttpConnections {
    capacity: usize,
    open: Guarded<OpenConnections>,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    /// Connections in order of arrival, with senders that end them when dropped.
    permits: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// A permit for one connection, which is returned on drop.
struct HttpPermit {
    connections: Arc<HttpConnections>,
    number: u64,
    /// Closes when another connection displaces this one.
    displaced: oneshot::Receiver<()>,
}

impl HttpConnections {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity: most,
            open: Guarded::default(),
        })
    }

    fn lock_open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection from this address, which gets at most half of all permits.
    fn admit_connection(self: &Arc<Self>, address: IpAddr) -> HttpPermit {
        let from = peer_network(address);
        let mut here = self.lock_open();
        let of_same = here.permits.iter().filter(|(_, (other, _))| *other == from);
        let oldest = match (
            of_same.clone().count() >= self.capacity / 2,
            here.permits.len() >= self.capacity,
        ) {
            (true, _) => of_same.map(|(number, _)| *number).next(),
            (false, true) => here.permits.keys().next().copied(),
            (false, false) => None,
        };
        if let Some(number) = oldest {
            here.permits.remove(&number);
        }

        here.next += 1;
        let number = here.next;
        let (held, displaced) = oneshot::channel();
        here.permits.insert(number, (from, held));
        drop(here);

        HttpPermit {
            connections: self.clone(),
            number,
            displaced,
        }
    }
}

impl Drop for HttpPermit {
    fn drop(&mut self) {
        self.connections.lock_open().permits.remove(&self.number);
    }
}

/// A listener that accepts connections within the limit.
struct LimitedListener {
    listener: Arc<TcpListener>,
    connections: Arc<HttpConnections>,
    throttled_log: ThrottledLog,
}

impl Listener for LimitedListener {
    type Io = BriefConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BriefConnection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let permit = self.connections.admit_connection(address.ip());
                    let end = Box::pin(tokio::time::sleep(MAX_CONNECTION_TIME));
                    return (
                        BriefConnection {
                            stream,
                            end,
                            permit,
                            is_over: false,
                        },
                        address,
                    );
                }
                Err(error) => {
                    self.throttled_log
                        .report_error("a connection could not be accepted", &error);
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with a maximum duration, however slow the other side is.
struct BriefConnection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    permit: HttpPermit,
    is_over: bool,
}

impl BriefConnection {
    /// Polls the stream, unless the connection must end.
    fn poll_unless_over<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.is_over = self.is_over
            || self.end.as_mut().poll(context).is_ready()
            || Pin::new(&mut self.permit.displaced)
                .poll(context)
                .is_ready();

        if self.is_over {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }

        work(Pin::new(&mut self.stream), context)
    }
}

impl AsyncRead for BriefConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_unless_over(context, |stream, context| stream.poll_read(context, buf))
    }
}

impl AsyncWrite for BriefConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_unless_over(context, |stream, context| stream.poll_write(context, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unless_over(context, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
