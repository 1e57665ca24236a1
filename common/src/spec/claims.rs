//! The claims, quantities and figures of a sweep: checked in a new one, and found again in a stored one.

use crate::number_format::format_shortest;
use crate::quantity::{CellQuantity, ClaimSection, ExpandedClaims, StepQuantity, TrialQuantity};
use crate::spec::{Spec, SpecSource};
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::{SpecTable, SpecValue};

impl Spec {
    /// Compiles claims for this sweep and finds their cells.
    ///
    /// # Errors
    /// A claim names something that the sweep does not have. Cells that only the file as it is would have are no error.
    pub fn expand_claims(&self, claims: &ClaimSection) -> Result<ExpandedClaims, SpecError> {
        self.expand_known(claims, self.has_other_cells)
    }

    /// Compiles the claims of the sweep file, as for [`Self::expand_claims`]. One that an earlier version accepted though its cells
    /// cannot have what it is about stays, and keeps no other from being judged.
    ///
    /// # Errors
    /// A claim cannot be read, or names something that the sweep does not have.
    pub fn expand_own_claims(&self) -> Result<ExpandedClaims, SpecError> {
        let section = self.claims.as_ref().map_err(Clone::clone)?;
        self.expand_known(section, true)
    }

    fn expand_known(
        &self,
        claims: &ClaimSection,
        keeps_lacking: bool,
    ) -> Result<ExpandedClaims, SpecError> {
        let measure = &self.measure;
        let probe = measure.probe.as_ref();
        claims.expand(&self.grid, &measure.metrics, probe, keeps_lacking)
    }

    /// The claims of the sweep file whose cells the sweep lacks at its scale, by name, and what it lacks.
    pub fn find_lacking_claims(&self) -> Vec<(String, String)> {
        let expanded = self.expand_own_claims().ok();
        let claims = expanded.into_iter().flat_map(|expanded| expanded.claims);
        claims
            .filter_map(|expanded| Some((expanded.claim.name, expanded.lack?)))
            .collect()
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

    /// Compiles a quantity that each cell of this sweep has without any trial, such as `1/(lr*wd)`.
    ///
    /// # Errors
    /// The text names something unknown, or has no value without a trial; the message says what.
    pub fn compile_cell_quantity(&self, text: &str) -> Result<CellQuantity, String> {
        let none = ClaimSection::default();
        let claims = self.claims.as_ref().unwrap_or(&none);
        claims.compile_cell_quantity(&self.grid, &self.measure.metrics, text)
    }

    /// Compiles a quantity that each step of a trial has whatever it measures, such as `lr*wd*step`.
    ///
    /// # Errors
    /// As for [`Self::compile_cell_quantity`].
    pub fn compile_step_quantity(&self, text: &str) -> Result<StepQuantity, String> {
        let none = ClaimSection::default();
        let claims = self.claims.as_ref().unwrap_or(&none);
        claims.compile_step_quantity(&self.grid, &self.measure.metrics, text)
    }
}

impl SpecSource {
    /// The tables `[quantity]` and `[[claim]]` of a file with its settings; `None` for a file that cannot be read.
    pub(super) fn read_claims_tables(&self) -> Option<SpecTable> {
        let mut document = self.read_document().ok()?;
        document
            .0
            .retain(|(key, _)| ClaimSection::KEYS.contains(&key.as_str()));
        Some(document)
    }

    /// The quantities and claims of the file, with its settings, as a file of claims alone; `None` for a file that cannot be read.
    pub fn render_claims(&self) -> Option<String> {
        let tables = self.read_claims_tables()?;
        let lines = tables.0.iter();
        let lines = lines.map(|(key, node)| format!("{key} = {}\n", render_toml(&node.value)));
        Some(lines.collect())
    }
}

/// Renders a value in TOML, on one line.
fn render_toml(value: &SpecValue) -> String {
    match value {
        SpecValue::Bool(flag) => flag.to_string(),
        SpecValue::Int(whole) => whole.to_string(),
        SpecValue::Float(x) => format_shortest(*x),
        SpecValue::Str(text) => quote_toml(text),
        SpecValue::List(items) => {
            let items: Vec<String> = items.iter().map(|item| render_toml(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        SpecValue::Table(table) => {
            let entries: Vec<String> = table
                .0
                .iter()
                .map(|(key, node)| format!("{} = {}", quote_toml(key), render_toml(&node.value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// A text as a basic string of TOML.
fn quote_toml(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl ReadingMode {
    /// Refuses the claims of a new sweep that cannot be evaluated, and its figures that cannot be drawn. Those of a stored one never
    /// keep it from being read.
    ///
    /// # Errors
    /// A claim or a figure is wrong, and the sweep is new.
    pub(super) fn refuse_claims_if_new(self, spec: &Spec) -> Result<(), SpecError> {
        if !self.is_new {
            return Ok(());
        }

        let claims = spec.claims.as_ref().map_err(Clone::clone)?;
        claims.refuse_hidden_fields(&spec.grid)?;
        spec.expand_claims(claims)?;
        let figures = spec.figures.as_ref().map_err(Clone::clone)?;
        figures.check(claims, &spec.grid, &spec.measure.metrics)
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::claims::*;

    #[test]
    fn claims_are_rendered_as_a_file_that_says_the_same() {
        let source = SpecSource {
            text: "name = 'a'\n[quantity]\nx = '1/\"lr\"\\'\n[[claim]]\nname = \"a\\tb\\u007f\"\nof = ['x', 'y']\nwithin = [-1e-3, 2]\n\
                   control = true\n[[claim]]\nname = 'c'\nmin = 5\n"
                .to_owned(),
            ..SpecSource::default()
        };
        let rendered = SpecSource {
            text: source.render_claims().expect("it can be read"),
            ..SpecSource::default()
        };
        assert!(
            !rendered.text.contains("name = \"a\"\n"),
            "{}",
            rendered.text
        );
        assert_eq!(rendered.compute_claims_hash(), source.compute_claims_hash());
        assert_ne!(
            source.compute_claims_hash(),
            SpecSource::default().compute_claims_hash()
        );
    }
}
