//! Authentication: certificates, tokens, and the methods that each role may call.
//!
//! A coordinator that other machines can reach uses TLS and requires tokens. It is its own
//! certificate authority, which it creates when it first serves. Every token has the authority's
//! fingerprint, so a worker or user needs nothing but the token. One directory has all files:
//!
//! | file | what it is |
//! |---|---|
//! | `ca.pem`, `ca.key` | the authority; the key never leaves the directory |
//! | `tokens.json` | tokens, their secrets only as hashes |
//! | `admin.token` | the first token, made together with the authority |

mod layer;
mod tls;
mod tokens;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic_common::ErrorCode;
use ergodic_proto::atomic_file::{Durability, FileAccess, StagedFile};
use ergodic_proto::status::UserError;
pub(crate) use layer::{AuthLayer, Principal};
pub use tokens::TokenStore;
pub(crate) use tokens::{StoredToken, TokenRights};
use tokio_rustls::TlsAcceptor;

use crate::store::create_directory;

/// Time limit for another coordinator that is changing the directory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of authentication.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// The directory of the authority and the tokens.
    pub dir: PathBuf,
    /// PEM files of a certificate and its key, to use instead of the coordinator's own authority.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// PEM file of authorities. Only clients with a certificate from one of them may connect.
    pub client_ca: Option<PathBuf>,
}

/// The authentication of a running coordinator.
pub(crate) struct Auth {
    /// Accepts TLS connections.
    pub(crate) tls: TlsAcceptor,
    /// The valid tokens.
    pub(crate) tokens: Arc<TokenStore>,
}

impl Auth {
    /// Opens the directory, and creates what is missing.
    ///
    /// # Errors
    /// A file cannot be read or written, or is invalid; the message names it.
    pub(crate) fn open(options: &AuthOptions) -> Result<Self, UserError> {
        let failed = |e: io::Error| {
            let message = format!("--auth-dir {}: {e}", options.dir.display());
            UserError::new(ErrorCode::Refused, message)
        };
        create_directory(&options.dir, true).map_err(failed)?;
        let own = match options.certificate {
            Some(_) => None,
            None => {
                // The lock makes one of several coordinators that start together create the
                // authority.
                let _alone = lock_auth_dir(&options.dir).map_err(failed)?;
                Some(tls::CertificateAuthority::open(&options.dir)?)
            }
        };
        let fingerprint = own.as_ref().map(tls::CertificateAuthority::fingerprint);
        let tokens = TokenStore::open(&options.dir, fingerprint)?;
        if let Some(token) = tokens
            .create_first_token("created when the coordinator first started")
            .map_err(failed)?
        {
            let path = options.dir.join("admin.token");
            write_secret(&path, format!("{}\n", token.reveal_text()).as_bytes()).map_err(failed)?;
            tracing::info!(file = %path.display(), "created a token for administrators");
        }

        Ok(Self {
            tls: tls::build_acceptor(options, own.as_ref())?,
            tokens: Arc::new(tokens),
        })
    }
}

/// Locks the directory during a change, which takes milliseconds.
fn lock_auth_dir(dir: &Path) -> io::Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)?;

    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_TIMEOUT => {
                return Err(io::Error::other(format!(
                    "{} is held by another process",
                    path.display()
                )));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Replaces a file that nobody else may read. What a crash leaves beside it is removed by the next writer.
fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = StagedFile::create_at(&path.with_extension("part"), FileAccess::OwnerOnly)?;
    file.write_all(content)?;
    file.persist(path, Durability::FileAndDirectory)
}
