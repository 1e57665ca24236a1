//! `ergodic replay`: runs a trial again on this machine, and compares it with its stored row.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{Args, ValueEnum};
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_common::program::{is_experiment_class, is_program_class};
use ergodic_common::{ErrorCode, Outcome, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::process::Command;

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepOnCoordinator;
use crate::client::query::{query_status, query_trial};
use crate::worker_processes::find_worker;

/// `ergodic replay`
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepOnCoordinator,
    /// A trial of the sweep, as cell/repeat
    pub trial: TrialKey,
    /// Instruction set; all of them yield the same bits
    #[arg(long, default_value = "auto", value_name = "auto|avx512|avx2|portable")]
    pub isa: String,
    /// Where to train: a CUDA device for sweeps of the class cuda-f32
    #[arg(long, default_value = "cpu", value_name = "cpu|cuda:N")]
    pub device: String,
    /// Threads that share the work; any number yields the same bits
    #[arg(long, default_value_t = 1, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Directory with dataset files; missing ones are fetched from the coordinator
    #[arg(long, env = "ERGODIC_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Run a trial that is a program of the sweep's owner, in namespaces of its own; where the system has none, only from a
    /// coordinator on this machine, or with =trusted, so that it can read what you can
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "isolated", value_name = "trusted")]
    pub programs: Option<ReplayedPrograms>,
    /// The worker program [default: beside this one, else on PATH]
    #[arg(long, value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
}

/// Whose programs are run again here. The worker program has the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReplayedPrograms {
    /// Programs in namespaces of their own; where the system has none, those of a coordinator on this machine alone
    Isolated,
    /// All programs, even if they can read what this user can
    Trusted,
}

/// Runs the trial again and reports whether it ended with the stored bits.
///
/// # Errors
/// The trial has no row, it cannot be run here, or its bits differ.
pub async fn run_replay(args: ReplayArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let page = query_trial(&mut client, &id, args.trial).await?;
    check_program_allowed(&args, &page)?;
    let stored = read_stored_result(&page)?;
    check_has_bits(&stored)?;
    let may_differ = query_status(&mut client, &id).await?.may_differ;
    let mut again = rerun_trial(&args, &client.url, &id).await?;
    if is_experiment_class(&page.numerics) || is_program_class(&page.numerics) {
        keep_digest_alone(&mut again, &stored);
    }
    let differences = list_differences(&stored, &again, &page.metrics);
    let digest = stored.digest.to_string();

    if differences.is_empty() {
        return print_output(format!(
            "trial {} of {}: {}, digest {digest}: the same bits here, in {:.2} s, as on {}, in {:.2} s\n",
            args.trial,
            page.sweep,
            describe_end(&stored),
            again.seconds,
            page.rows.first().map_or("?", |row| row.worker.as_str()),
            stored.seconds
        ));
    }

    let found = format!(
        "trial {} of {}: the run here differs from the stored one in {}",
        args.trial,
        page.sweep,
        differences.join("; ")
    );
    judge_differences(&found, may_differ).map_or_else(Err, print_output)
}

/// What is said of a run that differs: an error, unless runs of the sweep may differ.
fn judge_differences(found: &str, may_differ: bool) -> Result<String, UserError> {
    if may_differ {
        return Ok(format!(
            "{found}, as runs may: the sweep file does not say deterministic = true\n"
        ));
    }
    let message = format!(
        "{found}. One of the two machines or programs computes wrongly: run it again here and on a third machine to tell which"
    );
    Err(UserError::new(ErrorCode::TrialsFailed, message))
}

/// Refuses a trial of a program that the user has not said may run here.
fn check_program_allowed(args: &ReplayArgs, page: &v1::TrialsResponse) -> Result<(), UserError> {
    if args.programs.is_some() || !is_program_class(&page.numerics) {
        return Ok(());
    }
    let message = format!(
        "the trial {} of {} is a program of the sweep's owner, which would run on this machine, as you: add --programs to let it run",
        args.trial, page.sweep
    );
    Err(UserError::new(ErrorCode::Refused, message))
}

/// Leaves outcome, steps and digest to compare: the digest stands for all that may not differ between runs, as times and files may.
fn keep_digest_alone(again: &mut TrialResult, stored: &TrialResult) {
    again.metrics.clone_from(&stored.metrics);
    again.curve.clone_from(&stored.curve);
    again.predictions.clone_from(&stored.predictions);
    again.weights_hash = stored.weights_hash;
}

/// Refuses a trial that failed.
fn check_has_bits(stored: &TrialResult) -> Result<(), UserError> {
    let Outcome::Failed { cause } = &stored.outcome else {
        return Ok(());
    };

    let message = format!(
        "the trial {} failed and has no bits to compare: {}",
        stored.key,
        escape_line(cause)
    );
    Err(UserError::new(ErrorCode::BadInput, message))
}

fn read_stored_result(page: &v1::TrialsResponse) -> Result<TrialResult, UserError> {
    let row = page.rows.first().and_then(|row| row.result.clone());
    let result = row.and_then(|row| TrialResult::try_from(row).ok());
    result
        .ok_or_else(|| UserError::new(ErrorCode::Internal, "the coordinator sent no readable row"))
}

