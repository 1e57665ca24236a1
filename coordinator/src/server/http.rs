//! The HTTP port: whether the coordinator lives, whether it can serve, and what there is to count. Only numbers are told, and
//! nobody is asked who they are: hence few connections, and short ones.

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

use super::Shared;
use super::complaints::Complaints;
use super::engine::Event;
use super::limits::network;
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
    let visitors = Visitors::new((most_connections() / 8).clamp(8, MAX_CONNECTIONS));
    axum::serve(Limited { listener, visitors, complaints: Complaints::default() }, router)
        .with_graceful_shutdown(stopped)
        .await
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
        return Err(not_leader(&leader, "").message().to_owned());
    }
    if let Some(why) = shared.trouble() {
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

/// Those that are connected. Whoever comes when there is no room gets the place of the one that has been there longest: a probe
/// is answered within a moment, however many others are slow.
struct Visitors {
    most: usize,
    here: Guarded<Here>,
}

#[derive(Default)]
struct Here {
    next: u64,
    /// In the order in which they came, with what ends them when it is dropped.
    places: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// A place for one connection, free again when dropped.
struct Visit {
    visitors: Arc<Visitors>,
    number: u64,
    /// Answers when somebody else has the place.
    displaced: oneshot::Receiver<()>,
}

impl Visitors {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, here: Guarded::default() })
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for whoever comes from there: no more than half of them are one address's.
    fn take_in(self: &Arc<Self>, address: IpAddr) -> Visit {
        let from = network(address);
        let mut here = self.here();
        let of_same = here.places.iter().filter(|(_, (other, _))| *other == from);
        let oldest = match (of_same.clone().count() >= self.most / 2, here.places.len() >= self.most) {
            (true, _) => of_same.map(|(number, _)| *number).next(),
            (false, true) => here.places.keys().next().copied(),
            (false, false) => None,
        };
        if let Some(number) = oldest {
            here.places.remove(&number);
        }
        here.next += 1;
        let (number, (held, displaced)) = (here.next, oneshot::channel());
        here.places.insert(number, (from, held));
        drop(here);
        Visit { visitors: self.clone(), number, displaced }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visitors.here().places.remove(&self.number);
    }
}

/// Takes connections.
struct Limited {
    listener: Arc<TcpListener>,
    visitors: Arc<Visitors>,
    complaints: Complaints,
}

impl Listener for Limited {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let visit = self.visitors.take_in(address.ip());
                    let end = Box::pin(tokio::time::sleep(CLOSED_AFTER));
                    return (Brief { stream, end, visit, is_over: false }, address);
                }
                Err(error) => {
                    self.complaints.say("a connection could not be taken", &error);
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
    visit: Visit,
    is_over: bool,
}

impl Brief {
    /// What the stream says, unless it is over.
    fn unless_over<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.is_over = self.is_over
            || self.end.as_mut().poll(context).is_ready()
            || Pin::new(&mut self.visit.displaced).poll(context).is_ready();
        if self.is_over {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        work(Pin::new(&mut self.stream), context)
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
