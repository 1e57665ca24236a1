//! Starting a supervisor from the worker, and its pipes.

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::net::unix::pipe::Receiver;

use super::order::LaunchOrder;
use crate::program::starter::SupervisorStarter;

/// A supervisor that was started, and the worker's ends of its pipes. Dropping it ends everything that it started.
pub(crate) struct StartedSupervisor {
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
    pub(crate) fn start(order: &LaunchOrder, starter: &SupervisorStarter) -> io::Result<Self> {
        let (for_control, control) = io::pipe()?;
        let (report, for_report) = io::pipe()?;
        let (output, for_output) = io::pipe()?;
        starter.start_supervisor([for_control.as_fd(), for_report.as_fd(), for_output.as_fd()])?;
        // The supervisor alone has the other ends.
        drop((for_control, for_report, for_output));

        let mut supervisor = Self {
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

    /// Waits until the supervisor has ended, and with it everything that it started.
    fn wait_for_end(&self) -> io::Result<()> {
        let mut buffer = [0; 256];
        loop {
            let mut waiting = [PollFd::new(&self.report, PollFlags::IN)];
            match poll(&mut waiting, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            match rustix::io::read(&self.report, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for StartedSupervisor {
    fn drop(&mut self) {
        self.control = None;
        let _ = self.wait_for_end();
    }
}

fn to_receiver(pipe: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(pipe))
}
