//! The settings of `[model]`.

use std::fmt;
use std::sync::Arc;

use super::activation::{ACTIVATIONS, Activation};
use super::hidden::read_hidden_widths;
use super::layers::{LayerDefaults, LayerList, read_layers};
use super::norm::{Norm, read_norm};
use super::toy::{Toy, read_toy};
use super::{range_for_key, word_for_value};
use crate::ids::FileHash;
use crate::program::ProgramCell;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::LAYERS_GRAMMAR;
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};

/// `model.kind` with the fields that belong to it.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelKind {
    /// Linear layers of the given hidden widths, then the head.
    Mlp {
        /// Hidden widths, input side first.
        hidden: Vec<u32>,
    },
    /// Four 3×3 convolutions of w, 2w, 4w, 4w channels, then a linear head.
    Cnn4 {
        /// The number w of channels.
        width: u32,
    },
    /// Pre-activation residual network of He et al. 2016.
    Preresnet {
        /// Number of layers, 6n + 2.
        depth: u32,
        /// Factor on the widths 16, 32, 64.
        widen: u32,
    },
    /// The networks of Simonyan and Zisserman 2015 with one linear head, for images of 32×32.
    Vgg {
        /// Number of layers with weights in the original, which has three linear ones.
        depth: VggDepth,
        /// Channels of the first stage.
        width: u32,
    },
    /// A network whose layers the file lists.
    Layers(Arc<LayerList>),
    /// The scale-invariant toy loss w₁²/‖w‖² of the theory: no images, no network.
    Toy(Toy),
    /// A model that trains nothing: a trial ends at once with made-up metrics, to measure the overhead of everything
    /// else.
    Empty,
    /// A program of the user's. The training of such a config is of no meaning, and neither is its data unless the program has some.
    Program(Arc<ProgramCell>),
}

impl ModelKind {
    /// Whether the model is trained on images.
    pub fn needs_images(&self) -> bool {
        !matches!(self, Self::Toy(_) | Self::Empty | Self::Program(_))
    }

    /// Whether `model.activation` decides what layers do. A list of layers says it layer by layer.
    pub(super) fn has_hidden_layers(&self) -> bool {
        match self {
            Self::Mlp { hidden } => !hidden.is_empty(),
            Self::Layers(_) => false,
            _ => true,
        }
    }
}

/// `model.depth` of a VGG network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VggDepth {
    /// Configuration A, 11 layers.
    Eleven,
    /// Configuration B, 13 layers.
    Thirteen,
    /// Configuration D, 16 layers.
    Sixteen,
    /// Configuration E, 19 layers.
    Nineteen,
}

impl VggDepth {
    const ALL: [(u64, Self); 4] = [
        (11, Self::Eleven),
        (13, Self::Thirteen),
        (16, Self::Sixteen),
        (19, Self::Nineteen),
    ];

    /// Number of convolutions in each of the five stages.
    pub fn convolutions_per_stage(self) -> [usize; 5] {
        match self {
            Self::Eleven => [1, 1, 2, 2, 2],
            Self::Thirteen => [2, 2, 2, 2, 2],
            Self::Sixteen => [2, 2, 3, 3, 3],
            Self::Nineteen => [2, 2, 4, 4, 4],
        }
    }

    /// Number of layers: 11, 13, 16 or 19.
    pub fn layer_count(self) -> u64 {
        Self::ALL
            .iter()
            .find(|(_, depth)| *depth == self)
            .map_or(0, |(layers, _)| *layers)
    }
}

/// Distribution of initial weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitScheme {
    /// Normal, variance 2/fan_in.
    KaimingNormal,
    /// Uniform, variance 2/fan_in.
    KaimingUniform,
    /// Normal, variance 2/(fan_in + fan_out).
    XavierNormal,
    /// Uniform, variance 2/(fan_in + fan_out).
    XavierUniform,
    /// √2 times a matrix with orthonormal columns, or rows if these are fewer (Saxe et al. 2014).
    Orthogonal,
}

pub(super) const SCHEMES: [(&str, InitScheme); 5] = [
    ("kaiming-normal", InitScheme::KaimingNormal),
    ("kaiming-uniform", InitScheme::KaimingUniform),
    ("xavier-normal", InitScheme::XavierNormal),
    ("xavier-uniform", InitScheme::XavierUniform),
    ("orthogonal", InitScheme::Orthogonal),
];

