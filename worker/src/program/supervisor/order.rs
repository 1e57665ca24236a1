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

/// What a supervisor writes once the program runs, before it says how that ended.
pub(crate) const STARTED: &[u8] = b"started\n";

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProgramEnd {
    /// There is no such program, or it cannot be run with these arguments.
    NotStarted(String),
    /// The system has no room for a process: no fault of the program.
    Refused(String),
    /// With an exit status.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
}

/// What a supervisor has said when its pipe ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SupervisorReport {
    /// Whether the program was started.
    pub(crate) is_started: bool,
    /// How it ended; `None` if the supervisor ended before.
    pub(crate) end: Option<ProgramEnd>,
}

impl SupervisorReport {
    /// Reads all that a supervisor wrote.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let behind = bytes.strip_prefix(STARTED);
        Self {
            is_started: behind.is_some(),
            end: serde_json::from_slice(behind.unwrap_or(bytes)).ok(),
        }
    }
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

#[cfg(test)]
mod tests {
    use crate::program::supervisor::order::*;

    #[test]
    fn a_supervisor_that_was_killed_has_said_at_most_that_the_program_runs() {
        let end = ProgramEnd::Exited(3);
        let text = serde_json::to_vec(&end).expect("it is plain");
        let whole = SupervisorReport::parse(&[STARTED, &text].concat());
        assert_eq!((whole.is_started, whole.end), (true, Some(end)));
        let killed = SupervisorReport::parse(STARTED);
        assert_eq!((killed.is_started, killed.end), (true, None));
        assert_eq!(SupervisorReport::parse(b""), SupervisorReport::default());
    }
}
