//! The location of a dataset: a directory, or a prefix in an object store. Objects are written
//! whole and never changed, except the manifest, which readers read first.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{File, TryLockError};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tokio_stream::StreamExt as _;
use url::Url;

pub(super) const MANIFEST_FILE: &str = "manifest.json";
/// Name of the lock file of the export that writes to a directory. Readers of tables look into the
/// tables' folders and do not see it.
const LOCK_FILE: &str = ".lock";

/// The location of one sweep's dataset.
pub(super) struct DatasetLocation {
    store: Arc<dyn ObjectStore>,
    /// Path or URL, for people.
    name: String,
    /// The directory and the lock on it. An object store has no lock: there, the manifest is
    /// replaced only if it is the one that was read.
    locked_dir: Option<(PathBuf, File)>,
}

/// The manifest that will be replaced.
pub(super) struct StoredManifest {
    pub(super) text: Option<Vec<u8>>,
    version: Option<UpdateVersion>,
}

/// The value of an option: a directory or a URL.
pub(super) enum DatasetRoot {
    Directory(PathBuf),
    Url(Url),
}

impl DatasetRoot {
    /// Parses the value of `option`: a URL such as `s3://bucket/prefix`, or else a directory.
    ///
    /// # Errors
    /// The text is empty, or a URL of no object store.
    pub(super) fn parse(option: &str, text: &str) -> Result<Self, UserError> {
        if text.trim().is_empty() {
            let message = format!(
                "{option}: expected a directory or the URL of an object store, found nothing"
            );
            return Err(UserError::new(ErrorCode::BadInput, message));
        }

        let Some((scheme, _)) = text.split_once("://") else {
            return Ok(Self::Directory(text.into()));
        };
        let why = match scheme {
            "s3" | "s3a" => match Url::parse(text) {
                Ok(url) => return Ok(Self::Url(url)),
                Err(e) => e.to_string(),
            },
            "gs" | "az" | "abfs" | "abfss" | "azure" => format!(
                "object stores of the kind '{scheme}' are not supported (write to a directory, and copy it there with the \
                 store's own tools)"
            ),
            _ => format!("'{scheme}' is not a known kind of object store"),
        };
        let message = format!("{option} {text}: {why}: expected a directory or s3://BUCKET/PREFIX");
        Err(UserError::new(ErrorCode::BadInput, message))
    }

    /// Opens the dataset of a sweep below this root.
    ///
    /// # Errors
    /// The root cannot be used, or another export is writing to that dataset.
    pub(super) fn open_sweep(&self, id: &str) -> Result<DatasetLocation, UserError> {
        match self {
            Self::Directory(dir) => open_directory(&dir.join("sweeps").join(id)),
            Self::Url(url) => open_object_store(url, id),
        }
    }

    /// Opens the store of this root for reading its datasets.
    ///
    /// # Errors
    /// There is no such directory, or the object store cannot be used.
    #[cfg(feature = "sql")]
    pub(super) fn open_for_reading(&self) -> Result<Arc<dyn ObjectStore>, UserError> {
        match self {
            Self::Url(url) => open_bucket(url, "--from")
                .map(|(store, prefix)| Arc::new(PrefixStore::new(store, prefix)) as _),
            Self::Directory(dir) => LocalFileSystem::new_with_prefix(dir)
                .map(|store| Arc::new(store) as _)
                .map_err(|e| {
                    let message = format!(
                        "--from {}: {e}: name the directory that `ergodic export` wrote to",
                        dir.display()
                    );
                    UserError::new(ErrorCode::BadInput, message)
                }),
        }
    }
}

fn open_directory(dir: &FilePath) -> Result<DatasetLocation, UserError> {
    std::fs::create_dir_all(dir).map_err(|e| directory_error(dir, &e))?;
    let lock = lock_directory(dir)?;
    let store = LocalFileSystem::new_with_prefix(dir).map_err(|e| directory_error(dir, &e))?;

    Ok(DatasetLocation {
        store: Arc::new(store),
        name: dir.display().to_string(),
        locked_dir: Some((dir.to_owned(), lock)),
    })
}

/// Takes the lock of the only export that may write to a directory. Dropping the file releases it.
fn lock_directory(dir: &FilePath) -> Result<File, UserError> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(LOCK_FILE))
        .map_err(|e| directory_error(dir, &e))?;

    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let message = format!(
                "{}: another export is writing there: wait for it, or stop it",
                dir.display()
            );
            Err(UserError::new(ErrorCode::Refused, message))
        }
        Err(TryLockError::Error(e)) => Err(directory_error(dir, &e)),
    }
}

fn directory_error(dir: &FilePath, why: &dyn Display) -> UserError {
    let message = format!(
        "{}: cannot be used for a dataset ({why}): name another directory with -o",
        dir.display()
    );
    UserError::new(ErrorCode::BadInput, message)
}

