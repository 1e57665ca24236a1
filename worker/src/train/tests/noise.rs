//! The noise of gradients against NumPy, which computes the gradients by the chain rule in f64
//! (`tests/oracles/noise.py`).

use ergodic_common::config::{Loss, ModelKind, Norm};
use ergodic_common::net::{ActivationShape, Net};
use serde_json::Value;

use super::cases;
use super::torch::{bits, initial, values};
use crate::train::data::ImageBatch;
use crate::train::engine::CpuEngine;
use crate::train::engine::simd::Simd16;
use crate::train::measure::gradient_noise::{GradientNoise, NoiseRequest};
use crate::train::{Isa, SimdProgram};

const FIXTURE: &str = include_str!("../../../../tests/oracles/noise.json");

const INPUTS: usize = 25;
const IMAGES: usize = 40;
const BATCH: usize = 8;

/// Measures the noise of one case of the fixture.
struct MeasureNoise<'a> {
    net: &'a Net,
    found: &'a mut Option<GradientNoise>,
}

impl SimdProgram for MeasureNoise<'_> {
    fn run_with<S: Simd16>(self, s: S) {
        let loss = Loss::CrossEntropy { smoothing: 0.0 };
        let mut engine = CpuEngine::new(self.net, loss, BATCH, BATCH, 1);
        let images: Vec<f32> = values("noise.images", 1.0)
            .take(IMAGES * INPUTS)
            .map(|x| x as f32)
            .collect();
        let labels: Vec<u8> = bits("noise.labels")
            .take(IMAGES)
            .map(|z| (z % 10) as u8)
            .collect();
        let mut drawn = bits("noise.batches").map(|z| (z % IMAGES as u64) as u32);

        let layout = &engine.layout;
        let len = layout.len;
        let weights = initial(layout);
        let trained = layout.matching_ranges(|p| p.trained);
        let has_norms = layout.params.iter().any(|p| p.param.normed);
        let compared = layout.matching_ranges(|p| p.normed || !has_norms);
        let request = NoiseRequest {
            batch: BATCH,
            trained: &trained,
            compared_weights: Some((&weights, &compared)),
            wants_dimension: true,
        };

        *self.found = Some(request.estimate_noise(len, |gradient| {
            let indices: Vec<u32> = drawn.by_ref().take(BATCH).collect();
            let batch = ImageBatch::from_floats(&images, &labels, &indices);
            engine.compute_gradient(s, &weights, &batch, gradient);
        }));
    }
}

#[test]
fn gradient_noise_is_that_of_numpy() {
    let fixture: Value = serde_json::from_str(FIXTURE).expect("the fixture is JSON");
    let all = fixture["cases"].as_array().expect("a list");
    assert_eq!(all.len(), 3);

    for case in all {
        let number = |key: &str| case[key].as_f64().expect("a number");
        let norm = if case["norm"] == true {
            Norm::Batch
        } else {
            Norm::None
        };
        let mut config = cases::small_trial(
            ModelKind::Mlp {
                hidden: vec![16, 12],
            },
            norm,
        );
        config.model.norm_eps = number("eps");
        let input = ActivationShape {
            height: 5,
            width: 5,
            channels: 1,
        };
        let net = Net::from_model(&config.model, input, 10).expect("not the empty model");

        let mut all_found = Vec::new();
        for isa in [Isa::detect_fastest(), Isa::Portable] {
            let mut found = None;
            isa.run_program(MeasureNoise {
                net: &net,
                found: &mut found,
            });
            all_found.push(found.expect("it was measured"));
        }
        assert_eq!(all_found[0], all_found[1], "{case}");

        // A cosine of 1e-5 has the rounding errors of gradients in f32.
        let found = all_found[0];
        for (name, value, absolute) in [
            ("grad_noise_trace", found.trace, 0.0),
            ("grad_noise_hill", found.tail_index, 0.0),
            ("grad_noise_cos", found.weight_cosine, 1e-7),
            ("grad_noise_dim", found.dimension, 0.0),
        ] {
            let expected = number(name);
            let limit = 2e-5 * expected + absolute;
            assert!(
                (value - expected).abs() < limit,
                "{name}: {value} against {expected} in {case}"
            );
        }
    }
}
