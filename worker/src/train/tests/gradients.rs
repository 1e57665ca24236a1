//! The fast path against Candle's autograd in f64 and against finite differences.

use std::sync::Arc;

use ergodic_common::config::Loss::{self, CrossEntropy};
use ergodic_common::config::{Activation, DataConfig, ModelKind, Norm, VggDepth};
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::dataset::{Dataset, Target};
use ergodic_common::net::{
    ActivationShape, Layer, LinearOp, Net, NormScope, NormSpec, ParamRole, Pool,
};
use ergodic_common::random_streams::fixed_stream;

use super::cases;
use crate::train::candle::reference;
use crate::train::candle::reference::{ReferenceBatch, ReferenceParams};
use crate::train::data::TrialData;
use crate::train::engine::CpuEngine;
use crate::train::network::shape::HaloGrid;
use crate::train::{Isa, SimdProgram};

/// A network with random parameters on some images.
struct GradientCase {
    net: Net,
    engine: CpuEngine,
    data: TrialData,
    images: usize,
    loss: Loss,
    packed: Vec<f32>,
}

impl GradientCase {
    fn new(net: Net, images: usize, loss: Loss) -> Self {
        let dataset = if net.input.channels == 3 {
            cases::noise(DatasetName::Cifar10)
        } else {
            cases::dataset()
        };
        Self::on_dataset(net, images, loss, dataset)
    }

    fn on_dataset(net: Net, images: usize, loss: Loss, dataset: Arc<Dataset>) -> Self {
        let config = DataConfig::new(dataset.name, images as u32, 1);
        let data = TrialData::new(dataset, &config, &cases::streams(0)).expect("enough images");

        let engine = CpuEngine::new(&net, loss, images, images, 1);
        let mut stream = fixed_stream("test parameters", 0);
        let mut packed = vec![0.0; engine.layout.len];

        for slot in &engine.layout.params {
            let (centre, spread) = match slot.param.role {
                ParamRole::Weight => (0.0, (2.0 / slot.param.fan_in as f64).sqrt()),
                ParamRole::NormScale => (1.0, 0.3),
                _ => (0.1, 0.3),
            };

            for i in 0..slot.param.len {
                packed[slot.packed_position(i)] = (centre + spread * stream.next_normal()) as f32;
            }
        }

        Self {
            net,
            engine,
            data,
            images,
            loss,
            packed,
        }
    }

    fn from_kind(kind: ModelKind, norm: Norm, affine: bool) -> Self {
        let mut config = cases::small_trial(kind, norm);
        // Noise, because the equal pixels of a plain background would all come down on the same side of a ReLU.
        if matches!(
            config.model.kind,
            ModelKind::Vgg { .. } | ModelKind::Preresnet { .. }
        ) {
            config.data.dataset = DatasetName::Cifar10;
        }

        config.model.affine = affine;
        Self::new(
            Net::from_config(&config).expect("not the empty model"),
            if matches!(norm, Norm::GhostBatch { .. }) {
                12
            } else {
                13
            },
            CrossEntropy {
                smoothing: if affine { 0.1 } else { 0.0 },
            },
        )
    }

    /// Loss and packed gradient of the fast path.
    fn fast(&mut self, isa: Isa) -> (f64, Vec<f32>) {
        struct FastPass<'a>(&'a mut GradientCase, &'a mut (f64, Vec<f32>));
        impl SimdProgram for FastPass<'_> {
            fn run_with<S: crate::train::engine::simd::Simd16>(self, s: S) {
                let Self(bench, (loss, gradient)) = self;
                gradient.resize(bench.packed.len(), 0.0);
                let indices = bench.data.train_indices()[..bench.images].to_vec();
                let batch = bench.data.train_batch(&indices);
                *loss = bench
                    .engine
                    .compute_gradient(s, &bench.packed, &batch, gradient)
                    .mean_loss();
            }
        }

