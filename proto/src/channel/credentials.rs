//! The credentials of a client, and the authorities that it trusts.

use std::path::{Path, PathBuf};

use ergodic_common::ErrorCode;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::limited_file::{MAX_CREDENTIAL_BYTES, read_limited_text};
use crate::status::UserError;
use crate::token::{Token, TokenParseError};

/// Adds the token to every request.
#[derive(Debug, Clone, Default)]
pub struct Credentials(pub(crate) Option<MetadataValue<Ascii>>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// The token and certificates of a client, and the authorities that it trusts.
#[derive(Debug, Clone, Default)]
pub struct ClientAuth {
    /// The token to present; it may name the coordinator's own certificate authority.
    pub token: Option<Token>,
    /// PEM file of authorities to trust instead of the token's.
    pub ca: Option<PathBuf>,
    /// PEM files of a certificate and its key, for a coordinator that requires client certificates.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientAuth {
    /// Reads the token in `file`.
    ///
    /// # Errors
    /// The file cannot be read or holds no token; the message names it.
    pub fn with_token_file(mut self, file: Option<&Path>) -> Result<Self, UserError> {
        if let Some(path) = file {
            let text = read_limited_text(path, MAX_CREDENTIAL_BYTES)
                .map_err(|e| bad_token_file(path, &e.to_string()))?;
            let token = text
                .parse()
                .map_err(|e: TokenParseError| bad_token_file(path, &e.to_string()))?;
            self.token = Some(token);
        }

        Ok(self)
    }

    pub(crate) fn to_credentials(&self) -> Credentials {
        let value = self.token.as_ref().map(|token| {
            let text = format!("Bearer {}", token.reveal_text());
            let mut value = MetadataValue::try_from(text).expect("a token is ASCII");
            value.set_sensitive(true);
            value
        });
        Credentials(value)
    }
}

fn bad_token_file(path: &Path, problem: &str) -> UserError {
    let message = format!("--token-file {}: {problem}", path.display());
    UserError::new(ErrorCode::BadInput, message)
}