/// The settings of `[model]`.
#[derive(Clone, PartialEq)]
pub struct ModelConfig {
    /// Architecture.
    pub kind: ModelKind,
    /// Normalization after every hidden layer.
    pub norm: Norm,
    /// ε under the root of the norms.
    pub norm_eps: f64,
    /// Whether norms have a trained scale and shift.
    pub affine: bool,
    /// The function that hidden layers apply, unless they name another one.
    pub activation: Activation,
    /// Whether layers without a norm have a bias, if the file says so.
    pub bias: Option<bool>,
    /// Whether the last layer stays at its random initialization.
    pub fixed_head: bool,
    /// Distribution of initial weights.
    pub init: InitScheme,
    /// BLAKE3 hash of the file of initial weights, if there is one.
    pub init_file: Option<FileHash>,
    /// Factor on the initial values of trained weights; a fixed head is not scaled.
    pub init_scale: f64,
    /// Further factors on the initial weights of single layers, by layer name.
    pub layer_scales: Vec<(String, f64)>,
    /// Whether the last convolution of every residual block starts at 0.
    pub zero_residual: bool,
}

/// The text is part of the identity of checkpoints: a field of later versions appears only where it is used.
impl fmt::Debug for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ModelConfig");
        text.field("kind", &self.kind)
            .field("norm", &self.norm)
            .field("norm_eps", &self.norm_eps)
            .field("affine", &self.affine)
            .field("fixed_head", &self.fixed_head)
            .field("init", &self.init)
            .field("init_file", &self.init_file)
            .field("init_scale", &self.init_scale)
            .field("layer_scales", &self.layer_scales)
            .field("zero_residual", &self.zero_residual);
        if self.activation != Activation::Relu {
            text.field("activation", &self.activation);
        }
        if let Some(bias) = self.bias {
            text.field("bias", &bias);
        }
        text.finish()
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum ModelKindWord {
    Mlp,
    Cnn4,
    Preresnet,
    Vgg,
    Layers,
    Toy,
    Empty,
}

pub(super) const MODEL_KINDS: [(&str, ModelKindWord); 7] = [
    ("mlp", ModelKindWord::Mlp),
    ("cnn4", ModelKindWord::Cnn4),
    ("preresnet", ModelKindWord::Preresnet),
    ("vgg", ModelKindWord::Vgg),
    ("layers", ModelKindWord::Layers),
    ("toy", ModelKindWord::Toy),
    ("empty", ModelKindWord::Empty),
];

/// Kinds of model that take the fields of networks.
const NETWORK_KINDS: &[ModelKindWord] = &[
    ModelKindWord::Mlp,
    ModelKindWord::Cnn4,
    ModelKindWord::Preresnet,
    ModelKindWord::Vgg,
    ModelKindWord::Layers,
    ModelKindWord::Empty,
];

pub(super) const KIND_FIELDS: [(&str, &[ModelKindWord]); 16] = [
    ("hidden", &[ModelKindWord::Mlp]),
    ("width", &[ModelKindWord::Cnn4, ModelKindWord::Vgg]),
    ("depth", &[ModelKindWord::Preresnet, ModelKindWord::Vgg]),
    ("widen", &[ModelKindWord::Preresnet]),
    ("dim", &[ModelKindWord::Toy]),
    ("noise", &[ModelKindWord::Toy]),
    ("start", &[ModelKindWord::Toy]),
    ("layers", &[ModelKindWord::Layers]),
    ("activation", NETWORK_KINDS),
    ("bias", NETWORK_KINDS),
    ("norm", NETWORK_KINDS),
    ("groups", NETWORK_KINDS),
    ("ghost_size", NETWORK_KINDS),
    ("norm_eps", NETWORK_KINDS),
    ("affine", NETWORK_KINDS),
    ("fixed_head", NETWORK_KINDS),
];

