//! Authentication: certificates, tokens, and what each role may call.
//!
//! A coordinator that can be reached from other machines speaks TLS and asks for tokens. It is its own certificate
//! authority, made when it first serves; every token carries the authority's fingerprint, so that the token is all that a
//! worker or user needs. Everything lies in one directory:
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
pub(crate) use tokens::StoredToken;
pub use tokens::TokenStore;
use tokio_rustls::TlsAcceptor;

use crate::store::create_directory;

/// How long another coordinator may take that changes what is in the directory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How peers are authenticated.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// The directory of authority and tokens.
    pub dir: PathBuf,
    /// PEM files of a certificate and its key from elsewhere, instead of one from the coordinator's own authority.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// PEM file of authorities: only those who show a certificate of theirs may come in.
    pub client_ca: Option<PathBuf>,
}

/// Authentication that is set up.
pub(crate) struct Auth {
    /// Makes TLS of a connection.
    pub(crate) tls: TlsAcceptor,
    /// The tokens that peers may come in with.
    pub(crate) tokens: Arc<TokenStore>,
}

impl Auth {
    /// Opens the directory, making what is missing.
    ///
    /// # Errors
    /// A file cannot be read or written, or is not what it should be; it is named.
    pub(crate) fn open(options: &AuthOptions) -> Result<Self, UserError> {
        let failed = |e: io::Error| {
            let message = format!("--auth-dir {}: {e}", options.dir.display());
            UserError::new(ErrorCode::Refused, message)
        };
        create_directory(&options.dir, true).map_err(failed)?;
        let own = match options.certificate {
            Some(_) => None,
            None => {
                // Of several coordinators that start together, one makes it.
                let _alone = lock_auth_dir(&options.dir).map_err(failed)?;
                Some(tls::CertificateAuthority::open(&options.dir)?)
            }
        };
        let fingerprint = own.as_ref().map(tls::CertificateAuthority::fingerprint);
        let tokens = TokenStore::open(&options.dir, fingerprint)?;
        if let Some(token) = tokens
            .create_first_token("made when the coordinator first served")
            .map_err(failed)?
        {
            let path = options.dir.join("admin.token");
            write_secret(&path, format!("{}\n", token.reveal_text()).as_bytes()).map_err(failed)?;
            tracing::info!(file = %path.display(), "a token for administrators was made");
        }

        Ok(Self {
            tls: tls::build_acceptor(options, own.as_ref())?,
            tokens: Arc::new(tokens),
        })
    }
}

/// Locks the directory while something in it is changed, which takes milliseconds.
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
