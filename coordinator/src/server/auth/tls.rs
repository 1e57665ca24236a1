//! The coordinator's certificate, and its authority.

use std::path::Path;
use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_common::ids::CertificateFingerprint;
use ergodic_proto::channel::transport::{read_certificates, read_private_key};
use ergodic_proto::status::UserError;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::{AuthOptions, write_secret};

/// The coordinator's own certificate authority. Its certificates are valid at any time, because
/// clocks of machines may be wrong.
pub(super) struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Opens the authority in a directory, and creates it if there is none.
    pub(super) fn open(dir: &Path) -> Result<Self, UserError> {
        let pem = dir.join("ca.pem");
        let key = dir.join("ca.key");
        let refuse = |why: String| {
            UserError::new(
                ErrorCode::Refused,
                format!("--auth-dir {}: {why}", dir.display()),
            )
        };

        if !pem.exists() {
            let (certificate, secret) = generate_authority().map_err(|e| refuse(e.to_string()))?;
            // The certificate is written last, so that whoever finds it finds the key too.
            write_secret(&key, secret.as_bytes()).map_err(|e| refuse(format!("ca.key: {e}")))?;
            write_secret(&pem, certificate.as_bytes())
                .map_err(|e| refuse(format!("ca.pem: {e}")))?;
        }

        let secret = std::fs::read_to_string(&key).map_err(|e| refuse(format!("ca.key: {e}")))?;
        let pair = KeyPair::from_pem(&secret).map_err(|e| refuse(format!("ca.key: {e}")))?;
        let certificate =
            CertificateDer::from_pem_file(&pem).map_err(|e| refuse(format!("ca.pem: {e}")))?;
        let params = authority_params().map_err(|e| refuse(e.to_string()))?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, pair),
        })
    }

    /// The fingerprint that tokens contain.
    pub(super) fn fingerprint(&self) -> CertificateFingerprint {
        blake3::hash(&self.certificate).into()
    }

    /// Issues a certificate for this process; returns the chain with the authority's, and the key.
    /// Clients ignore the name in it.
    fn issue_certificate(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name = build_common_name("Ergodic coordinator");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok((
            chain,
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        ))
    }
}

fn generate_authority() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    Ok((
        authority_params()?.self_signed(&key)?.pem(),
        key.serialize_pem(),
    ))
}

/// The parameters of an authority's certificate, the same for all coordinators.
fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = build_common_name("Ergodic certificate authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn build_common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Accepts TLS 1.3 with the certificate of the options, or with one from the coordinator's own
/// authority.
pub(super) fn build_acceptor(
    options: &AuthOptions,
    own: Option<&CertificateAuthority>,
) -> Result<TlsAcceptor, UserError> {
    let (chain, key) = match (&options.certificate, own) {
        (Some((cert, key)), _) => (
            read_certificates("--tls-cert", cert)?,
            read_private_key("--tls-key", key)?,
        ),
        (None, Some(own)) => own.issue_certificate().map_err(setup_error)?,
        (None, None) => unreachable!("a coordinator without --tls-cert has its own authority"),
    };

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup_error)?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => builder.with_client_cert_verifier(build_client_verifier(file, provider)?),
    };

    let mut config = builder.with_single_cert(chain, key).map_err(|e| {
        UserError::new(
            ErrorCode::BadInput,
            format!("--tls-cert and --tls-key: {e}"),
        )
    })?;
    config.alpn_protocols = vec![b"h2".to_vec()];

    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn setup_error(error: impl std::fmt::Display) -> UserError {
    UserError::new(ErrorCode::Internal, format!("cannot set up TLS: {error}"))
}

/// Accepts clients with a certificate from the authorities in `file`.
fn build_client_verifier(
    file: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, UserError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates("--client-ca", file)? {
        roots
            .add(certificate)
            .map_err(|e| client_ca_error(file, e))?;
    }

    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| client_ca_error(file, e))
}

fn client_ca_error(file: &Path, error: impl std::fmt::Display) -> UserError {
    UserError::new(
        ErrorCode::BadInput,
        format!("--client-ca {}: {error}", file.display()),
    )
}
