//! Fills in what the layers of a list do not say.

use super::item::WrittenLayer;
use super::references::ResolvedInputs;
use super::{
    AddedInput, LayerDefaults, LayerInput, LayerList, LayerSettings, ListedPool, PendingLayer,
    PendingList,
};
use crate::config::activation::Activation;
use crate::config::norm::Norm;
use crate::spec_file::error::SpecError;

/// Where the results of a layer go.
#[derive(Clone, Copy)]
struct LayerUse {
    /// Whether its output is read, or is that of the network.
    is_read: bool,
    /// The layer that adds its sum.
    adder: Option<usize>,
}

/// Builds the settings of all layers.
///
/// # Errors
/// A layer or a setting of it has no effect, or its norm has no place there.
pub(super) fn settle_layers(
    list: &PendingList<'_>,
    inputs: &[ResolvedInputs],
    defaults: LayerDefaults,
) -> Result<LayerList, SpecError> {
    let uses: Vec<LayerUse> = (0..inputs.len()).map(|at| find_use(inputs, at)).collect();
    let mut norms: Vec<Norm> = Vec::new();
    for (layer, used) in list.maps.iter().zip(&uses) {
        check_use(layer, *used)?;
        let norm = settle_norm(layer, *used, defaults)?;
        check_norms_agree(layer, norm, &norms)?;
        norms.push(norm);
    }

    let layers = list.maps.iter().enumerate().map(|(at, layer)| {
        let sum_norm = find_norm_of_sum(&uses, &norms, at);
        Ok(LayerSettings {
            item: layer.item,
            name: layer.name.clone(),
            map: layer.map.map,
            bias: settle_bias(layer, norms[at], sum_norm, defaults)?,
            norm: norms[at],
            activation: settle_activation(layer, uses[at], defaults)?,
            reads: inputs[at].reads,
            adds: inputs[at].adds,
            pools: settle_pools(list, at, uses[at])?,
        })
    });
    Ok(LayerList {
        image_pools: list.pools_behind(None).map(|pool| pool.listed).collect(),
        layers: layers.collect::<Result<_, SpecError>>()?,
    })
}

fn find_use(inputs: &[ResolvedInputs], at: usize) -> LayerUse {
    let output = LayerInput::Output(at);
    let reads_it =
        |i: &ResolvedInputs| i.reads == output || i.adds == Some(AddedInput::Input(output));
    LayerUse {
        is_read: at + 1 == inputs.len() || inputs.iter().any(reads_it),
        adder: inputs
            .iter()
            .position(|i| i.adds == Some(AddedInput::Sum(at))),
    }
}

fn check_use(layer: &PendingLayer<'_>, used: LayerUse) -> Result<(), SpecError> {
    if used.is_read || used.adder.is_some() {
        return Ok(());
    }
    let name = &layer.name;
    let message = format!(
        "no layer reads {name} or adds it: let one do, as from = \"{name}.out\" does, or remove {name}"
    );
    let place = ["conv", "linear"]
        .into_iter()
        .find(|key| layer.reader.read_node(key).is_some());
    Err(layer.reader.error_at(place.unwrap_or("conv"), message))
}

/// Explains why a setting of an output has no effect that nothing reads.
fn explain_unused_output(layer: &PendingLayer<'_>) -> String {
    let name = &layer.name;
    format!(
        "no layer reads '{name}.out', only '{name}.sum', so this has no effect: remove it, or let a layer read '{name}.out'"
    )
}

fn unused_output_error(layer: &PendingLayer<'_>, key: &str) -> SpecError {
    layer.reader.error_at(key, explain_unused_output(layer))
}

fn settle_norm(
    layer: &PendingLayer<'_>,
    used: LayerUse,
    defaults: LayerDefaults,
) -> Result<Norm, SpecError> {
    let own = layer.map.norm.filter(|norm| *norm != Norm::None);
    if layer.is_head() {
        let message = "the layer of the classes has no norm: remove this, or set norm = \"none\"";
        return match own {
            Some(_) => Err(layer.reader.error_at(written_norm_key(layer), message)),
            None => Ok(Norm::None),
        };
    }

    match own {
        Some(_) if !used.is_read => Err(unused_output_error(layer, written_norm_key(layer))),
        None if !used.is_read => Ok(Norm::None),
        _ => Ok(layer.map.norm.unwrap_or(defaults.norm)),
    }
}

/// The key by which a layer has a norm of its own.
fn written_norm_key(layer: &PendingLayer<'_>) -> &'static str {
    let keys = ["norm", "groups", "ghost_size"];
    let mut written = keys
        .into_iter()
        .filter(|key| layer.reader.read_node(key).is_some());
    written.next().unwrap_or("norm")
}

/// Checks that the layers of a network take their statistics over the same images.
fn check_norms_agree(
    layer: &PendingLayer<'_>,
    norm: Norm,
    earlier: &[Norm],
) -> Result<(), SpecError> {
    let mut over_images = earlier.iter().filter(|norm| norm.is_over_images());
    let other = over_images.find(|other| norm.is_over_images() && **other != norm);
    match other {
        Some(other) => {
            let message = format!(
                "an earlier layer has the norm {}, and this one {}: batch norms of a network take their statistics over the \
                 same images; choose one of the two, or group or layer norm here",
                other.identity_text(),
                norm.identity_text()
            );
            Err(layer.reader.error_at(written_norm_key(layer), message))
        }
        None => Ok(()),
    }
}

fn settle_activation(
    layer: &PendingLayer<'_>,
    used: LayerUse,
    defaults: LayerDefaults,
) -> Result<Activation, SpecError> {
    let own = layer.map.activation.filter(|f| *f != Activation::Identity);
    match own {
        Some(_) if layer.is_head() => {
            let message = "the loss takes the numbers of the classes as they are: remove this";
            Err(layer.reader.error_at("activation", message))
        }
        Some(_) if !used.is_read => Err(unused_output_error(layer, "activation")),
        _ if layer.is_head() || !used.is_read => Ok(Activation::Identity),
        _ => Ok(layer.map.activation.unwrap_or(defaults.activation)),
    }
}

/// The first norm behind a layer's map, which other layers may add to before.
fn find_norm_of_sum(uses: &[LayerUse], norms: &[Norm], at: usize) -> Norm {
    let mut part = at;
    while norms[part] == Norm::None
        && !uses[part].is_read
        && let Some(adder) = uses[part].adder
    {
        part = adder;
    }
    norms[part]
}

fn settle_bias(
    layer: &PendingLayer<'_>,
    norm: Norm,
    sum_norm: Norm,
    defaults: LayerDefaults,
) -> Result<bool, SpecError> {
    let WrittenLayer { bias, .. } = layer.map;
    if bias == Some(true) && norm != Norm::None {
        let message = "a layer with a norm has no bias, which a batch norm would remove: leave this out, or set norm = \"none\" \
                       here; model.affine gives norms a shift";
        return Err(layer.reader.error_at("bias", message));
    }

    // The norm of a sum removes the bias of each of its parts.
    let is_normed = sum_norm != Norm::None;
    Ok(bias.unwrap_or(!is_normed && defaults.bias.unwrap_or(true)))
}

fn settle_pools(
    list: &PendingList<'_>,
    at: usize,
    used: LayerUse,
) -> Result<Vec<ListedPool>, SpecError> {
    let mut pools = list.pools_behind(Some(at));
    if used.is_read {
        return Ok(pools.map(|pool| pool.listed).collect());
    }
    match pools.next() {
        Some(pool) => Err(pool
            .reader
            .error_at("pool", explain_unused_output(&list.maps[at]))),
        None => Ok(Vec::new()),
    }
}
