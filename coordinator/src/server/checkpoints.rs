//! Checkpoints of unfinished trials, one file each: taken from whoever holds the lease on a trial, and handed to whoever
//! holds it next.
//!
//! A file's place is made from the sweep's id, the cell's hash and the repeat, as we know them: nothing that a peer sends
//! becomes a path. The loop decides, one thread carries out in the order in which it decided. Files are not synced: one
//! that a power cut tore is noticed by its hash, and costs the time since the trial began.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::trial::to_hex;
use ergodic_common::{ErrorCode, Spec, TrialKey};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::MAX_CHECKPOINT_BYTES;
use ergodic_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::task::block_in_place;
use tonic::{Status, Streaming};

use super::blobs::PartialFile;
use super::context::ServerContext;
use super::engine::events::EngineEvent;
use super::limits::{PageSender, ResponseStream};
use super::services::files::send_file;
use super::services::session::fence_from_wire;
use crate::core::{Core, Sweep};
use crate::records::{Fence, SweepRow, WorkerId};

/// How long a piece may be waited for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a file begins with. The next form of these files gets another one.
const MAGIC: &[u8; 8] = b"ergckpt1";
/// Bytes of a file before the checkpoint itself.
const HEADER_LEN: usize = 8 + 8 + 4 + 8 + 32;

/// What a file says of the checkpoint in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CheckpointHeader {
    key: TrialKey,
    steps: u64,
    hash: [u8; 32],
}

impl CheckpointHeader {
    fn encode(&self) -> Vec<u8> {
        let cell = self.key.cell.to_le_bytes();
        let repeat = self.key.repeat.to_le_bytes();
        [
            &MAGIC[..],
            &cell,
            &repeat,
            &self.steps.to_le_bytes(),
            &self.hash,
        ]
        .concat()
    }

    /// `None` if it is none.
    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk::<8>()?;
        let (cell, rest) = rest.split_first_chunk()?;
        let (repeat, rest) = rest.split_first_chunk()?;
        let (steps, rest) = rest.split_first_chunk()?;
        let key = TrialKey {
            cell: u64::from_le_bytes(*cell),
            repeat: u32::from_le_bytes(*repeat),
        };

        let steps = u64::from_le_bytes(*steps);
        (mark == MAGIC).then_some(Self {
            key,
            steps,
            hash: rest.try_into().ok()?,
        })
    }

    /// That of a file, which is read up to the checkpoint.
    fn read_from(file: &mut File) -> Option<Self> {
        let mut bytes = [0; HEADER_LEN];
        file.read_exact(&mut bytes).ok()?;
        Self::decode(&bytes)
    }
}

/// The folder of checkpoints: one folder per sweep in it.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointFiles {
    folder: PathBuf,
}

impl CheckpointFiles {
    /// In the folder of all files, which need not exist yet.
    pub(crate) fn new(files: &Path) -> Self {
        Self {
            folder: files.join("checkpoints"),
        }
    }

    /// Where a trial is kept; `None` if the sweep has no such trial.
    fn checkpoint_path(&self, record: &SweepRow, spec: &Spec, key: TrialKey) -> Option<PathBuf> {
        let config = spec
            .has_trial(key)
            .then(|| spec.grid.resolve_config(key.cell).ok())
            .flatten()?;
        let cell = spec.compute_cell_hash(&config, &record.data.hash.unwrap_or_default());
        Some(
            self.folder
                .join(&record.id)
                .join(format!("{}-{}", to_hex(&cell), key.repeat)),
        )
    }

    /// Tells a core that has read its store what is kept, and removes what no unfinished trial needs; unless this store
    /// is alone in the folder, of its own sweeps only.
    pub(crate) fn recover_checkpoints(&self, core: &mut Core, is_alone: bool) {
        for entry in std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if !path.is_dir() {
                // A checkpoint that was on its way when a coordinator ended, or is on its way to another one.
                if is_alone {
                    remove_checkpoint(&path);
                }
                continue;
            }

            // Another version of this program may go on with what this one leaves alone.
            if core
                .untouched_sweep_ids()
                .any(|id| entry.file_name() == **id)
            {
                continue;
            }

            let sweep = core
                .sweeps()
                .find(|sweep| entry.file_name() == *sweep.id)
                .map(|sweep| sweep.number);
            if sweep.is_none() && !is_alone {
                continue;
            }

            for file in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                if !sweep.is_some_and(|sweep| self.adopt_checkpoint(core, sweep, &file.path())) {
                    remove_checkpoint(&file.path());
                }
            }

