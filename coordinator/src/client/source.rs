//! Where a command reads sweeps: from a coordinator, or from a store without one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;

use super::connection_args::{ClientAuthArgs, DEFAULT_COORDINATOR};
use super::last_run::LastRun;
use super::render::print_stderr_line;
use super::store_access::{StoreAccess, store_access};
use super::{Client, START_TIMEOUT};

/// Time for the coordinator at the default address to answer when no one named it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The directory in which `ergodic run` creates stores by default.
const RUNS_FOLDER: &str = "ergodic-runs";
/// The default store of `ergodic serve`.
const SERVED_STORE: &str = "ergodic-store";
/// Most stores that an error lists.
const MAX_LISTED_STORES: usize = 8;

/// Where sweeps are read.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Read this store, without a coordinator or beside one: a directory, or a PostgreSQL database [env: ERGODIC_STORE] [default: that of
    /// the last `ergodic run` here, unless a coordinator is named]
    #[arg(
        long,
        value_name = "DIR|URL",
        help_heading = "Connection",
        conflicts_with = "coordinator"
    )]
    pub store: Option<PathBuf>,
    /// Address of the coordinator; of several that share a store, all addresses, separated by commas [env: ERGODIC_COORDINATOR]
    #[arg(long, value_name = "URL")]
    pub coordinator: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: ClientAuthArgs,
}

/// A place that the user named.
#[derive(Debug, PartialEq, Eq)]
enum NamedSource {
    Coordinator(String),
    Store(PathBuf),
}

impl SourceArgs {
    /// Connects to the coordinator, or opens the store, that is named; else to the store of this folder's last run, the coordinator at
    /// the default address if it answers at once, the only store of runs here, or the default store of `serve`. Says on stderr which
    /// store it reads.
    ///
    /// # Errors
    /// There is none of these, it cannot be read, or the coordinator does not answer.
    pub async fn connect(&self) -> Result<Client, UserError> {
        let access = self.access.read_client_auth()?;
        let environment = SourceEnvironment::read();

        match choose_named_source(
            self.coordinator.as_deref(),
            self.store.as_deref(),
            environment,
        ) {
            Some(NamedSource::Coordinator(urls)) => {
                Client::connect_within(&urls, &access, START_TIMEOUT).await
            }
            Some(NamedSource::Store(store)) => open_store(store_access()?, &store, "").await,
            None => find_source(store_access()?, &access).await,
        }
    }
}

/// What the environment names.
#[derive(Debug, Default)]
struct SourceEnvironment {
    coordinator: Option<String>,
    store: Option<PathBuf>,
}

impl SourceEnvironment {
    fn read() -> Self {
        let named = |variable| std::env::var_os(variable).filter(|value| !value.is_empty());
        Self {
            coordinator: named("ERGODIC_COORDINATOR")
                .map(|urls| urls.to_string_lossy().into_owned()),
            store: named("ERGODIC_STORE").map(PathBuf::from),
        }
    }
}

/// What the options name or, without any, the environment.
fn choose_named_source(
    coordinator: Option<&str>,
    store: Option<&Path>,
    environment: SourceEnvironment,
) -> Option<NamedSource> {
    match (coordinator, store) {
        (Some(urls), _) => Some(NamedSource::Coordinator(urls.to_owned())),
        (None, Some(store)) => Some(NamedSource::Store(store.to_owned())),
        (None, None) => {
            let coordinator = environment.coordinator.map(NamedSource::Coordinator);
            coordinator.or(environment.store.map(NamedSource::Store))
        }
    }
}

/// Opens a store for reading. `what` says what store it is, if it was not named.
async fn open_store(
    access: &dyn StoreAccess,
    store: &Path,
    what: &str,
) -> Result<Client, UserError> {
    let opened = access.open_store(store).await?;
    let comma = if what.is_empty() { "" } else { ", " };
    print_stderr_line(&format!("reading the store {}{comma}{what}", opened.place));
    Ok(Client::on_store(opened.channel, opened.place))
}

