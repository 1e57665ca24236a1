//! What one cell resolves to: everything a worker must know to run a trial of it, fully typed.

use crate::error::SpecError;
use crate::reader::{Range, Reader, quoted};
use crate::tree::{Table, Value};

/// All fields of a trial. Two cells with equal configs are the same cell.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialConfig {
    /// `[data]`
    pub data: DataConfig,
    /// `[model]`
    pub model: ModelConfig,
    /// `[train]`
    pub train: TrainConfig,
}

/// The datasets Ergodic knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatasetName {
    /// Generated stroke-drawn digits, 28×28, ten classes: needs no files.
    Glyphs,
    /// MNIST in IDX form.
    Mnist,
    /// Fashion-MNIST in IDX form.
    FashionMnist,
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, fine labels.
    Cifar100,
}

impl DatasetName {
    /// Names as written in a sweep file.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("glyphs", Self::Glyphs),
        ("mnist", Self::Mnist),
        ("fashion-mnist", Self::FashionMnist),
        ("cifar10", Self::Cifar10),
        ("cifar100", Self::Cifar100),
    ];

    /// The name as written in a sweep file.
    pub fn word(self) -> &'static str {
        word_of(&Self::WORDS, self)
    }

    /// Images in the full training and test sets.
    pub fn sizes(self) -> (u32, u32) {
        match self {
            Self::Glyphs => (10_000, 2_000),
            Self::Mnist | Self::FashionMnist => (60_000, 10_000),
            Self::Cifar10 | Self::Cifar100 => (50_000, 10_000),
        }
    }

    /// Height, width and channels of an image.
    pub fn shape(self) -> (u32, u32, u32) {
        match self {
            Self::Glyphs | Self::Mnist | Self::FashionMnist => (28, 28, 1),
            Self::Cifar10 | Self::Cifar100 => (32, 32, 3),
        }
    }

    /// Number of classes.
    pub fn classes(self) -> u32 {
        if self == Self::Cifar100 { 100 } else { 10 }
    }
}

/// How training images are visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A new permutation each epoch.
    Shuffle,
    /// The order of the subset, every epoch.
    Sequential,
    /// Every image drawn uniformly, independently.
    WithReplacement,
    /// The whole training set in every step.
    FullBatch,
}

const ORDERS: [(&str, Order); 4] = [
    ("shuffle", Order::Shuffle),
    ("sequential", Order::Sequential),
    ("with-replacement", Order::WithReplacement),
    ("full-batch", Order::FullBatch),
];

/// `[data]`
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// Which dataset.
    pub dataset: DatasetName,
    /// Training images used.
    pub train: u32,
    /// Test images used.
    pub test: u32,
    /// How training images are visited.
    pub order: Order,
}

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
        /// w
        width: u32,
    },
    /// Pre-activation residual network of He et al. 2016.
    Preresnet {
        /// 6n + 2
        depth: u32,
        /// Factor on the widths 16, 32, 64.
        widen: u32,
    },
    /// The networks of Simonyan and Zisserman 2015 with one linear head, for images of 32×32.
    Vgg {
        /// Layers with weights in the original, which has three linear ones.
        depth: VggDepth,
        /// Channels of the first stage.
        width: u32,
    },
    /// Trains nothing: a trial ends at once with made-up metrics. For measuring the overhead of everything else.
    Empty,
}

/// `model.depth` of a VGG network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VggDepth {
    /// Configuration A.
    Eleven,
    /// Configuration B.
    Thirteen,
    /// Configuration D.
    Sixteen,
    /// Configuration E.
    Nineteen,
}

impl VggDepth {
    const ALL: [(u64, Self); 4] = [(11, Self::Eleven), (13, Self::Thirteen), (16, Self::Sixteen), (19, Self::Nineteen)];

    /// Convolutions of the five stages.
    pub fn convolutions(self) -> [usize; 5] {
        match self {
            Self::Eleven => [1, 1, 2, 2, 2],
            Self::Thirteen => [2, 2, 2, 2, 2],
            Self::Sixteen => [2, 2, 3, 3, 3],
            Self::Nineteen => [2, 2, 4, 4, 4],
        }
    }

    /// 11, 13, 16 or 19.
    pub fn layers(self) -> u64 {
        Self::ALL.iter().find(|(_, depth)| *depth == self).map_or(0, |(layers, _)| *layers)
    }
}

