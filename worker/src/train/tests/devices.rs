//! Networks on stock operations: on the CPU always, and on a CUDA device where this build and machine have one.

use std::io::Write as _;

use candle_core::{DType, Device, Tensor, Var};
use ergodic_common::config::{Length, ModelKind, Norm, TrialConfig, VggDepth};
use ergodic_common::dataset::Target;
use ergodic_common::dataset::name::DatasetName;
use ergodic_common::metric::Metric;
use ergodic_common::net::{Net, Param, ParamRole};
use ergodic_common::spec::Measure;
use ergodic_common::spec::saved_moments::SavedMoments;
use ergodic_common::trial::{Outcome, TrialResult};

use super::cases;
use crate::train::CandleDevice;
use crate::train::candle::net;
use crate::train::candle::net::CandleParams;

/// The CPU, and the first CUDA device if there is one. Says aloud what is left out.
pub(crate) fn candle_devices() -> Vec<CandleDevice> {
    let cpu = CandleDevice {
        device: Device::Cpu,
        numerics_class: "stock-cpu".into(),
        name: "stock",
    };
    std::iter::once(cpu).chain(cuda()).collect()
}

#[cfg(feature = "cuda")]
fn cuda() -> Option<CandleDevice> {
    match Device::new_cuda(0) {
        Ok(device) => Some(CandleDevice {
            device,
            numerics_class: "cuda".into(),
            name: "cuda",
        }),
        Err(error) => {
            aloud(&format!("there is no usable device ({error})"));
            None
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Option<CandleDevice> {
    aloud("this build has no CUDA");
    None
}

/// Bypasses the test runner, which hides the output of passing tests.
fn aloud(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED on CUDA: {why}");
}

/// A small trial of every architecture and norm.
fn trials() -> Vec<TrialConfig> {
    let kinds = [
        ModelKind::Mlp {
            hidden: vec![24, 17],
        },
        ModelKind::Cnn4 { width: 4 },
        ModelKind::Preresnet { depth: 8, widen: 1 },
        ModelKind::Vgg {
            depth: VggDepth::Eleven,
            width: 4,
        },
    ];

    let norms = [
        Norm::None,
        Norm::Batch,
        Norm::GhostBatch { size: 4 },
        Norm::Group { groups: 2 },
        Norm::Layer,
    ];

    let fits = |kind: &ModelKind, norm: Norm| {
        !matches!((kind, norm), (ModelKind::Mlp { .. }, Norm::Group { .. }))
    };
    let pairs = kinds
        .iter()
        .flat_map(|kind| norms.map(|norm| (kind.clone(), norm)));
    let pairs = pairs.filter(|(kind, norm)| fits(kind, *norm));
    let listed = cases::LISTED.map(|(_, layers)| cases::listed_trial(DatasetName::Glyphs, layers));
    pairs
        .map(|(kind, norm)| cases::on_its_images(cases::small_trial(kind, norm)))
        .chain(listed)
        .collect()
}

const METRICS: [Metric; 6] = [
    Metric::TrainLoss,
    Metric::TestLoss,
    Metric::WeightNormSq,
    Metric::GradNorm,
    Metric::AngularUpdate,
    Metric::AverageTestLoss,
];

fn result(config: &TrialConfig, candle: Option<&CandleDevice>) -> TrialResult {
    let measure = Measure {
        save: SavedMoments::of_end(),
        ..Measure::with_metrics(Length::Steps(1), METRICS.to_vec())
    };
    cases::result_at(config, &measure, candle)
}

#[test]
fn trials_on_stock_operations_agree_with_the_trainers_own_engine() {
    for candle in candle_devices() {
        for mut config in trials() {
            config.train.average = Some(cases::every_step());
            // Rounding differs, and grows from step to step.
            config.train.length = Length::Steps(2);
            let own = result(&config, None);
            let stock = result(&config, Some(&candle));
            assert_eq!(
                (&stock.outcome, stock.isa.as_str()),
                (&Outcome::Completed, candle.name)
            );

            for (at, (own, stock)) in own.curve.values.iter().zip(&stock.curve.values).enumerate() {
                let metric = &METRICS[at % METRICS.len()];
                let close = (own - stock).abs() < 2e-3 * (own.abs() + stock.abs())
                    || own.is_nan() && stock.is_nan();
                assert!(
                    close,
                    "{:?} {:?}: {own} and {stock} for {metric:?}",
                    config.model.kind, config.model.norm
                );
            }
        }
    }
}

#[test]
fn a_trial_on_stock_operations_ends_in_the_same_bits_again() {
    for candle in candle_devices() {
        let config = cases::small_trial(ModelKind::Cnn4 { width: 4 }, Norm::Batch);
        assert_eq!(
            result(&config, Some(&candle)).digest,
            result(&config, Some(&candle)).digest
        );
    }
}

#[test]
fn a_trial_on_stock_operations_diverges_at_its_step() {
    for candle in candle_devices() {
        let mut config = cases::mlp();
        config.train.lr = 1e30;
        assert!(matches!(
            result(&config, Some(&candle)).outcome,
            Outcome::Diverged { step: 1..=3 }
        ));
    }
}

/// Parameters of lanes, each with numbers of its own; the second lane's are too large to stay finite.
fn lanes(net: &Net, numbers: &[usize], device: &Device) -> CandleParams {
    let of_lane = |param: &Param, lane: usize| -> Vec<f64> {
        let mut stream = ergodic_common::random_streams::fixed_stream(&param.name, lane as u64);
        let wild = if lane == 1 { 1e25 } else { 1.0 };
        let (centre, spread) = match param.role {
            ParamRole::Weight => (0.0, (2.0 / param.fan_in as f64).sqrt()),
            _ => (1.0, 0.3),
        };
        (0..param.len)
            .map(|_| wild * (centre + spread * stream.next_normal()))
            .collect()
    };
    let all = |param: &Param| {
        numbers
            .iter()
            .flat_map(|lane| of_lane(param, *lane))
            .collect::<Vec<f64>>()
    };
    let var = |param: &Param| {
        net::build_param(&all(param), numbers.len(), DType::F32, device).expect("a tensor")
    };

    net.params().iter().map(var).collect()
}

/// Bits of each lane's loss and parameters after some steps of descent.
fn descend(net: &Net, numbers: &[usize], device: &Device) -> Vec<Vec<u32>> {
    const BATCH: usize = 3;
    let params = lanes(net, numbers, device);
    let mut stream = ergodic_common::random_streams::fixed_stream("images", 0);
    let image: Vec<f32> = (0..BATCH * net.input.len())
        .map(|_| stream.next_normal() as f32)
        .collect();

    let shape = (
        1,
        BATCH,
        net.input.height,
        net.input.width,
        net.input.channels,
    );
    let images = Tensor::from_vec(image, shape, &Device::Cpu)
        .and_then(|x| x.to_device(device))
        .expect("a tensor");
    let images = images
        .repeat((numbers.len(), 1, 1, 1, 1))
        .expect("a tensor");

    let labels: Vec<u8> = (0..numbers.len() * BATCH)
        .map(|i| (i % BATCH) as u8)
        .collect();
    let mut bits = vec![Vec::new(); numbers.len()];
    let mut keep = |tensor: &Tensor| {
        let rows = tensor
            .reshape((numbers.len(), ()))
            .and_then(|x| x.to_vec2::<f32>())
            .expect("numbers");
        let canonical = |x: f32| {
            if x.is_nan() {
                f32::NAN.to_bits()
            } else {
                x.to_bits()
            }
        };

        bits.iter_mut()
            .zip(rows)
            .for_each(|(bits, row)| bits.extend(row.into_iter().map(canonical)));
    };

    for _ in 0..2 {
        let passed = net::forward_pass(net, &params, &images, None).expect("a pass");
        let loss = ergodic_common::config::Loss::CrossEntropy { smoothing: 0.1 };
        let targets = labels.iter().map(|label| Target::Label(*label));
        let objective = net::compute_objective(&passed.logits, targets, loss, 1.0 / BATCH as f64)
            .expect("a loss");
        keep(&objective);
        let gradients = net::compute_gradients(&params, &objective).expect("a gradient");

        let step = |var: &Var, gradient: &Tensor| var.set(&(var.as_tensor() - (gradient * 0.1)?)?);
        params
            .iter()
            .zip(&gradients)
            .for_each(|(var, g)| step(var, g).expect("a step"));
    }

    params.iter().for_each(|var| keep(var.as_tensor()));
    bits
}

#[test]
fn lanes_do_not_touch_each_other_and_a_diverging_one_harms_none() {
    for candle in candle_devices() {
        // Every architecture, every norm.
        for config in [0, 4, 9, 14].map(|at| trials().swap_remove(at)) {
            let net = Net::from_config(&config).expect("a network");
            // On CUDA, cuBLAS may choose another kernel for another number of lanes: no promise is made there.
            let device = &candle.device;
            if device.is_cuda() {
                continue;
            }

            let eight = descend(&net, &[0, 1, 2, 3, 4, 5, 6, 7], device);
            let three = descend(&net, &[4, 1, 7], device);
            let what = format!("{:?} {:?}", config.model.kind, config.model.norm);
            assert_eq!(
                (&three[0], &three[1], &three[2]),
                (&eight[4], &eight[1], &eight[7]),
                "{what}"
            );

            for lane in [0, 1, 6] {
                assert_eq!(
                    descend(&net, &[lane], device)[0],
                    eight[lane],
                    "{what}, lane {lane} alone"
                );
            }

            assert!(
                eight[1].contains(&f32::NAN.to_bits()) || config.model.norm != Norm::None,
                "{what}"
            );
            assert!(!eight[0].contains(&f32::NAN.to_bits()), "{what}");
        }
    }
}
