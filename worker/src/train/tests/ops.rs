//! Every operation on random shapes: odd sides, strides, batches of one, ties and zeros. The composed network in f64 must
//! agree with finite differences, and the trainer's own engine with the composed network.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor, Var};
use ergodic_common::config::{ACTIVATIONS, Activation, Loss};
use ergodic_common::net::{
    ActivationShape, Layer, LinearOp, Net, NormScope, NormSpec, ParamRole, Pool,
};
use ergodic_common::random_streams::{RandomStream, fixed_stream};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::train::candle::reference::{ReferenceBatch, ReferenceParams};
use crate::train::candle::{net, reference};
use crate::train::data::{ImageBatch, TargetData};
use crate::train::engine::CpuEngine;
use crate::train::engine::simd::Simd16;
use crate::train::measure::hessian::Hessian;
use crate::train::network::plan;
use crate::train::{Isa, SimdProgram};

/// A hidden layer: output channels, map, norm with how many groups it may have, pool.
#[derive(Debug, Clone, Copy)]
struct Hidden {
    channels: usize,
    map: LinearOp,
    norm: Option<(bool, usize)>,
    affine: bool,
    pool: bool,
}

/// What a network made of data has behind a hidden layer.
#[derive(Debug, Clone, Copy)]
struct Extra {
    activation: Activation,
    pool: Pool,
    norm: Option<(bool, usize)>,
    step: Step,
}

/// Layers behind a hidden one.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// None.
    Nothing,
    /// A convolution to which its input is added.
    IdentityShortcut,
    /// A convolution to which the sum of the layer before is added.
    Sum,
    /// A convolution to which a sum is added whose norm and activation nobody reads.
    UnreadSum,
    /// A layer without a map.
    Unmapped,
}

/// A network on some images, all numbers drawn from a stream of this number.
#[derive(Debug, Clone)]
struct NetCase {
    input: ActivationShape,
    hidden: Vec<Hidden>,
    /// What comes behind the hidden layers, one by one; nothing where the list ends.
    extras: Vec<Extra>,
    /// Whether a layer without a map comes before the first one.
    pools_image: bool,
    /// Whether a block with an identity shortcut, and with a 1×1 one, comes before the head.
    blocks: (bool, bool),
    average: bool,
    classes: usize,
    batch: usize,
    /// Number of ghost batches that batch norms run over.
    ghosts: usize,
    loss: Loss,
    seed: u64,
}

fn hidden() -> impl Strategy<Value = Hidden> {
    let map = prop_oneof![
        4 => (1..=4_usize, 1..=3_usize, 0..=2_usize).prop_map(|(k, s, p)| LinearOp::Conv { kernel: k, stride: s, padding: p }),
        1 => Just(LinearOp::Linear),
    ];
    let norm = prop::option::of((any::<bool>(), 1..=3_usize));
    (1..=20_usize, map, norm, any::<bool>(), any::<bool>()).prop_map(
        |(channels, map, norm, affine, pool)| Hidden {
            channels,
            map,
            norm,
            affine,
            pool,
        },
    )
}

fn case() -> impl Strategy<Value = NetCase> {
    let input = (1..=9_usize, 1..=9_usize, 1..=5_usize);
    let input = input.prop_map(|(height, width, channels)| ActivationShape {
        height,
        width,
        channels,
    });

    let loss = prop_oneof![
        (0..=1_u8).prop_map(|s| Loss::CrossEntropy {
            smoothing: f64::from(s) * 0.1
        }),
        Just(Loss::Mse)
    ];

    let net = (
        input,
        prop::collection::vec(hidden(), 1..=3),
        any::<(bool, bool)>(),
        any::<bool>(),
        2..=12_usize,
    );
    (net, 1..=5_usize, loss, any::<u64>()).prop_map(
        |((input, hidden, blocks, average, classes), batch, loss, seed)| NetCase {
            input,
            hidden,
            extras: Vec::new(),
            pools_image: false,
            blocks,
            average,
            classes,
            batch,
            ghosts: 1,
            loss,
            seed,
        },
    )
}

/// Networks with every activation, layers without a map, means of 2×2 pixels and several sums.
fn free_cases() -> impl Strategy<Value = NetCase> {
    let activations = ACTIVATIONS.map(|(_, activation)| activation).to_vec();
    let pools = vec![Pool::None, Pool::None, Pool::Max2, Pool::Average2];
    let steps = vec![
        Step::Nothing,
        Step::IdentityShortcut,
        Step::Sum,
        Step::UnreadSum,
        Step::Unmapped,
    ];
    let extra = (
        prop::sample::select(activations),
        prop::sample::select(pools),
        prop::option::of((any::<bool>(), 1..=3_usize)),
        prop::sample::select(steps),
    )
        .prop_map(|(activation, pool, norm, step)| Extra {
            activation,
            pool,
            norm,
            step,
        });
    (case(), prop::collection::vec(extra, 3), any::<bool>()).prop_map(
        |(case, extras, pools_image)| NetCase {
            extras,
            pools_image,
            ..case
        },
    )
}

