//! The identity of a cell: paths and canonical values of all fields that its results depend on.

use crate::config::activation::{ACTIVATIONS, Activation};
use crate::config::data::{AUGMENTS, Augment, DataConfig, ORDERS};
use crate::config::model::{ModelConfig, ModelKind, SCHEMES};
use crate::config::norm::Norm;
use crate::config::optimizer::{Adam, AdamDecay};
use crate::config::toy::Toy;
use crate::config::train::{Average, Loss, TrainConfig, WEIGHT_DECAY_SCOPES, WeightDecayScope};
use crate::config::{AddedNoise, Length, TrialConfig, word_for_value};
use crate::dataset::name::DatasetName;
use crate::number_format::format_shortest;

impl ModelConfig {
    pub(crate) fn identity_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = self.kind.identity_fields();
        self.push_norm_fields(&mut fields);
        self.push_layer_fields(&mut fields);
        fields.push(("model.fixed_head", self.fixed_head.to_string()));
        self.push_init_fields(&mut fields);
        fields
    }

    pub(crate) fn push_norm_fields(&self, fields: &mut Vec<(&'static str, String)>) {
        // The norm of each layer stands in the list.
        if matches!(self.kind, ModelKind::Layers(_)) {
            if self.norms().any(|norm| norm != Norm::None) {
                self.push_fields_of_all_norms(fields);
            }
            return;
        }

        fields.push(("model.norm", self.norm.as_str().to_owned()));
        if let Norm::Group { groups } = self.norm {
            fields.push(("model.groups", groups.to_string()));
        }

        if let Norm::GhostBatch { size } = self.norm {
            fields.push(("model.ghost_size", size.to_string()));
        }

        if self.norm != Norm::None {
            self.push_fields_of_all_norms(fields);
        }
    }

    fn push_fields_of_all_norms(&self, fields: &mut Vec<(&'static str, String)>) {
        fields.push(("model.norm_eps", format_shortest(self.norm_eps)));
        fields.push(("model.affine", self.affine.to_string()));
    }

    /// Adds what hidden layers apply, and whether layers have a bias, where that is not what it was before these were fields.
    fn push_layer_fields(&self, fields: &mut Vec<(&'static str, String)>) {
        if self.activation != Activation::Relu && self.kind.has_hidden_layers() {
            let word = word_for_value(&ACTIVATIONS, self.activation);
            fields.push(("model.activation", word.to_owned()));
        }

        let usual = self.norm == Norm::None;
        if let Some(bias) = self.bias.filter(|bias| *bias != usual)
            && !matches!(self.kind, ModelKind::Layers(_))
        {
            fields.push(("model.bias", bias.to_string()));
        }
    }

    pub(crate) fn push_init_fields(&self, fields: &mut Vec<(&'static str, String)>) {
        match &self.init_file {
            Some(hash) => fields.push(("model.init.file", hash.to_string())),
            None => fields.push((
                "model.init.scheme",
                word_for_value(&SCHEMES, self.init).to_owned(),
            )),
        }

        fields.push(("model.init.scale", format_shortest(self.init_scale)));
        if !self.layer_scales.is_empty() {
            let scales = self
                .layer_scales
                .iter()
                .map(|(layer, x)| format!("{layer}={}", format_shortest(*x)));
            fields.push(("model.init.layers", scales.collect::<Vec<_>>().join(",")));
        }

        if self.zero_residual {
            fields.push(("model.init.zero_residual", "true".into()));
        }
    }
}

impl ModelKind {
    pub(crate) fn identity_fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Mlp { hidden } => {
                let widths: Vec<String> = hidden.iter().map(u32::to_string).collect();
                vec![
                    ("model.kind", "mlp".into()),
                    ("model.hidden", widths.join(",")),
                ]
            }
            Self::Cnn4 { width } => vec![
                ("model.kind", "cnn4".into()),
                ("model.width", width.to_string()),
            ],
            Self::Preresnet { depth, widen } => vec![
                ("model.kind", "preresnet".into()),
                ("model.depth", depth.to_string()),
                ("model.widen", widen.to_string()),
            ],
            Self::Vgg { depth, width } => vec![
                ("model.kind", "vgg".into()),
                ("model.depth", depth.layer_count().to_string()),
                ("model.width", width.to_string()),
            ],
            Self::Layers(list) => vec![
                ("model.kind", "layers".into()),
                ("model.layers", list.identity_text()),
            ],
            Self::Toy(toy) => toy.identity_fields(),
            Self::Empty => vec![("model.kind", "empty".into())],
            Self::Program(cell) => vec![("program.values", cell.identity_text())],
        }
    }
}

impl Toy {
    pub(crate) fn identity_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("model.kind", "toy".into()),
            ("model.dim", self.dim.to_string()),
            ("model.noise", format_shortest(self.noise)),
        ];
        if let Some(start) = &self.start {
            let start: Vec<String> = start.iter().map(|x| format_shortest(*x)).collect();
            fields.push(("model.start", start.join(",")));
        }

        fields
    }
}

