//! The limits behind the guard: on request rates, open requests, and bytes that are arriving.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ergodic_proto::status::overloaded;
use http::{Request, Response};
use http_body::Frame;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use super::rate::{RateLimitKey, RateLimiter};
use super::{Limit, Limits, Permit};
use crate::server::auth::Principal;
use crate::server::listen::PeerInfo;

/// Time limit for a message, from its first byte to its last.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Limits the requests of all services.
#[derive(Clone)]
pub(crate) struct LimitLayer {
    limits: Limits,
    /// The limiter of request rates; `None` for no limit.
    rate_limiter: Option<Arc<Mutex<RateLimiter>>>,
    started: Instant,
}

impl LimitLayer {
    /// Limits bytes, open requests and, where there is a limit, requests per second.
    pub(crate) fn new(limits: Limits) -> Self {
        let rate_limiter = limits
            .request_rates
            .per_peer
            .map(|per_second| Arc::new(Mutex::new(RateLimiter::new(per_second))));
        Self {
            limits,
            rate_limiter,
            started: Instant::now(),
        }
    }

    fn admit_request(&self, request: &Request<Body>) -> Result<Permit, Status> {
        if let Some(key) = rate_limit_key(request) {
            self.check_rate(key, request)?;
        }
        self.limits.requests.try_acquire()
    }

    /// Counts a request: of a worker in session for the worker, and of others for the token or address. Workers with one token
    /// take nothing from each other, and a token has as much as all its workers together.
    fn check_rate(&self, key: RateLimitKey, request: &Request<Body>) -> Result<(), Status> {
        let now = self.started.elapsed();
        if let Some(peer) = request.extensions().get::<PeerInfo>()
            && peer.has_session()
        {
            let Some(per_second) = self.limits.request_rates.per_worker else {
                return Ok(());
            };
            let taken = peer.take_worker_token(per_second, now);
            return taken
                .map_err(|wait| rate_status("worker", per_second, "--worker-rate-limit", wait));
        }

        let Some(rate_limiter) = &self.rate_limiter else {
            return Ok(());
        };
        let mut rates = rate_limiter
            .lock()
            .expect("nothing panics while it holds the rates");
        let taken = rates.take_token(key, now);
        taken.map_err(|wait| {
            rate_status("token or address", rates.per_second(), "--rate-limit", wait)
        })
    }
}

/// The status of a peer that asks too often, by the limit that it exceeds.
fn rate_status(peer: &str, per_second: u32, option: &str, wait: Duration) -> Status {
    let message = format!(
        "rate limit exceeded: this {peer} makes more than {per_second} requests per second, which is {option} of the coordinator"
    );
    overloaded(&message, wait)
}

/// The key for counting a request. Without tokens, requests from this machine are not counted.
fn rate_limit_key(request: &Request<Body>) -> Option<RateLimitKey> {
    if let Some(principal) = request.extensions().get::<Principal>() {
        return Some(RateLimitKey::Token(principal.token_id.clone()));
    }
    let address: IpAddr = request.extensions().get::<PeerInfo>()?.address();
    (!address.to_canonical().is_loopback()).then(|| RateLimitKey::from_address(address))
}

impl<S> tower::Layer<S> for LimitLayer {
    type Service = LimitService<S>;

    fn layer(&self, inner: S) -> LimitService<S> {
        LimitService {
            layer: self.clone(),
            inner,
        }
    }
}

/// A service with limits on bytes and requests.
#[derive(Clone)]
pub(crate) struct LimitService<S> {
    layer: LimitLayer,
    inner: S,
}

