//! Stands behind the guard: counts what a peer asks, how much is being answered, and how much is arriving.

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

use super::rate::{Peer, Rates};
use super::{Limits, Place, Room};
use crate::server::door::Caller;
use crate::server::listen::Admitted;

/// How long a message may take from its first byte to its last.
const MESSAGE_WITHIN: Duration = Duration::from_secs(60);

/// The layer.
#[derive(Clone)]
pub(crate) struct Limited {
    limits: Limits,
    /// None where peers may ask as often as they like.
    rates: Option<Arc<Mutex<Rates>>>,
    started: Instant,
}

impl Limited {
    /// With so many requests per second and peer, if that is limited.
    pub(crate) fn new(limits: Limits, per_second: Option<u32>) -> Self {
        let rates = per_second.map(|per_second| Arc::new(Mutex::new(Rates::new(per_second))));
        Self { limits, rates, started: Instant::now() }
    }

    fn admit(&self, request: &Request<Body>) -> Result<Place, Status> {
        if let (Some(rates), Some(peer)) = (&self.rates, peer(request)) {
            let mut rates = rates.lock().expect("nothing panics while it holds the rates");
            let taken = rates.take(peer, self.started.elapsed());
            taken.map_err(|wait| {
                overloaded("the coordinator is asked too often by you: it takes so many requests a second", wait)
            })?;
        }
        self.limits.requests.place()
    }
}

/// Who asks. This very machine is not counted where nobody is asked for a token.
fn peer(request: &Request<Body>) -> Option<Peer> {
    if let Some(caller) = request.extensions().get::<Caller>() {
        return Some(Peer::Token(caller.token.clone()));
    }
    let address: IpAddr = request.extensions().get::<Admitted>()?.address();
    (!address.to_canonical().is_loopback()).then(|| Peer::at(address))
}

impl<S> tower_layer::Layer<S> for Limited {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { limited: self.clone(), inner }
    }
}

/// A service of which so much may be asked.
#[derive(Clone)]
pub(crate) struct Counted<S> {
    limited: Limited,
    inner: S,
}

impl<S> tower_service::Service<Request<Body>> for Counted<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>>,
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
        match self.limited.admit(&request) {
            Ok(place) => {
                let room = self.limited.limits.arriving.clone();
                let answer = self.inner.call(request.map(|body| Body::new(Arriving::new(body, room))));
                Box::pin(async move {
                    let answer = answer.await;
                    drop(place);
                    answer
                })
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// A body whose messages take room while they arrive, and do not take for ever.
struct Arriving {
    body: Body,
    room: Room,
    message: Message,
    held: Option<Place>,
    patience: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    fn new(body: Body, room: Room) -> Self {
        Self { body, room, message: Message::default(), held: None, patience: None }
    }

    /// Takes note of a piece.
    fn note(&mut self, piece: &[u8]) -> Result<(), Status> {
        let place = self.room.bytes(piece.len())?;
        match &mut self.held {
            Some(held) => held.merge(place),
            None => self.held = Some(place),
        }
        if self.message.ends_with(piece) {
            (self.held, self.patience) = (None, None);
        } else if self.patience.is_none() {
            self.patience = Some(Box::pin(tokio::time::sleep(MESSAGE_WITHIN)));
        }
        Ok(())
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.patience.as_mut().is_some_and(|patience| patience.as_mut().poll(context).is_ready())
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &next
            && let Some(piece) = frame.data_ref()
            && let Err(status) = self.note(piece)
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

/// Where in a message a body is: each is one byte, its length in four, and so many bytes.
#[derive(Debug, Default)]
struct Message {
    head: Vec<u8>,
    missing: usize,
}

impl Message {
    /// Whether with this piece the last message is whole.
    fn ends_with(&mut self, mut piece: &[u8]) -> bool {
        loop {
            let taken = self.missing.min(piece.len());
            self.missing -= taken;
            piece = &piece[taken..];
            if self.missing > 0 || piece.is_empty() {
                return self.missing == 0 && self.head.is_empty();
            }
            let head = (5 - self.head.len()).min(piece.len());
            self.head.extend(&piece[..head]);
            piece = &piece[head..];
            if let [_, length @ ..] = &self.head[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.missing = u32::from_be_bytes(length) as usize;
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_message_is_found_however_it_is_cut() {
        let bytes = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[1, 0, 0, 1, 0], &[7; 256]].concat();
        let ends = [8, 13, bytes.len()];
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let mut message = Message::default();
                for (from, to) in [(0, first), (first, second), (second, bytes.len())] {
                    let whole = message.ends_with(&bytes[from..to]);
                    assert_eq!(whole, to == 0 || ends.contains(&to), "{first} {second} {to}");
                }
            }
        }
    }

    #[test]
    fn what_arrives_takes_room_until_it_is_whole() {
        let room = Room::of(100, "full");
        let mut body = Arriving::new(Body::empty(), room.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        body.note(&[0, 0, 0, 0, 80]).expect("there is room");
        body.note(&[0; 79]).expect("there is room");
        assert!(room.bytes(17).is_err() && room.bytes(16).is_ok());
        let refused = Arriving::new(Body::empty(), room.clone()).note(&[0; 20]).expect_err("there is none");
        assert!(ergodic_proto::status::retry_after(&refused).is_some(), "{refused}");
        body.note(&[0]).expect("there is room");
        assert!(room.bytes(100).is_ok());
    }
}
