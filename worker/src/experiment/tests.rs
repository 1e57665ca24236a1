//! Trials of experiments without a coordinator.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ergodic_common::ids::{Epoch, Fence, LeaseId, TrialIdentity};
use ergodic_common::random_streams::Purpose;
use ergodic_common::{Outcome, TrialKey, TrialResult};
use serde::Deserialize;

use crate::device::DeviceChoice;
use crate::experiment::{Experiment, Experiments, Metrics, TrialContext, TrialError};
use crate::link::sweeps::LoadedSweep;
use crate::program::trial::NoResult;
use crate::runner::{SlotConfig, TrialRunner, run_assignment};
use crate::train::{CheckpointStore, Isa};
use crate::work_queue::Assignment;

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WalkConfig {
    scale: f64,
    steps: u64,
    #[serde(default)]
    fault: String,
}

/// A random walk that keeps checkpoints after every step.
struct Walk;

impl Experiment for Walk {
    const NAME: &'static str = "walk";
    const VERSION: u32 = 3;
    type Config = WalkConfig;

    fn declare_metrics() -> Metrics {
        Metrics::default()
            .min("loss")
            .volatile("seconds_of_step")
            .max("unkept")
    }

    fn run(config: WalkConfig, trial: &mut TrialContext<'_>) -> Result<(), TrialError> {
        let (mut begun, mut x) = match trial.load_checkpoint() {
            Some((step, bytes)) => (step, f64::from_le_bytes(bytes.as_slice().try_into()?)),
            None => (0, 0.0),
        };
        if config.fault == "late start" {
            begun += 1;
        }
        for step in begun + 1..=config.steps {
            let draw = trial.rng(Purpose::Order, &format!("{step}")).next_normal();
            x += config.scale * draw;
            match config.fault.as_str() {
                "panic" => panic!("no way out"),
                "undeclared" => trial.report(step, &[("los", x)])?,
                "backwards" => trial.report(10 - step, &[("loss", x)])?,
                "infinite" if step == 2 => trial.report(step, &[("loss", x / 0.0)])?,
                "says so" if step == 2 => return Err(trial.diverged(step)),
                "silent" => trial.report_predictions(step, &[1, 2])?,
                "stopped" => return Err(TrialError::Stopped),
                "swallows" => {
                    let _ = trial.report(step, &[("loss", x)]);
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                "swallows a mistake" => {
                    let _ = trial.report(step, &[("los", x)]);
                }
                "asks" if trial.should_stop() => return Ok(()),
                "text" => "x".parse::<u32>().map(|_| ())?,
                "slow" => std::thread::sleep(Duration::from_millis(20)),
                "asks for data" => x += trial.data()?.classes as f64,
                _ => {}
            }
            trial.report(step, &[("loss", x * x), ("unkept", f64::NAN)])?;
            trial.checkpoint(step, || x.to_le_bytes().to_vec())?;
        }
        Ok(())
    }
}

fn sweep_text(more: &str) -> String {
    format!(
        "name = \"t\"\nnumerics = \"custom/walk/3\"\n[model]\nkind = \"custom:walk\"\nmetrics = {{ loss = \"min\" }}\n\
         scale = 0.5\nsteps = 4\n{more}"
    )
}

/// Keeps the last checkpoint, and has the trial stop after a step.
struct OneCheckpoint {
    kept: Mutex<Option<Vec<u8>>>,
    stop_after: u64,
    stop: Arc<AtomicBool>,
    is_at_once: bool,
}

impl CheckpointStore for OneCheckpoint {
    fn load_checkpoints(&self, _: TrialIdentity) -> Vec<Vec<u8>> {
        self.kept
            .lock()
            .expect("a checkpoint")
            .clone()
            .into_iter()
            .collect()
    }

    fn should_save(&self, steps: u64) -> bool {
        if steps == self.stop_after {
            self.stop.store(true, Ordering::Relaxed);
        }
        false
    }

    fn save_checkpoint(&self, _: TrialIdentity, _: u64, checkpoint: Vec<u8>) {
        *self.kept.lock().expect("a checkpoint") = Some(checkpoint);
    }

    fn should_stop_at_once(&self) -> bool {
        self.is_at_once
    }

