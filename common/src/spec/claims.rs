//! The claims and quantities of a sweep: checked in a new one, and found again in a stored one.

use crate::quantity::{ClaimSection, ExpandedClaims, TrialQuantity};
use crate::spec::Spec;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::ReadingMode;

impl Spec {
    /// Compiles claims for this sweep and finds their cells.
    ///
    /// # Errors
    /// A claim names something that the sweep does not have.
    pub fn expand_claims(&self, claims: &ClaimSection) -> Result<ExpandedClaims, SpecError> {
        let measure = &self.measure;
        claims.expand(&self.grid, &measure.metrics, measure.probe.as_ref())
    }

    /// The names of the quantities of the sweep file; none if they cannot be read.
    pub fn quantity_names(&self) -> impl Iterator<Item = &str> {
        let sections = self.claims.iter();
        sections.flat_map(|section| section.quantities.iter().map(|q| q.name.as_str()))
    }

    /// Compiles a quantity for single trials: one of the sweep file by its name, or an expression.
    ///
    /// # Errors
    /// The text is no quantity, or names something that the sweep does not have; the message says what and what to do.
    pub fn compile_quantity(&self, text: &str) -> Result<TrialQuantity, String> {
        let none = ClaimSection::default();
        let section = self.claims.as_ref().unwrap_or(&none);
        let compiled = section.compile_trial_quantity(&self.grid, &self.measure.metrics, text);
        compiled.map_err(|why| match &self.claims {
            Ok(_) => why,
            Err(error) => {
                format!("{why}; the quantities of the sweep file cannot be read: {error}")
            }
        })
    }
}

impl ReadingMode {
    /// Refuses the claims of a new sweep that cannot be evaluated. Those of a stored one never keep it from being read.
    ///
    /// # Errors
    /// A claim is wrong, and the sweep is new.
    pub(super) fn refuse_claims_if_new(self, spec: &Spec) -> Result<(), SpecError> {
        if !self.is_new {
            return Ok(());
        }

        let claims = spec.claims.as_ref().map_err(Clone::clone)?;
        spec.expand_claims(claims).map(drop)
    }
}
