//! Networks on a Candle device, composed of stock operations, whose gradients are Candle's own.
//!
//! Only operations are used whose gradients Candle gets right: convolutions, max-pool, ReLU and the norms are put together
//! from selections, products, sums and comparisons, because Candle's own have a wrong gradient, another convention or none. Every tensor
//! has the lanes in front, `[lane, batch, height, width, channel]`; lanes are independent trainings of one shape, and
//! no operation mixes them.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use ergodic_common::config::{Activation, Loss};
use ergodic_common::dataset::Target;
use ergodic_common::net::{
    ActivationShape, Layer, LinearOp, Net, NormScope, NormSpec, Param, ParamRole, Pool,
};

use crate::train::engine::loss::Objective;

/// Parameters of all lanes: one tensor `[lane, numbers]` for each of [`Net::params`], in logical order.
pub(crate) type CandleParams = Vec<Var>;

/// Running mean and variance of each layer with a batch norm, `[lane, channel]`.
pub(crate) type BatchNormStatistics = Vec<[Tensor; 2]>;

/// The results of a forward pass.
pub(crate) struct ForwardOutput {
    /// Logits, `[lane, batch, class]`.
    pub(crate) logits: Tensor,
    /// Mean and variance over the batch before each batch norm, `[lane, channel]`; of training passes only.
    pub(crate) batch_statistics: BatchNormStatistics,
}

/// The parameters of one layer.
struct LayerParams<'a> {
    /// `None` for a layer without a map.
    weight: Option<&'a Tensor>,
    bias: Option<&'a Tensor>,
    scale: Option<&'a Tensor>,
    shift: Option<&'a Tensor>,
}

impl<'a> LayerParams<'a> {
    /// The parameters of layer `at`, among those that `described` describes in the same order.
    fn find_in(described: &[Param], params: &'a CandleParams, at: usize) -> Self {
        Self {
            weight: find_param(described, params, at, ParamRole::Weight),
            bias: find_param(described, params, at, ParamRole::Bias),
            scale: find_param(described, params, at, ParamRole::NormScale),
            shift: find_param(described, params, at, ParamRole::NormShift),
        }
    }
}

/// The parameter with this role in a layer, if it has one.
fn find_param<'a>(
    described: &[Param],
    params: &'a CandleParams,
    layer: usize,
    role: ParamRole,
) -> Option<&'a Tensor> {
    let at = described
        .iter()
        .position(|p| p.layer == layer && p.role == role)?;
    Some(params[at].as_tensor())
}

/// Runs images `[lane, batch, height, width, channel]` through the network. With running statistics
/// it is in evaluation mode.
pub(crate) fn forward_pass(
    net: &Net,
    params: &CandleParams,
    images: &Tensor,
    running: Option<&BatchNormStatistics>,
) -> Result<ForwardOutput> {
    let described = net.params();
    let mut batch_statistics = Vec::new();
    let mut running = running.map(|all| all.iter());
    let mut sums: Vec<Tensor> = Vec::new();
    let mut activations: Vec<Tensor> = Vec::new();

    for (at, layer) in net.layers.iter().enumerate() {
        let params = LayerParams::find_in(&described, params, at);
        let input = layer.source.map_or(images, |source| &activations[source]);
        let mut x = match params.weight {
            Some(weight) => apply_linear_op(layer, input, weight)?,
            None => input.clone(),
        };
        if let Some(bias) = params.bias {
            x = x.broadcast_add(&per_channel(bias)?)?;
        }
        if let Some(added) = layer.add {
            x = (x + &sums[added])?;
        }

        sums.push(x.clone());
        if let Some(norm) = layer.norm {
            x = apply_norm(&x, norm, &mut running, &mut batch_statistics)?;
            x = scale_and_shift(x, &params)?;
        }

        activations.push(apply_pool(layer.pool, activate(layer.activation, x)?)?);
    }

    let logits = activations.last().expect("a network has a head");
    let (lanes, batch, ..) = logits.dims5()?;
    Ok(ForwardOutput {
        logits: logits.reshape((lanes, batch, net.classes))?,
        batch_statistics,
    })
}

