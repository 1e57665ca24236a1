//! The claims of a sweep: checked in a new one, and found again in a stored one.

use crate::quantity::{ClaimSection, ExpandedClaims};
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
