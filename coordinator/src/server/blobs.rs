//! Files named by the hash of their content, in a folder of the store.

use ergodic_common::ids::FileHash;
use ergodic_proto::atomic_file::{Durability, FileAccess, StagedFile};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::blob_cache::BlobCache;
use crate::store::ReferencedBlobs;

/// A folder of files named by the BLAKE3 hash of their content.
#[derive(Debug, Clone)]
pub struct BlobStore {
    folder: PathBuf,
    /// Where other stores of this user have the same files.
    cache: Option<BlobCache>,
    /// Files that a sender was promised to exist, and that no row names yet; they are not removed.
    /// The promise spares senders a second upload. Independent of it, the writer checks that the
    /// files named by a write exist (`store/writer.rs`).
    reservations: Arc<Mutex<HashMap<FileHash, BlobReservation>>>,
}

/// The reason why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The file does not exist.
    #[error("it is missing")]
    Missing,
    /// The file has another hash than its name.
    #[error("it is damaged: it does not have its hash any more")]
    Damaged,
    /// The file exists and may be intact, but reading it fails because of a disk or a limit.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// Reservations of one file, which several senders may have.
#[derive(Debug)]
struct BlobReservation {
    count: usize,
    reserved_at: Instant,
}

/// Time after which a sender that reserved a file is assumed to be gone.
const RESERVATION_TTL: Duration = Duration::from_secs(3600);

impl BlobStore {
    /// The store of files in this folder, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            cache: None,
            reservations: Arc::default(),
        }
    }

    /// Shares what [`Self::store_blob`] stores with other stores.
    pub fn with_cache(self, cache: Option<BlobCache>) -> Self {
        Self { cache, ..self }
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of the file with this hash, which depends on the hash alone.
    pub fn blob_path(&self, hash: &FileHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }

    /// Whether the file with this hash exists.
    pub fn has_blob(&self, hash: &FileHash) -> bool {
        self.blob_path(hash).exists()
    }

    /// Whether the file with this hash exists. If so, it is kept until [`Self::release`].
    pub fn reserve(&self, hash: &FileHash) -> bool {
        let mut reservations = self.lock_reservations();
        let is_present = self.has_blob(hash);
        if is_present {
            add_reservation(&mut reservations, hash);
        }
        is_present
    }

    /// Releases a reservation of each of these files, because whatever was to name them was stored
    /// or given up.
    pub fn release<'a>(&self, hashes: impl IntoIterator<Item = &'a FileHash>) {
        let mut reservations = self.lock_reservations();
        for hash in hashes {
            if let Some(reservation) = reservations.get_mut(hash) {
                reservation.count -= 1;
                if reservation.count == 0 {
                    reservations.remove(hash);
                }
            }
        }
    }

    /// Removes a file that nothing names any more; returns its size in bytes. Keeps a reserved one.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_unreserved(&self, hash: &FileHash) -> std::io::Result<Option<u64>> {
        let mut reservations = self.lock_reservations();
        reservations.retain(|_, reservation| reservation.reserved_at.elapsed() < RESERVATION_TTL);
        let path = self.blob_path(hash);
        match std::fs::metadata(&path) {
            Ok(there) if !reservations.contains_key(hash) => {
                std::fs::remove_file(path).map(|()| Some(there.len()))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks that a file has the hash in its name.
    ///
    /// # Errors
    /// The file has another hash, or cannot be read now.
    pub fn verify_blob(&self, hash: &FileHash) -> Result<(), BlobError> {
        let mut hasher = blake3::Hasher::new();
        let read = File::open(self.blob_path(hash))
            .and_then(|file| hasher.update_reader(file).map(|_| ()));
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(BlobError::Missing),
            Err(error) => Err(BlobError::Unreadable(error.to_string())),
            Ok(()) if FileHash::from(hasher.finalize()) != *hash => Err(BlobError::Damaged),
            Ok(()) => Ok(()),
        }
    }

    /// Renames a damaged file, so that an intact one can take its place.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn mark_damaged(&self, hash: &FileHash) -> std::io::Result<()> {
        let path = self.blob_path(hash);
        std::fs::rename(&path, path.with_extension("damaged"))
    }

    fn lock_reservations(&self) -> MutexGuard<'_, HashMap<FileHash, BlobReservation>> {
        self.reservations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a file and reserves it. With a cache, the file is a link to the one there, or becomes the one there; a cache
    /// that cannot be used costs the space of a copy.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn store_blob(&self, hash: &FileHash, bytes: &[u8]) -> std::io::Result<()> {
        if self.reserve(hash) {
            return Ok(());
        }
        let linked = self.link_cached_blob(hash, bytes);
        if matches!(linked, Ok(true)) {
            return Ok(());
        }

        let mut part = PartialFile::create_in(&self.folder)?;
        part.write_content(bytes)?;
        part.store_as_blob(self, hash)?;

        let shared = linked.and_then(|_| match &self.cache {
            Some(cache) => cache.add_link(&self.blob_path(hash), hash),
            None => Ok(()),
        });
        if let Err(error) = shared {
            tracing::info!(%hash, %error, "the file is not shared with other stores");
        }

        Ok(())
    }

    /// Links a file of the cache into the store and reserves it. Returns whether the cache has it.
    fn link_cached_blob(&self, hash: &FileHash, bytes: &[u8]) -> std::io::Result<bool> {
        let Some(cache) = &self.cache else {
            return Ok(false);
        };
        let path = self.blob_path(hash);

        // Reserved before it has its name, so that nobody removes it in between.
        add_reservation(&mut self.lock_reservations(), hash);
        let linked = std::fs::create_dir_all(&self.folder)
            .and_then(|()| cache.link_to(&path, hash, bytes))
            .and_then(|is_linked| File::open(&self.folder)?.sync_all().map(|()| is_linked));
        if !matches!(linked, Ok(true)) {
            self.release([hash]);
        }
        linked
    }
}

