//! How this worker runs programs: whose, and how they are kept apart from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ergodic_common::ErrorCode;
use ergodic_common::config::ModelKind;
use ergodic_common::ids::CellHash;
use ergodic_common::program::bundle::{self, BundledFile};
use ergodic_common::program::{ProgramCell, TrialFacts};
use ergodic_common::{Spec, TrialKey};
use ergodic_proto::channel::transport::is_loopback;
use ergodic_proto::status::UserError;

use super::environment::{build_environment, list_gpu_variables};
use super::folder::{AttemptFolder, remove_abandoned_folders};
use super::isolation::Isolation;
use super::starter::SupervisorStarter;
use super::supervisor::order::{LaunchOrder, ProgramEnd};
use super::tail::OutputTail;
use super::watch::{EarlyEnd, WatchedEnd, run_watched};

/// Time limit of all commands of `require` together.
const REQUIRE_LIMIT: Duration = Duration::from_secs(300);
/// Lines and bytes of output that a refusal shows.
const SHOWN_OUTPUT: (usize, usize) = (5, 600);

/// Why a worker refuses a program, if it runs none.
pub(crate) const PROGRAMS_ARE_OFF: &str =
    "this worker runs no programs: start one with --programs for that";

/// Whose programs a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgramTrust {
    /// Programs in namespaces of their own; where the system has none, those of a coordinator on this machine alone
    Isolated,
    /// All programs, even if they can read what this worker can
    Trusted,
}

/// How this worker runs programs.
#[derive(Debug, Clone)]
pub struct ProgramHost {
    /// Whether programs are run in namespaces, which not all kernels allow.
    pub(super) is_isolated: bool,
    /// What starts their supervisors.
    pub(super) starter: Arc<SupervisorStarter>,
    /// The GPUs of the worker, which the commands of `require` see.
    gpus: Vec<String>,
    /// Whether the worker may not follow a coordinator to another machine.
    pub(crate) is_local_only: bool,
    /// Whether the worker is leaving, so that no sweep is prepared any more.
    is_leaving: Arc<AtomicBool>,
}

impl ProgramHost {
    /// Finds out how programs of these coordinators, separated by commas, can be run. `hidden` is what they must not see.
    ///
    /// # Errors
    /// The system has no namespaces, and a coordinator is on another machine and not trusted.
    pub(crate) fn set_up(
        trust: ProgramTrust,
        coordinators: &str,
        hidden: &[PathBuf],
    ) -> Result<Self, UserError> {
        let isolation = Isolation::probe(hidden);
        let is_trusted = trust == ProgramTrust::Trusted;
        let mut urls = coordinators.split(',').map(str::trim);
        let remote = urls.find(|url| !is_loopback(url));
        if let Some(url) = remote.filter(|_| isolation.is_none() && !is_trusted) {
            let message = format!(
                "--programs: programs of {url} could read this worker's token and files, because this system does not let it \
                 create namespaces: allow user namespaces, or say --programs=trusted if you trust all who launch sweeps there"
            );
            return Err(UserError::new(ErrorCode::Refused, message));
        }

        remove_abandoned_folders(&std::env::temp_dir());
        tracing::info!(isolated = isolation.is_some(), "programs are run here");
        Ok(Self {
            is_isolated: isolation.is_some(),
            starter: Arc::new(SupervisorStarter::new(isolation)),
            gpus: Vec::new(),
            is_local_only: !is_trusted && remote.is_none(),
            is_leaving: Arc::default(),
        })
    }

    /// Returns the host of a worker that has these GPUs.
    pub(crate) fn with_gpus(self, gpus: Vec<String>) -> Self {
        Self { gpus, ..self }
    }

    /// The GPUs that programs get shares of.
    pub(crate) fn gpus(&self) -> &[String] {
        &self.gpus
    }

    /// Ends the commands by which a sweep is being prepared: the worker leaves.
    pub(crate) fn note_leaving(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }
}

/// The program of a sweep that a worker has loaded.
#[derive(Debug)]
pub(crate) struct LoadedProgram {
    /// The files of the program.
    pub(super) files: Vec<BundledFile>,
}

