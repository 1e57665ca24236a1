//! Experiments of the worker program that a command starts on this machine.

use std::path::Path;

use ergodic_common::program::is_experiment_class;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use prost::Message as _;
use tokio::process::Command;

use crate::client::sweep_file::SweepFile;
use crate::experiments::{
    KnownExperiment, OfferedExperiment, check_local_class, choose_experiment_class,
};

/// How to get a worker that has an experiment.
const NAME_PROGRAM: &str = "name a worker program that has it with --worker-bin FILE";

/// Chooses the numerics class of a file's experiment among those that a worker program has, and checks the sweep against it. Does
/// nothing for other sweeps.
///
/// # Errors
/// The program has no such experiment, or metrics or a config do not fit it.
pub(super) async fn choose_local_experiment(
    file: &mut SweepFile,
    spec: &mut Spec,
    worker: &Path,
) -> Result<(), UserError> {
    if !is_experiment_class(&spec.numerics) {
        return Ok(());
    }
    let known = list_experiments(worker).await?;
    let offered: Vec<_> = known.iter().cloned().map(OfferedExperiment::from).collect();
    let class = choose_experiment_class((spec, &file.source), &offered, NAME_PROGRAM)?;
    check_local_class(&class, &known)?;
    let setting = spec.pin_numerics(&class);
    let setting = setting.map_err(|e| UserError::new(ErrorCode::BadInput, e.to_string()))?;
    file.source.settings.push(setting);
    Ok(())
}

/// Checks that a worker program has the experiment of a stored sweep, if it is one.
///
/// # Errors
/// The program does not have it.
pub(super) async fn check_stored_experiment(spec: &Spec, worker: &Path) -> Result<(), UserError> {
    match is_experiment_class(&spec.numerics) {
        true => check_local_class(&spec.numerics, &list_experiments(worker).await?),
        false => Ok(()),
    }
}

/// Asks a worker program for its experiments.
async fn list_experiments(worker: &Path) -> Result<Vec<KnownExperiment>, UserError> {
    let failed = |why: String| {
        let message = format!("{}: cannot list its experiments: {why}", worker.display());
        UserError::new(ErrorCode::BadInput, message)
    };
    let output = Command::new(worker).arg("experiments").output().await;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(failed(words.trim().to_owned()));
    }
    let list = v1::AnnouncedExperiments::decode(&*output.stdout);
    let list = list.map_err(|error| failed(error.to_string()))?;
    KnownExperiment::read_all(&list.experiments).map_err(failed)
}