/// Convolutions that the engine computes in tiles: 3×3 of stride 1 behind a first layer of several blocks of channels.
fn tiled_cases() -> impl Strategy<Value = NetCase> {
    let hidden = |map: BoxedStrategy<LinearOp>| {
        (
            1..=40_usize,
            map,
            prop::option::of((any::<bool>(), 1..=3_usize)),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(channels, map, norm, affine, pool)| Hidden {
                channels,
                map,
                norm,
                affine,
                pool,
            })
    };
    let first = hidden(
        Just(LinearOp::Conv {
            kernel: 1,
            stride: 1,
            padding: 0,
        })
        .boxed(),
    );

    let map = (0..=2_usize).prop_map(|padding| LinearOp::Conv {
        kernel: 3,
        stride: 1,
        padding,
    });
    let layers = (first, prop::collection::vec(hidden(map.boxed()), 1..=2));
    ((2..=7_usize, 2..=7_usize, 1..=3_usize), layers, case()).prop_map(
        |((height, width, channels), (first, rest), case)| {
            let input = ActivationShape {
                height: 2 * height,
                width: 2 * width,
                channels,
            };

            let hidden = std::iter::once(Hidden {
                pool: false,
                ..first
            })
            .chain(rest)
            .collect();
            NetCase {
                input,
                hidden,
                ..case
            }
        },
    )
}

impl NetCase {
    /// The network; maps that do not fit what comes before them are padded until they do.
    fn net(&self) -> Net {
        let mut layers: Vec<Layer> = Vec::new();
        if let (true, Some(extra)) = (self.pools_image, self.extras.first()) {
            self.push_unmapped(&mut layers, *extra);
        }

        for (at, hidden) in self.hidden.iter().enumerate() {
            let input = layers.last().map_or(self.input, Layer::activation_shape);
            let norm = self.norm_spec(hidden.norm, hidden.channels, hidden.affine);
            let layer = layer(
                &layers,
                input,
                hidden.channels,
                fitting(hidden.map, input),
                norm,
            );
            let pools = hidden.pool && layer.output.height > 1 && layer.output.width > 1;

            layers.push(Layer {
                pool: if pools { Pool::Max2 } else { Pool::None },
                ..layer
            });
            if let Some(extra) = self.extras.get(at) {
                self.push_extra(&mut layers, *extra);
            }
        }

        let spatial = matches!(
            layers.last(),
            Some(Layer {
                linear_op: LinearOp::Conv { .. },
                pool: Pool::None,
                ..
            })
        );
        if spatial && self.blocks.0 {
            block(&mut layers, 1);
        }

        if spatial && self.blocks.1 {
            block(&mut layers, 2);
        }
        if let (true, Some(last)) = (self.average && spatial, layers.last_mut()) {
            last.pool = Pool::Average;
        }

        let input = layers.last().map_or(self.input, Layer::activation_shape);
        let head = layer(&layers, input, self.outputs(), LinearOp::Linear, None);
        layers.push(Layer {
            activation: Activation::Identity,
            ..head
        });

        Net {
            input: self.input,
            classes: self.outputs(),
            layers,
        }
    }

    fn norm_spec(
        &self,
        norm: Option<(bool, usize)>,
        channels: usize,
        affine: bool,
    ) -> Option<NormSpec> {
        norm.map(|(batch, groups)| NormSpec {
            scope: if batch && self.ghosts > 1 {
                NormScope::GhostBatch(self.batch / self.ghosts)
            } else if batch {
                NormScope::Batch
            } else {
                NormScope::Groups(if channels.is_multiple_of(groups) {
                    groups
                } else {
                    1
                })
            },
            eps: 0.1,
            affine,
        })
    }

    /// Changes the last layer, and adds those behind it.
    fn push_extra(&self, layers: &mut Vec<Layer>, extra: Extra) {
        let at = layers.len() - 1;
        let last = &mut layers[at];
        last.activation = extra.activation;
        last.pool = fitting_pool(extra.pool, last.output);
        let (input, is_pooled) = (last.activation_shape(), last.pool != Pool::None);
        let norm = self.norm_spec(extra.norm, input.channels, self.seed.is_multiple_of(2));
        let convolution = |layers: &[Layer], norm| {
            let map = LinearOp::Conv {
                kernel: 3,
                stride: 1,
                padding: 1,
            };
            Layer {
                source: Some(at),
                ..layer(layers, input, input.channels, map, norm)
            }
        };

        let add = match extra.step {
            Step::Nothing => return,
            Step::Unmapped => return self.push_unmapped(layers, extra),
            Step::Sum if !is_pooled => at,
            Step::Sum | Step::IdentityShortcut => {
                let shortcut = layer(layers, input, input.channels, LinearOp::Identity, None);
                layers.push(Layer {
                    bias: false,
                    activation: Activation::Identity,
                    ..shortcut
                });
                at + 1
            }
            Step::UnreadSum => {
                // Under ghost batches, other norms would have other numbers of images.
                let unread = convolution(layers, norm);
                layers.push(unread);
                at + 1
            }
        };
        let convolution = convolution(layers, norm);
        layers.push(Layer {
            add: Some(add),
            activation: extra.activation,
            ..convolution
        });
    }

    /// Adds a layer without a map, with all that may follow one.
    fn push_unmapped(&self, layers: &mut Vec<Layer>, extra: Extra) {
        let input = layers.last().map_or(self.input, Layer::activation_shape);
        let norm = self.norm_spec(extra.norm, input.channels, self.seed.is_multiple_of(3));
        let unmapped = layer(layers, input, input.channels, LinearOp::Identity, norm);
        layers.push(Layer {
            bias: norm.is_none() && self.seed.is_multiple_of(2),
            activation: extra.activation,
            pool: fitting_pool(extra.pool, input),
            ..unmapped
        });
    }

