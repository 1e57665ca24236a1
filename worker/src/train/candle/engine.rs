//! The trainer's engine on stock Candle operations, for devices that have no engine of their own: CUDA.
//!
//! Weights, gradient and statistics stay in the trainer's packed vectors, so that optimizer, metrics, averages and
//! checkpoints are the same on every device; a pass takes the weights to the device and brings the gradient back.

use candle_core::{DType, Device, Result, Tensor};
use ergodic_common::config::Loss;
use ergodic_common::net::Net;

use super::net;
use super::net::{BatchNormStatistics, CandleParams, ForwardOutput};
use crate::train::data::ImageBatch;
use crate::train::engine::loss::{LossTally, Objective, argmax};
use crate::train::network::params::ParamLayout;
use crate::train::network::plan;
use crate::train::network::shape::HaloGrid;

/// A device for stock operations, and the numerics class of their results there.
#[derive(Debug, Clone)]
pub struct CandleDevice {
    /// The CUDA device.
    pub device: Device,
    /// The numerics class of its results, such as `cuda-f32/2/sm90/cublas13.1`.
    pub numerics_class: String,
    /// The device in a word, for result rows.
    pub name: &'static str,
}

/// A network on a device.
pub(crate) struct CandleEngine {
    /// The layout of the packed parameters.
    pub(crate) layout: ParamLayout,
    net: Net,
    device: Device,
    objective: Objective,
    /// Images in a pass with a gradient.
    micro_batch: usize,
    /// Mean and unbiased variance of the last training batch before each batch norm.
    batch_statistics: Vec<Vec<(f64, f64)>>,
    /// Logits of the last pass, image after image.
    logits: Vec<f32>,
}

