//! Reads `[quantity]` and `[[claim]]`, from a sweep file or from a file of claims alone.

use std::collections::BTreeMap;

use crate::config::numeric_field_range;
use crate::grid::Grid;
use crate::grid::reserved_names::BUILT_IN_NAMES;
use crate::metric::Metric;
use crate::quantity::call_text::CalledFunction;
use crate::quantity::cell_names::CellName;
use crate::quantity::claim::Claim;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::{GRAMMAR, ReadingMode};
use crate::spec_file::node::{self, SpecTable, SpecValue};
use crate::spec_file::reader::{TableReader, quote_value};

/// Maximum number of claims, and of quantities, of a file.
pub const MAX_CLAIMS: usize = 1_000;

/// The quantities and claims of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClaimSection {
    /// The quantities, in the order of the file.
    pub quantities: Vec<NamedQuantity>,
    /// The claims, in the order of the file.
    pub claims: Vec<Claim>,
}

/// A quantity with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedQuantity {
    /// The name by which others use it.
    pub name: String,
    /// The text as written.
    pub text: String,
    /// The place of the quantity.
    pub origin: Origin,
}

impl ClaimSection {
    /// The keys of both tables.
    pub const KEYS: [&str; 2] = ["quantity", "claim"];

    /// Reads both tables of a document.
    ///
    /// # Errors
    /// Something is missing, unknown or wrong by itself, whatever the sweep is.
    pub fn read(document: &TableReader<'_>) -> Result<Self, SpecError> {
        // Both keys are known, whatever is wrong with one of them.
        let [_, claims] = ["quantity", "claim"].map(|key| document.read_node(key));
        let quantities = read_quantities(document)?;
        let items = match claims.map(|node| &node.value) {
            None => &[][..],
            Some(SpecValue::List(items)) => items,
            Some(_) => {
                let message = "claims stand in a list of tables: write [[claim]] above each";
                return Err(document.error_at("claim", message));
            }
        };
        if quantities.len().max(items.len()) > MAX_CLAIMS {
            let message = format!("at most {MAX_CLAIMS} quantities and claims are possible");
            return Err(document.error_at("claim", message));
        }

        let mut found: Vec<Claim> = Vec::with_capacity(items.len());
        for item in items {
            let SpecValue::Table(table) = &item.value else {
                let message = "claims stand in a list of tables: write [[claim]] above each";
                return Err(document.error_at("claim", message));
            };
            let reading = document.reading_mode();
            let r = TableReader::from_list_element(table, &item.origin, "claim".into(), reading);
            let claim = Claim::read(&r, item)?;
            if found.iter().any(|other| other.name == claim.name) {
                return Err(
                    claim.error_at("name", "another claim has this name: choose another one")
                );
            }
            found.push(claim);
        }

        Ok(Self {
            quantities,
            claims: found,
        })
    }

    /// Reads a file that has these two tables alone.
    ///
    /// # Errors
    /// The text is not TOML, has other tables or no claim, or as for [`Self::read`].
    pub fn read_file(text: &str, file: &str) -> Result<Self, SpecError> {
        let section =
            node::parse_document(text).and_then(|document| Self::read_document(&document));
        section.map_err(|error| error.with_file(file))
    }

    /// Reads a document that has these two tables alone.
    ///
    /// # Errors
    /// The document has other tables or no claim, or as for [`Self::read`].
    pub fn read_document(document: &SpecTable) -> Result<Self, SpecError> {
        let r = TableReader::from_document(document, ReadingMode::for_new(GRAMMAR));
        let section = Self::read(&r)?;
        r.refuse_unknown_keys()?;
        if section.claims.is_empty() {
            let message = "there is no claim in this file: write [[claim]], name, of and a region";
            return Err(SpecError::new(Origin::Default, "", message));
        }

        Ok(section)
    }