/// Normalizes z, with the next running statistics for a batch norm in evaluation mode; in training mode, the batch's
/// statistics are added to `batch_statistics`.
fn apply_norm<'a>(
    x: &Tensor,
    norm: NormSpec,
    running: &mut Option<impl Iterator<Item = &'a [Tensor; 2]>>,
    batch_statistics: &mut BatchNormStatistics,
) -> Result<Tensor> {
    match norm.scope {
        NormScope::Groups(groups) => group_norm(x, groups, norm.eps),
        NormScope::Batch | NormScope::GhostBatch(_) => {
            let stored = running
                .as_mut()
                .map(|all| all.next().expect("statistics of every batch norm"));
            let (normed, of_batch) = batch_norm(x, norm, stored)?;
            batch_statistics.extend(of_batch);
            Ok(normed)
        }
    }
}

/// Returns scale·x + shift, or x if the layer has neither.
fn scale_and_shift(x: Tensor, params: &LayerParams<'_>) -> Result<Tensor> {
    match (params.scale, params.shift) {
        (Some(scale), Some(shift)) => x
            .broadcast_mul(&per_channel(scale)?)?
            .broadcast_add(&per_channel(shift)?),
        _ => Ok(x),
    }
}

/// Reshapes `[lane, channel]` so that it broadcasts over images.
fn per_channel(x: &Tensor) -> Result<Tensor> {
    let (lanes, channels) = x.dims2()?;
    x.reshape((lanes, 1, 1, 1, channels))
}

/// A layer's map with a weight per lane.
pub(crate) fn apply_linear_op(layer: &Layer, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let outputs = layer.output.channels;
    let (lanes, batch, ..) = x.dims5()?;

    match layer.linear_op {
        LinearOp::Identity => Ok(x.clone()),
        LinearOp::Linear => {
            let weight = weight.reshape((lanes, layer.fan_in(), outputs))?;
            let y = x.reshape((lanes, batch, layer.fan_in()))?.matmul(&weight)?;
            y.reshape((lanes, batch, 1, 1, outputs))
        }
        LinearOp::Conv { .. } => {
            let pixels = batch * layer.output.height * layer.output.width;
            let patches = extract_patches(layer, x)?.reshape((lanes, pixels, layer.fan_in()))?;
            let y = patches.matmul(&weight.reshape((lanes, layer.fan_in(), outputs))?)?;
            y.reshape((
                lanes,
                batch,
                layer.output.height,
                layer.output.width,
                outputs,
            ))
        }
    }
}

/// The inputs that each output pixel of a convolution reads, `[image, output pixel and kernel pixel, channel]`. Candle's own
/// convolution has no lanes, and a wrong gradient for images that are not square.
fn extract_patches(layer: &Layer, x: &Tensor) -> Result<Tensor> {
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let flat = x.reshape((lanes * batch, height * width, channels))?;
    // Appends one black pixel to each image; kernel pixels outside the image read it.
    let outside = Tensor::zeros((lanes * batch, 1, channels), x.dtype(), x.device())?;
    let indices = patch_pixel_indices(layer);
    let count = indices.len();
    let indices = Tensor::from_vec(indices, count, x.device())?;
    Tensor::cat(&[&flat, &outside], 1)?.index_select(&indices, 1)
}

/// The input pixel under every kernel pixel of every output pixel, in this order.
fn patch_pixel_indices(layer: &Layer) -> Vec<u32> {
    let LinearOp::Conv {
        kernel,
        stride,
        padding,
    } = layer.linear_op
    else {
        return Vec::new();
    };

    let ActivationShape { height, width, .. } = layer.input;
    let mut indices =
        Vec::with_capacity(layer.output.height * layer.output.width * kernel * kernel);

    for (y, x) in pixel_coordinates(layer.output.height, layer.output.width) {
        for (ky, kx) in pixel_coordinates(kernel, kernel) {
            let y = (y * stride + ky)
                .checked_sub(padding)
                .filter(|y| *y < height);
            let x = (x * stride + kx)
                .checked_sub(padding)
                .filter(|x| *x < width);
            let index = y.zip(x).map_or(height * width, |(y, x)| y * width + x);
            indices.push(index as u32);
        }
    }

    indices
}

