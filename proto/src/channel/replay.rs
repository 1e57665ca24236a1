//! Requests that can be sent more than once, as far as their bodies are known.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use http::Request;
use http::request::Parts;
use http_body::{Body as _, Frame};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;

use crate::MAX_MESSAGE_BYTES;

/// A request whose body is buffered as far as it was there at once.
pub struct ReplayableRequest {
    head: Parts,
    body: ReplayableBody,
    /// When the caller sent it for the first time.
    pub(crate) started: Instant,
}

impl ReplayableRequest {
    /// Takes what is there of a request's body.
    pub(crate) fn buffer(request: Request<Body>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            head,
            body: ReplayableBody::buffer(body),
            started: Instant::now(),
        }
    }

    /// Path of the method that is called.
    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// A copy, if all of the body is buffered. A stream that is sent while it is being made, such as a session, is not.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        Some(Self {
            head: self.head.clone(),
            body: self.body.try_clone()?,
            started: self.started,
        })
    }

    /// The request as it is sent.
    pub(crate) fn into_request(self) -> Request<Body> {
        Request::from_parts(self.head, Body::new(self.body))
    }
}

/// A body whose first frames are buffered. The crate `http-body-util` buffers a body by waiting for its end, which that of a session
/// has only after the answers.
struct ReplayableBody {
    buffered: VecDeque<Bytes>,
    rest: BodyRest,
}

/// The rest of a body.
enum BodyRest {
    Nothing,
    /// Frames that come later, or were too much to buffer.
    Body(Body),
    /// The error of the body's source.
    Failure(Status),
}

impl ReplayableBody {
    /// Takes the frames of a body that are available now, up to the size of a message.
    fn buffer(mut body: Body) -> Self {
        // What is not there yet is not waited for, because it may depend on the answer. So there is nobody to wake.
        let mut context = Context::from_waker(Waker::noop());
        let mut buffered = VecDeque::new();
        let mut bytes = 0;

        while bytes <= MAX_MESSAGE_BYTES {
            let rest = match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Requests carry no trailers, so every frame is data.
                    let piece = frame.into_data().unwrap_or_default();
                    bytes += piece.len();
                    buffered.push_back(piece);
                    continue;
                }
                Poll::Ready(Some(Err(status))) => BodyRest::Failure(status),
                Poll::Ready(None) => BodyRest::Nothing,
                Poll::Pending => break,
            };
            return Self { buffered, rest };
        }

        Self {
            buffered,
            rest: BodyRest::Body(body),
        }
    }

    fn try_clone(&self) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use crate::channel::replay::*;

    /// Frames that come one after the other, and pauses between them.
    struct ScriptedBody(VecDeque<Poll<Bytes>>);

    impl http_body::Body for ScriptedBody {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                None => Poll::Ready(None),
                Some(Poll::Pending) => Poll::Pending,
                Some(Poll::Ready(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            }
        }
    }

    fn request(script: Vec<Poll<Bytes>>) -> ReplayableRequest {
        let body = Body::new(ScriptedBody(script.into()));
        ReplayableRequest::buffer(Request::new(body))
    }

    /// All bytes of a request, whatever pauses lie between them.
    fn read_all(request: ReplayableRequest) -> Vec<u8> {
        let mut body = request.into_request().into_body();
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = Vec::new();
        loop {
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(None) => return bytes,
                Poll::Ready(Some(frame)) => {
                    bytes.extend(frame.expect("it is whole").into_data().expect("data"));
                }
                Poll::Pending => {}
            }
        }
    }

    fn piece(text: &'static str) -> Poll<Bytes> {
        Poll::Ready(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_body_that_is_there_at_once_can_be_sent_again() {
        let request = request(vec![piece("ab"), piece(""), piece("c")]);
        let copy = request.try_clone().expect("it is buffered");
        let third = copy.try_clone().expect("so is its copy");
        for request in [request, copy, third] {
            assert_eq!(read_all(request), b"abc");
        }
    }

    #[test]
    fn a_body_that_comes_later_or_is_too_long_is_sent_whole_but_once() {
        let later = request(vec![piece("ab"), Poll::Pending, piece("c")]);
        assert!(later.try_clone().is_none());
        assert_eq!(read_all(later), b"abc");

        let half = Bytes::from(vec![7; MAX_MESSAGE_BYTES / 2 + 1]);
        let long = request(vec![Poll::Ready(half.clone()), Poll::Ready(half)]);
        assert!(long.try_clone().is_none());
        assert_eq!(read_all(long).len(), MAX_MESSAGE_BYTES + 2);
    }
}