            // As long as there is something in it, it stays.
            let _ = std::fs::remove_dir(&path);
        }
    }

    /// Whether a file is what an unfinished trial of a sweep goes on from.
    fn adopt_checkpoint(&self, core: &mut Core, number: i64, path: &Path) -> bool {
        let Some(header) = File::open(path)
            .ok()
            .and_then(|mut file| CheckpointHeader::read_from(&mut file))
        else {
            return false;
        };

        let Some(sweep) = core.sweep(number) else {
            return false;
        };
        let its_place = self
            .checkpoint_path(&sweep.record, &sweep.spec, header.key)
            .as_deref()
            == Some(path);
        its_place
            && core
                .on_checkpoint_stored(number, header.key, header.steps)
                .is_empty()
    }
}

/// A file that is gone already needs no removal.
fn remove_checkpoint(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a checkpoint");
        }
        _ => {}
    }
}

/// A checkpoint that has come whole.
pub struct IncomingCheckpoint {
    worker: WorkerId,
    fence: Fence,
    sweep: i64,
    key: TrialKey,
    steps: u64,
    file: PartialFile,
    reply: oneshot::Sender<Result<(), Status>>,
}

/// What is to be done with files.
enum FileOp {
    MoveIntoPlace(Box<IncomingCheckpoint>, PathBuf),
    Remove(Vec<PathBuf>),
}

/// Carries out what the loop decides, on a thread of its own.
pub struct CheckpointWriter {
    checkpoints: CheckpointFiles,
    ops: std::sync::mpsc::Sender<FileOp>,
}

impl CheckpointWriter {
    /// Starts the thread, which ends with the keeper.
    pub(crate) fn start_thread(
        checkpoints: CheckpointFiles,
        events: mpsc::UnboundedSender<EngineEvent>,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (orders, waiting) = std::sync::mpsc::channel();
        let work = move || {
            waiting
                .into_iter()
                .for_each(|order| perform_op(order, &events))
        };
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(work)?;

        Ok((
            Self {
                checkpoints,
                ops: orders,
            },
            thread,
        ))
    }

    /// Puts a checkpoint into its place, unless its sender may not keep that trial.
    pub(crate) fn store_checkpoint(&self, core: &Core, incoming: Box<IncomingCheckpoint>) {
        let works_on = core.is_working_on(
            &incoming.worker,
            incoming.fence,
            incoming.sweep,
            incoming.key,
        );
        let sweep = core.sweep(incoming.sweep).filter(|_| works_on);
        match sweep.and_then(|sweep| {
            self.checkpoints
                .checkpoint_path(&sweep.record, &sweep.spec, incoming.key)
        }) {
            Some(place) => self.send_op(FileOp::MoveIntoPlace(incoming, place)),
            None => drop(incoming.reply.send(Err(not_leased_status(incoming.key)))),
        }
    }

    /// Removes what is kept of these trials.
    pub(crate) fn discard_checkpoints(&self, core: &Core, sweep: i64, keys: &[TrialKey]) {
        let Some(sweep) = core.sweep(sweep) else {
            return;
        };
        let places = keys.iter().filter_map(|key| {
            self.checkpoints
                .checkpoint_path(&sweep.record, &sweep.spec, *key)
        });
        self.send_op(FileOp::Remove(places.collect()));
    }

    fn send_op(&self, order: FileOp) {
        // A thread that is gone is missed by nobody: the coordinator is going down.
        let _ = self.ops.send(order);
    }
}

