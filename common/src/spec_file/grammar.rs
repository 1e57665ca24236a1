//! Versions of the grammar of sweep files, and the strictness of reading.
//!
//! The meaning of a text and the rules that refuse it may change between versions of this program.
//! Stored sweeps keep their meaning: their rows are stored under numbers of cells, which would
//! otherwise mean other cells, and results must not be lost because their sweep would be refused
//! today. So a text travels with a version of the grammar, the earliest in which it means what it
//! did at its launch, and later refusals apply to new sweeps only. A new sweep is read in the
//! current grammar, and refused if it meant something else to the program that sent it.

use crate::spec_file::error::{Origin, SpecError};

/// The version in which new sweep files are read. The versions differ in this:
///
/// 1. Expressions as `exmex` reads them: a sign binds tighter than a power, powers are taken from the left, and
///    `a < b < c` compares the truth of `a < b`, 1 or 0, with `c`.
/// 2. Expressions as in mathematics ([`crate::expr`]).
/// 3. `[case]`, `[scale]`, `[stage]`, starts from results, expressions in the place of numbers, lists of moments, equal hidden
///    widths, and fields of `[derive]` that are computed from those below them, which earlier versions refuse; and entries of a
///    schedule that begin at the end of the trial.
/// 4. `[program]`, which earlier versions refuse.
/// 5. Networks as lists of layers, activations and biases, and `[data]` of experiments, which earlier versions refuse.
/// 6. `save` in `[program]`, and datasets with targets instead of labels, which earlier versions refuse.
pub const GRAMMAR: u32 = 6;

/// The first version with `[case]`.
pub(crate) const CASES_GRAMMAR: u32 = 3;
/// The first version with `[scale]`.
pub(crate) const SCALES_GRAMMAR: u32 = 3;
/// The first version with `[stage]`, and with starts from results.
pub(crate) const STAGES_GRAMMAR: u32 = 3;
/// The first version with lists of moments, and with entries of a schedule at the end of the trial.
pub(crate) const MOMENTS_GRAMMAR: u32 = 3;
/// The first version with a table of a width and a depth in the place of hidden widths.
pub(crate) const EQUAL_WIDTHS_GRAMMAR: u32 = 3;
/// The first version with expressions in the place of numbers, and with fields that `[derive]` computes from those below them.
pub(crate) const EXPRESSIONS_GRAMMAR: u32 = 3;

/// The first version with `[program]`.
pub(crate) const PROGRAMS_GRAMMAR: u32 = 4;

/// The first version with `model.layers`, `model.activation` and `model.bias`.
pub(crate) const LAYERS_GRAMMAR: u32 = 5;

/// The first version with `[data]` of an experiment.
pub(crate) const EXPERIMENT_DATA_GRAMMAR: u32 = 5;

/// The first version with `save` in `[program]`.
pub(crate) const SAVE_GRAMMAR: u32 = 6;

/// The first version with datasets that have targets.
pub(crate) const TARGETS_GRAMMAR: u32 = 6;

/// The mode in which a sweep file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadingMode {
    /// The version of the grammar, at most [`GRAMMAR`]. For a new sweep, it is the sender's
    /// version.
    pub grammar: u32,
    /// Whether the sweep is new: planned, run, launched, or extended. Only then do refusals apply
    /// that earlier versions did not have.
    pub is_new: bool,
}

impl ReadingMode {
    /// The mode for a sweep that is stored or was accepted before.
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

    /// Checks that this program knows the grammar.
    ///
    /// # Errors
    /// The grammar is newer than this program.
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

    /// Checks that the version of the file has what stands at `path`.
    ///
    /// # Errors
    /// The file is in an earlier version.
    pub(crate) fn require_grammar(
        self,
        first: u32,
        origin: &Origin,
        path: &str,
    ) -> Result<(), SpecError> {
        if self.grammar >= first {
            return Ok(());
        }
        let message = format!(
            "this exists since version {first} of the grammar: use an ergodic of the coordinator's version"
        );
        Err(SpecError::new(origin.clone(), path, message))
    }

    /// Returns the error if the sweep is new. Stored sweeps keep what earlier versions accepted.
    ///
    /// # Errors
    /// The sweep is new.
    pub fn refuse_if_new(self, error: impl FnOnce() -> SpecError) -> Result<(), SpecError> {
        if self.is_new { Err(error()) } else { Ok(()) }
    }
}
