//! `FileService`: files named by their hash, in a folder of the store.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ergodic_common::ErrorCode;
use ergodic_common::trial::hex;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::{CHUNK, MAX_FILE};
use ergodic_proto::v1;
use ergodic_proto::v1::file_service_server::FileService;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;

/// A folder of files named by the BLAKE3 hash of their content.
#[derive(Debug, Clone)]
pub struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    /// The shelf in this folder, which need not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The place of the file of this hash, made from the hash alone.
    pub fn place(&self, hash: &[u8; 32]) -> PathBuf {
        self.folder.join(hex(hash))
    }

    /// Whether the file of this hash is there.
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.place(hash).exists()
    }

    /// Keeps a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, hash: &[u8; 32], bytes: &[u8]) -> std::io::Result<()> {
        if self.has(hash) {
            return Ok(());
        }
        let mut part = Part::begin(&self.folder)?;
        part.write(bytes)?;
        part.finish(self, hash)
    }
}

/// A file that is being written: beside the others and renamed when it is whole, so that a file of a hash's name has that
/// hash. Dropped before that, it leaves nothing.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    len: u64,
}

impl Part {
    pub(super) fn begin(folder: &Path) -> std::io::Result<Self> {
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
    pub(super) fn head(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// In this place from now on, instead of what was there. Whether that outlives a power cut is open.
    pub(super) fn place(self, path: &Path) -> std::io::Result<()> {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::rename(&self.path, path)
    }

    fn finish(self, shelf: &Shelf, hash: &[u8; 32]) -> std::io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, shelf.place(hash))?;
        sync_folder(&shelf.folder)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename there is nothing of this name any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A rename is durable when its folder is.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) struct Files(pub(super) Arc<Shared>);

type Pieces = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl FileService for Files {
    type FetchStream = Pieces;

    async fn put(&self, request: Request<Streaming<v1::PutRequest>>) -> Result<Response<v1::PutResponse>, Status> {
        let mut pieces = request.into_inner();
        let first = pieces.message().await?.ok_or_else(|| Status::invalid_argument("PutRequest: nothing was sent"))?;
        let hash = to_hash("PutRequest", first.hash)?;
        let shelf = &self.0.catalog.shelf;
        let mut part = Part::begin(&shelf.folder).map_err(|e| unkept(shelf, &e))?;
        let mut chunk = first.chunk;
        loop {
            block_in_place(|| part.write(&chunk)).map_err(|e| unkept(shelf, &e))?;
            if part.len > MAX_FILE {
                return Err(Status::invalid_argument(format!("the file has more than {MAX_FILE} bytes")));
            }
            match pieces.message().await? {
                None => break,
                Some(piece) => chunk = piece.chunk,
            }
        }
        if part.hash() != hash {
            return Err(Status::invalid_argument(format!(
                "the file that came has the hash {}, not {}",
                hex(&part.hash()),
                hex(&hash)
            )));
        }
        block_in_place(|| part.finish(shelf, &hash)).map_err(|e| unkept(shelf, &e))?;
        Ok(Response::new(v1::PutResponse {}))
    }

    async fn has(&self, request: Request<v1::HasRequest>) -> Result<Response<v1::HasResponse>, Status> {
        let hash = to_hash("HasRequest", request.into_inner().hash)?;
        Ok(Response::new(v1::HasResponse { kept: self.0.catalog.shelf.has(&hash) }))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Pieces>, Status> {
        let hash = to_hash("FetchRequest", request.into_inner().hash)?;
        let file = File::open(self.0.catalog.shelf.place(&hash)).map_err(|_| {
            Status::from(UserError::new(ErrorCode::NotFound, format!("no file of hash {} is kept here", hex(&hash))))
        })?;
        let (pieces, stream) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || send(file, &pieces, |chunk| v1::FetchResponse { chunk }));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn to_hash(message: &str, bytes: Vec<u8>) -> Result<[u8; 32], Status> {
    let hash = bytes.try_into();
    hash.map_err(|_| Status::invalid_argument(format!("the field hash of {message} must have 32 bytes")))
}

/// Worth another try: space may be made, a disk mounted again.
fn unkept(shelf: &Shelf, error: &std::io::Error) -> Status {
    let message = format!("the coordinator cannot keep a file: {}: {error}", shelf.folder.display());
    UserError::new(ErrorCode::Internal, message).into()
}

/// Sends the rest of a file in pieces.
pub(super) fn send<T>(mut file: File, pieces: &mpsc::Sender<Result<T, Status>>, wrapped: impl Fn(Vec<u8>) -> T) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let piece = match file.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                chunk.truncate(n);
                Ok(wrapped(chunk))
            }
            Err(e) => Err(Status::internal(format!("cannot read the file: {e}"))),
        };
        let failed = piece.is_err();
        if pieces.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}
