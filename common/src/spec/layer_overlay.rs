//! Scales and stages that set keys of single layers.

use crate::grid::{flatten_fields, set_field};
use crate::spec_file::error::Origin;
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};

/// Sets keys of the layers of a list, such as `b.width`. `None` if a layer is unknown.
pub(super) fn set_keys_of_layers(items: &[SpecNode], keys: &SpecTable) -> Option<Vec<SpecNode>> {
    let mut document = in_model(SpecValue::List(items.to_vec()));
    let overlay = in_model(SpecValue::Table(keys.clone()));
    for (field, node) in flatten_fields(&overlay) {
        set_field(&mut document, &field, node.clone()).ok()?;
    }
    let layers = document.get_at_path("model.layers")?;
    layers.value.as_list().map(<[SpecNode]>::to_vec)
}

/// A document with these layers alone.
fn in_model(layers: SpecValue) -> SpecTable {
    let nodes = ["layers", "model"].into_iter().fold(layers, |value, key| {
        let node = SpecNode {
            value,
            origin: Origin::Default,
        };
        SpecValue::Table(SpecTable(vec![(key.to_owned(), node)]))
    });
    match nodes {
        SpecValue::Table(table) => table,
        _ => SpecTable::default(),
    }
}
