//! Forks and signals of processes that have one thread.

use std::io::{self, Write as _};

use rustix::process::Pid;

/// Forks this process. The child does what it is told, and ends; what fails it says on stderr.
#[expect(unsafe_code, reason = "the standard library cannot fork")]
pub(super) fn fork_process(child: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    // SAFETY: this process has one thread, so nothing is locked or half done in the child.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        let ended = child();
        if let Err(error) = &ended {
            let _ = writeln!(io::stderr(), "error: cannot start: {error}");
        }
        std::process::exit(i32::from(ended.is_err()));
    }
    match Pid::from_raw(forked).filter(|_| forked > 0) {
        Some(pid) => Ok(pid),
        None => Err(io::Error::last_os_error()),
    }
}

/// Has this process and its forks go on when a terminal or service manager signals all processes: the worker decides.
pub(super) fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        set_signal(signal, libc::SIG_IGN);
    }
}

/// Has the system collect children that have ended.
pub(super) fn ignore_children() {
    set_signal(libc::SIGCHLD, libc::SIG_IGN);
}

/// Has children that have ended wait until this process collects them, as is usual.
pub(super) fn collect_children() {
    set_signal(libc::SIGCHLD, libc::SIG_DFL);
}

#[expect(unsafe_code, reason = "the standard library cannot ignore signals")]
fn set_signal(signal: libc::c_int, action: libc::sighandler_t) {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(signal, action) };
}
