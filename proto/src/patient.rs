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

use crate::MAX_MESSAGE;
use crate::connect::{Access, channel, reason};
use crate::status::{busy, elsewhere, leader, retry_after};

/// Whoever is told to come again later gives up after this time.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Whoever finds no coordinator that leads gives up after this time, in which another one would have taken over.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(15);
/// Pause before the next look for the one that leads.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A wait of at least this time, and up to twice as long the first time, three times the second, so that those who were
/// turned away together do not come back together.
pub fn spread(wait: Duration, attempt: u32) -> Duration {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let share = f64::from(nanos % 1000) / 1000.0;
    wait + wait.mul_f64(share * f64::from(attempt.clamp(1, 8)))
}

/// A channel that asks again by itself, or asks the coordinator that leads where another one was asked. What is sent piece
/// by piece while it is being made, such as a session, cannot be sent again: there, the answer goes to whoever asked.
#[derive(Debug, Clone)]
pub struct Patient {
    channel: Channel,
    /// What opens the door of the one that leads; without, it is not looked for.
    access: Option<Arc<Access>>,
}

impl Patient {
    /// Over this channel.
    pub(crate) fn new(channel: Channel, access: Option<&Access>) -> Self {
        Self { channel, access: access.cloned().map(Arc::new) }
    }
}

impl tower_service::Service<Request<Body>> for Patient {
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
        Box::pin(ask(channel, self.access.clone(), request))
    }
}

async fn ask(home: Channel, access: Option<Arc<Access>>, request: Request<Body>) -> Result<Response<Body>, Error> {
    use tower_service::Service as _;
    let (head, body) = request.into_parts();
    let mut asking = Asking { home: home.clone(), access, started: Instant::now(), attempt: 1, sent_to: String::new() };
    let (mut channel, mut body) = (home, Pieces::gather(body).await);
    loop {
        let again = body.again();
        let answer = match channel.call(Request::from_parts(head.clone(), Body::new(body))).await {
            Ok(answer) => answer,
            Err(error) if asking.sent_to.is_empty() => {
                let Some(again) = again.filter(|_| asking.attempt == 1 && only_reads(&head) && broke_off(&error))
                else {
                    return Err(error);
                };
                tokio::time::sleep(spread(LOOK_AGAIN_AFTER, 1)).await;
                channel = asking.home.clone();
                std::future::poll_fn(|context| channel.poll_ready(context)).await?;
                body = again;
                asking.attempt += 1;
                continue;
            }
            Err(error) => return Ok(lost(&asking.sent_to, &error).into_http()),
        };
        let Some((status, again)) = Status::from_header_map(answer.headers()).zip(again) else { return Ok(answer) };
        channel = match asking.next(&status).await {
            Next::Ask(channel) => channel,
            Next::GiveUp(status) => return Ok(status.into_http()),
            Next::Believe => return Ok(answer),
        };
        std::future::poll_fn(|context| channel.poll_ready(context)).await?;
        body = again;
        asking.attempt += 1;
    }
}

/// Requests that change nothing, and can be sent again whatever became of them.
const READS: [&str; 18] = [
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

fn only_reads(head: &http::request::Parts) -> bool {
    head.uri.path().rsplit('/').next().is_some_and(|method| READS.contains(&method))
}

/// Whether there was a connection, and it broke: as when a coordinator begins another turn, which ends those of the last one.
fn broke_off(error: &Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let kind = innermost.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// A request that has not been dealt with.
struct Asking {
    home: Channel,
    access: Option<Arc<Access>>,
    started: Instant,
    attempt: u32,
    /// The leader that it is sent to, unless it is the coordinator that was asked first.
    sent_to: String,
}

/// Whether it was done is not known, so that it is not sent again.
fn lost(leader: &str, error: &Error) -> Status {
    let why = reason(error);
    elsewhere(
        leader,
        &format!(", and fell silent while it was asked ({why}): it may have done what it was asked, or not"),
    )
}

/// What follows from an answer.
enum Next {
    /// This one is to be asked, now.
    Ask(Channel),
    /// It took too long.
    GiveUp(Status),
    /// It is the answer.
    Believe,
}

impl Asking {
    /// Waits where there is no room, and finds the one that leads where another one was asked.
    async fn next(&mut self, status: &Status) -> Next {
        match (retry_after(status), leader(status), &self.access) {
            (Some(wait), ..) => self.later(status, spread(wait, self.attempt)).await,
            (None, Some(url), Some(access)) => self.at_the_leader(url, access.clone()).await,
            _ => Next::Believe,
        }
    }

    async fn later(&self, status: &Status, wait: Duration) -> Next {
        if self.started.elapsed() + wait > GIVE_UP_AFTER {
            let (times, tried) = (self.attempt, self.started.elapsed().as_secs());
            let message = format!("{} (asked {times} times in {tried} s, and gave up)", status.message());
            return Next::GiveUp(busy(&message, wait));
        }
        tokio::time::sleep(wait).await;
        Next::Ask(self.home.clone())
    }

    /// Nothing was done with the request, so that it can be sent to another. While one follows another, several may be sent to
    /// before one says that it leads.
    async fn at_the_leader(&mut self, url: String, access: Arc<Access>) -> Next {
        if self.attempt > 1 {
            tokio::time::sleep(spread(LOOK_AGAIN_AFTER, 1)).await;
        }
        let found = if url.is_empty() { None } else { Some(channel(&url, &access).await) };
        self.sent_to = String::new();
        match found {
            Some(Ok(channel)) if self.started.elapsed() < TAKEN_OVER_WITHIN => {
                self.sent_to = url;
                Next::Ask(channel)
            }
            _ if self.started.elapsed() < TAKEN_OVER_WITHIN => Next::Ask(self.home.clone()),
            Some(Err(error)) => Next::GiveUp(elsewhere(&url, &format!(", and cannot be reached from here ({error})"))),
            _ => Next::GiveUp(elsewhere(&url, "")),
        }
    }
}

/// A body, of which what was there at once is kept.
struct Pieces {
    first: VecDeque<Bytes>,
    rest: Rest,
}

/// What follows.
enum Rest {
    Nothing,
    /// What comes later, or was too much to keep.
    Body(Body),
    /// What went wrong where it was made.
    Failure(Status),
}

impl Pieces {
    /// Takes what is there of a body, up to a message.
    async fn gather(mut body: Body) -> Self {
        let (mut first, mut bytes) = (VecDeque::new(), 0);
        while bytes <= MAX_MESSAGE {
            // What is not there yet is not waited for: it may depend on the answer.
            let next = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await;
            match next {
                Poll::Ready(None) => return Self { first, rest: Rest::Nothing },
                Poll::Ready(Some(Err(status))) => return Self { first, rest: Rest::Failure(status) },
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => {
                    // A request has no trailers.
                    let piece = frame.into_data().unwrap_or_default();
                    bytes += piece.len();
                    first.push_back(piece);
                }
            }
        }
        Self { first, rest: Rest::Body(body) }
    }

    /// The same once more, if all of it is kept.
    fn again(&self) -> Option<Self> {
        matches!(self.rest, Rest::Nothing).then(|| Self { first: self.first.clone(), rest: Rest::Nothing })
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Nothing => Poll::Ready(None),
            Rest::Failure(status) => Poll::Ready(Some(Err(status))),
            Rest::Body(mut body) => {
                let next = Pin::new(&mut body).poll_frame(context);
                self.rest = Rest::Body(body);
                next
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && matches!(self.rest, Rest::Nothing)
    }
}