fn add_reservation(reservations: &mut HashMap<FileHash, BlobReservation>, hash: &FileHash) {
    let reservation = reservations.entry(*hash).or_insert(BlobReservation {
        count: 0,
        reserved_at: Instant::now(),
    });
    reservation.count += 1;
    reservation.reserved_at = Instant::now();
}

impl ReferencedBlobs for BlobStore {
    fn has_blob(&self, hash: &FileHash) -> bool {
        self.has_blob(hash)
    }

    fn remove_unreserved(&self, hash: &FileHash) -> std::io::Result<Option<u64>> {
        self.remove_unreserved(hash)
    }
}

/// A file that is being written under a temporary name, and renamed when it is complete, so that
/// every file named by a hash has that hash. Dropping it removes the partial file.
pub(super) struct PartialFile {
    file: StagedFile,
    hasher: blake3::Hasher,
    len: u64,
}

impl PartialFile {
    pub(super) fn create_in(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            file: StagedFile::create_in(folder, FileAccess::AsUmask)?,
            hasher: blake3::Hasher::new(),
            len: 0,
        })
    }

    /// Writes bytes that count neither for the length nor for the hash of the content.
    pub(super) fn write_header(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(super) fn write_content(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    pub(super) fn content_hash(&self) -> FileHash {
        self.hasher.finalize().into()
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Renames the file to this path, replacing an existing file. The rename may not survive a
    /// power cut.
    pub(super) fn rename_to(self, path: &Path) -> std::io::Result<()> {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        self.file.persist(path, Durability::None)
    }

    /// Makes the file one of `blobs`, and reserves it there.
    pub(crate) fn store_as_blob(self, blobs: &BlobStore, hash: &FileHash) -> std::io::Result<()> {
        // Reserved before it has its name, so that nobody removes it in between.
        add_reservation(&mut blobs.lock_reservations(), hash);
        self.file
            .persist(&blobs.blob_path(hash), Durability::FileAndDirectory)
            .inspect_err(|_| blobs.release([hash]))
    }
}
