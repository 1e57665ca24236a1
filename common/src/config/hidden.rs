//! The widths of hidden layers.

use super::positions::{HIDDEN_DEPTHS, HIDDEN_WIDTHS};
use crate::spec_file::error::SpecError;
use crate::spec_file::node::SpecValue;
use crate::spec_file::reader::{TableReader, quote_value};

/// Reads `hidden = { width = 64, depth = 8 }`.
fn read_equal_widths(r: &TableReader<'_>) -> Result<Vec<u32>, SpecError> {
    let numbers = [("width", HIDDEN_WIDTHS), ("depth", HIDDEN_DEPTHS)].map(|(key, range)| {
        r.read_whole_number(key, range)?.ok_or_else(|| {
            let message = format!("this is needed: set {}", r.path_to(key));
            r.error_at(key, message).of_missing_value()
        })
    });
    r.refuse_unknown_keys()?;

    let [width, depth] = numbers;
    Ok(vec![width? as u32; depth? as usize])
}

/// Reads the widths of the hidden layers, input side first.
pub(super) fn read_hidden_widths(r: &TableReader<'_>) -> Result<Vec<u32>, SpecError> {
    if matches!(
        r.read_node("hidden").map(|node| &node.value),
        Some(SpecValue::Table(_))
    ) {
        return read_equal_widths(&r.section("hidden")?);
    }

    let range = HIDDEN_WIDTHS;
    let Some(items) = r.read_list("hidden")? else {
        return Ok(vec![128]);
    };
    items
        .iter()
        .map(|item| match item.value.as_f64() {
            Some(x) if range.contains(x) => Ok(x as u32),
            _ => Err(r.error_at(
                "hidden",
                format!(
                    "expected widths, each {}, found {}",
                    range.describe(),
                    quote_value(&item.value)
                ),
            )),
        })
        .collect()
}
