//! A worker with experiments of its own: a small transformer that learns to write out sums of two digits, letter by letter, and a
//! perceptron that learns images.
//!
//! `docs/src/your-own-code.md` explains it, and `sweeps/experiments` has a sweep of each.

mod perceptron;

use std::process::ExitCode;

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops::{log_softmax, softmax};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use ergodic_worker::experiment::{Experiment, Metrics, TrialContext, TrialError};
use ergodic_worker::random_streams::{Purpose, RandomStream};
use schemars::JsonSchema;
use serde::Deserialize;

/// The letters of the texts.
const ALPHABET: &[u8] = b"0123456789+=.";
/// Letters of a text: `3+8=11.`, filled up with full stops.
const LENGTH: usize = 8;
/// Texts of which the loss at the end is the mean.
const TESTED: usize = 64;

/// The keys of `[model]` and the axes of `[grid]`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Learning rate after the warm-up.
    lr: f64,
    /// Factor of the initial weights.
    init_scale: f64,
    /// Numbers per letter.
    width: usize,
    /// Blocks of attention and perceptron.
    depth: usize,
    /// Steps of the optimizer.
    steps: u64,
    /// Texts per step.
    #[serde(default = "default_batch")]
    batch: usize,
}

fn default_batch() -> usize {
    16
}

struct CharTransformer;

impl Experiment for CharTransformer {
    const NAME: &'static str = "char-transformer";
    const VERSION: u32 = 1;
    type Config = Config;

    fn declare_metrics() -> Metrics {
        Metrics::default().min("train_loss").min("test_loss")
    }

    fn run(config: Config, trial: &mut TrialContext<'_>) -> std::result::Result<(), TrialError> {
        let net = Net::new(&config, trial)?;
        let params = ParamsAdamW {
            lr: 0.0,
            ..ParamsAdamW::default()
        };
        let mut optimizer = AdamW::new(net.all(), params)?;

        for step in 1..=config.steps {
            let warm = (step as f64 / (0.1 * config.steps as f64)).min(1.0);
            optimizer.set_learning_rate(config.lr * warm);
            let mut random = trial.rng(Purpose::Order, &step.to_string());
            let loss = net.loss(&draw_texts(&mut random, config.batch)?)?;
            optimizer.backward_step(&loss)?;
            if step % 10 == 0 || step == config.steps {
                trial.report(step, &[("train_loss", number(&loss)?)])?;
            }
        }

        let mut random = trial.rng(Purpose::Probe, "texts");
        let loss = net.loss(&draw_texts(&mut random, TESTED)?)?;
        trial.report(config.steps, &[("test_loss", number(&loss)?)])
    }
}

