//! Resolves the tables of one cell to a [`TrialConfig`], and checks that they go together.

use crate::config::{
    Curve, DataConfig, LR_ROLES, LayerList, LrScheduleForm, ModelConfig, ModelKind, Norm,
    ResultsStart, TrainConfig, TrialConfig, VisitOrder,
};
use crate::net::{self, NormScope, NormSpec};
use crate::pinned_file::FilePin;
use crate::program::ProgramCell;
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::{MOMENTS_GRAMMAR, ReadingMode};
use crate::spec_file::node::{SpecTable, SpecValue};
use crate::spec_file::reader::TableReader;
use crate::spec_file::suggest::suggest_nearest;

impl TrialConfig {
    /// Reads the `[data]`, `[model]` and `[train]` tables of a document, which names `files`. The
    /// caller reads the other keys.
    ///
    /// # Errors
    /// Names the first invalid field, by path and place.
    pub fn from_table(
        root: &SpecTable,
        files: &[FilePin],
        reading: ReadingMode,
    ) -> Result<Self, SpecError> {
        let reader = TableReader::from_document(root, reading).with_files(files);
        if let Some(cell) = ProgramCell::read(&reader)? {
            return Self::read_of_program(cell, &reader);
        }
        let model = ModelConfig::read_section(&reader)?;
        let results_start = ResultsStart::read_section(&reader.section("model")?)?;
        let data = DataConfig::read_section(&reader)?;
        let train =
            TrainConfig::read_section(&reader, &model.kind, &data, results_start.is_some())?;
        let config = Self {
            data,
            model,
            train,
            results_start,
        };
        config
            .check_fields_together(&reader)
            .map_err(SpecError::of_combination)?;
        Ok(config)
    }

    /// Checks that the fields go together, each of which is right by itself.
    fn check_fields_together(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        if matches!(self.model.kind, ModelKind::Toy(_)) && self.train.average.is_some() {
            return Err(reader
                .section("train")?
                .error_at("average", "kind = \"toy\" takes no averages"));
        }

        self.check_start(reader)?;
        self.check_batch(reader)?;
        self.check_added_noise(reader)?;
        self.check_ghost_batches(reader)?;
        self.check_shapes(reader)?;
        self.check_layer_names(reader)?;
        self.check_step_rules(reader)?;
        self.check_schedule(reader)
    }

    /// Checks that only networks start from the weights of other trials.
    fn check_start(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        if self.results_start.is_some() && !self.model.kind.needs_images() {
            let init = reader.section("model")?.section("init")?;
            return Err(init.error_at("results", "only networks start from the weights of others"));
        }
        Ok(())
    }

    /// Checks that the model fits the images, and the norm the model.
    pub(crate) fn check_shapes(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let (height, width, _) = self.data.dataset.image_shape();
        if matches!(self.model.kind, ModelKind::Vgg { .. }) && (height < 32 || width < 32) {
            let message = format!(
                "vgg halves its input five times and needs images of at least 32×32; {} has {height}×{width}: \
                 choose cifar10, or kind = \"cnn4\"",
                self.data.dataset.as_str()
            );
            return Err(reader.section("model")?.error_at("kind", message));
        }

        if let ModelKind::Layers(list) = &self.model.kind {
            return self.check_listed_shapes(list, reader);
        }
        let Norm::Group { groups } = self.model.norm else {
            return Ok(());
        };

        for layer in net::Net::from_config(self)
            .iter()
            .flat_map(|net| &net.layers)
        {
            let channels = layer.output.channels;
            if layer.norm.is_some() && !channels.is_multiple_of(groups as usize) {
                let message = format!(
                    "the {channels} channels of {} cannot be cut into {groups} equal groups; choose a divisor of it",
                    layer.name
                );
                return Err(reader.section("model")?.error_at("groups", message));
            }
        }

        Ok(())
    }

    /// Checks that listed layers fit the images, and each other.
    fn check_listed_shapes(
        &self,
        list: &LayerList,
        reader: &TableReader<'_>,
    ) -> Result<(), SpecError> {
        let (input, classes) = net::shape_of_images(self);
        match net::find_layer_misfit(&self.model, list, input, classes) {
            Some(misfit) => Err(locate_misfit(&reader.section("model")?, &misfit)),
            None => Ok(()),
        }
    }

