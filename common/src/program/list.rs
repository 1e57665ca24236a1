//! Lists of texts in `[program]`.

use crate::spec_file::error::SpecError;
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{TableReader, quote_value};

/// Reads the items of a list of texts; none if there is no list. `example` is an item.
///
/// # Errors
/// The value is no list; says how to write one.
pub(super) fn read_items<'a>(
    r: &TableReader<'a>,
    key: &'static str,
    example: &str,
) -> Result<&'a [SpecNode], SpecError> {
    match r.read_node(key).map(|node| &node.value) {
        None => Ok(&[]),
        Some(SpecValue::List(items)) => Ok(items),
        Some(other) => {
            let item = other.as_str().unwrap_or(example);
            let found = quote_value(other);
            let message = format!("expected a list, found {found}: write {key} = [{item:?}]");
            Err(r.error_at(key, message))
        }
    }
}
