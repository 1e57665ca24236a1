//! The program `ergodic`: reads the command line, carries out the command, turns errors into exit codes.

pub mod args;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ergodic_common::ErrorCode;
use ergodic_proto::connect::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::Steering;

use crate::client::commands::{self, TableOptions};
use crate::client::compare::{CompareOptions, compare};
use crate::client::distance::{DistanceOptions, distance};
use crate::client::effects::{EffectsOptions, effects};
use crate::client::export::ExportOptions;
use crate::client::growth::{self, More};
use crate::client::latest::{meant, meant_to_change};
use crate::client::output::{Format, RowFormat};
use crate::client::plot::{PlotOptions, plot};
use crate::client::report::report;
#[cfg(feature = "sql")]
use crate::client::sql::{SqlOptions, query, query_coordinator};
use crate::client::variance::{VarianceOptions, variance};
use crate::client::watch::{eprintln_line, follow};
use crate::client::{Client, backup, export, kept, needs, plan, predictions, tokens};
use crate::failpoint;
use crate::local::{bench, replay, restore, run, soak, tables};
use crate::program::{CommandOutcome, print_output, start_logging, wait_for_interrupt};
use crate::server::door::AuthOptions;
use crate::server::{self, ServeOptions};
use crate::store::place::StoreLocation;
use args::{
    BenchCommand, Cli, Command, CurvesArgs, ExtendArgs, LaunchArgs, PlanArgs, PlotArgs, RemoveArgs, ServeArgs, SqlArgs,
    SteerArgs, TableArgs, TokenCommand, TrialsArgs, Weight,
};

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&UserError::new(ErrorCode::Internal, format!("cannot start: {e}"))),
    };
    let result = runtime.block_on(dispatch(cli.command));
    // What still runs in the background, such as a half-read stream, is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(CommandOutcome::Done) => ExitCode::SUCCESS,
        Ok(CommandOutcome::TrialsFailed) => ExitCode::from(ErrorCode::TrialsFailed.exit_code()),
        Ok(CommandOutcome::Interrupted) => ExitCode::from(130),
        Err(error) => fail(&error),
    }
}

fn fail(error: &UserError) -> ExitCode {
    eprintln_line(&format!("error: {error}"));
    ExitCode::from(error.code.exit_code())
}

