//! Checks that a claim has what its form needs, and nothing that belongs to another form.

use crate::quantity::claim::{Claim, ClaimForm, ClaimRegion, PREDICTIONS, TrialPooling};
use crate::spec_file::error::SpecError;

use ClaimForm::{Bits, Collapse, Difference, Extreme, Labels, Ratio, Share, Slope, Spread, Value};

/// The keys that some forms need, with what to add.
const NEEDED_KEYS: [(&str, &[ClaimForm], &str); 3] = [
    (
        "to",
        &[Ratio, Difference, Bits],
        "to = \"lr == 0.1\", the cells that others are set against",
    ),
    (
        "against",
        &[Slope],
        "against = \"intrinsic_lr\", an axis or field",
    ),
    (
        "over",
        &[Collapse],
        "over = \"batch_size\", the axis along which cells should be equal",
    ),
];

/// The keys that belong to some forms alone.
const KEYS_OF_FORMS: [(&str, &[ClaimForm]); 9] = [
    (
        "to",
        &[Ratio, Difference, Bits, Labels, Value, Share, Extreme],
    ),
    ("against", &[Slope]),
    ("log", &[Slope]),
    ("over", &[Collapse, Spread, Labels]),
    ("by", &[Spread, Slope]),
    ("chance", &[Extreme]),
    ("at", &[Labels]),
    ("relative_to", &[Labels]),
    ("joint", &[Labels]),
];

impl Claim {
    fn has_key(&self, key: &str) -> bool {
        self.origins.iter().any(|(known, _)| known == key)
    }

    /// Checks the keys.
    ///
    /// # Errors
    /// One is missing, or belongs to another form, or contradicts another one.
    pub(super) fn check_keys(&self) -> Result<(), SpecError> {
        let name = self.form.name();
        for (key, owners, remedy) in NEEDED_KEYS {
            if owners.contains(&self.form) && !self.has_key(key) {
                return Err(self.error_at(key, format!("form = \"{name}\" needs it: add {remedy}")));
            }
        }
        for (key, owners) in KEYS_OF_FORMS {
            if self.has_key(key) && !owners.contains(&self.form) {
                let owners: Vec<&str> = owners.iter().map(|form| form.name()).collect();
                let message = format!(
                    "form = \"{name}\" has none: it belongs to form = \"{}\"",
                    owners.join("\" or \"")
                );
                return Err(self.error_at(key, message));
            }
        }

        self.check_of()?;
        self.check_labels()?;
        self.check_region()
    }

    fn check_of(&self) -> Result<(), SpecError> {
        let is_of_means = self.per == TrialPooling::MeanCurve;
        match (&self.of[..], self.form) {
            ([], _) => {
                let message = "which quantity? Add of = \"mean(test_acc, last 20 %)\"";
                Err(self.error_at("of", message))
            }
            ([_, ..], Bits | Labels) if is_of_means => {
                let message = format!("form = \"{}\" compares trials: remove it", self.form.name());
                Err(self.error_at("per", message))
            }
            ([_], form) if form.counts_trials() && is_of_means => {
                let message = format!("form = \"{}\" counts trials: remove it", form.name());
                Err(self.error_at("per", message))
            }
            ([_, _, ..], form) if form != Bits => {
                let message = format!(
                    "form = \"{}\" takes one quantity: make a claim of each",
                    form.name()
                );
                Err(self.error_at("of", message))
            }
            _ if self.over.is_empty() || self.by.is_empty() => Ok(()),
            _ => Err(self.error_at(
                "by",
                "over says the same from the other side: keep one of them",
            )),
        }
    }

    fn check_labels(&self) -> Result<(), SpecError> {
        if self.form != Labels {
            return Ok(());
        }

        if self.of[0] != PREDICTIONS {
            let message = format!(
                "form = \"labels\" compares predictions for the probe set: write of = \"{PREDICTIONS}\", or remove it"
            );
            return Err(self.error_at("of", message));
        }
        match (self.has_key("to"), self.has_key("over")) {
            (false, false) => {
                let message = "which cells are compared? Add to = \"case == 'A'\", the cells that others are set against, or \
                               over = \"case\", the axis along which all pairs are compared";
                Err(self.error_at("to", message))
            }
            (true, true) => {
                let message = "to says already which cells are compared: keep one of them";
                Err(self.error_at("over", message))
            }
            _ if self.relative_to == Some(self.at) => {
                let message = "it is the moment of the claim itself, so that the ratio is 1: name another one";
                Err(self.error_at("relative_to", message))
            }
            _ => Ok(()),
        }
    }

    fn check_region(&self) -> Result<(), SpecError> {
        match (self.region, self.form) {
            (Some(_), Bits) => {
                let message = "form = \"bits\" has no region: equal is equal";
                Err(self.error_at(self.region_key(), message))
            }
            (None, Bits) => Ok(()),
            (None, _) => {
                let message = "in which region? Add within = [0.9, 1.1], above = 0.9, below = 1.1 or outside = [0.9, 1.1]";
                Err(self.error_at("within", message))
            }
            (Some(ClaimRegion::Above(bound) | ClaimRegion::Below(bound)), Spread | Collapse)
                if bound > 1.0 =>
            {
                Ok(())
            }
            (Some(_), Spread | Collapse) => {
                let message = "the largest over the smallest is at least 1: write below = 1.2, or above = 1.2";
                Err(self.error_at(self.region_key(), message))
            }
            (Some(ClaimRegion::Outside(..)), form) if form.counts_trials() => {
                Err(self.error_at("outside", "write within, above or below"))
            }
            (Some(region), Share) if !region.has_number_between(0.0, 1.0) => {
                let message = "a share of trials lies in [0, 1], of which none is in the region: write above = 0.9, say, for most trials";
                Err(self.error_at(self.region_key(), message))
            }
            _ => Ok(()),
        }
    }

    fn region_key(&self) -> &'static str {
        match self.region {
            Some(ClaimRegion::Within(..)) | None => "within",
            Some(ClaimRegion::Above(_)) => "above",
            Some(ClaimRegion::Below(_)) => "below",
            Some(ClaimRegion::Outside(..)) => "outside",
        }
    }
}
