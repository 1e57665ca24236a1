//! The program `ergodic`: reads the command line, carries out the command, turns errors into exit codes.

pub mod args;
pub mod command;

use std::path::PathBuf;
use std::process::ExitCode;

use args::{
    BenchCommand, CliCommand, ConnectionArgs, CurvesArgs, ExtendArgs, LaunchArgs, PlanArgs,
    PlotArgs, PoolingWeight, RemoveArgs, ServeArgs, SqlArgs, SteerArgs, TableArgs, TokenCommand,
    TrialsArgs,
};
use ergodic_common::ErrorCode;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::Steering;

use crate::app::{CommandOutcome, print_output, start_logging, wait_for_interrupt};
use crate::bench::{overhead, soak, tables};
use crate::client::commands::compare::{CompareOptions, compare_cells};
use crate::client::commands::distance::{DistanceOptions, measure_distances};
use crate::client::commands::effects::{EffectsOptions, estimate_effects};
use crate::client::commands::extend::{self, Extension};
use crate::client::commands::variance::{VarianceOptions, decompose_variance};
use crate::client::commands::watch::follow_sweep;
use crate::client::commands::{
    self, TableOptions, backup, plan, predictions, sample_size, token, weights,
};
use crate::client::export::ExportOptions;
use crate::client::latest::{resolve_sweep_id, resolve_sweep_to_change};
use crate::client::plot::{PlotOptions, plot_sweep};
use crate::client::render::print_stderr_line;
use crate::client::render::{RowFormat, TextFormat};
use crate::client::report::write_report;
#[cfg(feature = "sql")]
use crate::client::sql::{SqlOptions, query_coordinator, query_datasets};
use crate::client::{Client, export};
use crate::server::auth::AuthOptions;
use crate::server::{self, ServeOptions};
use crate::standalone::{replay, run};
use crate::store::location::StoreLocation;
use crate::{failpoint, restore};

/// Runs the program.
pub fn run_cli() -> ExitCode {
    let cli = command::parse_command_line();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            return report_error(&UserError::new(
                ErrorCode::Internal,
                format!("cannot start: {e}"),
            ));
        }
    };
    let result = runtime.block_on(run_command(cli.command));

    // What still runs in the background, such as a half-read stream, is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(CommandOutcome::Done) => ExitCode::SUCCESS,
        Ok(CommandOutcome::TrialsFailed) => ExitCode::from(ErrorCode::TrialsFailed.exit_code()),
        Ok(CommandOutcome::Interrupted) => ExitCode::from(130),
        Err(error) => report_error(&error),
    }
}

fn report_error(error: &UserError) -> ExitCode {
    print_stderr_line(&format!("error: {error}"));
    ExitCode::from(error.code.exit_code())
}

