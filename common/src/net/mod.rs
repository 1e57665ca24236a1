//! The networks as data: layers, shapes, parameters and costs. The trainer executes them.
//!
//! Activations are channels last, `[batch, height, width, channel]`; so the inputs of a linear layer after a flatten
//! are in the order (height, width, channel).

use crate::config::{Activation, LrFactors, ModelConfig, ModelKind, TrialConfig};
use crate::net::builder::NetBuilder;
use crate::net::listed_layers::build_layers;
use crate::net::scale_invariance::find_normed_layers;

mod builder;
mod listed_layers;
mod memory;
mod scale_invariance;

pub(crate) use listed_layers::{LayerMisfit, find_layer_misfit};

/// A network as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Net {
    /// Shape of an input image.
    pub input: ActivationShape,
    /// Number of outputs: one for each class, or for each target of a regression.
    pub classes: usize,
    /// Layers in the order of computation.
    pub layers: Vec<Layer>,
}

/// Shape of one image's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationShape {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// Number of channels.
    pub channels: usize,
}

impl ActivationShape {
    /// Number of values per image.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An affine map with what follows it: z = map(input) + the added activation, then norm, activation and pool before the
/// next layer.
///
/// A residual block is two of these: the second adds the stream to its output, and the norm and activation at the head of
/// the next block stand here after the sum.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Name of its tensors, such as `conv1`.
    pub name: String,
    /// The earlier layer whose activation this one reads; `None` for the image.
    pub source: Option<usize>,
    /// The earlier layer whose sum z, before norm and activation, this one adds to its own. At most one layer adds
    /// another's.
    pub add: Option<usize>,
    /// Shape of the layer's input; a linear layer flattens it.
    pub input: ActivationShape,
    /// Shape of the layer's output.
    pub output: ActivationShape,
    /// The linear map.
    pub linear_op: LinearOp,
    /// Whether a trained bias, starting at 0, is added.
    pub bias: bool,
    /// The norm after the map.
    pub norm: Option<NormSpec>,
    /// The function that follows the norm.
    pub activation: Activation,
    /// The pooling, which comes last.
    pub pool: Pool,
    /// Whether the weight is trained.
    pub trained: bool,
}

/// A linear map over an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearOp {
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
    /// No map and no weight: the output is the input.
    Identity,
}

/// How an activation is pooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// No pooling.
    None,
    /// The largest of 2×2 pixels, stride 2; of equal ones the first takes the gradient.
    Max2,
    /// The mean of 2×2 pixels, stride 2.
    Average2,
    /// The mean over all pixels.
    Average,
}

/// The values over which a norm takes mean and variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormScope {
    /// The whole batch, channel by channel, with running statistics for evaluation.
    Batch,
    /// Each ghost batch of so many consecutive images of the batch, channel by channel, with running statistics for evaluation.
    GhostBatch(usize),
    /// Each image and group of consecutive channels, all pixels; one group is layer norm.
    Groups(usize),
}

/// A norm over a layer's output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// The values that the norm runs over.
    pub scope: NormScope,
    /// The constant ε under the root.
    pub eps: f64,
    /// Whether there is a trained scale and shift.
    pub affine: bool,
}

/// The role of a parameter tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamRole {
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
    /// Name such as `conv1.weight`.
    pub name: String,
    /// Index of the layer.
    pub layer: usize,
    /// The role of the tensor.
    pub role: ParamRole,
    /// Number of values in the tensor.
    pub len: usize,
    /// Number of inputs that one output sums over.
    pub fan_in: usize,
    /// Number of outputs that one input feeds.
    pub fan_out: usize,
    /// Whether the parameter is trained.
    pub trained: bool,
    /// Whether a norm follows, so that the loss does not depend on the common scale of all such weights.
    pub normed: bool,
}

impl Param {
    /// The name of the parameter's layer.
    pub fn layer_name(&self) -> &str {
        let suffix = match self.role {
            ParamRole::Weight => ".weight",
            ParamRole::Bias => ".bias",
            ParamRole::NormScale => ".norm.scale",
            ParamRole::NormShift => ".norm.shift",
        };
        self.name.strip_suffix(suffix).unwrap_or(&self.name)
    }