    /// The same network on two to four times as many images, with as many ghost batches in the place of each batch.
    fn with_ghosts(self) -> Self {
        let ghosts = 2 + (self.seed % 3) as usize;
        Self {
            batch: self.batch * ghosts,
            ghosts,
            ..self
        }
    }

    fn stream(&self, what: &str) -> RandomStream {
        fixed_stream(what, self.seed)
    }

    /// Normal numbers.
    fn smooth(&self, net: &Net) -> (Vec<Vec<f32>>, Vec<f32>) {
        let mut stream = self.stream("smooth");
        let mut normal = |spread: f64| (spread * stream.next_normal()) as f32;
        let params = net.params();
        let params = params.iter().map(|p| {
            let (centre, spread) = match p.role {
                ParamRole::Weight => (0.0, (2.0 / p.fan_in as f64).sqrt()),
                ParamRole::NormScale => (1.0, 0.3),
                _ => (0.1, 0.3),
            };
            (0..p.len).map(|_| centre + normal(spread)).collect()
        });

        (
            params.collect(),
            (0..self.batch * net.input.len())
                .map(|_| normal(1.0))
                .collect(),
        )
    }

    /// Parameters and images with few pixels that are not 0, and biases that close the units whose inputs are all 0: many
    /// gradients are 0.
    fn sparse(&self, net: &Net) -> (Vec<Vec<f32>>, Vec<f32>) {
        let (mut params, mut images) = self.smooth(net);
        let mut stream = self.stream("sparse");

        for (param, numbers) in net.params().iter().zip(&mut params) {
            if param.role == ParamRole::Bias {
                numbers.iter_mut().for_each(|x| *x = -0.1 * x.abs() - 0.01);
            }

            // Where few weights lead, inputs have no gradient either.
            if param.role == ParamRole::Weight && self.seed % 2 == 1 {
                numbers
                    .iter_mut()
                    .filter(|_| stream.next_below(16) > 0)
                    .for_each(|x| *x = 0.0);
            }
        }

        for pixel in images.chunks_exact_mut(self.input.channels) {
            if stream.next_below(12) > 0 {
                pixel.fill(0.0);
            }
        }

        (params, images)
    }

    /// Few different numbers, so that sums are exact, often equal and often 0.
    fn tied(&self, net: &Net) -> (Vec<Vec<f32>>, Vec<f32>) {
        let mut stream = self.stream("tied");
        let mut coarse = || (f64::from(stream.next_below(5)) - 2.0) as f32 / 4.0;
        let params = net
            .params()
            .iter()
            .map(|p| (0..p.len).map(|_| coarse()).collect())
            .collect();
        (
            params,
            (0..self.batch * net.input.len())
                .map(|_| coarse())
                .collect(),
        )
    }

    /// Running mean and variance of every batch norm.
    fn running_statistics(&self, net: &Net) -> Vec<[Vec<f32>; 2]> {
        let mut stream = self.stream("running statistics");
        let of_batches = |layer: &&Layer| layer.norm.is_some_and(|n| n.has_running_statistics());
        net.layers
            .iter()
            .filter(of_batches)
            .map(|layer| {
                let channels = 0..layer.output.channels;
                let mean = channels.clone().map(|_| stream.next_normal() as f32);
                let mean = mean.collect();
                let variance = channels.map(|_| (0.5 + stream.next_normal().powi(2)) as f32);
                [mean, variance.collect()]
            })
            .collect()
    }

    fn labels(&self) -> Vec<u8> {
        let mut stream = self.stream("labels");
        (0..self.batch)
            .map(|_| stream.next_below(self.classes as u32) as u8)
            .collect()
    }

    /// Whether images have targets, as in every second case with squared errors.
    fn is_regression(&self) -> bool {
        self.loss == Loss::Mse && !self.seed.is_multiple_of(2)
    }

    /// Number of outputs: a single one in every second regression.
    fn outputs(&self) -> usize {
        match self.is_regression() && self.seed % 4 == 1 {
            true => 1,
            false => self.classes,
        }
    }

    /// The targets, image after image; none if images have labels.
    fn targets(&self) -> Vec<f32> {
        let mut stream = self.stream("targets");
        let count = match self.is_regression() {
            true => self.batch * self.outputs(),
            false => 0,
        };
        (0..count)
            .map(|_| 2.0 * stream.next_normal() as f32)
            .collect()
    }

    /// The batch of these images.
    fn reference_batch(&self, images: &[f32]) -> ReferenceBatch {
        ReferenceBatch {
            images: images.iter().map(|x| f64::from(*x)).collect(),
            labels: self.labels(),
            targets: self.targets(),
        }
    }
}

/// Labels, or targets if there are any.
fn target_data<'a>(labels: &'a [u8], targets: &'a [f32]) -> TargetData<'a> {
    match targets.len() / labels.len() {
        0 => TargetData::Labels(labels),
        width => TargetData::Numbers(targets, width),
    }
}

/// The pool, or none where there are no 2×2 pixels.
fn fitting_pool(pool: Pool, shape: ActivationShape) -> Pool {
    if shape.height.min(shape.width) > 1 {
        pool
    } else {
        Pool::None
    }
}