/// `model.norm`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Batch normalization over the whole batch.
    Batch,
    /// Group normalization: over each image and group of channels.
    Group {
        /// Groups that the channels of every layer are cut into.
        groups: u32,
    },
    /// Layer normalization, over each image, all channels and pixels.
    Layer,
    /// None; layers get a bias.
    None,
}

/// Groups of `norm = "group"` unless said otherwise.
const GROUPS: u32 = 8;

const NORMS: [(&str, Norm); 4] =
    [("batch", Norm::Batch), ("group", Norm::Group { groups: GROUPS }), ("layer", Norm::Layer), ("none", Norm::None)];

impl Norm {
    fn word(self) -> &'static str {
        match self {
            Self::Batch => "batch",
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
}

const SCHEMES: [(&str, InitScheme); 4] = [
    ("kaiming-normal", InitScheme::KaimingNormal),
    ("kaiming-uniform", InitScheme::KaimingUniform),
    ("xavier-normal", InitScheme::XavierNormal),
    ("xavier-uniform", InitScheme::XavierUniform),
];

/// `[model]`
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
    /// Factor on the initial values of trained weights; a fixed head is not scaled.
    pub init_scale: f64,
}

/// How long a trial trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// This many passes of floor(N/B) steps.
    Epochs(u32),
    /// This many steps.
    Steps(u64),
}

/// A change of a hyperparameter: set it, or multiply its present value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Becomes this value.
    Set(f64),
    /// Is multiplied by this factor (written `"x0.1"`).
    Times(f64),
}

/// One entry of `train.schedule`, in force from a step or epoch on.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleStep {
    /// The first step or epoch at which it holds.
    pub from: Length,
    /// Change of the learning rate.
    pub lr: Option<Change>,
    /// Change of the weight decay.
    pub wd: Option<Change>,
    /// Change of the momentum.
    pub momentum: Option<Change>,
}

/// A learning rate that changes at every step, `schedule = { kind = …, … }`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// Its form.
    pub form: CurveForm,
    /// Over how long the learning rate first rises in proportion to the step, 0 for not at all.
    pub warmup: Length,
}

/// The form of a [`Curve`] after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CurveForm {
    /// Constant.
    Constant,
    /// `end + (lr − end)·(1 + cos πt)/2` with t going from 0 to 1 (Loshchilov and Hutter 2017).
    Cosine {
        /// The last value.
        end: Change,
    },
    /// `lr + (end − lr)·t` with t going from 0 to 1.
    Linear {
        /// The last value.
        end: Change,
    },
    /// `lr·factor^(s/per)` after s steps. A factor above 1 is the growing schedule of Li and Arora 2020.
    Exponential {
        /// The factor.
        factor: f64,
        /// For how long it is applied once.
        per: Length,
    },
}

const CURVES: [(&str, &str); 4] =
    [("constant", "constant"), ("cosine", "cosine"), ("linear", "linear"), ("exponential", "exponential")];

/// A factor of an exponential schedule.
const CURVE_FACTOR: Range = Range::POSITIVE;

impl Curve {
    fn read(r: &Reader<'_>) -> Result<Option<Self>, SpecError> {
        if !matches!(r.node("schedule").map(|n| &n.value), Some(Value::Table(_))) {
            return Ok(None);
        }
        let r = r.section("schedule")?;
        let Some(kind) = r.word("kind", &CURVES)? else {
            return Err(r.error("kind", "which schedule? Set kind to one of: constant, cosine, linear, exponential"));
        };
        let end = Change::read(&r, "end", Range::NON_NEGATIVE)?;
        let factor = r.number("factor", CURVE_FACTOR)?;
        let per = Self::read_length(&r, "per")?;
        let only = |key: &str, given: bool, owners: &[&str]| match given && !owners.contains(&kind) {
            true => Err(r.error(key, format!("this belongs to kind = \"{}\" only", owners.join("\" or \"")))),
            false => Ok(()),
        };
        only("end", end.is_some(), &["cosine", "linear"])?;
        only("factor", factor.is_some(), &["exponential"])?;
        only("per", per.is_some(), &["exponential"])?;
        let end = end.unwrap_or(Change::Set(0.0));
        let form = match kind {
            "cosine" => CurveForm::Cosine { end },
            "linear" => CurveForm::Linear { end },
            "exponential" => {
                let missing = || r.error("factor", "this is needed: by what the learning rate is multiplied");
                CurveForm::Exponential { factor: factor.ok_or_else(missing)?, per: per.unwrap_or(Length::Steps(1)) }
            }
            _ => CurveForm::Constant,
        };
        let warmup = Self::read_length(&r, "warmup")?.unwrap_or(Length::Steps(0));
        r.finish()?;
        Ok(Some(Self { form, warmup }))
    }