    /// Adds the quantities of a sweep, which these claims may use, too. A quantity of this file comes before one of the same
    /// name.
    #[must_use]
    pub fn with_quantities_of(mut self, sweep: &Self) -> Self {
        for quantity in &sweep.quantities {
            if !self.quantities.iter().any(|own| own.name == quantity.name) {
                self.quantities.push(quantity.clone());
            }
        }
        self
    }

    /// Refuses quantities of a new file that hide a number of cells with the same name.
    ///
    /// # Errors
    /// A quantity has the name of a field that is a number.
    pub fn refuse_hidden_fields(&self, grid: &Grid) -> Result<(), SpecError> {
        for quantity in &self.quantities {
            let hidden = match CellName::find(grid, &quantity.name) {
                Some(CellName::Derived(name)) => name,
                Some(CellName::Field(path)) if numeric_field_range(path).is_some() => path.into(),
                _ => continue,
            };
            let path = format!("quantity.{}", quantity.name);
            let message = format!(
                "in expressions it would hide the field {hidden}, whose name it has: choose another one"
            );
            return Err(SpecError::new(quantity.origin.clone(), path, message));
        }
        Ok(())
    }

    /// Says which quantities that a claim uses this file defines otherwise than the sweep; `None` if it uses none.
    pub fn describe_redefinition(&self, claim: &Claim, sweep: &Self) -> Option<String> {
        let texts = self.quantity_texts();
        let used = find_used_names(&claim.of, &texts);
        let changed = sweep.quantities.iter().filter_map(|old| {
            let new = texts.get(old.name.as_str())?;
            let is_used = used.contains(&old.name.as_str()) && new.trim() != old.text.trim();
            is_used.then(|| format!("{} = {new}, in the sweep {}", old.name, old.text))
        });
        let changed: Vec<String> = changed.collect();
        (!changed.is_empty()).then(|| format!("defined anew: {}", changed.join(", ")))
    }

    /// The texts of the quantities by name.
    pub(super) fn quantity_texts(&self) -> BTreeMap<&str, &str> {
        let all = self.quantities.iter();
        all.map(|quantity| (quantity.name.as_str(), quantity.text.as_str()))
            .collect()
    }
}

/// The names of the quantities that texts mention, and of those that these mention.
fn find_used_names<'a>(texts: &[String], quantities: &BTreeMap<&'a str, &str>) -> Vec<&'a str> {
    let mut open: Vec<String> = texts.to_vec();
    let mut used: Vec<&str> = Vec::new();
    while let Some(text) = open.pop() {
        let text = SpecValue::Str(text);
        for (name, definition) in quantities {
            if !used.contains(name) && text.mentions(name) {
                used.push(*name);
                open.push((*definition).to_owned());
            }
        }
    }
    used
}

fn read_quantities(document: &TableReader<'_>) -> Result<Vec<NamedQuantity>, SpecError> {
    let mut quantities = Vec::new();
    for (name, node) in document.read_table_entries("quantity")? {
        let error = |message: String| {
            SpecError::new(node.origin.clone(), format!("quantity.{name}"), message)
        };
        let SpecValue::Str(text) = &node.value else {
            return Err(error(format!(
                "expected an expression like \"1/effective_lr\", found {}",
                quote_value(&node.value)
            )));
        };
        check_quantity_name(name).map_err(error)?;
        quantities.push(NamedQuantity {
            name: name.clone(),
            text: text.clone(),
            origin: node.origin.clone(),
        });
    }

    Ok(quantities)
}

/// Refuses a name that expressions read as something else.
fn check_quantity_name(name: &str) -> Result<(), String> {
    let is_plain = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_plain {
        return Err("expected a name of letters, digits and '_', the first no digit".to_owned());
    }

    let owner = if Metric::from_name(name).is_some() {
        "a metric has"
    } else if BUILT_IN_NAMES.contains(&name) || CalledFunction::from_name(name).is_some() {
        "every quantity can use"
    } else {
        return Ok(());
    };
    Err(format!("{owner} this name: choose another one"))
}