impl LoadedProgram {
    /// Reads the files of a bundle, and tries the commands that the sweep requires.
    ///
    /// # Errors
    /// The bundle is none, or a command fails: the sweep cannot be run here.
    pub(crate) fn prepare(
        host: &ProgramHost,
        spec: &Spec,
        bundle: Option<&[u8]>,
    ) -> Result<Self, String> {
        let files = bundle.map(bundle::decode).transpose()?;
        let program = Self {
            files: files.unwrap_or_default(),
        };
        if let Some(cell) = find_program(spec) {
            bundle::check_listed(&program.files, &cell.program.files)?;
            let until = Instant::now() + REQUIRE_LIMIT;
            for command in &cell.program.require {
                program.try_requirement((host, until), spec, &cell, command)?;
            }
        }
        Ok(program)
    }

    /// Runs a command of `require` once, as the first trial would be run. All of them have one time limit.
    fn try_requirement(
        &self,
        (host, until): (&ProgramHost, Instant),
        spec: &Spec,
        cell: &ProgramCell,
        command: &[String],
    ) -> Result<(), String> {
        let failed = |why: String| {
            let command = command.join(" ");
            format!("program.require: '{command}' failed on this worker: {why}")
        };
        let folder = AttemptFolder::create(&self.files).map_err(|e| failed(e.to_string()))?;
        let streams = spec.trial_streams(TrialKey::new(0, 0), CellHash([0; 32]));
        let facts = TrialFacts {
            streams: &streams,
            dir: &folder.work_dir.to_string_lossy(),
        };
        let set = cell.fill_env(&facts);
        let gpus = list_gpu_variables(cell.program.needs, &host.gpus, read_variable);
        let own: Vec<(&str, &str)> = gpus.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let order = LaunchOrder {
            command: command.to_vec(),
            env: build_environment(&cell.program, read_variable, set, &own),
            work_dir: folder.work_dir.clone(),
            attempt_dir: folder.root.clone(),
        };

        let should_end = || match host.is_leaving.load(Ordering::Relaxed) {
            true => Some(EarlyEnd::Stopped),
            false => (Instant::now() >= until).then_some(EarlyEnd::TimedOut),
        };
        let ended = run_watched(
            &order,
            &host.starter,
            None,
            OutputTail::default(),
            &should_end,
        )
        .map_err(|error| failed(error.to_string()))?;
        match ended.report.end {
            Some(ProgramEnd::Exited(0)) if ended.early.is_none() => Ok(()),
            _ => Err(failed(describe_end(&ended, SHOWN_OUTPUT))),
        }
    }
}

/// How a program ended, with the last lines of its output.
pub(super) fn describe_end(ended: &WatchedEnd, (lines, bytes): (usize, usize)) -> String {
    let how = match (&ended.early, &ended.report.end) {
        (Some(EarlyEnd::Stopped), _) => "the worker leaves".to_owned(),
        (Some(EarlyEnd::TimedOut), _) => "it exceeded its time limit".to_owned(),
        (_, Some(ProgramEnd::NotStarted(why) | ProgramEnd::Refused(why))) => return why.clone(),
        (_, Some(ProgramEnd::Exited(status))) => format!("it ended with exit status {status}"),
        (_, Some(ProgramEnd::Signaled(signal))) => {
            format!("signal {signal}{} ended it", signal_name(*signal))
        }
        (_, None) if ended.report.is_started => "its supervisor was killed".to_owned(),
        (_, None) => "its supervisor ended before it was started".to_owned(),
    };
    let output = ended.output.last_lines(lines, bytes);
    match output.is_empty() {
        true => format!("{how}; it printed nothing"),
        false => format!("{how}; its last lines are:\n{output}"),
    }
}

/// The name of a signal behind its number, for the usual ones.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL; the system may have run out of memory)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// A variable of the worker's environment, if it is text.
pub(super) fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The program of a sweep, with the values of its first cell. All cells have the same program.
pub(crate) fn find_program(spec: &Spec) -> Option<Arc<ProgramCell>> {
    let first = spec.grid.iter().next()?;
    match spec.grid.resolve_config(first).ok()?.model.kind {
        ModelKind::Program(cell) => Some(cell),
        _ => None,
    }
}
