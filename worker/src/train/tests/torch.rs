//! Twenty steps of every architecture × norm against PyTorch in f64, from the same weights and batches.
//!
//! `tests/oracles/trajectories.py` makes the fixture and says how both sides draw weights, images and labels. And ghost batches
//! (`tests/oracles/ghosts.py`), other optimizers and steps (`tests/oracles/optimizers.py`), networks that are written as lists of
//! layers (`tests/oracles/layers.py`), regressions (`tests/oracles/targets.py`), and the largest eigenvalues of Hessians, against its double backward
//! (`tests/oracles/hessians.py`).

use ergodic_common::config::{
    Activation, Adam, AdamDecay, InitScheme, Loss, LrFactors, ModelConfig, ModelKind, Norm, Sam,
    TrainConfig, VggDepth,
};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::net::{ActivationShape, Net, ParamRole};
use ergodic_common::random_streams::Purpose;
use serde_json::Value;

use super::{cases, devices};
use crate::train::backend::ComputeBackend;
use crate::train::candle::engine::CandleEngine;
use crate::train::data::{ImageBatch, TargetData};
use crate::train::engine::CpuEngine;
use crate::train::engine::simd::Simd16;
use crate::train::measure::gradient_stats;
use crate::train::measure::hessian::Hessian;
use crate::train::network::params::ParamLayout;
use crate::train::optim::schedule::StepHyperparams;
use crate::train::optim::state::TrainingState;
use crate::train::optim::tensor::with_tensor_data;
use crate::train::optim::trained_groups::TrainedGroups;
use crate::train::{CandleDevice, Isa, SimdProgram};

const FIXTURE: &str = include_str!("../../../../tests/oracles/trajectories.json");

const GHOSTS: &str = include_str!("../../../../tests/oracles/ghosts.json");

const OPTIMIZERS: &str = include_str!("../../../../tests/oracles/optimizers.json");

const LAYERS: &str = include_str!("../../../../tests/oracles/layers.json");

const TARGETS: &str = include_str!("../../../../tests/oracles/targets.json");

const HESSIANS: &str = include_str!("../../../../tests/oracles/hessians.json");

/// The default: what has no gradient must have none, not even its rounding.
const ADAM_EPS: f64 = 1e-8;

/// Largest relative deviation after twenty steps.
const LIMIT: f64 = 1e-4;

