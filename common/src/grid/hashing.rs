//! Quick hashes, which tell equal cells.

use crate::config::find_number_position;
use crate::spec_file::node::SpecValue;

/// Mixes a number into a hash.
pub(super) fn mix_hash(h: u64, x: u64) -> u64 {
    (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// The hash of a number at a path.
pub(super) fn hash_number(path: &str, number: f64) -> u64 {
    mix_hash(hash_text(path), (number + 0.0).to_bits())
}

/// The hash of a text.
pub(super) fn hash_text(text: &str) -> u64 {
    text.bytes().fold(0, |h, byte| mix_hash(h, byte.into()))
}

/// The sum of the hashes of all numbers and words in a value. Expressions count for nothing: their numbers differ by cell.
pub(super) fn hash_leaves(path: &str, value: &SpecValue) -> u64 {
    match value {
        SpecValue::Table(table) => table.0.iter().fold(0, |h: u64, (key, node)| {
            h.wrapping_add(hash_leaves(&format!("{path}.{key}"), &node.value))
        }),
        SpecValue::List(items) => items.iter().enumerate().fold(
            hash_number(path, items.len() as f64),
            |h: u64, (at, item)| h.wrapping_add(hash_leaves(&format!("{path}[{at}]"), &item.value)),
        ),
        SpecValue::Str(text) => {
            let position = find_number_position(path);
            match position.and_then(|position| position.split_expression(text)) {
                Some(_) => 0,
                None => mix_hash(hash_text(path), hash_text(text)),
            }
        }
        SpecValue::Bool(_) => mix_hash(hash_text(path), hash_text(&value.to_string())),
        SpecValue::Int(_) | SpecValue::Float(_) => {
            hash_number(path, value.as_f64().unwrap_or(f64::NAN))
        }
    }
}