/// Finds something to read without a name.
async fn find_source(access: &dyn StoreAccess, auth: &ClientAuth) -> Result<Client, UserError> {
    let here = Path::new("");
    let last = match LastRun::read(here) {
        Some(LastRun::Store(store)) => Some(store),
        Some(LastRun::Coordinator) | None => None,
    };
    if let Some(store) = last.as_deref().filter(|store| access.is_store(store)) {
        return open_store(access, store, "which `ergodic run` used last here").await;
    }

    let gone = last.map(|store| {
        format!(
            "{}, which `ergodic run` used last here, is gone",
            store.display()
        )
    });
    if let Some(gone) = &gone {
        print_stderr_line(gone);
    }

    let silent = match Client::probe(DEFAULT_COORDINATOR, auth, PROBE_TIMEOUT).await {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    let runs = access.list_stores(Path::new(RUNS_FOLDER));
    if let [store] = &runs[..] {
        return open_store(access, store, "the only one in ergodic-runs").await;
    }
    if access.is_store(Path::new(SERVED_STORE)) {
        return open_store(
            access,
            Path::new(SERVED_STORE),
            "the default of `ergodic serve`",
        )
        .await;
    }

    if silent.code != ErrorCode::Unreachable {
        return Err(silent);
    }
    // A coordinator that was started a moment ago is waited for, unless stores of runs are what is meant.
    if runs.is_empty()
        && let Ok(client) = Client::connect_within(DEFAULT_COORDINATOR, auth, START_TIMEOUT).await
    {
        return Ok(client);
    }
    Err(nothing_to_read_error(gone.as_deref(), &runs))
}

fn nothing_to_read_error(gone: Option<&str>, runs: &[PathBuf]) -> UserError {
    let last = gone.unwrap_or("no `ergodic run` is remembered here");
    let shown: Vec<String> = runs
        .iter()
        .take(MAX_LISTED_STORES)
        .map(|store| format!("--store {}", store.display()))
        .collect();
    let more = if runs.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    let choices = match shown.is_empty() {
        true => "run a sweep with `ergodic run SPEC`, name a store with --store DIR".to_owned(),
        false => format!("name a store, {}{more}", shown.join(", ")),
    };

    let message = format!(
        "there is nothing to read: {last}, no coordinator answers at {DEFAULT_COORDINATOR}, and there is no store {SERVED_STORE} in this \
         folder: {choices}, or name a coordinator with --coordinator URL or ERGODIC_COORDINATOR"
    );
    UserError::new(ErrorCode::Unreachable, message)
}

#[cfg(test)]
mod tests {
    use crate::client::source::*;

    #[test]
    fn an_option_goes_before_the_environment_and_a_coordinator_before_a_store() {
        let both = || SourceEnvironment {
            coordinator: Some("http://env:1".into()),
            store: Some("env-store".into()),
        };
        let only_store = SourceEnvironment {
            coordinator: None,
            ..both()
        };
        let coordinator = |url: &str| Some(NamedSource::Coordinator(url.into()));
        let store = |dir: &str| Some(NamedSource::Store(dir.into()));

        let dir = Path::new("named");
        assert_eq!(choose_named_source(None, Some(dir), both()), store("named"));
        assert_eq!(
            choose_named_source(Some("http://named:1"), None, both()),
            coordinator("http://named:1")
        );
        assert_eq!(
            choose_named_source(None, None, both()),
            coordinator("http://env:1")
        );
        assert_eq!(
            choose_named_source(None, None, only_store),
            store("env-store")
        );
        assert_eq!(
            choose_named_source(None, None, SourceEnvironment::default()),
            None
        );
    }

    #[test]
    fn the_error_without_a_source_says_what_was_tried_and_what_to_type() {
        let none = nothing_to_read_error(None, &[]).message;
        for words in [
            "no `ergodic run` is remembered here",
            "no coordinator answers at http://127.0.0.1:7700",
            "no store ergodic-store",
            "`ergodic run SPEC`",
            "--store DIR",
            "--coordinator URL",
        ] {
            assert!(none.contains(words), "{words}: {none}");
        }

        let runs = ["ergodic-runs/a".into(), "ergodic-runs/b".into()];
        let several = nothing_to_read_error(Some("x is gone"), &runs).message;
        assert!(several.contains("--store ergodic-runs/a, --store ergodic-runs/b"));
        assert!(several.contains("x is gone"));
    }
}
