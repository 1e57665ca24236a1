//! Builds the layers of a network that the file lists.

use std::collections::HashSet;

use crate::config::{
    Activation, AddedInput, LayerInput, LayerList, LayerMap, LayerPool, LayerSettings, ListedPool,
    ModelConfig, Norm,
};
use crate::net::builder::{map_shape, norm_spec};
use crate::net::{ActivationShape, Layer, LinearOp, Pool};

/// Maximum number of weights of a network.
const MAX_WEIGHTS: u64 = 1 << 32;
/// Maximum number of values per image that a layer puts out.
const MAX_OUTPUTS: u64 = 1 << 30;

/// What of a list does not fit the images or other layers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LayerMisfit {
    /// Index in `model.layers`.
    pub(crate) item: usize,
    /// The key that is to blame, if it is there.
    pub(crate) key: &'static str,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

/// Finds what of a list does not fit, if there is something.
pub(crate) fn find_layer_misfit(
    model: &ModelConfig,
    list: &LayerList,
    input: ActivationShape,
    classes: usize,
) -> Option<LayerMisfit> {
    build_layers(model, list, input, classes).err()
}

/// Builds the layers of a list for images of this shape.
///
/// # Errors
/// A layer does not fit the images, or another layer.
pub(super) fn build_layers(
    model: &ModelConfig,
    list: &LayerList,
    input: ActivationShape,
    classes: usize,
) -> Result<Vec<Layer>, LayerMisfit> {
    let mut builder = ListBuilder {
        model,
        list,
        input,
        classes,
        layers: Vec::new(),
        image: None,
        outputs: Vec::new(),
        sums: Vec::new(),
        inserted_pools: 0,
        weights: 0,
    };

    for pool in &list.image_pools {
        builder.image = Some(builder.insert_pool(builder.image, *pool)?);
    }
    for at in 0..list.layers.len() {
        builder.add_layer(at)?;
    }
    builder.check_names()?;
    Ok(builder.layers)
}

/// A network under construction.
struct ListBuilder<'a> {
    model: &'a ModelConfig,
    list: &'a LayerList,
    input: ActivationShape,
    classes: usize,
    layers: Vec<Layer>,
    /// The layer that pools the image last.
    image: Option<usize>,
    /// The layer that has the output of each listed one.
    outputs: Vec<usize>,
    /// The layer that has the sum of each listed one.
    sums: Vec<usize>,
    inserted_pools: usize,
    weights: u64,
}

