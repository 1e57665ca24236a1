//! `KeepCheckpoint` and `FetchCheckpoint`: receive a checkpoint from the holder of a lease, and
//! send it to the next one.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ids::{Fence, FileHash, SweepId, SweepNumber, WorkerId};
use ergodic_common::{Spec, TrialKey};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::transfer::MAX_CHECKPOINT_BYTES;
use ergodic_proto::v1;
use tokio::sync::oneshot;
use tokio::task::block_in_place;
use tonic::{Status, Streaming};

use crate::records::SweepRow;
use crate::server::blobs::PartialFile;
use crate::server::checkpoints::{
    CheckpointHeader, IncomingCheckpoint, not_leased_status, write_failed_status,
};
use crate::server::context::ServerContext;
use crate::server::convert::fence_from_wire;
use crate::server::engine::WorkerEvent;
use crate::server::limits::{PageSender, ResponseStream};
use crate::server::services::files::send_file;

/// Time limit for the next piece of a checkpoint.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// A worker's right to a trial's checkpoint: it holds the lease.
struct CheckpointAccess {
    worker: WorkerId,
    fence: Fence,
    sweep: SweepNumber,
    key: TrialKey,
    path: PathBuf,
}

impl ServerContext {
    /// Receives a checkpoint; returns when it is at its path.
    pub(crate) async fn receive_checkpoint(
        &self,
        mut pieces: Streaming<v1::KeepCheckpointRequest>,
    ) -> Result<(), Status> {
        let _permit = self.limits.uploads.try_acquire()?;
        let first = next_piece(&mut pieces)
            .await?
            .ok_or_else(|| Status::invalid_argument("nothing was sent"))?;
        let mut head = first
            .head
            .ok_or_else(|| Status::invalid_argument("the field head is missing"))?;
        if head.checksum.is_empty() || !head.verify_checksum() {
            return Err(damaged_status());
        }

        let hash: FileHash = head
            .hash
            .try_into()
            .map_err(|_| Status::invalid_argument("the field hash must have 32 bytes"))?;
        let access = self
            .authorize_checkpoint(head.worker.into(), head.fence, head.sweep.into(), head.key)
            .await?;
        let header = CheckpointHeader {
            key: access.key,
            steps: head.steps,
            hash,
        };

        let file = self.receive_file(&header, first.chunk, pieces).await?;
        self.store_checkpoint(access, head.steps, file).await
    }

    async fn authorize_checkpoint(
        &self,
        worker: WorkerId,
        fence: Option<v1::Fence>,
        id: SweepId,
        key: Option<v1::TrialKey>,
    ) -> Result<CheckpointAccess, Status> {
        let fence = fence_from_wire(&fence.ok_or_else(|| missing_status("fence"))?);
        let key = TrialKey::from(key.ok_or_else(|| missing_status("key"))?);
        let requester = worker.clone();
        let found: Option<(SweepNumber, Arc<SweepRow>, Arc<Spec>)> = self
            .engine
            .query_core(move |core| {
                core.sweeps()
                    .find(|sweep| {
                        sweep.id == id && core.is_working_on(&requester, fence, sweep.number, key)
                    })
                    .map(|sweep| (sweep.number, sweep.record.clone(), sweep.spec.clone()))
            })
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;

        let (sweep, record, spec) = found.ok_or_else(|| not_leased_status(key))?;
        let path = self
            .checkpoints
            .checkpoint_path(&record, &spec, key)
            .ok_or_else(|| not_leased_status(key))?;

        Ok(CheckpointAccess {
            worker,
            fence,
            sweep,
            key,
            path,
        })
    }

