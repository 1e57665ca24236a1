//! Asking again where a coordinator has no room at the moment, for workers and clients alike: no sooner than it says, and not
//! for ever.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::transport::{Channel, Error};

use crate::MAX_MESSAGE_BYTES;
use crate::channel::credentials::ClientAuth;
use crate::channel::transport::open_channel;
use crate::status::{innermost_reason, leader_url, not_leader, overloaded, retry_after};

/// A request to an overloaded coordinator is given up after this time.
pub const MAX_RETRY_TIME: Duration = Duration::from_secs(60);
/// A request that finds no leader is given up after this time, in which another coordinator would have taken over.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before the next look for the one that leads.
const LEADER_RETRY_DELAY: Duration = Duration::from_millis(250);

/// A wait of at least this time, and up to twice as long the first time, three times the second, so that those who were
/// turned away together do not come back together.
pub fn with_jitter(wait: Duration, attempt: u32) -> Duration {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    let share = f64::from(nanos % 1000) / 1000.0;
    wait + wait.mul_f64(share * f64::from(attempt.clamp(1, 8)))
}

/// A channel that retries requests by itself, and redirects them to the leader where a standby answered. A stream that is sent
/// while it is being made, such as a session, cannot be sent again: the caller gets the answer as it is.
#[derive(Debug, Clone)]
pub struct RetryChannel {
    channel: Channel,
    /// Credentials for the leader; without them requests are not redirected.
    auth: Option<Arc<ClientAuth>>,
}

impl RetryChannel {
    /// Over this channel.
    pub(crate) fn new(channel: Channel, access: Option<&ClientAuth>) -> Self {
        Self {
            channel,
            auth: access.cloned().map(Arc::new),
        }
    }
}

impl tower_service::Service<Request<Body>> for RetryChannel {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The channel that is ready is the one to be used.
        let next = self.channel.clone();
        let channel = std::mem::replace(&mut self.channel, next);
        Box::pin(send_with_retries(channel, self.auth.clone(), request))
    }
}

async fn send_with_retries(
    home: Channel,
    access: Option<Arc<ClientAuth>>,
    request: Request<Body>,
) -> Result<Response<Body>, Error> {
    use tower_service::Service as _;
    let (head, body) = request.into_parts();
    let mut asking = PendingRequest {
        home: home.clone(),
        auth: access,
        started: Instant::now(),
        attempt: 1,
        leader_url: String::new(),
    };

    let mut channel = home;
    let mut body = ReplayableBody::from_body(body).await;

    loop {
        let again = body.try_replay();
        let answer = match channel
            .call(Request::from_parts(head.clone(), Body::new(body)))
            .await
        {
            Ok(answer) => answer,
            Err(error) if asking.leader_url.is_empty() => {
                let Some(again) = again.filter(|_| {
                    asking.attempt == 1 && is_read_only(&head) && is_connection_lost(&error)
                }) else {
                    return Err(error);
                };

                tokio::time::sleep(with_jitter(LEADER_RETRY_DELAY, 1)).await;
                channel = asking.home.clone();
                std::future::poll_fn(|context| channel.poll_ready(context)).await?;
                body = again;
                asking.attempt += 1;

                continue;
            }
            Err(error) => return Ok(leader_lost_status(&asking.leader_url, &error).into_http()),
        };
        let Some((status, again)) = Status::from_header_map(answer.headers()).zip(again) else {
            return Ok(answer);
        };
        channel = match asking.decide_next(&status).await {
            RetryDecision::SendTo(channel) => channel,
            RetryDecision::GiveUp(status) => return Ok(status.into_http()),
            RetryDecision::Accept => return Ok(answer),
        };

        std::future::poll_fn(|context| channel.poll_ready(context)).await?;
        body = again;
        asking.attempt += 1;
    }
}

/// Requests that change nothing, and can be sent again whatever became of them.
const READ_ONLY_METHODS: [&str; 18] = [
    "List",
    "ListPages",
    "Status",
    "Workers",
    "Table",
    "TablePages",
    "Trials",
    "Predictions",
    "Curves",
    "CurvePages",
    "Compare",
    "Distance",
    "Effects",
    "Variance",
    "Needs",
    "Explain",
    "Info",
    "Has",
];

fn is_read_only(head: &http::request::Parts) -> bool {
    head.uri
        .path()
        .rsplit('/')
        .next()
        .is_some_and(|method| READ_ONLY_METHODS.contains(&method))
}

/// Whether there was a connection, and it broke: as when a coordinator begins another turn, which ends those of the last one.
fn is_connection_lost(error: &Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }

    let kind = innermost
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    matches!(
        kind,
        Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
    )
}

/// A request that has not been dealt with.
struct PendingRequest {
    home: Channel,
    auth: Option<Arc<ClientAuth>>,
    started: Instant,
    attempt: u32,
    /// Address of the leader that the request was redirected to, if it was.
    leader_url: String,
}

