//! The config of a program's trial, in which nothing but the program and the data of an experiment have a meaning.

use std::sync::Arc;

use crate::config::activation::Activation;
use crate::config::data::{Augment, DataConfig, VisitOrder};
use crate::config::model::{InitScheme, ModelConfig, ModelKind};
use crate::config::norm::Norm;
use crate::config::train::{Loss, TrainConfig, WeightDecayScope};
use crate::config::{Length, LrFactors, TrialConfig};
use crate::dataset::name::DatasetName;
use crate::program::ProgramCell;
use crate::spec_file::error::SpecError;
use crate::spec_file::reader::TableReader;

impl TrialConfig {
    /// The config of a cell of a program. Its data and training are placeholders, which mean nothing.
    pub fn of_program(cell: Arc<ProgramCell>) -> Self {
        Self {
            data: DataConfig {
                dataset: DatasetName::Glyphs,
                train: 1,
                test: 1,
                validation: 0,
                order: VisitOrder::Shuffle,
                augment: Augment::None,
                label_noise: 0.0,
                standardize: false,
            },
            model: ModelConfig {
                kind: ModelKind::Program(cell),
                norm: Norm::None,
                norm_eps: 0.0,
                affine: false,
                activation: Activation::Relu,
                bias: None,
                fixed_head: false,
                init: InitScheme::KaimingNormal,
                init_file: None,
                init_scale: 1.0,
                layer_scales: Vec::new(),
                zero_residual: false,
            },
            train: placeholder_training(),
            results_start: None,
        }
    }
}

impl TrialConfig {
    /// The config of a program's cell, with the data of an experiment.
    ///
    /// # Errors
    /// The data are wrong.
    pub(crate) fn read_of_program(
        cell: Arc<ProgramCell>,
        reader: &TableReader<'_>,
    ) -> Result<Self, SpecError> {
        let has_data = cell.has_data;
        let placeholder = Self::of_program(cell);
        match has_data {
            true => Ok(Self {
                data: DataConfig::read_of_experiment(reader)?,
                ..placeholder
            }),
            false => Ok(placeholder),
        }
    }

    /// Whether a trial gets a dataset: every network, and an experiment with `[data]`.
    pub fn uses_dataset(&self) -> bool {
        match self.model.kind.program() {
            Some(cell) => cell.has_data,
            None => self.model.kind.needs_images(),
        }
    }
}

impl ModelKind {
    /// The program that is the trial, with its values, if it is one.
    pub fn program(&self) -> Option<&Arc<ProgramCell>> {
        match self {
            Self::Program(cell) => Some(cell),
            _ => None,
        }
    }
}

/// A training of no steps.
fn placeholder_training() -> TrainConfig {
    TrainConfig {
        length: Length::Steps(0),
        batch_size: 1,
        lr: 0.0,
        wd: 0.0,
        wd_on: WeightDecayScope::All,
        momentum: 0.0,
        nesterov: false,
        adam: None,
        clip_norm: None,
        lr_on: LrFactors::default(),
        sam: None,
        loss: Loss::CrossEntropy { smoothing: 0.0 },
        schedule: Vec::new(),
        curve: None,
        average: None,
        added_noise: None,
    }
}
