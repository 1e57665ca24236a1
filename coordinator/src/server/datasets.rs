//! Datasets as the coordinator keeps them: pinned by hash at launch, handed to workers that lack them.

use std::path::PathBuf;

use ergodic_common::config::DatasetName;
use ergodic_common::dataset::{DataError, Dataset, DatasetSummary, files};
use ergodic_common::net::Net;
use ergodic_common::pinned_file::FilePin;
use ergodic_common::weights::Weights;
use ergodic_common::{Spec, TrialConfig};

use super::blobs::BlobStore;
use crate::records::DataPin;

/// Where datasets are found, and where their canonical forms are kept.
#[derive(Debug, Clone)]
pub struct DatasetCatalog {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// Canonical forms, and all other files that are kept.
    pub blobs: BlobStore,
}

impl DatasetCatalog {
    /// Finds the dataset of a new sweep, keeps its canonical form, and says what it is and what it looks like.
    ///
    /// # Errors
    /// Files that are missing or damaged or do not fit the sweep, a kept form that cannot be written.
    pub fn pin_dataset(
        &self,
        spec: &Spec,
        files: &[FilePin],
    ) -> Result<(DataPin, String), DataError> {
        let configs = spec.grid.class_configs();
        for pin in files {
            self.check_pinned_file(pin, &configs)?;
        }

        let Some(first) = configs.iter().find(|c| c.model.kind.needs_images()) else {
            return Ok((
                DataPin {
                    provenance: "no data".into(),
                    ..DataPin::default()
                },
                String::new(),
            ));
        };
        let name = first.data.dataset;
        if let Some(other) = configs.iter().find(|c| c.data.dataset != name) {
            let a = name.as_str();
            let b = other.data.dataset.as_str();
            return Err(DataError(format!(
                "a sweep trains on one dataset, this one on {a} and {b}: launch two sweeps"
            )));
        }

        let needed = configs
            .iter()
            .map(|c| c.data.train + c.data.validation)
            .max()
            .unwrap_or_default();
        let (
            hash,
            DatasetSummary {
                provenance: words,
                description: line,
            },
        ) = match name {
            DatasetName::File(data) => {
                let named = files
                    .iter()
                    .find(|pin| pin.hash == data.hash)
                    .map_or(name.as_str(), |pin| pin.path.as_str());
                let unread = |e| {
                    DataError(format!(
                        "{named}: the file did not come with the sweep: {e}"
                    ))
                };
                let bytes = std::fs::read(self.blobs.blob_path(&data.hash)).map_err(unread)?;

                (
                    data.hash,
                    Dataset::decode(&bytes)?.summarize_use(named, &data.hash, spec, &configs)?,
                )
            }
            name => {
                let dataset = files::load_dataset(name, self.data_dir.as_deref(), needed)?;
                let bytes = dataset.encode_canonical();
                let hash = *blake3::hash(&bytes).as_bytes();
                let looks = dataset.summarize_use(name.as_str(), &hash, spec, &configs)?;
                let unkept = |e| {
                    DataError(format!(
                        "{}: cannot keep the dataset: {e}",
                        self.blobs.blob_path(&hash).display()
                    ))
                };
                self.blobs.store_blob(&hash, &bytes).map_err(unkept)?;

                (hash, looks)
            }
        };

        Ok((
            DataPin {
                hash: Some(hash),
                train: needed,
                provenance: words,
            },
            line,
        ))
    }

    /// Whether a file that a sweep names is kept, is what it is said to be, and fits the networks that start from it.
    fn check_pinned_file(&self, pin: &FilePin, configs: &[TrialConfig]) -> Result<(), DataError> {
        let unread = |e| {
            DataError(format!(
                "{}: the file did not come with the sweep: {e}",
                pin.path
            ))
        };
        let bytes = std::fs::read(self.blobs.blob_path(&pin.hash)).map_err(unread)?;
        if FilePin::from_bytes(&pin.path, &bytes)? != *pin {
            return Err(DataError(format!(
                "{}: the file is not what the sweep was told it is",
                pin.path
            )));
        }

        for config in configs
            .iter()
            .filter(|config| config.model.init_file == Some(pin.hash))
        {
            if let Some(net) = Net::from_config(config) {
                let unfit = |e| DataError(format!("model.init.file: {}: {e}", pin.path));
                Weights::from_safetensors(&bytes, &net).map_err(unfit)?;
            }
        }

        Ok(())
    }
}
