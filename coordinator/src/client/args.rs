//! Options that several commands share: where the coordinator is, which sweep is meant, and which metric.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;

use super::latest::{resolve_sweep_id, resolve_sweep_to_change};
use super::render::TextFormat;
use super::{Client, START_TIMEOUT};

/// Where the coordinator is.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// Address of the coordinator; of several that share a store, all addresses, separated by commas
    #[arg(
        long,
        env = "ERGODIC_COORDINATOR",
        default_value = "http://127.0.0.1:7700",
        value_name = "URL"
    )]
    pub coordinator: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: ClientAuthArgs,
}

impl ConnectionArgs {
    /// Connects there.
    ///
    /// # Errors
    /// A file cannot be used, or the coordinator does not respond who is to be trusted.
    pub async fn connect(&self) -> Result<Client, UserError> {
        let access = self.access.read_client_auth()?;
        Client::connect_within(&self.coordinator, &access, START_TIMEOUT).await
    }
}

/// The worker's credentials, and the authorities that it trusts.
#[derive(Debug, Clone, Args)]
pub struct ClientAuthArgs {
    /// File with the token, for a coordinator that requires one
    #[arg(long, env = "ERGODIC_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust for the coordinator [default: the one that the token names]
    #[arg(long, env = "ERGODIC_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// PEM file of a client certificate, for a coordinator that requires one
    #[arg(long, env = "ERGODIC_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(long, env = "ERGODIC_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

impl ClientAuthArgs {
    fn read_client_auth(&self) -> Result<ClientAuth, UserError> {
        let access = ClientAuth {
            token: None,
            ca: self.ca.clone(),
            identity: self.cert.clone().zip(self.key.clone()),
        };
        access.with_token_file(self.token_file.as_deref())
    }

    /// The same options, for another program.
    pub fn to_cli_args(&self) -> Vec<OsString> {
        let all = [
            ("--token-file", &self.token_file),
            ("--ca", &self.ca),
            ("--cert", &self.cert),
            ("--key", &self.key),
        ];
        let given = all
            .into_iter()
            .filter_map(|(option, file)| Some((option, file.as_ref()?)));

        given
            .flat_map(|(option, file)| [option.into(), file.clone().into_os_string()])
            .collect()
    }
}

/// A sweep that a command reads, and its coordinator.
#[derive(Debug, Args)]
pub struct SweepTarget {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
}

impl SweepTarget {
    /// Connects to the coordinator; gives the client and the id of the sweep, which is an id or a prefix, not "latest".
    ///
    /// # Errors
    /// A file cannot be used, nobody answers who is to be trusted, or "latest" is none.
    pub async fn connect(&self) -> Result<(Client, String), UserError> {
        let mut client = self.connection.connect().await?;
        let id = resolve_sweep_id(&mut client, &self.id).await?;
        Ok((client, id))
    }
}

/// A sweep that a command changes, and its coordinator. Flattened last, so that help lists `--yes` after the command's own options.
#[derive(Debug, Args)]
pub struct SweepToChange {
    /// The sweep: its id, a unique prefix of it, or "latest", your last one
    #[arg(index = 1)]
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// Do not ask for confirmation of "latest"
    #[arg(long, short)]
    pub yes: bool,
}

impl SweepToChange {
    /// Connects to the coordinator; gives the client and the id of the sweep. For "latest" the user confirms the sweep; `command`
    /// is the name of the command in that question.
    ///
    /// # Errors
    /// "latest" was not confirmed; else as for [`SweepTarget::connect`].
    pub async fn connect(&self, command: &str) -> Result<(Client, String), UserError> {
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
    /// Metric [default: test_acc if it is measured]
    #[arg(long)]
    pub metric: Option<String>,
    /// Sample the curves here, as in "20 epochs", instead of at the end
    #[arg(long, value_name = "STEP")]
    pub at: Option<String>,
    /// Level of the confidence intervals, in percent
    #[arg(long, default_value_t = 95.0, value_name = "PERCENT")]
    pub level: f64,
}
