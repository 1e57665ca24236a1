//! The sweeps of a verification. All are launched before the first trial, so that no core waits for the last trials of one, and run
//! in the order of the files.

use ergodic_common::ErrorCode;
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
    /// The status of each sweep that was launched or found. A sweep that has trials of one that runs must wait for it.
    launched: Vec<Option<v1::SweepStatus>>,
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
            launched: vec![None; experiments.len()],
        }
    }

    /// Launches or resumes all sweeps, but those that start from results of one that has not ended, or have trials in common with
    /// one before them that is not complete.
    ///
    /// # Errors
    /// A sweep was refused for another reason.
    pub(super) async fn launch_all(&mut self, client: &mut Client) -> Result<(), UserError> {
        for at in 0..self.experiments.len() {
            if !self.has_sources(at) {
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
    fn has_sources(&self, at: usize) -> bool {
        let names = list_source_stages(&self.experiments[at].spec);
        names.iter().all(|name| {
            let source = self.find_stage(at, name);
            source.is_some_and(has_ended)
        })
    }

    /// The sweep of a stage of the file of an experiment, if it was launched.
    fn find_stage(&self, at: usize, name: &str) -> Option<&v1::SweepStatus> {
        let main = self.experiments[at].main;
        let stage = (main..at).find(|stage| {
            let chosen = &self.experiments[*stage].spec.stages.chosen;
            stage_name(chosen.as_deref()) == name
        })?;
        self.launched[stage].as_ref()
    }

    async fn launch(&mut self, client: &mut Client, at: usize) -> Result<(), UserError> {
        let Experiment {
            label, file, spec, ..
        } = &self.experiments[at];
        let file = name_source_sweeps(file, spec, |name| {
            self.find_stage(at, name).map(v1::SweepStatus::sweep_id)
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
        self.launched[at] = Some(status);
        Ok(())
    }

    /// Whether all sweeps have ended.
    pub(super) fn is_complete(&self) -> bool {
        let mut all = self.launched.iter();
        all.all(|status| status.as_ref().is_some_and(has_ended))
    }

    /// The first sweep that was launched and has not ended, as far as is known.
    fn find_running(&self) -> Option<usize> {
        let mut all = self.launched.iter();
        all.position(|status| status.as_ref().is_some_and(|status| !has_ended(status)))
    }

    /// Waits for the end of a sweep.
    ///
    /// # Errors
    /// The sweep was refused, or the coordinator does not respond.
    pub(super) async fn complete(
        &mut self,
        client: &mut Client,
        at: usize,
    ) -> Result<v1::SweepStatus, UserError> {
        while self.launched[at].is_none() {
            match (self.launch(client, at).await, self.find_running()) {
                (Err(error), Some(other)) if error.code == ErrorCode::Refused => {
                    self.follow(client, other).await?;
                }
                (launched, _) => launched?,
            }
        }

        self.follow(client, at).await
    }

    /// Shows the progress of a sweep that was launched until its end.
    async fn follow(
        &mut self,
        client: &mut Client,
        at: usize,
    ) -> Result<v1::SweepStatus, UserError> {
        let known = self.launched[at].clone().unwrap_or_default();
        if has_ended(&known) {
            return Ok(known);
        }

        let label = &self.experiments[at].label;
        let status = follow_titled_sweep(client, &known.sweep_id(), label).await?;
        if status.failed > 0 {
            let failed = format_count(status.failed, "trial");
            print_stderr_line(&format!(
                "{label}: {failed} failed; `ergodic explain {}` tells why",
                status.id
            ));
        }
        self.launched[at] = Some(status.clone());
        Ok(status)
    }
}

/// Whether nothing of a sweep will be run.
fn has_ended(status: &v1::SweepStatus) -> bool {
    let is_open = matches!(
        status.state(),
        v1::SweepState::Running | v1::SweepState::Paused
    );
    !is_open || !status.withheld.is_empty()
}