impl<S> tower::Service<Request<Body>> for LimitService<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.layer.admit_request(&request) {
            Ok(permit) => {
                let byte_limit = self.layer.limits.incoming_bytes.clone();
                let answer = self
                    .inner
                    .call(request.map(|body| Body::new(MeteredBody::new(body, byte_limit))));
                Box::pin(async move {
                    let answer = answer.await;
                    drop(permit);
                    answer
                })
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// A body whose messages take permits for their bytes while they arrive, and must arrive in time. The crate `http-body-util` limits
/// bodies as a whole only, and the body of a stream of messages has no end.
struct MeteredBody {
    body: Body,
    limit: Limit,
    framing: MessageFraming,
    permit: Option<Permit>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl MeteredBody {
    fn new(body: Body, limit: Limit) -> Self {
        Self {
            body,
            limit,
            framing: MessageFraming::default(),
            permit: None,
            deadline: None,
        }
    }

    /// Counts a piece of a message.
    fn meter_piece(&mut self, piece: &[u8]) -> Result<(), Status> {
        let permit = self.limit.try_acquire_bytes(piece.len())?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }

        if self.framing.is_complete_after(piece) {
            (self.permit, self.deadline) = (None, None);
        } else if self.deadline.is_none() {
            self.deadline = Some(Box::pin(tokio::time::sleep(MESSAGE_TIMEOUT)));
        }

        Ok(())
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &next
            && let Some(piece) = frame.data_ref()
            && let Err(status) = self.meter_piece(piece)
        {
            return Poll::Ready(Some(Err(status)));
        }

        if next.is_pending() && self.is_late(context) {
            let message = "a message took longer than a minute to arrive";
            return Poll::Ready(Some(Err(Status::new(Code::DeadlineExceeded, message))));
        }

        next
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }
}

/// The position of a body within a message: each message is one byte, its length in four bytes, and
/// its content.
#[derive(Debug, Default)]
struct MessageFraming {
    header: Vec<u8>,
    missing: usize,
}

impl MessageFraming {
    /// Whether the last message is complete after this piece.
    fn is_complete_after(&mut self, mut piece: &[u8]) -> bool {
        loop {
            let taken = self.missing.min(piece.len());
            self.missing -= taken;
            piece = &piece[taken..];

            if self.missing > 0 || piece.is_empty() {
                return self.missing == 0 && self.header.is_empty();
            }

            let head = (5 - self.header.len()).min(piece.len());
            self.header.extend(&piece[..head]);
            piece = &piece[head..];

            if let [_, length @ ..] = &self.header[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.missing = u32::from_be_bytes(length) as usize;
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::server::limits::LimitOptions;
    use crate::server::limits::layer::*;

    #[test]
    fn the_end_of_a_message_is_found_however_it_is_cut() {
        let bytes = [
            &[0, 0, 0, 0, 3][..],
            b"abc",
            &[0, 0, 0, 0, 0],
            &[1, 0, 0, 1, 0],
            &[7; 256],
        ]
        .concat();
        let ends = [8, 13, bytes.len()];

        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut message = MessageFraming::default();
                for (from, to) in [(0, first), (first, second), (second, bytes.len())] {
                    let whole = message.is_complete_after(&bytes[from..to]);
                    assert_eq!(
                        whole,
                        to == 0 || ends.contains(&to),
                        "{first} {second} {to}"
                    );
                }
            }
        }
    }

    /// Number of 100 requests of a peer that are let through, and what is said of the last one that is not.
    fn ask_often(layer: &LimitLayer, peer: &PeerInfo) -> (usize, String) {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(Principal {
            token_id: "shared".to_owned(),
            may_run_programs: false,
        });

        let mut admitted = 0;
        let mut refusal = String::new();
        for _ in 0..100 {
            match layer.admit_request(&request) {
                Ok(_) => admitted += 1,
                Err(status) => status.message().clone_into(&mut refusal),
            }
        }
        (admitted, refusal)
    }

    #[test]
    fn a_worker_in_session_is_counted_by_itself_and_others_by_their_token() {
        let options = LimitOptions {
            rate_limit: 2,
            worker_rate_limit: Some(1),
            ..LimitOptions::without_rates()
        };
        let layer = LimitLayer::new(Limits::new(&options));
        let peers = [1, 2, 3].map(|n| PeerInfo::new([192, 0, 2, n].into()));
        let sessions = [peers[0].open_session(), peers[1].open_session()];

        // What the first asks is not taken from the others, which have the same token.
        for (peer, burst, option) in [
            (
                &peers[0],
                2,
                "1 requests per second, which is --worker-rate-limit",
            ),
            (
                &peers[1],
                2,
                "1 requests per second, which is --worker-rate-limit",
            ),
            (&peers[2], 4, "2 requests per second, which is --rate-limit"),
        ] {
            let (admitted, refusal) = ask_often(&layer, peer);
            assert!((burst..100).contains(&admitted), "{admitted} of 100");
            assert!(refusal.contains(option), "{refusal}");
        }

        drop(sessions);
        let (_, refusal) = ask_often(&layer, &peers[0]);
        assert!(refusal.contains("which is --rate-limit"), "{refusal}");
    }

    #[test]
    fn what_arrives_takes_room_until_it_is_whole() {
        let byte_limit = Limit::with_capacity(100, "full");
        let mut body = MeteredBody::new(Body::empty(), byte_limit.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let _entered = runtime.enter();

        body.meter_piece(&[0, 0, 0, 0, 80]).expect("there is room");
        body.meter_piece(&[0; 79]).expect("there is room");
        assert!(
            byte_limit.try_acquire_bytes(17).is_err() && byte_limit.try_acquire_bytes(16).is_ok()
        );
        let refused = MeteredBody::new(Body::empty(), byte_limit.clone())
            .meter_piece(&[0; 20])
            .expect_err("there is none");
        assert!(
            ergodic_proto::status::retry_after(&refused).is_some(),
            "{refused}"
        );

        body.meter_piece(&[0]).expect("there is room");
        assert!(byte_limit.try_acquire_bytes(100).is_ok());
    }
}
