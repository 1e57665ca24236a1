//! One attempt of a program's trial, and the result that it gives.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use ergodic_common::Outcome;
use ergodic_common::duration::format_duration;
use ergodic_common::ids::TrialIdentity;
use ergodic_common::program::output::SHOWN_OUTPUT;
use ergodic_common::program::{ProgramCell, TrialFacts};
use ergodic_common::random_streams::Streams;

use super::checkpoint::{CheckpointKeeper, LoadedCheckpoint, compute_identity, load_checkpoint};
use super::environment::{build_environment, describe_trial, list_gpu_variables};
use super::folder::AttemptFolder;
use super::host::{LoadedProgram, ProgramHost, describe_end, read_variable};
use super::kept_files::KeptFiles;
use super::record::TrialRecord;
use super::supervisor::order::{LaunchOrder, ProgramEnd};
use super::watch::{EarlyEnd, MetricsInput, WatchedEnd, run_watched};
use crate::train::{CheckpointStore, FinishedTrial};
use crate::work_queue::Assignment;

/// What a program's trial is run with.
pub(crate) struct ProgramJob<'a> {
    /// How this worker runs programs.
    pub(crate) host: &'a ProgramHost,
    /// The program with the values of the cell.
    pub(crate) cell: &'a ProgramCell,
    /// The files of the program.
    pub(crate) program: &'a LoadedProgram,
    /// The random streams of the trial.
    pub(crate) streams: &'a Streams,
    /// Trial, sweep, stop and time limit.
    pub(crate) assignment: &'a Assignment,
    /// The store of checkpoints, if there is one.
    pub(crate) checkpoint_store: Option<&'a dyn CheckpointStore>,
}

/// Why an attempt has no result.
#[derive(Debug)]
pub enum NoResult {
    /// The trial was stopped.
    Stopped,
    /// The worker could not run it, for a reason that is no fault of the trial.
    Unable(String),
}

impl From<std::io::Error> for NoResult {
    fn from(error: std::io::Error) -> Self {
        Self::Unable(format!("cannot run a program: {error}"))
    }
}

/// Runs a trial from its last checkpoint, or from the start.
///
/// # Errors
/// The trial was stopped, or this worker cannot run it.
pub(crate) fn run_program_trial(job: &ProgramJob<'_>) -> Result<FinishedTrial, NoResult> {
    let begun = Instant::now();
    let folder = AttemptFolder::create(&job.program.files)?;
    // Opened before the program can put something else in its place.
    let work_dir = File::open(&folder.work_dir)?;
    let identity = compute_identity(job.cell, job.assignment.key, job.streams);
    let loaded = job.load_checkpoint(&folder, identity)?;
    let step = loaded.as_ref().map(|checkpoint| checkpoint.step);
    let mut record = match loaded {
        Some(checkpoint) => checkpoint.record,
        None => TrialRecord::new(&job.cell.program.metrics),
    };

    let order = build_order(job, &folder, step)?;
    let ended = job.watch_program(&order, &folder, identity, &mut record, begun)?;
    if let Some(why) = find_worker_fault(&ended, job.host.is_isolated) {
        return Err(NoResult::Unable(why));
    }

    if let Some(store) = job.checkpoint_store {
        store.discard_checkpoints(identity);
    }
    let kept = KeptFiles {
        program: &job.cell.program,
        inputs: &job.program.files,
        folder: work_dir.as_fd(),
    };
    let judged = judge_end(&record, &ended, job.assignment.time_limit);
    let judged = judged.and_then(|outcome| Ok((kept.read_after(&outcome)?, outcome)));
    let (archive, outcome) = match judged {
        Ok((archive, outcome)) => (archive, Ok(outcome)),
        Err(cause) => (None, Err(cause)),
    };
    let mut finished = FinishedTrial {
        result: record.into_result(job.assignment.key, outcome),
        weights: None,
    };
    if let Some(archive) = archive {
        kept.add_to_result(&mut finished, archive);
    }
    finished.result.seconds = begun.elapsed().as_secs_f64();
    finished.result.output = ended.output.pack();
    Ok(finished)
}

