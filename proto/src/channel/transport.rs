//! Connections to a coordinator: addresses, plain HTTP/2, and TLS to a coordinator that is
//! identified by its token or by a certificate authority.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_common::ids::CertificateFingerprint;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::channel::credentials::ClientAuth;
use crate::limited_file::{MAX_CREDENTIAL_BYTES, read_limited_file};
use crate::status::UserError;
use crate::status::innermost_reason;

/// Time limit for establishing a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a channel, and waits until it is connected.
pub(crate) async fn open_channel(url: &str, access: &ClientAuth) -> Result<Channel, UserError> {
    let endpoint = parse_endpoint(url)?;
    let channel = match build_tls_transport(&endpoint, access)? {
        Some(tls) => endpoint.connect_with_connector(tls).await,
        None => endpoint.connect().await,
    };
    channel.map_err(|e| UserError::new(ErrorCode::Unreachable, innermost_reason(&e)))
}

/// Whether an address names this machine.
pub fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Checks the address of a coordinator.
///
/// # Errors
/// The address has no scheme, host, or port that can be one; the message says what was expected.
pub fn check_address(url: &str) -> Result<(), UserError> {
    parse_endpoint(url).map(drop)
}

pub(crate) fn parse_endpoint(url: &str) -> Result<Endpoint, UserError> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .ok()
        .filter(|endpoint| {
            let uri = endpoint.uri();
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        })
        .ok_or_else(|| {
            let message = format!(
                "'{url}' is not the address of a coordinator: expected something like https://host:7700, or \
                 http://127.0.0.1:7700 on this machine"
            );
            UserError::new(ErrorCode::BadInput, message)
        })?;
    if !has_possible_port(endpoint.uri()) {
        let message = format!(
            "'{url}' is not the address of a coordinator: its port is no number from 1 to 65535"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    // Pings notice a peer that falls silent, such as a worker whose network drops everything,
    // before its leases expire.
    Ok(endpoint
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true))
}

/// Whether an address has no port, and means that of its scheme, or one that can be connected to. What is none is taken for no port by
/// others.
fn has_possible_port(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = uri.host().unwrap_or_default();
    let place = authority.rsplit('@').next().unwrap_or_default();
    match place.strip_prefix(host).unwrap_or_default() {
        "" => true,
        after => after
            .strip_prefix(':')
            .and_then(|port| port.parse::<u16>().ok())
            .is_some_and(|port| port > 0),
    }
}

/// The TLS connector for an address; `None` for an address without TLS.
pub(crate) fn build_tls_transport(
    endpoint: &Endpoint,
    access: &ClientAuth,
) -> Result<Option<TlsTransport>, UserError> {
    let uri = endpoint.uri();
    if uri.scheme_str() == Some("http") {
        if access.token.is_some() && !is_loopback(&uri.to_string()) {
            let message = format!(
                "{uri} is not protected: a token sent there could be read on the way. Say https://, which is what a \
                 coordinator speaks that asks for tokens"
            );
            return Err(UserError::new(ErrorCode::BadInput, message));
        }

        return Ok(None);
    }

    let mut config = build_tls_config(uri, access)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsTransport(TlsConnector::from(Arc::new(config)))))
}

/// The TLS configuration: trusts the authority that the user or the token names, and presents a
/// certificate if there is one.
fn build_tls_config(uri: &Uri, access: &ClientAuth) -> Result<ClientConfig, UserError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3");
    let fingerprint = access.token.as_ref().and_then(|token| token.fingerprint);
    let builder = match (&access.ca, fingerprint) {
        (Some(file), _) => builder.with_root_certificates(read_root_certificates(file)?),
        (None, Some(fingerprint)) => {
            let authority = PinnedAuthority {
                fingerprint,
                provider,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(authority))
        }
        (None, None) => {
            let message = format!(
                "by what is the coordinator at {uri} to be known? Say --token-file with a token that it made, or --ca with \
                 the certificate of the authority that it has its own from"
            );
            return Err(UserError::new(ErrorCode::BadInput, message));
        }
    };

    let Some((cert, key)) = &access.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates = read_certificates("--cert", cert)?;
    let private_key = read_private_key("--key", key)?;
    builder
        .with_client_auth_cert(certificates, private_key)
        .map_err(|e| bad_file("--cert", cert, &e.to_string()))
}