async fn run_command(command: CliCommand) -> Result<CommandOutcome, UserError> {
    match command {
        CliCommand::Run(args) => run::run_standalone(args).await,
        CliCommand::Plan(args) => run_plan(&args).await,
        CliCommand::Serve(args) => run_serve(args).await,
        CliCommand::Launch(args) => run_launch(args).await,
        CliCommand::List(args) => print_output(
            commands::list_sweeps(&mut args.target.connect().await?, args.format).await?,
        ),
        CliCommand::Status(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            let status = commands::query_status(&mut client, &id).await?;
            print_output(commands::render_status(&status, args.format))
        }
        CliCommand::Watch(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            let status = follow_sweep(&mut client, &id).await?;
            Ok(if status.failed > 0 {
                CommandOutcome::TrialsFailed
            } else {
                CommandOutcome::Done
            })
        }
        CliCommand::Workers(args) => print_output(
            commands::list_workers(&mut args.target.connect().await?, args.format).await?,
        ),
        CliCommand::Explain(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            print_output(commands::explain_sweep(&mut client, &id, args.trial, args.format).await?)
        }
        CliCommand::Replay(args) => replay::replay_trial(args).await,
        CliCommand::Table(args) => run_table(args).await,
        CliCommand::Plot(args) => run_plot(args).await,
        CliCommand::Report(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            print_output(write_report(&mut client, &id, &args.output).await?)
        }
        CliCommand::Trials(args) => run_trials(args).await,
        CliCommand::Curves(args) => run_curves(args).await,
        CliCommand::Compare(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            let options = CompareOptions {
                baseline: args.baseline,
                metric: args.metric,
                at: args.at,
                level: args.level,
                format: args.format,
            };

            print_output(compare_cells(&mut client, &id, &options).await?)
        }
        CliCommand::Distance(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            let options = DistanceOptions {
                between: args.between,
                at: args.at,
                permutations: args.permutations,
                format: args.format,
            };
            print_output(measure_distances(&mut client, &id, &options).await?)
        }
        CliCommand::Effects(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            let options = EffectsOptions {
                metric: args.metric,
                at: args.at,
                level: args.level,
                interaction: args.interaction,
                part: args.part,
                format: args.format,
            };

            print_output(estimate_effects(&mut client, &id, &options).await?)
        }
        CliCommand::Variance(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            let options = VarianceOptions {
                metric: args.metric,
                at: args.at,
                level: args.level,
                format: args.format,
            };
            print_output(decompose_variance(&mut client, &id, &options).await?)
        }
        CliCommand::Predictions(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            predictions::print_predictions(&mut client, &id, args.format, args.distributions)
                .await?;
            Ok(CommandOutcome::Done)
        }
        CliCommand::Export(args) => {
            let _failpoints = failpoint::set_up();
            let options = ExportOptions {
                output: args.output,
                follow: args.follow,
                every: args.every,
                rewrite: args.anew,
            };

            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            print_output(export::export_sweep(&mut client, &id, &options).await?)
        }
        CliCommand::Sql(args) => run_sql(args).await,
        CliCommand::Weights(args) => {
            let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
            let told = weights::save_weights(&mut client, &id, args.trial, &args.output).await?;
            print_stderr_line(told.trim_end());
            Ok(CommandOutcome::Done)
        }
        CliCommand::Pause(args) => run_steer(&args, "pause", Steering::Pause).await,
        CliCommand::Resume(args) => run_steer(&args, "resume", Steering::Resume).await,
        CliCommand::Cancel(args) => run_steer(&args, "cancel", Steering::Cancel).await,
        CliCommand::Retry(args) => run_steer(&args, "retry", Steering::Retry).await,
        CliCommand::Token(TokenCommand::New(args)) => print_output(
            token::create_token(
                &mut args.target.connect().await?,
                args.role,
                args.expires,
                &args.note,
                args.output.as_deref(),
            )
            .await?,
        ),
        CliCommand::Token(TokenCommand::List(args)) => {
            print_output(token::list_tokens(&mut args.target.connect().await?, args.format).await?)
        }
        CliCommand::Token(TokenCommand::Revoke(args)) => {
            token::revoke_token(&mut args.target.connect().await?, &args.id).await?;
            Ok(CommandOutcome::Done)
        }
        CliCommand::SampleSize(args) => {
            run_sample_size(&args.target, &args.id, &args.precision, args.format).await
        }
        CliCommand::Update(args) => {
            let mut client = args.target.connect().await?;
            let id = resolve_sweep_to_change(&mut client, &args.id, "update", args.yes).await?;
            let status =
                commands::update_share(&mut client, &id, args.priority, args.weight).await?;
            print_output(commands::render_status(&status, TextFormat::Table))
        }
        CliCommand::Extend(args) => run_extend(args).await,
        CliCommand::Rm(args) => run_remove(args).await,
        CliCommand::Backup(args) => print_output(
            backup::fetch_backup(&mut args.target.connect().await?, &args.output).await?,
        ),
        CliCommand::Restore(args) => {
            let restored = tokio::task::block_in_place(|| {
                restore::restore_backup(&args.file, &args.store, args.files.as_deref())
            });
            print_output(restored?)
        }
        CliCommand::Bench(BenchCommand::Overhead(args)) => overhead::run_overhead_bench(args).await,
        CliCommand::Bench(BenchCommand::Soak(args)) => soak::run_soak_bench(args).await,
        CliCommand::Bench(BenchCommand::Tables(args)) => tables::run_tables_bench(args).await,
    }
}

/// A coordinator, and the sweep there that is meant.
async fn connect_to_sweep(
    target: &args::ConnectionArgs,
    id: &str,
) -> Result<(Client, String), UserError> {
    let mut client = target.connect().await?;
    let id = resolve_sweep_id(&mut client, id).await?;
    Ok((client, id))
}