    fn read_length(r: &Reader<'_>, key: &'static str) -> Result<Option<Length>, SpecError> {
        let Some(text) = r.str(key)? else { return Ok(None) };
        let expected = || r.error(key, format!("expected something like \"2 epochs\" or \"50 steps\", found '{text}'"));
        Length::parse(text).map(Some).ok_or_else(expected)
    }
}

/// What is minimised, as a mean over a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Cross-entropy of the softmax, in nats.
    CrossEntropy {
        /// Share of the target spread evenly over all classes.
        smoothing: f64,
    },
    /// Squared distance of the outputs from 1 for the image's class and 0 for the others, as a mean over classes.
    Mse,
}

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019), with PyTorch's conventions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the gradient's average.
    pub beta1: f64,
    /// Decay of the squared gradient's average.
    pub beta2: f64,
    /// Added to the root of the squared gradient's average.
    pub eps: f64,
}

impl AdamW {
    fn read(r: &Reader<'_>) -> Result<Option<Self>, SpecError> {
        let chosen = r.word("kind", &[("sgd", false), ("adamw", true)])?.unwrap_or(false);
        let [beta1, beta2, eps] = ["beta1", "beta2", "eps"].map(|key| r.number(key, numeric(r, key)));
        let (beta1, beta2, eps) = (beta1?, beta2?, eps?);
        let (own, others): (&[&'static str], &str) =
            if chosen { (&["momentum", "nesterov"], "sgd") } else { (&["beta1", "beta2", "eps"], "adamw") };
        if let Some(key) = own.iter().find(|key| r.node(key).is_some()) {
            return Err(r.error(key, format!("this belongs to kind = \"{others}\" only")));
        }
        let adamw = Self { beta1: beta1.unwrap_or(0.9), beta2: beta2.unwrap_or(0.999), eps: eps.unwrap_or(1e-8) };
        Ok(chosen.then_some(adamw))
    }
}

/// `[train]`
#[derive(Debug, Clone, PartialEq)]
pub struct TrainConfig {
    /// How long.
    pub length: Length,
    /// Images per step.
    pub batch_size: u32,
    /// Learning rate η.
    pub lr: f64,
    /// Weight decay λ, added to the gradient as λw.
    pub wd: f64,
    /// Momentum μ.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Instead of SGD.
    pub adamw: Option<AdamW>,
    /// What is minimised.
    pub loss: Loss,
    /// Changes over time, in the order of the file.
    pub schedule: Vec<ScheduleStep>,
    /// A learning rate that changes at every step.
    pub curve: Option<Curve>,
}

/// Axis names that stand for a longer path.
pub const SHORT_NAMES: [(&str, &str); 4] = [
    ("lr", "train.lr"),
    ("wd", "train.wd"),
    ("batch_size", "train.batch_size"),
    ("momentum", "train.optimizer.momentum"),
];

/// Numeric fields and the numbers they accept. `[derive]` may compute these.
pub const NUMERIC_FIELDS: [(&str, Range); 18] = [
    ("data.train", Range::whole(1, 10_000_000)),
    ("data.test", Range::whole(1, 10_000_000)),
    ("model.width", Range::whole(1, 4096)),
    ("model.depth", Range::whole(8, 10_004)),
    ("model.widen", Range::whole(1, 64)),
    ("model.groups", Range::whole(1, 4096)),
    ("model.norm_eps", Range::NON_NEGATIVE),
    ("model.init.scale", Range::POSITIVE),
    ("train.epochs", Range::whole(1, 1_000_000)),
    ("train.steps", Range::whole(1, 1_000_000_000)),
    ("train.batch_size", Range::whole(1, 10_000_000)),
    ("train.lr", Range::NON_NEGATIVE),
    ("train.wd", Range::NON_NEGATIVE),
    ("train.optimizer.momentum", Range::FRACTION),
    ("train.optimizer.beta1", Range::FRACTION),
    ("train.optimizer.beta2", Range::FRACTION),
    ("train.optimizer.eps", Range::POSITIVE),
    ("train.loss.label_smoothing", Range::FRACTION),
];

const SCHEDULE_EPOCH: Range = Range::whole(0, 1_000_000);
const SCHEDULE_STEP: Range = Range::whole(0, 1_000_000_000);

/// Paths whose values decide a trial's shape class: architecture, batch size, number of steps.
pub fn decides_shape(path: &str) -> bool {
    matches!(path, "data.dataset" | "data.train" | "data.order" | "data.test" | "model" | "train.batch_size")
        || matches!(path, "train.epochs" | "train.steps")
        || matches!(path, "model.kind" | "model.width" | "model.hidden" | "model.norm" | "model.affine")
        || matches!(path, "model.depth" | "model.widen" | "model.groups")
        || path == "model.fixed_head"
}

/// Paths of fields that some trials do not use: they are left out of [`TrialConfig::fields`] there.
pub fn may_be_idle(path: &str) -> bool {
    matches!(path, "model.norm_eps" | "model.affine" | "model.groups" | "train.batch_size")
}

/// The numbers that the field at `path` accepts.
pub fn range_of(path: &str) -> Option<Range> {
    NUMERIC_FIELDS.iter().find(|(name, _)| *name == path).map(|(_, range)| *range)
}

fn word_of<T: Copy + PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, v)| *v == value).map_or("?", |(word, _)| word)
}

