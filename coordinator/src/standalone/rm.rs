//! `ergodic rm`: removes sweeps that have ended, from a coordinator or from the store of `ergodic run`.

use std::path::PathBuf;

use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::{format_count, format_significant};
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::local_workers::start_embedded_coordinator;
use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::ConnectionArgs;
use crate::client::latest::resolve_sweep_to_change;

/// `ergodic rm`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The sweeps: names, ids, unique prefixes of ids, "latest", your last one, or "latest~1", the one before
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// Cancel sweeps that have not ended
    #[arg(long)]
    pub force: bool,
    /// Remove them from this store of `ergodic run`, which no coordinator may be using
    #[arg(long = "store", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Do not ask for confirmation of "latest", or of a name that several sweeps have
    #[arg(long, short)]
    pub yes: bool,
}

/// Removes sweeps. Each is told when it is removed: what is said stays true if the next one cannot be.
///
/// # Errors
/// There is no such sweep, one has not ended, the directory cannot be used, or nobody answers.
pub async fn run_remove(args: RemoveArgs) -> Result<CommandOutcome, UserError> {
    let embedded = match &args.dir {
        Some(dir) => Some(start_embedded_coordinator(dir, None, None).await?),
        None => None,
    };
    let connected = match &embedded {
        Some(server) => Client::connect(&server.url(), &ClientAuth::default()).await,
        None => args.connection.connect().await,
    };
    let removed = match connected {
        Ok(mut client) => remove_sweeps(&mut client, &args).await,
        Err(error) => Err(error),
    };

    if let Some(server) = embedded {
        server.stop().await;
    }

    removed.map(|()| CommandOutcome::Done)
}

async fn remove_sweeps(client: &mut Client, args: &RemoveArgs) -> Result<(), UserError> {
    // All ids are resolved first, so that a wrong one removes nothing and `latest` keeps its
    // meaning.
    let mut ids = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        ids.push(resolve_sweep_to_change(client, id, "rm", args.yes).await?);
    }

    for id in ids {
        print_output(remove_sweep(client, id, args.force).await?)?;
    }

    Ok(())
}

/// Removes a sweep; gives a line about it.
async fn remove_sweep(
    client: &mut Client,
    sweep: SweepId,
    force: bool,
) -> Result<String, UserError> {
    let request = v1::RemoveRequest {
        sweep: sweep.into(),
        force,
    };
    let v1::RemoveResponse {
        sweep,
        name,
        trials,
        files,
        bytes,
    } = client
        .call(async |client| client.sweeps.remove(request).await)
        .await?;
    let megabytes = format_significant(bytes as f64 / 1e6, 3);

    Ok(format!(
        "removed {sweep} ({}): {}, {} of {megabytes} MB\n",
        escape_line(&name),
        format_count(trials, "row"),
        format_count(files, "file")
    ))
}
