//! The settings of `[model]`.

use std::sync::Arc;

use super::hidden::read_hidden_widths;
use super::{range_for_key, word_for_value};
use crate::ids::FileHash;
use crate::program::ProgramCell;
use crate::spec_file::error::SpecError;
use crate::spec_file::node::SpecNode;
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
    /// The scale-invariant toy loss w₁²/‖w‖² of the theory: no images, no network.
    Toy(Toy),
    /// A model that trains nothing: a trial ends at once with made-up metrics, to measure the overhead of everything
    /// else.
    Empty,
    /// A program of the user's. Data and training of such a config are of no meaning.
    Program(Arc<ProgramCell>),
}

/// The toy loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Toy {
    /// Number of entries of w.
    pub dim: u32,
    /// The noise σ: the gradient has a noise of σ/‖w‖ per direction orthogonal to w.
    pub noise: f64,
    /// Initial w; standard normal numbers if absent.
    pub start: Option<Vec<f64>>,
}

impl Toy {
    /// Number of floating-point operations of a step, about.
    pub fn step_flops(&self) -> u64 {
        10 * u64::from(self.dim)
    }
}

impl ModelKind {
    /// Whether the model is trained on images.
    pub fn needs_images(&self) -> bool {
        !matches!(self, Self::Toy(_) | Self::Empty | Self::Program(_))
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

/// The value of `model.norm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Batch normalization over the whole batch.
    Batch,
    /// Batch normalization over each of the ghost batches that a batch is cut into (Hoffer, Hubara and Soudry 2017).
    GhostBatch {
        /// Number of images in a ghost batch.
        size: u32,
    },
    /// Group normalization: over each image and group of channels.
    Group {
        /// Groups that the channels of every layer are cut into.
        groups: u32,
    },
    /// Layer normalization, over each image, all channels and pixels.
    Layer,
    /// No norm; layers get a bias.
    None,
}

/// Number of groups of `norm = "group"` if the file sets none.
const DEFAULT_GROUPS: u32 = 8;

/// Number of images in a ghost batch if the file sets none.
const DEFAULT_GHOST_SIZE: u32 = 16;

pub(super) const NORMS: [(&str, Norm); 5] = [
    ("batch", Norm::Batch),
    (
        "ghost-batch",
        Norm::GhostBatch {
            size: DEFAULT_GHOST_SIZE,
        },
    ),
    (
        "group",
        Norm::Group {
            groups: DEFAULT_GROUPS,
        },
    ),
    ("layer", Norm::Layer),
    ("none", Norm::None),
];

impl Norm {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::GhostBatch { .. } => "ghost-batch",
            Self::Group { .. } => "group",
            Self::Layer => "layer",
            Self::None => "none",
        }
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
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Architecture.
    pub kind: ModelKind,
    /// Normalization after every hidden layer.
    pub norm: Norm,
    /// ε under the root of the norms.
    pub norm_eps: f64,
    /// Whether norms have a trained scale and shift.
    pub affine: bool,
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

#[derive(Clone, Copy, PartialEq)]
pub(super) enum ModelKindWord {
    Mlp,
    Cnn4,
    Preresnet,
    Vgg,
    Toy,
    Empty,
}

pub(super) const MODEL_KINDS: [(&str, ModelKindWord); 6] = [
    ("mlp", ModelKindWord::Mlp),
    ("cnn4", ModelKindWord::Cnn4),
    ("preresnet", ModelKindWord::Preresnet),
    ("vgg", ModelKindWord::Vgg),
    ("toy", ModelKindWord::Toy),
    ("empty", ModelKindWord::Empty),
];

/// Kinds of model that take the fields of networks.
const NETWORK_KINDS: &[ModelKindWord] = &[
    ModelKindWord::Mlp,
    ModelKindWord::Cnn4,
    ModelKindWord::Preresnet,
    ModelKindWord::Vgg,
    ModelKindWord::Empty,
];

pub(super) const KIND_FIELDS: [(&str, &[ModelKindWord]); 13] = [
    ("hidden", &[ModelKindWord::Mlp]),
    ("width", &[ModelKindWord::Cnn4, ModelKindWord::Vgg]),
    ("depth", &[ModelKindWord::Preresnet, ModelKindWord::Vgg]),
    ("widen", &[ModelKindWord::Preresnet]),
    ("dim", &[ModelKindWord::Toy]),
    ("noise", &[ModelKindWord::Toy]),
    ("start", &[ModelKindWord::Toy]),
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
        let kind = Self::read_kind(&r)?;
        let init = r.section("init")?;
        let norm = if matches!(kind, ModelKind::Toy(_)) {
            Norm::None
        } else {
            Self::read_norm(&r)?
        };
        let config = Self {
            kind,
            norm,
            norm_eps: r
                .read_number("norm_eps", range_for_key(&r, "norm_eps"))?
                .unwrap_or(1e-5),
            affine: r.read_bool("affine")?.unwrap_or(false),
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
        let has_results = init.read_node("results").is_some();
        if config.zero_residual && !matches!(config.kind, ModelKind::Preresnet { .. }) {
            return Err(init.error_at(
                "zero_residual",
                "only kind = \"preresnet\" has residual blocks",
            ));
        }

        let layers = init.read_node("layers").is_some()
            || config.zero_residual
            || has_results
            || config.init_file.is_some();
        if matches!(config.kind, ModelKind::Toy(_))
            && (layers || init.read_node("scheme").is_some())
        {
            let message = "kind = \"toy\" has only the scale of model.init: set model.start, or leave w random";
            return Err(r.error_at("init", message));
        }

        if config.affine && config.norm == Norm::None {
            let message = "without a norm there is no scale and shift; set model.norm = \"batch\"";
            return Err(r.error_at("affine", message).of_combination());
        }

        init.refuse_unknown_keys()?;
        r.refuse_unknown_keys()?;
        Ok(config)
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

    fn read_norm(r: &TableReader<'_>) -> Result<Norm, SpecError> {
        let norm = r.read_word("norm", &NORMS)?.unwrap_or(Norm::Batch);
        let groups = r.read_whole_number("groups", range_for_key(r, "groups"))?;
        let ghost_size = r.read_whole_number("ghost_size", range_for_key(r, "ghost_size"))?;
        match (norm, groups, ghost_size) {
            (_, None, None) => Ok(norm),
            (Norm::Group { .. }, Some(groups), None) => Ok(Norm::Group {
                groups: groups as u32,
            }),
            (Norm::GhostBatch { .. }, None, Some(size)) => {
                Ok(Norm::GhostBatch { size: size as u32 })
            }
            (Norm::Group { .. }, _, Some(_)) | (_, None, Some(_)) => {
                Err(r.error_at("ghost_size", "this belongs to norm = \"ghost-batch\" only"))
            }
            (_, Some(_), _) => Err(r.error_at("groups", "this belongs to norm = \"group\" only")),
        }
    }

    fn read_kind(r: &TableReader<'_>) -> Result<ModelKind, SpecError> {
        let Some(kind) = r.read_word("kind", &MODEL_KINDS)? else {
            let message = "which model? Set model.kind to one of: mlp, cnn4, preresnet, vgg, toy";
            return Err(r.error_at("kind", message).of_missing_value());
        };

        refuse_foreign_fields(r, kind)?;
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
            ModelKindWord::Toy => ModelKind::Toy(Self::read_toy(r)?),
            ModelKindWord::Empty => ModelKind::Empty,
        })
    }