impl TrialConfig {
    /// Reads the `[data]`, `[model]` and `[train]` tables of a document whose other keys are somebody else's.
    ///
    /// # Errors
    /// The first field that cannot be, by path and place.
    pub fn read(root: &Table) -> Result<Self, SpecError> {
        let reader = Reader::root(root);
        let model = ModelConfig::read(&reader)?;
        let data = DataConfig::read(&reader)?;
        let train = TrainConfig::read(&reader, model.kind == ModelKind::Empty)?;
        let config = Self { data, model, train };
        config.check_batch(&reader)?;
        config.check_shapes(&reader)?;
        Ok(config)
    }

    /// Whether the model fits the images, and its norm the model.
    fn check_shapes(&self, reader: &Reader<'_>) -> Result<(), SpecError> {
        let (height, width, _) = self.data.dataset.shape();
        if matches!(self.model.kind, ModelKind::Vgg { .. }) && (height < 32 || width < 32) {
            let message = format!(
                "vgg halves its input five times and needs images of 32×32 at least; {} has {height}×{width}: \
                 choose cifar10, or kind = \"cnn4\"",
                self.data.dataset.word()
            );
            return Err(reader.section("model")?.error("kind", message));
        }
        let Norm::Group { groups } = self.model.norm else { return Ok(()) };
        for layer in crate::net::Net::of(self).iter().flat_map(|net| &net.layers) {
            let channels = layer.output.channels;
            if layer.norm.is_some() && !channels.is_multiple_of(groups as usize) {
                let message = format!(
                    "the {channels} channels of {} cannot be cut into {groups} equal groups; choose a divisor of it",
                    layer.name
                );
                return Err(reader.section("model")?.error("groups", message));
            }
        }
        Ok(())
    }

    fn check_batch(&self, reader: &Reader<'_>) -> Result<(), SpecError> {
        let (batch, images) = (self.train.batch_size, self.data.train);
        if batch > images && self.data.order != Order::FullBatch {
            let message = format!(
                "a batch of {batch} is larger than the {images} training images; choose one of at most {images}"
            );
            return Err(reader.section("train")?.error("batch_size", message));
        }
        Ok(())
    }

    /// Images per step.
    pub fn batch(&self) -> u32 {
        if self.data.order == Order::FullBatch { self.data.train } else { self.train.batch_size }
    }