impl ModelConfig {
    pub(crate) fn read_section(root: &TableReader<'_>) -> Result<Self, SpecError> {
        let r = root.section("model")?;
        let word = read_kind_word(&r)?;
        let init = r.section("init")?;
        let norm = match word {
            ModelKindWord::Toy => Norm::None,
            _ => read_norm(&r, Norm::Batch)?,
        };
        let activation = read_activation(&r)?;
        let bias = read_default_bias(&r)?;
        let defaults = LayerDefaults {
            norm,
            activation,
            bias,
        };
        let config = Self {
            kind: Self::read_kind(&r, word, defaults)?,
            norm,
            norm_eps: r
                .read_number("norm_eps", range_for_key(&r, "norm_eps"))?
                .unwrap_or(1e-5),
            affine: r.read_bool("affine")?.unwrap_or(false),
            activation,
            bias,
            fixed_head: r.read_bool("fixed_head")?.unwrap_or(false),
            init: init
                .read_word("scheme", &SCHEMES)?
                .unwrap_or(InitScheme::KaimingNormal),
            init_file: Self::read_init_file(&init)?,
            init_scale: init
                .read_number("scale", range_for_key(&init, "scale"))?
                .unwrap_or(1.0),
            layer_scales: Self::read_layer_scales(&init)?,
            zero_residual: init.read_bool("zero_residual")?.unwrap_or(false),
        };
        config.check_init(&r, &init)?;

        if config.affine && config.norms().all(|norm| norm == Norm::None) {
            let message = "without a norm there is no scale and shift; set model.norm = \"batch\"";
            return Err(r.error_at("affine", message).of_combination());
        }

        init.refuse_unknown_keys()?;
        r.refuse_unknown_keys()?;
        Ok(config)
    }

    /// The norms of the layers, which are all the same in most kinds of network.
    pub fn norms(&self) -> impl Iterator<Item = Norm> + '_ {
        let of_layers = match &self.kind {
            ModelKind::Layers(list) => Some(list.layers.iter().map(|layer| layer.norm)),
            _ => None,
        };
        let of_all = of_layers.is_none().then_some(self.norm);
        of_layers.into_iter().flatten().chain(of_all)
    }

    /// The norm over several images, if there is one. A network has one sort of them at most.
    pub fn norm_over_images(&self) -> Option<Norm> {
        self.norms().find(|norm| norm.is_over_images())
    }

    /// Checks that the model takes the settings of `model.init`.
    fn check_init(&self, r: &TableReader<'_>, init: &TableReader<'_>) -> Result<(), SpecError> {
        let has_results = init.read_node("results").is_some();
        if self.zero_residual && !matches!(self.kind, ModelKind::Preresnet { .. }) {
            let message = match self.kind {
                ModelKind::Layers(_) => {
                    "kind = \"layers\" does not say which layers end a residual block: remove this, or let model.init.layers \
                     begin them with small weights"
                }
                _ => "only kind = \"preresnet\" has residual blocks",
            };
            return Err(init.error_at("zero_residual", message));
        }

        let layers = init.read_node("layers").is_some()
            || self.zero_residual
            || has_results
            || self.init_file.is_some();
        if matches!(self.kind, ModelKind::Toy(_)) && (layers || init.read_node("scheme").is_some())
        {
            let message = "kind = \"toy\" has only the scale of model.init: set model.start, or leave w random";
            return Err(r.error_at("init", message));
        }
        Ok(())
    }

    fn read_init_file(init: &TableReader<'_>) -> Result<Option<FileHash>, SpecError> {
        let Some(pin) = init.read_file("file")? else {
            return Ok(None);
        };

        for key in ["scheme", "zero_residual"] {
            if init.read_node(key).is_some() {
                return Err(init.error_at(
                    key,
                    "the file decides the initial weights: remove this, or model.init.file",
                ));
            }
        }

        Ok(Some(pin.hash))
    }

    fn read_layer_scales(init: &TableReader<'_>) -> Result<Vec<(String, f64)>, SpecError> {
        let mut scales = Vec::new();
        for (layer, node) in init.read_table_entries("layers")? {
            match node.value.as_f64() {
                Some(factor) if NumberRange::POSITIVE.contains(factor) => {
                    scales.push((layer.clone(), factor))
                }
                _ => {
                    let message = format!(
                        "expected {}, found {}",
                        NumberRange::POSITIVE.describe(),
                        quote_value(&node.value)
                    );
                    return Err(init.error_at("layers", format!("{layer}: {message}")));
                }
            }
        }

        scales.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(scales)
    }

    fn read_kind(
        r: &TableReader<'_>,
        kind: ModelKindWord,
        defaults: LayerDefaults,
    ) -> Result<ModelKind, SpecError> {
        Ok(match kind {
            ModelKindWord::Mlp => ModelKind::Mlp {
                hidden: read_hidden_widths(r)?,
            },
            ModelKindWord::Cnn4 => ModelKind::Cnn4 {
                width: read_size(r, "width", 16)?,
            },
            ModelKindWord::Preresnet => ModelKind::Preresnet {
                depth: Self::read_preresnet_depth(r)?,
                widen: read_size(r, "widen", 1)?,
            },
            ModelKindWord::Vgg => ModelKind::Vgg {
                depth: Self::read_vgg_depth(r)?,
                width: read_size(r, "width", 64)?,
            },
            ModelKindWord::Layers => ModelKind::Layers(Arc::new(read_layers(r, defaults)?)),
            ModelKindWord::Toy => ModelKind::Toy(read_toy(r)?),
            ModelKindWord::Empty => ModelKind::Empty,
        })
    }

    /// Reads the depth of a residual network: two layers, and three stages of blocks of two.
    fn read_preresnet_depth(r: &TableReader<'_>) -> Result<u32, SpecError> {
        let depth = r
            .read_whole_number("depth", range_for_key(r, "depth"))?
            .unwrap_or(20);
        if depth % 6 != 2 {
            let near = (depth - 2) / 6 * 6 + 2;
            let message = format!(
                "a preresnet has 6n + 2 layers; the nearest to {depth} are {near} and {}",
                near + 6
            );
            return Err(r.error_at("depth", message));
        }

        Ok(depth as u32)
    }

    fn read_vgg_depth(r: &TableReader<'_>) -> Result<VggDepth, SpecError> {
        let depth = r
            .read_whole_number("depth", range_for_key(r, "depth"))?
            .unwrap_or(11);
        let known = VggDepth::ALL.iter().find(|(layers, _)| *layers == depth);
        known.map(|(_, d)| *d).ok_or_else(|| {
            r.error_at(
                "depth",
                format!("vgg comes with 11, 13, 16 or 19 layers, not {depth}"),
            )
        })
    }
}

