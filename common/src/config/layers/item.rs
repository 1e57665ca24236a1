//! Reads one item of `model.layers`.

use super::{LayerDefaults, LayerMap, LayerPool, POOLS};
use crate::config::activation::{ACTIVATIONS, Activation};
use crate::config::norm::{Norm, read_norm};
use crate::spec_file::error::SpecError;
use crate::spec_file::node::SpecNode;
use crate::spec_file::reader::{NumberRange, TableReader};

/// The value of `linear` in the last layer.
pub(in crate::config) const CLASSES: &str = "classes";

const WIDTHS: NumberRange = NumberRange::whole_numbers(1, 65_536);
const KERNELS: NumberRange = NumberRange::whole_numbers(1, 255);
const PADDINGS: NumberRange = NumberRange::whole_numbers(0, 254);

/// The numeric keys of a layer. Norms have theirs from the fields of the model.
pub(super) const NUMBERS: [(&str, NumberRange); 6] = [
    ("conv", WIDTHS),
    ("linear", WIDTHS),
    ("width", WIDTHS),
    ("kernel", KERNELS),
    ("stride", KERNELS),
    ("padding", PADDINGS),
];

/// The keys that belong to convolutions.
const CONV_KEYS: [&str; 3] = ["kernel", "stride", "padding"];

/// An item of the list.
pub(super) enum ListItem<'a> {
    Map(WrittenLayer<'a>),
    Pool(LayerPool),
}

/// A map as written. What is `None` is not written.
pub(super) struct WrittenLayer<'a> {
    pub(super) map: LayerMap,
    pub(super) bias: Option<bool>,
    pub(super) norm: Option<Norm>,
    pub(super) activation: Option<Activation>,
    pub(super) from: Option<&'a str>,
    pub(super) add: Option<&'a str>,
}

/// Reads an item, whose names are read elsewhere.
///
/// # Errors
/// Names the first key that is unknown or wrong by itself.
pub(super) fn read_item<'a>(
    r: &TableReader<'a>,
    node: &SpecNode,
    defaults: LayerDefaults,
) -> Result<ListItem<'a>, SpecError> {
    if r.read_node("pool").is_some() {
        return Ok(ListItem::Pool(read_pool(r)?));
    }

    let norm = read_own_norm(r, defaults)?;
    let written = WrittenLayer {
        map: read_map(r, node)?,
        bias: r.read_bool("bias")?,
        norm,
        activation: r.read_word("activation", &ACTIVATIONS)?,
        from: r.read_str("from")?,
        add: r.read_str("add")?,
    };
    r.read_str("name")?;
    r.refuse_unknown_keys()?;
    Ok(ListItem::Map(written))
}

fn read_pool(r: &TableReader<'_>) -> Result<LayerPool, SpecError> {
    for key in ["conv", "linear"] {
        if r.read_node(key).is_some() {
            let message =
                "a pool is an item of its own: write it behind this layer, as { pool = … }";
            return Err(r.error_at("pool", message));
        }
    }

    let pool = r.read_word("pool", &POOLS)?;
    r.refuse_unknown_keys()?;
    Ok(pool.expect("the key is there"))
}

/// Reads the norm that a layer names, or whose size it gives.
fn read_own_norm(r: &TableReader<'_>, defaults: LayerDefaults) -> Result<Option<Norm>, SpecError> {
    let keys = ["norm", "groups", "ghost_size"];
    let is_own = keys.map(|key| r.read_node(key).is_some()).contains(&true);
    is_own.then(|| read_norm(r, defaults.norm)).transpose()
}

fn read_map(r: &TableReader<'_>, node: &SpecNode) -> Result<LayerMap, SpecError> {
    let given = ["conv", "linear"].map(|key| r.read_node(key).is_some());
    let numbers = CONV_KEYS.map(|key| read_number(r, key));
    match given {
        [true, false] => {
            let [kernel, stride, padding] = numbers;
            read_conv(r, [kernel?, stride?, padding?])
        }
        [false, true] => {
            let foreign = CONV_KEYS.iter().find(|key| r.read_node(key).is_some());
            match foreign {
                Some(key) => Err(r.error_at(key, "this belongs to convolutions only: remove it")),
                None => read_linear(r),
            }
        }
        [true, true] => Err(r.error_at(
            "linear",
            "a layer is either a convolution or linear: remove one of conv and linear",
        )),
        [false, false] => Err(explain_missing_map(r, node)),
    }
}

/// The error of an item without a map, or of the key that is misspelt.
fn explain_missing_map(r: &TableReader<'_>, node: &SpecNode) -> SpecError {
    for key in ["name", "bias", "activation", "from", "add"] {
        r.read_node(key);
    }
    let message = "expected conv = channels, linear = width or pool = \"max2\"";
    let missing = SpecError::new(node.origin.clone(), r.table_path(), message);
    r.refuse_unknown_keys().err().unwrap_or(missing)
}

fn read_conv(
    r: &TableReader<'_>,
    [kernel, stride, padding]: [Option<u32>; 3],
) -> Result<LayerMap, SpecError> {
    let channels = read_number(r, "conv")?.expect("the key is there");
    let kernel = kernel.unwrap_or(3);
    let padding = padding.unwrap_or((kernel - 1) / 2);
    if padding >= kernel {
        let message = format!(
            "with {padding} zeros on each side, a kernel of {kernel}×{kernel} sees nothing but zeros at the edge: choose at most {}",
            kernel - 1
        );
        return Err(r.error_at("padding", message));
    }

    Ok(LayerMap::Conv {
        channels,
        kernel,
        stride: stride.unwrap_or(1),
        padding,
    })
}

fn read_linear(r: &TableReader<'_>) -> Result<LayerMap, SpecError> {
    let is_word = r
        .read_node("linear")
        .is_some_and(|node| node.value.as_str().is_some());
    if is_word {
        r.read_word("linear", &[(CLASSES, ())])?;
        return Ok(LayerMap::Classes);
    }

    let width = read_number(r, "linear")?.expect("the key is there");
    Ok(LayerMap::Linear { width })
}

fn read_number(r: &TableReader<'_>, key: &'static str) -> Result<Option<u32>, SpecError> {
    let known = NUMBERS.iter().find(|(name, _)| *name == key);
    let (_, range) = known.expect("the numeric keys of layers stand in NUMBERS");
    let number = r.read_whole_number(key, *range)?;
    Ok(number.map(|number| number as u32))
}
