//! Expressions that stand in the tables of a trial in the place of numbers.

use std::iter;

use crate::config::{WrittenNumber, find_number_position};
use crate::spec_file::error::Origin;
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::reader::NumberRange;

/// A place in the tables of a trial whose number an expression computes.
#[derive(Debug, Clone)]
pub(crate) struct NumberSlot {
    keys: Vec<SlotKey>,
    written: WrittenNumber,
    pub(super) range: NumberRange,
}

/// A step on the way to a place.
#[derive(Debug, Clone)]
enum SlotKey {
    Field(String),
    Item(usize),
}

/// An expression found in the place of a number.
#[derive(Debug, Clone)]
pub(crate) struct FoundExpression {
    /// The path of the number, as in `train.schedule[0].step`.
    pub(super) path: String,
    pub(super) slot: NumberSlot,
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The expressions in the value of the field `path`.
pub(crate) fn find_expressions(path: &str, node: &SpecNode) -> Vec<FoundExpression> {
    let mut found = Vec::new();
    let mut keys: Vec<SlotKey> = path.split('.').flat_map(split_slot_keys).collect();
    collect_expressions(path, &mut keys, node, &mut found);
    found
}

/// The steps of a part of a path, which are two for `layers[1]`.
fn split_slot_keys(part: &str) -> Vec<SlotKey> {
    let (name, place) = part.split_once('[').unwrap_or((part, ""));
    let item = place.strip_suffix(']').and_then(|at| at.parse().ok());
    let field = SlotKey::Field(name.to_owned());
    iter::once(field).chain(item.map(SlotKey::Item)).collect()
}

fn collect_expressions(
    path: &str,
    keys: &mut Vec<SlotKey>,
    node: &SpecNode,
    found: &mut Vec<FoundExpression>,
) {
    match &node.value {
        SpecValue::Table(table) => {
            for (key, node) in &table.0 {
                keys.push(SlotKey::Field(key.clone()));
                collect_expressions(&format!("{path}.{key}"), keys, node, found);
                keys.pop();
            }
        }
        SpecValue::List(items) => {
            for (at, node) in items.iter().enumerate() {
                keys.push(SlotKey::Item(at));
                collect_expressions(&format!("{path}[{at}]"), keys, node, found);
                keys.pop();
            }
        }
        SpecValue::Str(text) => found.extend(read_expression(path, keys, text, &node.origin)),
        _ => {}
    }
}

fn read_expression(
    path: &str,
    keys: &[SlotKey],
    text: &str,
    origin: &Origin,
) -> Option<FoundExpression> {
    let position = find_number_position(path)?;
    let (text, written) = position.split_expression(text)?;
    Some(FoundExpression {
        path: path.to_owned(),
        slot: NumberSlot {
            keys: keys.to_vec(),
            written,
            range: position.range_of(written),
        },
        text: text.to_owned(),
        origin: origin.clone(),
    })
}

impl NumberSlot {
    /// Writes the number into the tables of a cell.
    pub(super) fn write(&self, document: &mut SpecTable, number: f64) {
        let value = match self.written {
            WrittenNumber::Plain => SpecValue::Float(number),
            WrittenNumber::Factor => SpecValue::Str(format!("x{number}")),
            WrittenNumber::Length(unit) => SpecValue::Str(format!("{number} {unit}")),
        };
        if let Some(node) = self.find_node(document) {
            node.value = value;
        }
    }

    fn find_node<'a>(&self, document: &'a mut SpecTable) -> Option<&'a mut SpecNode> {
        let (first, rest) = self.keys.split_first()?;
        let SlotKey::Field(first) = first else {
            return None;
        };
        let root = find_entry(document, first)?;
        rest.iter()
            .try_fold(root, |node, key| match (&mut node.value, key) {
                (SpecValue::Table(table), SlotKey::Field(key)) => find_entry(table, key),
                (SpecValue::List(items), SlotKey::Item(at)) => items.get_mut(*at),
                _ => None,
            })
    }
}

fn find_entry<'a>(table: &'a mut SpecTable, key: &str) -> Option<&'a mut SpecNode> {
    let entry = table.0.iter_mut().find(|(known, _)| known == key)?;
    Some(&mut entry.1)
}