fn open_object_store(url: &Url, id: &str) -> Result<DatasetLocation, UserError> {
    let (store, prefix) = open_bucket(url, "-o")?;
    let name = format!("{}/sweeps/{id}", url.as_str().trim_end_matches('/'));
    Ok(DatasetLocation {
        store: Arc::new(PrefixStore::new(store, prefix.join("sweeps").join(id))),
        name,
        locked_dir: None,
    })
}

/// Whether the settings contain credentials or a way to obtain some. Without, `object_store` would
/// query the metadata address of cloud machines on the local network, which does not exist
/// elsewhere and which the user did not ask for.
fn has_credentials(settings: &BTreeMap<String, String>) -> bool {
    let skips_signature = settings
        .get("aws_skip_signature")
        .is_some_and(|skips| !["false", "0", "no", "off"].contains(&&**skips));
    let sources: [&[&str]; 5] = [
        &["aws_access_key_id", "aws_secret_access_key"],
        &["aws_web_identity_token_file", "aws_role_arn"],
        &["aws_container_credentials_relative_uri"],
        &[
            "aws_container_credentials_full_uri",
            "aws_container_authorization_token_file",
        ],
        &["aws_metadata_endpoint"],
    ];

    skips_signature
        || sources
            .iter()
            .any(|names| names.iter().all(|name| settings.contains_key(*name)))
}

/// Opens a bucket. Credentials and endpoints come from the environment, under the names that the
/// clouds' own tools use.
fn open_bucket(url: &Url, option: &str) -> Result<(Box<dyn ObjectStore>, Path), UserError> {
    let settings = std::env::vars_os().filter_map(|(name, value)| {
        Some((
            name.into_string().ok()?.to_ascii_lowercase(),
            value.into_string().ok()?,
        ))
    });

    // The library would also take names without the prefix, such as BUCKET, which mean something
    // else. An empty variable counts as unset.
    let settings = settings.filter(|(name, value)| name.starts_with("aws_") && !value.is_empty());
    let settings: BTreeMap<String, String> = settings.collect();
    if !has_credentials(&settings) {
        let message = format!(
            "{option} {url}: there are no credentials in the environment: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
             (files below ~/.aws are not read), AWS_SKIP_SIGNATURE=true for a public bucket, or AWS_METADATA_ENDPOINT to \
             use the role of a cloud machine"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    object_store::parse_url_opts(url, settings).map_err(|e| {
        let message =
            format!("{option} {url}: {e}: set what the object store needs in the environment, as in AWS_REGION");
        UserError::new(ErrorCode::BadInput, message)
    })
}

impl DatasetLocation {
    /// The name of the location for people: its path or URL.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether no other export can be writing there.
    pub(super) fn is_locked(&self) -> bool {
        self.locked_dir.is_some()
    }

    fn storage_error(&self, what: &str, error: &object_store::Error) -> UserError {
        UserError::new(
            ErrorCode::Internal,
            format!("{}: {what}: {error}", self.name),
        )
    }

    /// Tests the guarantees of an object store that datasets rely on: two concurrent exports must
    /// not undo each other's commits, and readers fetch parts of files.
    ///
    /// # Errors
    /// The store breaks a promise, or cannot be written.
    pub(super) async fn check_object_store(&self, nonce: &str) -> Result<(), UserError> {
        if self.is_locked() {
            return Ok(());
        }

        let path = Path::from(format!(".check-{nonce}"));
        let broken = self
            .find_broken_promise(&path)
            .await
            .map_err(|e| self.storage_error("it cannot be used", &e));
        let removed = self
            .store
            .delete(&path)
            .await
            .map_err(|e| self.storage_error(&format!("{path} cannot be removed"), &e));

        if let Some(broken) = broken? {
            let message = format!(
                "{}: cannot be used for a dataset: this object store {broken}: name a location in another one, or write to \
                 a directory with -o and copy it",
                self.name
            );
            return Err(UserError::new(ErrorCode::BadInput, message));
        }

        removed
    }

    /// Describes the guarantee that the object store breaks, if any.
    async fn find_broken_promise(
        &self,
        path: &Path,
    ) -> Result<Option<&'static str>, object_store::Error> {
        let Some(first) = self.try_put(path, "first", PutMode::Create).await? else {
            return Ok(Some("reports an existing object where none was written"));
        };

        let second = self.try_put(path, "second", PutMode::Create).await?;
        if second.is_some() {
            return Ok(Some(
                "ignores conditional writes (If-None-Match), so two exports would overwrite each other's work",
            ));
        }

        let third = self.try_put(path, "third", PutMode::Update(first.clone()));
        if third.await?.is_none() {
            return Ok(Some(
                "refuses conditional writes (If-Match) that it should accept",
            ));
        }

        let fourth = self.try_put(path, "fourth", PutMode::Update(first));
        if fourth.await?.is_some() {
            return Ok(Some(
                "ignores conditional writes (If-Match), so two exports would overwrite each other's work",
            ));
        }