fn number(loss: &Tensor) -> Result<f64> {
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

/// Random sums as numbers of letters, one text a row.
fn draw_texts(random: &mut RandomStream, count: usize) -> Result<Tensor> {
    let mut letters = Vec::with_capacity(count * LENGTH);
    for _ in 0..count {
        let (a, b) = (random.next_below(10), random.next_below(10));
        let text = format!("{a}+{b}={}.......", a + b);
        let find = |letter: u8| ALPHABET.iter().position(|known| *known == letter);
        letters.extend(
            text.bytes()
                .take(LENGTH)
                .map(|l| find(l).unwrap_or(0) as u32),
        );
    }
    Tensor::from_vec(letters, (count, LENGTH), &Device::Cpu)
}

/// A transformer with one head, whose norms have no parameters.
struct Net {
    letters: Var,
    places: Var,
    blocks: Vec<Block>,
    head: Var,
    /// Zero for letters that may be seen, and minus a lot for those that come later.
    mask: Tensor,
}

struct Block {
    query: Var,
    key: Var,
    value: Var,
    mix: Var,
    widen: Var,
    narrow: Var,
}

impl Net {
    fn new(config: &Config, trial: &TrialContext<'_>) -> Result<Self> {
        let width = config.width;
        let draw = |purpose: Purpose, name: &str, rows: usize, columns: usize| {
            let mut random = trial.rng(purpose, name);
            let factor = config.init_scale / (rows as f64).sqrt();
            let mut weight = || (factor * random.next_normal()) as f32;
            let weights: Vec<f32> = (0..rows * columns).map(|_| weight()).collect();
            Var::from_vec(weights, (rows, columns), &Device::Cpu)
        };
        let init = |name: &str, rows, columns| draw(Purpose::Init, name, rows, columns);
        let block = |at: usize| -> Result<Block> {
            Ok(Block {
                query: init(&format!("query {at}"), width, width)?,
                key: init(&format!("key {at}"), width, width)?,
                value: init(&format!("value {at}"), width, width)?,
                mix: init(&format!("mix {at}"), width, width)?,
                widen: init(&format!("widen {at}"), width, 4 * width)?,
                narrow: init(&format!("narrow {at}"), 4 * width, width)?,
            })
        };
        let later = |i: usize| (0..LENGTH - 1).map(move |j| if j > i { -1e9_f32 } else { 0.0 });
        let mask: Vec<f32> = (0..LENGTH - 1).flat_map(later).collect();
        Ok(Self {
            letters: init("letters", ALPHABET.len(), width)?,
            places: init("places", LENGTH - 1, width)?,
            blocks: (0..config.depth).map(block).collect::<Result<_>>()?,
            head: draw(Purpose::Head, "head", width, ALPHABET.len())?,
            mask: Tensor::from_vec(mask, (LENGTH - 1, LENGTH - 1), &Device::Cpu)?,
        })
    }

    /// The weights, for the optimizer.
    fn all(&self) -> Vec<Var> {
        let of_block =
            |b: &Block| [&b.query, &b.key, &b.value, &b.mix, &b.widen, &b.narrow].map(Var::clone);
        let blocks = self.blocks.iter().flat_map(of_block);
        let ends = [&self.letters, &self.places, &self.head].map(Var::clone);
        blocks.chain(ends).collect()
    }

    /// The mean loss of the next letter.
    fn loss(&self, texts: &Tensor) -> Result<Tensor> {
        let (count, _) = texts.dims2()?;
        let seen = texts.narrow(1, 0, LENGTH - 1)?.contiguous()?;
        let next = texts
            .narrow(1, 1, LENGTH - 1)?
            .contiguous()?
            .flatten_all()?;
        let letters = self.letters.index_select(&seen.flatten_all()?, 0)?;
        let mut x = letters
            .reshape((count, LENGTH - 1, ()))?
            .broadcast_add(&self.places)?;
        for block in &self.blocks {
            x = block.forward(&x, &self.mask)?;
        }

        let logits = normalize(&x)?.flatten_to(1)?.matmul(&self.head)?;
        let losses = log_softmax(&logits, D::Minus1)?.gather(&next.unsqueeze(1)?, 1)?;
        losses.mean_all()?.neg()
    }
}

impl Block {
    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let normed = normalize(x)?;
        let query = normed.broadcast_matmul(&self.query)?;
        let key = normed.broadcast_matmul(&self.key)?;
        let value = normed.broadcast_matmul(&self.value)?;
        let share = 1.0 / (x.dim(D::Minus1)? as f64).sqrt();
        let scores = (query.matmul(&key.t()?.contiguous()?)? * share)?.broadcast_add(mask)?;
        let seen = softmax(&scores, D::Minus1)?.matmul(&value)?;
        let x = (x + seen.broadcast_matmul(&self.mix)?)?;

        let wide = normalize(&x)?.broadcast_matmul(&self.widen)?.relu()?;
        &x + wide.broadcast_matmul(&self.narrow)?
    }
}

/// Layer norm, of operations that have gradients.
fn normalize(x: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + 1e-5)?.sqrt()?)
}

fn main() -> ExitCode {
    ergodic_worker::main(ergodic_worker::experiments![
        CharTransformer,
        perceptron::Perceptron
    ])
}
