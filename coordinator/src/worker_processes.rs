//! Finds and starts worker programs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::status::UserError;
use tokio::process::{Child, Command};

const WORKER_PROGRAM: &str = "ergodic-worker";

/// Finds the worker program: the named one, or else the one beside this program or on PATH. It must
/// have the same build.
///
/// # Errors
/// There is no such program, or it is of another build.
pub async fn find_worker(named: Option<&Path>) -> Result<PathBuf, UserError> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => find_beside_executable().or_else(find_on_path).ok_or_else(|| {
            let message = format!(
                "cannot find the program {WORKER_PROGRAM} beside this one or on PATH: build it with `cargo build \
                 --release`, or name it with --worker-bin FILE"
            );
            UserError::new(ErrorCode::BadInput, message)
        })?,
    };
    let output = Command::new(&path)
        .arg("-V")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| {
            let message = format!("{}: cannot start it: {e}", path.display());
            UserError::new(ErrorCode::BadInput, message)
        })?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if version != format!("{WORKER_PROGRAM} {BUILD}") {
        let message =
            format!("this is '{version}', but `ergodic` is of build {BUILD}: build both together");
        return Err(UserError::new(
            ErrorCode::Version,
            format!("{}: {message}", path.display()),
        ));
    }

    Ok(path)
}

fn find_beside_executable() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(WORKER_PROGRAM);
    path.is_file().then_some(path)
}

fn find_on_path() -> Option<PathBuf> {
    let dirs = std::env::var_os("PATH")?;
    std::env::split_paths(&dirs)
        .map(|dir| dir.join(WORKER_PROGRAM))
        .find(|path| path.is_file())
}

/// Variables of a cluster that this machine belongs to. What this program starts for itself is no part of it.
const CLUSTER_VARIABLES: [&str; 12] = [
    "ERGODIC_COORDINATOR",
    "ERGODIC_TOKEN_FILE",
    "ERGODIC_CA",
    "ERGODIC_CERT",
    "ERGODIC_KEY",
    "ERGODIC_SPOOL",
    "ERGODIC_CHECKPOINTS",
    "ERGODIC_FILES",
    "ERGODIC_AUTH_DIR",
    "ERGODIC_ADVERTISE",
    "ERGODIC_HTTP",
    "ERGODIC_LOG_FORMAT",
];

/// Keeps the variables of a cluster from a process that serves this program alone: a worker would trust its authority, send its
/// token, or deliver the results in its spool.
pub(crate) fn ignore_cluster_variables(command: &mut Command) {
    for name in CLUSTER_VARIABLES {
        command.env_remove(name);
    }
}

/// The command line of a worker.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// The coordinator's address.
    pub coordinator_url: String,
    /// Number of trials that the worker runs at a time.
    pub slots: u32,
    /// The directory of dataset files.
    pub data_dir: Option<PathBuf>,
    /// The directory of fetched datasets, if it is not the default one.
    pub cache_dir: Option<PathBuf>,
    /// Whether the worker runs programs.
    pub programs: bool,
    /// The file that the worker's log is appended to.
    pub log: PathBuf,
}

impl WorkerCommand {
    /// Starts the worker. It is killed when the child is dropped, and leaves in order when it is
    /// terminated.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self) -> Result<Child, UserError> {
        let failed = |e: std::io::Error| {
            UserError::new(
                ErrorCode::Internal,
                format!("cannot start {}: {e}", self.program.display()),
            )
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(failed)?;

        let mut command = Command::new(&self.program);
        command.args([
            "--coordinator",
            &self.coordinator_url,
            "--slots",
            &self.slots.to_string(),
            "--leave-at-eof",
        ]);

        if let Some(dir) = &self.data_dir {
            command.arg("--data-dir").arg(dir);
        }
        if let Some(dir) = &self.cache_dir {
            command.arg("--cache-dir").arg(dir);
        }
        if self.programs {
            command.arg("--programs");
        }
        ignore_cluster_variables(&mut command);

        // Stdin closes however this program ends, and the worker leaves then. The process group
        // keeps Ctrl-C from reaching the worker: this program gets it and ends its workers in
        // order.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);

        command.spawn().map_err(failed)
    }
}

/// Sends SIGTERM to a child.
pub fn terminate_child(child: &Child) {
    if let Some(pid) = child.id() {
        // Calls the `kill` program, because the standard library sends only SIGKILL and this crate
        // has no unsafe code.
        let _ = std::process::Command::new("kill")
            .arg(pid.to_string())
            .stderr(Stdio::null())
            .status();
    }
}
