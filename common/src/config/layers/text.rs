//! The text of a list of layers in the identity of a cell.

use super::{
    AddedInput, LayerInput, LayerList, LayerMap, LayerPool, LayerSettings, ListedPool, POOLS,
};
use crate::config::activation::ACTIVATIONS;
use crate::config::word_for_value;

impl LayerList {
    /// The layers with everything that results depend on, however it is written.
    pub(crate) fn identity_text(&self) -> String {
        let pools = pool_words(&self.image_pools);
        let layers = self.layers.iter().map(|layer| self.layer_text(layer));
        pools
            .into_iter()
            .chain(layers)
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn layer_text(&self, layer: &LayerSettings) -> String {
        let mut parts = vec![layer.name.clone(), map_text(layer.map)];
        parts.push(format!("from {}", self.input_text(layer.reads)));
        match layer.adds {
            Some(AddedInput::Input(input)) => parts.push(format!("add {}", self.input_text(input))),
            Some(AddedInput::Sum(at)) => parts.push(format!("add {}.sum", self.layers[at].name)),
            None => {}
        }

        parts.extend(layer.bias.then(|| "bias".to_owned()));
        parts.push(format!("norm {}", layer.norm.identity_text()));
        parts.push(word_for_value(&ACTIVATIONS, layer.activation).to_owned());
        parts.extend(pool_words(&layer.pools));
        parts.join(" ")
    }

    fn input_text(&self, input: LayerInput) -> String {
        match input {
            LayerInput::Image => "image".to_owned(),
            LayerInput::Output(at) => format!("{}.out", self.layers[at].name),
        }
    }
}

fn map_text(map: LayerMap) -> String {
    match map {
        LayerMap::Conv {
            channels,
            kernel,
            stride,
            padding,
        } => format!("conv {channels} kernel {kernel} stride {stride} padding {padding}"),
        LayerMap::Linear { width } => format!("linear {width}"),
        LayerMap::Classes => "linear classes".to_owned(),
    }
}

fn pool_words(pools: &[ListedPool]) -> Vec<String> {
    let words = pools
        .iter()
        .map(|listed| word_for_value::<LayerPool>(&POOLS, listed.pool));
    words.map(str::to_owned).collect()
}