async fn run_table(args: TableArgs) -> Result<CommandOutcome, UserError> {
    // What cannot be written is told before anything is asked.
    let sink = args.sink.into_output_target()?;
    let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
    let options = TableOptions {
        by: args.by,
        rows: args.rows,
        columns: args.cols,
        metrics: args.metric,
        selection: args.selection.into_row_selection(),
        at: args.at,
        stats: args.stat,
        cells_alike: args.weight == PoolingWeight::Cells,
        format: sink.format.as_text_format().unwrap_or_default(),
    };

    match sink.format {
        RowFormat::Parquet => {
            sink.write_parquet(&commands::query_table_batch(&mut client, &id, &options).await?)?
        }
        _ => sink.write_text(&commands::query_table_text(&mut client, &id, &options).await?)?,
    }

    Ok(CommandOutcome::Done)
}

async fn run_trials(args: TrialsArgs) -> Result<CommandOutcome, UserError> {
    let sink = args.sink.into_output_target()?;
    let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;

    match sink.format.as_text_format() {
        Some(format) => {
            sink.write_text(&commands::query_trials_text(&mut client, &id, format).await?)?
        }
        None => sink.write_parquet(&commands::query_trials_batch(&mut client, &id).await?)?,
    }

    Ok(CommandOutcome::Done)
}

async fn run_curves(args: CurvesArgs) -> Result<CommandOutcome, UserError> {
    let sink = args.sink.into_output_target()?;
    let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
    let id = &id;
    let metric = &args.metric;
    let stats = &args.stat;

    match sink.format.as_text_format() {
        Some(format) => sink.write_text(
            &commands::query_curves_text(&mut client, id, metric, stats, format).await?,
        )?,
        None => sink
            .write_parquet(&commands::query_curves_batch(&mut client, id, metric, stats).await?)?,
    }

    Ok(CommandOutcome::Done)
}

/// Whoever interrupts it leaves no rows behind that were fetched for it.
#[cfg(feature = "sql")]
async fn run_sql(args: SqlArgs) -> Result<CommandOutcome, UserError> {
    let options = SqlOptions {
        query: args.query,
        sweeps: args.sweeps,
        sink: args.sink.into_output_target()?,
    };
    let asked = async {
        match &args.from {
            Some(from) => query_datasets(from, &options).await,
            None => query_coordinator(&mut args.target.connect().await?, &options).await,
        }
    };

    tokio::select! {
        () = wait_for_interrupt() => Ok(CommandOutcome::Interrupted),
        answered = asked => answered.map(|()| CommandOutcome::Done),
    }
}

#[cfg(not(feature = "sql"))]
async fn run_sql(_: SqlArgs) -> Result<CommandOutcome, UserError> {
    let message = "this program was built without SQL: build it with `cargo build --release --locked --features ergodic/sql`, or \
                   ask the files that `ergodic export` writes with DuckDB";
    Err(UserError::new(ErrorCode::BadInput, message))
}

async fn run_plot(args: PlotArgs) -> Result<CommandOutcome, UserError> {
    let options = PlotOptions {
        kind: args.kind,
        metric: args.metric,
        at: args.at,
        rows: args.rows,
        columns: args.cols,
        by: args.by,
        stat: args.stat,
        baseline: args.baseline,
        selection: args.selection.into_row_selection(),
        log: args.log,
        title: args.title,
        width: args.width,
        height: args.height,
    };

    let (mut client, id) = connect_to_sweep(&args.target, &args.id).await?;
    match plot_sweep(&mut client, &id, &options, args.output.as_deref()).await? {
        Some(svg) => print_output(svg),
        None => Ok(CommandOutcome::Done),
    }
}

async fn run_steer(
    args: &SteerArgs,
    command: &str,
    steering: Steering,
) -> Result<CommandOutcome, UserError> {
    let mut client = args.target.connect().await?;
    let id = resolve_sweep_to_change(&mut client, &args.id, command, args.yes).await?;
    let status = commands::steer_sweep(&mut client, &id, steering).await?;
    print_output(commands::render_status(&status, TextFormat::Table))
}

/// Stdout is the id alone, as of a launch.
async fn run_extend(args: ExtendArgs) -> Result<CommandOutcome, UserError> {
    let more = match (&args.spec, args.repeats) {
        (Some(spec), _) => Extension::File(commands::read_sweep_file(spec, &args.settings)?),
        (None, repeats) => Extension::Repeats(repeats.unwrap_or_default()),
    };
    let mut client = args.target.connect().await?;
    let id = resolve_sweep_to_change(&mut client, &args.id, "extend", args.yes).await?;
    let extended = extend::extend_sweep(&mut client, &id, &more).await?;
    print_stderr_line(&extend::format_extension(&extended));

    print_output(
        extended
            .status
            .map_or_else(String::new, |status| format!("{}\n", status.id)),
    )
}

