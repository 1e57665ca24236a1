//! The coordinator's tokens, stored in a file with their hashes.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ergodic_common::ErrorCode;
use ergodic_common::ids::CertificateFingerprint;
use ergodic_proto::status::UserError;
use ergodic_proto::token::{Token, TokenRole};
use hex::FromHex as _;
use rustls::crypto::SecureRandom;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{lock_auth_dir, write_secret};
use crate::throttled_log::ThrottledLog;

/// A token as stored, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredToken {
    /// The id by which the token is listed and revoked.
    pub(crate) id: String,
    role: String,
    /// BLAKE3 hash of the secret, as hex digits.
    hash: String,
    /// A note by the user who created the token.
    pub(crate) note: String,
    /// Unix time of creation, in seconds.
    pub(crate) created_at: u64,
    /// Unix time of expiry, in seconds; 0 for never.
    pub(crate) expires_at: u64,
    /// Whether its holder may have programs run. A token of an earlier version may not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) programs: bool,
}

/// What the holder of a new token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenRights {
    /// The role.
    pub(crate) role: TokenRole,
    /// Whether the holder may have programs run.
    pub(crate) programs: bool,
}

impl From<TokenRole> for TokenRights {
    /// The rights of a role, which are never those to programs.
    fn from(role: TokenRole) -> Self {
        Self {
            role,
            programs: false,
        }
    }
}

impl StoredToken {
    /// The role of the token; `None` if this program does not know it.
    pub(crate) fn role(&self) -> Option<TokenRole> {
        TokenRole::from_name(&self.role)
    }
}

/// The reason why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenAuthError {
    /// The token was never created, or was revoked.
    #[error("the token was not created by this coordinator, or was revoked")]
    Unknown,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
}

/// All tokens. Several coordinators may share the file, so each sees what others create or revoke.
pub struct TokenStore {
    dir: PathBuf,
    fingerprint: Option<CertificateFingerprint>,
    file: RwLock<TokenFile>,
    /// Counts revocations, so that sessions can end.
    revocations: watch::Sender<u64>,
    throttled_log: Mutex<ThrottledLog>,
}

/// The content of the file when it was last read.
#[derive(Default)]
struct TokenFile {
    records: Vec<StoredToken>,
    /// A stamp that changes whenever the file is replaced.
    stamp: Option<(u64, SystemTime)>,
}

impl TokenStore {
    /// Opens the tokens in a directory; new ones get this fingerprint.
    pub(super) fn open(
        dir: &Path,
        fingerprint: Option<CertificateFingerprint>,
    ) -> Result<Self, UserError> {
        let refuse = |why: io::Error| {
            UserError::new(
                ErrorCode::Refused,
                format!("{}: {why}", dir.join(TOKENS_FILE).display()),
            )
        };
        let file = RwLock::new(TokenFile::read_from(dir).map_err(refuse)?);
        Ok(Self {
            dir: dir.to_owned(),
            fingerprint,
            file,
            revocations: watch::channel(0).0,
            throttled_log: Mutex::default(),
        })
    }

    /// Creates an administrator's token if there are no tokens.
    pub(super) fn create_first_token(&self, note: &str) -> io::Result<Option<Token>> {
        self.update_file(|records| {
            if records.is_empty() {
                self.add_token(records, TokenRole::Admin.into(), None, note)
                    .map(Some)
            } else {
                Ok(None)
            }
        })
    }

    /// All tokens, oldest first.
    pub(crate) fn list_tokens(&self) -> Vec<StoredToken> {
        self.current_file().records.clone()
    }

    /// Creates a token, which is durable before it is returned.
    pub(crate) fn create_token(
        &self,
        rights: TokenRights,
        lifetime: Option<Duration>,
        note: &str,
    ) -> io::Result<Token> {
        self.update_file(|records| self.add_token(records, rights, lifetime, note))
    }

    fn add_token(
        &self,
        records: &mut Vec<StoredToken>,
        TokenRights { role, programs }: TokenRights,
        lifetime: Option<Duration>,
        note: &str,
    ) -> io::Result<Token> {
        let token = loop {
            let mut id = [0; 4];
            let mut secret = [0; 16];
            fill_random(&mut id)?;
            fill_random(&mut secret)?;
            let token = Token::new(role, id, secret, self.fingerprint);
            if records.iter().all(|record| record.id != token.id) {
                break token;
            }
        };

        let created_at = unix_seconds();
        records.push(StoredToken {
            id: token.id.clone(),
            role: role.name().to_owned(),
            hash: token.secret_hash().to_string(),
            note: note.to_owned(),
            created_at,
            expires_at: lifetime
                .map_or(0, |lifetime| created_at.saturating_add(lifetime.as_secs())),
            programs,
        });

        Ok(token)
    }