fn pixel_coordinates(height: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)))
}

/// Applies the function that follows a layer's norm.
fn activate(activation: Activation, x: Tensor) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(x),
        Activation::Relu => relu(&x),
        Activation::LeakyRelu => {
            let slope = Activation::LEAKY_SLOPE;
            let slopes = is_positive(&x)?.affine(1.0 - slope, slope)?;
            x * slopes
        }
        Activation::Tanh => Tensor::tanh(&x),
        Activation::Gelu => {
            let twice = (&x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?;
            x * twice.affine(0.5, 0.5)?
        }
        Activation::Silu => {
            // The logistic function: e⁻ˣ might be infinite, and its gradient no number.
            let twice = Tensor::tanh(&(&x * 0.5)?)?;
            x * twice.affine(0.5, 0.5)?
        }
        Activation::Softplus => {
            let size = (&x * is_positive(&x)?.affine(2.0, -1.0)?)?;
            relu(&x)? + Tensor::exp(&size.neg()?)?.affine(1.0, 1.0)?.log()?
        }
    }
}

/// Returns 1 where x is above 0, and 0 elsewhere.
fn is_positive(x: &Tensor) -> Result<Tensor> {
    x.gt(0.0)?.to_dtype(x.dtype())
}

/// Returns x where it is above 0, and 0 elsewhere. The slope at 0 is 0.
fn relu(x: &Tensor) -> Result<Tensor> {
    x * is_positive(x)?
}

/// Returns (x − mean)/√(variance + ε), and 0 where that is 0/0.
fn scale_to_unit_variance(centred: &Tensor, variance: &Tensor, eps: f64) -> Result<Tensor> {
    let square = (variance + eps)?;
    let some = square.ne(0.0)?.to_dtype(square.dtype())?;
    let none = (1.0 - &some)?;
    centred.broadcast_mul(&(some / (square + none)?.sqrt()?)?)
}

/// Normalizes over the batch, or over each ghost batch, or by running statistics if there are any.
/// Returns the statistics of the batch as well.
fn batch_norm(
    x: &Tensor,
    norm: NormSpec,
    running: Option<&[Tensor; 2]>,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let in_set = norm.images_per_set(batch).filter(|_| running.is_none());
    let sets = batch / in_set.unwrap_or(batch);
    let flat = x.reshape((lanes * sets, batch / sets * height * width, channels))?;
    let (mean, variance, of_batch) = match running {
        Some([mean, variance]) => (mean.unsqueeze(1)?, variance.unsqueeze(1)?, None),
        None => {
            let mean = flat.mean_keepdim(1)?;
            let variance = flat.broadcast_sub(&mean)?.sqr()?.mean_keepdim(1)?;
            let of_batch = [
                mean_over_sets(&mean, lanes)?.detach(),
                mean_over_sets(&variance, lanes)?.detach(),
            ];
            (mean, variance, Some(of_batch))
        }
    };
    let normed = scale_to_unit_variance(&flat.broadcast_sub(&mean)?, &variance, norm.eps)?;

    Ok((normed.reshape(x.shape())?, of_batch))
}

/// The mean over each lane's ghost batches of `[lane and ghost batch, 1, channel]`, `[lane, channel]`.
fn mean_over_sets(x: &Tensor, lanes: usize) -> Result<Tensor> {
    let (all, _, channels) = x.dims3()?;
    if all == lanes {
        return x.squeeze(1);
    }
    x.reshape((lanes, all / lanes, channels))?.mean(1)
}

/// Normalizes over each image and group of channels.
fn group_norm(x: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let pixels = height * width;
    let within = channels / groups;
    let by_group = x
        .reshape((lanes * batch, pixels, groups, within))?
        .transpose(1, 2)?
        .contiguous()?;
    let flat = by_group.reshape((lanes * batch * groups, pixels * within))?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(1)?)?;
    let variance = centred.sqr()?.mean_keepdim(1)?;
    let normed = scale_to_unit_variance(&centred, &variance, eps)?.reshape((
        lanes * batch,
        groups,
        pixels,
        within,
    ))?;

    normed.transpose(1, 2)?.contiguous()?.reshape(x.shape())
}

