//! Accepts connections: a limited number, each with a timely handshake, and none that stays silent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::limits::{ConnectionCapacity, ConnectionLimit, ConnectionPermit, TokenBucket};
use crate::throttled_log::ThrottledLog;

/// Time limit for a handshake or, without TLS, for the first byte.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the first admitted request of a connection.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of files that a process is taken to open where the system sets no limit.
const UNLIMITED_FILES: u64 = 1 << 20;
/// Pause after an error of `accept`, such as too many open files.
pub(super) const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accepts connections until `stopping` becomes true.
pub(super) fn accept_connections(
    listener: Arc<TcpListener>,
    tls: Option<TlsAcceptor>,
    capacity: ConnectionCapacity,
    mut stopping: watch::Receiver<bool>,
) -> ReceiverStream<io::Result<ServerConnection>> {
    let (ready, connections) = mpsc::channel(64);
    let connection_limit = ConnectionLimit::new(capacity);
    tokio::spawn(async move {
        let mut throttled_log = ThrottledLog::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            let (stream, address): (TcpStream, SocketAddr) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    throttled_log.report_error("a connection could not be accepted", &error);
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };

            // A connection beyond the limit is closed at once rather than left waiting.
            let permit = match connection_limit.try_acquire(address.ip()) {
                Ok(permit) => permit,
                Err(refusal) => {
                    throttled_log.report_error(refusal.describe_kind(), &refusal);
                    continue;
                }
            };
            let stream = open_connection(stream, address.ip(), permit, tls.clone());
            let ready = ready.clone();
            tokio::spawn(async move {
                if let Some(connection) = stream.await {
                    let _ = ready.send(Ok(connection)).await;
                }
            });
        }
    });

    ReceiverStream::new(connections)
}

/// Performs the handshake; `None` if it fails or takes too long.
async fn open_connection(
    stream: TcpStream,
    address: IpAddr,
    permit: ConnectionPermit,
    tls: Option<TlsAcceptor>,
) -> Option<ServerConnection> {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, perform_handshake(stream, tls)).await;
    let stream = handshake.ok()?.ok()?;
    Some(ServerConnection::new(stream, address, permit))
}

/// Raises the number of files that this process may open as far as it may, and returns it.
pub(crate) fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );

    let files = getrlimit(Resource::Nofile).current;
    files.unwrap_or(UNLIMITED_FILES)
}

async fn perform_handshake(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
) -> io::Result<ConnectionStream> {
    // Tonic's own setting does not reach connections that it is handed.
    stream.set_nodelay(true)?;
    match tls {
        Some(tls) => Ok(ConnectionStream::Tls(Box::new(tls.accept(stream).await?))),
        None => {
            // A peek of zero bytes means that the peer has closed the connection.
            if stream.peek(&mut [0]).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(ConnectionStream::Plain(stream))
        }
    }
}

/// A connection's address, and what the services know of it.
#[derive(Debug, Clone)]
pub(crate) struct PeerInfo {
    address: IpAddr,
    state: Arc<PeerState>,
}

#[derive(Debug, Default)]
struct PeerState {
    /// Whether the guard has admitted a request.
    admitted: AtomicBool,
    /// Number of workers in session over this connection; more than one behind a proxy.
    sessions: AtomicU32,
    /// The requests that these workers may make.
    worker_tokens: Mutex<TokenBucket>,
}

/// A worker in session over a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct PeerSession(Arc<PeerState>);

impl PeerInfo {
    /// A peer at this address, of which nothing is known yet.
    pub(crate) fn new(address: IpAddr) -> Self {
        Self {
            address,
            state: Arc::default(),
        }
    }

    /// The address of the peer.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Records that the guard has admitted a request of this connection.
    pub(crate) fn mark_admitted(&self) {
        self.state.admitted.store(true, Ordering::Relaxed);
    }

    /// Records that a worker is in session over this connection.
    pub(crate) fn open_session(&self) -> PeerSession {
        self.state.sessions.fetch_add(1, Ordering::Relaxed);
        PeerSession(self.state.clone())
    }

    /// Whether a worker is in session over this connection, which has all requests of the worker.
    pub(crate) fn has_session(&self) -> bool {
        self.state.sessions.load(Ordering::Relaxed) > 0
    }

    /// Takes one of the requests that the workers of this connection may make, each `per_second`; or returns the time to wait.
    pub(crate) fn take_worker_token(&self, per_second: u32, now: Duration) -> Result<(), Duration> {
        let sessions = self.state.sessions.load(Ordering::Relaxed).max(1);
        let mut bucket = self
            .state
            .worker_tokens
            .lock()
            .expect("nothing panics while it holds the bucket");
        bucket.take_token(per_second.saturating_mul(sessions), now)
    }
}

impl Drop for PeerSession {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection after its handshake.
pub(super) struct ServerConnection {
    stream: ConnectionStream,
    peer: PeerInfo,
    /// Time at which the connection ends unless a request was admitted.
    request_deadline: Option<Pin<Box<Sleep>>>,
    /// Held as long as the connection is open.
    _permit: ConnectionPermit,
}

enum ConnectionStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl ServerConnection {
    fn new(stream: ConnectionStream, address: IpAddr, permit: ConnectionPermit) -> Self {
        let request_deadline = Some(Box::pin(tokio::time::sleep(FIRST_REQUEST_TIMEOUT)));
        Self {
            stream,
            peer: PeerInfo::new(address),
            request_deadline,
            _permit: permit,
        }
    }

    /// Whether the connection has been open for too long without an admitted request.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if self.peer.state.admitted.load(Ordering::Relaxed) {
            self.request_deadline = None;
        }
        self.request_deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }
}

impl Connected for ServerConnection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for ServerConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_overdue(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match &mut self.stream {
            ConnectionStream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            ConnectionStream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ServerConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            ConnectionStream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            ConnectionStream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            ConnectionStream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            ConnectionStream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            ConnectionStream::Plain(stream) => stream.is_write_vectored(),
            ConnectionStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            ConnectionStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            ConnectionStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            ConnectionStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            ConnectionStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::server::listen::*;

    /// How many of 100 requests at one moment get through.
    fn count_admitted(peer: &PeerInfo, now: Duration) -> usize {
        (0..100)
            .filter(|_| peer.take_worker_token(5, now).is_ok())
            .count()
    }

    #[test]
    fn workers_of_one_address_ask_each_at_its_rate_and_share_one_connection_in_sum() {
        let second = Duration::from_secs(1);
        let [one, other] = [1, 1].map(|n| PeerInfo::new([192, 0, 2, n].into()));
        assert!(!one.has_session());
        let first = one.open_session();
        let _others = other.open_session();
        assert!(one.has_session());
        assert_eq!(count_admitted(&one, second), 10);
        assert_eq!(count_admitted(&other, second), 10);

        let second_worker = one.open_session();
        assert_eq!(count_admitted(&one, 10 * second), 20);
        drop((first, second_worker));
        assert!(!one.has_session() && other.has_session());
    }
}
