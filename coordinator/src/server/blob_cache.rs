//! Files that the stores of one user share: a file of a store is a hard link to the user's cache, and takes no space of its own.
//!
//! A link keeps the store whole: it stays when the cache is deleted, and becomes a copy when the folder is copied elsewhere.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ergodic_common::ids::FileHash;
use ergodic_proto::cache_folder::cached_file_path;

/// Bytes that are compared at a time.
const COMPARED_BYTES: usize = 1 << 20;

/// A folder of files named by the BLAKE3 hash of their content, as workers keep it too.
#[derive(Debug, Clone)]
pub struct BlobCache {
    folder: PathBuf,
}

impl BlobCache {
    /// The cache in this folder, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Links the file with this hash to a path on the same file system. Returns whether the cache has it; a damaged file counts
    /// as missing.
    ///
    /// # Errors
    /// The file cannot be read or linked, such as when the path is on another file system, or it belongs to another user, who
    /// could change it in the store.
    pub(super) fn link_to(&self, path: &Path, hash: &FileHash, bytes: &[u8]) -> io::Result<bool> {
        let cached = cached_file_path(&self.folder, hash);
        let file = match open_own_file(&cached) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        if !has_content(&file, bytes)? {
            return Ok(false);
        }

        // A store's file outlives a power cut. Whoever filled the cache may not have waited for the disk.
        file.sync_all()?;
        accept_existing(std::fs::hard_link(cached, path))?;
        Ok(true)
    }

    /// Makes the file at this path, which has this hash, one of the cache, where [`Self::link_to`] found none.
    ///
    /// # Errors
    /// The cache cannot be written, or is on another file system.
    pub(super) fn add_link(&self, path: &Path, hash: &FileHash) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let cached = cached_file_path(&self.folder, hash);
        match std::fs::remove_file(&cached) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // It was damaged, or there was none.
            _ => accept_existing(std::fs::hard_link(path, cached)),
        }
    }
}

fn open_own_file(path: &Path) -> io::Result<File> {
    let found = std::fs::symlink_metadata(path)?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is no file of this user"));
    }
    File::open(path)
}

fn has_content(mut file: &File, bytes: &[u8]) -> io::Result<bool> {
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }

    let mut buffer = vec![0; COMPARED_BYTES];
    for expected in bytes.chunks(COMPARED_BYTES) {
        let found = &mut buffer[..expected.len()];
        match file.read_exact(found) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if found != expected {
            return Ok(false);
        }
    }

    Ok(true)
}