/// Runs the trial again in a worker program.
async fn rerun_trial(
    args: &ReplayArgs,
    url: &str,
    sweep: &SweepId,
) -> Result<TrialResult, UserError> {
    let program = find_worker(args.worker_bin.as_deref()).await?;
    let output = build_trial_command(args, &program, url, sweep)
        .output()
        .await
        .map_err(|e| program_error(&program, &format!("cannot start it: {e}")))?;

    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim().trim_start_matches("error: ").to_owned();
        let code = output
            .status
            .code()
            .and_then(|code| ErrorCode::from_exit_code(code as u8));
        return Err(UserError::new(code.unwrap_or(ErrorCode::Internal), words));
    }

    ergodic_proto::result_from_bytes(&output.stdout)
        .ok_or_else(|| program_error(&program, "it printed no result"))
}

fn build_trial_command(args: &ReplayArgs, program: &Path, url: &str, sweep: &SweepId) -> Command {
    let mut command = Command::new(program);
    command
        .args(["trial", sweep, &args.trial.to_string()])
        .args(["--coordinator", url, "--isa", &args.isa])
        .args(["--threads", &args.threads.to_string()])
        .args(["--device", &args.device])
        .args(args.sweep.connection.access.to_cli_args());
    if let Some(dir) = &args.data_dir {
        command.arg("--data-dir").arg(dir);
    }
    match args.programs {
        Some(ReplayedPrograms::Isolated) => drop(command.arg("--programs")),
        Some(ReplayedPrograms::Trusted) => drop(command.arg("--programs=trusted")),
        None => {}
    }

    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn program_error(program: &Path, what: &str) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("{}: {what}", program.display()),
    )
}

/// Lists the differences between two runs of a trial.
fn list_differences(stored: &TrialResult, again: &TrialResult, metrics: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    if (&stored.outcome, stored.steps) != (&again.outcome, again.steps) {
        found.push(format!(
            "the outcome: {} there, {} here",
            describe_end(stored),
            describe_end(again)
        ));
    }

    if stored.digest != again.digest {
        found.push(format!(
            "the digest: {} there, {} here",
            stored.digest, again.digest
        ));
    }

    if stored.curve.steps != again.curve.steps || curve_bits(stored) != curve_bits(again) {
        found.push("the curve".to_owned());
    }

    if stored.predictions != again.predictions {
        found.push("the predictions for the probe set".to_owned());
    }
    if stored.weights_hash != again.weights_hash {
        found.push("the file of trained weights".to_owned());
    }

    for ((name, there), here) in metrics.iter().zip(&stored.metrics).zip(&again.metrics) {
        if there.to_bits() != here.to_bits() && !(there.is_nan() && here.is_nan()) {
            found.push(format!("{name}: {there} there, {here} here"));
        }
    }

    found
}

fn describe_end(result: &TrialResult) -> String {
    let steps = format_count(result.steps, "step");
    format!("{} after {steps}", result.outcome.as_str())
}

/// The bits of a curve's values, with a single representation of NaN.
fn curve_bits(result: &TrialResult) -> Vec<Option<u64>> {
    let values = result.curve.values.iter();
    values.map(|x| (!x.is_nan()).then(|| x.to_bits())).collect()
}

#[cfg(test)]
mod tests {
    use ergodic_common::ids::{FileHash, WeightsDigest};
    use ergodic_common::trial::{MetricCurve, Predictions};

    use crate::standalone::replay::*;

    #[test]
    fn runs_that_may_differ_are_no_alarm() {
        let said = judge_differences("it differs", true).expect("no alarm");
        assert!(said.contains("it differs, as runs may"), "{said}");
        let alarm = judge_differences("it differs", false).expect_err("an alarm");
        assert!(alarm.to_string().contains("computes wrongly"), "{alarm}");
    }

    #[test]
    fn every_part_of_a_result_is_compared() {
        let key = TrialKey::new(0, 0);
        let outcome = Outcome::Completed;
        let metrics = vec![0.5, f64::NAN];
        let stored = TrialResult {
            outcome,
            steps: 3,
            metrics,
            digest: WeightsDigest([1; 32]),
            ..TrialResult::completed(key)
        };

        let names = ["test_acc".to_owned(), "effective_lr".to_owned()];
        let differing = |again: &TrialResult| list_differences(&stored, again, &names);
        assert!(
            differing(&TrialResult {
                seconds: 2.0,
                ..stored.clone()
            })
            .is_empty()
        );

        for (again, word) in [
            (
                TrialResult {
                    steps: 4,
                    ..stored.clone()
                },
                "4 steps here",
            ),
            (
                TrialResult {
                    outcome: Outcome::Diverged { step: 3 },
                    ..stored.clone()
                },
                "diverged",
            ),
            (
                TrialResult {
                    digest: WeightsDigest([2; 32]),
                    ..stored.clone()
                },
                "digest",
            ),
            (
                TrialResult {
                    predictions: Predictions {
                        steps: vec![3],
                        classes: vec![1],
                    },
                    ..stored.clone()
                },
                "predictions",
            ),
            (
                TrialResult {
                    curve: MetricCurve {
                        steps: vec![3],
                        values: vec![0.5, 0.1],
                    },
                    ..stored.clone()
                },
                "curve",
            ),
            (
                TrialResult {
                    weights_hash: Some(FileHash([2; 32])),
                    ..stored.clone()
                },
                "weights",
            ),
            (
                TrialResult {
                    metrics: vec![0.5_f64.next_up(), f64::NAN],
                    ..stored.clone()
                },
                "test_acc",
            ),
            (
                TrialResult {
                    metrics: vec![0.5, 0.0],
                    ..stored.clone()
                },
                "effective_lr",
            ),
        ] {
            let found = differing(&again);
            assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
        }
    }
}