/// Pools activations `[lane, batch, height, width, channel]`.
fn apply_pool(pool: Pool, x: Tensor) -> Result<Tensor> {
    match pool {
        Pool::None => Ok(x),
        Pool::Average => {
            let (lanes, batch, height, width, channels) = x.dims5()?;
            let flat = x.reshape((lanes, batch, height * width, channels))?;
            flat.mean_keepdim(2)?
                .reshape((lanes, batch, 1, 1, channels))
        }
        Pool::Average2 => average_pool(&x),
        Pool::Max2 => max_pool(&x),
    }
}

/// The mean of every 2×2 pixels.
fn average_pool(x: &Tensor) -> Result<Tensor> {
    let [first, rest @ ..] = window_pixels(x)?;
    rest.iter().try_fold(first, |sum, x| sum + x)? * 0.25
}

/// The maximum of every 2×2 pixels; the gradient goes to the first of equal ones.
fn max_pool(x: &Tensor) -> Result<Tensor> {
    let [mut largest, rest @ ..] = window_pixels(x)?;
    for other in rest {
        let take = other.gt(&largest)?.to_dtype(other.dtype())?;
        largest = ((&largest * (1.0 - &take)?)? + (other * take)?)?;
    }

    Ok(largest)
}

/// The pixels of every window of 2×2, first to last. An odd last row or column is in none.
fn window_pixels(x: &Tensor) -> Result<[Tensor; 4]> {
    let (lanes, batch, height, width, channels) = x.dims5()?;
    let rows = height / 2;
    let columns = width / 2;
    let cells = x
        .narrow(2, 0, 2 * rows)?
        .narrow(3, 0, 2 * columns)?
        .contiguous()?
        .reshape(vec![lanes * batch, rows, 2, columns, 2, channels])?;

    let shape = (lanes, batch, rows, columns, channels);
    let pixel = |y, x| cells.narrow(2, y, 1)?.narrow(4, x, 1)?.reshape(shape);
    Ok([pixel(0, 0)?, pixel(0, 1)?, pixel(1, 0)?, pixel(1, 1)?])
}

/// `share` times the sum of the losses of each lane's images, `[lane]`; labels or targets lane after lane.
pub(crate) fn compute_objective<'a>(
    logits: &Tensor,
    targets: impl Iterator<Item = Target<'a>>,
    loss: Loss,
    share: f64,
) -> Result<Tensor> {
    let (lanes, batch, outputs) = logits.dims3()?;
    let objective = Objective { outputs, loss };
    let numbers: Vec<f64> = targets
        .flat_map(|target| objective.target_numbers(target))
        .collect();

    let targets = Tensor::from_vec(numbers, (lanes, batch, outputs), &Device::Cpu)?;
    let targets = targets
        .to_dtype(logits.dtype())?
        .to_device(logits.device())?;
    let losses = match loss {
        Loss::Mse => ((logits - targets)?.sqr()? * (share / outputs as f64))?,
        // `softmax_last_dim` has no gradient in Candle.
        Loss::CrossEntropy { .. } => {
            (candle_nn::ops::log_softmax(logits, D::Minus1)? * targets)?.affine(-share, 0.0)?
        }
    };

    losses.reshape((lanes, batch * outputs))?.sum(1)
}

/// The gradient of the sum over lanes, for each of the parameters, `[lane, numbers]`. Since no operation mixes lanes, each
/// lane's is its own.
pub(crate) fn compute_gradients(params: &CandleParams, objective: &Tensor) -> Result<Vec<Tensor>> {
    let gradients = objective.sum_all()?.backward()?;
    params
        .iter()
        .map(|var| {
            gradients
                .get(var.as_tensor())
                .cloned()
                .map_or_else(|| var.as_tensor().zeros_like(), Ok)
        })
        .collect()
}

/// Numbers of all lanes as a parameter.
pub(crate) fn build_param(
    numbers: &[f64],
    lanes: usize,
    dtype: DType,
    device: &Device,
) -> Result<Var> {
    let tensor = Tensor::from_slice(numbers, (lanes, numbers.len() / lanes), &Device::Cpu)?;
    Var::from_tensor(&tensor.to_dtype(dtype)?.to_device(device)?)
}
