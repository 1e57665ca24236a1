//! `FileService`: files named by their hash, in a folder of the store.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ergodic_common::ErrorCode;
use ergodic_common::trial::to_hex;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::{CHUNK_BYTES, MAX_FILE_BYTES};
use ergodic_proto::v1;
use ergodic_proto::v1::file_service_server::FileService;
use tokio::task::block_in_place;
use tonic::{Request, Response, Status, Streaming};

use super::ServerContext;
use super::limits::{PageSender, ResponseStream};
use crate::store::ReferencedBlobs;

/// How long the next piece of a file may take to come.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

/// A folder of files named by the BLAKE3 hash of their content.
#[derive(Debug, Clone)]
pub struct BlobStore {
    folder: PathBuf,
    /// Files that somebody was told are here, and of which no row is known yet: they are not removed. It is a courtesy, which
    /// spares senders a second time; what is stored names files that are there in any case (`store/writer.rs`).
    reservations: Arc<Mutex<HashMap<[u8; 32], BlobReservation>>>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It was read, and is another one.
    #[error("it is damaged: it does not have its hash any more")]
    Damaged,
    /// It is there, and may be sound: a disk, or a limit, hinders its reading.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// Several may have been told of one file.
#[derive(Debug)]
struct BlobReservation {
    count: usize,
    reserved_at: Instant,
}

/// Whoever was told so long ago that a file is here has gone.
const RESERVATION_TTL: Duration = Duration::from_secs(3600);

impl BlobStore {
    /// The shelf in this folder, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, reservations: Arc::default() }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The place of the file of this hash, made from the hash alone.
    pub fn blob_path(&self, hash: &[u8; 32]) -> PathBuf {
        self.folder.join(to_hex(hash))
    }

    /// Whether the file of this hash is there.
    pub fn has_blob(&self, hash: &[u8; 32]) -> bool {
        self.blob_path(hash).exists()
    }

    /// Whether the file of this hash is there. If so, it stays until what names it has been stored, or was given up.
    pub fn reserve(&self, hash: &[u8; 32]) -> bool {
        let mut promised = self.lock_reservations();
        let kept = self.has_blob(hash);
        if kept {
            add_reservation(&mut promised, hash);
        }
        kept
    }

    /// What was to name these files has been stored, or was given up.
    pub fn release<'a>(&self, hashes: impl IntoIterator<Item = &'a [u8; 32]>) {
        let mut promised = self.lock_reservations();
        for hash in hashes {
            if let Some(promise) = promised.get_mut(hash) {
                promise.count -= 1;
                if promise.count == 0 {
                    promised.remove(hash);
                }
            }
        }
    }

    /// Removes a file that nothing names any more; how many bytes it had. One that was promised stays.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_unreserved(&self, hash: &[u8; 32]) -> std::io::Result<Option<u64>> {
        let mut promised = self.lock_reservations();
        promised.retain(|_, promise| promise.reserved_at.elapsed() < RESERVATION_TTL);
        let place = self.blob_path(hash);
        match std::fs::metadata(&place) {
            Ok(there) if !promised.contains_key(hash) => std::fs::remove_file(place).map(|()| Some(there.len())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a file is what its name says.
    ///
    /// # Errors
    /// It is not, or that cannot be told now.
    pub fn verify_blob(&self, hash: &[u8; 32]) -> Result<(), BlobError> {
        let mut hasher = blake3::Hasher::new();
        let read = File::open(self.blob_path(hash)).and_then(|file| hasher.update_reader(file).map(|_| ()));
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(BlobError::Missing),
            Err(error) => Err(BlobError::Unreadable(error.to_string())),
            Ok(()) if hasher.finalize().as_bytes() != hash => Err(BlobError::Damaged),
            Ok(()) => Ok(()),
        }
    }

    /// Gives a file that is damaged another name, so that a sound one can take its place.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn mark_damaged(&self, hash: &[u8; 32]) -> std::io::Result<()> {
        let place = self.blob_path(hash);
        std::fs::rename(&place, place.with_extension("damaged"))
    }

    fn lock_reservations(&self) -> MutexGuard<'_, HashMap<[u8; 32], BlobReservation>> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a file, and promises it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store_blob(&self, hash: &[u8; 32], bytes: &[u8]) -> std::io::Result<()> {
        if self.reserve(hash) {
            return Ok(());
        }
        let mut part = PartialFile::create_in(&self.folder)?;
        part.write_content(bytes)?;
        part.store_as_blob(self, hash)
    }
}

fn add_reservation(promised: &mut HashMap<[u8; 32], BlobReservation>, hash: &[u8; 32]) {
    let promise = promised.entry(*hash).or_insert(BlobReservation { count: 0, reserved_at: Instant::now() });
    (promise.count, promise.reserved_at) = (promise.count + 1, Instant::now());
}

impl ReferencedBlobs for BlobStore {
    fn has_blob(&self, hash: &[u8; 32]) -> bool {
        self.has_blob(hash)
    }

    fn remove_unreserved(&self, hash: &[u8; 32]) -> std::io::Result<Option<u64>> {
        self.remove_unreserved(hash)
    }
}

/// A file that is being written: beside the others and renamed when it is whole, so that a file of a hash's name has that
/// hash. Dropped before that, it leaves nothing.
pub(super) struct PartialFile {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    len: u64,
}

