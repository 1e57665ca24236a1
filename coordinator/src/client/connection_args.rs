//! Options for the connection to a coordinator.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;

use super::last_run::LastRun;
use super::{Client, START_TIMEOUT};

/// The address at which a coordinator listens by default.
pub const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7700";

/// Where the coordinator is.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// Address of the coordinator; of several that share a store, all addresses, separated by commas
    #[arg(
        long,
        env = "ERGODIC_COORDINATOR",
        default_value = DEFAULT_COORDINATOR,
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
        let connected = Client::connect_within(&self.coordinator, &access, START_TIMEOUT).await;
        connected.map_err(|error| {
            let is_named = self.coordinator != DEFAULT_COORDINATOR;
            match is_named || error.code != ErrorCode::Unreachable {
                true => error,
                false => explain_missing_coordinator(&error, LastRun::read(Path::new(""))),
            }
        })
    }
}

/// The error of a command for which nobody named a coordinator, and none is at the default address: a store alone does not do, and
/// that of this folder's last run can get a coordinator.
fn explain_missing_coordinator(error: &UserError, last: Option<LastRun>) -> UserError {
    let here = match last {
        Some(LastRun::Store(store)) => format!(
            "; `ergodic serve --store {}` starts one on what `ergodic run` left here",
            store.display()
        ),
        Some(LastRun::Coordinator) | None => String::new(),
    };
    let message = format!(
        "this command needs a coordinator, a store alone does not do: {}{here}",
        error.message
    );
    UserError::new(error.code, message)
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
    pub(super) fn read_client_auth(&self) -> Result<ClientAuth, UserError> {
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

#[cfg(test)]
mod tests {
    use crate::client::connection_args::*;

    #[test]
    fn a_command_without_a_coordinator_says_that_it_needs_one_and_how_the_last_run_gets_it() {
        let nobody = UserError::new(ErrorCode::Unreachable, "no coordinator answers");
        let alone = explain_missing_coordinator(&nobody, None).message;
        let needs =
            "this command needs a coordinator, a store alone does not do: no coordinator answers";
        assert_eq!(alone, needs);

        let last = Some(LastRun::Store("ergodic-runs/lr".into()));
        assert_eq!(
            explain_missing_coordinator(&nobody, last).message,
            format!(
                "{needs}; `ergodic serve --store ergodic-runs/lr` starts one on what `ergodic run` left here"
            )
        );
    }
}
