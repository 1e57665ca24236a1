//! What changes a step of every optimizer: factors on its learning rate, and the weights at which its gradient is taken.

use std::fmt;

use super::range_for_key;
use crate::number_format::format_shortest;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::SpecValue;
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};

/// The names of factors that are of parameters in all layers.
pub(crate) const LR_ROLES: [&str; 4] = ["weights", "biases", "norms", "head"];

/// Factors on the learning rate of some parameters, by role or by the name of a layer. Those of one parameter multiply.
#[derive(Clone, PartialEq, Default)]
pub struct LrFactors {
    /// The factors that are not 1, in the order of their names.
    factors: Vec<(String, f64)>,
}

impl fmt::Debug for LrFactors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.factors.iter().map(|(name, factor)| (name, factor)))
            .finish()
    }
}

impl LrFactors {
    /// Factors by role or name of a layer.
    pub fn new(factors: impl IntoIterator<Item = (String, f64)>) -> Self {
        let mut factors: Vec<(String, f64)> = factors.into_iter().collect();
        factors.retain(|(_, factor)| *factor != 1.0);
        factors.sort_by(|a, b| a.0.cmp(&b.0));
        Self { factors }
    }

    /// Whether all parameters have the learning rate of the file.
    pub fn is_empty(&self) -> bool {
        self.factors.is_empty()
    }

    /// The names that are no roles, so that they must be those of layers.
    pub(crate) fn layer_names(&self) -> impl Iterator<Item = &str> {
        let names = self.iter().map(|(name, _)| name);
        names.filter(|name| !LR_ROLES.contains(name))
    }

    /// The roles with a factor.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &str> {
        let names = self.iter().map(|(name, _)| name);
        names.filter(|name| LR_ROLES.contains(name))
    }

    /// The factors that are not 1, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.factors
            .iter()
            .map(|(name, factor)| (name.as_str(), *factor))
    }

    pub(super) fn read_section(train: &TableReader<'_>) -> Result<Self, SpecError> {
        let mut factors = Vec::new();
        for (name, node) in train.read_table_entries("lr_on")? {
            let range = NumberRange::NON_NEGATIVE;
            let Some(factor) = node.value.as_f64().filter(|x| range.contains(*x)) else {
                let expected = range.describe();
                let found = quote_value(&node.value);
                let hint = match &node.value {
                    SpecValue::Table(_) => "; put the name of a layer with a dot in quotes",
                    _ => "",
                };
                let message = format!("{name}: expected {expected}, found {found}{hint}");
                return Err(train.error_at("lr_on", message));
            };
            factors.push((name.clone(), factor));
        }

        Ok(Self::new(factors))
    }

    /// The factors as part of a cell's identity.
    pub(super) fn identity_text(&self) -> String {
        let parts = self
            .iter()
            .map(|(name, x)| format!("{name}={}", format_shortest(x)));
        parts.collect::<Vec<_>>().join(",")
    }
}

/// Sharpness-aware minimization (Foret et al. 2021): the gradient of a step is taken at w + ρ·g/‖g‖, g being that of the same
/// batch at w.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sam {
    /// The distance ρ, above 0.
    pub rho: f64,
}

impl Sam {
    /// Reads `sam = { rho = 0.05 }`. A distance of 0 is plain training.
    pub(super) fn read_section(train: &TableReader<'_>) -> Result<Option<Self>, SpecError> {
        if train.read_node("sam").is_none() {
            return Ok(None);
        }

        let r = train.section("sam")?;
        let rho = r.read_number("rho", range_for_key(&r, "rho"))?;
        r.refuse_unknown_keys()?;
        let Some(rho) = rho else {
            let message =
                "this is needed: the distance at which the gradient is taken, such as 0.05";
            return Err(r.error_at("rho", message).of_missing_value());
        };
        Ok((rho > 0.0).then_some(Self { rho }))
    }
}