        let mut out = (0.0, Vec::new());
        isa.run_program(FastPass(self, &mut out));
        out
    }

    fn logical(&self, packed: &[f32]) -> ReferenceParams {
        let slots = self.engine.layout.params.iter();
        slots
            .map(|s| {
                (0..s.param.len)
                    .map(|i| f64::from(packed[s.packed_position(i)]))
                    .collect()
            })
            .collect()
    }

    fn batch(&self) -> ReferenceBatch {
        let ActivationShape {
            height,
            width,
            channels,
        } = self.net.input;
        let grid = HaloGrid::single_pixel(height * width * channels);
        let mut images = vec![0.0; self.images * grid.len()];
        let indices = &self.data.train_indices()[..self.images];
        let source = self.data.train_batch(indices);
        source.write_images(0, self.images, &grid, &mut images);

        ReferenceBatch {
            images: images.into_iter().map(f64::from).collect(),
            labels: source
                .targets()
                .map(|target| match target {
                    Target::Label(label) => label,
                    Target::Numbers(_) => 0,
                })
                .collect(),
            targets: source
                .targets()
                .flat_map(|target| match target {
                    Target::Label(_) => &[][..],
                    Target::Numbers(numbers) => numbers,
                })
                .copied()
                .collect(),
        }
    }

    /// Loss and gradient must agree with the reference, tensor by tensor.
    fn check(mut self, what: &str) {
        let reference = reference::forward_backward(
            &self.net,
            &self.logical(&self.packed),
            &self.batch(),
            self.loss,
        )
        .expect("the reference runs");

        let (loss, gradient) = self.fast(Isa::detect_fastest());
        assert!(
            (loss - reference.loss).abs() < 2e-6 * (1.0 + reference.loss),
            "{what}: {loss} {}",
            reference.loss
        );

        for ((slot, ours), theirs) in self
            .engine
            .layout
            .params
            .iter()
            .zip(self.logical(&gradient))
            .zip(&reference.gradient)
        {
            if slot.param.trained {
                let error = distance(&ours, theirs);
                // Among a million activations a few lie so near 0 that f32 and f64 disagree on which side. In small ghost
                // batches, one moves more.
                let is_deep = self.net.layers.len() > 6;
                let limit = match (is_deep, has_ghosts(&self.net)) {
                    (false, _) => 1e-4,
                    (true, false) => 1e-3,
                    (true, true) => 1e-2,
                };
                assert!(
                    error < limit,
                    "{what}: relative error {error:e} of the gradient of {}",
                    slot.param.name
                );
            } else {
                assert!(
                    ours.iter().all(|g| *g == 0.0),
                    "{what}: {} is not trained",
                    slot.param.name
                );
            }
        }

        self.check_padding(&gradient, what);
        self.check_invariance(&gradient, what);
        self.check_statistics(&reference, what);
    }

    /// The loss does not depend on the common scale of the weights that norms follow, so the gradient is orthogonal to
    /// them (Euler), but for ε, which tells most where a group holds two numbers.
    fn check_invariance(&self, gradient: &[f32], what: &str) {
        let normed = self.engine.layout.params.iter().filter(|s| s.param.normed);
        let ranges: Vec<usize> = normed
            .flat_map(|s| (0..s.param.len).map(|i| s.packed_position(i)))
            .collect();
        let dot = |a: &[f32], b: &[f32]| {
            ranges
                .iter()
                .map(|i| f64::from(a[*i]) * f64::from(b[*i]))
                .sum::<f64>()
        };
        let sizes = (dot(gradient, gradient) * dot(&self.packed, &self.packed)).sqrt();
        let cosine = if sizes == 0.0 {
            0.0
        } else {
            dot(gradient, &self.packed) / sizes
        };

        assert!(
            cosine.abs() < 1e-3,
            "{what}: the gradient is not orthogonal to the weights, cosine {cosine:e}"
        );
    }

    fn check_padding(&self, gradient: &[f32], what: &str) {
        let mut real = vec![false; gradient.len()];
        for slot in &self.engine.layout.params {
            (0..slot.param.len).for_each(|i| real[slot.packed_position(i)] = true);
        }

        let used = real.iter().filter(|r| **r).count() as u64;
        assert_eq!(
            used,
            self.net.param_counts().0,
            "{what}: parameters overlap"
        );

        assert!(
            gradient
                .iter()
                .zip(&real)
                .all(|(g, real)| *real || *g == 0.0),
            "{what}: padding has a gradient"
        );
    }

    fn check_statistics(&self, reference: &reference::ReferencePass, what: &str) {
        let mut running = self.engine.layout.initial_statistics();
        for (range, _) in self.engine.layout.batch_norms() {
            range.blend_statistics(self.engine.batch_statistics(range.layer), 0.1, &mut running);
        }

        let ranges = self.engine.layout.running_mean_ranges.iter().flatten();
        for ((mean, variance), range) in reference.statistics.iter().zip(ranges) {
            for c in 0..mean.len() {
                let m = f64::from(running[range.start + c]);
                let v = f64::from(running[range.end + c]);
                assert!(
                    (m - 0.1 * mean[c]).abs() < 1e-6 * (1.0 + mean[c].abs()),
                    "{what}: mean {m} {}",
                    mean[c]
                );

                assert!(
                    (v - 0.9 - 0.1 * variance[c]).abs() < 1e-6 * (1.0 + variance[c]),
                    "{what}: variance {v}"
                );
            }
        }
    }
}

