//! Tokens: who asks, and which coordinator may be told.
//!
//! `ROLE.ID.SECRET.FINGERPRINT`: the role in words for people (the coordinator goes by its own list), eight hex digits that
//! name the token, 32 hex digits that nobody else knows, and the BLAKE3 hash of the certificate of the coordinator's own
//! authority, by which its holder knows the coordinator. The last part is missing where the coordinator's certificate comes from
//! elsewhere.

use std::fmt;
use std::str::FromStr;

use ergodic_common::trial::{from_hex, hex};

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Take leases and deliver results.
    Worker,
    /// Launch and steer sweeps, and read everything.
    User,
    /// All that, and make and revoke tokens.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Worker, Self::User, Self::Admin];

    /// The role as written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A token. Its secret is shown by [`Token::reveal`] alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is said to be good for.
    pub role: Role,
    /// Its name.
    pub id: String,
    /// BLAKE3 of the certificate of the coordinator's authority.
    pub fingerprint: Option<[u8; 32]>,
    secret: [u8; 16],
}

impl Token {
    /// A token of these parts.
    pub fn new(role: Role, id: [u8; 4], secret: [u8; 16], fingerprint: Option<[u8; 32]>) -> Self {
        Self { role, id: hex(&id), fingerprint, secret }
    }

    /// What a coordinator keeps of the secret.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 token v1");
        hasher.update(self.id.as_bytes()).update(&self.secret);
        *hasher.finalize().as_bytes()
    }

    /// The whole text.
    pub fn reveal(&self) -> String {
        let end = self.fingerprint.map_or_else(String::new, |f| format!(".{}", hex(&f)));
        format!("{}.{}.{}{end}", self.role.name(), self.id, hex(&self.secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.{})", self.role.name(), self.id)
    }
}

/// The text is no token. Says nothing of the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token: expected ROLE.ID.SECRET.FINGERPRINT, as `ergodic token new` prints it")]
pub struct NoToken;

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut parts = text.trim().split('.');
        let mut next = || parts.next().ok_or(NoToken);
        let (role, id, secret) = (Role::named(next()?).ok_or(NoToken)?, bytes(next()?)?, bytes(next()?)?);
        let fingerprint = parts.next().map(bytes).transpose()?;
        if parts.next().is_some() { Err(NoToken) } else { Ok(Self::new(role, id, secret, fingerprint)) }
    }
}

fn bytes<const N: usize>(digits: &str) -> Result<[u8; N], NoToken> {
    from_hex(digits).and_then(|bytes| bytes.try_into().ok()).ok_or(NoToken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_its_secret_is_not_shown() {
        for fingerprint in [None, Some([7; 32])] {
            let token = Token::new(Role::Worker, [1, 2, 3, 4], [9; 16], fingerprint);
            assert_eq!(token.reveal().parse(), Ok(token.clone()));
            assert_eq!(format!("{token:?}"), "Token(worker.01020304)");
        }
        let token = Token::new(Role::Admin, [0; 4], [1; 16], None).reveal();
        for wrong in
            ["", "worker", "root.01020304.09", &token[..token.len() - 1], &format!("{token}.00"), &format!("{token}é")]
        {
            assert_eq!(wrong.parse::<Token>(), Err(NoToken), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_depends_on_every_part_of_the_secret_and_on_the_name() {
        let token = |id, secret| Token::new(Role::User, id, secret, None).hash();
        let mut other = [5; 16];
        other[15] ^= 1;
        assert_ne!(token([1; 4], [5; 16]), token([1; 4], other));
        assert_ne!(token([1; 4], [5; 16]), token([2; 4], [5; 16]));
    }
}
