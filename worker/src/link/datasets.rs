//! Datasets and other files on the worker, identified by hash: from its own files, its cache, or
//! the coordinator.

use std::path::{Path, PathBuf};

use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{Dataset, files};
use ergodic_common::ids::{DatasetHash, FileHash};
use ergodic_proto::atomic_file::{Durability, FileAccess, remove_abandoned_files, replace_file};
use ergodic_proto::cache_folder::cached_file_path;
use ergodic_proto::transfer;

use crate::link::Link;

/// The reason why a dataset cannot be obtained.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The coordinator did not respond.
    #[error("the dataset could not be fetched: {0}")]
    Transport(#[from] tonic::Status),
    /// The received bytes have another hash than the requested one.
    #[error("{0}")]
    Invalid(String),
    /// The cache cannot be written.
    #[error("{path}: cannot cache the dataset: {error}")]
    Cache {
        /// Path of the file in the cache.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
}

/// The folders that this worker searches for datasets.
#[derive(Debug, Clone)]
pub struct DatasetDirs {
    /// The value of `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// Folder of fetched datasets, one file per hash.
    pub cache_dir: PathBuf,
}

/// Obtains the dataset with this hash. `train` is the number of training images that its files were
/// read for.
///
/// # Errors
/// The file is not on this machine and cannot be fetched.
pub async fn obtain_dataset(
    dirs: &DatasetDirs,
    link: &mut Link,
    name: DatasetName,
    train: u32,
    hash: DatasetHash,
) -> Result<Dataset, FetchError> {
    let found = dirs.clone();
    let here = tokio::task::spawn_blocking(move || load_own_dataset(&found, name, train, hash));
    if let Ok(Some(dataset)) = here.await {
        return Ok(dataset);
    }
    let bytes = obtain_file(dirs, link, hash.into(), "dataset").await?;
    Dataset::decode(&bytes).map_err(|e| FetchError::Invalid(e.to_string()))
}

/// Obtains the file with this hash from the cache, or fetches it into the cache. `what` names it in
/// the log.
///
/// # Errors
/// The file is not on this machine and cannot be fetched.
pub async fn obtain_file(
    dirs: &DatasetDirs,
    link: &mut Link,
    hash: FileHash,
    what: &str,
) -> Result<Vec<u8>, FetchError> {
    let cache = dirs.cache_dir.clone();
    let here = tokio::task::spawn_blocking(move || read_cached_file(&cache, hash));
    if let Ok(Some(bytes)) = here.await {
        return Ok(bytes);
    }

    let bytes = transfer::fetch_file(&mut link.files, hash).await?;
    write_cached_file(&dirs.cache_dir, hash, &bytes)?;
    tracing::info!(
        hash = hash.to_string(),
        bytes = bytes.len(),
        "{what} fetched from the coordinator"
    );

    Ok(bytes)
}

/// Loads a dataset from this machine's own files, if they hold exactly the same images.
fn load_own_dataset(
    dirs: &DatasetDirs,
    name: DatasetName,
    train: u32,
    hash: DatasetHash,
) -> Option<Dataset> {
    // The hash decides whether these are the sweep's images; a file's name or date says nothing.
    let dataset = files::load_dataset(name, dirs.data_dir.as_deref(), train).ok()?;
    if DatasetHash::from(blake3::hash(&dataset.encode_canonical())) == hash {
        return Some(dataset);
    }

    tracing::warn!(
        dataset = name.as_str(),
        "the local files differ from those that the sweep was launched with; fetching these"
    );
    None
}

/// Reads a file from the cache; `None` if it is missing or damaged.
fn read_cached_file(cache: &Path, hash: FileHash) -> Option<Vec<u8>> {
    let bytes = std::fs::read(cached_file_path(cache, &hash)).ok()?;
    (FileHash::from(blake3::hash(&bytes)) == hash).then_some(bytes)
}

/// Several workers may share a cache: a file of a hash's name is whole.
fn write_cached_file(cache: &Path, hash: FileHash, bytes: &[u8]) -> Result<(), FetchError> {
    let path = cached_file_path(cache, &hash);
    let written = std::fs::create_dir_all(cache).and_then(|()| {
        remove_abandoned_files(cache);
        replace_file(&path, bytes, FileAccess::AsUmask, Durability::File)
    });
    written.map_err(|error| FetchError::Cache { path, error })
}
