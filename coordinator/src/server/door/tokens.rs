//! The tokens a coordinator has made, kept as a file of their hashes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ergodic_common::ErrorCode;
use ergodic_common::trial::{from_hex, hex};
use ergodic_proto::status::UserError;
use ergodic_proto::token::{Role, Token};
use rustls::crypto::SecureRandom;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::write_secret;

/// What is kept of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Its name.
    pub(crate) id: String,
    role: String,
    /// BLAKE3 of its secret, as hex digits.
    hash: String,
    /// What it is for.
    pub(crate) note: String,
    /// Unix time, in seconds.
    pub(crate) created_at: u64,
    /// Unix time, in seconds; 0 for never.
    pub(crate) expires_at: u64,
}

impl Record {
    /// What its holder may do.
    pub(crate) fn role(&self) -> Option<Role> {
        Role::named(&self.role)
    }
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// It is not among those made, or was revoked.
    #[error("the token is none that this coordinator made, or it was revoked")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

/// All tokens.
pub struct Tokens {
    path: PathBuf,
    fingerprint: Option<[u8; 32]>,
    records: RwLock<Vec<Record>>,
    /// Counts revocations, so that sessions can end.
    revoked: watch::Sender<u64>,
}

impl Tokens {
    /// The tokens kept in `dir`; new ones carry this fingerprint.
    pub(super) fn open(dir: &Path, fingerprint: Option<[u8; 32]>) -> Result<Self, UserError> {
        let path = dir.join("tokens.json");
        let refuse = |why: String| UserError::new(ErrorCode::Refused, format!("{}: {why}", path.display()));
        let records: Vec<Record> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| refuse(format!("not a list of tokens: {e}")))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(refuse(e.to_string())),
        };
        if let Some(record) = records.iter().find(|record| record.role().is_none()) {
            return Err(refuse(format!("the token {} has no known role: '{}'", record.id, record.role)));
        }
        Ok(Self { path, fingerprint, records: RwLock::new(records), revoked: watch::channel(0).0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<Record> {
        self.read().clone()
    }

    /// Makes a token; it is durable before it is handed out.
    pub(crate) fn make(&self, role: Role, lifetime: Option<Duration>, note: &str) -> io::Result<Token> {
        let mut records = self.write();
        let token = loop {
            let (mut id, mut secret) = ([0; 4], [0; 16]);
            fill(&mut id)?;
            fill(&mut secret)?;
            let token = Token::new(role, id, secret, self.fingerprint);
            if records.iter().all(|record| record.id != token.id) {
                break token;
            }
        };
        let created_at = now();
        let mut all = records.clone();
        all.push(Record {
            id: token.id.clone(),
            role: role.name().to_owned(),
            hash: hex(&token.hash()),
            note: note.to_owned(),
            created_at,
            expires_at: lifetime.map_or(0, |lifetime| created_at.saturating_add(lifetime.as_secs())),
        });
        self.keep(&all)?;
        *records = all;
        Ok(token)
    }

    /// Revokes a token; whether there was one.
    pub(crate) fn revoke(&self, id: &str) -> io::Result<bool> {
        let mut records = self.write();
        let rest: Vec<Record> = records.iter().filter(|record| record.id != id).cloned().collect();
        if rest.len() == records.len() {
            return Ok(false);
        }
        self.keep(&rest)?;
        *records = rest;
        self.revoked.send_modify(|n| *n += 1);
        Ok(true)
    }

    /// The role that a token gives.
    pub(crate) fn admit(&self, token: &Token) -> Result<Role, Invalid> {
        let records = self.read();
        let record = records.iter().find(|record| record.id == token.id).ok_or(Invalid::Unknown)?;
        let kept: Option<[u8; 32]> = from_hex(&record.hash).and_then(|bytes| bytes.try_into().ok());
        // Hashes of BLAKE3 are compared in constant time.
        if kept.is_none_or(|kept| blake3::Hash::from(kept) != blake3::Hash::from(token.hash())) {
            return Err(Invalid::Unknown);
        }
        check(record)
    }

    /// Returns once a token is revoked or has expired.
    pub(crate) async fn ended(&self, id: &str) {
        let mut revoked = self.revoked.subscribe();
        loop {
            let valid = self.read().iter().find(|record| record.id == id).is_some_and(|record| check(record).is_ok());
            if !valid {
                return;
            }
            let _ = tokio::time::timeout(LOOK, revoked.changed()).await;
        }
    }

    fn keep(&self, records: &[Record]) -> io::Result<()> {
        write_secret(&self.path, &serde_json::to_vec_pretty(records).map_err(io::Error::other)?)
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Record>> {
        self.records.read().expect("nothing panics while it holds the tokens")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Record>> {
        self.records.write().expect("nothing panics while it holds the tokens")
    }
}

/// How often the clock is looked at for tokens that expire under an open session.
const LOOK: Duration = Duration::from_secs(30);

fn check(record: &Record) -> Result<Role, Invalid> {
    if record.expires_at != 0 && record.expires_at <= now() {
        return Err(Invalid::Expired);
    }
    record.role().ok_or(Invalid::Unknown)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let random: &dyn SecureRandom = rustls::crypto::ring::default_provider().secure_random;
    random.fill(bytes).map_err(|_| io::Error::other("the system gives no randomness"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_as_hashes_and_open_until_they_are_revoked_or_expire() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tokens = Tokens::open(dir.path(), Some([3; 32])).expect("an empty directory will do");
        let made = tokens.make(Role::Worker, None, "lab").expect("it can be made");
        let short = tokens.make(Role::User, Some(Duration::ZERO), "").expect("it can be made");
        let text = std::fs::read_to_string(dir.path().join("tokens.json")).expect("they are kept");
        let secret = made.reveal().split('.').nth(2).expect("a secret").to_owned();
        assert!(!text.contains(&secret) && text.contains(&made.id));
        let again = Tokens::open(dir.path(), Some([3; 32])).expect("what was kept can be read");
        assert_eq!(again.admit(&made), Ok(Role::Worker));
        assert_eq!(again.admit(&short), Err(Invalid::Expired));
        // The role is the one that was kept, whatever the text says.
        let forged = made.reveal().replace("worker", "admin").parse::<Token>().expect("a token in form");
        assert_eq!(again.admit(&forged), Ok(Role::Worker));
        let other = made.reveal().replace(&secret, &"0".repeat(32)).parse::<Token>().expect("a token in form");
        assert_eq!(again.admit(&other), Err(Invalid::Unknown));
        assert!(again.revoke(&made.id).expect("it can be written"));
        assert!(!again.revoke(&made.id).expect("nothing is to be written"));
        assert_eq!(again.admit(&made), Err(Invalid::Unknown));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tokens.json"), "[{\"id\": 3}]").expect("it can be written");
        let error = Tokens::open(dir.path(), None).err().expect("it is refused");
        assert!(error.message.contains("tokens.json"), "{error}");
    }
}
