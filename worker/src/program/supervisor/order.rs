//! What a worker tells the supervisor of a program, and what it hears from it.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Maximum size of an order in bytes. Arguments and environment of a process are smaller on Linux.
const MAX_ORDER_BYTES: u32 = 64 << 20;

/// What a supervisor starts. The program's arguments and environment come this way, so that they have no effect on the
/// supervisor itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LaunchOrder {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// All environment variables.
    pub(crate) env: Vec<(String, String)>,
    /// The folder that the program starts in.
    pub(crate) work_dir: PathBuf,
    /// The folder to remove at the end, if the worker is gone by then.
    pub(crate) attempt_dir: PathBuf,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProgramEnd {
    /// The system did not start it, for this reason.
    NotStarted(String),
    /// With an exit status.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
}

impl LaunchOrder {
    /// Writes the order behind its length.
    ///
    /// # Errors
    /// The supervisor is gone, or the order is too large.
    pub(crate) fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if length > MAX_ORDER_BYTES {
            return Err(io::Error::other("arguments and environment are too large"));
        }
        to.write_all(&length.to_le_bytes())?;
        to.write_all(&bytes)
    }

    /// Reads an order, and no byte behind it.
    ///
    /// # Errors
    /// The worker is gone.
    pub(crate) fn read_from(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_ORDER_BYTES {
            return Err(io::Error::other("the order is too large"));
        }
        let mut bytes = vec![0; length as usize];
        from.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