    fn read_toy(r: &TableReader<'_>) -> Result<Toy, SpecError> {
        let start: Option<Vec<f64>> = r
            .read_list("start")?
            .map(|items| items.iter().map(|item| read_start(r, item)).collect())
            .transpose()?;
        let default = start.as_ref().map_or(2, |start| start.len() as u64);
        let dim = r
            .read_whole_number("dim", range_for_key(r, "dim"))?
            .unwrap_or(default);

        if start.as_ref().is_some_and(|start| start.len() < 2) {
            return Err(r.error_at("start", "expected at least two numbers"));
        }

        if start
            .as_ref()
            .is_some_and(|start| start.len() as u64 != dim || start.iter().all(|x| *x == 0.0))
        {
            return Err(r.error_at(
                "start",
                format!("expected {dim} numbers (model.dim), not all of them 0"),
            ));
        }

        let noise = r
            .read_number("noise", range_for_key(r, "noise"))?
            .unwrap_or(0.0);
        Ok(Toy {
            dim: dim as u32,
            noise,
            start,
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
                format!("this belongs to kind = {} only", owners.join(" or ")),
            ));
        }
    }

    Ok(())
}

fn read_size(r: &TableReader<'_>, key: &'static str, default: u32) -> Result<u32, SpecError> {
    let size = r.read_whole_number(key, range_for_key(r, key))?;
    Ok(size.map_or(default, |n| n as u32))
}

/// Reads one number of the toy model's start.
fn read_start(r: &TableReader<'_>, item: &SpecNode) -> Result<f64, SpecError> {
    let x = item.value.as_f64().filter(|x| x.is_finite());
    x.ok_or_else(|| {
        let found = quote_value(&item.value);
        r.error_at("start", format!("expected finite numbers, found {found}"))
    })
}
