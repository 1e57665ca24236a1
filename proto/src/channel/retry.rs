//! Sends a request again where a coordinator has no room at the moment, for workers and clients alike: no sooner than it says, and
//! not for ever.

use std::time::Duration;

use http::{Request, Response};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Error};
use tower::ServiceBuilder;
use tower::retry::{Policy, Retry};
use tower::util::MapRequest;

use crate::backoff::with_jitter;
use crate::channel::credentials::ClientAuth;
use crate::channel::leader::LeaderChannel;
use crate::channel::replay::ReplayableRequest;
use crate::rpc::RpcMethod;
use crate::status::{overloaded, retry_after};

/// Time after which a request to an overloaded coordinator is given up.
pub const MAX_RETRY_TIME: Duration = Duration::from_secs(60);
/// Pause before a request is sent once more whose connection broke.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

/// A channel that retries requests by itself, and redirects them to the leader where a standby answered.
pub type RetryChannel =
    MapRequest<Retry<RetryPolicy, LeaderChannel>, fn(Request<Body>) -> ReplayableRequest>;

/// Retries over this channel; redirects if there are credentials for the leader.
pub(crate) fn build_retry_channel(channel: Channel, auth: Option<&ClientAuth>) -> RetryChannel {
    ServiceBuilder::new()
        .map_request(ReplayableRequest::buffer as fn(Request<Body>) -> ReplayableRequest)
        .retry(RetryPolicy::default())
        .service(LeaderChannel::new(channel, auth))
}

/// When one request is sent again: after an answer that the coordinator is overloaded, and once after a connection broke, if the
/// method may be repeated. A body that is not all buffered is never sent again: the caller gets the answer as it is.
#[derive(Debug, Clone, Default)]
pub struct RetryPolicy {
    /// How often the request was sent again.
    retries: u32,
}

impl Policy<ReplayableRequest, Response<Body>, Error> for RetryPolicy {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut ReplayableRequest,
        result: &mut Result<Response<Body>, Error>,
    ) -> Option<Sleep> {
        let wait = match result {
            Ok(answer) => self.wait_for_room(request, answer)?,
            Err(error) => {
                let may_repeat = self.retries == 0
                    && RpcMethod::find(request.path()).is_some_and(|method| method.is_idempotent)
                    && is_connection_lost(error);
                may_repeat.then(|| with_jitter(RECONNECT_DELAY, 1))?
            }
        };

        self.retries += 1;
        Some(tokio::time::sleep(wait))
    }

    fn clone_request(&mut self, request: &ReplayableRequest) -> Option<ReplayableRequest> {
        request.try_clone()
    }
}

impl RetryPolicy {
    /// The wait before a request is sent again that was refused for lack of room. After too long a time the answer becomes one
    /// that says so.
    fn wait_for_room(
        &self,
        request: &ReplayableRequest,
        answer: &mut Response<Body>,
    ) -> Option<Duration> {
        let status = Status::from_header_map(answer.headers())?;
        let times = self.retries + 1;
        let wait = with_jitter(retry_after(&status)?, times);
        let elapsed = request.started.elapsed();
        if elapsed + wait <= MAX_RETRY_TIME {
            return Some(wait);
        }

        let message = format!(
            "{} (asked {times} times in {} s, and gave up)",
            status.message(),
            elapsed.as_secs()
        );
        *answer = overloaded(&message, wait).into_http();
        None
    }
}

/// Whether there was a connection, and it broke: as when a coordinator begins another term, which ends those of the last one.
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use crate::channel::retry::*;
    use crate::status::not_leader;

    fn request_started(ago: Duration) -> ReplayableRequest {
        let mut request = ReplayableRequest::buffer(Request::new(Body::empty()));
        request.started = Instant::now()
            .checked_sub(ago)
            .expect("the machine has run as long");
        request
    }

    #[test]
    fn a_refused_request_waits_as_told_and_is_given_up_after_a_minute() {
        let second = Duration::from_secs(1);
        let policy = RetryPolicy { retries: 2 };
        let mut answer = overloaded("too much", second).into_http();
        let wait = policy.wait_for_room(&request_started(Duration::ZERO), &mut answer);
        assert!(wait.is_some_and(|wait| (second..second * 4).contains(&wait)));

        let mut late = overloaded("too much", Duration::from_secs(61)).into_http();
        let wait = policy.wait_for_room(&request_started(second), &mut late);
        assert_eq!(wait, None);
        let status = Status::from_header_map(late.headers()).expect("a status");
        assert_eq!(
            status.message(),
            "too much (asked 3 times in 1 s, and gave up)"
        );
        assert!(retry_after(&status).is_some());
    }

    #[test]
    fn any_other_answer_is_the_callers() {
        let policy = RetryPolicy::default();
        let request = request_started(Duration::ZERO);
        for status in [
            Status::resource_exhausted("a large message"),
            Status::unavailable("gone"),
            not_leader("http://a:1", ""),
        ] {
            let mut answer = status.into_http();
            assert_eq!(policy.wait_for_room(&request, &mut answer), None);
        }
    }
}
