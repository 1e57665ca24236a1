//! Datasets as the coordinator keeps them: pinned by hash at launch, handed to workers that lack them.

use std::path::PathBuf;

use ergodic_common::config::DatasetName;
use ergodic_common::dataset::{DataError, files};
use ergodic_common::net::Net;
use ergodic_common::pin::FilePin;
use ergodic_common::trial::hex;
use ergodic_common::weights::Weights;
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
    /// Files that are missing or damaged or do not fit the sweep, a kept form that cannot be written.
    pub fn pin(&self, spec: &Spec, files: &[FilePin]) -> Result<DataPin, DataError> {
        let configs = class_configs(spec);
        for pin in files {
            self.check(pin, &configs)?;
        }
        let Some(first) = configs.iter().find(|c| c.model.kind.sees_images()) else {
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
        let (hash, (all_train, all_test)) = match name {
            DatasetName::File(data) => (data.hash, (data.sizes.0 as usize, data.sizes.1 as usize)),
            name => self.keep(name, train)?,
        };
        let named = files.iter().find(|pin| pin.hash == hash).map_or(name.word(), |pin| pin.path.as_str());
        let words = format!(
            "{named}: {train} of {all_train} training images, {test} of {all_test} test images, class-balanced by seed {}; \
             blake3 {}",
            spec.seed,
            &hex(&hash)[..16]
        );
        Ok(DataPin { hash: Some(hash), train, words })
    }

    /// Keeps a dataset's canonical form. Its hash, and how many training and test images it has.
    fn keep(&self, name: DatasetName, train: u32) -> Result<([u8; 32], (usize, usize)), DataError> {
        let dataset = files::load(name, self.source.as_deref(), train)?;
        let sizes = (dataset.train.len(), dataset.test.len());
        let bytes = dataset.encode();
        drop(dataset);
        let hash = *blake3::hash(&bytes).as_bytes();
        let unkept = |e| DataError(format!("{}: cannot keep the dataset: {e}", self.shelf.place(&hash).display()));
        self.shelf.keep(&hash, &bytes).map_err(unkept)?;
        Ok((hash, sizes))
    }

    /// Whether a file that a sweep names is kept, is what it is said to be, and fits the networks that start from it.
    fn check(&self, pin: &FilePin, configs: &[TrialConfig]) -> Result<(), DataError> {
        let unread = |e| DataError(format!("{}: the file did not come with the sweep: {e}", pin.path));
        let bytes = std::fs::read(self.shelf.place(&pin.hash)).map_err(unread)?;
        if FilePin::of(&pin.path, &bytes)? != *pin {
            return Err(DataError(format!("{}: the file is not what the sweep was told it is", pin.path)));
        }
        for config in configs.iter().filter(|config| config.model.init_file == Some(pin.hash)) {
            if let Some(net) = Net::of(config) {
                let unfit = |e| DataError(format!("model.init.file: {}: {e}", pin.path));
                Weights::decode(&bytes, &net).map_err(unfit)?;
            }
        }
        Ok(())
    }
}

/// The config of one cell of every shape class: dataset and sizes do not vary within one.
fn class_configs(spec: &Spec) -> Vec<TrialConfig> {
    let grid = &spec.grid;
    let classes = (0..grid.classes()).filter(|class| grid.class_cells(*class) > 0);
    classes.filter_map(|class| grid.config(grid.class_cell(class, 0)).ok()).collect()
}