/// The fixture's stream of 64-bit numbers of a name.
pub(super) fn bits(name: &str) -> impl Iterator<Item = u64> + use<> {
    let start = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    (0_u64..).map(move |i| {
        let z = start.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// Uniform numbers of mean 0 and this standard deviation.
pub(super) fn values(name: &str, std: f64) -> impl Iterator<Item = f64> + use<> {
    bits(name).map(move |z| ((z >> 40) as f64 / f64::from(1 << 23) - 1.0) * std * 3.0_f64.sqrt())
}

fn model(config: &Value) -> (ModelConfig, ActivationShape) {
    let square = |side, channels| ActivationShape {
        height: side,
        width: side,
        channels,
    };
    if let Some(layers) = config["layers"].as_str() {
        let listed = cases::listed_trial(DatasetName::Cifar10, layers);
        return (listed.model, square(8, 3));
    }

    let (kind, input) = match config["arch"].as_str().expect("a name") {
        "mlp" => (
            ModelKind::Mlp {
                hidden: vec![16, 12],
            },
            square(5, 1),
        ),
        "cnn4" => (ModelKind::Cnn4 { width: 4 }, square(8, 3)),
        "preresnet8" => (ModelKind::Preresnet { depth: 8, widen: 1 }, square(8, 3)),
        _ => (
            ModelKind::Vgg {
                depth: VggDepth::Eleven,
                width: 4,
            },
            square(32, 3),
        ),
    };

    let norm = match config["norm"].as_str().expect("a name") {
        "batch" => Norm::Batch,
        "ghost" => Norm::GhostBatch {
            size: config["ghost_size"].as_u64().expect("a number") as u32,
        },
        "group" => Norm::Group { groups: 4 },
        "layer" => Norm::Layer,
        _ => Norm::None,
    };
    let affine = config["affine"] == true && norm != Norm::None;

    let norm_eps = 1e-5;
    let fixed_head = false;
    let init = InitScheme::KaimingUniform;
    let init_scale = 1.0;
    (
        ModelConfig {
            kind,
            norm,
            norm_eps,
            affine,
            fixed_head,
            init,
            init_file: None,
            init_scale,
            layer_scales: Vec::new(),
            zero_residual: false,
            activation: Activation::Relu,
            bias: None,
        },
        input,
    )
}

/// The optimizer of a case, and what changes its steps.
fn train_config(config: &Value) -> TrainConfig {
    let decay = match config["optimizer"].as_str() {
        Some("adam") => Some(AdamDecay::Coupled),
        Some("adamw") => Some(AdamDecay::Decoupled),
        _ => None,
    };
    let adam = decay.map(|decay| Adam {
        beta1: 0.9,
        beta2: 0.999,
        eps: ADAM_EPS,
        decay,
    });
    let lr_on = config["lr_on"].as_object().into_iter().flatten();
    let factor = |x: &Value| x.as_f64().expect("a number");
    TrainConfig {
        adam,
        clip_norm: config["clip_norm"].as_f64(),
        lr_on: LrFactors::new(lr_on.map(|(name, x)| (name.clone(), factor(x)))),
        sam: config["rho"].as_f64().map(|rho| Sam { rho }),
        ..cases::mlp().train
    }
}

/// The targets of a batch, so many numbers per image.
fn drawn_targets(b: usize, numbers: usize) -> Vec<f32> {
    let drawn = values(&format!("batch{b}.targets"), 1.0);
    drawn.take(numbers).map(|x| x as f32).collect()
}

/// Images and labels of a batch.
fn drawn_batch(
    salt: &Value,
    b: usize,
    batch: usize,
    input: ActivationShape,
) -> (Vec<f32>, Vec<u8>) {
    let name = format!("batch{b}.images{salt}");
    let images = values(&name, 1.0)
        .take(batch * input.len())
        .map(|x| x as f32);
    let labels = bits(&format!("batch{b}.labels"))
        .take(batch)
        .map(|z| (z % 10) as u8);
    (images.collect(), labels.collect())
}

/// The fixture's initial parameters.
pub(super) fn initial(layout: &ParamLayout) -> Vec<f32> {
    let mut packed = vec![0.0; layout.len];
    for slot in &layout.params {
        let param = &slot.param;
        let std = (2.0 / param.fan_in as f64).sqrt();
        let mut drawn = values(&param.name, std);

        for i in 0..param.len {
            packed[slot.packed_position(i)] = match param.role {
                ParamRole::Weight => drawn.next().unwrap_or_default() as f32,
                ParamRole::NormScale => 1.0,
                ParamRole::Bias | ParamRole::NormShift => 0.0,
            };
        }
    }

    packed
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

/// Follows one case of the fixture.
struct Follow<'a> {
    candle_device: Option<&'a CandleDevice>,
    case: &'a Value,
    /// The largest relative deviation, and of what.
    worst: &'a mut (f64, String),
}

impl Follow<'_> {
    fn compare(&mut self, what: &str, ours: &[f64], theirs: &[f64]) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let apart = norm(&mut ours.iter().zip(theirs).map(|(a, b)| a - b));
        let error = apart / norm(&mut theirs.iter().copied()).max(1e-12);
        if error.is_nan() || error > self.worst.0 {
            *self.worst = (error, what.to_owned());
        }
    }

    fn parameters(&mut self, layout: &ParamLayout, start: &[f32], end: &[f32]) {
        let theirs = self.case["params"].as_object().expect("a table").clone();
        assert_eq!(theirs.len(), layout.params.len());

        for slot in &layout.params {
            let theirs = &theirs[&slot.param.name];
            let stride = theirs["stride"].as_u64().expect("a number") as usize;
            let moved = |i: usize| {
                f64::from(end[slot.packed_position(i)]) - f64::from(start[slot.packed_position(i)])
            };
            let some: Vec<f64> = (0..slot.param.len).step_by(stride).map(moved).collect();
            self.compare(&slot.param.name, &some, &numbers(&theirs["delta"]));

            let distance = (0..slot.param.len)
                .map(|i| moved(i) * moved(i))
                .sum::<f64>()
                .sqrt();
            self.compare(
                &slot.param.name,
                &[distance],
                &[theirs["distance"].as_f64().expect("a number")],
            );
        }
    }

    fn running(&mut self, net: &Net, layout: &ParamLayout, statistics: &[f32]) {
        let theirs = self.case["running"].as_object().expect("a table").clone();
        assert_eq!(
            theirs.len(),
            layout.running_mean_ranges.iter().flatten().count()
        );

        for (layer, mean) in net.layers.iter().zip(&layout.running_mean_ranges) {
            let Some(mean) = mean else { continue };
            for (name, start) in [("mean", mean.start), ("var", mean.end)] {
                let theirs = numbers(&theirs[&layer.name][name]);
                let ours = statistics[start..start + layer.output.channels.min(16)]
                    .iter()
                    .map(|x| f64::from(*x));
                self.compare(
                    &format!("{} {name}", layer.name),
                    &ours.collect::<Vec<_>>(),
                    &theirs,
                );
            }
        }
    }
}

impl SimdProgram for Follow<'_> {
    fn run_with<S: Simd16>(mut self, s: S) {
        let config = &self.case["config"];
        let number = |key: &str| config[key].as_f64().expect("a number");
        let (model, input) = model(config);
        let targets = config["outputs"].as_u64().map(|n| n as usize);
        let outputs = targets.unwrap_or(10);
        let net = Net::from_model(&model, input, outputs).expect("not the empty model");
        let batch = number("batch") as usize;
        let loss = match targets {
            Some(_) => Loss::Mse,
            None => Loss::CrossEntropy {
                smoothing: number("smoothing"),
            },
        };
        let mut engine = match self.candle_device {
            None => ComputeBackend::Cpu(Box::new(CpuEngine::new(&net, loss, batch, batch, 1))),
            Some(candle) => ComputeBackend::Candle(Box::new(CandleEngine::new(
                &net,
                loss,
                batch,
                &candle.device,
            ))),
        };

        let train = train_config(config);
        let start = initial(engine.layout());
        let state = TrainingState::new(start.clone(), engine.layout().initial_statistics(), &train)
            .expect("tensors on the CPU");
        let trained = TrainedGroups::new(engine.layout(), &train);
        let drawn = |b: usize| drawn_batch(&config["salt"], b, batch, input);
        let batches = [drawn(0), drawn(1)];
        let of_regression = [0, 1].map(|b| drawn_targets(b, batch * outputs));
        let targets_of = |b: usize| match targets {
            Some(outputs) => TargetData::Numbers(&of_regression[b], outputs),
            None => TargetData::Labels(&batches[b].1),
        };

        let all = (0..batch as u32).collect::<Vec<_>>();
        let rates = StepHyperparams {
            lr: number("lr"),
            wd: number("weight_decay"),
            momentum: number("momentum"),
        };

        let mut losses = Vec::new();
        let mut squares = Vec::new();

        for step in 0..20 {
            let images = &batches[step % 2].0;
            let source = ImageBatch::with_targets(images, targets_of(step % 2), &all);
            let tally = state
                .compute_gradient(s, &mut engine, &source, step == 0)
                .expect("tensors on the CPU");
            losses.push(tally.mean_loss());
            if let Some(sam) = train.sam {
                state
                    .take_ascended_gradient(s, &mut engine, &source, (&trained, sam.rho))
                    .expect("tensors on the CPU");
            }
            if let Some(most) = train.clip_norm {
                state
                    .clip_gradient(&trained, most)
                    .expect("tensors on the CPU");
            }

            let nesterov = config["nesterov"] == true;
            state
                .update_weights(s, &trained, rates, nesterov, step as u64)
                .expect("tensors on the CPU");
            let square = |w: &[f32]| w.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>();
            squares.push(with_tensor_data(&state.weights, square).expect("tensors on the CPU"));
        }

        let end = with_tensor_data(&state.weights, <[f32]>::to_vec).expect("tensors on the CPU");
        let statistics =
            with_tensor_data(&state.statistics, <[f32]>::to_vec).expect("tensors on the CPU");
        let source = ImageBatch::with_targets(&batches[0].0, targets_of(0), &all);
        engine
            .evaluate_batch(s, &end, &statistics, &source)
            .expect("tensors on the device");

        let theirs = numbers(&self.case["logits"]);
        let logits: Vec<f64> = (0..batch)
            .flat_map(|i| engine.image_logits(i))
            .map(|x| f64::from(*x))
            .take(theirs.len())
            .collect();
        self.compare("losses", &losses, &numbers(&self.case["losses"]));
        self.compare("squared norms", &squares, &numbers(&self.case["norm2"]));

        self.compare("logits", &logits, &theirs);
        self.parameters(engine.layout(), &start, &end);
        self.running(&net, engine.layout(), &statistics);
    }
}