/// Map – norm – ReLU after the last of `layers`.
fn layer(
    layers: &[Layer],
    input: ActivationShape,
    channels: usize,
    map: LinearOp,
    norm: Option<NormSpec>,
) -> Layer {
    let output = match map {
        LinearOp::Identity => input,
        LinearOp::Linear => ActivationShape {
            height: 1,
            width: 1,
            channels,
        },
        LinearOp::Conv {
            kernel,
            stride,
            padding,
        } => {
            let side = |n: usize| (n + 2 * padding - kernel) / stride + 1;
            ActivationShape {
                height: side(input.height),
                width: side(input.width),
                channels,
            }
        }
    };

    let source = layers.len().checked_sub(1);
    let bias = norm.is_none();
    let add = None;
    let activation = Activation::Relu;
    let pool = Pool::None;
    let trained = true;
    Layer {
        name: format!("l{}", layers.len()),
        source,
        add,
        input,
        output,
        linear_op: map,
        bias,
        norm,
        activation,
        pool,
        trained,
    }
}

fn fitting(map: LinearOp, input: ActivationShape) -> LinearOp {
    let LinearOp::Conv {
        kernel,
        stride,
        padding,
    } = map
    else {
        return map;
    };
    let short = kernel.saturating_sub(input.height.min(input.width));

    LinearOp::Conv {
        kernel,
        stride,
        padding: padding.max(short.div_ceil(2)),
    }
}

/// Two convolutions added to the stream, which a 1×1 convolution brings to their shape where the stride is 2.
fn block(layers: &mut Vec<Layer>, stride: usize) {
    let stream = layers.len() - 1;
    let input = layers[stream].output;
    let norm = layers[stream].norm;
    let first = layer(
        layers,
        input,
        input.channels,
        LinearOp::Conv {
            kernel: 3,
            stride,
            padding: 1,
        },
        norm,
    );
    layers.push(first);

    let mut added = stream;
    if stride > 1 {
        let map = LinearOp::Conv {
            kernel: 1,
            stride,
            padding: 0,
        };
        let shortcut = layer(layers, input, input.channels, map, None);
        layers.push(Layer {
            source: Some(stream),
            activation: Activation::Identity,
            bias: norm.is_none(),
            ..shortcut
        });

        added = layers.len() - 1;
    }

    let input = layers[stream + 1].output;
    let second = layer(
        layers,
        input,
        input.channels,
        LinearOp::Conv {
            kernel: 3,
            stride: 1,
            padding: 1,
        },
        norm,
    );

    layers.push(Layer {
        source: Some(stream + 1),
        add: Some(added),
        ..second
    });
}

fn in_f64(params: &[Vec<f32>]) -> ReferenceParams {
    params
        .iter()
        .map(|numbers| numbers.iter().map(|x| f64::from(*x)).collect())
        .collect()
}

fn composed(
    case: &NetCase,
    net: &Net,
    params: &ReferenceParams,
    images: &[f32],
) -> reference::ReferencePass {
    let batch = case.reference_batch(images);
    reference::forward_backward(net, params, &batch, case.loss).expect("the composed network runs")
}

/// The loss of the composed network under the running statistics of the case.
fn composed_evaluation(case: &NetCase, net: &Net, params: &[Vec<f32>], images: &[f32]) -> f64 {
    let as_param = |numbers: &[f32]| {
        let numbers: Vec<_> = numbers.iter().map(|x| f64::from(*x)).collect();
        net::build_param(&numbers, 1, DType::F64, &Device::Cpu)
    };
    let evaluate = || {
        let params = params
            .iter()
            .map(|numbers| as_param(numbers))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let running = case
            .running_statistics(net)
            .iter()
            .map(|[mean, variance]| {
                Ok([as_param(mean)?, as_param(variance)?].map(|var| var.as_tensor().clone()))
            })
            .collect::<candle_core::Result<Vec<_>>>()?;

        let ActivationShape {
            height,
            width,
            channels,
        } = net.input;
        let batch = case.reference_batch(images);
        let images = as_param(images)?.reshape((1, case.batch, height, width, channels))?;
        let output = net::forward_pass(net, &params, &images, Some(&running))?;
        let share = 1.0 / case.batch as f64;
        net::compute_objective(&output.logits, batch.targets(), case.loss, share)?
            .get(0)?
            .to_scalar()
    };
    evaluate().expect("the composed network runs")
}

/// The results of the trainer's own engine: of a training pass, and the loss under some running statistics.
struct OwnPass {
    training: reference::ReferencePass,
    evaluated: f64,
}

/// A training pass of the trainer's own engine, then an evaluation.
struct Own<'a> {
    case: &'a NetCase,
    net: &'a Net,
    params: &'a [Vec<f32>],
    images: &'a [f32],
    out: &'a mut Option<OwnPass>,
}