    /// Steps per epoch: floor(N/B); the tail of the permutation is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        u64::from(self.data.train / self.batch()).max(1)
    }

    /// Steps of the whole trial.
    pub fn steps(&self) -> u64 {
        self.to_steps(self.train.length)
    }

    /// A length in steps.
    pub fn to_steps(&self, length: Length) -> u64 {
        match length {
            Length::Epochs(epochs) => u64::from(epochs) * self.steps_per_epoch(),
            Length::Steps(steps) => steps,
        }
    }

    /// Dotted paths and canonical values of all fields that a trial's result depends on: the identity of a cell.
    ///
    /// A field added later appears here only where it differs from its default, so that old cells keep their identity.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let number = crate::tree::number;
        let mut fields = vec![
            ("data.dataset", self.data.dataset.word().to_owned()),
            ("data.train", self.data.train.to_string()),
            ("data.test", self.data.test.to_string()),
            ("data.order", word_of(&ORDERS, self.data.order).to_owned()),
            ("train.batch_size", self.batch().to_string()),
            ("train.steps", self.steps().to_string()),
            ("train.lr", number(self.train.lr)),
            ("train.wd", number(self.train.wd)),
            ("train.optimizer.momentum", number(self.train.momentum)),
            ("train.optimizer.nesterov", self.train.nesterov.to_string()),
        ];
        match self.train.loss {
            Loss::CrossEntropy { smoothing } => fields.push(("train.loss.label_smoothing", number(smoothing))),
            Loss::Mse => fields.push(("train.loss.kind", "mse".into())),
        }
        self.model.fields(&mut fields);
        if !self.train.schedule.is_empty() {
            let schedule: Vec<String> = self.train.schedule.iter().map(|s| self.schedule_text(s)).collect();
            fields.push(("train.schedule", schedule.join(";")));
        }
        if let Some(AdamW { beta1, beta2, eps }) = self.train.adamw {
            fields.push(("train.optimizer.kind", "adamw".into()));
            fields.push(("train.optimizer.beta1", number(beta1)));
            fields.push(("train.optimizer.beta2", number(beta2)));
            fields.push(("train.optimizer.eps", number(eps)));
        }
        if let Some(curve) = self.train.curve {
            fields.push(("train.schedule", self.curve_text(curve)));
        }
        fields
    }

    fn curve_text(&self, curve: Curve) -> String {
        let number = crate::tree::number;
        let end = |end: Change| match end {
            Change::Set(x) => number(x),
            Change::Times(x) => format!("x{}", number(x)),
        };
        let form = match curve.form {
            CurveForm::Constant => "constant".to_owned(),
            CurveForm::Cosine { end: e } => format!("cosine to {}", end(e)),
            CurveForm::Linear { end: e } => format!("linear to {}", end(e)),
            CurveForm::Exponential { factor, per } => {
                format!("exponential x{} per {}", number(factor), self.to_steps(per))
            }
        };
        format!("{form} after {}", self.to_steps(curve.warmup))
    }

    fn schedule_text(&self, step: &ScheduleStep) -> String {
        let change = |name: &str, change: Option<Change>| match change {
            None => String::new(),
            Some(Change::Set(x)) => format!(" {name}={}", crate::tree::number(x)),
            Some(Change::Times(x)) => format!(" {name}*={}", crate::tree::number(x)),
        };
        format!(
            "{}:{}{}{}",
            self.to_steps(step.from),
            change("lr", step.lr),
            change("wd", step.wd),
            change("momentum", step.momentum)
        )
    }
}

impl DataConfig {
    fn read(root: &Reader<'_>) -> Result<Self, SpecError> {
        let r = root.section("data")?;
        let dataset = r.word("dataset", &DatasetName::WORDS)?.unwrap_or(DatasetName::Glyphs);
        let (train_all, test_all) = dataset.sizes();
        let size = |key, all: u32| -> Result<u32, SpecError> {
            let n = r.whole(key, numeric(&r, key))?.unwrap_or(u64::from(all));
            if n > u64::from(all) {
                let message = format!("{} has {all} images here, not {n}", dataset.word());
                return Err(r.error(key, message));
            }
            Ok(n as u32)
        };
        let config = Self {
            dataset,
            train: size("train", train_all)?,
            test: size("test", test_all)?,
            order: r.word("order", &ORDERS)?.unwrap_or(Order::Shuffle),
        };
        r.finish()?;
        Ok(config)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Mlp,
    Cnn4,
    Preresnet,
    Vgg,
    Empty,
}

const KINDS: [(&str, Kind); 5] = [
    ("mlp", Kind::Mlp),
    ("cnn4", Kind::Cnn4),
    ("preresnet", Kind::Preresnet),
    ("vgg", Kind::Vgg),
    ("empty", Kind::Empty),
];

/// Fields of some kinds of model only.
const KIND_FIELDS: [(&str, &[Kind]); 4] = [
    ("hidden", &[Kind::Mlp]),
    ("width", &[Kind::Cnn4, Kind::Vgg]),
    ("depth", &[Kind::Preresnet, Kind::Vgg]),
    ("widen", &[Kind::Preresnet]),
];

impl ModelConfig {
    fn read(root: &Reader<'_>) -> Result<Self, SpecError> {
        let r = root.section("model")?;
        let kind = Self::read_kind(&r)?;
        let init = r.section("init")?;
        let config = Self {
            kind,
            norm: Self::read_norm(&r)?,
            norm_eps: r.number("norm_eps", numeric(&r, "norm_eps"))?.unwrap_or(1e-5),
            affine: r.bool("affine")?.unwrap_or(false),
            fixed_head: r.bool("fixed_head")?.unwrap_or(false),
            init: init.word("scheme", &SCHEMES)?.unwrap_or(InitScheme::KaimingNormal),
            init_scale: init.number("scale", numeric(&init, "scale"))?.unwrap_or(1.0),
        };
        if config.affine && config.norm == Norm::None {
            return Err(r.error("affine", "there is no norm to have a scale and shift; set model.norm = \"batch\""));
        }
        init.finish()?;
        r.finish()?;
        Ok(config)
    }

