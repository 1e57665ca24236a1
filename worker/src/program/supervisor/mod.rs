//! The supervisor of one program: a process between worker and program, which ends all that the program started.
//!
//! The worker has a process for each attempt, a hidden command of its own program. That process adopts all orphans below it, so that no
//! process of the program's escapes it, in whatever session. Its stdin is a pipe that the worker holds: a byte, or the end of the
//! pipe when the worker dies, has it end everything. Then, and when the program ends, every process below gets SIGTERM, a short
//! time, and SIGKILL until none is left. Its stdout takes the [`ProgramEnd`]; what the program prints goes to its stderr.

mod descendants;
pub(crate) mod launch;
pub(crate) mod order;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, getpid, set_child_subreaper, set_dumpable_behavior,
    set_parent_process_death_signal, setsid, wait,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::folder::remove_tree;
use descendants::signal_descendants;
use order::{LaunchOrder, ProgramEnd, STARTED};

/// Time from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Interval of further SIGKILLs, for processes that were being started during the last one, and of attempts to start.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Time after which processes are left alone that not even SIGKILL reaches, such as those of other users.
const KILL_LIMIT: Duration = Duration::from_secs(60);
/// Attempts to start a program whose file is open for writing.
const MAX_BUSY_STARTS: u32 = 100;
/// Errors by which the system says that a file is no program, or that its arguments are too long. Others are faults of the machine.
const FAULTS_OF_PROGRAMS: [i32; 11] = [
    libc::ENOENT,
    libc::EACCES,
    libc::EPERM,
    libc::ENOEXEC,
    libc::E2BIG,
    libc::ENOTDIR,
    libc::EISDIR,
    libc::ELOOP,
    libc::ENAMETOOLONG,
    libc::EINVAL,
    libc::ETXTBSY,
];
/// Signals that a terminal or service manager sends to all processes, and that the worker alone acts on.
const IGNORED_SIGNALS: [SignalKind; 4] = [
    SignalKind::terminate(),
    SignalKind::interrupt(),
    SignalKind::hangup(),
    SignalKind::quit(),
];

/// Reads an order from stdin, runs the program, and ends with all that it started.
///
/// # Errors
/// The worker is gone, or the system refuses what a supervisor needs.
pub(crate) fn supervise_program() -> io::Result<()> {
    // In a session of its own, it is told nothing by the terminal. It leads one already if it is the first of its namespace.
    let _ = setsid();
    // The program has the same user, and could otherwise trace this process, and so stop it. Programs that it starts can
    // be traced as usual.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_child_subreaper(Some(getpid()))?;
    // Not by way of a buffer, which would keep what is said behind the order.
    let order = LaunchOrder::read_from(&mut File::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_order(&order))
}

async fn run_order(order: &LaunchOrder) -> io::Result<()> {
    let ignored = IGNORED_SIGNALS.map(signal);
    let mut child_ended = signal(SignalKind::child())?;
    let mut control = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let program = match start_unless_busy(order).await {
        Ok(program) => program,
        Err(error) => return report_end(&describe_failed_start(order, &error)),
    };

    // Whether the worker hears it is found out with the end.
    let _ = write_report(STARTED);
    let mut reaper = Reaper { program, end: None };
    let mut is_left = reaper.reap_children();
    let mut is_worker_gone = false;
    while is_left && reaper.end.is_none() {
        tokio::select! {
            _ = child_ended.recv() => is_left = reaper.reap_children(),
            told = control.read_u8() => {
                is_worker_gone = told.is_err();
                break;
            }
        }
    }

    end_descendants(&mut reaper, &mut child_ended).await;
    let end = reaper.end.unwrap_or(ProgramEnd::Signaled(9));
    let is_reported = report_end(&end).is_ok();
    if is_worker_gone || !is_reported {
        let _ = remove_tree(&order.attempt_dir);
    }
    drop(ignored);
    Ok(())
}