#[test]
fn trajectories_are_those_of_pytorch() {
    follow(FIXTURE, 40, None);
}

#[test]
fn trajectories_over_ghost_batches_are_those_of_pytorch() {
    follow(GHOSTS, 6, None);
    devices::candle_devices()
        .iter()
        .for_each(|candle| follow(GHOSTS, 6, Some(candle)));
}

#[test]
fn trajectories_of_other_steps_are_those_of_pytorch() {
    follow(OPTIMIZERS, 13, None);
    devices::candle_devices()
        .iter()
        .for_each(|candle| follow(OPTIMIZERS, 13, Some(candle)));
}

#[test]
fn trajectories_of_listed_layers_are_those_of_pytorch() {
    follow(LAYERS, 12, None);
    devices::candle_devices()
        .iter()
        .for_each(|candle| follow(LAYERS, 12, Some(candle)));
}

#[test]
fn trajectories_of_regressions_are_those_of_pytorch() {
    follow(TARGETS, 8, None);
    devices::candle_devices()
        .iter()
        .for_each(|candle| follow(TARGETS, 8, Some(candle)));
}

#[test]
fn trajectories_on_stock_operations_are_those_of_pytorch() {
    devices::candle_devices()
        .iter()
        .for_each(|candle| follow(FIXTURE, 40, Some(candle)));
}

