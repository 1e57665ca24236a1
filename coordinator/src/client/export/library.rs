//! Reads datasets: lists those in a directory or object store, and reads their manifests.

use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::location::{DatasetRoot, MANIFEST_FILE};
use super::manifest::Manifest;
use crate::client::resolve::{Asker, match_sweep};

/// A directory or object store with datasets.
pub(in crate::client) struct DatasetLibrary {
    pub(in crate::client) store: Arc<dyn ObjectStore>,
    /// The value of `--from`, for people.
    name: String,
}

impl DatasetLibrary {
    /// Opens the location that `--from` names.
    ///
    /// # Errors
    /// There is no such directory, or the object store cannot be used.
    pub(in crate::client) fn open(from: &str) -> Result<Self, UserError> {
        Ok(Self {
            store: DatasetRoot::parse("--from", from)?.open_for_reading()?,
            name: from.to_owned(),
        })
    }

    /// Reads the manifests of these sweeps, each named as in other commands; without names, those of all. They are in the order of
    /// launch.
    ///
    /// # Errors
    /// There is no dataset, or not the named one, or one cannot be read.
    pub(in crate::client) async fn read_manifests(
        &self,
        sweeps: &[String],
    ) -> Result<Vec<Manifest>, UserError> {
        let all = self.list_sweep_ids().await?;
        // Whole ids need no look at the other manifests.
        let are_ids = !sweeps.is_empty() && sweeps.iter().all(|sweep| all.contains(sweep));
        let wanted = all.iter().filter(|id| !are_ids || sweeps.contains(id));

        let mut manifests = Vec::new();
        for id in wanted {
            manifests.extend(self.read_manifest(id).await?);
        }

        if manifests.is_empty() {
            let message = format!(
                "{}: there is no dataset: `ergodic export ID -o {0}` writes one",
                self.name
            );
            return Err(UserError::new(ErrorCode::NotFound, message));
        }

        manifests.sort_by(|a, b| a.sweep.launched_at.total_cmp(&b.sweep.launched_at));
        match sweeps.is_empty() || are_ids {
            true => Ok(manifests),
            false => self.select_manifests(manifests, sweeps),
        }
    }

    /// Selects the manifests of these sweeps, each once.
    fn select_manifests(
        &self,
        all: Vec<Manifest>,
        sweeps: &[String],
    ) -> Result<Vec<Manifest>, UserError> {
        let known: Vec<v1::SweepStatus> = all
            .iter()
            .map(|manifest| v1::SweepStatus {
                id: manifest.sweep.id.clone(),
                name: manifest.sweep.name.clone(),
                ..v1::SweepStatus::default()
            })
            .collect();
        // A dataset may have come from anywhere, so all sweeps in it are one's own.
        let asker = Asker {
            principal: "",
            takes_others: true,
        };

        let mut chosen = Vec::with_capacity(sweeps.len());
        for sweep in sweeps {
            let found = match_sweep(&known, sweep, &asker).map_err(|error| {
                UserError::new(error.code, format!("{}: {}", self.name, error.message))
            })?;
            chosen.push(found.id);
        }
        Ok(all
            .into_iter()
            .filter(|manifest| chosen.contains(&manifest.sweep.id.as_str()))
            .collect())
    }

    /// Ids of sweeps that may have a dataset in the library.
    async fn list_sweep_ids(&self) -> Result<Vec<String>, UserError> {
        let listed = self
            .store
            .list_with_delimiter(Some(&Path::from("sweeps")))
            .await;
        let folders = listed
            .map_err(|e| self.storage_error("its sweeps cannot be listed", &e))?
            .common_prefixes;
        let mut ids: Vec<String> = folders
            .iter()
            .filter_map(|folder| Some(folder.filename()?.to_owned()))
            .collect();
        ids.sort_unstable();

        Ok(ids)
    }

    /// Reads the manifest of a sweep's dataset; `None` if its first export has not committed.
    async fn read_manifest(&self, id: &str) -> Result<Option<Manifest>, UserError> {
        let path = Path::from(format!("sweeps/{id}/{MANIFEST_FILE}"));
        let found = match self.store.get(&path).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => {
                found.map_err(|e| self.storage_error(&format!("{path} cannot be read"), &e))?
            }
        };
        let text = found
            .bytes()
            .await
            .map_err(|e| self.storage_error(&format!("{path} cannot be read"), &e))?;

        let manifest = Manifest::parse(&text).map_err(|why| {
            UserError::new(ErrorCode::BadInput, format!("{}: {path}: {why}", self.name))
        })?;
        Ok(Some(manifest))
    }

    fn storage_error(&self, what: &str, error: &object_store::Error) -> UserError {
        UserError::new(
            ErrorCode::Internal,
            format!("{}: {what}: {error}", self.name),
        )
    }
}
