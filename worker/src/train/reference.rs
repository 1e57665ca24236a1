//! The same networks in plain Candle, with its autograd, in f64: what the fast path must agree with.
//!
//! Only operations whose gradient Candle gets right are used; batch norm and ReLU are composed of them, log-softmax is candle-nn's.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use ergodic_common::net::{Layer, Map, Net, Role};

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
pub(super) fn pass(net: &Net, parameters: &Parameters, batch: &Batch, smoothing: f64) -> Result<Outcome> {
    let mut vars = Vec::new();
    for (param, values) in net.params().iter().zip(parameters) {
        vars.push((param.clone(), Var::from_vec(values.clone(), values.len(), &Device::Cpu)?));
    }
    let get = |layer: usize, role: Role| -> Option<&Tensor> {
        vars.iter().find(|(p, _)| p.layer == layer && p.role == role).map(|(_, v)| v.as_tensor())
    };
    let n = batch.labels.len();
    let shape = (n, net.input.height, net.input.width, net.input.channels);
    let mut x = Tensor::from_slice(&batch.images, shape, &Device::Cpu)?;
    let mut statistics = Vec::new();
    for (at, layer) in net.layers.iter().enumerate() {
        let weight = get(at, Role::Weight).expect("every layer has a weight");
        x = map(layer, &x, weight)?;
        if let Some(bias) = get(at, Role::Bias) {
            x = x.broadcast_add(bias)?;
        }
        if let Some(norm) = layer.norm {
            let (normed, mean, variance) = batch_norm(&x, norm.eps)?;
            x = normed;
            let count = (n * layer.output.height * layer.output.width) as f64;
            statistics.push((mean, variance.iter().map(|v| v * count / (count - 1.0)).collect()));
            if let (Some(scale), Some(shift)) = (get(at, Role::NormScale), get(at, Role::NormShift)) {
                x = x.broadcast_mul(scale)?.broadcast_add(shift)?;
            }
        }
        if layer.relu {
            let open = x.gt(0.0)?.to_dtype(DType::F64)?;
            x = (x * open)?;
        }
    }
    let loss = cross_entropy(&x.reshape((n, net.classes))?, &batch.labels, smoothing)?;
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

fn cross_entropy(logits: &Tensor, labels: &[u8], smoothing: f64) -> Result<Tensor> {
    let (n, classes) = logits.dims2()?;
    // Not `softmax_last_dim`, which has no gradient.
    let log = candle_nn::ops::log_softmax(logits, 1)?;
    let mut targets = vec![smoothing / classes as f64; n * classes];
    for (i, label) in labels.iter().enumerate() {
        targets[i * classes + usize::from(*label)] += 1.0 - smoothing;
    }
    let targets = Tensor::from_vec(targets, (n, classes), &Device::Cpu)?;
    (log * targets)?.sum_all()? / -(n as f64)
}
