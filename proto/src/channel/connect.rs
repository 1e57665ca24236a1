//! Channels to a coordinator for workers and clients, with credentials and retries.

use std::io;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;

use crate::channel::credentials::{ClientAuth, Credentials};
use crate::channel::retry::{RetryChannel, build_retry_channel};
use crate::channel::transport::{build_tls_transport, open_channel, parse_endpoint};
use crate::status::UserError;

/// Bytes that wait in a pipe within a process until they are read.
const PIPE_BYTES: usize = 1 << 20;

/// A channel that sends the token with every request, and retries if the coordinator is overloaded.
pub type ClientChannel = InterceptedService<RetryChannel, Credentials>;

/// Creates a channel that connects at its first use, and again after the connection breaks.
///
/// # Errors
/// The address is invalid, a file cannot be used, or the token would travel unprotected beyond this
/// machine.
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

/// Creates such a channel over the connections of `connector`, without a token.
///
/// # Errors
/// The address is invalid.
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

/// Creates such a channel to services in this process. Each of its connections is a pipe, whose other end is sent to them.
///
/// # Errors
/// None is expected: the address of the channel is a constant.
pub fn connect_in_process(
    pipes: mpsc::UnboundedSender<DuplexStream>,
) -> Result<ClientChannel, UserError> {
    let connector = tower::service_fn(move |_: Uri| {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let sent = pipes.send(theirs);
        std::future::ready(match sent {
            Ok(()) => Ok(TokioIo::new(ours)),
            Err(_) => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        })
    });
    connect_lazily_over("http://in-process", connector)
}

/// Opens a channel and waits until it is connected.
///
/// # Errors
/// As for [`connect_lazily`]; or the coordinator does not respond or is not trusted.
pub async fn connect_now(url: &str, access: &ClientAuth) -> Result<ClientChannel, UserError> {
    let channel = open_channel(url, access).await?;
    Ok(InterceptedService::new(
        build_retry_channel(channel, Some(access)),
        access.to_credentials(),
    ))
}