    /// Revokes a token; returns whether it existed.
    pub(crate) fn revoke_token(&self, id: &str) -> io::Result<bool> {
        let revoked = self.update_file(|records| {
            let before = records.len();
            records.retain(|record| record.id != id);
            Ok(records.len() < before)
        })?;
        if revoked {
            self.revocations.send_modify(|n| *n += 1);
        }

        Ok(revoked)
    }

    /// Changes the present file, one coordinator at a time.
    fn update_file<T>(
        &self,
        change: impl FnOnce(&mut Vec<StoredToken>) -> io::Result<T>,
    ) -> io::Result<T> {
        let _alone = lock_auth_dir(&self.dir)?;
        let mut records = TokenFile::read_from(&self.dir)?.records;
        let before = records.len();
        let changed = change(&mut records)?;

        if records.len() != before {
            write_secret(
                &self.dir.join(TOKENS_FILE),
                &serde_json::to_vec_pretty(&records).map_err(io::Error::other)?,
            )?;
        }

        *self.file.write().expect(LOCK_NOT_POISONED) = TokenFile::read_from(&self.dir)?;
        Ok(changed)
    }

    /// The tokens; reads the file again if it was replaced.
    fn current_file(&self) -> RwLockReadGuard<'_, TokenFile> {
        let known = self.file.read().expect(LOCK_NOT_POISONED);
        // A file that is briefly missing or unreadable must not lock everybody out, so the known
        // tokens stay.
        if read_file_stamp(&self.dir).is_none_or(|stamp| Some(stamp) == known.stamp) {
            return known;
        }

        drop(known);
        match TokenFile::read_from(&self.dir) {
            Ok(file) => {
                *self.file.write().expect(LOCK_NOT_POISONED) = file;
                self.revocations.send_modify(|n| *n += 1);
            }
            // Every request reads the tokens, so the error is logged at a limited rate.
            Err(error) => self
                .throttled_log
                .lock()
                .expect(LOCK_NOT_POISONED)
                .report_error("the tokens could not be reloaded", &error),
        }

        self.file.read().expect(LOCK_NOT_POISONED)
    }

    /// Whether the holder of a token may have programs run.
    pub(crate) fn may_run_programs(&self, id: &str) -> bool {
        let file = self.current_file();
        let mut records = file.records.iter();
        records.any(|record| record.id == id && record.programs)
    }

    /// The role of a valid token.
    pub(crate) fn authenticate(&self, token: &Token) -> Result<TokenRole, TokenAuthError> {
        let file = self.current_file();
        let record = file
            .records
            .iter()
            .find(|record| record.id == token.id)
            .ok_or(TokenAuthError::Unknown)?;
        let stored = <[u8; 32]>::from_hex(&record.hash).ok();

        // `blake3::Hash` compares in constant time, so timing tells nothing about the hash.
        if stored.is_none_or(|stored| {
            blake3::Hash::from(stored) != blake3::Hash::from(token.secret_hash().0)
        }) {
            return Err(TokenAuthError::Unknown);
        }

        check_expiry(record)
    }

    /// Waits until a token is revoked or has expired.
    pub(crate) async fn wait_until_invalid(&self, id: &str) {
        let mut revoked = self.revocations.subscribe();
        loop {
            let is_valid = self
                .current_file()
                .records
                .iter()
                .any(|record| record.id == id && check_expiry(record).is_ok());
            if !is_valid {
                return;
            }
            let _ = tokio::time::timeout(RECHECK_INTERVAL, revoked.changed()).await;
        }
    }
}

