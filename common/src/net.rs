//! Geometry of the networks: layers, shapes, parameters and their cost. One definition, executed elsewhere.
//!
//! Activations are channels last, `[batch, height, width, channel]`; so the inputs of a linear layer after a flatten
//! are in the order (height, width, channel).

use crate::config::{ModelConfig, ModelKind, Norm, TrialConfig};

/// A network as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Net {
    /// Shape of an input image.
    pub input: Shape,
    /// Number of classes.
    pub classes: usize,
    /// Layers in the order of computation.
    pub layers: Vec<Layer>,
}

/// Shape of one image's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl Shape {
    /// Numbers per image.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One affine map with what follows it. Every network here is a chain of these.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Name of its tensors, such as `conv1`.
    pub name: String,
    /// Shape of its input; a linear layer sees it flattened.
    pub input: Shape,
    /// Shape of its output.
    pub output: Shape,
    /// The map.
    pub map: Map,
    /// Whether a trained bias, starting at 0, is added.
    pub bias: bool,
    /// The norm after the map.
    pub norm: Option<NormSpec>,
    /// Whether a ReLU comes last.
    pub relu: bool,
    /// Whether the weight is trained.
    pub trained: bool,
}

/// A linear map over an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Map {
    /// Square convolution with zero padding.
    Conv {
        /// Side of the kernel.
        kernel: usize,
        /// Step of the kernel.
        stride: usize,
        /// Zeros added on each side.
        padding: usize,
    },
    /// Full matrix.
    Linear,
}

/// A norm over a layer's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// ε under the root.
    pub eps: f64,
    /// Whether there is a trained scale and shift.
    pub affine: bool,
}

/// What a parameter tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The weight of a map, `[kernel, kernel, in, out]` or `[in, out]`.
    Weight,
    /// The bias of a map, `[out]`.
    Bias,
    /// The scale of a norm, `[channels]`.
    NormScale,
    /// The shift of a norm, `[channels]`.
    NormShift,
}

/// A parameter tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// `conv1.weight`
    pub name: String,
    /// Which layer it belongs to.
    pub layer: usize,
    /// What it is for.
    pub role: Role,
    /// Numbers in it.
    pub len: usize,
    /// Inputs that one output sums over.
    pub fan_in: usize,
    /// Outputs that one input feeds.
    pub fan_out: usize,
    /// Whether it is trained.
    pub trained: bool,
    /// Whether a norm follows, so that the loss does not depend on its scale.
    pub normed: bool,
}

impl Layer {
    /// Rows of the weight: inputs that one output sums over.
    pub fn fan_in(&self) -> usize {
        match self.map {
            Map::Conv { kernel, .. } => kernel * kernel * self.input.channels,
            Map::Linear => self.input.len(),
        }
    }

    /// Multiply-accumulates per image in the forward pass.
    pub fn macs(&self) -> u64 {
        (self.fan_in() * self.output.len()) as u64
    }

    fn params(&self, layer: usize) -> Vec<Param> {
        let outputs = self.output.channels;
        let fan_in = self.fan_in();
        let fan_out = match self.map {
            Map::Conv { kernel, .. } => kernel * kernel * outputs,
            Map::Linear => outputs,
        };
        let affine = self.norm.is_some_and(|n| n.affine);
        let param = |role, name: &str, len, trained, normed| Param {
            name: format!("{}.{name}", self.name),
            layer,
            role,
            len,
            fan_in,
            fan_out,
            trained,
            normed,
        };
        let mut params = vec![param(Role::Weight, "weight", fan_in * outputs, self.trained, self.norm.is_some())];
        if self.bias {
            params.push(param(Role::Bias, "bias", outputs, self.trained, false));
        }
        if affine {
            params.push(param(Role::NormScale, "norm.scale", outputs, true, false));
            params.push(param(Role::NormShift, "norm.shift", outputs, true, false));
        }
        params
    }
}