/// Whose fault it is that the system did not start the program.
fn describe_failed_start(order: &LaunchOrder, error: &io::Error) -> ProgramEnd {
    let name = order.command.first().map_or("", String::as_str);
    let why = format!("cannot start '{name}': {error}");
    let is_own_fault = match error.raw_os_error() {
        Some(number) => FAULTS_OF_PROGRAMS.contains(&number),
        None => error.kind() == io::ErrorKind::InvalidInput,
    };
    match is_own_fault {
        true => ProgramEnd::NotStarted(why),
        false => ProgramEnd::Refused(why),
    }
}

/// Starts the program, and again if its file is still open for writing: the worker may have started another process while it
/// wrote the file, which has it open for a moment.
async fn start_unless_busy(order: &LaunchOrder) -> io::Result<Pid> {
    for _ in 0..MAX_BUSY_STARTS {
        match start_program(order) {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                sleep(RETRY_INTERVAL).await;
            }
            started => return started,
        }
    }
    start_program(order)
}

/// Starts the program in a process group of its own. The system kills it if this process is killed.
#[expect(unsafe_code, reason = "there is no other way to call prctl in a child")]
fn start_program(order: &LaunchOrder) -> io::Result<Pid> {
    let (name, args) = order
        .command
        .split_first()
        .ok_or_else(|| io::Error::other("the command is empty"))?;
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    let mut command = Command::new(name);
    command
        .args(args)
        .env_clear()
        .envs(order.env.iter().cloned())
        .current_dir(&order.work_dir)
        .stdin(Stdio::null())
        .stdout(output)
        .process_group(0);

    // SAFETY: the closure makes one system call and neither allocates nor locks.
    let child = unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        command.spawn()?
    };
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the program has no process id"))
}

/// Collects processes that have ended.
struct Reaper {
    program: Pid,
    /// How the program itself ended.
    end: Option<ProgramEnd>,
}

impl Reaper {
    /// Collects all that have ended. Returns whether any process is left.
    fn reap_children(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.program => {
                    let exited = status.exit_status().map(ProgramEnd::Exited);
                    let signaled = status.terminating_signal().map(ProgramEnd::Signaled);
                    self.end = exited.or(signaled);
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Ends all processes below this one.
async fn end_descendants(reaper: &mut Reaper, child_ended: &mut SignalStream) {
    if !reaper.reap_children() {
        return;
    }
    signal_descendants(Signal::TERM);
    let killed_from = Instant::now() + GRACE;
    while Instant::now() < killed_from {
        tokio::select! {
            _ = child_ended.recv() => {}
            () = sleep_until(killed_from) => {}
        }
        if !reaper.reap_children() {
            return;
        }
    }

    while reaper.reap_children() && killed_from.elapsed() < KILL_LIMIT {
        signal_descendants(Signal::KILL);
        tokio::select! {
            _ = child_ended.recv() => {}
            () = sleep(RETRY_INTERVAL) => {}
        }
    }
}

/// Tells the worker how the program ended.
fn report_end(end: &ProgramEnd) -> io::Result<()> {
    write_report(&serde_json::to_vec(end)?)
}

fn write_report(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use crate::program::supervisor::*;

    #[test]
    fn a_machine_without_room_is_no_fault_of_the_program() {
        let order = LaunchOrder {
            command: vec!["pyhton3".into()],
            env: Vec::new(),
            work_dir: "/".into(),
            attempt_dir: "/nowhere".into(),
        };
        let describe =
            |number| describe_failed_start(&order, &io::Error::from_raw_os_error(number));
        for number in [libc::ENOENT, libc::EACCES, libc::ENOEXEC, libc::E2BIG] {
            let end = describe(number);
            assert!(
                matches!(&end, ProgramEnd::NotStarted(why) if why.starts_with("cannot start 'pyhton3': ")),
                "{end:?}"
            );
        }
        for number in [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENOSPC] {
            assert!(matches!(describe(number), ProgramEnd::Refused(_)));
        }
    }
}