    /// Checks that the batches of added noise fit the model and the memory of a step.
    pub(crate) fn check_added_noise(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let Some(noise) = self.train.added_noise else {
            return Ok(());
        };

        let train = reader.section("train")?;
        let batch = self.effective_batch_size();
        if !self.model.kind.needs_images() {
            let message = "there are no images whose gradients make the noise: for kind = \"toy\", set model.noise";
            return Err(train.error_at("added_noise", message));
        }
        if noise.images > batch {
            let message = format!(
                "a batch of {} images is larger than that of a step, {batch}: choose at most as many",
                noise.images
            );
            return Err(train.section("added_noise")?.error_at("images", message));
        }
        let norm = self.model.norm_over_images();
        if noise.images == 1 && norm == Some(Norm::Batch) {
            let message = "batch norm has no statistics of one image: choose 2 or more";
            return Err(train.section("added_noise")?.error_at("images", message));
        }
        match norm {
            Some(Norm::GhostBatch { size }) if !noise.images.is_multiple_of(size) => {
                let field = match self.find_ghost_item(size, &reader.section("model")?) {
                    Some(item) => format!("model.layers[{item}].ghost_size"),
                    None => "model.ghost_size".to_owned(),
                };
                let message = format!(
                    "a batch of {} images cannot be cut into ghost batches of {size} ({field}): choose a multiple",
                    noise.images
                );
                Err(train.section("added_noise")?.error_at("images", message))
            }
            _ => Ok(()),
        }
    }

    /// Checks that ghost batches of one size make up each batch. No step has fewer images, because the rest of an epoch
    /// is dropped.
    pub(crate) fn check_ghost_batches(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let batch = self.effective_batch_size();
        match self.model.norm_over_images() {
            Some(Norm::GhostBatch { size }) if !batch.is_multiple_of(size) => {
                let message = format!(
                    "a batch of {batch} images cannot be cut into ghost batches of {size}: choose a divisor of the batch size"
                );
                let model = reader.section("model")?;
                let key = "ghost_size";
                Err(match self.find_ghost_item(size, &model) {
                    Some(item) => locate_misfit(&model, &net::LayerMisfit { item, key, message }),
                    None => model.error_at(key, message),
                })
            }
            _ => Ok(()),
        }
    }

    /// The item of `model.layers` that gives ghost batches their size, if `model.ghost_size` does not.
    fn find_ghost_item(&self, size: u32, model: &TableReader<'_>) -> Option<usize> {
        let ModelKind::Layers(list) = &self.model.kind else {
            return None;
        };
        let mut layers = list.layers.iter();
        let layer = layers.find(|layer| layer.norm == Norm::GhostBatch { size })?;
        let (item, key) = self.find_own_norm(&layer.name, model)?;
        let is_of_model = key == "norm" && matches!(self.model.norm, Norm::GhostBatch { .. });
        (!is_of_model).then_some(item)
    }

    /// Checks that the named layers exist.
    pub(crate) fn check_layer_names(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        if self.model.layer_scales.is_empty() {
            return Ok(());
        }

        let Some(net) = net::Net::from_config(self) else {
            return Ok(());
        };
        for (layer, _) in &self.model.layer_scales {
            let with_weight = net.layers.iter().filter(|l| l.has_weight());
            let names = with_weight.map(|l| l.name.as_str());
            if !names.clone().any(|name| name == layer) {
                let hint = suggest_nearest(layer, names);
                let message = format!("the model has no layer '{layer}', {hint}");
                return Err(reader
                    .section("model")?
                    .section("init")?
                    .error_at("layers", message));
            }
        }

        Ok(())
    }

    /// Checks that the layers exist whose learning rate has a factor, and that the model and the noise go with the other rules
    /// of a step.
    fn check_step_rules(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let train = reader.section("train")?;
        if matches!(self.model.kind, ModelKind::Toy(_)) {
            if self.train.sam.is_some() {
                return Err(train.error_at(
                    "sam",
                    "kind = \"toy\" has no sharpness-aware steps: remove it",
                ));
            }
            if !self.train.lr_on.is_empty() {
                let message = "kind = \"toy\" has one tensor and no layers: set train.lr";
                return Err(train.error_at("lr_on", message));
            }
        }
        if self.train.sam.is_some() && self.train.added_noise.is_some() {
            let message = "its second gradient would lack the noise of train.added_noise: keep one of the two";
            return Err(train.error_at("sam", message));
        }

        self.check_lr_names(&train)
    }