    /// The product of the factors on the parameter's learning rate. The head is the layer with the index `head`, the last one.
    pub fn lr_factor(&self, factors: &LrFactors, head: usize) -> f64 {
        let applying = factors
            .iter()
            .filter(|(name, _)| self.is_meant_by(name, head));
        applying.map(|(_, factor)| factor).product()
    }

    /// Whether a factor with this name is one of the parameter: the name of its role or layer.
    pub(crate) fn is_meant_by(&self, name: &str, head: usize) -> bool {
        match name {
            "weights" => self.role == ParamRole::Weight,
            "biases" => self.role == ParamRole::Bias,
            "norms" => matches!(self.role, ParamRole::NormScale | ParamRole::NormShift),
            "head" => self.layer == head,
            layer => self.layer_name() == layer,
        }
    }
}

impl NormSpec {
    /// Whether the norm keeps running statistics.
    pub fn has_running_statistics(&self) -> bool {
        !matches!(self.scope, NormScope::Groups(_))
    }

    /// Number of images of a batch of `batch` that share mean and variance; `None` for a norm over single images.
    pub fn images_per_set(&self, batch: usize) -> Option<usize> {
        match self.scope {
            NormScope::Batch => Some(batch),
            NormScope::GhostBatch(size) => Some(size.min(batch)),
            NormScope::Groups(_) => None,
        }
    }
}

impl Layer {
    /// Shape of the activation, after pooling.
    pub fn activation_shape(&self) -> ActivationShape {
        let ActivationShape {
            height,
            width,
            channels,
        } = self.output;

        match self.pool {
            Pool::None => self.output,
            Pool::Max2 | Pool::Average2 => ActivationShape {
                height: height / 2,
                width: width / 2,
                channels,
            },
            Pool::Average => ActivationShape {
                height: 1,
                width: 1,
                channels,
            },
        }
    }

    /// Number of inputs that one output sums over, which is the number of rows of the weight.
    pub fn fan_in(&self) -> usize {
        match self.linear_op {
            LinearOp::Conv { kernel, .. } => kernel * kernel * self.input.channels,
            LinearOp::Linear => self.input.len(),
            LinearOp::Identity => 0,
        }
    }

    /// Whether the layer has a map, and so a weight.
    pub fn has_weight(&self) -> bool {
        self.linear_op != LinearOp::Identity
    }

    /// Multiply-accumulates per image in the forward pass.
    pub fn multiply_accumulates(&self) -> u64 {
        (self.fan_in() * self.output.len()) as u64
    }

    /// Describes the parameters of the layer. `normed` is whether a norm follows its sum.
    fn build_params(&self, layer: usize, normed: bool) -> Vec<Param> {
        let outputs = self.output.channels;
        let fan_in = self.fan_in();
        let fan_out = match self.linear_op {
            LinearOp::Conv { kernel, .. } => kernel * kernel * outputs,
            LinearOp::Linear => outputs,
            LinearOp::Identity => 0,
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
        let mut params = Vec::new();
        if self.has_weight() {
            params.push(param(
                ParamRole::Weight,
                "weight",
                fan_in * outputs,
                self.trained,
                normed,
            ));
        }

        if self.bias {
            params.push(param(ParamRole::Bias, "bias", outputs, self.trained, false));
        }

        if affine {
            params.push(param(
                ParamRole::NormScale,
                "norm.scale",
                outputs,
                true,
                false,
            ));

            params.push(param(
                ParamRole::NormShift,
                "norm.shift",
                outputs,
                true,
                false,
            ));
        }

        params
    }
}

impl Net {
    /// The network of a trial; `None` for a model that is no network.
    pub fn from_config(config: &TrialConfig) -> Option<Self> {
        let (input, classes) = shape_of_images(config);
        Self::from_model(&config.model, input, classes)
    }