async fn dispatch(command: Command) -> Result<CommandOutcome, UserError> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Plan(args) => show_plan(&args).await,
        Command::Serve(args) => serve(args).await,
        Command::Launch(args) => launch(args).await,
        Command::List(args) => print_output(commands::list(&mut args.target.connect().await?, args.format).await?),
        Command::Status(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            let status = commands::status(&mut client, &id).await?;
            print_output(commands::show_status(&status, args.format))
        }
        Command::Watch(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            let status = follow(&mut client, &id).await?;
            Ok(if status.failed > 0 { CommandOutcome::TrialsFailed } else { CommandOutcome::Done })
        }
        Command::Workers(args) => {
            print_output(commands::workers(&mut args.target.connect().await?, args.format).await?)
        }
        Command::Explain(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            print_output(commands::explain(&mut client, &id, args.trial, args.format).await?)
        }
        Command::Replay(args) => replay::replay(args).await,
        Command::Table(args) => table(args).await,
        Command::Plot(args) => draw(args).await,
        Command::Report(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            print_output(report(&mut client, &id, &args.output).await?)
        }
        Command::Trials(args) => trials(args).await,
        Command::Curves(args) => curves(args).await,
        Command::Compare(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            let options = CompareOptions {
                baseline: args.baseline,
                metric: args.metric,
                at: args.at,
                level: args.level,
                format: args.format,
            };
            print_output(compare(&mut client, &id, &options).await?)
        }
        Command::Distance(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            let options = DistanceOptions {
                between: args.between,
                at: args.at,
                permutations: args.permutations,
                format: args.format,
            };
            print_output(distance(&mut client, &id, &options).await?)
        }
        Command::Effects(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            let options = EffectsOptions {
                metric: args.metric,
                at: args.at,
                level: args.level,
                interaction: args.interaction,
                part: args.part,
                format: args.format,
            };
            print_output(effects(&mut client, &id, &options).await?)
        }
        Command::Variance(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            let options = VarianceOptions { metric: args.metric, at: args.at, level: args.level, format: args.format };
            print_output(variance(&mut client, &id, &options).await?)
        }
        Command::Predictions(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            predictions::predictions(&mut client, &id, args.format, args.distributions).await?;
            Ok(CommandOutcome::Done)
        }
        Command::Export(args) => {
            let _failpoints = failpoint::set_up();
            let options =
                ExportOptions { output: args.output, follow: args.follow, every: args.every, anew: args.anew };
            let (mut client, id) = open(&args.target, &args.id).await?;
            print_output(export::export(&mut client, &id, &options).await?)
        }
        Command::Sql(args) => sql(args).await,
        Command::Weights(args) => {
            let (mut client, id) = open(&args.target, &args.id).await?;
            let told = kept::weights(&mut client, &id, args.trial, &args.output).await?;
            eprintln_line(told.trim_end());
            Ok(CommandOutcome::Done)
        }
        Command::Pause(args) => steer(&args, "pause", Steering::Pause).await,
        Command::Resume(args) => steer(&args, "resume", Steering::Resume).await,
        Command::Cancel(args) => steer(&args, "cancel", Steering::Cancel).await,
        Command::Retry(args) => steer(&args, "retry", Steering::Retry).await,
        Command::Token(TokenCommand::New(args)) => print_output(
            tokens::make(
                &mut args.target.connect().await?,
                args.role,
                args.expires,
                &args.note,
                args.output.as_deref(),
            )
            .await?,
        ),
        Command::Token(TokenCommand::List(args)) => {
            print_output(tokens::list(&mut args.target.connect().await?, args.format).await?)
        }
        Command::Token(TokenCommand::Revoke(args)) => {
            tokens::revoke(&mut args.target.connect().await?, &args.id).await?;
            Ok(CommandOutcome::Done)
        }
        Command::Share(args) => {
            let mut client = args.target.connect().await?;
            let id = meant_to_change(&mut client, &args.id, "share", args.yes).await?;
            let status = commands::share(&mut client, &id, args.priority, args.weight).await?;
            print_output(commands::show_status(&status, Format::Table))
        }
        Command::Extend(args) => extend(args).await,
        Command::Rm(args) => remove(args).await,
        Command::Backup(args) => print_output(backup::backup(&mut args.target.connect().await?, &args.output).await?),
        Command::Restore(args) => {
            let restored =
                tokio::task::block_in_place(|| restore::restore(&args.file, &args.store, args.files.as_deref()));
            print_output(restored?)
        }
        Command::Bench(BenchCommand::Overhead(args)) => bench::overhead(args).await,
        Command::Bench(BenchCommand::Soak(args)) => soak::soak(args).await,
        Command::Bench(BenchCommand::Tables(args)) => tables::tables(args).await,
    }
}

/// A coordinator, and the sweep there that is meant.
async fn open(target: &args::Target, id: &str) -> Result<(Client, String), UserError> {
    let mut client = target.connect().await?;
    let id = meant(&mut client, id).await?;
    Ok((client, id))
}

async fn table(args: TableArgs) -> Result<CommandOutcome, UserError> {
    // What cannot be written is told before anything is asked.
    let sink = args.sink.read()?;
    let (mut client, id) = open(&args.target, &args.id).await?;
    let options = TableOptions {
        by: args.by,
        rows: args.rows,
        columns: args.cols,
        metrics: args.metric,
        selection: args.selection.read(),
        at: args.at,
        stats: args.stat,
        cells_alike: args.weight == Weight::Cells,
        format: sink.format.text().unwrap_or_default(),
    };
    match sink.format {
        RowFormat::Parquet => sink.parquet(&commands::table_columns(&mut client, &id, &options).await?)?,
        _ => sink.text(&commands::table(&mut client, &id, &options).await?)?,
    }
    Ok(CommandOutcome::Done)
}