fn has_ghosts(net: &Net) -> bool {
    let mut norms = net.layers.iter().filter_map(|l| l.norm);
    norms.any(|norm| matches!(norm.scope, NormScope::GhostBatch(_)))
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let apart: f64 = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum();
    let size: f64 = b.iter().map(|y| y * y).sum();
    if size == 0.0 {
        apart.sqrt()
    } else {
        (apart / size).sqrt()
    }
}

#[test]
fn gradients_agree_with_autograd_on_every_architecture() {
    let norms = [
        (Norm::None, false),
        (Norm::Batch, false),
        (Norm::Batch, true),
        (Norm::GhostBatch { size: 6 }, false),
        (Norm::GhostBatch { size: 4 }, true),
        (Norm::Layer, false),
        (Norm::Layer, true),
        (Norm::Group { groups: 2 }, false),
        (Norm::Group { groups: 4 }, true),
    ];

    for (norm, affine) in norms {
        let preresnet = ModelKind::Preresnet { depth: 8, widen: 1 };
        GradientCase::from_kind(preresnet, norm, affine)
            .check(&format!("preresnet {norm:?} {affine}"));
        let vgg = ModelKind::Vgg {
            depth: VggDepth::Thirteen,
            width: 4,
        };
        GradientCase::from_kind(vgg, norm, affine).check(&format!("vgg {norm:?} {affine}"));

        if matches!(norm, Norm::Group { .. }) {
            let what = format!("{norm:?} {affine}");
            GradientCase::from_kind(
                ModelKind::Mlp {
                    hidden: vec![40, 20, 12],
                },
                norm,
                affine,
            )
            .check(&format!("mlp {what}"));

            GradientCase::from_kind(ModelKind::Cnn4 { width: 20 }, norm, affine)
                .check(&format!("cnn4 {what}"));
            continue;
        }

        for hidden in [vec![], vec![24], vec![40, 17, 5]] {
            let what = format!("mlp {hidden:?} {norm:?} {affine}");
            GradientCase::from_kind(ModelKind::Mlp { hidden }, norm, affine).check(&what);
        }

        for width in [1, 5, 16] {
            let what = format!("cnn4 {width} {norm:?} {affine}");
            GradientCase::from_kind(ModelKind::Cnn4 { width }, norm, affine).check(&what);
        }
    }
}

#[test]
fn gradients_agree_for_squared_errors() {
    let config = cases::small_trial(ModelKind::Cnn4 { width: 5 }, Norm::Batch);
    GradientCase::new(
        Net::from_config(&config).expect("not the empty model"),
        13,
        Loss::Mse,
    )
    .check("cnn4 mse");
}

#[test]
fn gradients_agree_for_targets() {
    for (kind, targets) in [
        (ModelKind::Mlp { hidden: vec![24] }, 1),
        (ModelKind::Cnn4 { width: 5 }, 3),
        (ModelKind::Mlp { hidden: vec![] }, 40),
    ] {
        let what = format!("{kind:?} {targets}");
        let mut config = cases::small_trial(kind, Norm::Batch);
        let dataset = cases::with_targets(DatasetName::Cifar10, targets);
        config.data.dataset = dataset.name;
        let net = Net::from_config(&config).expect("not the empty model");
        assert_eq!(net.classes, targets as usize);
        GradientCase::on_dataset(net, 13, Loss::Mse, dataset).check(&what);
    }
}