/// The answer when the leader was lost: whether it did what was requested is not known, so the request is not sent again.
fn leader_lost_status(leader: &str, error: &Error) -> Status {
    let why = innermost_reason(error);
    not_leader(
        leader,
        &format!(
            ", and fell silent while it was asked ({why}): it may have done what it was asked, or not"
        ),
    )
}

/// How to go on after an answer.
enum RetryDecision {
    /// Send the request over this channel, now.
    SendTo(Channel),
    /// Return this status: the attempts took too long.
    GiveUp(Status),
    /// Return the answer.
    Accept,
}

impl PendingRequest {
    /// Waits where the coordinator is overloaded, and connects to the leader where a standby answered.
    async fn decide_next(&mut self, status: &Status) -> RetryDecision {
        match (retry_after(status), leader_url(status), &self.auth) {
            (Some(wait), ..) => {
                self.wait_and_retry(status, with_jitter(wait, self.attempt))
                    .await
            }
            (None, Some(url), Some(access)) => self.redirect_to_leader(url, access.clone()).await,
            _ => RetryDecision::Accept,
        }
    }

    async fn wait_and_retry(&self, status: &Status, wait: Duration) -> RetryDecision {
        if self.started.elapsed() + wait > MAX_RETRY_TIME {
            let times = self.attempt;
            let tried = self.started.elapsed().as_secs();
            let message = format!(
                "{} (asked {times} times in {tried} s, and gave up)",
                status.message()
            );
            return RetryDecision::GiveUp(overloaded(&message, wait));
        }

        tokio::time::sleep(wait).await;
        RetryDecision::SendTo(self.home.clone())
    }

    /// Nothing was done with the request, so that it can be sent to another. While one follows another, several may be sent to
    /// before one says that it leads.
    async fn redirect_to_leader(&mut self, url: String, access: Arc<ClientAuth>) -> RetryDecision {
        if self.attempt > 1 {
            tokio::time::sleep(with_jitter(LEADER_RETRY_DELAY, 1)).await;
        }

        let found = if url.is_empty() {
            None
        } else {
            Some(open_channel(&url, &access).await)
        };

        self.leader_url = String::new();
        match found {
            Some(Ok(channel)) if self.started.elapsed() < FAILOVER_TIMEOUT => {
                self.leader_url = url;
                RetryDecision::SendTo(channel)
            }
            _ if self.started.elapsed() < FAILOVER_TIMEOUT => {
                RetryDecision::SendTo(self.home.clone())
            }
            Some(Err(error)) => RetryDecision::GiveUp(not_leader(
                &url,
                &format!(", and cannot be reached from here ({error})"),
            )),
            _ => RetryDecision::GiveUp(not_leader(&url, "")),
        }
    }
}

/// A body whose frames are kept as far as they were there at once.
struct ReplayableBody {
    buffered: VecDeque<Bytes>,
    rest: BodyRest,
}

/// The rest of a body.
enum BodyRest {
    Nothing,
    /// Frames that come later, or were too much to keep.
    Body(Body),
    /// The error of the body's source.
    Failure(Status),
}

impl ReplayableBody {
    /// Takes what is there of a body, up to a message.
    async fn from_body(mut body: Body) -> Self {
        let mut first = VecDeque::new();
        let mut bytes = 0;
        while bytes <= MAX_MESSAGE_BYTES {
            // What is not there yet is not waited for: it may depend on the answer.
            let next = std::future::poll_fn(|context| {
                Poll::Ready(Pin::new(&mut body).poll_frame(context))
            })
            .await;
            match next {
                Poll::Ready(None) => {
                    return Self {
                        buffered: first,
                        rest: BodyRest::Nothing,
                    };
                }
                Poll::Ready(Some(Err(status))) => {
                    return Self {
                        buffered: first,
                        rest: BodyRest::Failure(status),
                    };
                }
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => {
                    // A request has no trailers.
                    let piece = frame.into_data().unwrap_or_default();
                    bytes += piece.len();
                    first.push_back(piece);
                }
            }
        }

        Self {
            buffered: first,
            rest: BodyRest::Body(body),
        }
    }

    /// A copy of the body, if all of it is kept.
    fn try_replay(&self) -> Option<Self> {
        matches!(self.rest, BodyRest::Nothing).then(|| Self {
            buffered: self.buffered.clone(),
            rest: BodyRest::Nothing,
        })
    }
}

impl http_body::Body for ReplayableBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.buffered.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }

        match std::mem::replace(&mut self.rest, BodyRest::Nothing) {
            BodyRest::Nothing => Poll::Ready(None),
            BodyRest::Failure(status) => Poll::Ready(Some(Err(status))),
            BodyRest::Body(mut body) => {
                let next = Pin::new(&mut body).poll_frame(context);
                self.rest = BodyRest::Body(body);
                next
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.buffered.is_empty() && matches!(self.rest, BodyRest::Nothing)
    }
}
