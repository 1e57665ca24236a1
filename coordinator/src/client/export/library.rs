//! Reads datasets: lists those in a directory or object store, and reads their manifests.

use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_common::spec_file::suggest::suggest_nearest;
use ergodic_proto::status::UserError;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::location::{DatasetRoot, MANIFEST_FILE};
use super::manifest::Manifest;

/// The word for the sweep that was launched last.
const LATEST: &str = "latest";

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

    /// Reads the manifests of these sweeps, each named by its id, a unique prefix of it, or
    /// "latest"; without names, those of all. They are in the order of launch.
    ///
    /// # Errors
    /// There is no dataset, or not the named one, or one cannot be read.
    pub(in crate::client) async fn read_manifests(
        &self,
        sweeps: &[String],
    ) -> Result<Vec<Manifest>, UserError> {
        let mut all = self.list_sweep_ids().await?;
        if !sweeps.is_empty() && sweeps.iter().all(|sweep| sweep != LATEST) {
            all = self.resolve_sweep_ids(sweeps, &all)?;
        }

        let mut manifests = Vec::with_capacity(all.len());
        for id in &all {
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
        if sweeps.iter().any(|sweep| sweep == LATEST) {
            manifests = self.select_with_latest(manifests, sweeps)?;
        }

        Ok(manifests)
    }

    /// Resolves the ids of these sweeps, each once and in order.
    fn resolve_sweep_ids(
        &self,
        sweeps: &[String],
        known: &[String],
    ) -> Result<Vec<String>, UserError> {
        let mut ids = Vec::with_capacity(sweeps.len());
        for sweep in sweeps {
            ids.push(self.resolve_sweep_id(sweep, known)?.to_owned());
        }

        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Selects the manifests of these sweeps, at least one of which is "latest".
    fn select_with_latest(
        &self,
        all: Vec<Manifest>,
        sweeps: &[String],
    ) -> Result<Vec<Manifest>, UserError> {
        let ids: Vec<String> = all
            .iter()
            .map(|manifest| manifest.sweep.id.clone())
            .collect();
        let latest = all
            .last()
            .map(|manifest| manifest.sweep.id.clone())
            .unwrap_or_default();
        let mut chosen = Vec::with_capacity(sweeps.len());
        for sweep in sweeps {
            chosen.push(match sweep.as_str() {
                LATEST => latest.as_str(),
                sweep => self.resolve_sweep_id(sweep, &ids)?,
            });
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

    fn resolve_sweep_id<'a>(&self, sweep: &str, ids: &'a [String]) -> Result<&'a str, UserError> {
        if let Some(id) = ids.iter().find(|id| *id == sweep) {
            return Ok(id);
        }

        let begin: Vec<&String> = ids.iter().filter(|id| id.starts_with(sweep)).collect();
        match begin[..] {
            [id] => Ok(id),
            [] => {
                let known = suggest_nearest(sweep, ids.iter().map(String::as_str));
                let message = format!(
                    "{}: there is no dataset of a sweep '{sweep}', {known}",
                    self.name
                );
                Err(UserError::new(ErrorCode::NotFound, message))
            }
            _ => {
                let several: Vec<&str> = begin.into_iter().map(String::as_str).collect();
                let message = format!(
                    "--sweep {sweep}: several ids begin with it: {}",
                    several.join(", ")
                );
                Err(UserError::new(ErrorCode::BadInput, message))
            }
        }
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