impl TokenFile {
    /// Reads the file in a directory; without a file there are no tokens.
    fn read_from(dir: &Path) -> io::Result<Self> {
        // The stamp is taken before the content, so that a file replaced in between is read again
        // later.
        let stamp = read_file_stamp(dir);
        let records: Vec<StoredToken> = match std::fs::read(dir.join(TOKENS_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| io::Error::other(format!("not a list of tokens: {e}")))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        match records.iter().find(|record| record.role().is_none()) {
            Some(record) => Err(io::Error::other(format!(
                "the token {} has no known role: '{}'",
                record.id, record.role
            ))),
            None => Ok(Self { records, stamp }),
        }
    }
}

/// A stamp that distinguishes a file from the one that replaces it.
fn read_file_stamp(dir: &Path) -> Option<(u64, SystemTime)> {
    let metadata = std::fs::metadata(dir.join(TOKENS_FILE)).ok()?;
    Some((metadata.ino(), metadata.modified().ok()?))
}

/// Name of the file of tokens.
const TOKENS_FILE: &str = "tokens.json";
/// The reason why a lock is never poisoned.
const LOCK_NOT_POISONED: &str = "nothing panics while it holds the tokens";
/// Interval at which an open session checks whether its token is still valid.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

fn check_expiry(record: &StoredToken) -> Result<TokenRole, TokenAuthError> {
    if record.expires_at != 0 && record.expires_at <= unix_seconds() {
        return Err(TokenAuthError::Expired);
    }
    record.role().ok_or(TokenAuthError::Unknown)
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let random: &dyn SecureRandom = rustls::crypto::ring::default_provider().secure_random;
    random
        .fill(bytes)
        .map_err(|_| io::Error::other("the system provides no random numbers"))
}

#[cfg(test)]
mod tests {
    use crate::server::auth::tokens::*;

    #[test]
    fn tokens_are_kept_as_hashes_and_open_until_they_are_revoked_or_expire() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tokens = TokenStore::open(dir.path(), Some(CertificateFingerprint([3; 32])))
            .expect("an empty directory will do");
        let made = tokens
            .create_token(TokenRole::Worker.into(), None, "lab")
            .expect("it can be made");
        let short = tokens
            .create_token(TokenRole::User.into(), Some(Duration::ZERO), "")
            .expect("it can be made");

        let text = std::fs::read_to_string(dir.path().join("tokens.json")).expect("they are kept");
        let secret = made
            .reveal_text()
            .split('.')
            .nth(2)
            .expect("a secret")
            .to_owned();
        assert!(!text.contains(&secret) && text.contains(&made.id));

        let again = TokenStore::open(dir.path(), Some(CertificateFingerprint([3; 32])))
            .expect("what was kept can be read");
        assert_eq!(again.authenticate(&made), Ok(TokenRole::Worker));
        assert_eq!(again.authenticate(&short), Err(TokenAuthError::Expired));

        // The role is the one that was kept, whatever the text says.
        let forged = made
            .reveal_text()
            .replace("worker", "admin")
            .parse::<Token>()
            .expect("a token in form");
        assert_eq!(again.authenticate(&forged), Ok(TokenRole::Worker));

        let other = made
            .reveal_text()
            .replace(&secret, &"0".repeat(32))
            .parse::<Token>()
            .expect("a token in form");
        assert_eq!(again.authenticate(&other), Err(TokenAuthError::Unknown));

        assert!(again.revoke_token(&made.id).expect("it can be written"));
        assert!(
            !again
                .revoke_token(&made.id)
                .expect("nothing is to be written")
        );

        assert_eq!(again.authenticate(&made), Err(TokenAuthError::Unknown));
    }

    #[test]
    fn coordinators_that_share_a_directory_share_its_tokens() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let here = TokenStore::open(dir.path(), None).expect("an empty directory will do");
        let there = TokenStore::open(dir.path(), None).expect("an empty directory will do");
        let (one, other) = std::thread::scope(|scope| {
            let many = |tokens: &TokenStore| -> Vec<Token> {
                (0..20)
                    .map(|_| {
                        tokens
                            .create_token(TokenRole::Worker.into(), None, "")
                            .expect("it can be made")
                    })
                    .collect()
            };

            let here = &here;
            let there = &there;
            let one = scope.spawn(move || many(here));
            let other = scope.spawn(move || many(there));
            (
                one.join().expect("no panic"),
                other.join().expect("no panic"),
            )
        });
        for token in one.iter().chain(&other) {
            assert_eq!(
                (here.authenticate(token), there.authenticate(token)),
                (Ok(TokenRole::Worker), Ok(TokenRole::Worker))
            );
        }

        assert!(there.revoke_token(&one[0].id).expect("it can be written"));
        assert_eq!(here.authenticate(&one[0]), Err(TokenAuthError::Unknown));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tokens.json"), "[{\"id\": 3}]").expect("it can be written");
        let error = TokenStore::open(dir.path(), None)
            .err()
            .expect("it is refused");
        assert!(error.message.contains("tokens.json"), "{error}");
    }
}
