//! Datasets on the coordinator: pinned by hash at launch, and sent to workers that lack them.

use std::path::PathBuf;

use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{DataError, Dataset, DatasetSummary, files};
use ergodic_common::ids::{DatasetHash, FileHash};
use ergodic_common::named_files::{check_initial_weights, count_needed_images, find_dataset};
use ergodic_common::pinned_file::FilePin;
use ergodic_common::program::bundle;
use ergodic_common::{Spec, TrialConfig};

use super::blobs::BlobStore;
use crate::records::DataPin;

/// Finds datasets, and stores their canonical encodings.
#[derive(Debug, Clone)]
pub struct DatasetCatalog {
    /// The value of `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// Canonical encodings, and all other files.
    pub blobs: BlobStore,
}

impl DatasetCatalog {
    /// Finds the dataset of a new sweep and stores its canonical encoding. Returns what pins it,
    /// and a description.
    ///
    /// # Errors
    /// Files are missing or damaged or do not fit the sweep, or the canonical encoding cannot be
    /// written.
    pub fn pin_dataset(
        &self,
        spec: &Spec,
        files: &[FilePin],
    ) -> Result<(DataPin, String), DataError> {
        let configs = spec.grid.class_configs();
        for pin in files.iter().filter(|pin| pin.is_named_by_sweep_file()) {
            match pin.is_program_bundle() {
                true => self.check_program_bundle(pin, spec)?,
                false => self.check_pinned_file(pin, &configs)?,
            }
        }
        refuse_missing_bundle(spec, files)?;

        let Some(name) = find_dataset(&configs)? else {
            let pin = DataPin {
                provenance: "no data".into(),
                ..DataPin::default()
            };
            return Ok((pin, String::new()));
        };
        let needed = count_needed_images(&configs);

        let (hash, summary) = match name {
            DatasetName::File(data) => {
                let pin = files.iter().find(|pin| pin.hash == data.hash);
                let title = pin.map_or(name.as_str(), |pin| pin.path.as_str());
                let bytes = self.read_uploaded(&data.hash, title)?;
                let dataset = Dataset::decode(&bytes)?;
                let hash = data.dataset_hash();
                (hash, dataset.summarize_use(title, hash, spec, &configs)?)
            }
            name => self.keep_canonical(name, needed, spec, &configs)?,
        };

        let pin = DataPin {
            hash: Some(hash),
            train: needed,
            provenance: summary.provenance,
        };
        Ok((pin, summary.description))
    }

    /// Reads a named dataset, and stores its canonical encoding.
    fn keep_canonical(
        &self,
        name: DatasetName,
        needed: u32,
        spec: &Spec,
        configs: &[TrialConfig],
    ) -> Result<(DatasetHash, DatasetSummary), DataError> {
        let dataset = files::load_dataset(name, self.data_dir.as_deref(), needed)?;
        let bytes = dataset.encode_canonical();
        let hash = DatasetHash::from(blake3::hash(&bytes));
        let summary = dataset.summarize_use(name.as_str(), hash, spec, configs)?;
        let file = hash.into();
        self.blobs.store_blob(&file, &bytes).map_err(|e| {
            DataError(format!(
                "{}: cannot keep the dataset: {e}",
                self.blobs.blob_path(&file).display()
            ))
        })?;

        Ok((hash, summary))
    }

    /// Reads a file that was uploaded with a sweep.
    fn read_uploaded(&self, hash: &FileHash, title: &str) -> Result<Vec<u8>, DataError> {
        std::fs::read(self.blobs.blob_path(hash)).map_err(|e| {
            DataError(format!(
                "{title}: the file was not sent with the sweep: {e}"
            ))
        })
    }

    /// Checks that the files of a program are there, have the pinned content, and are those that the sweep file lists.
    fn check_program_bundle(&self, pin: &FilePin, spec: &Spec) -> Result<(), DataError> {
        let bytes = self.read_uploaded(&pin.hash, "program.files")?;
        let wrong = |why: String| DataError(format!("program.files: {why}"));
        if FilePin::of_program_bundle(&bytes) != *pin {
            return Err(wrong("their content is not what the sweep declares".into()));
        }
        let files = bundle::decode(&bytes).map_err(wrong)?;
        let listed = spec.program().map_or(&[][..], |program| &program.files);
        bundle::check_listed(&files, listed).map_err(wrong)
    }

    /// Checks that a file that a sweep names exists, has the pinned content, and fits the networks
    /// that start from it.
    fn check_pinned_file(&self, pin: &FilePin, configs: &[TrialConfig]) -> Result<(), DataError> {
        let bytes = self.read_uploaded(&pin.hash, &pin.path)?;
        if FilePin::from_bytes(&pin.path, &bytes)? != *pin {
            return Err(DataError(format!(
                "{}: the file's content is not what the sweep declares",
                pin.path
            )));
        }

        check_initial_weights(pin, &bytes, configs)?;
        Ok(())
    }
}

/// Refuses a program whose files were not sent.
fn refuse_missing_bundle(spec: &Spec, files: &[FilePin]) -> Result<(), DataError> {
    let needs_files = spec
        .program()
        .is_some_and(|program| !program.files.is_empty());
    match needs_files && !files.iter().any(FilePin::is_program_bundle) {
        true => Err(DataError(
            "program.files: the files were not sent with the sweep: launch it with `ergodic launch`"
                .to_owned(),
        )),
        false => Ok(()),
    }
}
