//! Networks as lists of layers: the known kinds, and the shapes that follow.

use super::activations::PlainActivation;

/// What is computed with the input of a layer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainMap {
    Copy,
    Linear {
        outputs: usize,
    },
    Conv {
        outputs: usize,
        kernel: usize,
        stride: usize,
    },
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainNorm {
    None,
    Batch,
    GhostBatch { size: usize },
    Group { groups: usize },
    Layer,
}

impl PlainNorm {
    /// Whether statistics are over several images.
    pub(super) fn is_over_images(self) -> bool {
        matches!(self, Self::Batch | Self::GhostBatch { .. })
    }

    /// Whether statistics are over each image.
    pub(super) fn is_over_groups(self) -> bool {
        matches!(self, Self::Group { .. } | Self::Layer)
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainPool {
    None,
    Max2,
    Mean2,
    Global,
}

/// Pixels and channels; `stored` are the channels with those that pad a block.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct PlainShape {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) stored: usize,
}

impl PlainShape {
    pub(super) fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Numbers of one image in memory.
    pub(super) fn numbers(self) -> usize {
        self.pixels() * self.stored
    }
}

pub(super) fn pad_channels(channels: usize) -> usize {
    channels.div_ceil(16) * 16
}

/// A layer as a network lists it.
#[derive(Clone)]
pub(super) struct PlainLayer {
    pub(super) name: String,
    /// The layer whose activation is read, or the image.
    pub(super) reads: Option<usize>,
    /// The layer whose z is added.
    pub(super) adds: Option<usize>,
    pub(super) map: PlainMap,
    pub(super) bias: bool,
    pub(super) norm: PlainNorm,
    pub(super) activation: PlainActivation,
    pub(super) pool: PlainPool,
}

/// What all layers of a model have in common.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct PlainStyle {
    pub(super) norm: PlainNorm,
    pub(super) activation: PlainActivation,
    pub(super) affine: bool,
    pub(super) eps: f64,
    pub(super) fixed_head: bool,
    /// Classes, or targets of an image.
    pub(super) outputs: usize,
}

pub(super) struct PlainNet {
    pub(super) style: PlainStyle,
    pub(super) image: PlainShape,
    pub(super) layers: Vec<PlainLayer>,
}

/// Adds layers one after the other, each of which reads the one before unless it is changed.
pub(super) struct NetWriter {
    net: PlainNet,
}

impl NetWriter {
    pub(super) fn new(style: PlainStyle, image: PlainShape) -> Self {
        let layers = Vec::new();
        Self {
            net: PlainNet {
                style,
                image,
                layers,
            },
        }
    }

    /// Adds a layer with the model's norm and activation function, and a bias where there is no norm.
    pub(super) fn add_hidden(&mut self, name: &str, map: PlainMap) -> &mut PlainLayer {
        let style = self.net.style;
        let bias = style.norm == PlainNorm::None && map != PlainMap::Copy;
        self.add_layer(name, map, bias, style.norm, style.activation)
    }

    /// Adds a layer with neither norm nor activation function.
    pub(super) fn add_bare(&mut self, name: &str, map: PlainMap, bias: bool) -> &mut PlainLayer {
        self.add_layer(name, map, bias, PlainNorm::None, PlainActivation::Identity)
    }

    fn add_layer(
        &mut self,
        name: &str,
        map: PlainMap,
        bias: bool,
        norm: PlainNorm,
        activation: PlainActivation,
    ) -> &mut PlainLayer {
        let at = self.net.layers.len();
        self.net.layers.push(PlainLayer {
            name: name.to_owned(),
            reads: at.checked_sub(1),
            adds: None,
            map,
            bias,
            norm,
            activation,
            pool: PlainPool::None,
        });
        &mut self.net.layers[at]
    }

    /// The index of the layer that was added last.
    pub(super) fn last(&self) -> usize {
        self.net.layers.len() - 1
    }