/// Follows the cases of a fixture, of which there are so many.
fn follow(fixture: &str, expected: usize, candle: Option<&CandleDevice>) {
    let fixture: Value = serde_json::from_str(fixture).expect("the fixture is JSON");
    let mut followed = 0;
    let mut strayed = 0;
    let mut far = Vec::new();

    for case in fixture["cases"].as_array().expect("a list") {
        let config = &case["config"];
        let mut worst = (0.0, String::new());
        Isa::detect_fastest().run_program(Follow {
            case,
            candle_device: candle,
            worst: &mut worst,
        });

        if worst.0.is_nan() || worst.0 > LIMIT {
            // Candle's sums in f32 are less exact than the trainer's own: now and then one comes down on the other side
            // of a ReLU.
            strayed += 1;
            if candle.is_some() && worst.0 < 100.0 * LIMIT && strayed < 3 {
                followed += 1;
                continue;
            }

            far.push(format!(
                "{} {} {}: {:.1e} in {}",
                config["arch"], config["norm"], config["batch"], worst.0, worst.1
            ));
        }

        followed += 1;
    }

    assert!(
        far.is_empty() && followed == expected,
        "{followed} cases; too far off:\n{}",
        far.join("\n")
    );
}

/// The largest eigenvalue of a Hessian, as the trainer finds it.
struct Curved<'a> {
    case: &'a Value,
    found: &'a mut f64,
}

impl Curved<'_> {
    /// The fixture's weights: those that trajectories start from, changed so that no norm's scale is 1 and no shift 0.
    fn parameters(&self, net: &Net) -> Vec<Vec<f32>> {
        let scale = self.case["config"]["scale"].as_f64().expect("a number");
        let numbers = |param: &ergodic_common::net::Param| -> Vec<f32> {
            let moved = |centre: f64, std| {
                values(&format!("{} moved", param.name), std).map(move |x| centre + x)
            };
            let std = (2.0 / param.fan_in as f64).sqrt();
            let numbers: Vec<f64> = match param.role {
                ParamRole::Weight => values(&param.name, std)
                    .map(|w| w * scale)
                    .take(param.len)
                    .collect(),
                ParamRole::NormScale => moved(1.0, 0.3).take(param.len).collect(),
                ParamRole::Bias | ParamRole::NormShift => moved(0.0, 0.1).take(param.len).collect(),
            };

            numbers.into_iter().map(|x| x as f32).collect()
        };

        net.params().iter().map(numbers).collect()
    }
}

impl SimdProgram for Curved<'_> {
    fn run_with<S: Simd16>(self, s: S) {
        let config = &self.case["config"];
        let (mut model, input) = model(config);
        model.fixed_head = config["fixed_head"] == true;
        let net = Net::from_model(&model, input, 10).expect("not the empty model");
        let batch = config["batch"].as_u64().expect("a number") as usize;
        let smoothing = config["smoothing"].as_f64().expect("a number");
        let loss = if config["loss"] == "mse" {
            Loss::Mse
        } else {
            Loss::CrossEntropy { smoothing }
        };

        let (images, labels) = drawn_batch(&Value::from(0), 0, batch, input);
        let all: Vec<u32> = (0..batch as u32).collect();
        let source = ImageBatch::from_floats(&images, &labels, &all);
        let hessian = Hessian::new(s, &net, loss, &self.parameters(&net), &source);
        let (len, trained) = hessian.direction_layout();
        let mut stream = cases::streams(0).open_stream(Purpose::Measure, b"");
        let top = gradient_stats::lanczos_largest_eigenvalue((len, &trained), &mut stream, |v| {
            Some(hessian.product_with(v))
        });

        *self.found = top.expect("the measurement is not stopped");
    }
}

#[test]
fn the_largest_eigenvalue_is_that_of_pytorchs_double_backward() {
    let fixture: Value = serde_json::from_str(HESSIANS).expect("the fixture is JSON");
    let cases = fixture["cases"].as_array().expect("a list");
    assert_eq!(
        cases.len(),
        48,
        "every architecture with every norm, thrice"
    );

    for case in cases {
        let expected = case["top"].as_f64().expect("a number");
        for isa in [Isa::detect_fastest(), Isa::Portable] {
            // Without vectors, deep networks take long; what they compute is the same to the bit.
            if isa == Isa::Portable && case["config"]["arch"] != "mlp" {
                continue;
            }

            let mut found = f64::NAN;
            isa.run_program(Curved {
                case,
                found: &mut found,
            });

            assert!(
                (found / expected - 1.0).abs() < 1e-5,
                "{}: {found} and {expected}",
                case["config"]
            );
        }
    }
}
