//! The network in f64 on the CPU, composed of Candle's operations: the reference for the fast
//! engine.

use candle_core::{DType, Device, Result, Tensor};
use ergodic_common::config::Loss;
use ergodic_common::dataset::Target;
use ergodic_common::net::Net;

use super::net;

/// Parameters in logical order, one vector per tensor.
pub(crate) type ReferenceParams = Vec<Vec<f64>>;

/// A batch: images `[n, height, width, channels]` with labels or targets.
pub(crate) struct ReferenceBatch {
    pub(crate) images: Vec<f64>,
    pub(crate) labels: Vec<u8>,
    /// So many numbers per image in place of the labels, if there are any.
    pub(crate) targets: Vec<f32>,
}

impl ReferenceBatch {
    pub(crate) fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        let width = self.targets.len() / self.labels.len();
        let labels = self.labels.iter().enumerate();
        labels.map(move |(at, label)| match width {
            0 => Target::Label(*label),
            _ => Target::Numbers(&self.targets[at * width..][..width]),
        })
    }
}

/// Mean loss of a batch in training mode, its gradient, and mean and unbiased variance before each batch norm.
pub(crate) struct ReferencePass {
    pub(crate) loss: f64,
    pub(crate) gradient: ReferenceParams,
    pub(crate) statistics: Vec<(Vec<f64>, Vec<f64>)>,
}

/// Runs the forward and backward pass by Candle.
pub(crate) fn forward_backward(
    net: &Net,
    parameters: &ReferenceParams,
    batch: &ReferenceBatch,
    loss: Loss,
) -> Result<ReferencePass> {
    let params = parameters
        .iter()
        .map(|numbers| net::build_param(numbers, 1, DType::F64, &Device::Cpu))
        .collect::<Result<Vec<_>>>()?;
    let n = batch.labels.len();
    let shape = (1, n, net.input.height, net.input.width, net.input.channels);
    let images = Tensor::from_slice(&batch.images, shape, &Device::Cpu)?;

    let output = net::forward_pass(net, &params, &images, None)?;
    let objective = net::compute_objective(&output.logits, batch.targets(), loss, 1.0 / n as f64)?;
    let gradient = net::compute_gradients(&params, &objective)?;
    let statistics = net
        .layers
        .iter()
        .filter_map(|l| l.norm?.images_per_set(n).zip(Some(l.output)))
        .zip(&output.batch_statistics)
        .map(|((images, output), statistics)| {
            let count = (images * output.height * output.width) as f64;
            unbiased_statistics(statistics, count)
        });

    Ok(ReferencePass {
        loss: objective.get(0)?.to_scalar()?,
        gradient: gradient
            .iter()
            .map(|g| g.flatten_all()?.to_vec1())
            .collect::<Result<_>>()?,
        statistics: statistics.collect::<Result<_>>()?,
    })
}

/// Mean and unbiased variance of each channel, over `count` values.
fn unbiased_statistics([mean, variance]: &[Tensor; 2], count: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    let unbiased = (variance * (count / (count - 1.0)))?;
    Ok((
        mean.flatten_all()?.to_vec1()?,
        unbiased.flatten_all()?.to_vec1()?,
    ))
}