fn perform_op(order: FileOp, events: &mpsc::UnboundedSender<EngineEvent>) {
    match order {
        FileOp::MoveIntoPlace(incoming, place) => {
            let IncomingCheckpoint {
                sweep,
                key,
                steps,
                file: part,
                reply,
                ..
            } = *incoming;
            let placed = part
                .rename_to(&place)
                .map_err(|error| write_failed_status(&place, &error));
            if placed.is_ok() {
                tracing::debug!(trial = %key, steps, "checkpoint kept");
                let _ = events.send(EngineEvent::CheckpointStored(sweep, key, steps));
            }

            let _ = reply.send(placed);
        }
        FileOp::Remove(places) => places.iter().for_each(|place| {
            remove_checkpoint(place);
            // The sweep's folder goes with the last one.
            place.parent().map(std::fs::remove_dir);
        }),
    }
}

fn not_leased_status(key: TrialKey) -> Status {
    Status::failed_precondition(format!(
        "the trial {key} is in no lease of this worker under this fence"
    ))
}

fn write_failed_status(path: &Path, error: &std::io::Error) -> Status {
    let message = format!(
        "the coordinator cannot keep a checkpoint: {}: {error}",
        path.display()
    );
    UserError::new(ErrorCode::Internal, message).into()
}

/// Who asks for what, after a look at who holds the lease.
struct CheckpointAccess {
    worker: WorkerId,
    fence: Fence,
    sweep: i64,
    key: TrialKey,
    path: PathBuf,
}

impl ServerContext {
    async fn authorize_checkpoint(
        &self,
        worker: String,
        fence: Option<v1::Fence>,
        id: String,
        key: Option<v1::TrialKey>,
    ) -> Result<CheckpointAccess, Status> {
        let missing = |field: &str| {
            Status::invalid_argument(format!("the field {field} of the checkpoint is missing"))
        };
        let fence = fence_from_wire(&fence.ok_or_else(|| missing("fence"))?);
        let key = TrialKey::from(key.ok_or_else(|| missing("key"))?);
        let asking = worker.clone();
        let found = self.engine.query_core(move |core| {
            let of = |sweep: &&Sweep| {
                sweep.id == id && core.is_working_on(&asking, fence, sweep.number, key)
            };
            core.sweeps()
                .find(of)
                .map(|sweep| (sweep.number, sweep.record.clone(), sweep.spec.clone()))
        });
        let found: Option<(i64, Arc<SweepRow>, Arc<Spec>)> = found
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let (sweep, record, spec) = found.ok_or_else(|| not_leased_status(key))?;
        let place = self
            .checkpoints
            .checkpoint_path(&record, &spec, key)
            .ok_or_else(|| not_leased_status(key))?;

        Ok(CheckpointAccess {
            worker,
            fence,
            sweep,
            key,
            path: place,
        })
    }

    /// Takes a checkpoint: answered when it is in its place.
    pub(super) async fn receive_checkpoint(
        &self,
        mut pieces: Streaming<v1::KeepCheckpointRequest>,
    ) -> Result<(), Status> {
        let _place = self.limits.uploads.try_acquire()?;
        let first = next_piece(&mut pieces)
            .await?
            .ok_or_else(|| Status::invalid_argument("nothing was sent"))?;
        let mut head = first
            .head
            .ok_or_else(|| Status::invalid_argument("the field head is missing"))?;
        if head.checksum.is_empty() || !head.verify_checksum() {
            return Err(damaged_status());
        }

        let hash: [u8; 32] = head
            .hash
            .try_into()
            .map_err(|_| Status::invalid_argument("the field hash must have 32 bytes"))?;
        let claim = self
            .authorize_checkpoint(head.worker, head.fence, head.sweep, head.key)
            .await?;
        let header = CheckpointHeader {
            key: claim.key,
            steps: head.steps,
            hash,
        };

        let folder = &self.checkpoints.folder;
        let begin = || {
            let mut part = PartialFile::create_in(folder)?;
            part.write_header(&header.encode())?;
            Ok(part)
        };
        let mut part = block_in_place(begin).map_err(|e| write_failed_status(folder, &e))?;

        let mut chunk = first.chunk;
        loop {
            block_in_place(|| part.write_content(&chunk))
                .map_err(|e| write_failed_status(folder, &e))?;

            if part.len() > MAX_CHECKPOINT_BYTES {
                return Err(Status::invalid_argument(format!(
                    "the checkpoint has more than {MAX_CHECKPOINT_BYTES} bytes"
                )));
            }

            match next_piece(&mut pieces).await? {
                None => break,
                Some(piece) => chunk = piece.chunk,
            }
        }

        if part.content_hash() != hash {
            return Err(damaged_status());
        }

        let (reply, kept) = oneshot::channel();
        let CheckpointAccess {
            worker,
            fence,
            sweep,
            key,
            ..
        } = claim;
        let incoming = IncomingCheckpoint {
            worker,
            fence,
            sweep,
            key,
            steps: head.steps,
            file: part,
            reply,
        };
        self.engine
            .send_event(EngineEvent::CheckpointReceived(Box::new(incoming)));

        kept.await
            .map_err(|_| Status::unavailable("the coordinator is stopping"))?
    }

