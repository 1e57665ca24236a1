//! `model.layers`: a network as the list of its layers.

mod fields;
mod item;
mod references;
mod settle;
mod text;

pub(super) use fields::number_range_in_layers;
pub(crate) use fields::{describe_unknown_layer, resolve_layer_field};

pub(super) use self::item::CLASSES;
use self::item::{ListItem, read_item};
use self::references::resolve_references;
use self::settle::settle_layers;
use super::activation::Activation;
use super::norm::Norm;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{TableReader, quote_value};

/// Maximum number of items of `model.layers`.
const MAX_ITEMS: usize = 1000;

/// A network as the file lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerList {
    /// The pools over the image, before any map.
    pub image_pools: Vec<ListedPool>,
    /// The maps in the order of computation. The last one has an output for each class.
    pub layers: Vec<LayerSettings>,
}

/// The settings of a map and of what follows it, with all defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSettings {
    /// Index of the map in `model.layers`.
    pub item: usize,
    /// Name of its tensors.
    pub name: String,
    /// The map.
    pub map: LayerMap,
    /// Whether it has a trained bias.
    pub bias: bool,
    /// The norm of the sum.
    pub norm: Norm,
    /// The function behind the norm.
    pub activation: Activation,
    /// What it reads.
    pub reads: LayerInput,
    /// What is added to the map.
    pub adds: Option<AddedInput>,
    /// The pools behind the activation.
    pub pools: Vec<ListedPool>,
}

/// A map of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerMap {
    /// A square convolution.
    Conv {
        /// Number of output channels.
        channels: u32,
        /// Side of the kernel.
        kernel: u32,
        /// Step of the kernel.
        stride: u32,
        /// Zeros added on each side.
        padding: u32,
    },
    /// A full matrix.
    Linear {
        /// Number of outputs.
        width: u32,
    },
    /// A full matrix with an output for each class.
    Classes,
}

/// What a layer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerInput {
    /// The image, behind its pools.
    Image,
    /// The output of this layer, behind norm, activation and pools.
    Output(usize),
}

/// What is added to the map of a layer, before its norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddedInput {
    /// What a layer reads or puts out.
    Input(LayerInput),
    /// The sum of this layer, before its norm.
    Sum(usize),
}

/// A pool of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedPool {
    /// Index of the pool in `model.layers`.
    pub item: usize,
    /// The sort of the pool.
    pub pool: LayerPool,
}

/// A pool behind a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerPool {
    /// The largest of 2×2 pixels.
    Max2,
    /// The mean of 2×2 pixels.
    Average2,
    /// The mean over all pixels.
    Global,
}

const POOLS: [(&str, LayerPool); 3] = [
    ("max2", LayerPool::Max2),
    ("avg2", LayerPool::Average2),
    ("global-avg", LayerPool::Global),
];

/// What layers have that do not say otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerDefaults {
    pub(super) norm: Norm,
    pub(super) activation: Activation,
    pub(super) bias: Option<bool>,
}

/// Reads `model.layers`.
///
/// # Errors
/// Names the first layer that is wrong by itself, or by the names that it uses.
pub(super) fn read_layers(
    r: &TableReader<'_>,
    defaults: LayerDefaults,
) -> Result<LayerList, SpecError> {
    let Some(items) = r.read_list("layers")? else {
        let message = "which layers? Set model.layers to a list such as [{ conv = 16 }, { linear = \"classes\" }]";
        return Err(r.error_at("layers", message).of_missing_value());
    };
    if items.len() > MAX_ITEMS {
        let message = format!(
            "{} layers are too many; at most {MAX_ITEMS} are possible",
            items.len()
        );
        return Err(r.error_at("layers", message));
    }

    let mut list = PendingList::default();
    for (item, name) in (0..).zip(fields::name_items(items)) {
        let reader = item_reader(r, item, &items[item])?;
        match read_item(&reader, &items[item], defaults)? {
            ListItem::Pool(pool) => list
                .pools
                .push((list.maps.len(), ListedPool { item, pool })),
            ListItem::Map(map) => list.maps.push(PendingLayer {
                item,
                name: name.unwrap_or_default(),
                reader,
                map,
            }),
        }
    }

    check_head(r, &list, items)?;
    let inputs = resolve_references(&list.maps)?;
    settle_layers(&list, &inputs, defaults)
}

/// The items of a list, read one by one.
#[derive(Default)]
struct PendingList<'a> {
    maps: Vec<PendingLayer<'a>>,
    /// The pools, each with the number of maps before it.
    pools: Vec<(usize, ListedPool)>,
}

impl PendingList<'_> {
    /// The pools behind the map with this index; those over the image stand before the first.
    fn pools_behind(&self, map: Option<usize>) -> Vec<ListedPool> {
        let maps = map.map_or(0, |map| map + 1);
        let pools = self.pools.iter();
        pools
            .filter(|(before, _)| *before == maps)
            .map(|(_, pool)| *pool)
            .collect()
    }
}

/// A map whose references are to be resolved.
struct PendingLayer<'a> {
    item: usize,
    name: String,
    reader: TableReader<'a>,
    map: item::WrittenLayer<'a>,
}

fn item_reader<'a>(
    r: &TableReader<'_>,
    item: usize,
    node: &'a SpecNode,
) -> Result<TableReader<'a>, SpecError> {
    let path = r.path_to(&format!("layers[{item}]"));
    let SpecValue::Table(table) = &node.value else {
        let found = quote_value(&node.value);
        let message = format!("expected a table such as {{ conv = 16 }}, found {found}");
        return Err(SpecError::new(node.origin.clone(), path, message));
    };
    Ok(TableReader::from_list_element(
        table,
        &node.origin,
        path,
        r.reading_mode(),
    ))
}

/// Checks that the list ends with the layer of the classes, and that no other layer is one.
fn check_head(
    r: &TableReader<'_>,
    list: &PendingList<'_>,
    items: &[SpecNode],
) -> Result<(), SpecError> {
    let last = items.len().saturating_sub(1);
    let heads = list.maps.iter().filter(|layer| layer.is_head());
    if let Some(early) = heads.clone().find(|layer| layer.item != last) {
        let message = "the layer of the classes stands last: move it to the end, or choose a width";
        return Err(early.reader.error_at("linear", message));
    }

    if heads.count() == 0 {
        let message = "the last layer puts out a number for each class: end the list with { linear = \"classes\" }";
        let place = items.last().map(|node| node.origin.clone());
        return Err(match place {
            Some(origin) => SpecError::new(origin, format!("model.layers[{last}]"), message),
            None => r.error_at("layers", message),
        });
    }
    Ok(())
}

impl PendingLayer<'_> {
    fn is_head(&self) -> bool {
        self.map.map == LayerMap::Classes
    }
}