impl SimdProgram for Own<'_> {
    fn run_with<S: Simd16>(self, s: S) {
        let mut engine = CpuEngine::new(
            self.net,
            self.case.loss,
            self.case.batch,
            self.case.batch,
            1,
        );
        let mut packed = vec![0.0; engine.layout.len];

        let mut gradient = vec![0.0; engine.layout.len];
        for (slot, numbers) in engine.layout.params.iter().zip(self.params) {
            numbers
                .iter()
                .enumerate()
                .for_each(|(i, x)| packed[slot.packed_position(i)] = *x);
        }

        let (labels, targets) = (self.case.labels(), self.case.targets());
        let indices = (0..self.case.batch as u32).collect::<Vec<_>>();
        let targets = target_data(&labels, &targets);
        let source = ImageBatch::with_targets(self.images, targets, &indices);
        let loss = engine
            .compute_gradient(s, &packed, &source, &mut gradient)
            .mean_loss();

        let layout = &engine.layout;
        let gradient = layout
            .params
            .iter()
            .map(|slot| slot.logical_values(&gradient).map(f64::from).collect())
            .collect();
        let training = reference::ReferencePass {
            loss,
            gradient,
            statistics: batch_statistics(&engine, self.net),
        };

        let mut running = layout.initial_statistics();
        let stored = self.case.running_statistics(self.net);
        for (range, of_norm) in layout.running_mean_ranges.iter().flatten().zip(&stored) {
            for (from, numbers) in [range.start, range.end].into_iter().zip(of_norm) {
                running[from..from + numbers.len()].copy_from_slice(numbers);
            }
        }
        let evaluated = engine
            .evaluate_batch(s, &packed, &running, &source)
            .mean_loss();

        engine.collect_statistics(s, &packed, &source);
        let collected = batch_statistics(&engine, self.net);
        assert_eq!(collected, training.statistics, "without a gradient");

        *self.out = Some(OwnPass {
            training,
            evaluated,
        });
    }
}

/// Mean and unbiased variance before every batch norm in the last training batch.
fn batch_statistics(engine: &CpuEngine, net: &Net) -> Vec<(Vec<f64>, Vec<f64>)> {
    let norms = engine.layout.batch_norms();
    norms
        .map(|(range, _)| {
            let channels = net.layers[range.layer].output.channels;
            engine.batch_statistics(range.layer).take(channels).unzip()
        })
        .collect()
}

fn own_pass(case: &NetCase, net: &Net, params: &[Vec<f32>], images: &[f32], isa: Isa) -> OwnPass {
    let mut out = None;
    isa.run_program(Own {
        case,
        net,
        params,
        images,
        out: &mut out,
    });

    out.expect("the engine has run")
}

/// Loss and gradient, tensor by tensor, of the trainer's own engine.
fn own(
    case: &NetCase,
    net: &Net,
    params: &[Vec<f32>],
    images: &[f32],
    isa: Isa,
) -> (f64, ReferenceParams) {
    let pass = own_pass(case, net, params, images, isa).training;
    (pass.loss, pass.gradient)
}

fn norm(all: &[f64]) -> f64 {
    all.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Runs `test` on the same cases every time.
fn check(cases: u32, test: impl Fn(NetCase) -> Result<(), TestCaseError>) {
    check_all(cases, case(), test);
}

fn check_all(
    cases: u32,
    all: impl Strategy<Value = NetCase>,
    test: impl Fn(NetCase) -> Result<(), TestCaseError>,
) {
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        },
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );

    runner.run(&all, test).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn composed_gradients_are_the_limits_of_finite_differences() {
    compare_with_differences(300, case(), 290);
}

#[test]
fn composed_gradients_of_free_networks_are_the_limits_of_finite_differences() {
    compare_with_differences(300, free_cases(), 280);
}

/// Compares the composed network's gradients with differences; more than `least` cases must have a derivative.
fn compare_with_differences(cases: u32, all: impl Strategy<Value = NetCase>, least: u32) {
    let compared = Cell::new(0);
    check_all(cases, all, |case| {
        let net = case.net();
        let (params, images) = case.smooth(&net);
        let params = in_f64(&params);
        let gradient = composed(&case, &net, &params, &images).gradient;
        let mut stream = case.stream("direction");
        let direction: ReferenceParams = params
            .iter()
            .map(|numbers| numbers.iter().map(|_| stream.next_normal()).collect())
            .collect();
        let slope = |h: f64| {
            let loss_at = |h: f64| {
                let moved = params.iter().zip(&direction);
                let moved = moved
                    .map(|(w, d)| w.iter().zip(d).map(|(w, d)| w + h * d).collect())
                    .collect();
                composed(&case, &net, &moved, &images).loss
            };
            (loss_at(h) - loss_at(-h)) / (2.0 * h)
        };
        let wide = slope(2e-6);

        let narrow = slope(1e-6);
        let along = gradient
            .iter()
            .flatten()
            .zip(direction.iter().flatten())
            .map(|(g, d)| g * d)
            .sum::<f64>();

        let size = norm(&gradient.concat()) * norm(&direction.concat());
        // Where two widths disagree, a ReLU or a maximum changes sides in between: there is no derivative to compare.
        if (wide - narrow).abs() < 1e-7 * (1.0 + size) {
            compared.set(compared.get() + 1);
            prop_assert!(
                (narrow - along).abs() < 1e-6 * (1.0 + size),
                "{narrow} is not {along} of {size}"
            );
        }

        Ok(())
    });

    assert!(
        compared.get() > least,
        "only {} cases have a derivative",
        compared.get()
    );
}

