//! The weights on whose common scale a network does not depend.

use crate::net::{Layer, LinearOp, Net};

/// The power of a common factor of the chosen weights by which numbers of a network change; `None` for numbers that do not
/// change by a factor.
type Degree = Option<u32>;

/// Finds the layers whose weights a norm follows: all of them multiplied by one factor leave the network as it is, but for the ε
/// of the norms.
///
/// In a residual network all convolutions before the last norm are such weights, because the factor of each is that of the whole
/// stream. A layer is none whose sum also gets numbers that do not have this factor, such as an output that is added behind its
/// norm.
pub(super) fn find_normed_layers(net: &Net) -> Vec<bool> {
    let mut chosen: Vec<bool> = (0..net.layers.len())
        .map(|at| is_followed_by_norm(net, at))
        .collect();
    while let Some(mixed) = find_mixed_sum(net, &chosen) {
        let mut layer = Some(mixed);
        while let Some(at) = layer {
            chosen[at] = false;
            layer = net.layers[at].add;
        }
    }
    chosen
}

/// Whether a norm directly follows the sum that a layer's map is part of, however many layers add to it, and nothing gets the
/// map without the norm.
fn is_followed_by_norm(net: &Net, at: usize) -> bool {
    let layer = &net.layers[at];
    if layer.linear_op == LinearOp::Identity || layer.bias {
        return false;
    }

    let mut part = at;
    while net.layers[part].norm.is_none() {
        match net.adding_layer(part) {
            Some(adder) if !is_output_read(net, part) => part = adder,
            _ => return false,
        }
    }
    true
}

fn is_output_read(net: &Net, at: usize) -> bool {
    at + 1 == net.layers.len() || net.layers.iter().any(|layer| layer.source == Some(at))
}

/// The first layer whose sum has a norm, and does not change by a factor, or whose output changes at all where there is no
/// norm.
fn find_mixed_sum(net: &Net, chosen: &[bool]) -> Option<usize> {
    let mut sums: Vec<Degree> = Vec::with_capacity(net.layers.len());
    let mut outputs: Vec<Degree> = Vec::with_capacity(net.layers.len());
    for (at, layer) in net.layers.iter().enumerate() {
        let source = layer.source.map_or(Some(0), |source| outputs[source]);
        let sum = sum_degree(layer, source, layer.add.map(|add| sums[add]), chosen[at]);
        if sum.is_none() {
            return Some(at);
        }
        sums.push(sum);
        outputs.push(if layer.norm.is_some() { Some(0) } else { sum });
    }

    let is_changed = outputs.last().is_some_and(|degree| *degree != Some(0));
    is_changed.then(|| net.layers.len() - 1)
}

fn sum_degree(layer: &Layer, source: Degree, added: Option<Degree>, is_chosen: bool) -> Degree {
    let of_map = source? + u32::from(is_chosen);
    let is_shifted = layer.bias && of_map != 0;
    let is_mixed = added.is_some_and(|added| added != Some(of_map));
    (!is_shifted && !is_mixed).then_some(of_map)
}
