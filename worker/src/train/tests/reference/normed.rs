//! Which weights a norm follows.

use super::nets::{PlainMap, PlainNet, PlainNorm};

/// For each layer, whether its weight is normed.
pub(super) fn find_normed_layers(net: &PlainNet) -> Vec<bool> {
    let mut normed: Vec<bool> = (0..net.layers.len())
        .map(|at| {
            let layer = &net.layers[at];
            layer.map != PlainMap::Copy && !layer.bias && is_followed_by_norm(net, at)
        })
        .collect();

    // Weights that a common factor of all would change unevenly are taken out until none is left.
    while let Some(sum) = find_uneven_sum(net, &normed) {
        let mut taken_out = false;
        let mut at = Some(sum);
        while let Some(layer) = at {
            taken_out |= normed[layer];
            normed[layer] = false;
            at = net.layers[layer].adds;
        }
        if !taken_out {
            break;
        }
    }
    normed
}

fn is_followed_by_norm(net: &PlainNet, at: usize) -> bool {
    if net.layers[at].norm != PlainNorm::None {
        return true;
    }
    let is_read = net.first_reader(at).is_some();
    !is_read
        && net
            .adder(at)
            .is_some_and(|adder| is_followed_by_norm(net, adder))
}

/// The first layer whose sum does not change by one power of the factor, has a bias and changes, or is an output that
/// changes.
fn find_uneven_sum(net: &PlainNet, normed: &[bool]) -> Option<usize> {
    // The power of the factor by which z and the activation of each layer change.
    let mut sums: Vec<u32> = Vec::new();
    let mut activations: Vec<u32> = Vec::new();
    for (at, layer) in net.layers.iter().enumerate() {
        let input = layer.reads.map_or(0, |source| activations[source]);
        let power = input + u32::from(normed[at]);
        let uneven = layer.adds.is_some_and(|added| sums[added] != power);
        let is_output = at + 1 == net.layers.len();
        if uneven || (power > 0 && (layer.bias || is_output)) {
            return Some(at);
        }

        sums.push(power);
        let has_norm = layer.norm != PlainNorm::None;
        activations.push(if has_norm { 0 } else { power });
    }
    None
}
