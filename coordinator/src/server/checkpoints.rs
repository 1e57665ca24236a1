//! Checkpoints of unfinished trials, one file each: received from the worker that holds the lease
//! of a trial, and sent to the one that holds it next.
//!
//! The path of a file comes from the sweep's id, the cell's hash and the repeat as the coordinator
//! knows them: nothing that a peer sends becomes a path. The engine decides, and one thread
//! executes in the order of the decisions. Files are not synced: a torn one fails its hash, and its
//! trial starts from the beginning.

use ergodic_common::ids::{DatasetHash, FileHash, SweepNumber};
use ergodic_common::ids::{Fence, WorkerId};
use ergodic_common::{ErrorCode, Spec, TrialKey};
use ergodic_proto::status::UserError;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tokio::sync::oneshot;
use tonic::Status;

use super::blobs::PartialFile;
use crate::core::Core;
use crate::records::SweepRow;

/// First bytes of a file, which name its format.
const MAGIC: &[u8; 8] = b"ergckpt1";
/// Length of a file's header, in bytes.
const HEADER_LEN: usize = 8 + 8 + 4 + 8 + 32;

/// The header of a checkpoint's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckpointHeader {
    pub(super) key: TrialKey,
    pub(super) steps: u64,
    pub(super) hash: FileHash,
}

impl CheckpointHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let cell = self.key.cell.0.to_le_bytes();
        let repeat = self.key.repeat.0.to_le_bytes();
        [
            &MAGIC[..],
            &cell,
            &repeat,
            &self.steps.to_le_bytes(),
            &self.hash.0,
        ]
        .concat()
    }

    /// Decodes a header; `None` if the bytes are none.
    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk::<8>()?;
        let (cell, rest) = rest.split_first_chunk()?;
        let (repeat, rest) = rest.split_first_chunk()?;
        let (steps, rest) = rest.split_first_chunk()?;
        let key = TrialKey::new(u64::from_le_bytes(*cell), u32::from_le_bytes(*repeat));

        let steps = u64::from_le_bytes(*steps);
        (mark == MAGIC).then_some(Self {
            key,
            steps,
            hash: FileHash(rest.try_into().ok()?),
        })
    }

    /// Reads a file's header, after which the checkpoint itself follows.
    pub(super) fn read_from(file: &mut File) -> Option<Self> {
        let mut bytes = [0; HEADER_LEN];
        file.read_exact(&mut bytes).ok()?;
        Self::decode(&bytes)
    }
}

/// The folder of checkpoints, with one folder per sweep.
#[derive(Debug, Clone)]
pub(crate) struct CheckpointFiles {
    folder: PathBuf,
}

impl CheckpointFiles {
    /// The checkpoints within the folder of files, which need not exist yet.
    pub(crate) fn new(files: &Path) -> Self {
        Self {
            folder: files.join("checkpoints"),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a trial's checkpoint; `None` if the sweep has no such trial.
    pub(super) fn checkpoint_path(
        &self,
        record: &SweepRow,
        spec: &Spec,
        key: TrialKey,
    ) -> Option<PathBuf> {
        let config = spec
            .has_trial(key)
            .then(|| spec.grid.resolve_config(key.cell).ok())
            .flatten()?;
        let cell = spec.compute_cell_hash(&config, record.data.hash.unwrap_or(DatasetHash::NONE));
        Some(
            self.folder
                .join(record.id.as_str())
                .join(format!("{}-{}", cell, key.repeat)),
        )
    }

    /// Tells a recovered core which checkpoints exist, and removes those that no unfinished trial
    /// needs. If another store may share the folder, removes only those of its own sweeps.
    pub(crate) fn recover_checkpoints(&self, core: &mut Core, is_alone: bool) {
        for path in entries_in(&self.folder) {
            if path.is_dir() {
                self.recover_sweep_folder(core, &path, is_alone);
            } else if is_alone {
                // A partial upload that an earlier coordinator left. In a shared folder it might be
                // one that another coordinator is receiving.
                remove_checkpoint(&path);
            }
        }
    }

    fn recover_sweep_folder(&self, core: &mut Core, folder: &Path, is_alone: bool) {
        let name = folder.file_name().unwrap_or_default();
        // A newer program may continue the sweeps that this one cannot read, so their checkpoints
        // stay.
        if core.untouched_sweep_ids().any(|id| *name == **id) {
            return;
        }

        let sweep = core
            .sweeps()
            .find(|sweep| *name == *sweep.id)
            .map(|sweep| sweep.number);
        if sweep.is_none() && !is_alone {
            return;
        }

        for path in entries_in(folder) {
            if !sweep.is_some_and(|sweep| self.adopt_checkpoint(core, sweep, &path)) {
                remove_checkpoint(&path);
            }
        }

        // Removing fails if the folder still has checkpoints, which is intended.
        let _ = std::fs::remove_dir(folder);
    }

    /// Whether an unfinished trial of the sweep can resume from a file; if so, tells the core.
    fn adopt_checkpoint(&self, core: &mut Core, number: SweepNumber, path: &Path) -> bool {
        let Some(header) = File::open(path)
            .ok()
            .and_then(|mut file| CheckpointHeader::read_from(&mut file))
        else {
            return false;
        };

        let Some(sweep) = core.sweep(number) else {
            return false;
        };
        let expected = self.checkpoint_path(&sweep.record, &sweep.spec, header.key);
        expected.as_deref() == Some(path)
            && core
                .on_checkpoint_stored(number, header.key, header.steps)
                .is_empty()
    }
}

/// The paths in a folder; empty if it cannot be read.
fn entries_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Removes a file, if it exists.
fn remove_checkpoint(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a checkpoint");
        }
        _ => {}
    }
}

