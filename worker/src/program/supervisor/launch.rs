//! Starting a supervisor from the worker, and its pipes.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use tokio::net::unix::pipe::Receiver;

use super::order::LaunchOrder;
use crate::program::isolation::Isolation;

/// The hidden command by which the worker becomes a supervisor.
pub(crate) const SUPERVISE_COMMAND: &str = "supervise-program";
/// The path of the worker's own program, even if another one was installed meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// A supervisor that was started, and the worker's ends of its pipes. Dropping it ends the program.
pub(crate) struct StartedSupervisor {
    child: Child,
    control: PipeWriter,
    /// What the supervisor says of the end.
    pub(crate) report: Receiver,
    /// What the program prints.
    pub(crate) output: Receiver,
}

impl StartedSupervisor {
    /// Starts a supervisor and sends it an order. Belongs into a runtime.
    ///
    /// # Errors
    /// The system refuses a process or pipes.
    pub(crate) fn start(order: &LaunchOrder, isolation: Option<&Isolation>) -> io::Result<Self> {
        let (for_control, control) = io::pipe()?;
        let (report, for_report) = io::pipe()?;
        let (output, for_output) = io::pipe()?;
        let mut command = Command::new(OWN_PROGRAM);
        command.arg(SUPERVISE_COMMAND);
        if let Some(isolation) = isolation {
            command.args(isolation.to_args());
        }
        command
            .env_clear()
            .current_dir("/")
            .stdin(for_control)
            .stdout(for_report)
            .stderr(for_output);

        let child = command.spawn()?;
        // The command holds the other ends of the pipes.
        drop(command);
        let mut supervisor = Self {
            child,
            control,
            report: to_receiver(report)?,
            output: to_receiver(output)?,
        };
        order.write_to(&mut supervisor.control)?;
        Ok(supervisor)
    }

    /// Tells the supervisor to end the program and all that it started.
    pub(crate) fn request_end(&mut self) {
        // It may have ended meanwhile.
        let _ = self.control.write_all(b"e");
    }

    /// Waits for the process, which has closed its pipes.
    pub(crate) fn wait_for_exit(mut self) -> io::Result<std::process::ExitStatus> {
        drop(self.control);
        self.child.wait()
    }
}

fn to_receiver(pipe: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(pipe))
}