async fn trials(args: TrialsArgs) -> Result<CommandOutcome, UserError> {
    let sink = args.sink.read()?;
    let (mut client, id) = open(&args.target, &args.id).await?;
    match sink.format.text() {
        Some(format) => sink.text(&commands::trials(&mut client, &id, format).await?)?,
        None => sink.parquet(&commands::trial_columns(&mut client, &id).await?)?,
    }
    Ok(CommandOutcome::Done)
}

async fn curves(args: CurvesArgs) -> Result<CommandOutcome, UserError> {
    let sink = args.sink.read()?;
    let (mut client, id) = open(&args.target, &args.id).await?;
    let (id, metric, stats) = (&id, &args.metric, &args.stat);
    match sink.format.text() {
        Some(format) => sink.text(&commands::curves(&mut client, id, metric, stats, format).await?)?,
        None => sink.parquet(&commands::curve_columns(&mut client, id, metric, stats).await?)?,
    }
    Ok(CommandOutcome::Done)
}

/// Whoever interrupts it leaves no rows behind that were fetched for it.
#[cfg(feature = "sql")]
async fn sql(args: SqlArgs) -> Result<CommandOutcome, UserError> {
    let options = SqlOptions { query: args.query, sweeps: args.sweeps, sink: args.sink.read()? };
    let asked = async {
        match &args.from {
            Some(from) => query(from, &options).await,
            None => query_coordinator(&mut args.target.connect().await?, &options).await,
        }
    };
    tokio::select! {
        () = wait_for_interrupt() => Ok(CommandOutcome::Interrupted),
        answered = asked => answered.map(|()| CommandOutcome::Done),
    }
}

#[cfg(not(feature = "sql"))]
async fn sql(_: SqlArgs) -> Result<CommandOutcome, UserError> {
    let message = "this program was built without SQL: build it with `cargo build --release --locked --features ergodic/sql`, or \
                   ask the files that `ergodic export` writes with DuckDB";
    Err(UserError::new(ErrorCode::BadInput, message))
}

async fn draw(args: PlotArgs) -> Result<CommandOutcome, UserError> {
    let options = PlotOptions {
        kind: args.kind,
        metric: args.metric,
        at: args.at,
        rows: args.rows,
        columns: args.cols,
        by: args.by,
        stat: args.stat,
        baseline: args.baseline,
        selection: args.selection.read(),
        log: args.log,
        title: args.title,
        width: args.width,
        height: args.height,
    };
    let (mut client, id) = open(&args.target, &args.id).await?;
    match plot(&mut client, &id, &options, args.output.as_deref()).await? {
        Some(svg) => print_output(svg),
        None => Ok(CommandOutcome::Done),
    }
}

async fn steer(args: &SteerArgs, command: &str, steering: Steering) -> Result<CommandOutcome, UserError> {
    let mut client = args.target.connect().await?;
    let id = meant_to_change(&mut client, &args.id, command, args.yes).await?;
    let status = commands::steer(&mut client, &id, steering).await?;
    print_output(commands::show_status(&status, Format::Table))
}

/// Stdout is the id alone, as of a launch.
async fn extend(args: ExtendArgs) -> Result<CommandOutcome, UserError> {
    let more = match (&args.spec, args.repeats) {
        (Some(spec), _) => More::File(commands::read_source(spec, &args.settings)?),
        (None, repeats) => More::Repeats(repeats.unwrap_or_default()),
    };
    let mut client = args.target.connect().await?;
    let id = meant_to_change(&mut client, &args.id, "extend", args.yes).await?;
    let extended = growth::extend(&mut client, &id, &more).await?;
    eprintln_line(&growth::extended_for_people(&extended));
    print_output(extended.status.map_or_else(String::new, |status| format!("{}\n", status.id)))
}

/// Each is told when it is removed: what is said stays true if the next one cannot be.
async fn remove(args: RemoveArgs) -> Result<CommandOutcome, UserError> {
    let embedded = match &args.dir {
        Some(dir) => Some(run::embedded(dir, None).await?),
        None => None,
    };
    let connected = match &embedded {
        Some(server) => Client::connect(&server.url(), &ClientAuth::default()).await,
        None => args.target.connect().await,
    };
    let removed = match connected {
        Ok(mut client) => remove_all(&mut client, &args).await,
        Err(error) => Err(error),
    };
    if let Some(server) = embedded {
        server.stop().await;
    }
    removed.map(|()| CommandOutcome::Done)
}