fn read_kind_word(r: &TableReader<'_>) -> Result<ModelKindWord, SpecError> {
    let Some(kind) = r.read_word("kind", &MODEL_KINDS)? else {
        let message =
            "which model? Set model.kind to one of: mlp, cnn4, preresnet, vgg, layers, toy";
        return Err(r.error_at("kind", message).of_missing_value());
    };

    if kind == ModelKindWord::Layers {
        require_layers_grammar(r, "kind")?;
    }
    refuse_foreign_fields(r, kind)?;
    Ok(kind)
}

/// Reads the activation of all hidden layers that name no other one.
fn read_activation(r: &TableReader<'_>) -> Result<Activation, SpecError> {
    require_layers_grammar(r, "activation")?;
    Ok(r.read_word("activation", &ACTIVATIONS)?
        .unwrap_or(Activation::Relu))
}

/// Reads whether layers without a norm have a bias.
fn read_default_bias(r: &TableReader<'_>) -> Result<Option<bool>, SpecError> {
    require_layers_grammar(r, "bias")?;
    r.read_bool("bias")
}

/// Checks that the version of the file has a key, if that stands there.
fn require_layers_grammar(r: &TableReader<'_>, key: &'static str) -> Result<(), SpecError> {
    r.read_node(key).map_or(Ok(()), |node| {
        r.reading_mode()
            .require_grammar(LAYERS_GRAMMAR, &node.origin, &r.path_to(key))
    })
}

/// Refuses fields that other kinds of model take.
fn refuse_foreign_fields(r: &TableReader<'_>, kind: ModelKindWord) -> Result<(), SpecError> {
    for (key, owners) in KIND_FIELDS {
        if r.read_node(key).is_some() && !owners.contains(&kind) {
            let owners: Vec<String> = owners
                .iter()
                .map(|owner| format!("\"{}\"", word_for_value(&MODEL_KINDS, *owner)))
                .collect();
            return Err(r.error_at(
                key,
                format!(
                    "this belongs to kind = {} only: remove it, or set kind",
                    owners.join(" or ")
                ),
            ));
        }
    }

    Ok(())
}

fn read_size(r: &TableReader<'_>, key: &'static str, default: u32) -> Result<u32, SpecError> {
    let size = r.read_whole_number(key, range_for_key(r, key))?;
    Ok(size.map_or(default, |n| n as u32))
}