impl Net {
    /// The network of a trial; `None` for the empty model.
    pub fn of(config: &TrialConfig) -> Option<Self> {
        let (height, width, channels) = config.data.dataset.shape();
        let input = Shape { height: height as usize, width: width as usize, channels: channels as usize };
        let classes = config.data.dataset.classes() as usize;
        let mut chain = Chain { model: &config.model, at: input, layers: Vec::new() };
        match &config.model.kind {
            ModelKind::Mlp { hidden } => {
                for (i, width) in hidden.iter().enumerate() {
                    chain.hidden(format!("fc{}", i + 1), *width as usize, Map::Linear);
                }
            }
            ModelKind::Cnn4 { width } => {
                let w = *width as usize;
                for (i, (channels, stride)) in [(w, 1), (2 * w, 2), (4 * w, 2), (4 * w, 2)].into_iter().enumerate() {
                    let map = Map::Conv { kernel: 3, stride, padding: 1 };
                    chain.hidden(format!("conv{}", i + 1), channels, map);
                }
            }
            ModelKind::Empty => return None,
        }
        chain.head(classes);
        Some(Self { input, classes, layers: chain.layers })
    }

    /// Parameter tensors in the order of their definition.
    pub fn params(&self) -> Vec<Param> {
        self.layers.iter().enumerate().flat_map(|(at, layer)| layer.params(at)).collect()
    }

    /// Numbers in all parameters, and in the trained ones.
    pub fn sizes(&self) -> (u64, u64) {
        let params = self.params();
        let sum = |trained: bool| params.iter().filter(|p| p.trained || !trained).map(|p| p.len as u64).sum();
        (sum(false), sum(true))
    }

    /// Floating-point operations of one training step per image: forward, weight and input gradients, the latter not
    /// for the first layer. A multiply-accumulate counts as two.
    pub fn train_flops(&self) -> u64 {
        let layers = self.layers.iter().enumerate();
        layers.map(|(at, l)| 2 * l.macs() * if at == 0 { 2 } else { 3 }).sum()
    }

    /// Floating-point operations of evaluating one image.
    pub fn test_flops(&self) -> u64 {
        self.layers.iter().map(|l| 2 * l.macs()).sum()
    }

    /// Bytes a trial needs beside the dataset: parameters with gradient and momentum, and a batch's activations with
    /// their gradients.
    pub fn train_bytes(&self, batch: u64) -> u64 {
        let activations: usize = self.layers.iter().map(|l| 2 * l.output.len()).sum();
        4 * (3 * self.sizes().0 + batch * (activations + self.input.len()) as u64)
    }
}

/// A chain under construction.
struct Chain<'a> {
    model: &'a ModelConfig,
    at: Shape,
    layers: Vec<Layer>,
}

impl Chain<'_> {
    /// Map – norm – ReLU.
    fn hidden(&mut self, name: String, channels: usize, map: Map) {
        let norm =
            (self.model.norm != Norm::None).then_some(NormSpec { eps: self.model.norm_eps, affine: self.model.affine });
        let bias = norm.is_none();
        self.push(Layer { name, norm, bias, relu: true, trained: true, ..self.blank(channels, map) });
    }

    /// The last linear layer: without bias after norms.
    fn head(&mut self, classes: usize) {
        let bias = self.model.norm == Norm::None;
        let trained = !self.model.fixed_head;
        self.push(Layer { name: "head".into(), bias, trained, ..self.blank(classes, Map::Linear) });
    }

    fn blank(&self, channels: usize, map: Map) -> Layer {
        let output = match map {
            Map::Linear => Shape { height: 1, width: 1, channels },
            Map::Conv { kernel, stride, padding } => {
                let side = |n: usize| (n + 2 * padding - kernel) / stride + 1;
                Shape { height: side(self.at.height), width: side(self.at.width), channels }
            }
        };
        Layer { name: String::new(), input: self.at, output, map, bias: false, norm: None, relu: false, trained: true }
    }

    fn push(&mut self, layer: Layer) {
        self.at = layer.output;
        self.layers.push(layer);
    }
}