    pub(super) fn finish(mut self, bias: bool) -> PlainNet {
        let outputs = self.net.style.outputs;
        self.add_bare("head", PlainMap::Linear { outputs }, bias);
        self.net
    }
}

pub(super) fn conv(outputs: usize, kernel: usize, stride: usize) -> PlainMap {
    PlainMap::Conv {
        outputs,
        kernel,
        stride,
    }
}

/// Linear layers of these widths.
pub(super) fn build_mlp(style: PlainStyle, image: PlainShape, hidden: &[usize]) -> PlainNet {
    let mut net = NetWriter::new(style, image);
    for (i, width) in hidden.iter().enumerate() {
        let map = PlainMap::Linear { outputs: *width };
        net.add_hidden(&format!("fc{}", i + 1), map);
    }
    net.finish(style.norm == PlainNorm::None)
}

pub(super) fn build_cnn4(style: PlainStyle, image: PlainShape, width: usize) -> PlainNet {
    let mut net = NetWriter::new(style, image);
    for (i, (times, stride)) in [(1, 1), (2, 2), (4, 2), (4, 2)].into_iter().enumerate() {
        net.add_hidden(&format!("conv{}", i + 1), conv(times * width, 3, stride));
    }
    net.finish(style.norm == PlainNorm::None)
}

/// `per_stage` are the convolutions of each of five stages.
pub(super) fn build_vgg(
    style: PlainStyle,
    image: PlainShape,
    width: usize,
    per_stage: [usize; 5],
) -> PlainNet {
    let mut net = NetWriter::new(style, image);
    let mut number = 0;
    for (times, count) in [1, 2, 4, 8, 8].into_iter().zip(per_stage) {
        for at in 1..=count {
            number += 1;
            let layer = net.add_hidden(&format!("conv{number}"), conv(times * width, 3, 1));
            if at == count {
                layer.pool = PlainPool::Max2;
            }
        }
    }
    net.finish(style.norm == PlainNorm::None)
}

pub(super) fn build_preresnet(
    style: PlainStyle,
    image: PlainShape,
    depth: usize,
    widen: usize,
) -> PlainNet {
    let bias = style.norm == PlainNorm::None;
    let mut net = NetWriter::new(style, image);
    net.add_hidden("stem", conv(16 * widen, 3, 1));
    let mut block = 0;
    for stage in 0..3 {
        for at in 0..(depth - 2) / 6 {
            block += 1;
            let width = (16 << stage) * widen;
            let stride = if stage > 0 && at == 0 { 2 } else { 1 };

            // What the block reads, and the z of the stream, are of the same layer.
            let before = net.last();
            let mut stream = before;
            net.add_hidden(&format!("block{block}.conv1"), conv(width, 3, stride));
            let first = net.last();
            if stride == 2 {
                let name = format!("block{block}.shortcut");
                net.add_bare(&name, conv(width, 1, 2), bias).reads = Some(before);
                stream = net.last();
            }
            let second = net.add_hidden(&format!("block{block}.conv2"), conv(width, 3, 1));
            (second.reads, second.adds) = (Some(first), Some(stream));
        }
    }

    let last = net.last();
    net.net.layers[last].pool = PlainPool::Global;
    net.finish(bias)
}

/// The sizes by which a map is computed; a linear layer is a convolution of one pixel.
#[derive(Clone, Copy)]
pub(super) struct PlainGeometry {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) input: PlainShape,
    pub(super) output: PlainShape,
    /// Whether the map is computed in tiles of 2×2 outputs.
    pub(super) tiled: bool,
    /// Whether products with zeros around the image are part of the sums.
    pub(super) halo: bool,
    /// Images in a chunk, and in a part.
    pub(super) chunk: usize,
    pub(super) part: usize,
}

impl PlainNet {
    /// The shape of what a layer reads.
    pub(super) fn input_shape(&self, at: usize) -> PlainShape {
        self.layers[at]
            .reads
            .map_or(self.image, |source| self.pooled_shape(source))
    }

