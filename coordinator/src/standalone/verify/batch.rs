//! The sweeps of a verification. All are launched before the first trial, so that no core waits for the last trials of one, and run
//! in the order of the files.

use ergodic_common::ErrorCode;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::experiment::Experiment;
use crate::client::Client;
use crate::client::commands::launch::{LaunchMode, format_reused_results};
use crate::client::commands::update::{PRIORITY_RANGE, set_priority};
use crate::client::commands::watch::follow_titled_sweep;
use crate::client::query::incomplete_response;
use crate::server::RunningServer;
use crate::standalone::stages::{list_source_stages, name_source_sweeps, stage_name};
use crate::standalone::sweeps::launch_file;
use crate::terminal::print_stderr_line;

/// The sweeps of some experiments.
pub(super) struct VerifyBatch<'a> {
    experiments: &'a [Experiment],
    server: &'a RunningServer,
    mode: LaunchMode,
    /// What has become of each. A sweep that has trials of one that runs must wait for it.
    sweeps: Vec<BatchedSweep>,
}

/// What has become of the sweep of an experiment.
#[derive(Debug, Clone)]
enum BatchedSweep {
    /// Not launched yet.
    Waiting,
    /// Launched or found, with the last status that is known.
    Launched(Box<v1::SweepStatus>),
    /// Not to be launched, because of what the trials left that it starts from.
    Unstartable(String),
}

/// How an experiment has ended.
pub(super) enum ExperimentEnd {
    /// All trials have ended.
    Ended(Box<v1::SweepStatus>),
    /// There are no trials, for this reason.
    Unstartable(String),
}

impl BatchedSweep {
    fn status(&self) -> Option<&v1::SweepStatus> {
        match self {
            Self::Launched(status) => Some(status),
            Self::Waiting | Self::Unstartable(_) => None,
        }
    }

    /// Whether nothing of it will be run.
    fn has_ended(&self) -> bool {
        match self {
            Self::Waiting => false,
            Self::Launched(status) => has_ended(status),
            Self::Unstartable(_) => true,
        }
    }
}

impl<'a> VerifyBatch<'a> {
    pub(super) fn new(
        experiments: &'a [Experiment],
        server: &'a RunningServer,
        again: bool,
    ) -> Self {
        Self {
            experiments,
            server,
            mode: match again {
                true => LaunchMode::All,
                false => LaunchMode::Resume,
            },
            sweeps: vec![BatchedSweep::Waiting; experiments.len()],
        }
    }

    /// Launches or resumes all sweeps, but those that start from results of one that has not ended, or have trials in common with
    /// one before them that is not complete.
    ///
    /// # Errors
    /// A sweep was refused for another reason.
    pub(super) async fn launch_all(&mut self, client: &mut Client) -> Result<(), UserError> {
        for at in 0..self.experiments.len() {
            if !self.have_sources_ended(at) {
                continue;
            }
            let runs_before = self.find_running().is_some();
            match self.launch(client, at).await {
                Err(error) if error.code == ErrorCode::Refused && runs_before => {}
                launched => launched?,
            }
        }
        Ok(())
    }

    /// Whether the sweeps have ended whose results an experiment starts from.
    fn have_sources_ended(&self, at: usize) -> bool {
        let names = list_source_stages(&self.experiments[at].spec);
        names.iter().all(|name| {
            let source = self.find_stage(at, name);
            source.is_some_and(BatchedSweep::has_ended)
        })
    }

    /// The sweep of a stage of the file of an experiment, of those before it.
    fn find_stage(&self, at: usize, name: &str) -> Option<&BatchedSweep> {
        let main = self.experiments[at].main;
        let stage = (main..at).find(|stage| {
            let chosen = &self.experiments[*stage].spec.stages.chosen;
            stage_name(chosen.as_deref()) == name
        })?;
        Some(&self.sweeps[stage])
    }