impl ListBuilder<'_> {
    fn add_layer(&mut self, at: usize) -> Result<(), LayerMisfit> {
        let settings = &self.list.layers[at];
        let source = self.find_input(settings.reads);
        let (map, channels) = describe_map(settings.map, self.classes);
        self.check_map(settings, map, self.shape_of(source))?;

        let layer = self.plain_layer(settings.name.clone(), source, (channels, map));
        self.check_size(settings, &layer)?;
        let add = self.find_added(settings, &layer)?;
        check_groups(settings, layer.output)?;
        let is_head = settings.map == LayerMap::Classes;
        self.layers.push(Layer {
            add,
            bias: settings.bias,
            norm: norm_spec(self.model, settings.norm),
            activation: settings.activation,
            trained: !(is_head && self.model.fixed_head),
            ..layer
        });

        self.sums.push(self.layers.len() - 1);
        self.outputs.push(self.layers.len() - 1);
        self.add_pools(at)
    }

    fn shape_of(&self, source: Option<usize>) -> ActivationShape {
        source.map_or(self.input, |at| self.layers[at].activation_shape())
    }

    fn find_input(&self, input: LayerInput) -> Option<usize> {
        match input {
            LayerInput::Image => self.image,
            LayerInput::Output(at) => Some(self.outputs[at]),
        }
    }

    /// A trained map without bias, norm and activation.
    fn plain_layer(
        &self,
        name: String,
        source: Option<usize>,
        (channels, linear_op): (usize, LinearOp),
    ) -> Layer {
        let input = self.shape_of(source);
        Layer {
            name,
            source,
            add: None,
            input,
            output: map_shape(linear_op, input, channels),
            linear_op,
            bias: false,
            norm: None,
            activation: Activation::Identity,
            pool: Pool::None,
            trained: true,
        }
    }

    fn check_map(
        &self,
        settings: &LayerSettings,
        map: LinearOp,
        input: ActivationShape,
    ) -> Result<(), LayerMisfit> {
        let LinearOp::Conv {
            kernel, padding, ..
        } = map
        else {
            return Ok(());
        };
        let (height, width) = (input.height + 2 * padding, input.width + 2 * padding);
        if kernel <= height.min(width) {
            return Ok(());
        }

        let message = format!(
            "a kernel of {kernel}×{kernel} is larger than the image of {height}×{width} that {} reads, its padding included: \
             choose a smaller kernel, or fewer strides and pools before it",
            settings.name
        );
        Err(misfit(settings, "kernel", message))
    }

    /// Checks that the layer is of a size that can be computed with, and counts its weights.
    fn check_size(&mut self, settings: &LayerSettings, layer: &Layer) -> Result<(), LayerMisfit> {
        let key = width_key(settings);
        let outputs = layer.output.len() as u64;
        if outputs > MAX_OUTPUTS {
            let message = format!(
                "{outputs} outputs per image are too many; at most {MAX_OUTPUTS} are possible"
            );
            return Err(misfit(settings, key, message));
        }

        self.weights += layer.fan_in() as u64 * layer.output.channels as u64;
        if self.weights > MAX_WEIGHTS {
            let message = format!(
                "the network has {} weights up to here; at most {MAX_WEIGHTS} are possible: choose a smaller width",
                self.weights
            );
            return Err(misfit(settings, key, message));
        }
        Ok(())
    }

    /// The layer whose sum is added, which is inserted if the file adds an output.
    fn find_added(
        &mut self,
        settings: &LayerSettings,
        layer: &Layer,
    ) -> Result<Option<usize>, LayerMisfit> {
        match settings.adds {
            None => Ok(None),
            Some(AddedInput::Sum(other)) => {
                let summed = self.sums[other];
                let shape = self.layers[summed].output;
                if shape == layer.output {
                    return Ok(Some(summed));
                }
                let message = format!(
                    "the sum of {} has the shape {}, and that of {} {}: equal shapes are added; add \"{}.in\" or \"{}.out\" for a \
                     convolution between",
                    self.layers[summed].name,
                    describe_shape(shape),
                    settings.name,
                    describe_shape(layer.output),
                    self.list.layers[other].name,
                    self.list.layers[other].name,
                );
                Err(misfit(settings, "add", message))
            }
            Some(AddedInput::Input(input)) => {
                let source = self.find_input(input);
                self.insert_shortcut(settings, source, layer.output)
                    .map(Some)
            }
        }
    }

    /// Inserts the layer that brings what is added to the shape of the sum.
    fn insert_shortcut(
        &mut self,
        settings: &LayerSettings,
        source: Option<usize>,
        target: ActivationShape,
    ) -> Result<usize, LayerMisfit> {
        let from = self.shape_of(source);
        let is_same = from == target;
        let map = match is_same {
            true => LinearOp::Identity,
            false => find_shortcut_map(from, target).ok_or_else(|| {
                let message = format!(
                    "what is added has the shape {}, and {} {}: no stride of a 1×1 convolution makes one of the other",
                    describe_shape(from),
                    settings.name,
                    describe_shape(target)
                );
                misfit(settings, "add", message)
            })?,
        };

        let name = format!("{}.shortcut", settings.name);
        if settings.map == LayerMap::Classes && self.model.fixed_head && !is_same {
            let message = format!(
                "model.fixed_head leaves the head as initialized, but this inserts {name}, which is trained: remove one of the two"
            );
            return Err(misfit(settings, "add", message));
        }
        let layer = self.plain_layer(name, source, (target.channels, map));
        self.check_size(settings, &layer)?;
        let bias = !is_same && settings.bias;
        self.layers.push(Layer { bias, ..layer });
        Ok(self.layers.len() - 1)
    }

    /// Adds the pools behind a layer. The first is part of the layer itself, unless another one adds the layer's sum.
    fn add_pools(&mut self, at: usize) -> Result<(), LayerMisfit> {
        let is_summed = self
            .list
            .layers
            .iter()
            .any(|other| other.adds == Some(AddedInput::Sum(at)));
        for listed in &self.list.layers[at].pools {
            let last = self.outputs[at];
            let is_own = last == self.sums[at] && self.layers[last].pool == Pool::None;
            if is_own && !is_summed {
                check_pool(*listed, self.layers[last].output)?;
                self.layers[last].pool = pool_of(listed.pool);
            } else {
                self.outputs[at] = self.insert_pool(Some(last), *listed)?;
            }
        }
        Ok(())
    }

    /// Inserts a layer without a map that pools.
    fn insert_pool(
        &mut self,
        source: Option<usize>,
        listed: ListedPool,
    ) -> Result<usize, LayerMisfit> {
        let input = self.shape_of(source);
        check_pool(listed, input)?;
        self.inserted_pools += 1;
        let name = format!("pool{}", self.inserted_pools);
        let layer = self.plain_layer(name, source, (input.channels, LinearOp::Identity));
        self.layers.push(Layer {
            pool: pool_of(listed.pool),
            ..layer
        });
        Ok(self.layers.len() - 1)
    }

    /// Checks that no layer of the file is called like an inserted one.
    fn check_names(&self) -> Result<(), LayerMisfit> {
        let mut seen = HashSet::new();
        let twice = self.layers.iter().find(|layer| !seen.insert(&layer.name));
        let Some(layer) = twice else {
            return Ok(());
        };
        let mut listed = self.list.layers.iter();
        let settings = listed.find(|settings| settings.name == layer.name);
        let message = format!(
            "a layer that the list makes is called '{}' as well: choose another name",
            layer.name
        );
        Err(misfit(
            settings.unwrap_or(&self.list.layers[0]),
            "name",
            message,
        ))
    }
}