/// Each is told when it is removed: what is said stays true if the next one cannot be.
async fn run_remove(args: RemoveArgs) -> Result<CommandOutcome, UserError> {
    let embedded = match &args.dir {
        Some(dir) => Some(run::start_embedded_coordinator(dir, None).await?),
        None => None,
    };
    let connected = match &embedded {
        Some(server) => Client::connect(&server.url(), &ClientAuth::default()).await,
        None => args.target.connect().await,
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
    // What is meant by all of them is settled before the first one goes.
    let mut ids = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        ids.push(resolve_sweep_to_change(client, id, "rm", args.yes).await?);
    }

    for id in &ids {
        print_output(commands::remove_sweep(client, id, args.force).await?)?;
    }

    Ok(())
}

async fn run_plan(args: &PlanArgs) -> Result<CommandOutcome, UserError> {
    if let Some(precision) = &args.precision {
        return run_sample_size(&args.target, &args.what, precision, args.format).await;
    }

    let file = commands::read_sweep_file(&args.what, &args.settings)?;
    let spec = commands::read_launch_spec(&file.source)?;
    let looks = plan::inspect_data(&file, &spec, args.data_dir.as_deref())?;
    print_output(plan::render_plan(&spec, looks.as_ref(), args.format))
}

async fn run_sample_size(
    target: &ConnectionArgs,
    id: &str,
    (metric, ci95): &(String, f64),
    format: TextFormat,
) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = connect_to_sweep(target, id).await?;
    print_output(sample_size::estimate_sample_size(&mut client, &id, metric, *ci95, format).await?)
}

async fn run_serve(args: ServeArgs) -> Result<CommandOutcome, UserError> {
    start_logging("info", args.log_format);
    let _failpoints = failpoint::set_up();
    let options = ServeOptions {
        listen: args.listen,
        store: StoreLocation::parse(&args.store),
        files_dir: args.files.clone(),
        data_dir: args.data_dir.clone(),
        advertise: args.advertise.clone(),
        http_listen: args.http,
        auth: build_auth_options(&args)?,
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
fn build_auth_options(args: &ServeArgs) -> Result<Option<AuthOptions>, UserError> {
    let beyond = !args.listen.ip().to_canonical().is_loopback();
    let asked = args.secure || args.tls_cert.is_some() || args.client_ca.is_some();
    if args.insecure || !(beyond || asked) {
        return Ok(None);
    }

    Ok(Some(AuthOptions {
        dir: args
            .auth_dir
            .clone()
            .unwrap_or_else(|| default_auth_dir(args)),
        certificate: args.tls_cert.clone().zip(args.tls_key.clone()),
        client_ca: args.client_ca.clone(),
    }))
}

/// In the directory that the coordinators of one store have in common.
fn default_auth_dir(args: &ServeArgs) -> PathBuf {
    let shared = match StoreLocation::parse(&args.store) {
        StoreLocation::Directory(dir) => Some(dir),
        StoreLocation::Database(_) => args.files.clone(),
    };
    shared.unwrap_or_default().join("auth")
}

async fn run_launch(args: LaunchArgs) -> Result<CommandOutcome, UserError> {
    let file = commands::read_sweep_file(&args.spec.spec, &args.spec.settings)?;
    let mut client = args.target.connect().await?;
    let what = if args.again {
        commands::LaunchMode::All
    } else {
        commands::LaunchMode::Missing
    };
    let launched = commands::launch_sweep(&mut client, &file, what).await?;
    commands::format_reused_results(&launched)
        .iter()
        .for_each(|line| print_stderr_line(line));

    let status = launched.status.unwrap_or_default();
    print_output(format!("{}\n", status.id))?;

    if !args.watch {
        return Ok(CommandOutcome::Done);
    }

    let status = follow_sweep(&mut client, &status.id).await?;
    print_output(
        commands::query_table_text(&mut client, &status.id, &TableOptions::default()).await?,
    )?;

    Ok(if status.failed > 0 {
        CommandOutcome::TrialsFailed
    } else {
        CommandOutcome::Done
    })
}
