//! Whole trials: start, steps, samples, and what is left of them.

use super::backward::{PlainBatch, PlainGradient, compute_gradient};
use super::data::{
    PlainImages, PlainOrder, build_input_table, choose_batch, choose_subset, draw_images,
    write_inputs,
};
use super::forward::{PlainMode, PlainModel, run_forward};
use super::loss::{LossSums, PlainAnswer, PlainLoss, compute_image_loss};
use super::nets::PlainNet;
use super::optimizers::{OptimizerNumbers, PlainRule, ascend_weights, clip_gradient};
use super::params::{
    ParamRole, PlainNumbers, PlainParam, PlainRanges, PlainStatistics, compute_digest,
    draw_initial_numbers, initial_statistics, list_params, square_norm, sum_over_ranges,
};
use super::streams::{PlainStream, ZigguratTable};

/// Everything that decides a trial.
pub(super) struct PlainTrial {
    pub(super) seed: u64,
    pub(super) net: PlainNet,
    pub(super) train: PlainImages,
    pub(super) test: PlainImages,
    /// Images of the two parts that are used.
    pub(super) used: (usize, usize),
    pub(super) order: PlainOrder,
    pub(super) batch: usize,
    pub(super) steps: usize,
    pub(super) loss: PlainLoss,
    pub(super) rule: PlainRule,
    /// Images and pairs of added noise.
    pub(super) noise: Option<(usize, usize)>,
    pub(super) sample_every: usize,
}

/// What the fingerprint of a trial is of.
#[derive(Default)]
pub(super) struct PlainResult {
    pub(super) digest: [u8; 32],
    pub(super) steps: Vec<u64>,
    pub(super) samples: Vec<Vec<f64>>,
}