/// Another program may have linked the same content meanwhile.
fn accept_existing(linked: io::Result<()>) -> io::Result<()> {
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use crate::server::blob_cache::*;
    use crate::server::blobs::BlobStore;

    /// Two stores and their cache, in folders of one file system.
    struct Folders {
        dir: tempfile::TempDir,
        bytes: Vec<u8>,
        hash: FileHash,
    }

    impl Folders {
        fn new() -> Self {
            // More than is compared at a time, and no multiple of it.
            let bytes: Vec<u8> = (0..COMPARED_BYTES + 1000)
                .map(|at| (at % 251) as u8)
                .collect();
            Self {
                dir: tempfile::tempdir().expect("a temporary directory"),
                hash: blake3::hash(&bytes).into(),
                bytes,
            }
        }

        fn cache(&self) -> PathBuf {
            self.dir.path().join("cache")
        }

        fn cached(&self) -> PathBuf {
            cached_file_path(&self.cache(), &self.hash)
        }

        /// Stores the file in a store of this name, and gives the path that it has there.
        fn store_in(&self, name: &str) -> PathBuf {
            let blobs = BlobStore::new(self.dir.path().join(name))
                .with_cache(Some(BlobCache::new(self.cache())));
            blobs
                .store_blob(&self.hash, &self.bytes)
                .expect("the store can be written");
            assert_eq!(blobs.verify_blob(&self.hash), Ok(()));
            blobs.blob_path(&self.hash)
        }
    }

    fn inode(path: &Path) -> u64 {
        std::fs::metadata(path).expect("a file").ino()
    }

    #[test]
    fn stores_share_a_file_and_each_keeps_it() {
        let folders = Folders::new();
        let first = folders.store_in("a");
        let second = folders.store_in("b");
        assert_eq!(inode(&first), inode(&folders.cached()));
        assert_eq!(inode(&first), inode(&second));

        // Without the cache and the first store, the second one is as it was, and fills the cache for the next one.
        std::fs::remove_dir_all(folders.cache()).expect("the cache can be deleted");
        std::fs::remove_file(&first).expect("the file can be deleted");
        assert_eq!(std::fs::read(&second).expect("a file"), folders.bytes);
        let third = folders.store_in("c");
        assert_eq!(inode(&third), inode(&folders.cached()));
    }

    #[test]
    fn a_file_that_a_worker_put_into_the_cache_is_linked() {
        let folders = Folders::new();
        std::fs::create_dir(folders.cache()).expect("a folder");
        std::fs::write(folders.cached(), &folders.bytes).expect("written");
        assert_eq!(inode(&folders.store_in("a")), inode(&folders.cached()));
    }

    #[test]
    fn a_damaged_file_of_the_cache_is_replaced_and_harms_no_store() {
        let folders = Folders::new();
        let mut changed = folders.bytes.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        let cut = folders.bytes[..COMPARED_BYTES].to_vec();

        for (name, content) in [("a", changed), ("b", cut), ("c", Vec::new())] {
            std::fs::create_dir_all(folders.cache()).expect("a folder");
            let _ = std::fs::remove_file(folders.cached());
            std::fs::write(folders.cached(), content).expect("written");
            let stored = folders.store_in(name);
            assert_eq!(inode(&stored), inode(&folders.cached()));
        }
    }

    #[test]
    fn a_cache_that_cannot_be_used_costs_a_copy() {
        let folders = Folders::new();
        // A file where the folder should be.
        std::fs::write(folders.cache(), "").expect("written");
        folders.store_in("a");

        // A link could lead to a file that somebody else changes.
        std::fs::remove_file(folders.cache()).expect("removed");
        std::fs::create_dir(folders.cache()).expect("a folder");
        let elsewhere = folders.dir.path().join("elsewhere");
        std::fs::write(&elsewhere, &folders.bytes).expect("written");
        symlink(&elsewhere, folders.cached()).expect("a link");
        let stored = folders.store_in("b");
        assert_ne!(inode(&stored), inode(&elsewhere));
        assert!(folders.cached().is_symlink(), "what is not ours stays");

        // A folder that cannot be written; root can write everywhere.
        std::fs::remove_file(folders.cached()).expect("removed");
        let read_only = std::fs::Permissions::from_mode(0o500);
        std::fs::set_permissions(folders.cache(), read_only).expect("set");
        folders.store_in("c");
        let writable = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folders.cache(), writable).expect("set");
    }

    #[test]
    fn a_cache_on_another_file_system_costs_a_copy_and_keeps_what_it_has() {
        let folders = Folders::new();
        let memory = Path::new("/dev/shm");
        let Ok(elsewhere) = tempfile::tempdir_in(memory) else {
            return;
        };
        let cached = cached_file_path(elsewhere.path(), &folders.hash);
        std::fs::write(&cached, &folders.bytes).expect("written");
        let blobs = BlobStore::new(folders.dir.path().join("a"))
            .with_cache(Some(BlobCache::new(elsewhere.path().to_owned())));

        blobs
            .store_blob(&folders.hash, &folders.bytes)
            .expect("the store can be written");
        assert_eq!(blobs.verify_blob(&folders.hash), Ok(()));
        assert_eq!(std::fs::read(&cached).expect("kept"), folders.bytes);
    }
}
