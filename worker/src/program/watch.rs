//! Watches one program from its start to its end.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::lines::LineSplitter;
use super::record::{LineEffect, TrialRecord};
use super::starter::SupervisorStarter;
use super::supervisor::launch::StartedSupervisor;
use super::supervisor::order::{LaunchOrder, SupervisorReport};
use super::tail::OutputTail;

/// Bytes that are read from one pipe before the others have their turn.
const READ_BYTES: usize = 16 << 10;
/// Most bytes that Linux lets anyone give a pipe, twice.
const MAX_PIPE_BYTES: usize = 2 << 20;
/// Interval at which stop and time limit are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Time for which the output may go on after the end, if a process is left that holds it.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the worker ends a program before its own end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EarlyEnd {
    /// The trial is to stop.
    Stopped,
    /// The time limit has passed.
    TimedOut,
    /// A line of metrics is wrong.
    WrongLine(String),
    /// The trial has diverged.
    Diverged,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct WatchedEnd {
    /// What the supervisor said.
    pub(super) report: SupervisorReport,
    /// Why the worker ended it, if it did.
    pub(super) early: Option<EarlyEnd>,
    /// What is wrong with the last line of metrics, which has no end.
    pub(super) cut_line: Option<String>,
    /// The last of what it printed.
    pub(super) output: OutputTail,
}

/// The metrics of a program that reports some.
pub(super) struct MetricsInput<'r, 'm> {
    /// The pipe that the program writes to.
    pub(super) pipe: &'r Path,
    /// The record that its lines go to.
    pub(super) record: &'r mut TrialRecord<'m>,
    /// Keeps the checkpoint of a step.
    pub(super) keep_checkpoint: &'r dyn Fn(&TrialRecord<'m>, u64) -> Result<(), String>,
}

/// Runs a program to its end, on a runtime of its own. What it prints goes to `output`, and `should_end` is asked often whether to
/// end it before.
///
/// # Errors
/// The system refuses a process, pipes or a runtime: no fault of the program.
pub(super) fn run_watched(
    order: &LaunchOrder,
    starter: &SupervisorStarter,
    metrics: Option<MetricsInput<'_, '_>>,
    output: OutputTail,
    should_end: &dyn Fn() -> Option<EarlyEnd>,
) -> io::Result<WatchedEnd> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let pipe = metrics
            .as_ref()
            .map(|metrics| open_metrics_pipe(metrics.pipe))
            .transpose()?;
        let watch = Watch {
            supervisor: StartedSupervisor::start(order, starter)?,
            pipe,
            metrics,
            lines: LineSplitter::default(),
            output,
            early: None,
        };
        watch.run_to_end(should_end).await
    })
}

/// Opens the pipe for both directions, so that it neither waits for the program nor ends when a writer closes it.
fn open_metrics_pipe(path: &Path) -> io::Result<Receiver> {
    OpenOptions::new().read_write(true).open_receiver(path)
}

/// A program that is being watched.
struct Watch<'r, 'm> {
    supervisor: StartedSupervisor,
    pipe: Option<Receiver>,
    metrics: Option<MetricsInput<'r, 'm>>,
    lines: LineSplitter,
    output: OutputTail,
    early: Option<EarlyEnd>,
}

impl Watch<'_, '_> {
    async fn run_to_end(
        mut self,
        should_end: &dyn Fn() -> Option<EarlyEnd>,
    ) -> io::Result<WatchedEnd> {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut metrics = vec![0; READ_BYTES];
        let mut printed = vec![0; READ_BYTES];
        let mut report = Vec::new();
        let mut is_output_open = true;

        loop {
            tokio::select! {
                read = self.supervisor.report.read_buf(&mut report) => if read? == 0 {
                    break;
                },
                read = read_some(self.pipe.as_mut(), &mut metrics) => self.add_metrics(&metrics[..read?]),
                read = self.supervisor.output.read(&mut printed), if is_output_open => {
                    let read = read?;
                    is_output_open = read > 0;
                    self.output.push_bytes(&printed[..read]);
                }
                _ = checks.tick() => if let Some(early) = should_end() {
                    self.end_early(early);
                },
            }
        }

        self.drain_metrics(&mut metrics)?;
        if is_output_open {
            // Whatever could hold the pipe has been ended, unless the supervisor was killed.
            let _ = timeout(OUTPUT_TIMEOUT, self.drain_output(&mut printed)).await;
        }
        Ok(self.finish(&report))
    }

    fn finish(mut self, report: &[u8]) -> WatchedEnd {
        let cut_line = self.read_cut_line().err();
        WatchedEnd {
            report: SupervisorReport::parse(report),
            early: self.early,
            cut_line,
            output: self.output,
        }
    }

    /// Has the supervisor end everything. The first reason counts, except that a stop is more than any.
    fn end_early(&mut self, why: EarlyEnd) {
        if self.early.is_none() {
            self.supervisor.request_end();
            self.early = Some(why);
        } else if why == EarlyEnd::Stopped {
            self.early = Some(why);
        }
    }

    /// Adds bytes of metrics, unless the outcome is known already.
    fn add_metrics(&mut self, bytes: &[u8]) {
        let is_settled = !matches!(self.early, None | Some(EarlyEnd::Stopped));
        if is_settled {
            return;
        }
        match self.try_add_metrics(bytes) {
            Ok(false) => {}
            Ok(true) => self.end_early(EarlyEnd::Diverged),
            Err(why) => self.end_early(EarlyEnd::WrongLine(why)),
        }
    }

    /// Adds bytes of metrics. Returns whether the trial has diverged.
    fn try_add_metrics(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let Some(metrics) = &mut self.metrics else {
            return Ok(false);
        };
        for line in self.lines.push_bytes(bytes)? {
            match metrics.record.add_line(&line)? {
                LineEffect::None => {}
                LineEffect::Diverged => return Ok(true),
                LineEffect::Checkpoint(step) => (metrics.keep_checkpoint)(metrics.record, step)?,
            }
        }
        Ok(false)
    }

    /// Reads what is left in the pipe. That is no more than a pipe can hold, because all writers have ended.
    fn drain_metrics(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let Some(pipe) = self.pipe.take() else {
            return Ok(());
        };
        let mut pipe = File::from(pipe.into_nonblocking_fd()?);
        for _ in 0..MAX_PIPE_BYTES / READ_BYTES {
            match pipe.read(buffer) {
                Ok(0) => break,
                Ok(read) => self.add_metrics(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn drain_output(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let read = self.supervisor.output.read(buffer).await?;
            if read == 0 {
                return Ok(());
            }
            self.output.push_bytes(&buffer[..read]);
        }
    }

    /// Adds a last line without an end.
    fn read_cut_line(&mut self) -> Result<(), String> {
        let (Some(metrics), Some(line)) = (&mut self.metrics, self.lines.take_rest()) else {
            return Ok(());
        };
        if self.early.is_none() && metrics.record.add_line(&line)? == LineEffect::Diverged {
            self.early = Some(EarlyEnd::Diverged);
        }
        Ok(())
    }
}

/// Reads from a pipe; never returns without one.
async fn read_some(pipe: Option<&mut Receiver>, buffer: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(buffer).await,
        None => std::future::pending().await,
    }
}