impl DataConfig {
    pub(crate) fn identity_fields(&self) -> Vec<(&'static str, String)> {
        let dataset = match self.dataset {
            DatasetName::File(data) => data.hash.to_string(),
            name => name.as_str().to_owned(),
        };
        let mut fields = vec![
            ("data.dataset", dataset),
            ("data.train", self.train.to_string()),
            ("data.test", self.test.to_string()),
            ("data.order", word_for_value(&ORDERS, self.order).to_owned()),
        ];

        if self.validation > 0 {
            fields.push(("data.validation", self.validation.to_string()));
        }

        if self.augment != Augment::None {
            fields.push((
                "data.augment",
                word_for_value(&AUGMENTS, self.augment).to_owned(),
            ));
        }

        if self.label_noise > 0.0 {
            fields.push(("data.label_noise", format_shortest(self.label_noise)));
        }
        if !self.standardize {
            fields.push(("data.standardize", "false".into()));
        }

        fields
    }
}

impl TrainConfig {
    pub(crate) fn identity_fields(
        &self,
        to_steps: impl Fn(Length) -> u64,
    ) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("train.lr", format_shortest(self.lr)),
            ("train.wd", format_shortest(self.wd)),
            ("train.optimizer.momentum", format_shortest(self.momentum)),
            ("train.optimizer.nesterov", self.nesterov.to_string()),
        ];

        self.push_loss_and_optimizer(&mut fields);
        self.push_schedules(&mut fields, to_steps);
        fields
    }

    fn push_loss_and_optimizer(&self, fields: &mut Vec<(&'static str, String)>) {
        match self.loss {
            Loss::CrossEntropy { smoothing } => {
                fields.push(("train.loss.label_smoothing", format_shortest(smoothing)))
            }
            Loss::Mse => fields.push(("train.loss.kind", "mse".into())),
        }

        if let Some(Adam {
            beta1,
            beta2,
            eps,
            decay,
        }) = self.adam
        {
            let kind = match decay {
                AdamDecay::Coupled => "adam",
                AdamDecay::Decoupled => "adamw",
            };
            fields.push(("train.optimizer.kind", kind.into()));
            fields.push(("train.optimizer.beta1", format_shortest(beta1)));
            fields.push(("train.optimizer.beta2", format_shortest(beta2)));
            fields.push(("train.optimizer.eps", format_shortest(eps)));
        }
        self.push_step_rules(fields);
    }

    fn push_step_rules(&self, fields: &mut Vec<(&'static str, String)>) {
        if let Some(clip_norm) = self.clip_norm {
            fields.push(("train.clip_norm", format_shortest(clip_norm)));
        }
        if !self.lr_on.is_empty() {
            fields.push(("train.lr_on", self.lr_on.identity_text()));
        }
        if let Some(sam) = self.sam {
            fields.push(("train.sam.rho", format_shortest(sam.rho)));
        }
    }

    fn push_schedules(
        &self,
        fields: &mut Vec<(&'static str, String)>,
        to_steps: impl Fn(Length) -> u64,
    ) {
        if !self.schedule.is_empty() {
            let schedule: Vec<String> = self
                .schedule
                .iter()
                .map(|s| s.identity_text(&to_steps))
                .collect();
            fields.push(("train.schedule", schedule.join(";")));
        }

        if self.wd_on != WeightDecayScope::All {
            fields.push((
                "train.wd_on",
                word_for_value(&WEIGHT_DECAY_SCOPES, self.wd_on).to_owned(),
            ));
        }

        if let Some(Average { decay, from, every }) = self.average {
            let kind = decay.map_or_else(
                || "swa".to_owned(),
                |decay| format!("ema {}", format_shortest(decay)),
            );
            fields.push((
                "train.average",
                format!("{kind} from {} every {}", to_steps(from), to_steps(every)),
            ));
        }

        if let Some(AddedNoise { images, pairs }) = self.added_noise {
            fields.push(("train.added_noise.images", images.to_string()));
            fields.push(("train.added_noise.pairs", pairs.to_string()));
        }

        if let Some(curve) = &self.curve {
            fields.push(("train.schedule", curve.identity_text(&to_steps)));
        }
    }
}

impl TrialConfig {
    /// Dotted paths and canonical values of all fields that a trial's result depends on: the identity of a cell.
    ///
    /// A field added later appears here only where it differs from its default, so that old cells keep their identity.
    pub fn identity_fields(&self) -> Vec<(&'static str, String)> {
        if let ModelKind::Program(cell) = &self.model.kind {
            let mut fields = self.model.kind.identity_fields();
            if cell.has_data {
                fields.extend(self.data.identity_fields());
            }
            return fields;
        }

        let mut fields = self.data.identity_fields();
        if let Some(start) = &self.results_start {
            fields.push(("model.init.results", start.identity_text()));
        }
        fields.push(("train.batch_size", self.effective_batch_size().to_string()));
        fields.push(("train.steps", self.total_steps().to_string()));
        fields.extend(self.model.identity_fields());
        fields.extend(
            self.train
                .identity_fields(|length| self.length_in_steps(length)),
        );

        fields
    }
}