    fn discard_checkpoints(&self, _: TrialIdentity) {}
}

fn assignment(text: &str, stop: Arc<AtomicBool>, time_limit: Option<Duration>) -> Assignment {
    Assignment {
        fence: Fence {
            lease: LeaseId(0),
            epoch: Epoch(0),
        },
        key: TrialKey::new(0, 1),
        sweep: Arc::new(LoadedSweep::of_file(text.to_owned())),
        stop,
        time_limit,
        has_checkpoint: false,
        gpus: Vec::new(),
        output: Default::default(),
    }
}

fn runner(experiments: Experiments, threads: u32) -> TrialRunner {
    let config = SlotConfig {
        threads,
        isa: Isa::Portable,
        device: DeviceChoice::Cpu,
        checkpoint_dir: None,
        programs: None,
        experiments,
    };
    TrialRunner::new(&config).expect("a slot")
}

fn run(text: &str, threads: u32) -> TrialResult {
    let assignment = assignment(text, Arc::default(), None);
    let runner = runner(crate::experiments![Walk], threads);
    let finished = run_assignment(&assignment, &runner, None);
    finished.expect("a result").result
}

fn cause_of(fault: &str) -> String {
    match run(&sweep_text(&format!("fault = \"{fault}\"\n")), 1).outcome {
        Outcome::Failed { cause } => cause,
        other => panic!("{fault}: {other:?}"),
    }
}

#[test]
fn what_a_trial_reports_is_its_result() {
    let result = run(&sweep_text(""), 1);
    assert_eq!((&result.outcome, result.steps), (&Outcome::Completed, 4));
    assert_eq!(result.curve.steps, [1, 2, 3, 4]);
    assert_eq!(result.metrics, result.curve.values[3..]);
    assert_eq!(run(&sweep_text(""), 2).digest, result.digest);
    let other = sweep_text("").replace("0.5", "0.25");
    assert_ne!(run(&other, 1).digest, result.digest);
}

#[test]
fn a_trial_diverges_by_a_metric_or_by_saying_so() {
    for fault in ["infinite", "says so"] {
        let result = run(&sweep_text(&format!("fault = \"{fault}\"\n")), 1);
        assert_eq!(result.outcome, Outcome::Diverged { step: 2 }, "{fault}");
    }
}

#[test]
fn failures_say_what_to_do() {
    for (fault, words) in [
        ("panic", "the trial panicked: no way out"),
        (
            "undeclared",
            "'los' is reported and not declared: add it to declare_metrics, which has loss, seconds_of_step, unkept",
        ),
        (
            "backwards",
            "step 1 comes after step 9: report steps in ascending order",
        ),
        (
            "stopped",
            "it ended as if it were stopped, and nothing stopped it",
        ),
        ("text", "invalid digit found in string"),
        (
            "asks for data",
            "the sweep file names no data: add [data] with a dataset, such as dataset = \"glyphs\"",
        ),
    ] {
        let cause = cause_of(fault);
        assert!(cause.contains(words), "{fault}: {cause}");
    }

    let failed = |text: &str| match run(text, 1).outcome {
        Outcome::Failed { cause } => cause,
        other => panic!("{other:?}"),
    };
    let cause = failed(&sweep_text("").replace("scale = 0.5", "sale = 0.5"));
    assert!(
        cause.contains("the config does not fit: unknown field `sale`"),
        "{cause}"
    );
    let more = sweep_text("").replace(
        "loss = \"min\"",
        "loss = \"min\", seconds_of_step = \"volatile\"",
    );
    let cause = failed(&more);
    assert!(
        cause.contains("it ended without reporting seconds_of_step"),
        "{cause}"
    );
    for (kept, words) in [
        (
            "acc = \"max\"",
            "has the metric acc, and version 3 of the experiment walk declares loss, seconds_of_step, unkept",
        ),
        (
            "loss = \"max\"",
            "has loss = \"max\", and version 3 of the experiment walk declares it as \"min\"",
        ),
    ] {
        let cause = failed(&sweep_text("").replace("loss = \"min\"", kept));
        assert!(cause.contains(words), "{cause}");
    }
}

#[test]
fn a_trial_that_goes_on_from_a_checkpoint_ends_with_the_same_bits() {
    let text = sweep_text("");
    let whole = run(&text, 1);
    let runner = runner(crate::experiments![Walk], 1);
    for stop_after in 1..4 {
        let stop = Arc::new(AtomicBool::new(false));
        let store = OneCheckpoint {
            kept: Mutex::new(None),
            stop_after,
            stop: stop.clone(),
            is_at_once: false,
        };
        let first = run_assignment(
            &assignment(&text, stop.clone(), None),
            &runner,
            Some(&store),
        );
        assert!(matches!(first, Err(NoResult::Stopped)));

        stop.store(false, Ordering::Relaxed);
        let store = OneCheckpoint {
            stop_after: 9,
            ..store
        };
        let second = run_assignment(&assignment(&text, stop, None), &runner, Some(&store));
        let second = second.expect("a result").result;
        assert_eq!(second.digest, whole.digest);
        assert_eq!(second.curve, whole.curve);
    }
}

#[test]
fn a_trial_stops_without_a_checkpoint_and_ends_at_its_time_limit() {
    let runner = runner(crate::experiments![Walk], 1);
    let stopped = Arc::new(AtomicBool::new(true));
    let ended = run_assignment(&assignment(&sweep_text(""), stopped, None), &runner, None);
    assert!(matches!(ended, Err(NoResult::Stopped)));

    let slow = sweep_text("fault = \"slow\"\n");
    let limit = Some(Duration::from_millis(30));
    let late = run_assignment(&assignment(&slow, Arc::default(), limit), &runner, None);
    match late.expect("a result").result.outcome {
        Outcome::Failed { cause } => assert!(cause.contains("exceeded its time limit"), "{cause}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_that_is_swallowed_counts() {
    assert!(cause_of("swallows a mistake").contains("'los' is reported and not declared"));

    let runner = runner(crate::experiments![Walk], 1);
    for fault in ["swallows", "asks"] {
        let text = sweep_text(&format!("fault = \"{fault}\"\n"));
        let stopped = Arc::new(AtomicBool::new(true));
        let ended = run_assignment(&assignment(&text, stopped, None), &runner, None);
        assert!(matches!(ended, Err(NoResult::Stopped)), "{fault}");
    }

    let text = sweep_text("fault = \"swallows\"\n");
    let limit = Some(Duration::from_millis(30));
    let late = run_assignment(&assignment(&text, Arc::default(), limit), &runner, None);
    match late.expect("a result").result.outcome {
        Outcome::Failed { cause } => assert!(cause.contains("exceeded its time limit"), "{cause}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_without_the_experiment_gives_the_trial_back() {
    let assignment = assignment(&sweep_text(""), Arc::default(), None);
    match run_assignment(&assignment, &runner(crate::experiments![], 1), None) {
        Err(NoResult::Unable(why)) => {
            assert!(why.contains("has no experiment custom/walk/3"), "{why}");
        }
        other => panic!("{:?}", other.map(|finished| finished.result)),
    }
}

/// An experiment with another name, version and metrics.
struct Odd<const VERSION: u32, const METRICS: bool>;

impl<const VERSION: u32, const METRICS: bool> Experiment for Odd<VERSION, METRICS> {
    const NAME: &'static str = if VERSION == 7 { "Odd" } else { "odd" };
    const VERSION: u32 = VERSION;
    const NEEDS_DATA: bool = VERSION == 2;
    type Config = WalkConfig;

    fn declare_metrics() -> Metrics {
        match METRICS {
            true => Metrics::default().min("loss"),
            false => Metrics::default(),
        }
    }

    fn run(_: WalkConfig, _: &mut TrialContext<'_>) -> Result<(), TrialError> {
        Ok(())
    }
}

#[test]
fn wrong_experiments_are_refused_at_the_start_of_the_worker() {
    for (experiments, words) in [
        (crate::experiments![Odd<7, true>], "'Odd': NAME must be"),
        (
            crate::experiments![Odd<0, true>],
            "'odd': VERSION must be 1 or more",
        ),
        (
            crate::experiments![Odd<1, false>],
            "declare_metrics must name a metric",
        ),
        (
            crate::experiments![Walk, Odd<1, true>, Odd<2, true>],
            "'odd': there is another experiment of this NAME",
        ),
    ] {
        let error = experiments.check().expect_err("a refusal").to_string();
        assert!(error.contains(words), "{error}");
    }

    let experiments = crate::experiments![Walk, Odd<1, true>];
    experiments.check().expect("they are right");
    let classes: Vec<String> = experiments.classes().collect();
    assert_eq!(classes, ["custom/walk/3", "custom/odd/1"]);
    let announced = experiments.announce();
    assert_eq!(announced[0].metrics.len(), 3);
    assert!(
        announced[0]
            .config_schema
            .contains("\"additionalProperties\":false")
    );
}

/// A launch before a worker had the experiment could not refuse the sweep.
#[test]
fn an_experiment_that_needs_data_does_not_run_without_any() {
    let experiments = crate::experiments![Odd<2, true>];
    let announced = experiments.announce();
    assert!(announced[0].needs_data);
    assert!(!crate::experiments![Walk].announce()[0].needs_data);

    let text = sweep_text("").replace("walk", "odd").replace("/3", "/2");
    let assignment = assignment(&text, Arc::default(), None);
    let finished = run_assignment(&assignment, &runner(experiments, 1), None);
    match finished.expect("a result").result.outcome {
        Outcome::Failed { cause } => assert!(
            cause.contains("the sweep file has no [data], which version 2 of the experiment odd needs: launch a sweep file"),
            "{cause}"
        ),
        other => panic!("{other:?}"),
    }
}
