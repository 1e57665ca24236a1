//! The version of the grammar in which a sweep file is read, and how strictly.
//!
//! What a text means may change from version to version of this program, and so may what is refused of it. A sweep that is
//! stored keeps its meaning: rows are stored under the numbers of cells, which would otherwise stand for other ones, and results
//! that are there are not lost because nobody would accept their sweep today. So the text travels with a version of the grammar, the earliest
//! in which it means what it did when it was launched, and what became a refusal later is refused of new sweeps alone. The text of a new
//! sweep is read as today, and refused where it meant something else to the program that sent it.

use crate::spec_file::error::{Origin, SpecError};

/// The version in which new sweep files are read. Of what an earlier one means otherwise:
///
/// 1. Expressions as `exmex` reads them: a sign binds tighter than a power, powers are taken from the left, and
///    `a < b < c` compares the truth of `a < b`, 1 or 0, with `c`.
/// 2. Expressions as in mathematics ([`crate::expr`]).
pub const GRAMMAR: u32 = 2;

/// The mode in which a sweep file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadingMode {
    /// The version of the grammar, at most [`GRAMMAR`]. For a new sweep, the sender's version.
    pub grammar: u32,
    /// Whether the sweep is new: planned, run, launched, or what another one is extended to. Only then is refused what
    /// earlier versions of this program accepted.
    pub is_new: bool,
}

impl ReadingMode {
    /// The mode for a sweep that is stored, or that was accepted before.
    pub fn for_stored(grammar: u32) -> Self {
        Self {
            grammar,
            is_new: false,
        }
    }

    /// The mode for a sweep that is not stored yet.
    pub fn for_new(grammar: u32) -> Self {
        Self {
            grammar,
            is_new: true,
        }
    }

    /// Whether this program knows the grammar.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn check_grammar(self) -> Result<Self, SpecError> {
        if (1..=GRAMMAR).contains(&self.grammar) {
            return Ok(self);
        }
        let message = format!(
            "the sweep file is in version {} of the grammar, and this program knows those up to {GRAMMAR}: use a newer one",
            self.grammar
        );
        Err(SpecError::new(Origin::Default, "", message))
    }

    /// Refuses what earlier versions of this program accepted. Of a stored sweep it stays as it was.
    ///
    /// # Errors
    /// The sweep is new.
    pub fn refuse_if_new(self, error: impl FnOnce() -> SpecError) -> Result<(), SpecError> {
        if self.is_new { Err(error()) } else { Ok(()) }
    }
}
