//! A small file system in memory.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system that is soon full, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of so many MiB; `None` without the right to.
    ///
    /// # Panics
    /// There can be no such directory.
    pub fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory can be made");
        let size = format!("size={mib}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }

    /// Has nothing written to it any more.
    ///
    /// # Panics
    /// The disk cannot be remounted.
    pub fn make_read_only(&self) {
        let mount = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&self.0)
            .status();
        assert!(
            mount.is_ok_and(|status| status.success()),
            "{} cannot be made read-only",
            self.0.display()
        );
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