    fn read_norm(r: &Reader<'_>) -> Result<Norm, SpecError> {
        let norm = r.word("norm", &NORMS)?.unwrap_or(Norm::Batch);
        let groups = r.whole("groups", numeric(r, "groups"))?;
        match (norm, groups) {
            (Norm::Group { .. }, Some(groups)) => Ok(Norm::Group { groups: groups as u32 }),
            (_, None) => Ok(norm),
            _ => Err(r.error("groups", "this belongs to norm = \"group\" only")),
        }
    }

    fn read_kind(r: &Reader<'_>) -> Result<ModelKind, SpecError> {
        let Some(kind) = r.word("kind", &KINDS)? else {
            return Err(r.error("kind", "which model? Set model.kind to one of: mlp, cnn4, preresnet, vgg"));
        };
        for (key, owners) in KIND_FIELDS {
            if r.node(key).is_some() && !owners.contains(&kind) {
                let owners: Vec<String> = owners.iter().map(|o| format!("\"{}\"", word_of(&KINDS, *o))).collect();
                return Err(r.error(key, format!("this belongs to kind = {} only", owners.join(" or "))));
            }
        }
        let whole = |key: &'static str, default: u32| -> Result<u32, SpecError> {
            Ok(r.whole(key, numeric(r, key))?.map_or(default, |n| n as u32))
        };
        Ok(match kind {
            Kind::Mlp => ModelKind::Mlp { hidden: Self::read_hidden(r)? },
            Kind::Cnn4 => ModelKind::Cnn4 { width: whole("width", 16)? },
            Kind::Preresnet => ModelKind::Preresnet { depth: Self::read_depth(r)?, widen: whole("widen", 1)? },
            Kind::Vgg => ModelKind::Vgg { depth: Self::read_vgg_depth(r)?, width: whole("width", 64)? },
            Kind::Empty => ModelKind::Empty,
        })
    }

    /// Of a residual network: two layers around three stages of blocks of two.
    fn read_depth(r: &Reader<'_>) -> Result<u32, SpecError> {
        let depth = r.whole("depth", numeric(r, "depth"))?.unwrap_or(20);
        if depth % 6 != 2 {
            let near = (depth - 2) / 6 * 6 + 2;
            let message = format!("a preresnet has 6n + 2 layers; the nearest to {depth} are {near} and {}", near + 6);
            return Err(r.error("depth", message));
        }
        Ok(depth as u32)
    }

    fn read_vgg_depth(r: &Reader<'_>) -> Result<VggDepth, SpecError> {
        let depth = r.whole("depth", numeric(r, "depth"))?.unwrap_or(11);
        let known = VggDepth::ALL.iter().find(|(layers, _)| *layers == depth);
        known
            .map(|(_, d)| *d)
            .ok_or_else(|| r.error("depth", format!("vgg comes with 11, 13, 16 or 19 layers, not {depth}")))
    }

    fn read_hidden(r: &Reader<'_>) -> Result<Vec<u32>, SpecError> {
        let range = Range::whole(1, 65_536);
        let Some(items) = r.list("hidden")? else { return Ok(vec![128]) };
        let width = |item: &crate::tree::Node| match item.value.as_f64() {
            Some(x) if range.holds(x) => Ok(x as u32),
            _ => Err(
                r.error("hidden", format!("expected widths, each {}, found {}", range.describe(), quoted(&item.value)))
            ),
        };
        items.iter().map(width).collect()
    }

