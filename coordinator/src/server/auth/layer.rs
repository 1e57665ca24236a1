//! Stands before all services: `ergodic_proto::rpc` says which role may ask what, and whatever it does not name is refused.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::rpc::{allowed_roles, method_name};
use ergodic_proto::status::UserError;
use ergodic_proto::token::Token;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::{Code, Status};

use super::TokenStore;
use crate::server::ha::leadership::Leadership;
use crate::server::listen::PeerInfo;

/// The token of a request, for the services behind the guard; absent without tokens.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// Id of the token.
    pub(crate) token_id: String,
    /// Whether the holder may have programs run.
    pub(crate) may_run_programs: bool,
}

/// Checks the token of every request, if tokens are used, and refers peers to the leader if this
/// coordinator is a standby.
#[derive(Clone)]
pub(crate) struct AuthLayer {
    tokens: Option<Arc<TokenStore>>,
    leadership: Leadership,
    stopping: watch::Receiver<bool>,
}

impl AuthLayer {
    /// Requires one of these tokens. Without tokens, admits everybody to all services but the
    /// administrator's.
    pub(crate) fn new(
        tokens: Option<Arc<TokenStore>>,
        leadership: Leadership,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            tokens,
            leadership,
            stopping,
        }
    }

    fn admit_request(&self, request: &mut Request<Body>) -> Result<(), Status> {
        self.authorize_request(request)?;
        self.leadership.check_request_path(request.uri().path())?;
        if let Some(admitted) = request.extensions().get::<PeerInfo>() {
            admitted.mark_admitted();
        }
        Ok(())
    }

    fn authorize_request(&self, request: &mut Request<Body>) -> Result<(), Status> {
        let Some(tokens) = &self.tokens else {
            return Ok(());
        };
        let token = read_bearer_token(request)?;
        let role = tokens
            .authenticate(&token)
            .map_err(|why| unauthenticated_status(&why.to_string()))?;

        let path = request.uri().path();
        if !allowed_roles(path).contains(&role) {
            let message = format!(
                "a token with the role {} may not call {}",
                role.name(),
                method_name(path)
            );
            return Err(UserError::new(ErrorCode::Refused, message).into());
        }

        request.extensions_mut().insert(Principal {
            may_run_programs: tokens.may_run_programs(&token.id),
            token_id: token.id,
        });
        Ok(())
    }
}

fn read_bearer_token(request: &Request<Body>) -> Result<Token, Status> {
    let none = "this coordinator requires a token: use --token-file FILE, or set ERGODIC_TOKEN_FILE; an administrator \
                creates one with `ergodic token new`";
    let value = request
        .headers()
        .get(AUTHORIZATION)
        .ok_or_else(|| unauthenticated_status(none))?;
    let text = value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Bearer "))
        .unwrap_or_default();

    text.parse()
        .map_err(|why: ergodic_proto::token::TokenParseError| {
            unauthenticated_status(&why.to_string())
        })
}

/// The status without a valid token. Its code tells programs that a token would help; the details
/// carry the exit code for people.
fn unauthenticated_status(why: &str) -> Status {
    let status = Status::from(UserError::new(ErrorCode::Refused, why));
    Status::with_details(Code::Unauthenticated, why, status.details().to_vec().into())
}

impl<S> tower::Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            layer: self.clone(),
            inner,
        }
    }
}

/// Time limit for a response when the services end, less than they wait for it.
const SHUTDOWN_ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits for a response, but not beyond the end of the services. A request that still waits then,
/// for example for an unreachable database, gets a status that says so.
async fn answer_or_cut_off<E>(
    answer: impl Future<Output = Result<Response<Body>, E>>,
    mut stopping: watch::Receiver<bool>,
) -> Result<Response<Body>, E> {
    let cut_off = async {
        let _ = stopping.wait_for(|stop| *stop).await;
        tokio::time::sleep(SHUTDOWN_ANSWER_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = cut_off => {
            let message = "the coordinator is stopping, or no longer leads: the request may or may not have been carried out";
            Ok(Status::from(UserError::new(ErrorCode::Unreachable, message)).into_http())
        }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub(crate) struct AuthService<S> {
    layer: AuthLayer,
    inner: S,
}

impl<S> tower::Service<Request<Body>> for AuthService<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.layer.admit_request(&mut request) {
            Ok(()) => Box::pin(answer_or_cut_off(
                self.inner.call(request),
                self.layer.stopping.clone(),
            )),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}