    /// The network of a model for images of this shape; `None` for a model that is no network.
    pub fn from_model(model: &ModelConfig, input: ActivationShape, classes: usize) -> Option<Self> {
        let mut chain = NetBuilder {
            model,
            input,
            layers: Vec::new(),
        };

        match &model.kind {
            ModelKind::Layers(list) => {
                let layers = build_layers(model, list, input, classes).ok()?;
                return Some(Self {
                    input,
                    classes,
                    layers,
                });
            }
            ModelKind::Mlp { hidden } => {
                for (i, width) in hidden.iter().enumerate() {
                    chain.add_hidden_layer(
                        format!("fc{}", i + 1),
                        *width as usize,
                        LinearOp::Linear,
                    );
                }
            }
            ModelKind::Cnn4 { width } => {
                let w = *width as usize;
                for (i, (channels, stride)) in [(w, 1), (2 * w, 2), (4 * w, 2), (4 * w, 2)]
                    .into_iter()
                    .enumerate()
                {
                    let map = LinearOp::Conv {
                        kernel: 3,
                        stride,
                        padding: 1,
                    };
                    chain.add_hidden_layer(format!("conv{}", i + 1), channels, map);
                }
            }
            ModelKind::Preresnet { depth, widen } => {
                chain.add_preresnet(*depth as usize, 16 * *widen as usize)
            }
            ModelKind::Vgg { depth, width } => chain.add_vgg(*depth, *width as usize),
            ModelKind::Toy(_) | ModelKind::Empty | ModelKind::Program(_) => return None,
        }

        chain.add_head(classes);
        Some(Self {
            input,
            classes,
            layers: chain.layers,
        })
    }

    /// Parameter tensors in the order of their definition.
    pub fn params(&self) -> Vec<Param> {
        let normed = find_normed_layers(self);
        let layers = self.layers.iter().zip(normed).enumerate();
        layers
            .flat_map(|(at, (layer, normed))| layer.build_params(at, normed))
            .collect()
    }

    /// The layer that adds this one's sum to its own.
    pub fn adding_layer(&self, layer: usize) -> Option<usize> {
        self.layers.iter().position(|l| l.add == Some(layer))
    }

    /// Number of all parameters, and of trained ones.
    pub fn param_counts(&self) -> (u64, u64) {
        let params = self.params();
        let sum = |trained: bool| {
            params
                .iter()
                .filter(|p| p.trained || !trained)
                .map(|p| p.len as u64)
                .sum()
        };

        (sum(false), sum(true))
    }

    /// Floating-point operations of one training step per image: forward pass, weight gradients and input gradients,
    /// which the first layer does not need. A multiply-accumulate counts as two operations, and convolutions count by
    /// their definition.
    pub fn train_flops(&self) -> u64 {
        self.layers
            .iter()
            .map(|l| 2 * l.multiply_accumulates() * if l.source.is_none() { 2 } else { 3 })
            .sum()
    }

    /// Floating-point operations of evaluating one image.
    pub fn test_flops(&self) -> u64 {
        self.layers
            .iter()
            .map(|l| 2 * l.multiply_accumulates())
            .sum()
    }

    /// Whether a norm keeps running statistics.
    pub fn has_running_statistics(&self) -> bool {
        let mut norms = self.layers.iter().filter_map(|l| l.norm);
        norms.any(|norm| norm.has_running_statistics())
    }

    /// Number of images of a batch that are processed at a time. With batch norm that is the whole batch, or a ghost
    /// batch, whose statistics it needs; otherwise a fixed size, which changes no sum.
    pub fn micro_batch_size(&self, batch: u64) -> u64 {
        let norms = self.layers.iter().filter_map(|l| l.norm);
        let sets = norms.filter_map(|norm| norm.images_per_set(batch as usize));
        sets.max()
            .map_or(batch.min(MICRO_BATCH), |images| images as u64)
    }
}

/// Shape of an image of a trial's dataset, and the number of outputs.
pub(crate) fn shape_of_images(config: &TrialConfig) -> (ActivationShape, usize) {
    let (height, width, channels) = config.data.dataset.image_shape();
    let input = ActivationShape {
        height: height as usize,
        width: width as usize,
        channels: channels as usize,
    };
    (input, config.data.dataset.output_count() as usize)
}

/// Number of images processed at a time without batch norm. It is a multiple of every number of images that the
/// trainer's sums run over, so that the order of summation does not depend on how a batch is cut.
pub const MICRO_BATCH: u64 = 128;

/// Number of test images evaluated at a time.
pub const TEST_BATCH: u64 = 100;

/// Number of batches whose gradients are compared, in pairs, to measure gradient noise.
pub const NOISE_BATCHES: u64 = 64;