        let part = self.store.get_range(path, 1..4).await?;
        Ok((part.as_ref() != b"hir")
            .then_some("does not return the requested part of an object (Range)"))
    }

    /// Writes an object; returns nothing if the condition of the mode does not hold.
    async fn try_put(
        &self,
        path: &Path,
        text: &'static str,
        mode: PutMode,
    ) -> Result<Option<UpdateVersion>, object_store::Error> {
        let payload = PutPayload::from_static(text.as_bytes());
        let put = self
            .store
            .put_opts(path, payload, PutOptions::from(mode))
            .await;

        match put {
            Ok(put) => Ok(Some(UpdateVersion {
                e_tag: put.e_tag,
                version: put.version,
            })),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the manifest, if there is one, with the version by which it can be replaced.
    pub(super) async fn read_manifest(&self) -> Result<StoredManifest, UserError> {
        match self.store.get(&Path::from(MANIFEST_FILE)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(StoredManifest {
                text: None,
                version: None,
            }),
            Err(error) => Err(self.storage_error("the manifest cannot be read", &error)),
            Ok(found) => {
                let version = UpdateVersion {
                    e_tag: found.meta.e_tag.clone(),
                    version: found.meta.version.clone(),
                };
                let text = found
                    .bytes()
                    .await
                    .map_err(|e| self.storage_error("the manifest cannot be read", &e))?;

                Ok(StoredManifest {
                    text: Some(text.to_vec()),
                    version: Some(version),
                })
            }
        }
    }

    /// Lists the paths of all files, with their sizes in bytes.
    pub(super) async fn list_files(&self) -> Result<BTreeMap<String, u64>, UserError> {
        let mut listed = self.store.list(None);
        let mut files = BTreeMap::new();
        while let Some(file) = listed.next().await {
            let file = file.map_err(|e| self.storage_error("its files cannot be listed", &e))?;
            files.insert(file.location.to_string(), file.size);
        }
        Ok(files)
    }

    /// Writes a new part.
    pub(super) async fn write_part(&self, path: &str, bytes: Vec<u8>) -> Result<(), UserError> {
        let put = self
            .store
            .put(&Path::from(path), PutPayload::from(bytes))
            .await;
        put.map_err(|e| self.storage_error(&format!("{path} cannot be written"), &e))?;
        self.sync_file(path).await
    }

    /// Replaces the manifest, if it is still the one that was read; returns the new one.
    pub(super) async fn replace_manifest(
        &self,
        found: &StoredManifest,
        text: Vec<u8>,
    ) -> Result<StoredManifest, UserError> {
        let mode = match (&self.locked_dir, &found.version) {
            (Some(_), _) => PutMode::Overwrite,
            (None, None) => PutMode::Create,
            (None, Some(version)) => PutMode::Update(version.clone()),
        };

        let payload = PutPayload::from(text.clone());
        let put = self
            .store
            .put_opts(&Path::from(MANIFEST_FILE), payload, PutOptions::from(mode))
            .await;
        let put = put.map_err(|error| self.manifest_write_error(&error))?;
        self.sync_file(MANIFEST_FILE).await?;
        let version = UpdateVersion {
            e_tag: put.e_tag,
            version: put.version,
        };
        Ok(StoredManifest {
            text: Some(text),
            version: Some(version),
        })
    }

    fn manifest_write_error(&self, error: &object_store::Error) -> UserError {
        match error {
            object_store::Error::AlreadyExists { .. }
            | object_store::Error::Precondition { .. } => {
                let message = format!(
                    "{}: another export wrote to it meanwhile: run this command again",
                    self.name
                );
                UserError::new(ErrorCode::Refused, message)
            }
            error => self.storage_error("the manifest cannot be written", error),
        }
    }

    /// Removes files; missing ones are no error.
    pub(super) async fn remove_files(&self, paths: &[String]) -> Result<(), UserError> {
        for path in paths {
            match self.store.delete(&Path::from(path.as_str())).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    return Err(self.storage_error(&format!("{path} cannot be removed"), &error));
                }
            }
        }

        Ok(())
    }

    /// Syncs a file and its folder, so that a file in a directory is durable before a manifest
    /// names it.
    async fn sync_file(&self, path: &str) -> Result<(), UserError> {
        let Some((dir, _)) = &self.locked_dir else {
            return Ok(());
        };
        let file = dir.join(path);
        let synced = tokio::task::spawn_blocking(move || {
            File::open(&file)?.sync_all()?;
            file.parent()
                .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        });

        let failed = |e: &dyn Display| {
            UserError::new(
                ErrorCode::Internal,
                format!("{}: {path} cannot be written: {e}", self.name),
            )
        };

        synced
            .await
            .map_err(|e| failed(&e))?
            .map_err(|e| failed(&e))
    }
}
