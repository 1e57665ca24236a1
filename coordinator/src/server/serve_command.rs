//! `ergodic serve`: a coordinator process, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::duration::parse_duration;
use ergodic_proto::channel::transport::check_address;
use ergodic_proto::status::UserError;

use super::auth::AuthOptions;
use super::{LimitOptions, ProgramPolicy, ServeOptions, start_server};
use crate::app::{CommandOutcome, LogFormat, print_output, start_logging, wait_for_interrupt};
use crate::failpoint;
use crate::store::location::StoreLocation;

/// `ergodic serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(
        long,
        env = "ERGODIC_LISTEN",
        default_value = "127.0.0.1:7700",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,
    /// Store for sweeps and results: a directory, or a PostgreSQL database as postgres://USER:PASSWORD@HOST:PORT/NAME
    #[arg(
        long,
        env = "ERGODIC_STORE",
        hide_env_values = true,
        default_value = "ergodic-store",
        value_name = "DIR|URL"
    )]
    pub store: PathBuf,
    /// Directory for datasets and weights, needed with a database [default: data, in the store's directory]
    #[arg(long = "artifacts", env = "ERGODIC_FILES", value_name = "DIR")]
    pub files: Option<PathBuf>,
    /// Directory with dataset files
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Use TLS and require tokens on a loopback address, too; on any other address this is the default
    #[arg(long, conflicts_with = "insecure")]
    pub secure: bool,
    /// Listen beyond this machine without TLS and without tokens
    #[arg(long)]
    pub insecure: bool,
    /// Directory of the coordinator's certificate authority and tokens [default: auth in the store, or in --artifacts]
    #[arg(long, env = "ERGODIC_AUTH_DIR", value_name = "DIR")]
    pub auth_dir: Option<PathBuf>,
    /// PEM file of a certificate from another authority, with its chain
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "insecure"
    )]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// PEM file of certificate authorities: only clients with a certificate from one of them may connect
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub client_ca: Option<PathBuf>,
    /// Accept sweeps of programs, from tokens made with `ergodic token new --programs`; without tokens, from everybody who reaches the
    /// coordinator. Workers run them if they are started with --programs
    #[arg(long)]
    pub programs: bool,
    /// URL at which other machines reach this coordinator, given to clients that ask another coordinator on the same store [default:
    /// the address that it listens on, or this machine's name]
    #[arg(long, env = "ERGODIC_ADVERTISE", value_name = "URL", value_parser = parse_coordinator_url)]
    pub advertise: Option<String>,
    /// Address for /healthz, /readyz and /metrics over plain HTTP [default: none]
    #[arg(long, env = "ERGODIC_HTTP", value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Format of the log on stderr
    #[arg(long, value_enum, env = "ERGODIC_LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
    /// Also check curves and predictions before serving; damaged rows are set aside, and their trials are run again
    #[arg(long = "verify-store")]
    pub check: bool,
    /// A silent worker loses its leases after this time
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub lease_ttl: Duration,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: LimitOptions,
}

fn parse_coordinator_url(text: &str) -> Result<String, String> {
    let checked = check_address(text).map_err(|error| error.message);
    checked.map(|()| text.to_owned())
}

impl ServeArgs {
    fn build_serve_options(&self) -> ServeOptions {
        ServeOptions {
            listen: self.listen,
            store: StoreLocation::parse(&self.store),
            files_dir: self.files.clone(),
            data_dir: self.data_dir.clone(),
            cache_dir: None,
            advertise: self.advertise.clone(),
            http_listen: self.http,
            auth: self.build_auth_options(),
            programs: match self.programs {
                true => ProgramPolicy::WithRight,
                false => ProgramPolicy::Nobody,
            },
            lease_ttl: self.lease_ttl,
            verify_store: self.check,
            limits: self.limits,
        }
    }

    /// The authentication options. A coordinator that other machines can reach requires tokens by
    /// default.
    fn build_auth_options(&self) -> Option<AuthOptions> {
        let beyond = !self.listen.ip().to_canonical().is_loopback();
        let asked = self.secure || self.tls_cert.is_some() || self.client_ca.is_some();
        if self.insecure || !(beyond || asked) {
            return None;
        }

        Some(AuthOptions {
            dir: self
                .auth_dir
                .clone()
                .unwrap_or_else(|| self.default_auth_dir()),
            certificate: self.tls_cert.clone().zip(self.tls_key.clone()),
            client_ca: self.client_ca.clone(),
        })
    }

    /// Refuses programs of everybody on other machines.
    fn refuse_open_programs(&self) -> Result<(), UserError> {
        let is_open = self.build_auth_options().is_none();
        let beyond = !self.listen.ip().to_canonical().is_loopback();
        if !(self.programs && is_open && beyond) {
            return Ok(());
        }
        let message = "--programs, --insecure: everybody who reaches this address could run any program: leave out one of them";
        Err(UserError::new(ErrorCode::BadInput, message))
    }

    /// The default directory of tokens, which the coordinators of one store share.
    fn default_auth_dir(&self) -> PathBuf {
        let shared = match StoreLocation::parse(&self.store) {
            StoreLocation::Directory(dir) => Some(dir),
            StoreLocation::Database(_) => self.files.clone(),
        };
        shared.unwrap_or_default().join("auth")
    }
}

/// Starts a coordinator, prints its address, and stops it at a signal.
///
/// # Errors
/// The store is taken or damaged, the address cannot be listened on, or authentication cannot be set up.
pub async fn run_serve(args: ServeArgs) -> Result<CommandOutcome, UserError> {
    StoreLocation::refuse_other_url(&args.store, true)
        .map_err(|error| UserError::new(ErrorCode::BadInput, error.to_string()))?;
    start_logging("info", args.log_format);
    args.refuse_open_programs()?;
    let _failpoints = failpoint::set_up();

    // Registered before the start, so that no signal is missed meanwhile.
    let mut told_to_stop = std::pin::pin!(wait_for_interrupt());
    let running = tokio::select! {
        biased;
        () = &mut told_to_stop => return Ok(CommandOutcome::Done),
        running = start_server(args.build_serve_options()) => running?,
    };
    tracing::info!(address = running.url(), "listening");

    print_output(format!("{}\n", running.url()))?;
    told_to_stop.await;
    running.stop().await;
    Ok(CommandOutcome::Done)
}
