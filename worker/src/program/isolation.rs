//! Namespaces of a trial's own: it sees neither other processes nor what the worker hides.
//!
//! A process forks the supervisor as the first process of new PID and mount namespaces, with a `/proc` of their own, which mounts
//! empty folders over the hidden ones. Then it gives up its capabilities, so that nothing can be unmounted. Its end is the end of
//! all processes in the namespace.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{
    Signal, WaitOptions, getgid, getuid, set_parent_process_death_signal, setsid, waitpid,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::process::{fork_process, ignore_signals};

/// The hidden command by which the worker becomes a supervisor.
pub(super) const SUPERVISE_COMMAND: &str = "supervise-program";
/// The path of the worker's own program, even if another one was installed meanwhile.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

/// How trials are kept apart from the worker.
#[derive(Debug, Clone)]
pub(crate) struct Isolation {
    /// Files and folders of the worker that trials do not see.
    hidden: Vec<PathBuf>,
    /// Whether the namespaces belong to a user namespace, as they must unless the worker runs as root.
    has_user_namespace: bool,
}

impl Isolation {
    /// Finds out which namespaces the kernel allows; `None` if it does not allow what isolation takes.
    pub(crate) fn probe(hidden: &[PathBuf]) -> Option<Self> {
        let hidden: Vec<PathBuf> = hidden
            .iter()
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        [true, false].into_iter().find_map(|has_user_namespace| {
            let isolation = Self {
                hidden: hidden.clone(),
                has_user_namespace,
            };
            let mut command = Command::new(OWN_PROGRAM);
            command
                .arg(SUPERVISE_COMMAND)
                .args(isolation.to_args())
                .arg("--probe")
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let status = command.status();
            status
                .is_ok_and(|status| status.success())
                .then_some(isolation)
        })
    }

    /// The arguments that have a supervisor start so.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--isolate".into()];
        if self.has_user_namespace {
            args.push("--user-namespace".into());
        }
        for path in &self.hidden {
            args.extend(["--hide".into(), path.clone().into_os_string()]);
        }
        args
    }
}

/// Has a process supervise as the first one of new namespaces, and waits for its end.
///
/// # Errors
/// The kernel refuses namespaces, or the process was ended.
pub(super) fn supervise_isolated(
    has_user_namespace: bool,
    hidden: &[PathBuf],
    supervise: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let _ = setsid();
    ignore_signals();
    enter_namespaces(has_user_namespace)?;
    let plan = MountPlan::new(hidden)?;
    let supervisor = fork_process(|| {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        plan.mount_all()?;
        drop_capabilities()?;
        supervise()
    })?;

    let ended = loop {
        match waitpid(Some(supervisor), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            ended => break ended?,
        }
    };
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        _ => Err(io::Error::other("the supervisor was ended")),
    }
}

/// Has children of this process begin new namespaces. This user keeps its id in them.
#[expect(unsafe_code, reason = "the standard library has no namespaces")]
fn enter_namespaces(has_user_namespace: bool) -> io::Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    if has_user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    // SAFETY: the call takes no pointers, and this process has one thread.
    check_call(unsafe { libc::unshare(flags) })?;
    if has_user_namespace {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    Ok(())
}

/// What is mounted over what, as texts for the system.
struct MountPlan {
    /// Hidden paths, each with whether it is a folder.
    hidden: Vec<(CString, bool)>,
}

impl MountPlan {
    fn new(hidden: &[PathBuf]) -> io::Result<Self> {
        let hidden = hidden.iter().filter(|path| path.exists());
        let hidden = hidden.map(|path| {
            let text = CString::new(path.as_os_str().as_bytes())?;
            Ok((text, path.is_dir()))
        });
        Ok(Self {
            hidden: hidden.collect::<io::Result<_>>()?,
        })
    }

    /// Mounts everything in the namespace of this process.
    fn mount_all(&self) -> io::Result<()> {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let safe = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        mount_path(c"none", c"/", c"none", private, c"")?;
        mount_path(c"proc", c"/proc", c"proc", safe, c"")?;
        for (path, is_dir) in &self.hidden {
            match is_dir {
                true => mount_path(
                    c"none",
                    path,
                    c"tmpfs",
                    safe | libc::MS_RDONLY,
                    c"size=4k,mode=0",
                )?,
                false => mount_path(c"/dev/null", path, c"none", libc::MS_BIND, c"")?,
            }
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "the standard library cannot mount")]
fn mount_path(
    source: &std::ffi::CStr,
    target: &std::ffi::CStr,
    kind: &std::ffi::CStr,
    flags: libc::c_ulong,
    options: &std::ffi::CStr,
) -> io::Result<()> {
    // SAFETY: all pointers are texts that end with 0 and outlive the call.
    check_call(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    })
}

/// Has this process and all that it starts be without capabilities, even if its user is root, and gain none.
#[expect(unsafe_code, reason = "the standard library knows no capabilities")]
fn drop_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: the call takes no pointers. It refuses capabilities that this kernel does not have.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    // SAFETY: the call takes no pointers.
    check_call(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, none)?)
}

fn check_call(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