    /// Launches or resumes a sweep, or notes why it cannot start.
    ///
    /// # Errors
    /// The sweep is refused for a reason that has nothing to do with what it starts from, or one that another sweep may remove.
    async fn launch(&mut self, client: &mut Client, at: usize) -> Result<(), UserError> {
        let sources = list_source_stages(&self.experiments[at].spec);
        for name in &sources {
            if let Some(BatchedSweep::Unstartable(_)) = self.find_stage(at, name) {
                let why = format!("the stage '{name}', which its trials start from, has none");
                self.note_unstartable(at, why);
                return Ok(());
            }
        }

        match self.try_launch(client, at).await {
            Ok(status) => {
                self.sweeps[at] = BatchedSweep::Launched(Box::new(status));
                Ok(())
            }
            Err(error) if self.is_about_sources(at, &error) => {
                self.note_unstartable(at, error.message);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an error says that trials of a stage lack what other stages of its file should have left.
    fn is_about_sources(&self, at: usize, error: &UserError) -> bool {
        let starts = !list_source_stages(&self.experiments[at].spec).is_empty();
        starts && error.code == ErrorCode::NotFound
    }

    fn note_unstartable(&mut self, at: usize, why: String) {
        let label = &self.experiments[at].label;
        print_stderr_line(&format!("{label}: no trial can start: {why}"));
        self.sweeps[at] = BatchedSweep::Unstartable(why);
    }

    async fn try_launch(
        &self,
        client: &mut Client,
        at: usize,
    ) -> Result<v1::SweepStatus, UserError> {
        let Experiment {
            label, file, spec, ..
        } = &self.experiments[at];
        let file = name_source_sweeps(file, spec, |name| {
            let status = self.find_stage(at, name).and_then(BatchedSweep::status);
            status.map(v1::SweepStatus::sweep_id)
        });
        let launched = launch_file(client, self.server, &file, spec.clone(), self.mode).await?;
        let lines = format_reused_results(&launched);
        for line in lines {
            print_stderr_line(&format!("{label}: {line}"));
        }
        let status = launched
            .status
            .ok_or_else(|| incomplete_response("LaunchResponse"))?;

        if !has_ended(&status) {
            let priority = PRIORITY_RANGE.end() - i32::try_from(at).unwrap_or(i32::MAX);
            let priority = priority.max(*PRIORITY_RANGE.start());
            set_priority(client, &status.sweep_id(), priority).await?;
        }
        Ok(status)
    }

    /// Whether all sweeps have ended.
    pub(super) fn is_complete(&self) -> bool {
        self.sweeps.iter().all(BatchedSweep::has_ended)
    }

    /// The first sweep that was launched and has not ended, as far as is known, with its id.
    fn find_running(&self) -> Option<(usize, SweepId)> {
        let all = self.sweeps.iter().enumerate();
        let mut launched = all.filter_map(|(at, sweep)| Some((at, sweep.status()?)));
        let (at, status) = launched.find(|(_, status)| !has_ended(status))?;
        Some((at, status.sweep_id()))
    }

    /// Waits for the end of a sweep.
    ///
    /// # Errors
    /// The sweep was refused, or the coordinator does not respond.
    pub(super) async fn complete(
        &mut self,
        client: &mut Client,
        at: usize,
    ) -> Result<ExperimentEnd, UserError> {
        loop {
            match &self.sweeps[at] {
                BatchedSweep::Waiting => self.launch_or_wait(client, at).await?,
                BatchedSweep::Launched(status) if has_ended(status) => {
                    return Ok(ExperimentEnd::Ended(status.clone()));
                }
                BatchedSweep::Launched(status) => {
                    let id = status.sweep_id();
                    let status = self.follow(client, at, &id).await?;
                    return Ok(ExperimentEnd::Ended(Box::new(status)));
                }
                BatchedSweep::Unstartable(why) => {
                    return Ok(ExperimentEnd::Unstartable(why.clone()));
                }
            }
        }
    }

    /// Launches a sweep, or waits for the end of one that may be in its way.
    async fn launch_or_wait(&mut self, client: &mut Client, at: usize) -> Result<(), UserError> {
        let launched = self.launch(client, at).await;
        match (launched, self.find_running()) {
            (Err(error), Some((other, id))) if error.code == ErrorCode::Refused => {
                self.follow(client, other, &id).await.map(|_| ())
            }
            (launched, _) => launched,
        }
    }

    /// Shows the progress of a sweep that was launched until its end.
    async fn follow(
        &mut self,
        client: &mut Client,
        at: usize,
        id: &SweepId,
    ) -> Result<v1::SweepStatus, UserError> {
        let label = &self.experiments[at].label;
        let status = follow_titled_sweep(client, id, label).await?;
        if status.failed > 0 {
            let failed = format_count(status.failed, "trial");
            print_stderr_line(&format!(
                "{label}: {failed} failed; `ergodic explain {}` tells why",
                status.id
            ));
        }
        self.sweeps[at] = BatchedSweep::Launched(Box::new(status.clone()));
        Ok(status)
    }
}

/// Whether nothing of a sweep will be run.
fn has_ended(status: &v1::SweepStatus) -> bool {
    let is_open = matches!(
        status.state(),
        v1::SweepState::Running | v1::SweepState::Paused
    );
    !is_open || !status.withheld.is_empty() || !status.failing.is_empty()
}
