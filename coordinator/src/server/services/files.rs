//! `FileService`: uploads, checks and fetches of files by hash.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_common::ids::FileHash;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::{CHUNK_BYTES, MAX_FILE_BYTES};
use ergodic_proto::v1;
use ergodic_proto::v1::file_service_server::FileService;
use tokio::task::block_in_place;
use tonic::{Request, Response, Status, Streaming};

use crate::server::blobs::PartialFile;
use crate::server::limits::{PageSender, ResponseStream};
use crate::server::{BlobStore, ServerContext};

/// Time limit for the next piece of a file.
pub(crate) const PIECE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct FileApi(pub(crate) Arc<ServerContext>);

#[tonic::async_trait]
impl FileService for FileApi {
    type FetchStream = ResponseStream<v1::FetchResponse>;

    async fn put(
        &self,
        request: Request<Streaming<v1::PutRequest>>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let _place = self.0.limits.uploads.try_acquire()?;
        let mut pieces = request.into_inner();
        let first = next_piece(&mut pieces)
            .await?
            .ok_or_else(|| Status::invalid_argument("PutRequest: nothing was sent"))?;
        let hash = parse_hash("PutRequest", first.hash)?;

        let blobs = &self.0.catalog.blobs;
        let mut part =
            PartialFile::create_in(blobs.folder()).map_err(|e| write_failed_status(blobs, &e))?;
        let mut chunk = first.chunk;

        loop {
            block_in_place(|| part.write_content(&chunk))
                .map_err(|e| write_failed_status(blobs, &e))?;

            if part.len() > MAX_FILE_BYTES {
                return Err(Status::invalid_argument(format!(
                    "the file has more than {MAX_FILE_BYTES} bytes"
                )));
            }

            match next_piece(&mut pieces).await? {
                None => break,
                Some(piece) => chunk = piece.chunk,
            }
        }

        if part.content_hash() != hash {
            return Err(Status::invalid_argument(format!(
                "the received file has the hash {}, not {}",
                part.content_hash(),
                hash
            )));
        }

        block_in_place(|| part.store_as_blob(blobs, &hash))
            .map_err(|e| write_failed_status(blobs, &e))?;
        Ok(Response::new(v1::PutResponse {}))
    }

    async fn has(
        &self,
        request: Request<v1::HasRequest>,
    ) -> Result<Response<v1::HasResponse>, Status> {
        let hash = parse_hash("HasRequest", request.into_inner().hash)?;
        Ok(Response::new(v1::HasResponse {
            present: self.0.catalog.blobs.reserve(&hash),
        }))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let permit = self.0.limits.fetches.try_acquire()?;
        let hash = parse_hash("FetchRequest", request.into_inner().hash)?;
        let file = open_blob(&self.0.catalog.blobs, &hash)?;

        let (pieces, stream) = PageSender::new(permit);
        tokio::task::spawn_blocking(move || {
            send_file(file, &pieces, |chunk| v1::FetchResponse { chunk })
        });
        Ok(Response::new(stream))
    }
}

fn open_blob(blobs: &BlobStore, hash: &FileHash) -> Result<File, UserError> {
    if blobs.folder().as_os_str().is_empty() {
        let message = "a database has no files: set ERGODIC_FILES to the directory that its coordinator has as --artifacts";
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    File::open(blobs.blob_path(hash)).map_err(|_| {
        let message = format!("no file with the hash {hash} is stored here");
        UserError::new(ErrorCode::NotFound, message)
    })
}

/// Waits a limited time for the next piece, because an upload holds one of few permits.
pub(crate) async fn next_piece(
    pieces: &mut Streaming<v1::PutRequest>,
) -> Result<Option<v1::PutRequest>, Status> {
    let next = tokio::time::timeout(PIECE_TIMEOUT, pieces.message()).await;
    next.map_err(|_| {
        Status::deadline_exceeded("the next piece of the file did not arrive in time")
    })?
}

pub(crate) fn parse_hash(message: &str, bytes: Vec<u8>) -> Result<FileHash, Status> {
    let hash = bytes.try_into();
    hash.map_err(|_| {
        Status::invalid_argument(format!("the field hash of {message} must have 32 bytes"))
    })
}

/// The status for a file that cannot be written. The peer may retry: space may be freed, or a disk
/// mounted again.
pub(crate) fn write_failed_status(blobs: &BlobStore, error: &std::io::Error) -> Status {
    let message = format!(
        "the coordinator cannot keep a file: {}: {error}",
        blobs.folder().display()
    );
    UserError::new(ErrorCode::Internal, message).into()
}

/// Sends the rest of a file in pieces.
pub(crate) fn send_file<T: Send + 'static>(
    mut file: File,
    pieces: &PageSender<T>,
    wrapped: impl Fn(Vec<u8>) -> T,
) {
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
