//! The program `ergodic`: reads the command line, carries out the command, turns errors into exit codes.

pub mod args;

use std::process::ExitCode;

use clap::Parser;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1::Steering;

use crate::client::commands::{self, TableOptions};
use crate::client::output::Format;
use crate::client::watch::{eprintln_line, follow};
use crate::client::{Client, kept, plan};
use crate::failpoint;
use crate::local::{bench, replay, run};
use crate::program::{Success, interrupted, say, start_logging};
use crate::server::{self, ServeOptions};
use args::{BenchCommand, Cli, Command, LaunchArgs, PlanArgs, ServeArgs, SteerArgs, Target};

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
        Ok(Success::Fine) => ExitCode::SUCCESS,
        Ok(Success::TrialsFailed) => ExitCode::from(ErrorCode::TrialsFailed.exit_code()),
        Ok(Success::Interrupted) => ExitCode::from(130),
        Err(error) => fail(&error),
    }
}

fn fail(error: &UserError) -> ExitCode {
    eprintln_line(&format!("error: {error}"));
    ExitCode::from(error.code.exit_code())
}

async fn dispatch(command: Command) -> Result<Success, UserError> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Plan(args) => show_plan(&args),
        Command::Serve(args) => serve(args).await,
        Command::Launch(args) => launch(args).await,
        Command::List(args) => say(commands::list(&mut connect(&args.target).await?, args.format).await?),
        Command::Status(args) => {
            let status = commands::status(&mut connect(&args.target).await?, &args.id).await?;
            say(commands::show_status(&status, args.format))
        }
        Command::Watch(args) => {
            let status = follow(&mut connect(&args.target).await?, &args.id).await?;
            Ok(if status.failed > 0 { Success::TrialsFailed } else { Success::Fine })
        }
        Command::Workers(args) => say(commands::workers(&mut connect(&args.target).await?, args.format).await?),
        Command::Explain(args) => {
            let mut client = connect(&args.target).await?;
            say(commands::explain(&mut client, &args.id, args.trial, args.format).await?)
        }
        Command::Replay(args) => replay::replay(args).await,
        Command::Table(args) => {
            let mut client = connect(&args.target).await?;
            let options = TableOptions {
                by: args.by,
                rows: args.rows,
                columns: args.cols,
                metric: args.metric,
                at: args.at,
                format: args.format,
            };
            say(commands::table(&mut client, &args.id, &options).await?)
        }
        Command::Trials(args) => say(commands::trials(&mut connect(&args.target).await?, &args.id, args.format).await?),
        Command::Curves(args) => {
            let mut client = connect(&args.target).await?;
            say(commands::curves(&mut client, &args.id, &args.metric, args.format).await?)
        }
        Command::Predictions(args) => {
            kept::predictions(&mut connect(&args.target).await?, &args.id, args.format).await?;
            Ok(Success::Fine)
        }
        Command::Weights(args) => {
            let told = kept::weights(&mut connect(&args.target).await?, &args.id, args.trial, &args.output).await?;
            eprintln_line(told.trim_end());
            Ok(Success::Fine)
        }
        Command::Pause(args) => steer(&args, Steering::Pause).await,
        Command::Resume(args) => steer(&args, Steering::Resume).await,
        Command::Cancel(args) => steer(&args, Steering::Cancel).await,
        Command::Retry(args) => steer(&args, Steering::Retry).await,
        Command::Bench(BenchCommand::Overhead(args)) => bench::overhead(args).await,
    }
}

async fn steer(args: &SteerArgs, steering: Steering) -> Result<Success, UserError> {
    let status = commands::steer(&mut connect(&args.target).await?, &args.id, steering).await?;
    say(commands::show_status(&status, Format::Table))
}

async fn connect(target: &Target) -> Result<Client, UserError> {
    Client::connect(&target.coordinator).await
}

fn show_plan(args: &PlanArgs) -> Result<Success, UserError> {
    let file = commands::read_source(&args.spec.spec, &args.spec.settings)?;
    let spec = Spec::read(&file.source).map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
    say(plan::plan(&spec, args.format))
}

async fn serve(args: ServeArgs) -> Result<Success, UserError> {
    start_logging("info");
    let _failpoints = failpoint::set_up();
    let options = ServeOptions {
        listen: args.listen,
        store: args.store,
        data_dir: args.data_dir,
        insecure: args.insecure,
        lease_ttl: args.lease_ttl,
    };
    let running = server::start(options).await?;
    tracing::info!(address = running.url(), "listening");
    say(format!("{}\n", running.url()))?;
    interrupted().await;
    tracing::info!("stopping");
    running.stop().await;
    Ok(Success::Fine)
}

async fn launch(args: LaunchArgs) -> Result<Success, UserError> {
    let file = commands::read_source(&args.spec.spec, &args.spec.settings)?;
    let mut client = connect(&args.target).await?;
    let status = commands::launch(&mut client, &file, false).await?;
    say(format!("{}\n", status.id))?;
    if !args.watch {
        return Ok(Success::Fine);
    }
    let status = follow(&mut client, &status.id).await?;
    // Stdout is the id alone, watched or not.
    eprintln_line(commands::table(&mut client, &status.id, &TableOptions::default()).await?.trim_end());
    Ok(if status.failed > 0 { Success::TrialsFailed } else { Success::Fine })
}