/// Loss, gradient and batch statistics of the engine, and its loss under running statistics, are those of the composed network.
fn agrees(case: &NetCase) -> Result<(), TestCaseError> {
    let net = case.net();
    let (params, images) = case.smooth(&net);
    let expected = composed(case, &net, &in_f64(&params), &images);
    let ours = own_pass(case, &net, &params, &images, Isa::detect_fastest());
    statistics_agree(&ours.training.statistics, &expected.statistics)?;
    let evaluated = composed_evaluation(case, &net, &params, &images);
    prop_assert!(
        (ours.evaluated - evaluated).abs() < 1e-5 * (1.0 + evaluated),
        "evaluation: {} is not {evaluated}",
        ours.evaluated
    );

    let (loss, gradient) = (ours.training.loss, ours.training.gradient);
    prop_assert!(
        (loss - expected.loss).abs() < 1e-5 * (1.0 + expected.loss),
        "{loss} is not {}",
        expected.loss
    );

    let all = norm(&expected.gradient.concat());
    for (ours, theirs) in gradient.iter().zip(&expected.gradient) {
        let off = norm(
            &ours
                .iter()
                .zip(theirs)
                .map(|(a, b)| a - b)
                .collect::<Vec<_>>(),
        );

        // A batch of one makes 0 of what a norm sees, and rounding of its gradient.
        prop_assert!(
            off < 1e-4 * norm(theirs) + 5e-5 * all + 1e-7,
            "{off} off {} of {all}",
            norm(theirs)
        );
    }

    Ok(())
}

/// Mean and variance before every batch norm are those of the composed network.
fn statistics_agree(
    ours: &[(Vec<f64>, Vec<f64>)],
    theirs: &[(Vec<f64>, Vec<f64>)],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours.len(), theirs.len());
    for ((our_mean, our_variance), (mean, variance)) in ours.iter().zip(theirs) {
        prop_assert_eq!(our_mean.len(), mean.len());
        for (ours, theirs) in our_mean.iter().zip(mean) {
            let size = 1.0 + norm(mean);
            prop_assert!((ours - theirs).abs() < 1e-5 * size, "mean {ours}, {theirs}");
        }

        // A single value has no unbiased variance.
        for (ours, theirs) in our_variance.iter().zip(variance) {
            let size = 1.0 + norm(variance);
            prop_assert!(
                !theirs.is_finite() || (ours - theirs).abs() < 1e-4 * size,
                "variance {ours}, {theirs}"
            );
        }
    }

    Ok(())
}

/// The agreement on few different numbers, which without norms have exact sums in both.
fn ties_agree(mut case: NetCase) -> Result<(), TestCaseError> {
    case.hidden.iter_mut().for_each(|hidden| hidden.norm = None);
    case.average = false;
    let net = case.net();
    let (params, images) = case.tied(&net);
    let expected = composed(&case, &net, &in_f64(&params), &images);
    let (_, gradient) = own(&case, &net, &params, &images, Isa::detect_fastest());
    let all = norm(&expected.gradient.concat());

    for (ours, theirs) in gradient.iter().zip(&expected.gradient) {
        let off = norm(
            &ours
                .iter()
                .zip(theirs)
                .map(|(a, b)| a - b)
                .collect::<Vec<_>>(),
        );
        prop_assert!(
            off < 1e-5 * all + 1e-7,
            "{off} off {} of {all}",
            norm(theirs)
        );
    }

    Ok(())
}

/// What has no gradient by definition has none, not even the rounding of others: an optimizer that divides by a gradient's size
/// would make whole steps of it. How many numbers have none.
fn zeros_agree(mut case: NetCase) -> Result<usize, TestCaseError> {
    case.hidden.iter_mut().for_each(|hidden| hidden.norm = None);
    let net = case.net();
    let (params, images) = case.sparse(&net);
    let expected = composed(&case, &net, &in_f64(&params), &images)
        .gradient
        .concat();

    let ours = own(&case, &net, &params, &images, Isa::detect_fastest())
        .1
        .concat();
    let all = norm(&expected);
    let none: Vec<f64> = ours
        .iter()
        .zip(&expected)
        .filter(|(_, theirs)| **theirs == 0.0)
        .map(|(g, _)| *g)
        .collect();
    let most = none.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
    prop_assert!(most == 0.0, "{most} of {all}");

    Ok(none.len())
}

#[test]
fn what_sees_zeros_alone_has_no_gradient() {
    let zeros = Cell::new(0);
    check_all(150, tiled_cases(), |case| {
        zeros.set(zeros.get() + zeros_agree(case)?);
        Ok(())
    });

    assert!(
        zeros.get() > 100_000,
        "only {} numbers have no gradient",
        zeros.get()
    );
}

#[test]
fn a_unit_that_overflows_downwards_is_shut_like_any_other() {
    let input = ActivationShape {
        height: 1,
        width: 1,
        channels: 1,
    };
    let hidden = layer(&[], input, 2, LinearOp::Linear, None);
    let head = layer(
        std::slice::from_ref(&hidden),
        hidden.output,
        2,
        LinearOp::Linear,
        None,
    );
    let net = Net {
        input,
        classes: 2,
        layers: vec![
            hidden,
            Layer {
                activation: Activation::Identity,
                ..head
            },
        ],
    };

    let loss = Loss::CrossEntropy { smoothing: 0.0 };
    let case = NetCase {
        input,
        hidden: vec![],
        extras: vec![],
        pools_image: false,
        blocks: (false, false),
        average: false,
        classes: 2,
        batch: 1,
        ghosts: 1,
        loss,
        seed: 0,
    };
    let with = |weight: f32, isa: Isa| {
        let params = [
            vec![weight, 1.0],
            vec![0.0; 2],
            vec![0.3, -0.2, 0.1, 0.7],
            vec![0.0; 2],
        ];
        own(&case, &net, &params, &[2.0], isa)
    };

    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let (loss, gradient) = with(-3e38, isa);
        assert!(
            loss.is_finite() && gradient[2].iter().any(|g| *g != 0.0),
            "{isa}: {loss} {gradient:?}"
        );

        assert_eq!((loss, gradient), with(-3.0, isa), "{isa}");
    }
}