    fn fields(&self, fields: &mut Vec<(&'static str, String)>) {
        let number = crate::tree::number;
        match &self.kind {
            ModelKind::Mlp { hidden } => {
                let widths: Vec<String> = hidden.iter().map(u32::to_string).collect();
                fields.push(("model.kind", "mlp".into()));
                fields.push(("model.hidden", widths.join(",")));
            }
            ModelKind::Cnn4 { width } => {
                fields.push(("model.kind", "cnn4".into()));
                fields.push(("model.width", width.to_string()));
            }
            ModelKind::Preresnet { depth, widen } => {
                fields.push(("model.kind", "preresnet".into()));
                fields.push(("model.depth", depth.to_string()));
                fields.push(("model.widen", widen.to_string()));
            }
            ModelKind::Vgg { depth, width } => {
                fields.push(("model.kind", "vgg".into()));
                fields.push(("model.depth", depth.layers().to_string()));
                fields.push(("model.width", width.to_string()));
            }
            ModelKind::Empty => fields.push(("model.kind", "empty".into())),
        }
        fields.push(("model.norm", self.norm.word().to_owned()));
        if let Norm::Group { groups } = self.norm {
            fields.push(("model.groups", groups.to_string()));
        }
        if self.norm != Norm::None {
            fields.push(("model.norm_eps", number(self.norm_eps)));
            fields.push(("model.affine", self.affine.to_string()));
        }
        fields.push(("model.fixed_head", self.fixed_head.to_string()));
        fields.push(("model.init.scheme", word_of(&SCHEMES, self.init).to_owned()));
        fields.push(("model.init.scale", number(self.init_scale)));
    }
}

impl TrainConfig {
    fn read(root: &Reader<'_>, empty: bool) -> Result<Self, SpecError> {
        let r = root.section("train")?;
        let optimizer = r.section("optimizer")?;
        let adamw = AdamW::read(&optimizer)?;
        let length = Self::read_length(&r)?;
        let [batch_size, lr, wd] = ["batch_size", "lr", "wd"].map(|key| r.number(key, numeric(&r, key)));
        let momentum = optimizer.number("momentum", numeric(&optimizer, "momentum"))?.unwrap_or(0.0);
        let nesterov = optimizer.bool("nesterov")?.unwrap_or(false);
        let (loss, schedule) = (Self::read_loss(&r)?, Self::read_schedule(&r)?);
        let curve = Curve::read(&r)?;
        // A misspelt key is a better answer than the missing one it stands for.
        optimizer.finish()?;
        r.finish()?;
        let required = |key: &'static str, value: Option<f64>, default: f64| match value {
            Some(x) => Ok(x),
            None if empty => Ok(default),
            None => Err(r.error(key, format!("this is needed: set train.{key}, or make it an axis of [grid]"))),
        };
        let config = Self {
            length: match length {
                Some(length) => length,
                None if empty => Length::Steps(20),
                None => return Err(r.error("epochs", "how long? Set train.epochs or train.steps")),
            },
            batch_size: required("batch_size", batch_size?, 1.0)? as u32,
            lr: required("lr", lr?, 0.0)?,
            wd: wd?.unwrap_or(0.0),
            momentum,
            nesterov,
            adamw,
            loss,
            schedule,
            curve,
        };
        if config.nesterov && config.momentum == 0.0 {
            return Err(optimizer.error("nesterov", "Nesterov's form needs a momentum above 0"));
        }
        Ok(config)
    }

    /// `loss = "mse"` or `loss = { kind = "cross-entropy", label_smoothing = 0.1 }`
    fn read_loss(r: &Reader<'_>) -> Result<Loss, SpecError> {
        let words = [("cross-entropy", Loss::CrossEntropy { smoothing: 0.0 }), ("mse", Loss::Mse)];
        let plain = words[0].1;
        if let Some(crate::tree::Node { value: Value::Str(_), .. }) = r.node("loss") {
            return Ok(r.word("loss", &words)?.unwrap_or(plain));
        }
        let section = r.section("loss")?;
        let mut loss = section.word("kind", &words)?.unwrap_or(plain);
        let smoothing = section.number("label_smoothing", numeric(&section, "label_smoothing"))?;
        if let Some(smoothing) = smoothing {
            if loss == Loss::Mse {
                return Err(section.error("label_smoothing", "this belongs to kind = \"cross-entropy\" only"));
            }
            loss = Loss::CrossEntropy { smoothing };
        }
        section.finish()?;
        Ok(loss)
    }

