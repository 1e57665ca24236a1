//! A gate that holds trials: a test opens it when it has done what the trials were to wait for. So it need not count on a
//! sweep's taking long.

use std::path::{Path, PathBuf};

/// A gate before the trials of workers that were started with it. It is open until it is told to hold some.
#[derive(Debug)]
pub struct Gate(PathBuf);

impl Gate {
    /// An open gate, kept in this file.
    pub fn at(file: &Path) -> Self {
        Self(file.to_owned())
    }

    /// Holds all trials but those of the first so many repeats, before they begin.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn hold_after(&self, repeats: u32) {
        self.set(repeats, 0, 0);
    }

    /// Holds all trials but the first so many that each worker begins, whichever these are. A worker that is held has run
    /// as many, also where what is left of the first repeats is somebody's who was killed: a gate for whoever kills workers
    /// and goes on with others.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn hold_after_trials(&self, trials: u64) {
        self.set(0, 0, trials);
    }

    /// Holds every trial that comes to this step, or is beyond it. It can be kept as a checkpoint there.
    ///
    /// # Panics
    /// The file cannot be written.
    pub fn hold_at_step(&self, step: u64) {
        self.set(0, step, 0);
    }

    /// Holds nobody any more.
    ///
    /// # Panics
    /// The gate held nobody.
    pub fn open(&self) {
        std::fs::remove_file(&self.0).expect("a gate that is opened was closed");
    }

    /// What `FAILPOINTS` says to workers, and to programs that start them.
    pub fn failpoints(&self) -> String {
        format!("trial=return({})", self.0.display())
    }

    /// In one piece, since workers read it all the time.
    fn set(&self, repeat: u32, step: u64, begun: u64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{repeat} {step} {begun}")).expect("a file can be written");
        std::fs::rename(new, &self.0).expect("a file can be renamed");
    }
}
