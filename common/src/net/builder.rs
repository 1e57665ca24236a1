//! Builds the layers of a network from the settings of a model.

use crate::config::{Activation, ModelConfig, Norm, VggDepth};
use crate::net::{ActivationShape, Layer, LinearOp, NormScope, NormSpec, Pool};

/// A network under construction.
pub(super) struct NetBuilder<'a> {
    pub(super) model: &'a ModelConfig,
    pub(super) input: ActivationShape,
    pub(super) layers: Vec<Layer>,
}

impl NetBuilder<'_> {
    /// Adds a linear map, followed by norm and activation.
    pub(super) fn add_hidden_layer(&mut self, name: String, channels: usize, map: LinearOp) {
        let layer = self.plain_layer(name, self.last_layer(), channels, map);
        self.layers.push(Layer {
            norm: self.norm_spec(),
            activation: self.model.activation,
            ..layer
        });
    }

    /// Adds a residual network (He et al. 2016, v2): a 3×3 stem, then three stages of `(depth −
    /// 2)/6` blocks at w, 2w, 4w channels.
    pub(super) fn add_preresnet(&mut self, depth: usize, w: usize) {
        self.add_hidden_layer("stem".into(), w, CONV_3X3);
        let mut block = 0;

        for (stage, channels) in [w, 2 * w, 4 * w].into_iter().enumerate() {
            for at in 0..(depth - 2) / 6 {
                block += 1;
                self.add_residual_block(
                    &format!("block{block}"),
                    channels,
                    if stage > 0 && at == 0 { 2 } else { 1 },
                );
            }
        }

        self.pool_last_layer(Pool::Average);
    }

    /// Adds two 3×3 convolutions, whose output is added to the stream. A shortcut that changes the
    /// shape reads what the first convolution reads; an identity takes the stream itself.
    pub(super) fn add_residual_block(&mut self, name: &str, channels: usize, stride: usize) {
        let stream = self.last_layer();
        let mut add = stream;
        self.add_hidden_layer(
            format!("{name}.conv1"),
            channels,
            LinearOp::Conv {
                kernel: 3,
                stride,
                padding: 1,
            },
        );

        let first = self.last_layer();
        if stride != 1 {
            let map = LinearOp::Conv {
                kernel: 1,
                stride,
                padding: 0,
            };
            let shortcut = self.plain_layer(format!("{name}.shortcut"), stream, channels, map);
            self.layers.push(shortcut);

            add = self.last_layer();
        }

        let second = self.plain_layer(format!("{name}.conv2"), first, channels, CONV_3X3);
        self.layers.push(Layer {
            add,
            norm: self.norm_spec(),
            activation: self.model.activation,
            ..second
        });
    }

    /// Adds the convolutions of Simonyan and Zisserman (2015), configurations A, B, D and E, for
    /// 32×32: a max-pool after each of five stages.
    pub(super) fn add_vgg(&mut self, depth: VggDepth, w: usize) {
        let mut conv = 0;
        for (channels, convs) in [w, 2 * w, 4 * w, 8 * w, 8 * w]
            .into_iter()
            .zip(depth.convolutions_per_stage())
        {
            for _ in 0..convs {
                conv += 1;
                self.add_hidden_layer(format!("conv{conv}"), channels, CONV_3X3);
            }
            self.pool_last_layer(Pool::Max2);
        }
    }

    /// Adds the last linear layer, which has no bias if the model has norms, unless the file says so.
    pub(super) fn add_head(&mut self, classes: usize) {
        let trained = !self.model.fixed_head;
        let head = self.plain_layer("head".into(), self.last_layer(), classes, LinearOp::Linear);
        let bias = self.model.bias.unwrap_or(head.bias);
        self.layers.push(Layer {
            trained,
            bias,
            ..head
        });
    }

    pub(super) fn last_layer(&self) -> Option<usize> {
        self.layers.len().checked_sub(1)
    }

    pub(super) fn pool_last_layer(&mut self, pool: Pool) {
        if let Some(layer) = self.layers.last_mut() {
            layer.pool = pool;
        }
    }

    fn norm_spec(&self) -> Option<NormSpec> {
        norm_spec(self.model, self.model.norm)
    }

    /// A trained map without norm and activation. It has a bias where the model has no norms, unless the file says otherwise.
    pub(super) fn plain_layer(
        &self,
        name: String,
        source: Option<usize>,
        channels: usize,
        map: LinearOp,
    ) -> Layer {
        let input = source.map_or(self.input, |at| self.layers[at].activation_shape());
        let output = map_shape(map, input, channels);

        let bias = self.model.norm == Norm::None && self.model.bias.unwrap_or(true);
        let add = None;
        let norm = None;
        let activation = Activation::Identity;
        let pool = Pool::None;
        let trained = true;
        Layer {
            name,
            source,
            add,
            input,
            output,
            linear_op: map,
            bias,
            norm,
            activation,
            pool,
            trained,
        }
    }
}

/// What a norm of a layer computes; `None` for no norm.
pub(super) fn norm_spec(model: &ModelConfig, norm: Norm) -> Option<NormSpec> {
    let scope = match norm {
        Norm::Batch => NormScope::Batch,
        Norm::GhostBatch { size } => NormScope::GhostBatch(size as usize),
        Norm::Group { groups } => NormScope::Groups(groups as usize),
        Norm::Layer => NormScope::Groups(1),
        Norm::None => return None,
    };
    Some(NormSpec {
        scope,
        eps: model.norm_eps,
        affine: model.affine,
    })
}

/// The shape that a map makes of its input. The kernel of a convolution fits into the padded image.
pub(super) fn map_shape(map: LinearOp, input: ActivationShape, channels: usize) -> ActivationShape {
    match map {
        LinearOp::Linear => ActivationShape {
            height: 1,
            width: 1,
            channels,
        },
        LinearOp::Identity => input,
        LinearOp::Conv {
            kernel,
            stride,
            padding,
        } => {
            let side = |n: usize| (n + 2 * padding - kernel) / stride + 1;
            ActivationShape {
                height: side(input.height),
                width: side(input.width),
                channels,
            }
        }
    }
}

pub(super) const CONV_3X3: LinearOp = LinearOp::Conv {
    kernel: 3,
    stride: 1,
    padding: 1,
};