    fn read_length(r: &Reader<'_>) -> Result<Option<Length>, SpecError> {
        let epochs = r.whole("epochs", numeric(r, "epochs"))?;
        let steps = r.whole("steps", numeric(r, "steps"))?;
        match (epochs, steps) {
            (Some(epochs), None) => Ok(Some(Length::Epochs(epochs as u32))),
            (None, Some(steps)) => Ok(Some(Length::Steps(steps))),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(r.error("steps", "train.epochs is set as well: keep one of the two")),
        }
    }

    fn read_schedule(r: &Reader<'_>) -> Result<Vec<ScheduleStep>, SpecError> {
        if let Some(Value::Table(_)) = r.node("schedule").map(|n| &n.value) {
            return Ok(Vec::new());
        }
        let mut schedule = Vec::new();
        for (at, item) in r.list("schedule")?.unwrap_or_default().iter().enumerate() {
            let path = format!("train.schedule[{at}]");
            let Value::Table(table) = &item.value else {
                let message = "expected an entry like { epoch = 20, lr = \"x0.1\" }";
                return Err(SpecError::new(item.place.clone(), path, message));
            };
            let entry = Reader::element(table, &item.place, path);
            schedule.push(ScheduleStep::read(&entry)?);
            entry.finish()?;
        }
        Ok(schedule)
    }
}

impl ScheduleStep {
    fn read(r: &Reader<'_>) -> Result<Self, SpecError> {
        let epoch = r.whole("epoch", SCHEDULE_EPOCH)?;
        let step = r.whole("step", SCHEDULE_STEP)?;
        let from = match (epoch, step) {
            (Some(epoch), None) => Length::Epochs(epoch as u32),
            (None, Some(step)) => Length::Steps(step),
            _ => return Err(r.error("epoch", "from when on? Give either epoch or step")),
        };
        let step = Self {
            from,
            lr: Change::read(r, "lr", Range::NON_NEGATIVE)?,
            wd: Change::read(r, "wd", Range::NON_NEGATIVE)?,
            momentum: Change::read(r, "momentum", Range::FRACTION)?,
        };
        if step.lr.is_none() && step.wd.is_none() && step.momentum.is_none() {
            return Err(r.error("lr", "this entry changes nothing: give lr, wd or momentum"));
        }
        Ok(step)
    }
}

impl Length {
    /// "1 epoch", "50 steps"; at least 1.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.trim().split_once(' ')?;
        let count: u64 = count.parse().ok().filter(|n| (1..=1_000_000_000).contains(n))?;
        match unit.trim() {
            "epoch" | "epochs" => u32::try_from(count).ok().map(Self::Epochs),
            "step" | "steps" => Some(Self::Steps(count)),
            _ => None,
        }
    }
}

impl Change {
    /// The value after the change.
    pub fn apply(self, now: f64) -> f64 {
        match self {
            Self::Set(x) => x,
            Self::Times(x) => now * x,
        }
    }

    fn read(r: &Reader<'_>, key: &'static str, range: Range) -> Result<Option<Self>, SpecError> {
        let Some(node) = r.node(key) else { return Ok(None) };
        let expected = || {
            let message =
                format!("expected {} or a factor like \"x0.1\", found {}", range.describe(), quoted(&node.value));
            r.error(key, message)
        };
        match &node.value {
            Value::Str(text) => {
                let factor = text.strip_prefix(['x', '*']).and_then(|f| f.trim().parse::<f64>().ok());
                let factor = factor.filter(|f| Range::NON_NEGATIVE.holds(*f));
                factor.map(|f| Some(Self::Times(f))).ok_or_else(expected)
            }
            value => match value.as_f64() {
                Some(x) if range.holds(x) => Ok(Some(Self::Set(x))),
                _ => Err(expected()),
            },
        }
    }
}

fn numeric(r: &Reader<'_>, key: &str) -> Range {
    range_of(&r.path_of(key)).expect("every numeric field stands in NUMERIC_FIELDS")
}