/// Two convolutions of any shape, then a head.
fn odd(input: ActivationShape, maps: [LinearOp; 2], norm: Option<NormSpec>) -> Net {
    let mut layers: Vec<Layer> = Vec::new();
    let mut at = input;

    for (i, map) in maps.into_iter().chain([LinearOp::Linear]).enumerate() {
        let channels = [7, 19, 10][i];
        let output = match map {
            LinearOp::Identity => at,
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
                    height: side(at.height),
                    width: side(at.width),
                    channels,
                }
            }
        };

        let hidden = i < 2;
        let name = format!("layer{i}");
        let norm = if hidden { norm } else { None };
        let source = i.checked_sub(1);
        let bias = norm.is_none();
        layers.push(Layer {
            name,
            source,
            add: None,
            input: at,
            output,
            linear_op: map,
            bias,
            norm,
            activation: if hidden {
                Activation::Relu
            } else {
                Activation::Identity
            },
            pool: Pool::None,
            trained: true,
        });

        at = output;
    }

    Net {
        input,
        classes: 10,
        layers,
    }
}

#[test]
fn gradients_agree_for_any_kernel_stride_and_padding() {
    let norm = Some(NormSpec {
        scope: NormScope::Batch,
        eps: 1e-5,
        affine: true,
    });

    for (kernel, stride, padding) in [
        (1, 1, 0),
        (1, 2, 0),
        (2, 1, 0),
        (2, 2, 1),
        (3, 1, 0),
        (3, 1, 1),
        (3, 2, 0),
        (3, 3, 1),
        (4, 3, 2),
        (5, 2, 2),
        (5, 1, 4),
    ] {
        let map = LinearOp::Conv {
            kernel,
            stride,
            padding,
        };

        let first = LinearOp::Conv {
            kernel: 3,
            stride: 2,
            padding: 1,
        };

        for norm in [None, norm] {
            let gray = ActivationShape {
                height: 28,
                width: 28,
                channels: 1,
            };
            GradientCase::new(
                odd(gray, [first, map], norm),
                5,
                CrossEntropy { smoothing: 0.0 },
            )
            .check(&format!("{map:?} after {first:?}, {norm:?}"));

            let wide = ActivationShape {
                height: 32,
                width: 32,
                channels: 3,
            };
            GradientCase::new(
                odd(wide, [map, first], norm),
                5,
                CrossEntropy { smoothing: 0.0 },
            )
            .check(&format!("{first:?} after {map:?}, {norm:?}"));
        }
    }
}

/// Central differences of the fast path's own loss along its gradient.
#[test]
fn gradients_agree_with_finite_differences() {
    for norm in [Norm::None, Norm::Batch, Norm::GhostBatch { size: 4 }] {
        for kind in [
            ModelKind::Mlp { hidden: vec![24] },
            ModelKind::Cnn4 { width: 4 },
        ] {
            let mut bench = GradientCase::from_kind(kind.clone(), norm, norm != Norm::None);
            let start = bench.packed.clone();
            let (_, gradient) = bench.fast(Isa::detect_fastest());
            let size = gradient
                .iter()
                .map(|g| f64::from(*g) * f64::from(*g))
                .sum::<f64>()
                .sqrt();

            // The loss over small ghost batches bends more.
            let step = if has_ghosts(&bench.net) { 5e-4 } else { 2e-3 };
            let mut loss_at = |sign: f64| {
                let moved = start
                    .iter()
                    .zip(&gradient)
                    .map(|(w, g)| (f64::from(*w) + sign * step * f64::from(*g) / size) as f32);
                bench.packed = moved.collect();

                bench.fast(Isa::detect_fastest()).0
            };
            let slope = (loss_at(1.0) - loss_at(-1.0)) / (2.0 * step);

            assert!(
                (slope / size - 1.0).abs() < 1e-2,
                "{kind:?} {norm:?}: {slope} against {size}"
            );
        }
    }
}

#[test]
fn kernels_give_the_same_bits_on_every_instruction_set() {
    let map = LinearOp::Conv {
        kernel: 3,
        stride: 2,
        padding: 1,
    };

    let input = ActivationShape {
        height: 28,
        width: 28,
        channels: 1,
    };

    let norm = Some(NormSpec {
        scope: NormScope::Batch,
        eps: 1e-5,
        affine: true,
    });
    let bits = |isa: Isa| {
        let (loss, gradient) = GradientCase::new(
            odd(input, [map, map], norm),
            5,
            CrossEntropy { smoothing: 0.1 },
        )
        .fast(isa);
        (
            loss.to_bits(),
            gradient.iter().map(|g| g.to_bits()).collect::<Vec<_>>(),
        )
    };

    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        assert!(bits(isa) == bits(Isa::Portable), "{isa}");
    }
}