#[test]
fn the_engine_agrees_with_the_composed_network() {
    check(500, |case| agrees(&case));
}

#[test]
fn free_networks_agree_with_the_composed_one_in_the_same_bits_on_all_instruction_sets() {
    check_all(400, free_cases(), |case| {
        agrees(&case)?;
        same_bits(&case)
    });
    check_all(100, free_cases(), |case| {
        let case = case.with_ghosts();
        agrees(&case)?;
        same_bits(&case)
    });
}

#[test]
fn the_hessian_of_free_networks_is_the_derivative_of_the_composed_gradient() {
    check_all(100, free_cases(), |case| hessian_agrees(&case));
}

/// The exact product with a random direction is the change of the composed gradient along it.
fn hessian_agrees(case: &NetCase) -> Result<(), TestCaseError> {
    let net = case.net();
    let (params, images) = case.smooth(&net);
    let mut stream = case.stream("direction");
    let direction: ReferenceParams = params
        .iter()
        .map(|numbers| numbers.iter().map(|_| stream.next_normal()).collect())
        .collect();
    let change = |h: f64| {
        let gradient_at = |h: f64| {
            let moved = in_f64(&params).into_iter().zip(&direction);
            let moved = moved
                .map(|(w, d)| w.iter().zip(d).map(|(w, d)| w + h * d).collect())
                .collect();
            composed(case, &net, &moved, &images).gradient.concat()
        };
        let pairs = gradient_at(h).into_iter().zip(gradient_at(-h));
        pairs.map(|(a, b)| (a - b) / (2.0 * h)).collect::<Vec<_>>()
    };
    let apart =
        |a: &[f64], b: &[f64]| norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());

    let (wide, narrow) = (change(2e-6), change(1e-6));
    let size = 1.0 + norm(&narrow);
    // Elsewhere a kink lies in between.
    if apart(&wide, &narrow) < 1e-5 * size {
        let product = hessian_product(case, &net, &params, &images, &direction.concat());
        let off = apart(&product, &narrow);
        prop_assert!(off < 1e-4 * size, "{off} off {size}");
    }
    Ok(())
}

/// The exact product of the loss's Hessian with a direction.
fn hessian_product(
    case: &NetCase,
    net: &Net,
    params: &[Vec<f32>],
    images: &[f32],
    direction: &[f64],
) -> Vec<f64> {
    struct Product<'a> {
        case: &'a NetCase,
        net: &'a Net,
        params: &'a [Vec<f32>],
        images: &'a [f32],
        direction: &'a [f64],
        out: &'a mut Vec<f64>,
    }

    impl SimdProgram for Product<'_> {
        fn run_with<S: Simd16>(self, s: S) {
            let (labels, targets) = (self.case.labels(), self.case.targets());
            let indices: Vec<u32> = (0..self.case.batch as u32).collect();
            let targets = target_data(&labels, &targets);
            let batch = ImageBatch::with_targets(self.images, targets, &indices);
            let hessian = Hessian::new(s, self.net, self.case.loss, self.params, &batch);
            *self.out = hessian.product_with(self.direction);
        }
    }

    let mut out = Vec::new();
    Isa::detect_fastest().run_program(Product {
        case,
        net,
        params,
        images,
        direction,
        out: &mut out,
    });
    out
}

/// Loss and gradient of the composed network over ghost batches are the means of those that batch norm has over each of them.
fn ghosts_are_batches_of_their_own(case: &NetCase) -> Result<(), TestCaseError> {
    let net = case.net();
    let (params, images) = case.smooth(&net);
    let params = in_f64(&params);
    let whole = composed(case, &net, &params, &images);

    let one = NetCase {
        ghosts: 1,
        ..case.clone()
    };
    let net = one.net();
    let (labels, targets) = (case.labels(), case.targets());
    let images_each = case.batch / case.ghosts;
    let width = targets.len() / case.batch;
    let mut loss = 0.0;
    let mut gradient = vec![0.0; whole.gradient.concat().len()];
    for (at, images) in images.chunks(images_each * net.input.len()).enumerate() {
        let some = at * images_each..(at + 1) * images_each;
        let batch = ReferenceBatch {
            images: images.iter().map(|x| f64::from(*x)).collect(),
            labels: labels[some.clone()].to_vec(),
            targets: targets[some.start * width..some.end * width].to_vec(),
        };
        let pass = reference::forward_backward(&net, &params, &batch, case.loss)
            .expect("the composed network runs");
        loss += pass.loss / case.ghosts as f64;
        gradient
            .iter_mut()
            .zip(pass.gradient.concat())
            .for_each(|(sum, g)| *sum += g / case.ghosts as f64);
    }

    let off = gradient.iter().zip(whole.gradient.concat());
    let off = norm(&off.map(|(a, b)| a - b).collect::<Vec<_>>());
    prop_assert!((loss - whole.loss).abs() < 1e-12 * (1.0 + loss));
    prop_assert!(off < 1e-11 * (1.0 + norm(&gradient)), "{off}");
    Ok(())
}

