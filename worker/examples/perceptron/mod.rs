//! A perceptron with one hidden layer, which learns the dataset that its sweep file names.
//!
//! `sweeps/experiments/perceptron.toml` is a sweep of it.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::loss::cross_entropy;
use candle_nn::optim::{Optimizer, SGD};
use ergodic_worker::experiment::{Experiment, Metrics, TrialContext, TrialError};
use ergodic_worker::random_streams::Purpose;
use schemars::JsonSchema;
use serde::Deserialize;

/// The keys of `[model]` and the axes of `[grid]`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Learning rate.
    lr: f64,
    /// Numbers of the hidden layer.
    #[schemars(range(min = 1))]
    width: usize,
    /// Passes over the training images.
    epochs: u64,
    /// Images per step.
    #[schemars(range(min = 1))]
    batch: usize,
}

pub(crate) struct Perceptron;

impl Experiment for Perceptron {
    const NAME: &'static str = "perceptron";
    const VERSION: u32 = 1;
    const NEEDS_DATA: bool = true;
    type Config = Config;

    fn declare_metrics() -> Metrics {
        Metrics::default().max("test_acc").min("train_loss")
    }

    fn run(config: Config, trial: &mut TrialContext<'_>) -> std::result::Result<(), TrialError> {
        let data = trial.data()?;
        let x_train = data.x_train.flatten_from(1)?;
        let x_test = data.x_test.flatten_from(1)?;
        let (images, pixels) = x_train.dims2()?;
        if config.batch > images {
            let why = format!(
                "a batch of {} is larger than the {images} training images",
                config.batch
            );
            return Err(TrialError::failed(why));
        }

        let net = Net {
            hidden: draw_weights(trial, Purpose::Init, (pixels, config.width))?,
            head: draw_weights(trial, Purpose::Head, (config.width, data.classes))?,
        };
        let weights = [&net.hidden, &net.head].map(Var::clone);
        let mut optimizer = SGD::new(weights.to_vec(), config.lr)?;

        let mut step = 0;
        for epoch in 1..=config.epochs {
            let mut order: Vec<u32> = (0..images as u32).collect();
            trial
                .rng(Purpose::Order, &epoch.to_string())
                .shuffle(&mut order);
            let mut sum = 0.0;
            let batches = order.chunks_exact(config.batch);
            let count = batches.len();
            for batch in batches {
                let rows = Tensor::new(batch, &Device::Cpu)?;
                let logits = net.forward(&x_train.index_select(&rows, 0)?)?;
                let loss = cross_entropy(&logits, &data.y_train.index_select(&rows, 0)?)?;
                optimizer.backward_step(&loss)?;
                sum += f64::from(loss.to_scalar::<f32>()?);
                step += 1;
            }

            let accuracy = measure_accuracy(&net.forward(&x_test)?, &data.y_test)?;
            let loss = sum / count as f64;
            trial.report(step, &[("test_acc", accuracy), ("train_loss", loss)])?;
        }
        Ok(())
    }
}

/// The weights of two layers without biases.
struct Net {
    hidden: Var,
    head: Var,
}

impl Net {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.hidden)?.relu()?.matmul(&self.head)
    }
}

/// Normal weights of the variance 2 / rows.
fn draw_weights(trial: &TrialContext<'_>, purpose: Purpose, shape: (usize, usize)) -> Result<Var> {
    let mut random = trial.rng(purpose, "weights");
    let (rows, columns) = shape;
    let deviation = (2.0 / rows as f64).sqrt();
    let mut weight = || (deviation * random.next_normal()) as f32;
    let weights: Vec<f32> = (0..rows * columns).map(|_| weight()).collect();
    Var::from_vec(weights, shape, &Device::Cpu)
}

/// The share of images whose largest output is that of their label.
fn measure_accuracy(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    let right = logits.argmax(D::Minus1)?.eq(labels)?;
    let share = right.to_dtype(DType::F64)?.mean_all()?;
    share.to_scalar::<f64>()
}
