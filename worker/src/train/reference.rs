//! The same networks in plain Candle, with its autograd, in f64: what the fast path must agree with.
//!
//! Only operations whose gradient Candle gets right are used; batch norm and ReLU are composed of them, log-softmax is candle-nn's.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use ergodic_common::config::Loss;
use ergodic_common::net::{Layer, Map, Net, Over, Pool, Role};

/// Parameters in logical order, one vector per tensor.
pub(super) type Parameters = Vec<Vec<f64>>;

/// A batch: images `[n, height, width, channels]` and labels.
pub(super) struct Batch {
    pub(super) images: Vec<f64>,
    pub(super) labels: Vec<u8>,
}

/// Mean cross-entropy of a batch in training mode, its gradient, and mean and unbiased variance before each norm.
pub(super) struct Outcome {
    pub(super) loss: f64,
    pub(super) gradient: Parameters,
    pub(super) statistics: Vec<(Vec<f64>, Vec<f64>)>,
}

/// Forward and backward pass by Candle.
pub(super) fn pass(net: &Net, parameters: &Parameters, batch: &Batch, loss: Loss) -> Result<Outcome> {
    let mut vars = Vec::new();
    for (param, values) in net.params().iter().zip(parameters) {
        vars.push((param.clone(), Var::from_vec(values.clone(), values.len(), &Device::Cpu)?));
    }
    let get = |layer: usize, role: Role| -> Option<&Tensor> {
        vars.iter().find(|(p, _)| p.layer == layer && p.role == role).map(|(_, v)| v.as_tensor())
    };
    let n = batch.labels.len();
    let shape = (n, net.input.height, net.input.width, net.input.channels);
    let image = Tensor::from_slice(&batch.images, shape, &Device::Cpu)?;
    let mut statistics = Vec::new();
    let mut sums: Vec<Tensor> = Vec::new();
    let mut activations: Vec<Tensor> = Vec::new();
    for (at, layer) in net.layers.iter().enumerate() {
        let weight = get(at, Role::Weight).expect("every layer has a weight");
        let mut x = map(layer, layer.source.map_or(&image, |source| &activations[source]), weight)?;
        if let Some(bias) = get(at, Role::Bias) {
            x = x.broadcast_add(bias)?;
        }
        if let Some(added) = layer.add {
            x = (x + &sums[added])?;
        }
        sums.push(x.clone());
        if let Some(norm) = layer.norm {
            x = match norm.over {
                Over::Groups(groups) => group_norm(&x, groups, norm.eps)?,
                Over::Batch => {
                    let (normed, mean, variance) = batch_norm(&x, norm.eps)?;
                    let count = (n * layer.output.height * layer.output.width) as f64;
                    statistics.push((mean, variance.iter().map(|v| v * count / (count - 1.0)).collect()));
                    normed
                }
            };
            if let (Some(scale), Some(shift)) = (get(at, Role::NormScale), get(at, Role::NormShift)) {
                x = x.broadcast_mul(scale)?.broadcast_add(shift)?;
            }
        }
        if layer.relu {
            let open = x.gt(0.0)?.to_dtype(DType::F64)?;
            x = (x * open)?;
        }
        activations.push(pool(layer.pool, x)?);
    }
    let logits = activations.last().expect("a network has a head");
    let loss = objective(&logits.reshape((n, net.classes))?, &batch.labels, loss)?;
    let gradients = loss.backward()?;
    let mut gradient = Vec::new();
    for (_, var) in &vars {
        gradient.push(gradients.get(var.as_tensor()).expect("every parameter takes part").to_vec1()?);
    }
    Ok(Outcome { loss: loss.to_scalar()?, gradient, statistics })
}

fn map(layer: &Layer, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (inputs, outputs) = (layer.input.channels, layer.output.channels);
    match layer.map {
        Map::Linear => {
            let n = x.dim(0)?;
            let y = x.reshape((n, layer.fan_in()))?.matmul(&weight.reshape((layer.fan_in(), outputs))?)?;
            y.reshape((n, 1, 1, outputs))
        }
        Map::Conv { kernel, stride, padding } => {
            let kernel = weight.reshape((kernel, kernel, inputs, outputs))?.permute((3, 2, 0, 1))?.contiguous()?;
            let x = x.permute((0, 3, 1, 2))?.contiguous()?;
            x.conv2d(&kernel, padding, stride, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
        }
    }
}

fn batch_norm(x: &Tensor, eps: f64) -> Result<(Tensor, Vec<f64>, Vec<f64>)> {
    let channels = x.dim(D::Minus1)?;
    let flat = x.reshape(((), channels))?;
    let mean = flat.mean_keepdim(0)?;
    let centred = flat.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim(0)?;
    let y = centred.broadcast_div(&(&variance + eps)?.sqrt()?)?.reshape(x.shape())?;
    Ok((y, mean.flatten_all()?.to_vec1()?, variance.flatten_all()?.to_vec1()?))
}

fn group_norm(x: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let flat = x.reshape((n, h * w, groups, c / groups))?.transpose(1, 2)?.contiguous()?.reshape((n * groups, ()))?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(1)?)?;
    let variance = centred.sqr()?.mean_keepdim(1)?;
    let y = centred.broadcast_div(&(&variance + eps)?.sqrt()?)?;
    y.reshape((n, groups, h * w, c / groups))?.transpose(1, 2)?.contiguous()?.reshape((n, h, w, c))
}

/// Composed of narrows and products: the gradients of Candle's own pools and of its max are wrong.
fn pool(pool: Pool, x: Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    match pool {
        Pool::None => Ok(x),
        Pool::Average => x.reshape((n, h * w, c))?.mean_keepdim(1)?.reshape((n, 1, 1, c)),
        Pool::Max2 => {
            let cut = x.narrow(1, 0, h / 2 * 2)?.narrow(2, 0, w / 2 * 2)?.contiguous()?;
            let cells = cut.reshape(vec![n, h / 2, 2, w / 2, 2, c])?;
            let member = |y: usize, x: usize| cells.narrow(2, y, 1)?.narrow(4, x, 1)?.reshape((n, h / 2, w / 2, c));
            let mut largest = member(0, 0)?;
            for (y, x) in [(0, 1), (1, 0), (1, 1)] {
                let other = member(y, x)?;
                let take = other.gt(&largest)?.to_dtype(DType::F64)?;
                largest = ((&largest * (1.0 - &take)?)? + (other * take)?)?;
            }
            Ok(largest)
        }
    }
}

fn objective(logits: &Tensor, labels: &[u8], loss: Loss) -> Result<Tensor> {
    let (n, classes) = logits.dims2()?;
    let smoothing = if let Loss::CrossEntropy { smoothing } = loss { smoothing } else { 0.0 };
    let mut targets = vec![smoothing / classes as f64; n * classes];
    for (i, label) in labels.iter().enumerate() {
        targets[i * classes + usize::from(*label)] += 1.0 - smoothing;
    }
    let targets = Tensor::from_vec(targets, (n, classes), &Device::Cpu)?;
    if loss == Loss::Mse {
        return (logits - targets)?.sqr()?.mean_all();
    }
    // Not `softmax_last_dim`, which has no gradient.
    let log = candle_nn::ops::log_softmax(logits, 1)?;
    (log * targets)?.sum_all()? / -(n as f64)
}