    fn check_lr_names(&self, train: &TableReader<'_>) -> Result<(), SpecError> {
        let entries = train.read_table_entries("lr_on")?;
        if entries.is_empty() {
            return Ok(());
        }
        let Some(net) = net::Net::from_config(self) else {
            return Ok(());
        };

        // The names with a factor of 1 too, which stored sweeps may have without a layer.
        let lr_on = &self.train.lr_on;
        let written = entries.iter().map(|(name, _)| name.as_str());
        let written = written.filter(|name| !LR_ROLES.contains(name));
        let with_weight = net.layers.iter().filter(|l| l.has_weight());
        let layers = with_weight.map(|l| l.name.as_str());
        let unknown = lr_on
            .layer_names()
            .chain(written)
            .find(|name| !layers.clone().any(|layer| layer == *name));
        let Some(name) = unknown else {
            return self.check_lr_roles(&net, train);
        };
        let hint = suggest_nearest(name, LR_ROLES.into_iter().chain(layers));
        let message = match net.layers.iter().any(|l| l.name == name) {
            true => format!("the layer '{name}' has no parameters: remove its factor"),
            false => format!("the model has no layer or role '{name}', {hint}"),
        };
        if lr_on.layer_names().any(|layer| layer == name) {
            return Err(train.error_at("lr_on", message));
        }
        train.refuse_if_new("lr_on", || message)
    }

    /// Checks that the factor of each role changes a training.
    fn check_lr_roles(&self, net: &net::Net, train: &TableReader<'_>) -> Result<(), SpecError> {
        let params = net.params();
        let head = net.layers.len().saturating_sub(1);
        let is_idle = |role: &str| {
            let mut meant = params.iter().filter(|param| param.is_meant_by(role, head));
            !meant.any(|param| param.trained)
        };

        match self.train.lr_on.roles().find(|role| is_idle(role)) {
            Some(role) => train.refuse_if_new("lr_on", || {
                format!(
                    "the network has no trained parameter that '{role}' acts on: remove it, or set it to 1 for this network"
                )
            }),
            None => Ok(()),
        }
    }

    /// Checks that every entry of the schedule comes before the end and after the previous entry,
    /// because entries are applied in their order.
    pub(crate) fn check_schedule(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let steps = self.total_steps();
        for (at, entry) in self.train.schedule.iter().enumerate() {
            let from = self.length_in_steps(entry.from);
            let is_allowed = reader.reading_mode().grammar >= MOMENTS_GRAMMAR && from == steps;
            if from >= steps && !is_allowed {
                let message =
                    format!("entry {at} begins after {from} steps, but a trial has only {steps}");
                return Err(reader.section("train")?.error_at("schedule", message));
            }
        }

        let starts: Vec<u64> = self
            .train
            .schedule
            .iter()
            .map(|entry| self.length_in_steps(entry.from))
            .collect();
        if let Some(at) = (1..starts.len()).find(|at| starts[*at] <= starts[at - 1]) {
            reader.section("train")?.refuse_if_new("schedule", || {
                explain_schedule_order(at, starts[at - 1], starts[at])
            })?;
        }

        self.check_lr_points(reader)
    }

    /// Checks that the points of a piecewise linear learning rate ascend.
    fn check_lr_points(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let Some(Curve {
            form: LrScheduleForm::Piecewise { points },
            ..
        }) = &self.train.curve
        else {
            return Ok(());
        };
        if let Some(pair) = points
            .windows(2)
            .find(|pair| self.length_in_steps(pair[0].0) >= self.length_in_steps(pair[1].0))
        {
            let a = self.length_in_steps(pair[0].0);
            let b = self.length_in_steps(pair[1].0);
            let message = format!(
                "points must follow each other in time, but one after {a} steps precedes one after {b}"
            );
            return Err(reader
                .section("train")?
                .section("schedule")?
                .error_at("points", message));
        }

        Ok(())
    }

