//! Upload and download of whole files, for workers and clients alike.

use std::time::Duration;

use ergodic_common::ids::FileHash;
use ergodic_common::program::DEFAULT_CHECKPOINT_LIMIT;
use tokio_stream::StreamExt as _;
use tonic::{Request, Status};

use crate::channel::connect::ClientChannel;
use crate::v1;
use crate::v1::file_service_client::FileServiceClient;

/// Bytes per piece of a file.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Maximum size of a file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 30;
/// Maximum size of a checkpoint as it travels, in bytes: the files of a program, with their names and what it has reported.
pub const MAX_CHECKPOINT_BYTES: u64 = DEFAULT_CHECKPOINT_LIMIT + (64 << 20);
/// Time limit for each piece of a file.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// Uploads a file, unless the coordinator has it, and waits until it is stored.
///
/// # Errors
/// The coordinator refuses the file.
pub async fn upload_file(
    client: &mut FileServiceClient<ClientChannel>,
    hash: FileHash,
    file: Vec<u8>,
) -> Result<(), Status> {
    if client
        .has(v1::HasRequest {
            hash: hash.to_vec(),
        })
        .await?
        .into_inner()
        .present
    {
        return Ok(());
    }

    let head = v1::PutRequest {
        hash: hash.to_vec(),
        chunk: Vec::new(),
    };
    let pieces = (0..file.len()).step_by(CHUNK_BYTES).map(move |at| {
        let chunk = file[at..(at + CHUNK_BYTES).min(file.len())].to_vec();
        v1::PutRequest {
            hash: Vec::new(),
            chunk,
        }
    });
    let messages = tokio_stream::iter([head]).chain(tokio_stream::iter(pieces));

    client.put(Request::new(messages)).await.map(|_| ())
}

/// Fetches the file with this hash.
///
/// # Errors
/// The coordinator refuses, or sends bytes with another hash.
pub async fn fetch_file(
    client: &mut FileServiceClient<ClientChannel>,
    hash: FileHash,
) -> Result<Vec<u8>, Status> {
    let mut stream = client
        .fetch(v1::FetchRequest {
            hash: hash.to_vec(),
        })
        .await?
        .into_inner();

    let mut file = Vec::new();
    loop {
        let piece = tokio::time::timeout(CHUNK_TIMEOUT, stream.message()).await;
        let piece = piece
            .map_err(|_| Status::unavailable("the coordinator stopped sending the file"))??;
        let Some(piece) = piece else { break };
        file.extend(piece.chunk);

        if file.len() as u64 > MAX_FILE_BYTES {
            return Err(Status::resource_exhausted(format!(
                "the file has more than {MAX_FILE_BYTES} bytes"
            )));
        }
    }

    match FileHash::from(blake3::hash(&file)) == hash {
        true => Ok(file),
        false => Err(Status::data_loss(
            "the file that came has another hash than was asked for",
        )),
    }
}