impl CandleEngine {
    pub(crate) fn new(net: &Net, loss: Loss, batch: usize, device: &Device) -> Self {
        Self {
            layout: ParamLayout::new(net, &plan::plan_layers(net)),
            objective: Objective {
                outputs: net.classes,
                loss,
            },
            micro_batch: choose_micro_batch(net, batch),
            net: net.clone(),
            device: device.clone(),
            batch_statistics: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Loss of a batch in training mode, and the gradient of its mean over the batch.
    pub(crate) fn compute_gradient(
        &mut self,
        weights: &[f32],
        source: &ImageBatch<'_>,
        gradient: &mut [f32],
    ) -> Result<LossTally> {
        let params = self.upload_params(weights)?;
        let mut tally = LossTally::default();
        let mut total = Vec::new();

        for part in source.micro_batches(self.micro_batch) {
            let output = net::forward_pass(&self.net, &params, &self.upload_images(&part)?, None)?;
            let share = 1.0 / source.len() as f64;
            let objective =
                net::compute_objective(&output.logits, part.targets(), self.objective.loss, share)?;
            accumulate_gradients(&mut total, net::compute_gradients(&params, &objective)?)?;

            tally.add(self.download_pass(&output, &part)?);
        }

        self.download_gradient(&total, gradient)?;
        Ok(tally)
    }

    /// Losses of a batch under the running statistics.
    pub(crate) fn evaluate_batch(
        &mut self,
        weights: &[f32],
        statistics: &[f32],
        source: &ImageBatch<'_>,
    ) -> Result<LossTally> {
        let running = self.upload_statistics(statistics)?;
        let output = net::forward_pass(
            &self.net,
            &self.upload_params(weights)?,
            &self.upload_images(source)?,
            Some(&running),
        )?;
        self.download_pass(&output, source)
    }

    /// Runs a forward pass over a batch in training mode, for its statistics.
    pub(crate) fn collect_statistics(
        &mut self,
        weights: &[f32],
        source: &ImageBatch<'_>,
    ) -> Result<()> {
        let output = net::forward_pass(
            &self.net,
            &self.upload_params(weights)?,
            &self.upload_images(source)?,
            None,
        )?;
        self.download_pass(&output, source).map(|_| ())
    }

    /// Mean and unbiased variance of the last training batch before a batch norm, counted among those.
    pub(crate) fn batch_statistics(&self, norm: usize) -> impl Iterator<Item = (f64, f64)> {
        self.batch_statistics[norm].iter().copied()
    }

    /// Logits of an image of the last pass.
    #[cfg(test)]
    pub(crate) fn image_logits(&self, image: usize) -> &[f32] {
        &self.logits[image * self.net.classes..][..self.net.classes]
    }

    /// Classes that the last pass predicts for its first images.
    pub(crate) fn predicted_classes(&self, images: usize) -> impl Iterator<Item = u8> {
        self.logits
            .chunks_exact(self.net.classes)
            .take(images)
            .map(|logits| argmax(logits) as u8)
    }

    fn upload_params(&self, packed: &[f32]) -> Result<CandleParams> {
        self.layout
            .params
            .iter()
            .map(|param| {
                let values: Vec<f64> = param.logical_values(packed).map(f64::from).collect();
                net::build_param(&values, 1, DType::F32, &self.device)
            })
            .collect()
    }

    fn upload_statistics(&self, statistics: &[f32]) -> Result<BatchNormStatistics> {
        self.layout
            .unpack_statistics(statistics)
            .into_iter()
            .map(|[mean, variance]| Ok([self.upload_vector(mean)?, self.upload_vector(variance)?]))
            .collect()
    }

    /// Copies numbers to the device as `[1, numbers]`.
    fn upload_vector(&self, numbers: Vec<f32>) -> Result<Tensor> {
        Tensor::from_vec(numbers, (1, ()), &Device::Cpu)?.to_device(&self.device)
    }

    /// Copies images to the device as `[1, batch, height, width, channel]`.
    fn upload_images(&self, source: &ImageBatch<'_>) -> Result<Tensor> {
        let input = self.net.input;
        let mut images = vec![0.0; source.len() * input.len()];
        source.write_images(
            0,
            source.len(),
            &HaloGrid::single_pixel(input.len()),
            &mut images,
        );

        let shape = (1, source.len(), input.height, input.width, input.channels);
        Tensor::from_vec(images, shape, &Device::Cpu)?.to_device(&self.device)
    }

    /// Copies the logits and statistics of a pass from the device; returns its losses.
    fn download_pass(
        &mut self,
        output: &ForwardOutput,
        source: &ImageBatch<'_>,
    ) -> Result<LossTally> {
        self.logits = output.logits.flatten_all()?.to_vec1()?;
        if !output.batch_statistics.is_empty() {
            self.batch_statistics = self
                .net
                .layers
                .iter()
                .filter_map(|l| l.norm?.images_per_set(source.len()).zip(Some(l.output)))
                .map(|(images, output)| (images * output.height * output.width) as f64)
                .zip(&output.batch_statistics)
                .map(|(count, statistics)| unbiased_statistics(statistics, count))
                .collect::<Result<_>>()?;
        }

        Ok(self
            .objective
            .sum_losses(&self.logits, self.net.classes, source.targets()))
    }

    /// Writes the gradients of the trained parameters into the packed vector, and 0 elsewhere.
    fn download_gradient(&self, gradients: &[Tensor], packed: &mut [f32]) -> Result<()> {
        packed.fill(0.0);
        for (param, gradient) in self.layout.params.iter().zip(gradients) {
            if param.param.trained {
                let numbers = gradient.flatten_all()?.to_vec1::<f32>()?;
                numbers
                    .iter()
                    .enumerate()
                    .for_each(|(i, g)| packed[param.packed_position(i)] = *g);
            }
        }

        Ok(())
    }
}

/// Number of images in a pass with a gradient: the whole batch where norms run over several images, also where these are
/// ghost batches, which a pass keeps apart.
fn choose_micro_batch(net: &Net, batch: usize) -> usize {
    if net.has_running_statistics() {
        batch
    } else {
        net.micro_batch_size(batch as u64) as usize
    }
}

/// Mean and unbiased variance of each channel, over `count` values.
fn unbiased_statistics([mean, variance]: &[Tensor; 2], count: f64) -> Result<Vec<(f64, f64)>> {
    let mean = mean.flatten_all()?.to_vec1::<f32>()?;
    let variance = variance.flatten_all()?.to_vec1::<f32>()?;
    Ok(mean
        .into_iter()
        .zip(variance)
        .map(|(m, v)| (f64::from(m), f64::from(v) * count / (count - 1.0).max(1.0)))
        .collect())
}

/// total ← total + part; an empty total becomes the part.
fn accumulate_gradients(total: &mut Vec<Tensor>, part: Vec<Tensor>) -> Result<()> {
    if total.is_empty() {
        *total = part;
        return Ok(());
    }
    total.iter_mut().zip(part).try_for_each(|(sum, part)| {
        *sum = (&*sum + part)?;
        Ok(())
    })
}