#[test]
fn ghost_batches_are_normalized_by_themselves_on_any_shape() {
    check(200, |case| {
        let case = case.with_ghosts();
        ghosts_are_batches_of_their_own(&case)?;
        agrees(&case)
    });
    check_all(50, tiled_cases(), |case| {
        let case = case.with_ghosts();
        agrees(&case)?;
        same_bits(&case)
    });
}

#[test]
fn ties_and_zeros_come_down_on_the_same_side() {
    check(500, ties_agree);
}

#[test]
fn tiles_agree_with_the_composed_network_in_the_same_bits_on_all_instruction_sets() {
    let tiled = Cell::new(0);
    check_all(150, tiled_cases(), |case| {
        tiled.set(
            tiled.get()
                + plan::plan_layers(&case.net())
                    .iter()
                    .filter(|plan| plan.winograd_plan().is_some())
                    .count(),
        );

        agrees(&case)?;
        same_bits(&case)?;
        ties_agree(case)
    });

    assert!(tiled.get() > 150, "only {} layers are tiled", tiled.get());
}

/// Every instruction set of this machine gives the same loss and gradient.
fn same_bits(case: &NetCase) -> Result<(), TestCaseError> {
    let net = case.net();
    let (params, images) = case.smooth(&net);
    let bits = |isa: Isa| {
        let (loss, gradient) = own(case, &net, &params, &images, isa);
        (
            loss.to_bits(),
            gradient
                .concat()
                .iter()
                .map(|g| g.to_bits())
                .collect::<Vec<_>>(),
        )
    };
    let expected = bits(Isa::Portable);

    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        prop_assert!(bits(isa) == expected, "{isa}");
    }

    Ok(())
}

#[test]
fn instruction_sets_give_the_same_bits_on_any_shape() {
    check(60, |case| same_bits(&case));
}

/// A square convolution, its output weighed by fixed numbers and summed: the sum, and its gradients.
fn convolved(layer: &Layer, by_candle: bool) -> Vec<Vec<f64>> {
    let mut stream = fixed_stream("convolution", layer.fan_in() as u64);
    let mut normal = |shape: &[usize]| {
        let numbers = (0..shape.iter().product())
            .map(|_| stream.next_normal())
            .collect::<Vec<f64>>();
        Tensor::from_vec(numbers, shape, &Device::Cpu).expect("a tensor")
    };

    let (
        ActivationShape {
            height,
            width,
            channels,
        },
        outputs,
    ) = (layer.input, layer.output.channels);
    let x = Var::from_tensor(&normal(&[1, 3, height, width, channels])).expect("a variable");

    let w = Var::from_tensor(&normal(&[1, layer.fan_in() * outputs])).expect("a variable");
    let weights = normal(&[1, 3, layer.output.height, layer.output.width, outputs]);
    let y = if by_candle {
        by_conv2d(layer, &x, &w)
    } else {
        net::apply_linear_op(layer, &x, &w)
    };
    let sum = (y.expect("a convolution") * weights)
        .and_then(|y| y.sum_all())
        .expect("a sum");
    let gradients = sum.backward().expect("gradients");

    let numbers = |tensor: &Tensor| {
        tensor
            .flatten_all()
            .and_then(|x| x.to_vec1())
            .expect("numbers")
    };
    let of = |var: &Var| numbers(gradients.get(var).expect("it takes part"));
    vec![numbers(&sum), of(&x), of(&w)]
}

fn by_conv2d(layer: &Layer, x: &Tensor, w: &Tensor) -> candle_core::Result<Tensor> {
    let LinearOp::Conv {
        kernel,
        stride,
        padding,
    } = layer.linear_op
    else {
        panic!("a convolution")
    };
    let w = w.reshape((kernel, kernel, layer.input.channels, layer.output.channels))?;
    let w = w.permute((3, 2, 0, 1))?.contiguous()?;
    let y = x
        .get(0)?
        .permute((0, 3, 1, 2))?
        .contiguous()?
        .conv2d(&w, padding, stride, 1, 1)?;

    y.permute((0, 2, 3, 1))?.contiguous()?.unsqueeze(0)
}

#[test]
fn convolutions_are_candles_own_where_these_are_right() {
    for (side, kernel, stride, padding) in [
        (8, 3, 1, 1),
        (8, 3, 2, 1),
        (7, 1, 2, 0),
        (9, 5, 1, 2),
        (6, 2, 2, 0),
    ] {
        let input = ActivationShape {
            height: side,
            width: side,
            channels: 5,
        };
        let layer = layer(
            &[],
            input,
            7,
            LinearOp::Conv {
                kernel,
                stride,
                padding,
            },
            None,
        );

        for (ours, theirs) in convolved(&layer, false)
            .iter()
            .zip(&convolved(&layer, true))
        {
            let off = norm(
                &ours
                    .iter()
                    .zip(theirs)
                    .map(|(a, b)| a - b)
                    .collect::<Vec<_>>(),
            );
            assert!(
                off < 1e-12 * norm(theirs),
                "{:?}: {off} off {}",
                layer.linear_op,
                norm(theirs)
            );
        }
    }
}
