//! The checkpoints of the trial that a slot runs. They go to the coordinator and, with
//! `--checkpoint-dir`, to a folder of this machine.

use ergodic_proto::atomic_file::{Durability, FileAccess, remove_abandoned_files, replace_file};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::failpoint;
use crate::link::checkpoints::{CheckpointTransfer, PendingUpload};
use crate::shared_queue::SharedQueue;
use crate::train::CheckpointStore;
use crate::work_queue::Assignment;
use ergodic_common::ids::TrialIdentity;

/// Minimum age of a trial, when the worker leaves, for its last checkpoint to be uploaded.
const MIN_AGE_TO_UPLOAD: Duration = Duration::from_secs(1);
/// Time limit for uploading the last checkpoint when the worker leaves.
const LAST_UPLOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a trial that must stop to finish its step, so that it can be saved.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// How checkpoints are uploaded, and how often.
#[derive(Clone)]
pub(crate) struct CheckpointPolicy {
    pub(crate) interval: Duration,
    pub(crate) transfer: CheckpointTransfer,
}

/// Saves and loads the checkpoints of one attempt.
pub(crate) struct TrialCheckpointer<'a> {
    policy: &'a CheckpointPolicy,
    checkpoint_dir: Option<&'a CheckpointDir>,
    queue: &'a SharedQueue,
    assignment: &'a Assignment,
    begun: Instant,
    state: Mutex<CheckpointerState>,
}

struct CheckpointerState {
    /// When the last checkpoint was saved, or when the trial began.
    saved_at: Instant,
    /// The upload of the last checkpoint.
    pending_upload: Option<PendingUpload>,
    /// When the trainer first asked whether to stop at once.
    stop_seen_at: Option<Instant>,
}

impl<'a> TrialCheckpointer<'a> {
    pub(crate) fn new(
        policy: &'a CheckpointPolicy,
        checkpoint_dir: Option<&'a CheckpointDir>,
        queue: &'a SharedQueue,
        assignment: &'a Assignment,
    ) -> Self {
        let begun = Instant::now();
        let state = Mutex::new(CheckpointerState {
            saved_at: begun,
            pending_upload: None,
            stop_seen_at: None,
        });
        Self {
            policy,
            checkpoint_dir,
            queue,
            assignment,
            begun,
            state,
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, CheckpointerState> {
        self.state
            .lock()
            .expect("nothing panics while it holds the state")
    }

    /// Whether the coordinator revoked the lease. It would then reject a checkpoint.
    fn is_lease_revoked(&self) -> bool {
        self.queue
            .with_queue(|queue| queue.is_lease_revoked(self.assignment.fence))
    }

    fn is_due(&self) -> bool {
        let mut state = self.lock_state();
        state.saved_at.elapsed() >= self.policy.interval
            && state
                .pending_upload
                .as_mut()
                .is_none_or(PendingUpload::is_finished)
    }
}

impl CheckpointStore for TrialCheckpointer<'_> {
    fn load_checkpoints(&self, identity: TrialIdentity) -> Vec<Vec<u8>> {
        let here = self
            .checkpoint_dir
            .and_then(|folder| folder.load_checkpoint(identity));
        let there = self
            .assignment
            .has_checkpoint
            .then(|| self.policy.transfer.fetch_checkpoint(self.assignment))
            .flatten();

        here.into_iter().chain(there).collect()
    }

    fn should_save(&self, steps: u64) -> bool {
        failpoint::hold_after_steps(self.assignment.key, steps, || {
            !self.assignment.is_stopped() && !self.is_due()
        });
        self.is_due()
    }

    fn save_checkpoint(&self, identity: TrialIdentity, steps: u64, checkpoint: Vec<u8>) {
        self.lock_state().saved_at = Instant::now();
        if let Some(folder) = self.checkpoint_dir {
            folder.save_checkpoint(identity, &checkpoint);
        }

        let last = self.assignment.is_stopped();
        if last && (self.is_lease_revoked() || self.begun.elapsed() < MIN_AGE_TO_UPLOAD) {
            return;
        }

        // Cancels an upload that is still under way: the new checkpoint is further on.
        self.lock_state().pending_upload = None;
        let flight = self
            .policy
            .transfer
            .start_upload(self.assignment, steps, checkpoint);

        if last {
            flight.wait_until_finished(LAST_UPLOAD_TIMEOUT);
        }

        self.lock_state().pending_upload = Some(flight);
    }

    fn should_stop_at_once(&self) -> bool {
        let since = *self
            .lock_state()
            .stop_seen_at
            .get_or_insert_with(Instant::now);
        since.elapsed() >= STEP_TIMEOUT || self.is_lease_revoked()
    }

    /// Removes the trial's checkpoint from the folder. The coordinator removes its own when it
    /// stores the result.
    fn discard_checkpoints(&self, identity: TrialIdentity) {
        self.lock_state().pending_upload = None;
        if let Some(folder) = self.checkpoint_dir {
            folder.discard_checkpoint(identity);
        }
    }
}

/// A folder of checkpoints, which several workers may share.
#[derive(Debug)]
pub(crate) struct CheckpointDir {
    pub(crate) path: PathBuf,
}

impl CheckpointDir {
    /// The folder, made if it is missing, without what other workers left there half written hours ago.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| {
            std::io::Error::other(format!("--checkpoint-dir {}: {e}", path.display()))
        })?;
        remove_abandoned_files(path);
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub(crate) fn checkpoint_path(&self, identity: TrialIdentity) -> PathBuf {
        self.path.join(format!("{}.trial", identity))
    }

    /// Reads the checkpoint that was saved last under this identity.
    pub(crate) fn load_checkpoint(&self, identity: TrialIdentity) -> Option<Vec<u8>> {
        std::fs::read(self.checkpoint_path(identity)).ok()
    }

    /// A crash leaves the old one or the new one; a power cut may leave a torn one, which is noticed by its hash. A full disk costs
    /// the checkpoint, not the trial.
    pub(crate) fn save_checkpoint(&self, identity: TrialIdentity, checkpoint: &[u8]) {
        let file = self.checkpoint_path(identity);
        if let Err(error) = replace_file(&file, checkpoint, FileAccess::AsUmask, Durability::None) {
            tracing::warn!(checkpoint = %file.display(), %error, "cannot write the checkpoint of an unfinished trial");
        }
    }

    /// Removes the checkpoint of a trial that has ended.
    pub(crate) fn discard_checkpoint(&self, identity: TrialIdentity) {
        let _ = std::fs::remove_file(self.checkpoint_path(identity));
    }
}
