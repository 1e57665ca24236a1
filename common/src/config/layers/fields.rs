//! The paths of settings of layers: `model.layers.b.width` by name, `model.layers.1.width` by place.

use super::item::{CLASSES, NUMBERS};
use super::references::HEAD;
use crate::spec_file::node::{SpecNode, SpecTable, SpecValue};
use crate::spec_file::reader::NumberRange;
use crate::spec_file::suggest::suggest_nearest;

/// The key of a pool.
const POOL: &str = "pool";

/// The path of the list.
const LAYERS: &str = "model.layers";

/// The names of the items of a list: those written, or the default ones. Pools have none.
pub(super) fn name_items(items: &[SpecNode]) -> Vec<Option<String>> {
    let mut counts = [0, 0];
    let names = items.iter().map(|item| {
        let SpecValue::Table(table) = &item.value else {
            return None;
        };
        let default = count_default_name(table, &mut counts);
        let written = table.get("name").and_then(|node| node.value.as_str());
        written.map(str::to_owned).or(default)
    });
    names.collect()
}

/// The name of a layer that has none, which counts those of its sort.
fn count_default_name(table: &SpecTable, [convs, linears]: &mut [usize; 2]) -> Option<String> {
    if table.get("conv").is_some() {
        *convs += 1;
        return Some(format!("conv{convs}"));
    }

    match &table.get("linear")?.value {
        SpecValue::Str(word) if word == CLASSES => Some(HEAD.to_owned()),
        _ => {
            *linears += 1;
            Some(format!("fc{linears}"))
        }
    }
}

/// The path of a setting with the place of its layer, as in `model.layers[1].conv` for `model.layers.b.width`. Other paths, and
/// those of unknown layers, stay as they are.
pub(crate) fn resolve_layer_field(document: &SpecTable, path: &str) -> String {
    find_setting(document, path).unwrap_or_else(|| path.to_owned())
}

/// Whether an item is a pool, which has no other key.
fn is_pool(item: &SpecTable) -> bool {
    let is_map = ["conv", "linear"].iter().any(|key| item.get(key).is_some());
    item.get(POOL).is_some() && !is_map
}

/// The place of the layer of this name, or at this place.
fn find_layer(items: &[SpecNode], layer: &str) -> Option<usize> {
    let by_name = name_items(items)
        .iter()
        .position(|name| name.as_deref() == Some(layer));
    let by_place = layer.parse().ok().filter(|at: &usize| *at < items.len());
    by_name.or(by_place)
}

fn find_setting(document: &SpecTable, path: &str) -> Option<String> {
    let (layer, key) = split_setting(path)?;
    let items = find_items(document)?;
    let at = find_layer(items, layer)?;

    let SpecValue::Table(table) = &items[at].value else {
        return None;
    };
    if is_pool(table) && key != POOL {
        return None;
    }
    let key = match key {
        "width" if table.get("linear").is_some() => "linear",
        "width" => "conv",
        key => key,
    };
    Some(format!("{LAYERS}[{at}].{key}"))
}

/// Splits the path of a setting into the layer and its key.
fn split_setting(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(LAYERS)?
        .strip_prefix('.')?
        .rsplit_once('.')
}

fn find_items(document: &SpecTable) -> Option<&[SpecNode]> {
    match &document.get_at_path(LAYERS)?.value {
        SpecValue::List(items) => Some(items),
        _ => None,
    }
}

/// Explains why there is no such setting of a layer; `None` if the path is not one, or there is.
pub(crate) fn describe_unknown_layer(document: &SpecTable, path: &str) -> Option<String> {
    let rest = path.strip_prefix(LAYERS)?.strip_prefix('.')?;
    let Some(items) = find_items(document) else {
        return Some("the file has no list model.layers, of which this would be a part".to_owned());
    };
    let Some((layer, key)) = split_setting(path) else {
        return Some(format!(
            "name a key of the layer as well, such as {LAYERS}.{rest}.width"
        ));
    };

    if find_setting(document, path).is_some() {
        return None;
    }
    let names = name_items(items);
    let mut known = names.iter().flatten().map(String::as_str);
    if let Some(at) = find_layer(items, layer) {
        let other = known.next().unwrap_or(HEAD);
        return Some(match &items[at].value {
            SpecValue::Table(_) => format!(
                "layer {at} is a pool and has no {key}: name a convolution or a matrix, such as {LAYERS}.{other}.{key}, or set \
                 {LAYERS}.{layer}.{POOL}"
            ),
            other => format!("layer {at} is {} and has no keys", other.describe()),
        });
    }
    Some(format!(
        "there is no layer '{layer}', {}",
        suggest_nearest(layer, known)
    ))
}

/// The numbers that a setting of a layer accepts, if it is a number.
pub(crate) fn number_range_in_layers(path: &str) -> Option<NumberRange> {
    let rest = path.strip_prefix(LAYERS)?;
    let (layer, key) = rest.rsplit_once('.')?;
    if !layer.starts_with(['.', '[']) {
        return None;
    }

    let of_maps = NUMBERS.iter().find(|(known, _)| *known == key);
    let of_norms = [
        ("groups", NumberRange::whole_numbers(1, 4096)),
        ("ghost_size", NumberRange::whole_numbers(1, 10_000_000)),
    ];
    let of_norm = of_norms.iter().find(|(known, _)| *known == key);
    of_maps.or(of_norm).map(|(_, range)| *range)
}