    /// The shape of a layer's z.
    pub(super) fn output_shape(&self, at: usize) -> PlainShape {
        let input = self.input_shape(at);
        let (height, width, channels) = match self.layers[at].map {
            PlainMap::Copy => (input.height, input.width, input.channels),
            PlainMap::Linear { outputs } => (1, 1, outputs),
            PlainMap::Conv {
                outputs,
                kernel,
                stride,
            } => {
                let [height, width] = [input.height, input.width]
                    .map(|side| (side + 2 * ((kernel - 1) / 2) - kernel) / stride + 1);
                (height, width, outputs)
            }
        };
        PlainShape {
            height,
            width,
            channels,
            stored: pad_channels(channels),
        }
    }

    /// The shape of a layer's activation behind its pool.
    pub(super) fn pooled_shape(&self, at: usize) -> PlainShape {
        let z = self.output_shape(at);
        let (height, width) = match self.layers[at].pool {
            PlainPool::None => (z.height, z.width),
            PlainPool::Max2 | PlainPool::Mean2 => (z.height / 2, z.width / 2),
            PlainPool::Global => (1, 1),
        };
        PlainShape { height, width, ..z }
    }

    pub(super) fn geometry(&self, at: usize) -> PlainGeometry {
        let layer = &self.layers[at];
        let (mut input, output) = (self.input_shape(at), self.output_shape(at));
        let (kernel, stride, padding) = match layer.map {
            PlainMap::Conv { kernel, stride, .. } => (kernel, stride, (kernel - 1) / 2),
            _ => (1, 1, 0),
        };
        if matches!(layer.map, PlainMap::Linear { .. }) {
            let numbers = input.numbers();
            (input.height, input.width) = (1, 1);
            (input.channels, input.stored) = (numbers, numbers);
        }

        let pixels = output.pixels();
        let even = output.height.is_multiple_of(2) && output.width.is_multiple_of(2);
        let tiled = layer.reads.is_some() && kernel == 3 && stride == 1 && even && pixels > 4;
        let chunk = 96_usize.div_ceil(pixels).next_power_of_two();
        let part = 1024_usize.div_ceil(pixels).next_power_of_two();
        PlainGeometry {
            kernel,
            stride,
            padding,
            input,
            output,
            tiled,
            halo: layer.reads.is_none() || tiled || pixels > 1024,
            chunk,
            part: part.max(chunk).clamp(4, 128),
        }
    }

    /// The first layer that reads the activation of this one.
    pub(super) fn first_reader(&self, at: usize) -> Option<usize> {
        self.layers.iter().position(|layer| layer.reads == Some(at))
    }

    /// The layer that adds z of this one.
    pub(super) fn adder(&self, at: usize) -> Option<usize> {
        self.layers.iter().position(|layer| layer.adds == Some(at))
    }

    /// Images that go through the network at once in training.
    pub(super) fn micro_batch(&self, batch: usize) -> usize {
        let mut size = batch.min(128);
        for layer in &self.layers {
            match layer.norm {
                PlainNorm::Batch => size = batch,
                PlainNorm::GhostBatch { size: ghost } => size = ghost.min(batch),
                _ => {}
            }
        }
        size
    }

    /// Whether a layer or the layers whose z it adds have a bias that z lacks.
    fn has_pending_bias(&self, at: usize) -> bool {
        let layer = &self.layers[at];
        let handed_on = layer.adds.is_some_and(|added| self.has_pending_bias(added));
        layer.bias || (handed_on && !self.biases_enter(at))
    }

    /// Whether the biases of the added z are added to z before its statistics are taken.
    pub(super) fn biases_enter(&self, at: usize) -> bool {
        let layer = &self.layers[at];
        let pending = layer.adds.is_some_and(|added| self.has_pending_bias(added));
        pending && layer.norm.is_over_groups()
    }
}
