//! Channels to a coordinator, for workers and clients alike: with credentials, and with retries.

use std::io;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::interceptor::InterceptedService;

use crate::channel::credentials::{ClientAuth, Credentials};
use crate::channel::retry::{RetryChannel, build_retry_channel};
use crate::channel::transport::{build_tls_transport, open_channel, parse_endpoint};
use crate::status::UserError;

/// A channel that sends the token with every request, and retries where the coordinator is overloaded.
pub type ClientChannel = InterceptedService<RetryChannel, Credentials>;

/// A connection that is made when it is first used, and made again by itself when it broke.
///
/// # Errors
/// The address is none, a file cannot be used, or the token would travel unprotected beyond this machine.
pub fn connect_lazily(url: &str, access: &ClientAuth) -> Result<ClientChannel, UserError> {
    let endpoint = parse_endpoint(url)?;
    let channel = match build_tls_transport(&endpoint, access)? {
        Some(tls) => endpoint.connect_with_connector_lazy(tls),
        None => endpoint.connect_lazy(),
    };
    Ok(InterceptedService::new(
        build_retry_channel(channel, Some(access)),
        access.to_credentials(),
    ))
}

/// The same over whatever `connector` connects, for which nobody needs a token.
///
/// # Errors
/// The address is none.
pub fn connect_lazily_over<C, S>(url: &str, connector: C) -> Result<ClientChannel, UserError>
where
    C: tower::Service<Uri, Response = TokioIo<S>, Error = io::Error> + Send + 'static,
    C::Future: Send,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let channel = parse_endpoint(url)?.connect_with_connector_lazy(connector);
    Ok(InterceptedService::new(
        build_retry_channel(channel, None),
        Credentials::default(),
    ))
}

/// A channel that is connected.
///
/// # Errors
/// As for [`connect_lazily`]; or nobody answers, or the answering coordinator is not trusted.
pub async fn connect_now(url: &str, access: &ClientAuth) -> Result<ClientChannel, UserError> {
    let channel = open_channel(url, access).await?;
    Ok(InterceptedService::new(
        build_retry_channel(channel, Some(access)),
        access.to_credentials(),
    ))
}
