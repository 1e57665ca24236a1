//! The HTTP port: whether the coordinator lives, whether it can serve, and what there is to count. Only numbers are told, and
//! nobody is asked who they are: hence few connections, and short ones.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use ergodic_proto::status::elsewhere;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, oneshot};
use tokio::time::Sleep;

use super::Shared;
use super::engine::Event;
use super::limits::{Crowd, Seat};
use super::listen::{PAUSE, most_connections};
use super::metrics::Snapshot;

/// A store that has not answered after this time is not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// An answer about the store is good for this long, however often it is asked for.
const GOOD_FOR: Duration = Duration::from_millis(500);

/// Connections at most, or an eighth of those that the system allows.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may stay, whatever it is doing.
const CLOSED_AFTER: Duration = Duration::from_secs(10);

struct Http {
    shared: Arc<Shared>,
    ready: Mutex<Option<(Instant, Result<(), String>)>>,
}

/// Serves until the coordinator stops.
pub(super) async fn serve(listener: Arc<TcpListener>, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut stopping = shared.stopping.clone();
    let http = Arc::new(Http { shared, ready: Mutex::new(None) });
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/readyz/reads", get(reads))
        .route("/metrics", get(metrics))
        .with_state(http);
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let crowd = Crowd::new((most_connections() / 8).clamp(8, MAX_CONNECTIONS));
    axum::serve(Limited { listener, crowd }, router).with_graceful_shutdown(stopped).await
}

async fn readyz(State(http): State<Arc<Http>>) -> (StatusCode, String) {
    let mut known = http.ready.lock().await;
    let fresh = known.take_if(|(asked, _)| asked.elapsed() >= GOOD_FOR).is_none() && known.is_some();
    if !fresh {
        *known = Some((Instant::now(), can_serve(&http.shared).await));
    }
    match known.as_ref().map(|(_, answer)| answer.clone()) {
        Some(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        _ => (StatusCode::OK, "ready\n".to_owned()),
    }
}

/// Whether questions are answered, by one that leads or one that stands by.
async fn reads(State(http): State<Arc<Http>>) -> (StatusCode, String) {
    match tokio::time::timeout(READY_WITHIN, http.shared.engine.ask(|_| ())).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n".to_owned()),
        Ok(Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", http.shared.unanswered().message())),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store has not answered within a second\n".to_owned()),
    }
}

/// Whether the store takes results, as far as is known, and a write, which is tried.
async fn can_serve(shared: &Shared) -> Result<(), String> {
    if let Some(leader) = shared.standing.leader() {
        return Err(elsewhere(&leader, "").message().to_owned());
    }
    if let Some(why) = shared.metrics.trouble() {
        return Err(why);
    }
    let (reply, answered) = oneshot::channel();
    shared.engine.tell(Event::Probe(reply));
    match tokio::time::timeout(READY_WITHIN, answered).await {
        Ok(Ok(written)) => written.map_err(|e| e.to_string()),
        Ok(Err(_)) => Err("the coordinator is stopping".to_owned()),
        Err(_) => Err("the store has not answered within a second".to_owned()),
    }
}

async fn metrics(State(http): State<Arc<Http>>) -> Response {
    match http.shared.engine.ask(Snapshot::of).await {
        Ok(snapshot) => {
            let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
            (kind, http.shared.metrics.text(&snapshot)).into_response()
        }
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", http.shared.unanswered().message())).into_response()
        }
    }
}

/// Takes connections while there is room; the others are closed at once.
struct Limited {
    listener: Arc<TcpListener>,
    crowd: Arc<Crowd>,
}

impl Listener for Limited {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let Some(seat) = self.crowd.seat(address.ip()) else { continue };
                    let end = Box::pin(tokio::time::sleep(CLOSED_AFTER));
                    return (Brief { stream, end, _seat: seat }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends after a while, however slowly the other side reads or writes.
struct Brief {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    /// Held, not read: its place among the connections.
    _seat: Seat,
}

impl Brief {
    /// What the stream says, unless it is over.
    fn unless_over<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => work(Pin::new(&mut self.stream), context),
        }
    }
}

impl AsyncRead for Brief {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.unless_over(context, |stream, context| stream.poll_read(context, buf))
    }
}

impl AsyncWrite for Brief {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unless_over(context, |stream, context| stream.poll_write(context, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unless_over(context, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