fn read_root_certificates(file: &Path) -> Result<RootCertStore, UserError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates("--ca", file)? {
        roots
            .add(certificate)
            .map_err(|e| bad_file("--ca", file, &e.to_string()))?;
    }
    Ok(roots)
}

/// Reads the certificates, at least one, in a PEM file that an option names.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn read_certificates(
    option: &str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, UserError> {
    let pem = read_pem_file(option, file)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| bad_file(option, file, &e.to_string()))?;
    if found.is_empty() {
        let problem = "expected certificates in PEM form, found none";
        return Err(bad_file(option, file, problem));
    }

    Ok(found)
}

/// Reads the private key in a PEM file that an option names.
///
/// # Errors
/// The file cannot be read, or holds none.
pub fn read_private_key(option: &str, file: &Path) -> Result<PrivateKeyDer<'static>, UserError> {
    let pem = read_pem_file(option, file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| bad_file(option, file, &e.to_string()))
}

fn read_pem_file(option: &str, file: &Path) -> Result<Vec<u8>, UserError> {
    read_limited_file(file, MAX_CREDENTIAL_BYTES)
        .map_err(|e| bad_file(option, file, &e.to_string()))
}

fn bad_file(option: &str, file: &Path, problem: &str) -> UserError {
    let message = format!("{option} {}: {problem}", file.display());
    UserError::new(ErrorCode::BadInput, message)
}

/// A connector over TCP and TLS.
#[derive(Clone)]
pub(crate) struct TlsTransport(pub(crate) TlsConnector);

pub(crate) type ConnectFuture =
    std::pin::Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl tower::Service<Uri> for TlsTransport {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> ConnectFuture {
        let tls = self.0.clone();
        Box::pin(async move {
            let host = uri
                .host()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned();
            let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;

            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let stream = tls.connect(name, stream).await.map_err(explain_tls_error)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// How the reason begins why a coordinator is not trusted.
pub const NOT_TRUSTED: &str = "the coordinator there is not the one to be trusted";

pub(crate) fn explain_tls_error(error: io::Error) -> io::Error {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => io::Error::other(
            "no TLS is spoken there; a coordinator without tokens is asked over http://",
        ),
        Some(rustls::Error::InvalidCertificate(e)) => {
            io::Error::other(format!("{NOT_TRUSTED} ({e})"))
        }
        _ => error,
    }
}

/// Trusts any certificate from the one authority with this fingerprint, whatever host name it is
/// for, because that authority makes certificates for one coordinator only.
#[derive(Debug)]
pub(crate) struct PinnedAuthority {
    pub(crate) fingerprint: CertificateFingerprint,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates
            .iter()
            .find(|der| CertificateFingerprint::from(blake3::hash(der)) == self.fingerprint)
            .ok_or(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;

        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &roots,
            intermediates,
            now,
            algorithms,
        )?;

        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use crate::channel::transport::*;

    #[test]
    fn a_port_is_absent_or_one_to_connect_to() {
        for url in [
            "http://a",
            "https://a/",
            "http://127.0.0.1:7700",
            "http://[::1]:65535/x",
            "http://[::1]",
            "http://user@a:1",
        ] {
            assert_eq!(check_address(url), Ok(()), "{url}");
        }
        for url in [
            "http://127.0.0.1:99999",
            "http://a:abc",
            "http://a:",
            "https://a:0",
            "http://[::1]:",
            "ftp://a:1",
            "a:1",
        ] {
            assert!(check_address(url).is_err(), "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for url in [
            "http://127.0.0.1:7700",
            "http://127.1.2.3",
            "http://localhost:1",
            "http://[::1]:7700",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(url), "{url}");
        }

        let elsewhere = [
            "http://127.0.0.1.example.org:7700",
            "http://127.example.org",
            "http://127.0.0.1@example.org",
            "http://192.0.2.1",
            "127",
        ];
        for url in elsewhere {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