impl PartialFile {
    pub(super) fn create_in(folder: &Path) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        std::fs::create_dir_all(folder)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Coordinators in two containers may share the folder, and have the same process id.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = folder.join(format!("{now}-{}-{number}.part", std::process::id()));
        let file = File::create_new(&path)?;
        Ok(Self { path, file, hasher: blake3::Hasher::new(), len: 0 })
    }

    /// Writes what is no part of the content: it counts neither for its length nor for its hash.
    pub(super) fn write_header(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(super) fn write_content(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    pub(super) fn content_hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// In this place from now on, instead of what was there. Whether that outlives a power cut is open.
    pub(super) fn rename_to(self, path: &Path) -> std::io::Result<()> {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::rename(&self.path, path)
    }

    fn store_as_blob(self, shelf: &BlobStore, hash: &[u8; 32]) -> std::io::Result<()> {
        self.file.sync_all()?;
        let mut promised = shelf.lock_reservations();
        std::fs::rename(&self.path, shelf.blob_path(hash))?;
        add_reservation(&mut promised, hash);
        drop(promised);
        sync_folder(&shelf.folder)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // After a rename there is nothing of this name any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A rename is durable when its folder is.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) struct FileApi(pub(super) Arc<ServerContext>);

#[tonic::async_trait]
impl FileService for FileApi {
    type FetchStream = ResponseStream<v1::FetchResponse>;

    async fn put(&self, request: Request<Streaming<v1::PutRequest>>) -> Result<Response<v1::PutResponse>, Status> {
        let _place = self.0.limits.uploads.try_acquire()?;
        let mut pieces = request.into_inner();
        let first =
            next_piece(&mut pieces).await?.ok_or_else(|| Status::invalid_argument("PutRequest: nothing was sent"))?;
        let hash = parse_hash("PutRequest", first.hash)?;
        let shelf = &self.0.catalog.blobs;
        let mut part = PartialFile::create_in(&shelf.folder).map_err(|e| write_failed_status(shelf, &e))?;
        let mut chunk = first.chunk;
        loop {
            block_in_place(|| part.write_content(&chunk)).map_err(|e| write_failed_status(shelf, &e))?;
            if part.len > MAX_FILE_BYTES {
                return Err(Status::invalid_argument(format!("the file has more than {MAX_FILE_BYTES} bytes")));
            }
            match next_piece(&mut pieces).await? {
                None => break,
                Some(piece) => chunk = piece.chunk,
            }
        }
        if part.content_hash() != hash {
            return Err(Status::invalid_argument(format!(
                "the file that came has the hash {}, not {}",
                to_hex(&part.content_hash()),
                to_hex(&hash)
            )));
        }
        block_in_place(|| part.store_as_blob(shelf, &hash)).map_err(|e| write_failed_status(shelf, &e))?;
        Ok(Response::new(v1::PutResponse {}))
    }

    async fn has(&self, request: Request<v1::HasRequest>) -> Result<Response<v1::HasResponse>, Status> {
        let hash = parse_hash("HasRequest", request.into_inner().hash)?;
        Ok(Response::new(v1::HasResponse { present: self.0.catalog.blobs.reserve(&hash) }))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let place = self.0.limits.fetches.try_acquire()?;
        let hash = parse_hash("FetchRequest", request.into_inner().hash)?;
        let file = File::open(self.0.catalog.blobs.blob_path(&hash)).map_err(|_| {
            Status::from(UserError::new(ErrorCode::NotFound, format!("no file of hash {} is kept here", to_hex(&hash))))
        })?;
        let (pieces, stream) = PageSender::new(place);
        tokio::task::spawn_blocking(move || send_file(file, &pieces, |chunk| v1::FetchResponse { chunk }));
        Ok(Response::new(stream))
    }
}

/// The next piece, which is not waited for for ever: an upload takes one of few places.
async fn next_piece(pieces: &mut Streaming<v1::PutRequest>) -> Result<Option<v1::PutRequest>, Status> {
    let next = tokio::time::timeout(PIECE_TIMEOUT, pieces.message()).await;
    next.map_err(|_| Status::deadline_exceeded("the next piece of the file did not come"))?
}

fn parse_hash(message: &str, bytes: Vec<u8>) -> Result<[u8; 32], Status> {
    let hash = bytes.try_into();
    hash.map_err(|_| Status::invalid_argument(format!("the field hash of {message} must have 32 bytes")))
}

/// Worth another try: space may be made, a disk mounted again.
fn write_failed_status(shelf: &BlobStore, error: &std::io::Error) -> Status {
    let message = format!("the coordinator cannot keep a file: {}: {error}", shelf.folder.display());
    UserError::new(ErrorCode::Internal, message).into()
}

/// Sends the rest of a file in pieces.
pub(super) fn send_file<T: Send + 'static>(mut file: File, pieces: &PageSender<T>, wrapped: impl Fn(Vec<u8>) -> T) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let piece = match file.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                chunk.truncate(n);
                Ok(wrapped(chunk))
            }
            Err(e) => Err(Status::internal(format!("cannot read the file: {e}"))),
        };
        let failed = piece.is_err();
        if !pieces.send_page_blocking(piece) || failed {
            return;
        }
    }
}