    /// Refuses new sweeps with a norm over a single number: normalizing it by its own mean leaves
    /// nothing. All cells of a shape class agree in this.
    pub(crate) fn check_norm(
        &self,
        root: &SpecTable,
        reading: ReadingMode,
    ) -> Result<(), SpecError> {
        if !reading.is_new {
            return Ok(());
        }

        let batch = self.effective_batch_size() as usize;
        // Builds the network, which costs time, only if a norm over one number is possible at all.
        let possible = batch == 1
            || self.model.norms().any(|norm| {
                matches!(
                    norm,
                    Norm::Group { .. } | Norm::Layer | Norm::GhostBatch { size: 1 }
                )
            });
        let net = if possible {
            net::Net::from_config(self)
        } else {
            None
        };
        let mut layers = net.iter().flat_map(|net| &net.layers);
        let found = layers.find_map(|layer| {
            let norm = layer.norm?;
            (normed_numbers(norm, layer.output, batch) == 1).then_some((layer, norm))
        });
        let Some((layer, norm)) = found else {
            return Ok(());
        };

        let (section, field, what) = match norm.scope {
            NormScope::Batch => (
                "train",
                "batch_size",
                "with batches of one image, batch norm",
            ),
            NormScope::GhostBatch(_) => (
                "model",
                "ghost_size",
                "with ghost batches of one image, batch norm",
            ),
            NormScope::Groups(_) => ("model", "norm", "this norm"),
        };
        let message = format!(
            "{what} subtracts the mean of one number from itself in the layer {}, and nothing is left to train on: \
             choose larger batches or layers, or another norm",
            layer.name
        );
        let section = TableReader::from_document(root, reading).section(section)?;
        let own = self.find_own_norm(&layer.name, &section);
        Err(match own.filter(|_| norm.scope != NormScope::Batch) {
            Some((item, key)) => locate_misfit(&section, &net::LayerMisfit { item, key, message }),
            None => section.error_at(field, message),
        })
    }

    /// The item of `model.layers`, and its key, that gives a layer a norm of its own.
    fn find_own_norm(&self, layer: &str, model: &TableReader<'_>) -> Option<(usize, &'static str)> {
        let ModelKind::Layers(list) = &self.model.kind else {
            return None;
        };
        let item = list.layers.iter().find(|l| l.name == layer)?.item;
        let items = model.read_node("layers")?.value.as_list()?;
        let SpecValue::Table(table) = &items.get(item)?.value else {
            return None;
        };
        let mut keys = ["groups", "ghost_size", "norm"].into_iter();
        let key = keys.find(|key| table.get(key).is_some())?;
        Some((item, key))
    }

    pub(crate) fn check_batch(&self, reader: &TableReader<'_>) -> Result<(), SpecError> {
        let batch = self.train.batch_size;
        let images = self.data.train;
        let validation = self.data.validation;
        if batch > images && self.data.order != VisitOrder::FullBatch {
            let data = reader.section("data")?;
            // The rest of the images is what is trained on, unless the file says how many.
            if data.read_node("train").is_none() && batch <= images + validation {
                let message = format!(
                    "the {validation} images to validate on leave {images} training images, fewer than a batch of {batch}: set \
                     data.validation or train.batch_size lower"
                );
                return Err(data.error_at("validation", message));
            }

            let message = format!(
                "a batch of {batch} is larger than the {images} training images; choose one of at most {images}"
            );
            return Err(reader.section("train")?.error_at("batch_size", message));
        }

        Ok(())
    }
}

/// The error of an item of `model.layers`, at its key if it has that.
fn locate_misfit(model: &TableReader<'_>, misfit: &net::LayerMisfit) -> SpecError {
    let path = model.path_to(&format!("layers[{}]", misfit.item));
    let item = model
        .read_node("layers")
        .and_then(|node| node.value.as_list()?.get(misfit.item));
    match item.map(|node| (&node.value, &node.origin)) {
        Some((SpecValue::Table(table), origin)) => {
            TableReader::from_list_element(table, origin, path, model.reading_mode())
                .error_at(misfit.key, misfit.message.clone())
        }
        _ => model.error_at("layers", misfit.message.clone()),
    }
}

fn explain_schedule_order(at: usize, before: u64, start: u64) -> String {
    if before == start {
        let earlier = at - 1;
        format!("the entries {earlier} and {at} both begin after {start} steps: write them as one")
    } else {
        format!(
            "entry {at} begins after {start} steps, and stands behind one that begins after {before}: write them in the \
             order in which they begin"
        )
    }
}

/// The number of values of an activation over which a norm takes each mean.
fn normed_numbers(norm: NormSpec, shape: net::ActivationShape, batch: usize) -> usize {
    let pixels = shape.height * shape.width;
    match norm.scope {
        NormScope::Batch => batch * pixels,
        NormScope::GhostBatch(size) => size * pixels,
        NormScope::Groups(groups) => shape.channels / groups.max(1) * pixels,
    }
}
