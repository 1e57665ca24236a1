//! Redirects requests from a standby to the leader.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Error};
use tower::{Service, ServiceExt as _};

use crate::backoff::with_jitter;
use crate::channel::credentials::ClientAuth;
use crate::channel::replay::ReplayableRequest;
use crate::channel::transport::open_channel;
use crate::status::{UserError, innermost_reason, leader_url, not_leader};

/// Time after which a request that finds no leader is given up. Another coordinator would have
/// taken over by then.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before the next look for the leader.
const LEADER_RETRY_DELAY: Duration = Duration::from_millis(250);

/// A channel to one coordinator that sends a request on to the leader where a standby answered.
#[derive(Debug, Clone)]
pub struct LeaderChannel {
    /// The channel to the coordinator whose address the user gave.
    home: Channel,
    /// Credentials for the leader; without them requests are not redirected.
    auth: Option<Arc<ClientAuth>>,
}

impl LeaderChannel {
    /// Over this channel.
    pub(crate) fn new(home: Channel, auth: Option<&ClientAuth>) -> Self {
        Self {
            home,
            auth: auth.cloned().map(Arc::new),
        }
    }
}

impl Service<ReplayableRequest> for LeaderChannel {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.home.poll_ready(context)
    }

    fn call(&mut self, request: ReplayableRequest) -> Self::Future {
        // `poll_ready` made this very channel ready, so the request takes it and leaves the clone.
        let next = self.home.clone();
        let mut home = std::mem::replace(&mut self.home, next);
        match self.auth.clone() {
            Some(auth) => Box::pin(send_to_leader(home, auth, request)),
            None => Box::pin(async move { send_over(&mut home, request).await }),
        }
    }
}

async fn send_over(
    channel: &mut Channel,
    request: ReplayableRequest,
) -> Result<Response<Body>, Error> {
    channel.ready().await?.call(request.into_request()).await
}

/// Sends a request to the coordinator at home and, while a standby answers, to the one that it says leads. A standby has done
/// nothing with the request. While one leader follows another, several may be asked before one says that it leads.
async fn send_to_leader(
    mut home: Channel,
    auth: Arc<ClientAuth>,
    request: ReplayableRequest,
) -> Result<Response<Body>, Error> {
    let started = request.started;
    let mut again = request.try_clone();
    let mut answer = send_over(&mut home, request).await?;
    let mut is_first = true;

    loop {
        let Some((url, request)) = redirected_url(&answer).zip(again) else {
            return Ok(answer);
        };
        if !is_first {
            tokio::time::sleep(with_jitter(LEADER_RETRY_DELAY, 1)).await;
        }
        is_first = false;

        let leader = match url.as_str() {
            "" => None,
            url => Some(open_channel(url, &auth).await),
        };
        if started.elapsed() >= FAILOVER_TIMEOUT {
            return Ok(no_leader_status(&url, leader.and_then(Result::err)).into_http());
        }

        again = request.try_clone();
        answer = match leader {
            Some(Ok(mut leader)) => match send_over(&mut leader, request).await {
                Ok(answer) => answer,
                Err(error) => return Ok(leader_lost_status(&url, &error).into_http()),
            },
            // Another one may lead in a moment.
            _ => send_over(&mut home, request).await?,
        };
    }
}

/// The address of the leader, if a standby answered.
fn redirected_url(answer: &Response<Body>) -> Option<String> {
    leader_url(&Status::from_header_map(answer.headers())?)
}

/// The answer when no leader was found in time.
fn no_leader_status(url: &str, error: Option<UserError>) -> Status {
    let more = error.map_or_else(String::new, |error| {
        format!(", and cannot be reached from here ({error})")
    });
    not_leader(url, &more)
}

/// The status when the leader was lost. The request may have been carried out, so it is not
/// repeated.
fn leader_lost_status(url: &str, error: &Error) -> Status {
    let why = innermost_reason(error);
    not_leader(
        url,
        &format!(
            ", and fell silent while it was asked ({why}): it may have done what it was asked, or not"
        ),
    )
}
