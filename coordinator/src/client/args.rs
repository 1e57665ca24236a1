//! Options that several commands share: where the coordinator is, which sweep is meant, and which metric.

use clap::Args;
use ergodic_common::ids::SweepId;
use ergodic_common::spec::scale::settings_with_scale;
use ergodic_common::spec::stage::{format_stage_choice, settings_with_stage};
use ergodic_proto::status::UserError;

use super::Client;
pub use super::connection_args::{ClientAuthArgs, ConnectionArgs, DEFAULT_COORDINATOR};
use super::latest::{resolve_sweep_id, resolve_sweep_to_change};
use super::render::TextFormat;
use super::source::SourceArgs;

/// A sweep that a command reads, and where it is.
#[derive(Debug, Args)]
pub struct SweepTarget {
    /// The sweep: its name, its id, a unique prefix of the id, "latest", your last one, or "latest~1", the one before
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: SourceArgs,
}

impl SweepTarget {
    /// Connects to the coordinator or the store; gives the client and the id of the sweep.
    ///
    /// # Errors
    /// A file or the store cannot be used, nobody answers who is to be trusted, or there is no such sweep.
    pub async fn connect(&self) -> Result<(Client, SweepId), UserError> {
        let mut client = self.connection.connect().await?;
        let id = resolve_sweep_id(&mut client, &self.id).await?;
        Ok((client, id))
    }
}

/// A sweep that a worker program reads too, and their coordinator.
#[derive(Debug, Args)]
pub struct SweepOnCoordinator {
    /// The sweep: its name, its id, a unique prefix of the id, "latest", your last one, or "latest~1", the one before
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
}

impl SweepOnCoordinator {
    /// Connects to the coordinator; gives the client and the id of the sweep.
    ///
    /// # Errors
    /// As for [`SweepTarget::connect`].
    pub async fn connect(&self) -> Result<(Client, SweepId), UserError> {
        let mut client = self.connection.connect().await?;
        let id = resolve_sweep_id(&mut client, &self.id).await?;
        Ok((client, id))
    }
}

/// A sweep that a command changes, and its coordinator. Flattened last, so that help lists `--yes` after the command's own options.
#[derive(Debug, Args)]
pub struct SweepToChange {
    /// The sweep: its name, its id, a unique prefix of the id, "latest", your last one, or "latest~1", the one before
    #[arg(index = 1)]
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// Do not ask for confirmation of "latest", or of a name that several sweeps have
    #[arg(long, short)]
    pub yes: bool,
}

impl SweepToChange {
    /// Connects to the coordinator; gives the client and the id of the sweep. The user confirms what "latest" is, and which of several
    /// sweeps a name means; `command` is the name of the command in that question.
    ///
    /// # Errors
    /// The sweep was not confirmed; else as for [`SweepTarget::connect`].
    pub async fn connect(&self, command: &str) -> Result<(Client, SweepId), UserError> {
        let mut client = self.connection.connect().await?;
        let id = resolve_sweep_to_change(&mut client, &self.id, command, self.yes).await?;
        Ok((client, id))
    }
}

/// A list that a coordinator has.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// What an analysis is of, and the level of its intervals.
#[derive(Debug, Args)]
pub struct MetricArgs {
    /// Metric, quantity of the sweep file, or expression [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Level of the confidence intervals, in percent
    #[arg(long, default_value_t = 95.0, value_name = "PERCENT")]
    pub level: f64,
}

/// What is changed of a sweep file as it is read.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingArgs {
    /// Override a field, as in train.epochs=5; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Choose a scale of the file, one of its tables [scale.NAME]
    #[arg(long, value_name = "NAME")]
    pub scale: Option<String>,
    /// Choose a stage of the file, one of its tables [stage.NAME]
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
}

impl SettingArgs {
    /// The options that are given, by their names.
    pub fn given_options(&self) -> impl Iterator<Item = &'static str> {
        let options = [
            ("--set", !self.settings.is_empty()),
            ("--scale", self.scale.is_some()),
            ("--stage", self.stage.is_some()),
        ];
        let given = options.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(option, _)| option)
    }

    /// The settings, with the choices of the scale and the stage.
    pub fn resolve(&self) -> Vec<String> {
        self.resolve_with(self.scale.as_deref(), self.stage.as_deref())
    }

    /// The settings, with the choice of the scale and this stage.
    pub fn resolve_for_stage(&self, stage: &str) -> Vec<String> {
        self.resolve_with(self.scale.as_deref(), Some(stage))
    }

    /// The settings, with these choices. Of a stage that the user chose, they override the fields; else they are of the file, and a
    /// stage keeps what it sets itself.
    pub fn resolve_with(&self, scale: Option<&str>, stage: Option<&str>) -> Vec<String> {
        let mut settings = settings_with_scale(&self.settings, scale);
        match stage {
            Some(stage) if self.stage.is_none() => {
                settings.push(format_stage_choice(stage));
                settings
            }
            _ => settings_with_stage(&settings, stage),
        }
    }
}
