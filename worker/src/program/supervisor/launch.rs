//! Starting a supervisor from the worker, and its pipes.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use tokio::net::unix::pipe::Receiver;

use super::order::LaunchOrder;
use crate::program::isolation::{Isolation, OWN_PROGRAM, SUPERVISE_COMMAND};

/// A supervisor that was started, and the worker's ends of its pipes. Dropping it ends everything that it started.
pub(crate) struct StartedSupervisor {
    child: Child,
    /// The pipe whose end has the supervisor end everything.
    control: Option<PipeWriter>,
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
            control: Some(control),
            report: to_receiver(report)?,
            output: to_receiver(output)?,
        };
        if let Some(control) = &mut supervisor.control {
            order.write_to(control)?;
        }
        Ok(supervisor)
    }

    /// Tells the supervisor to end the program and all that it started.
    pub(crate) fn request_end(&mut self) {
        if let Some(control) = &mut self.control {
            // The supervisor may have ended meanwhile.
            let _ = control.write_all(b"e");
        }
    }
}

impl Drop for StartedSupervisor {
    /// Waits until everything has ended.
    fn drop(&mut self) {
        self.control = None;
        let _ = self.child.wait();
    }
}

fn to_receiver(pipe: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(pipe))
}
