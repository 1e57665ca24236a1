//! The starter: a process that starts the supervisors of a worker.
//!
//! A worker has many threads, so it can start nothing but whole programs, of which its own is a large one. The starter is that
//! program once, with one thread and little memory, and each supervisor is a fork of it. For each, the worker sends the three pipes
//! that become its standard streams. A starter ends when the worker is gone; its supervisors go on, and see it by their own pipes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::setsid;

use super::isolation::{Isolation, OWN_PROGRAM, SUPERVISE_COMMAND};
use super::process::{
    close_inherited_files, collect_children, fork_process, ignore_children, ignore_signals,
};

/// The option by which the hidden command is a starter.
const SERVE_OPTION: &str = "--serve";
/// Pipes of a supervisor: for stdin, stdout and stderr.
const PIPES: usize = 3;

/// The worker's connection to its starter.
#[derive(Debug)]
pub(crate) struct SupervisorStarter {
    /// How supervisors are kept apart from the worker, if they are.
    isolation: Option<Isolation>,
    /// The socket to the starter, once it runs.
    socket: Mutex<Option<OwnedFd>>,
}

impl SupervisorStarter {
    /// A starter that begins with the first supervisor.
    pub(crate) fn new(isolation: Option<Isolation>) -> Self {
        Self {
            isolation,
            socket: Mutex::default(),
        }
    }

    /// Starts a supervisor with these pipes as its stdin, stdout and stderr.
    ///
    /// # Errors
    /// The system refuses a process.
    pub(crate) fn start_supervisor(&self, pipes: [BorrowedFd<'_>; PIPES]) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(socket) = &*socket
            && send_pipes(socket, &pipes).is_ok()
        {
            return Ok(());
        }
        // There is none yet, or somebody has ended it.
        let started = self.start_process()?;
        send_pipes(&started, &pipes)?;
        *socket = Some(started);
        Ok(())
    }

    fn start_process(&self) -> io::Result<OwnedFd> {
        let (own, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let mut command = Command::new(OWN_PROGRAM);
        command.args([SUPERVISE_COMMAND, SERVE_OPTION]);
        if let Some(isolation) = &self.isolation {
            command.args(isolation.to_args());
        }
        let mut child = command
            .env_clear()
            .current_dir("/")
            .stdin(other)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Whoever ends a starter leaves no dead process behind.
        std::thread::spawn(move || child.wait());
        Ok(own)
    }
}

/// Starts supervisors until the worker is gone.
///
/// # Errors
/// The socket is none.
pub(super) fn serve_worker(supervise: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    close_inherited_files();
    let _ = setsid();
    ignore_signals();
    ignore_children();
    while let Some(pipes) = receive_pipes()? {
        // If the system refuses a process, the worker sees the end of the pipes.
        let _ = fork_process(|| {
            collect_children();
            become_streams(pipes)?;
            supervise()
        });
    }
    Ok(())
}

fn send_pipes(socket: &OwnedFd, pipes: &[BorrowedFd<'_>; PIPES]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(pipes));
    let message = [IoSlice::new(b"s")];
    sendmsg(socket, &message, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The pipes of the next supervisor; `None` if the worker is gone.
fn receive_pipes() -> io::Result<Option<[OwnedFd; PIPES]>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let stdin = io::stdin();
    let mut message = [IoSliceMut::new(&mut byte)];
    let received = loop {
        match recvmsg(stdin.as_fd(), &mut message, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }

    let pipes = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(pipes) => pipes.collect(),
        _ => Vec::new(),
    });
    let pipes: Vec<OwnedFd> = pipes.collect();
    let missing = |_| io::Error::other("a supervisor takes three pipes");
    pipes.try_into().map(Some).map_err(missing)
}

/// Makes the pipes the standard streams of this process. The socket, which was stdin, is closed by that.
fn become_streams([stdin, stdout, stderr]: [OwnedFd; PIPES]) -> io::Result<()> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(())
}