    /// Writes the pieces of a checkpoint after its header.
    ///
    /// # Errors
    /// The checkpoint is damaged or too long, a piece is late, or the file cannot be written.
    async fn receive_file(
        &self,
        header: &CheckpointHeader,
        mut chunk: Vec<u8>,
        mut pieces: Streaming<v1::KeepCheckpointRequest>,
    ) -> Result<PartialFile, Status> {
        let folder = self.checkpoints.folder();
        let mut file = block_in_place(|| -> std::io::Result<PartialFile> {
            let mut file = PartialFile::create_in(folder)?;
            file.write_header(&header.encode())?;
            Ok(file)
        })
        .map_err(|e| write_failed_status(folder, &e))?;

        loop {
            block_in_place(|| file.write_content(&chunk))
                .map_err(|e| write_failed_status(folder, &e))?;

            if file.len() > MAX_CHECKPOINT_BYTES {
                return Err(Status::invalid_argument(format!(
                    "the checkpoint has more than {MAX_CHECKPOINT_BYTES} bytes"
                )));
            }

            match next_piece(&mut pieces).await? {
                None => break,
                Some(piece) => chunk = piece.chunk,
            }
        }

        if file.content_hash() != header.hash {
            return Err(damaged_status());
        }

        Ok(file)
    }

    async fn store_checkpoint(
        &self,
        access: CheckpointAccess,
        steps: u64,
        file: PartialFile,
    ) -> Result<(), Status> {
        let CheckpointAccess {
            worker,
            fence,
            sweep,
            key,
            ..
        } = access;
        let (reply, stored) = oneshot::channel();
        let incoming = IncomingCheckpoint {
            worker,
            fence,
            sweep,
            key,
            steps,
            file,
            reply,
        };
        self.engine
            .send_event(WorkerEvent::CheckpointReceived(Box::new(incoming)));

        stored
            .await
            .map_err(|_| Status::unavailable("the coordinator is stopping"))?
    }

    /// Sends the checkpoint of a trial to the holder of its lease.
    pub(crate) async fn open_checkpoint(
        &self,
        request: v1::FetchCheckpointRequest,
    ) -> Result<ResponseStream<v1::FetchCheckpointResponse>, Status> {
        let permit = self.limits.fetches.try_acquire()?;
        let access = self
            .authorize_checkpoint(
                request.worker.into(),
                request.fence,
                request.sweep.into(),
                request.key,
            )
            .await?;
        let (pieces, stream) = PageSender::new(permit);
        let (file, hash) = block_in_place(|| open_checkpoint_file(&access))?;
        let first = v1::FetchCheckpointResponse {
            hash: hash.to_vec(),
            chunk: Vec::new(),
        };
        let _ = pieces.send_page(Ok(first)).await;

        tokio::task::spawn_blocking(move || {
            send_file(file, &pieces, |chunk| v1::FetchCheckpointResponse {
                hash: Vec::new(),
                chunk,
            });
        });

        Ok(stream)
    }
}

/// Opens a checkpoint's file after its header; returns it with the checkpoint's hash.
fn open_checkpoint_file(access: &CheckpointAccess) -> Result<(File, FileHash), Status> {
    let mut file = File::open(&access.path).map_err(|_| {
        Status::not_found(format!(
            "no checkpoint of the trial {} is stored",
            access.key
        ))
    })?;
    let header = CheckpointHeader::read_from(&mut file)
        .filter(|header| header.key == access.key)
        .ok_or_else(|| Status::not_found("the stored file is not a checkpoint of the trial"))?;

    Ok((file, header.hash))
}

fn missing_status(field: &str) -> Status {
    Status::invalid_argument(format!("the field {field} of the checkpoint is missing"))
}

fn damaged_status() -> Status {
    Status::data_loss("the checkpoint was damaged in transit: send it again")
}

async fn next_piece(
    pieces: &mut Streaming<v1::KeepCheckpointRequest>,
) -> Result<Option<v1::KeepCheckpointRequest>, Status> {
    let piece = tokio::time::timeout(PIECE_TIMEOUT, pieces.message()).await;
    piece.map_err(|_| {
        Status::deadline_exceeded("the rest of the checkpoint did not arrive in time")
    })?
}