async fn remove_all(client: &mut Client, args: &RemoveArgs) -> Result<(), UserError> {
    // What is meant by all of them is settled before the first one goes.
    let mut ids = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        ids.push(meant_to_change(client, id, "rm", args.yes).await?);
    }
    for id in &ids {
        print_output(commands::remove(client, id, args.force).await?)?;
    }
    Ok(())
}

async fn show_plan(args: &PlanArgs) -> Result<CommandOutcome, UserError> {
    if let Some((metric, ci95)) = &args.precision {
        let (mut client, id) = open(&args.target, &args.what).await?;
        return print_output(needs::needs(&mut client, &id, metric, *ci95, args.format).await?);
    }
    let file = commands::read_source(&args.what, &args.settings)?;
    let spec = commands::read_new(&file.source)?;
    let looks = plan::looks(&file, &spec, args.data_dir.as_deref())?;
    print_output(plan::plan(&spec, looks.as_ref(), args.format))
}

async fn serve(args: ServeArgs) -> Result<CommandOutcome, UserError> {
    start_logging("info", args.log_format);
    let _failpoints = failpoint::set_up();
    let options = ServeOptions {
        listen: args.listen,
        store: StoreLocation::parse(&args.store),
        files_dir: args.files.clone(),
        data_dir: args.data_dir.clone(),
        advertise: args.advertise.clone(),
        http_listen: args.http,
        auth: door(&args)?,
        lease_ttl: args.lease_ttl,
        verify_store: args.check,
        rate_limit: Some(args.rate_limit).filter(|limit| *limit > 0),
    };
    // From the first moment on, so that no signal is missed.
    let mut told_to_stop = std::pin::pin!(wait_for_interrupt());
    let running = tokio::select! {
        biased;
        () = &mut told_to_stop => return Ok(CommandOutcome::Done),
        running = server::start_server(options) => running?,
    };
    tracing::info!(address = running.url(), "listening");
    print_output(format!("{}\n", running.url()))?;
    told_to_stop.await;
    running.stop().await;
    Ok(CommandOutcome::Done)
}

/// Whoever can be reached from other machines asks who they are, unless told otherwise.
fn door(args: &ServeArgs) -> Result<Option<AuthOptions>, UserError> {
    let beyond = !args.listen.ip().to_canonical().is_loopback();
    let asked = args.secure || args.tls_cert.is_some() || args.client_ca.is_some();
    if args.insecure || !(beyond || asked) {
        return Ok(None);
    }
    Ok(Some(AuthOptions {
        dir: args.auth_dir.clone().unwrap_or_else(|| auth_dir(args)),
        certificate: args.tls_cert.clone().zip(args.tls_key.clone()),
        client_ca: args.client_ca.clone(),
    }))
}

/// In the directory that the coordinators of one store have in common.
fn auth_dir(args: &ServeArgs) -> PathBuf {
    let shared = match StoreLocation::parse(&args.store) {
        StoreLocation::Directory(dir) => Some(dir),
        StoreLocation::Database(_) => args.files.clone(),
    };
    shared.unwrap_or_default().join("auth")
}

async fn launch(args: LaunchArgs) -> Result<CommandOutcome, UserError> {
    let file = commands::read_source(&args.spec.spec, &args.spec.settings)?;
    let mut client = args.target.connect().await?;
    let what = if args.again { commands::Run::Again } else { commands::Run::Missing };
    let launched = commands::launch(&mut client, &file, what).await?;
    commands::reused_for_people(&launched).iter().for_each(|line| eprintln_line(line));
    let status = launched.status.unwrap_or_default();
    print_output(format!("{}\n", status.id))?;
    if !args.watch {
        return Ok(CommandOutcome::Done);
    }
    let status = follow(&mut client, &status.id).await?;
    // Stdout is the id alone, watched or not.
    eprintln_line(commands::table(&mut client, &status.id, &TableOptions::default()).await?.trim_end());
    Ok(if status.failed > 0 { CommandOutcome::TrialsFailed } else { CommandOutcome::Done })
}