impl PlainResult {
    /// A hash of steps, digest, last values and all values of a completed trial.
    pub(super) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("Completed {:?}", self.steps).as_bytes());
        hasher.update(&self.digest);
        for sample in self.samples.last().into_iter().chain(&self.samples) {
            for value in sample {
                hasher.update(&value.to_bits().to_le_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// What does not change while a trial runs.
struct TrialSetup<'a> {
    trial: &'a PlainTrial,
    params: Vec<PlainParam>,
    tables: Vec<[f32; 256]>,
    subset: Vec<usize>,
    test_subset: Vec<usize>,
    /// Factors on the learning rate of each parameter.
    factors: Vec<f64>,
    ziggurat: ZigguratTable,
}

/// What does.
struct TrialState {
    weights: PlainNumbers,
    statistics: PlainStatistics,
    optimizer: OptimizerNumbers,
    /// Losses since the last sample, and the images that they are of.
    tally: LossSums,
    tallied: usize,
}

/// Weights before a step, and its gradient.
struct StepTraces {
    before: PlainNumbers,
    gradient: PlainNumbers,
    lr: f64,
}

pub(super) fn run_plain_trial(trial: &PlainTrial) -> PlainResult {
    let setup = TrialSetup::new(trial);
    let params = &setup.params;
    let mut state = TrialState {
        weights: draw_initial_numbers(&trial.net, params, trial.seed, &setup.ziggurat),
        statistics: initial_statistics(&trial.net),
        optimizer: OptimizerNumbers::new(params),
        tally: LossSums::default(),
        tallied: 0,
    };

    let mut result = PlainResult::default();
    for t in 0..trial.steps {
        let traces = setup.run_step(t, &mut state);
        let done = t + 1;
        if done.is_multiple_of(trial.sample_every) || done == trial.steps {
            result.steps.push(done as u64);
            result.samples.push(setup.sample(&traces, &state));
            (state.tally, state.tallied) = (LossSums::default(), 0);
        }
    }
    result.digest = compute_digest(&trial.net, params, &state.weights, &state.statistics);
    result
}

impl<'a> TrialSetup<'a> {
    fn new(trial: &'a PlainTrial) -> Self {
        let (train, test) = (&trial.train, &trial.test);
        let subset = choose_subset(&train.labels, trial.used.0, (trial.seed, "train"));
        let test_subset = choose_subset(&test.labels, trial.used.1, (trial.seed, "test"));
        let image = trial.net.image;
        let sizes = (image.numbers(), &subset[..]);
        let tables = build_input_table(&train.pixels, image.channels, sizes);

        let params = list_params(&trial.net);
        let factors = params.iter().map(|p| find_factor(trial, p)).collect();
        Self {
            trial,
            params,
            tables,
            subset,
            test_subset,
            factors,
            ziggurat: ZigguratTable::new(),
        }
    }

    fn read_batch(&self, images: &PlainImages, indices: &[usize]) -> PlainBatch {
        let size = self.trial.net.image.numbers();
        let outputs = images.targets.len() / images.labels.len();
        let answers = indices.iter().map(|at| PlainAnswer {
            label: usize::from(images.labels[*at]),
            targets: images.targets[at * outputs..(at + 1) * outputs].to_vec(),
        });
        PlainBatch {
            inputs: write_inputs(images, indices, &self.tables, size),
            answers: answers.collect(),
        }
    }

    fn model<'b>(&'b self, numbers: &'b PlainNumbers) -> PlainModel<'b> {
        PlainModel {
            net: &self.trial.net,
            params: &self.params,
            numbers,
        }
    }

    fn run_step(&self, t: usize, state: &mut TrialState) -> StepTraces {
        let trial = self.trial;
        let indices = choose_batch(trial.order, &self.subset, trial.batch, (trial.seed, t));
        let batch = self.read_batch(&trial.train, &indices);
        let first = compute_gradient(self.model(&state.weights), trial.loss, &batch);
        assert!(first.sums.loss.is_finite(), "the trial does not diverge");
        self.blend_statistics(&first, state, t);
        state.tally.add(first.sums);
        state.tallied += indices.len();

        let mut gradient = first.numbers;
        let mut second = None;
        if let Some(rho) = trial.rule.sharpness {
            let ascended = ascend_weights(&self.params, rho, (&state.weights, &gradient));
            let at_ascended = compute_gradient(self.model(&ascended), trial.loss, &batch);
            second = Some(at_ascended.numbers);
        }
        self.add_noise(t, &state.weights, &mut gradient);
        let mut taken = second.unwrap_or_else(|| gradient.clone());
        if let Some(most) = trial.rule.clip_norm {
            taken = clip_gradient(&self.params, most, taken);
        }

        let before = state.weights.clone();
        let lr = trial.rule.lr_at(t, trial.steps);
        let how = (t, lr, &self.factors[..]);
        let numbers = (&mut state.weights, &taken);
        state
            .optimizer
            .update(&self.params, &trial.rule, how, numbers);
        StepTraces {
            before,
            gradient,
            lr,
        }
    }

    /// Moves the running statistics.
    fn blend_statistics(&self, gradient: &PlainGradient, state: &mut TrialState, t: usize) {
        let first = t == 0 && self.trial.net.style.eps == 0.0;
        let share = if first { 1.0 } else { 0.1 };
        let keep = 1.0 - share;
        for (running, new) in state.statistics.iter_mut().zip(&gradient.statistics) {
            let (Some(running), Some(new)) = (running, new) else {
                continue;
            };
            for (running, new) in [(&mut running.0, &new.0), (&mut running.1, &new.1)] {
                for (running, new) in running.iter_mut().zip(new) {
                    *running = (keep * f64::from(*running) + (1.0 - keep) * new) as f32;
                }
            }
        }
    }

    fn add_noise(&self, t: usize, weights: &PlainNumbers, gradient: &mut PlainNumbers) {
        let Some((images, pairs)) = self.trial.noise else {
            return;
        };
        let detail = format!("added noise {t}");
        let mut stream = PlainStream::open(self.trial.seed, "order", detail.as_bytes());
        let scale = 1.0 / libm::sqrt(2.0 * pairs as f64);
        let mut sums: Vec<Vec<f64>> = gradient.iter().map(|g| vec![0.0; g.len()]).collect();
        for _ in 0..pairs {
            let factor = scale * stream.next_normal(&self.ziggurat);
            for factor in [factor, -factor] {
                let indices = draw_images(&mut stream, &self.subset, images);
                let batch = self.read_batch(&self.trial.train, &indices);
                let drawn = compute_gradient(self.model(weights), self.trial.loss, &batch);
                for (sums, drawn) in sums.iter_mut().zip(drawn.numbers) {
                    for (sum, g) in sums.iter_mut().zip(drawn) {
                        *sum += factor * f64::from(g);
                    }
                }
            }
        }

        for (gradient, sums) in gradient.iter_mut().zip(sums) {
            for (g, sum) in gradient.iter_mut().zip(sums) {
                *g = (f64::from(*g) + sum) as f32;
            }
        }
    }

    /// Losses of the test images.
    fn evaluate(&self, state: &TrialState) -> LossSums {
        let net = &self.trial.net;
        let head = net.output_shape(net.layers.len() - 1);
        let mut sums = LossSums::default();
        for indices in self.test_subset.chunks(100) {
            let batch = self.read_batch(&self.trial.test, indices);
            let mode = PlainMode::Evaluation(&state.statistics);
            let model = self.model(&state.weights);
            let values = run_forward(model, mode, &batch.inputs, indices.len());
            let logits = &values[net.layers.len() - 1].activation;

            let mut some = LossSums::default();
            for (logits, answer) in logits.chunks(head.stored).zip(&batch.answers) {
                let logits = &logits[..head.channels];
                let loss = self.trial.loss;
                some.add(compute_image_loss(loss, logits, answer, indices.len()).0);
            }
            sums.add(some);
        }
        sums
    }

    /// The metrics that fingerprints are of, in their order.
    fn sample(&self, traces: &StepTraces, state: &TrialState) -> Vec<f64> {
        let (params, normed) = (&self.params[..], PlainRanges::Normed);
        let (before, after) = (&traces.before, &state.weights);
        let trained = state.tallied as f64;
        let tested = self.test_subset.len() as f64;
        let test = self.evaluate(state);
        let square = square_norm(params, normed, after);
        let moved = sum_over_ranges(params, normed, (before, after), |a, b| (b - a) * (b - a));
        let gradient = square_norm(params, PlainRanges::Trained, &traces.gradient);

        let sizes = [before, after].map(|w| libm::sqrt(square_norm(params, normed, w)));
        let [minus, plus] = [-1.0, 1.0].map(|s| {
            let sum = sum_over_ranges(params, normed, (before, after), |a, b| {
                let q = a / sizes[0] + (s * b) / sizes[1];
                q * q
            });
            libm::sqrt(sum)
        });
        vec![
            state.tally.plain / trained,
            state.tally.correct / trained,
            test.plain / tested,
            test.correct / tested,
            libm::sqrt(square),
            square,
            self.effective_lr(traces.lr, square),
            libm::sqrt(gradient),
            libm::sqrt(moved),
            2.0 * libm::atan2(minus, plus),
        ]
    }

    fn effective_lr(&self, lr: f64, square: f64) -> f64 {
        let normed = self.params.iter().zip(&self.factors);
        let mut factors: Vec<f64> = normed
            .filter(|(param, _)| param.normed && param.trained)
            .map(|(_, factor)| *factor)
            .collect();
        factors.dedup();
        match factors[..] {
            [factor] => (lr * factor) / square,
            _ => f64::NAN,
        }
    }
}

/// The factor on the learning rate of a parameter.
fn find_factor(trial: &PlainTrial, param: &PlainParam) -> f64 {
    let layer = &trial.net.layers[param.layer].name;
    let role = match param.role {
        ParamRole::Weight => "weights",
        ParamRole::Bias => "biases",
        ParamRole::Scale | ParamRole::Shift => "norms",
    };
    let mut product = 1.0;
    for (name, factor) in &trial.rule.lr_on {
        if name == layer || name == role {
            product *= factor;
        }
    }
    product
}
