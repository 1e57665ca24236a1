//! Unfinished trials as files, one each, so that a worker that was stopped or killed goes on where it was.

use std::path::{Path, PathBuf};

use ergodic_common::ids::to_hex;

/// A folder of checkpoints, which several workers may share.
#[derive(Debug)]
pub(crate) struct CheckpointDir {
    path: PathBuf,
}

impl CheckpointDir {
    /// The folder, made if it is missing.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let place = |e: std::io::Error| {
            std::io::Error::other(format!("--checkpoint-dir {}: {e}", path.display()))
        };
        std::fs::create_dir_all(path).map_err(place)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    fn checkpoint_path(&self, identity: &[u8; 32]) -> PathBuf {
        self.path.join(format!("{}.trial", to_hex(identity)))
    }

    /// What was kept last under this identity.
    pub(crate) fn load_checkpoint(&self, identity: &[u8; 32]) -> Option<Vec<u8>> {
        std::fs::read(self.checkpoint_path(identity)).ok()
    }

    /// Written beside and renamed, so that a crash leaves the old one or the new one. A full disk costs the checkpoint, not
    /// the trial.
    pub(crate) fn save_checkpoint(&self, identity: &[u8; 32], checkpoint: &[u8]) {
        let file = self.checkpoint_path(identity);
        let part = self
            .path
            .join(format!("{}.{}", to_hex(identity), std::process::id()));
        let written =
            std::fs::write(&part, checkpoint).and_then(|()| std::fs::rename(&part, &file));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&part);
            tracing::warn!(checkpoint = %file.display(), %error, "cannot keep an unfinished trial");
        }
    }

    /// The trial has ended: nothing of it is needed any more.
    pub(crate) fn discard_checkpoint(&self, identity: &[u8; 32]) {
        let _ = std::fs::remove_file(self.checkpoint_path(identity));
    }
}
