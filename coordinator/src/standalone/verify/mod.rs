//! `ergodic verify`: runs what sweep files ask for, as far as its results are missing, and judges their claims.

mod batch;
mod cost;
mod experiment;
mod findings;
mod summary;

use std::path::{Path, PathBuf};

use batch::{ExperimentEnd, VerifyBatch};
use clap::Args;
use cost::print_costs;
use ergodic_common::ErrorCode;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use experiment::{Experiment, read_experiments};
use findings::ExperimentFindings;
use summary::{outcome_of_findings, render_findings, write_verdict_table};

use super::local_experiments::choose_local_experiment;
use super::local_workers::{LocalRunArgs, remove_refused_store};
use super::program_consent::agree_to_programs;
use super::sweeps::pause_unfinished_sweeps;
use crate::app::{CommandOutcome, LogFormat, print_unpaged, start_logging, wait_for_interrupt};
use crate::client::Client;
use crate::client::args::SettingArgs;
use crate::client::last_run::LastRun;
use crate::client::render::TextFormat;
use crate::server::RunningServer;
use crate::terminal::print_stderr_line;

/// `ergodic verify`
#[derive(Debug, Args)]
// All stages of a file are run: whoever chooses one is told so.
#[command(mut_arg("stage", |arg| arg.hide(true)))]
pub struct VerifyArgs {
    /// A sweep file with claims, or a folder: all files in it that end in .toml, in the order of their names
    #[arg(value_name = "FILE|FOLDER")]
    pub what: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub change: SettingArgs,
    /// Directory for verdicts, figures and the store; results that are there are not computed again [default: ergodic-verify/NAME]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Only check the files and print what they would cost
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub local: LocalRunArgs,
    /// Format of the verdicts
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Runs experiments on this machine, as far as their results are missing, and judges their claims.
///
/// # Errors
/// A file, its data or the worker program cannot be used, or workers keep dying.
pub async fn run_verify(args: VerifyArgs) -> Result<CommandOutcome, UserError> {
    start_logging("warn", LogFormat::Pretty);
    let mut experiments = read_experiments(&args)?;
    if args.dry_run {
        return print_costs(&experiments, args.format).await;
    }

    let sweeps = experiments
        .iter()
        .map(|experiment| (&experiment.spec, Some(&experiment.file)));
    let runs_programs = agree_to_programs(sweeps, args.local.programs)?;
    let program = args.local.find_program().await?;
    for Experiment { file, spec, .. } in &mut experiments {
        choose_local_experiment(file, spec, &program).await?;
    }
    let dir = match &args.output {
        Some(dir) => dir.clone(),
        None => Path::new("ergodic-verify").join(default_folder_name(&args.what)?),
    };
    let store = dir.join("store");
    let existed = store.exists();

    let server = args.local.start_coordinator(&store).await?;
    let place = OutputPlace { dir, store };
    let mut verification = Verification {
        args: &args,
        experiments: &experiments,
        place: &place,
        program: (&program, runs_programs),
        has_begun: false,
    };
    let result = verification.carry_out(&server).await;
    let has_begun = verification.has_begun;

    server.stop().await;
    if !has_begun && !existed {
        remove_refused_store(&place.store);
        let _ = place.dir.parent().map(std::fs::remove_dir);
    }
    result
}

/// The name of the file without its ending, or of the folder.
fn default_folder_name(what: &Path) -> Result<PathBuf, UserError> {
    let whole = what.canonicalize().unwrap_or_else(|_| what.to_owned());
    let name = match whole.is_dir() {
        true => whole.file_name(),
        false => whole.file_stem(),
    };
    name.map(PathBuf::from).ok_or_else(|| {
        let message = format!("{}: it has no name: add -o DIR", what.display());
        UserError::new(ErrorCode::BadInput, message)
    })
}

/// Where results go.
struct OutputPlace {
    /// The directory of verdicts and figures.
    dir: PathBuf,
    store: PathBuf,
}

/// A verification of some experiments, and what it needs.
struct Verification<'a> {
    args: &'a VerifyArgs,
    experiments: &'a [Experiment],
    place: &'a OutputPlace,
    /// The worker program, and whether it runs programs of users.
    program: (&'a Path, bool),
    /// Whether a sweep was launched or found.
    has_begun: bool,
}

impl Verification<'_> {
    async fn carry_out(&mut self, server: &RunningServer) -> Result<CommandOutcome, UserError> {
        let url = server.url();
        let mut client = Client::connect(&url, &ClientAuth::default()).await?;
        pause_unfinished_sweeps(&mut client).await?;
        let mut batch = VerifyBatch::new(self.experiments, server, self.args.local.again);
        batch.launch_all(&mut client).await?;
        self.has_begun = true;
        LastRun::remember_store(Path::new(""), &self.place.store);

        if batch.is_complete() {
            let findings = self.judge_all(&mut batch, &mut client).await?;
            return self.report_findings(&findings);
        }
        let store = self.place.store.display();
        print_stderr_line(&format!("results in {store}, coordinator at {url}"));
        let local = &self.args.local;
        let mut workers = local.start_workers(&url, self.program, &self.place.store)?;
        let ended = tokio::select! {
            findings = self.judge_all(&mut batch, &mut client) => Some(findings?),
            error = workers.supervise(&url) => return Err(error),
            () = wait_for_interrupt() => None,
        };
        workers.stop_all().await;

        match ended {
            Some(findings) => self.report_findings(&findings),
            None => {
                print_stderr_line(
                    "interrupted: the same command, without --again, continues where this one stopped",
                );
                Ok(CommandOutcome::Interrupted)
            }
        }
    }

    /// Judges each experiment once its results are complete, and writes what is found.
    async fn judge_all(
        &self,
        batch: &mut VerifyBatch<'_>,
        client: &mut Client,
    ) -> Result<Vec<ExperimentFindings<'_>>, UserError> {
        let mut all = Vec::with_capacity(self.experiments.len());
        for (at, experiment) in self.experiments.iter().enumerate() {
            let end = batch.complete(client, at).await?;
            if !experiment.has_claims() {
                continue;
            }
            let findings = match end {
                ExperimentEnd::Ended(status) => {
                    ExperimentFindings::collect(client, experiment, *status).await?
                }
                ExperimentEnd::Unstartable(why) => {
                    ExperimentFindings::without_trials(experiment, &why)?
                }
            };
            findings.write_files(client, &self.place.dir).await?;
            if self.args.format == TextFormat::Table {
                print_unpaged(&findings.render_human())?;
            }
            all.push(findings);
        }
        Ok(all)
    }

    fn report_findings(
        &self,
        findings: &[ExperimentFindings<'_>],
    ) -> Result<CommandOutcome, UserError> {
        write_verdict_table(&self.place.dir, findings)?;
        print_unpaged(&render_findings(findings, self.args.format))?;
        let dir = self.place.dir.display();
        print_stderr_line(&format!(
            "kept in {dir}: verdicts.md, and a .json file and the figures of each experiment"
        ));
        Ok(outcome_of_findings(findings))
    }
}