/// A checkpoint that was received completely.
pub struct IncomingCheckpoint {
    pub(super) worker: WorkerId,
    pub(super) fence: Fence,
    pub(super) sweep: SweepNumber,
    pub(super) key: TrialKey,
    pub(super) steps: u64,
    pub(super) file: PartialFile,
    pub(super) reply: oneshot::Sender<Result<(), Status>>,
}

/// An operation on files.
enum FileOp {
    MoveIntoPlace(Box<IncomingCheckpoint>, PathBuf),
    Remove(Vec<PathBuf>),
}

/// Executes the engine's decisions about files, on a thread of its own.
pub struct CheckpointWriter {
    checkpoints: CheckpointFiles,
    ops: mpsc::Sender<FileOp>,
}

impl CheckpointWriter {
    /// Starts the thread, which ends with the writer. `on_stored` is called with the sweep, the
    /// trial and its steps.
    pub(crate) fn start_thread(
        checkpoints: CheckpointFiles,
        on_stored: impl Fn(SweepNumber, TrialKey, u64) + Send + 'static,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (ops, queue) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || queue.into_iter().for_each(|op| perform_op(op, &on_stored)))?;

        Ok((Self { checkpoints, ops }, thread))
    }

    /// Moves a checkpoint to its path, unless its sender does not hold the trial.
    pub(crate) fn store_checkpoint(&self, core: &Core, incoming: Box<IncomingCheckpoint>) {
        let is_leased = core.is_working_on(
            &incoming.worker,
            incoming.fence,
            incoming.sweep,
            incoming.key,
        );
        let path = core
            .sweep(incoming.sweep)
            .filter(|_| is_leased)
            .and_then(|sweep| {
                self.checkpoints
                    .checkpoint_path(&sweep.record, &sweep.spec, incoming.key)
            });
        match path {
            Some(path) => self.send_op(FileOp::MoveIntoPlace(incoming, path)),
            None => drop(incoming.reply.send(Err(not_leased_status(incoming.key)))),
        }
    }

    /// Removes the checkpoints of these trials.
    pub(crate) fn discard_checkpoints(&self, core: &Core, sweep: SweepNumber, keys: &[TrialKey]) {
        let Some(sweep) = core.sweep(sweep) else {
            return;
        };
        let paths = keys.iter().filter_map(|key| {
            self.checkpoints
                .checkpoint_path(&sweep.record, &sweep.spec, *key)
        });
        self.send_op(FileOp::Remove(paths.collect()));
    }

    fn send_op(&self, op: FileOp) {
        // Sending fails only when the thread has ended, which means that the coordinator is
        // stopping.
        let _ = self.ops.send(op);
    }
}

fn perform_op(op: FileOp, on_stored: &impl Fn(SweepNumber, TrialKey, u64)) {
    match op {
        FileOp::MoveIntoPlace(incoming, path) => {
            let IncomingCheckpoint {
                sweep,
                key,
                steps,
                file,
                reply,
                ..
            } = *incoming;
            let stored = file
                .rename_to(&path)
                .map_err(|error| write_failed_status(&path, &error));
            if stored.is_ok() {
                tracing::debug!(trial = %key, steps, "checkpoint kept");
                on_stored(sweep, key, steps);
            }

            let _ = reply.send(stored);
        }
        FileOp::Remove(paths) => paths.iter().for_each(|path| {
            remove_checkpoint(path);
            // Removing the sweep's folder succeeds with its last checkpoint.
            path.parent().map(std::fs::remove_dir);
        }),
    }
}

pub(super) fn not_leased_status(key: TrialKey) -> Status {
    Status::failed_precondition(format!(
        "the trial {key} is not leased to this worker under this fence"
    ))
}

pub(super) fn write_failed_status(path: &Path, error: &std::io::Error) -> Status {
    let message = format!(
        "the coordinator cannot keep a checkpoint: {}: {error}",
        path.display()
    );
    UserError::new(ErrorCode::Internal, message).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::core::Timing;
    use crate::server::checkpoints::*;
    use ergodic_common::ids::{Epoch, LeaseId};

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
            Epoch(1),
            LeaseId(1),
        );
        CheckpointFiles::new(dir.path()).recover_checkpoints(&mut core, false);

        assert!(files.iter().all(|file| file.exists()));
        CheckpointFiles::new(dir.path()).recover_checkpoints(&mut core, true);
        assert!(!files.iter().any(|file| file.exists()) && !of_other.exists());
    }

    #[test]
    fn a_header_comes_back_and_anything_else_is_none() {
        let header = CheckpointHeader {
            key: TrialKey::new(1 << 40, 7),
            steps: 123,
            hash: FileHash([9; 32]),
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
