//! Identifiers: hashes by what they are of, numbers of sweeps, cells, shape classes, leases and sessions, fences of leases, ids of
//! sweeps and workers.
//!
//! Each is a type of its own, so that one kind is not taken for another. Their `Debug` prints the bare value: that of configs and
//! streams is hashed.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

/// Hashes of 32 bytes, each kind a type. Written in hex digits.
macro_rules! hashes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The bytes as a message holds them.
            pub fn to_vec(&self) -> Vec<u8> {
                self.0.to_vec()
            }
        }

        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }

        impl TryFrom<Vec<u8>> for $name {
            type Error = Vec<u8>;

            /// Gives the bytes back if they are not 32.
            fn try_from(bytes: Vec<u8>) -> Result<Self, Vec<u8>> {
                bytes.try_into().map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(self.0))
            }
        }
    )*};
}

hashes! {
    /// The identity of a cell: what it resolves to, on which data, under which seed and numerics.
    CellHash;
    /// BLAKE3 of the canonical form of a dataset.
    DatasetHash;
    /// BLAKE3 of the content of a file: a dataset, or initial or trained weights.
    FileHash;
    /// BLAKE3 of the final weights and norm statistics of a trial in the order of their definition.
    WeightsDigest;
    /// All that the result of a trial is a function of: a checkpoint fits trials of the same identity only.
    TrialIdentity;
    /// What a sweep file says with its settings and the content of the files that it names, however it is written.
    MeaningHash;
    /// What a file claims of the results of a sweep, however it is written.
    ClaimsHash;
    /// What all cells of a sweep resolve to, and in which order they are run.
    CellsFingerprint;
    /// BLAKE3 of the id and the secret of a token, which a coordinator keeps in place of the secret.
    TokenHash;
    /// BLAKE3 of the certificate of a coordinator's own authority, by which holders of its tokens recognize the coordinator.
    CertificateFingerprint;
}

impl DatasetHash {
    /// Stands for the dataset in the identity of cells that train on none.
    pub const NONE: Self = Self([0; 32]);
}

/// A dataset in its canonical form is kept as a file.
impl From<DatasetHash> for FileHash {
    fn from(hash: DatasetHash) -> Self {
        Self(hash.0)
    }
}

/// Numbers, each kind a type. Written as the bare number.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($number:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $number);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

numbers! {
    /// The number of a sweep in its store, in the order of launch, from 1 on; 0 until it is stored.
    SweepNumber(i64);
    /// The number of a lease, unique among all leases of a store.
    #[derive(Default)]
    LeaseId(u64);
    /// The number of a worker's session, in the order in which a coordinator opened them, from 1 on.
    #[derive(Default)]
    SessionNumber(u64);
    /// Counts who leads a store: each time a coordinator begins to lead, it is one more.
    #[derive(Default)]
    Epoch(u64);
    /// The number of a cell in the full product of the axes of its sweep, the first axis slowest, from 0 on.
    #[derive(Default)]
    CellIndex(u64);
    /// The number of a repeat of a cell, from 0 on.
    Repeat(u32);
    /// The number of a shape class of a sweep, from 0 on. Dataset, sizes and architecture do not vary within a class.
    #[derive(Default)]
    ShapeClass(u32);
}

impl SweepNumber {
    /// That of a sweep that is not stored yet: comes before all others.
    pub const UNSTORED: Self = Self(0);
}

/// Texts, each kind a type. Written as the bare text.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        /// Every id can be read as text, but no text is taken for an id.
        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

texts! {
    /// The whole id of a sweep, by which users name it: 8 lower-case letters and digits, which the coordinator draws at the launch.
    /// A prefix of one, a sweep's name and "latest" are not yet ids.
    SweepId;
    /// The id of a worker's process, which it draws itself: 32 hex digits.
    WorkerId;
}

impl SweepId {
    /// Number of characters of an id.
    pub const LENGTH: usize = 8;

    /// The id that a word is, if it may be a whole one; whether there is such a sweep, only a coordinator knows.
    pub fn parse(word: &str) -> Option<Self> {
        let is_id = word.len() == Self::LENGTH
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        is_id.then(|| word.into())
    }
}

impl WorkerId {
    /// Stands for the process that computed a row if any process may audit the row: the one that did is unknown, or may do so too.
    pub const NONE: Self = Self(String::new());
}

impl ShapeClass {
    /// The position of the class in a list of all classes of the sweep.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// A trial by its place in the order of its shape class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrialIndex {
    /// The shape class.
    pub class: ShapeClass,
    /// The number of the trial within the class, from 0 on.
    pub number: u64,
}

/// A lease and the epoch in which it was granted. Results under a fence count only while the
/// coordinator holds the same pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// The number of the lease, unique among all leases of a store.
    pub lease: LeaseId,
    /// The coordinator's epoch when the lease was granted.
    pub epoch: Epoch,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::ids::*;

    #[test]
    fn only_eight_lower_case_letters_and_digits_may_be_the_id_of_a_sweep() {
        let id = SweepId::parse("a1b2c3d4").expect("a whole id");
        assert_eq!(id.as_str(), "a1b2c3d4");
        for word in [
            "",
            "a1b2c3d",
            "a1b2c3d4e",
            "A1b2c3d4",
            "latest~1",
            "lr-wd-00",
            "ä1b2c3d",
        ] {
            assert_eq!(SweepId::parse(word), None, "{word}");
        }
    }

    #[test]
    fn an_id_is_shown_and_found_as_the_bare_text() {
        let id = SweepId::from("a1b2c3d4");
        assert_eq!(
            format!("{id} {id:?} {id:>9}"),
            "a1b2c3d4 \"a1b2c3d4\"  a1b2c3d4"
        );
        assert!(HashSet::from([id]).contains("a1b2c3d4"));
    }
}
