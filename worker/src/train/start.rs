//! The weights that a trial starts from: drawn, of a file, or the mean of weights that other trials kept.

use std::sync::Arc;

use candle_core::{Error, Result};
use ergodic_common::TrialConfig;
use ergodic_common::net::Net;
use ergodic_common::weights::{Weights, WeightsError};

use super::Job;
use super::network::params::ParamLayout;

/// Where the weights come from with which a trial starts, if they are not drawn.
#[derive(Debug, Clone, Copy)]
pub enum InitialWeights<'a> {
    /// A file.
    File(&'a [u8]),
    /// The mean of weights that other trials kept, one at least.
    Mean(&'a [StartPart]),
}

/// Weights that another trial kept.
#[derive(Debug, Clone)]
pub struct StartPart {
    /// The file of all weights that it kept.
    pub file: Arc<[u8]>,
    /// The number of steps after which these were kept; `None` for the last ones.
    pub step: Option<u64>,
}

impl StartPart {
    fn read(&self, net: &Net) -> Result<Weights> {
        let weights = Weights::read_moment(&self.file, net, self.step);
        weights.map_err(|e| unusable_error("the kept weights to start from", &e))
    }
}

/// Initial weights and norm statistics, packed.
///
/// # Errors
/// There is no file of them, or it does not fit the network.
pub(super) fn load_or_draw_weights(
    layout: &ParamLayout,
    net: &Net,
    job: &Job<'_>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let config = job.config;
    let start = match (job.initial_weights, &config.results_start) {
        (Some(InitialWeights::Mean(parts)), Some(_)) => average_parts(parts, net)?,
        (_, Some(_)) => {
            return Err(Error::msg(
                "the worker has no kept weights for this trial to start from",
            ));
        }
        (Some(InitialWeights::File(file)), None) if config.model.init_file.is_some() => {
            Weights::from_safetensors(file, net)
                .map_err(|e| unusable_error("the file of initial weights", &e))?
        }
        _ if config.model.init_file.is_some() => {
            return Err(Error::msg(
                "the worker has no file of initial weights for this trial",
            ));
        }
        _ => {
            return Ok((
                layout.draw_initial_weights(config, job.streams),
                layout.initial_statistics(),
            ));
        }
    };
    Ok(layout.pack_initial_weights(&start, config))
}

/// The weights that the trial starts from the mean of, each packed as it was kept.
///
/// # Errors
/// A file does not fit the network.
pub(super) fn load_parts(layout: &ParamLayout, net: &Net, job: &Job<'_>) -> Result<Vec<Vec<f32>>> {
    let Some(InitialWeights::Mean(parts)) = job.initial_weights else {
        return Ok(Vec::new());
    };
    let unscaled = without_scales(job.config);
    let packed = parts.iter().map(|part| {
        let (weights, _) = layout.pack_initial_weights(&part.read(net)?, &unscaled);
        Ok(weights)
    });
    packed.collect()
}

fn without_scales(config: &TrialConfig) -> TrialConfig {
    let mut config = config.clone();
    config.model.init_scale = 1.0;
    config.model.layer_scales.clear();
    config
}

fn unusable_error(what: &str, error: &WeightsError) -> Error {
    Error::msg(format!("{what}: {error}"))
}

/// The mean of weights, and of their running statistics: number by number the sum in f64, in the order of the parts, over their
/// number, rounded once to f32.
fn average_parts(parts: &[StartPart], net: &Net) -> Result<Weights> {
    let Some((first, others)) = parts.split_first() else {
        return Err(Error::msg("there are no kept weights to start from"));
    };
    let first = first.read(net)?;
    let mut sums: Vec<Vec<f64>> = iter_tensors(&first).map(|x| to_f64s(x)).collect();
    for part in others {
        let weights = part.read(net)?;
        for (sum, numbers) in sums.iter_mut().zip(iter_tensors(&weights)) {
            for (sum, x) in sum.iter_mut().zip(numbers) {
                *sum += f64::from(*x);
            }
        }
    }

    let count = parts.len() as f64;
    let mut mean = first;
    let tensors = mean
        .params
        .iter_mut()
        .chain(mean.statistics.iter_mut().flatten());
    for (numbers, sum) in tensors.zip(&sums) {
        for (x, sum) in numbers.iter_mut().zip(sum) {
            *x = (sum / count) as f32;
        }
    }
    Ok(mean)
}

fn iter_tensors(weights: &Weights) -> impl Iterator<Item = &Vec<f32>> {
    let statistics = weights.statistics.iter().flatten();
    weights.params.iter().chain(statistics)
}

fn to_f64s(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}
