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

/// Closes all files but the standard streams. Whoever started the worker may have left it others, such as one with its token, and
/// a program would have them, too.
#[expect(
    unsafe_code,
    reason = "the standard library cannot close files that it did not open"
)]
pub(super) fn close_inherited_files() {
    // SAFETY: this process has just begun, and nothing in it owns a file beyond the standard streams.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST_FILE, libc::c_uint::MAX, 0) };
    if result == 0 {
        return;
    }

    // Linux before 5.9 has no such call.
    for file in FIRST_FILE..MAX_INHERITED_FILE {
        // SAFETY: as above.
        unsafe { libc::close(file) };
    }
}

/// The first file that is none of the standard streams.
const FIRST_FILE: libc::c_int = 3;
/// The number below which files are closed one by one: the largest that the system lets a process have unless it is told otherwise.
const MAX_INHERITED_FILE: libc::c_int = 1 << 20;

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