    /// Hands out what is kept of a trial.
    pub(super) async fn open_checkpoint(
        &self,
        request: v1::FetchCheckpointRequest,
    ) -> Result<ResponseStream<v1::FetchCheckpointResponse>, Status> {
        let place = self.limits.fetches.try_acquire()?;
        let claim = self
            .authorize_checkpoint(request.worker, request.fence, request.sweep, request.key)
            .await?;
        let (pieces, stream) = PageSender::new(place);
        let open = || {
            let mut file = File::open(&claim.path).map_err(|_| {
                Status::not_found(format!("no checkpoint of the trial {} is kept", claim.key))
            })?;
            let header =
                CheckpointHeader::read_from(&mut file).filter(|header| header.key == claim.key);
            header
                .map(|header| (file, header.hash))
                .ok_or_else(|| Status::not_found("what is kept is no checkpoint"))
        };
        let (file, hash) = block_in_place(open)?;
        let first = v1::FetchCheckpointResponse {
            hash: hash.to_vec(),
            chunk: Vec::new(),
        };
        let _ = pieces.send_page(Ok(first)).await;

        let piece = |chunk| v1::FetchCheckpointResponse {
            hash: Vec::new(),
            chunk,
        };
        tokio::task::spawn_blocking(move || send_file(file, &pieces, piece));

        Ok(stream)
    }
}

fn damaged_status() -> Status {
    Status::data_loss("the checkpoint was damaged on its way here: send it again")
}

async fn next_piece(
    pieces: &mut Streaming<v1::KeepCheckpointRequest>,
) -> Result<Option<v1::KeepCheckpointRequest>, Status> {
    let piece = tokio::time::timeout(PIECE_TIMEOUT, pieces.message()).await;
    piece.map_err(|_| Status::deadline_exceeded("the rest of the checkpoint did not come"))?
}

#[cfg(test)]
mod tests {
    use crate::core::Timing;
    use crate::server::checkpoints::*;

    #[test]
    fn checkpoints_of_other_stores_stay_in_a_folder_that_is_shared() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let of_other = dir.path().join("checkpoints/abcdefgh");
        std::fs::create_dir_all(&of_other).expect("made");
        let files = [
            of_other.join("0-0"),
            dir.path().join("checkpoints/1-1-1.part"),
        ];
        files
            .iter()
            .for_each(|file| std::fs::write(file, b"kept").expect("written"));

        let mut core = Core::new(
            Timing {
                lease_ttl: Duration::from_secs(1),
            },
            1,
            1,
        );
        CheckpointFiles::new(dir.path()).recover_checkpoints(&mut core, false);

        assert!(files.iter().all(|file| file.exists()));
        CheckpointFiles::new(dir.path()).recover_checkpoints(&mut core, true);
        assert!(!files.iter().any(|file| file.exists()) && !of_other.exists());
    }

    #[test]
    fn a_header_comes_back_and_anything_else_is_none() {
        let header = CheckpointHeader {
            key: TrialKey {
                cell: 1 << 40,
                repeat: 7,
            },
            steps: 123,
            hash: [9; 32],
        };
        let bytes: [u8; HEADER_LEN] = header.encode().try_into().expect("as long as a header");
        assert_eq!(CheckpointHeader::decode(&bytes), Some(header));

        for at in 0..8 {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(CheckpointHeader::decode(&other), None);
        }
    }
}
