//! Stands before all services: one table says which role may ask what, and whatever it does not name is refused.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::token::{Token, TokenRole};
use http::header::AUTHORIZATION;
use http::{Request, Response};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::{Code, Status};

use super::Tokens;
use crate::server::listen::Admitted;
use crate::server::standing::Standing;

/// Who asks, for the services behind the door; absent where nobody is asked who they are.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Name of the token.
    pub(crate) token: String,
}

/// Asks everybody for a token, or nobody; and sends on what another coordinator is to be asked.
#[derive(Clone)]
pub(crate) struct Guard {
    tokens: Option<Arc<Tokens>>,
    standing: Standing,
    stopping: watch::Receiver<bool>,
}

impl Guard {
    /// Asks for these tokens; without any, lets everybody in as far as an administrator's services are not meant.
    pub(crate) fn new(tokens: Option<Arc<Tokens>>, standing: Standing, stopping: watch::Receiver<bool>) -> Self {
        Self { tokens, standing, stopping }
    }

    fn admit(&self, request: &mut Request<Body>) -> Result<(), Status> {
        self.check(request)?;
        self.standing.check(request.uri().path())?;
        if let Some(admitted) = request.extensions().get::<Admitted>() {
            admitted.note();
        }
        Ok(())
    }

    fn check(&self, request: &mut Request<Body>) -> Result<(), Status> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let token = bearer(request)?;
        let role = tokens.admit(&token).map_err(|why| unauthenticated(&why.to_string()))?;
        let path = request.uri().path();
        if !allowed(path).contains(&role) {
            let method = path.rsplit('/').next().unwrap_or_default();
            let message = format!("a token for the role {} does not open {method}", role.name());
            return Err(UserError::new(ErrorCode::Refused, message).into());
        }
        request.extensions_mut().insert(Caller { token: token.id });
        Ok(())
    }
}

fn bearer(request: &Request<Body>) -> Result<Token, Status> {
    let none = "this coordinator asks for a token: say --token-file FILE, or set ERGODIC_TOKEN_FILE; an administrator makes \
                one with `ergodic token new`";
    let value = request.headers().get(AUTHORIZATION).ok_or_else(|| unauthenticated(none))?;
    let text = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
    text.parse().map_err(|why: ergodic_proto::token::TokenParseError| unauthenticated(&why.to_string()))
}

/// The code tells programs that a token would help; the detail carries the exit code for people.
fn unauthenticated(why: &str) -> Status {
    let status = Status::from(UserError::new(ErrorCode::Refused, why));
    Status::with_details(Code::Unauthenticated, why, status.details().to_vec().into())
}

/// Who may ask this. A user's `replay` needs the sweep as workers get it.
fn allowed(path: &str) -> &'static [TokenRole] {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    match (service, method) {
        ("ergodic.v1.WorkerService", "GetSweep") | ("ergodic.v1.FileService", _) => &TokenRole::ALL,
        ("ergodic.v1.WorkerService", _) => &[TokenRole::Worker, TokenRole::Admin],
        ("ergodic.v1.SweepService", _) => &[TokenRole::User, TokenRole::Admin],
        ("ergodic.v1.AdminService", _) => &[TokenRole::Admin],
        _ => &[],
    }
}

impl<S> tower_layer::Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// How long what is being answered may take when the services end: less than they wait for it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// Whoever waits for something that does not come to its end with the services, a write to a database that is away, say, is
/// told so.
async fn unless_cut_off<E>(
    answer: impl Future<Output = Result<Response<Body>, E>>,
    mut stopping: watch::Receiver<bool>,
) -> Result<Response<Body>, E> {
    let cut_off = async {
        let _ = stopping.wait_for(|stop| *stop).await;
        tokio::time::sleep(ANSWERED_WITHIN).await;
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = cut_off => {
            let message = "the coordinator stops, or leads no more: it may have done what it was asked, or not";
            Ok(Status::from(UserError::new(ErrorCode::Unreachable, message)).into_http())
        }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S> tower_service::Service<Request<Body>> for Guarded<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>>,
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
        match self.guard.admit(&mut request) {
            Ok(()) => Box::pin(unless_cut_off(self.inner.call(request), self.guard.stopping.clone())),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_ask_what_it_is_for_and_nothing_unknown_is_open() {
        let may = |role, path: &str| allowed(path).contains(&role);
        for role in TokenRole::ALL {
            assert!(may(role, "/ergodic.v1.FileService/Fetch") && may(role, "/ergodic.v1.WorkerService/GetSweep"));
            assert!(!may(role, "/ergodic.v1.Other/Anything") && !may(role, "") && !may(role, "/"));
            assert_eq!(may(role, "/ergodic.v1.AdminService/NewToken"), role == TokenRole::Admin);
            assert_eq!(may(role, "/ergodic.v1.WorkerService/CommitResults"), role != TokenRole::User);
            assert_eq!(may(role, "/ergodic.v1.SweepService/Launch"), role != TokenRole::Worker);
        }
    }
}