impl<'a> ProgramJob<'a> {
    /// Writes the files of the last checkpoint into the folder, if there is one.
    fn load_checkpoint(
        &self,
        folder: &AttemptFolder,
        identity: TrialIdentity,
    ) -> std::io::Result<Option<LoadedCheckpoint<'a>>> {
        let Some(store) = self.checkpoint_store else {
            return Ok(None);
        };
        let metrics = &self.cell.program.metrics;
        load_checkpoint(store, identity, &folder.checkpoint_dir, metrics)
    }

    /// Runs the program to its end, and keeps its checkpoints.
    fn watch_program(
        &self,
        order: &LaunchOrder,
        folder: &AttemptFolder,
        identity: TrialIdentity,
        record: &mut TrialRecord<'a>,
        begun: Instant,
    ) -> Result<WatchedEnd, NoResult> {
        let dir = File::open(&folder.checkpoint_dir)?;
        let limit = self.cell.program.checkpoint_limit;
        let keeper = self
            .checkpoint_store
            .map(|store| CheckpointKeeper::new(store, identity, dir.as_fd(), limit));
        let keep = |record: &TrialRecord<'_>, step: u64| match &keeper {
            Some(keeper) => keeper.keep_checkpoint(record, step, self.assignment.is_stopped()),
            None => Ok(()),
        };
        let input = MetricsInput {
            pipe: &folder.metrics_pipe,
            record,
            keep_checkpoint: &keep,
        };

        let should_end = || self.find_early_end(begun);
        let output = self.assignment.output.clone();
        let ended = run_watched(order, &self.host.starter, Some(input), output, &should_end)?;
        if !self.assignment.is_stopped() && ended.early != Some(EarlyEnd::Stopped) {
            return Ok(ended);
        }
        if let Some(Err(why)) = keeper.map(|keeper| keeper.save_waiting()) {
            let trial = self.assignment.key;
            tracing::warn!(%trial, why, "the last checkpoint is not kept");
        }
        Err(NoResult::Stopped)
    }

    fn find_early_end(&self, begun: Instant) -> Option<EarlyEnd> {
        let limit = self.assignment.time_limit;
        let is_late = limit.is_some_and(|limit| begun.elapsed() >= limit);
        match self.assignment.is_stopped() {
            true => Some(EarlyEnd::Stopped),
            false => is_late.then_some(EarlyEnd::TimedOut),
        }
    }
}

/// What the supervisor starts, once the description of the trial is written.
fn build_order(
    job: &ProgramJob<'_>,
    folder: &AttemptFolder,
    checkpoint: Option<u64>,
) -> std::io::Result<LaunchOrder> {
    let facts = TrialFacts {
        streams: job.streams,
        dir: &folder.work_dir.to_string_lossy(),
    };
    let described = describe_trial(
        job.assignment.sweep.id.as_str(),
        job.cell,
        &facts,
        checkpoint,
    );
    std::fs::write(&folder.trial_file, format!("{described:#}\n"))?;

    let trial_file = folder.trial_file.to_string_lossy();
    let metrics_pipe = folder.metrics_pipe.to_string_lossy();
    let checkpoint_dir = folder.checkpoint_dir.to_string_lossy();
    let mut own = vec![
        ("ERGODIC_TRIAL", &*trial_file),
        ("ERGODIC_METRICS", &*metrics_pipe),
        ("ERGODIC_CHECKPOINT", &*checkpoint_dir),
    ];
    let needs = job.cell.program.needs;
    let gpus = list_gpu_variables(needs, &job.assignment.gpus, read_variable);
    own.extend(gpus.iter().map(|(name, value)| (*name, value.as_str())));
    let set = job.cell.fill_env(&facts);
    Ok(LaunchOrder {
        command: job.cell.fill_command(&facts),
        env: build_environment(&job.cell.program, read_variable, set, &own),
        work_dir: folder.work_dir.clone(),
        attempt_dir: folder.root.clone(),
    })
}

/// Why this worker could not run the program, if that is no fault of the program. With namespaces, a program cannot kill its
/// supervisor; without them it can, once it runs.
fn find_worker_fault(ended: &WatchedEnd, is_isolated: bool) -> Option<String> {
    let report = &ended.report;
    let is_fault = match &report.end {
        Some(ProgramEnd::Refused(_)) => true,
        Some(_) => false,
        None => ended.early.is_none() && (is_isolated || !report.is_started),
    };
    is_fault.then(|| {
        let how = describe_end(ended, SHOWN_OUTPUT);
        format!("this worker cannot run the program: {how}")
    })
}

