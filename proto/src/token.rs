//! Tokens, which identify their holders to a coordinator, and the coordinator to them.
//!
//! The form is `ROLE.ID.SECRET.FINGERPRINT`: the role for people to read (the coordinator has its
//! own list), eight hex digits that name the token, 32 hex digits that nobody else knows, and the
//! BLAKE3 hash of the certificate of the coordinator's own authority, by which the holder
//! recognizes the coordinator. The fingerprint is missing if the coordinator's certificate comes
//! from elsewhere.

use std::fmt;
use std::str::FromStr;

use ergodic_common::ids::{CertificateFingerprint, TokenHash};

/// The role of a token, which decides what its holder may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRole {
    /// May take leases and deliver results.
    Worker,
    /// May launch and steer sweeps, and read everything.
    User,
    /// May do everything that a user may, and make and revoke tokens.
    Admin,
}

impl TokenRole {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Worker, Self::User, Self::Admin];

    /// The name of the role in tokens and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A token. Only [`Token::reveal_text`] shows its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The role that the token claims.
    pub role: TokenRole,
    /// Id of the token: eight hex digits.
    pub id: String,
    /// BLAKE3 hash of the certificate of the coordinator's authority.
    pub fingerprint: Option<CertificateFingerprint>,
    secret: [u8; 16],
}

impl Token {
    /// Creates a token from its parts.
    pub fn new(
        role: TokenRole,
        id: [u8; 4],
        secret: [u8; 16],
        fingerprint: Option<CertificateFingerprint>,
    ) -> Self {
        Self {
            role,
            id: hex::encode(id),
            fingerprint,
            secret,
        }
    }

    /// The hash that a coordinator stores in place of the secret.
    pub fn secret_hash(&self) -> TokenHash {
        let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 token v1");
        hasher.update(self.id.as_bytes()).update(&self.secret);
        hasher.finalize().into()
    }

    /// The whole token as text, secret included.
    pub fn reveal_text(&self) -> String {
        let end = self
            .fingerprint
            .map_or_else(String::new, |f| format!(".{f}"));
        format!(
            "{}.{}.{}{end}",
            self.role.name(),
            self.id,
            hex::encode(self.secret)
        )
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.{})", self.role.name(), self.id)
    }
}

/// The text is no token. The error does not quote it, because it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no token: expected ROLE.ID.SECRET.FINGERPRINT, as `ergodic token new` prints it")]
pub struct TokenParseError;

impl FromStr for Token {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, TokenParseError> {
        let mut parts = text.trim().split('.');
        let mut next = || parts.next().ok_or(TokenParseError);
        let role = TokenRole::from_name(next()?).ok_or(TokenParseError)?;
        let id = parse_hex_array(next()?)?;
        let secret = parse_hex_array(next()?)?;
        let fingerprint = parts.next().map(parse_hex_array).transpose()?;
        let fingerprint = fingerprint.map(CertificateFingerprint);

        if parts.next().is_some() {
            Err(TokenParseError)
        } else {
            Ok(Self::new(role, id, secret, fingerprint))
        }
    }
}

fn parse_hex_array<const N: usize>(digits: &str) -> Result<[u8; N], TokenParseError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes)
        .map(|()| bytes)
        .map_err(|_| TokenParseError)
}

#[cfg(test)]
mod tests {
    use crate::token::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_its_secret_is_not_shown() {
        for fingerprint in [None, Some(CertificateFingerprint([7; 32]))] {
            let token = Token::new(TokenRole::Worker, [1, 2, 3, 4], [9; 16], fingerprint);
            assert_eq!(token.reveal_text().parse(), Ok(token.clone()));
            assert_eq!(format!("{token:?}"), "Token(worker.01020304)");
        }

        let token = Token::new(TokenRole::Admin, [0; 4], [1; 16], None).reveal_text();
        for wrong in [
            "",
            "worker",
            "root.01020304.09",
            &token[..token.len() - 1],
            &format!("{token}.00"),
            &format!("{token}é"),
        ] {
            assert_eq!(wrong.parse::<Token>(), Err(TokenParseError), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_depends_on_every_part_of_the_secret_and_on_the_name() {
        let token = |id, secret| Token::new(TokenRole::User, id, secret, None).secret_hash();
        let mut other = [5; 16];
        other[15] ^= 1;
        assert_ne!(token([1; 4], [5; 16]), token([1; 4], other));
        assert_ne!(token([1; 4], [5; 16]), token([2; 4], [5; 16]));
    }
}