fn misfit(settings: &LayerSettings, key: &'static str, message: String) -> LayerMisfit {
    LayerMisfit {
        item: settings.item,
        key,
        message,
    }
}

fn describe_map(map: LayerMap, classes: usize) -> (LinearOp, usize) {
    match map {
        LayerMap::Conv {
            channels,
            kernel,
            stride,
            padding,
        } => {
            let [kernel, stride, padding] = [kernel, stride, padding].map(|n| n as usize);
            let map = LinearOp::Conv {
                kernel,
                stride,
                padding,
            };
            (map, channels as usize)
        }
        LayerMap::Linear { width } => (LinearOp::Linear, width as usize),
        LayerMap::Classes => (LinearOp::Linear, classes),
    }
}

fn width_key(settings: &LayerSettings) -> &'static str {
    match settings.map {
        LayerMap::Conv { .. } => "conv",
        _ => "linear",
    }
}

fn pool_of(pool: LayerPool) -> Pool {
    match pool {
        LayerPool::Max2 => Pool::Max2,
        LayerPool::Average2 => Pool::Average2,
        LayerPool::Global => Pool::Average,
    }
}

fn check_pool(listed: ListedPool, input: ActivationShape) -> Result<(), LayerMisfit> {
    if listed.pool == LayerPool::Global || input.height.min(input.width) >= 2 {
        return Ok(());
    }
    let message = format!(
        "a pool of 2×2 pixels needs as many, and reads {}: remove it, or fewer strides and pools before it",
        describe_shape(input)
    );
    Err(LayerMisfit {
        item: listed.item,
        key: "pool",
        message,
    })
}

fn check_groups(settings: &LayerSettings, output: ActivationShape) -> Result<(), LayerMisfit> {
    match settings.norm {
        Norm::Group { groups } if !output.channels.is_multiple_of(groups as usize) => {
            let message = format!(
                "the {} channels of {} cannot be cut into {groups} equal groups; choose a divisor of it",
                output.channels, settings.name
            );
            Err(misfit(settings, "groups", message))
        }
        _ => Ok(()),
    }
}

/// The 1×1 convolution with the smallest stride that makes an image of the target's shape.
fn find_shortcut_map(from: ActivationShape, target: ActivationShape) -> Option<LinearOp> {
    let longest = from.height.max(from.width);
    let maps = (1..=longest).map(|stride| LinearOp::Conv {
        kernel: 1,
        stride,
        padding: 0,
    });
    // A convolution that skips all pixels but one is no shortcut.
    let is_reduced = from.height * from.width > 1 && target.height * target.width == 1;
    let mut fitting = maps.filter(|map| map_shape(*map, from, target.channels) == target);
    fitting.next().filter(|_| !is_reduced)
}

/// A shape in words, as in `8×8×32`: height, width and channels.
pub(crate) fn describe_shape(shape: ActivationShape) -> String {
    format!("{}×{}×{}", shape.height, shape.width, shape.channels)
}
