//! Datasets as the coordinator keeps them: pinned by hash at launch, handed to workers that lack them.

use std::path::PathBuf;

use ergodic_common::config::ModelKind;
use ergodic_common::dataset::{DataError, files};
use ergodic_common::trial::hex;
use ergodic_common::{Spec, TrialConfig};

use super::files::Shelf;
use crate::core::DataPin;

/// Where datasets are found, and where their canonical forms are kept.
#[derive(Debug, Clone)]
pub struct DataCatalog {
    /// `--data-dir`
    pub source: Option<PathBuf>,
    /// Canonical forms, and all other files that are kept.
    pub shelf: Shelf,
}

impl DataCatalog {
    /// Finds the dataset of a sweep, keeps its canonical form, and says what it is.
    ///
    /// # Errors
    /// Files that are missing or damaged, a kept form that cannot be written.
    pub fn pin(&self, spec: &Spec) -> Result<DataPin, DataError> {
        let configs = class_configs(spec);
        let Some(first) = configs.iter().find(|c| c.model.kind != ModelKind::Empty) else {
            return Ok(DataPin { words: "no data".into(), ..DataPin::default() });
        };
        let name = first.data.dataset;
        if let Some(other) = configs.iter().find(|c| c.data.dataset != name) {
            let (a, b) = (name.word(), other.data.dataset.word());
            return Err(DataError(format!(
                "a sweep trains on one dataset, this one on {a} and {b}: launch two sweeps"
            )));
        }
        let (train, test) = (configs.iter().map(|c| c.data.train).max(), configs.iter().map(|c| c.data.test).max());
        let (train, test) = (train.unwrap_or_default(), test.unwrap_or_default());
        let dataset = files::load(name, self.source.as_deref(), train)?;
        let (all_train, all_test) = (dataset.train.len(), dataset.test.len());
        let bytes = dataset.encode();
        drop(dataset);
        let hash = *blake3::hash(&bytes).as_bytes();
        let unkept = |e| DataError(format!("{}: cannot keep the dataset: {e}", self.shelf.place(&hash).display()));
        self.shelf.keep(&hash, &bytes).map_err(unkept)?;
        let words = format!(
            "{}: {train} of {all_train} training images, {test} of {all_test} test images, class-balanced by seed {}; \
             blake3 {}",
            name.word(),
            spec.seed,
            &hex(&hash)[..16]
        );
        Ok(DataPin { hash: Some(hash), train, words })
    }
}

/// The config of one cell of every shape class: dataset and sizes do not vary within one.
fn class_configs(spec: &Spec) -> Vec<TrialConfig> {
    let grid = &spec.grid;
    let classes = (0..grid.classes()).filter(|class| grid.class_cells(*class) > 0);
    classes.filter_map(|class| grid.config(grid.class_cell(class, 0)).ok()).collect()
}