/// The outcome of an attempt that was not stopped, or why it failed.
fn judge_end(
    record: &TrialRecord<'_>,
    ended: &WatchedEnd,
    limit: Option<Duration>,
) -> Result<Outcome, String> {
    if let Some(step) = record.diverged_at() {
        return Ok(Outcome::Diverged { step });
    }
    match &ended.early {
        Some(EarlyEnd::WrongLine(why)) => return Err(why.clone()),
        Some(EarlyEnd::TimedOut) => {
            return Err(format!(
                "it exceeded its time limit of {} after step {}",
                format_duration(limit.unwrap_or_default()),
                record.last_step()
            ));
        }
        _ => {}
    }
    if ended.report.end != Some(ProgramEnd::Exited(0)) {
        return Err(describe_end(ended, SHOWN_OUTPUT));
    }
    if let Some(why) = &ended.cut_line {
        return Err(why.clone());
    }

    let missing = record.missing_metrics();
    match missing.is_empty() {
        true => Ok(Outcome::Completed),
        false => Err(format!(
            "the program ended without reporting {}: write it as a line of JSON to ERGODIC_METRICS",
            missing.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::program::{DeclaredMetric, Direction};

    use crate::program::lines::NumberedLine;
    use crate::program::supervisor::order::SupervisorReport;
    use crate::program::tail::OutputTail;
    use crate::program::trial::*;

    fn metrics() -> Vec<DeclaredMetric> {
        let metric = |name: &str| DeclaredMetric {
            name: name.into(),
            direction: Direction::Min,
        };
        vec![metric("loss"), metric("error")]
    }

    fn judge(line: &str, ended: &WatchedEnd) -> Result<Outcome, String> {
        let metrics = metrics();
        let mut record = TrialRecord::new(&metrics);
        let line = NumberedLine {
            number: 1,
            bytes: line.into(),
        };
        record.add_line(&line).expect("a line that is right");
        judge_end(&record, ended, Some(Duration::from_secs(60)))
    }

    fn ended(end: ProgramEnd) -> WatchedEnd {
        let output = OutputTail::default();
        output.push_bytes(b"epoch 1\nno memory\n");
        WatchedEnd {
            report: SupervisorReport {
                is_started: true,
                end: Some(end),
            },
            early: None,
            cut_line: Some("line 2 is cut".into()),
            output,
        }
    }

    fn killed(is_started: bool) -> WatchedEnd {
        let report = SupervisorReport {
            is_started,
            end: None,
        };
        WatchedEnd {
            report,
            ..ended(ProgramEnd::Exited(0))
        }
    }

    const ALL: &str = r#"{"step": 3, "loss": 1, "error": 2}"#;

    #[test]
    fn a_signal_or_exit_status_says_more_than_a_cut_line() {
        for (end, why) in [
            (ProgramEnd::Signaled(11), "signal 11 (SIGSEGV) ended it"),
            (ProgramEnd::Exited(3), "it ended with exit status 3"),
        ] {
            let cause = judge(ALL, &ended(end)).expect_err("a failure");
            assert_eq!(
                cause,
                format!("{why}; its last lines are:\nepoch 1\nno memory")
            );
        }
        let cut = judge(ALL, &ended(ProgramEnd::Exited(0)));
        assert_eq!(cut, Err("line 2 is cut".into()));

        let cause = judge(ALL, &killed(true)).expect_err("a failure");
        assert!(cause.starts_with("its supervisor was killed"), "{cause}");
    }

    #[test]
    fn what_the_worker_lacks_is_no_fault_of_the_program() {
        // Without namespaces, the program may have killed its supervisor itself.
        assert_eq!(find_worker_fault(&killed(true), false), None);
        for (is_started, is_isolated) in [(false, false), (false, true), (true, true)] {
            let why =
                find_worker_fault(&killed(is_started), is_isolated).expect("a fault of the worker");
            assert!(
                why.contains("its supervisor") && why.contains("no memory"),
                "{why}"
            );
        }
        let late = WatchedEnd {
            early: Some(EarlyEnd::TimedOut),
            ..killed(true)
        };
        assert_eq!(find_worker_fault(&late, true), None);

        let refused = ended(ProgramEnd::Refused("no process is left".into()));
        let why = find_worker_fault(&refused, true).expect("a fault of the worker");
        assert!(why.contains("no process is left"), "{why}");
    }

    #[test]
    fn a_command_that_does_not_exist_fails_the_trial() {
        let why = "cannot start 'pyhton3': No such file or directory (os error 2)";
        let ended = ended(ProgramEnd::NotStarted(why.into()));
        assert_eq!(find_worker_fault(&ended, true), None);
        assert_eq!(judge(ALL, &ended), Err(why.into()));
    }

    #[test]
    fn a_program_completes_only_with_all_its_metrics() {
        let whole = WatchedEnd {
            cut_line: None,
            ..ended(ProgramEnd::Exited(0))
        };
        assert_eq!(judge(ALL, &whole), Ok(Outcome::Completed));
        let cause = judge(r#"{"step": 3, "loss": 1}"#, &whole).expect_err("a failure");
        assert!(cause.contains("without reporting error:"), "{cause}");
    }

    #[test]
    fn the_reason_for_an_early_end_counts_before_the_signal() {
        let early = |early| WatchedEnd {
            early: Some(early),
            ..ended(ProgramEnd::Signaled(15))
        };
        assert_eq!(
            judge(ALL, &early(EarlyEnd::TimedOut)),
            Err("it exceeded its time limit of 1m after step 3".into())
        );
        assert_eq!(
            judge(ALL, &early(EarlyEnd::WrongLine("line 4".into()))),
            Err("line 4".into())
        );
        assert_eq!(
            judge(r#"{"diverged": 5}"#, &early(EarlyEnd::Diverged)),
            Ok(Outcome::Diverged { step: 5 })
        );
    }
}
