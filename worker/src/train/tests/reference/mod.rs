//! A plain scalar reference of whole trials, against the committed fingerprints.
//!
//! The reference is written from `worker/NUMERICS.md` and `worker/numerics/` alone, by a reader who has not read the engine,
//! and calls nothing of it: its streams, transforms and sums are its own. So a fingerprint that it reaches shows that the
//! contract says all that decides a bit there. Of this module, only `adapter` knows types of other modules.
//!
//! What trials of the tables do not have is not there: augmentation, averages, label noise, images that are no bytes,
//! other initial weights and schedules, weight decay of some parameters, and what follows from numbers that are not finite.

mod activations;
mod adapter;
mod backward;
mod data;
mod direct;
mod forward;
mod listed;
mod loss;
mod nets;
mod normed;
mod norms;
mod optimizers;
mod params;
mod pools;
mod streams;
mod tiles;
mod trial;

use ergodic_common::config::TrialConfig;

use super::{optimizers as other_steps, trials};

fn compare_fingerprints(all: &[(&str, TrialConfig)], golden: &[&str]) {
    assert_eq!(all.len(), golden.len());
    let mut differing = Vec::new();
    for ((name, config), golden) in all.iter().zip(golden) {
        let result = trial::run_plain_trial(&adapter::convert_trial(name, config));
        if result.fingerprint() != *golden {
            differing.push(*name);
        }
    }
    assert_eq!(differing, Vec::<&str>::new(), "trials that differ");
}

#[test]
fn the_plain_reference_ends_in_the_committed_bits() {
    compare_fingerprints(&trials::short_trials(), &trials::GOLDEN);
}

#[test]
fn the_plain_reference_ends_in_the_committed_bits_of_other_steps() {
    compare_fingerprints(&other_steps::trials(), &other_steps::GOLDEN);
}

/// Products that end just beside the middle between two f32, normal and denormal ones, and random numbers.
#[test]
fn products_are_added_with_a_single_rounding() {
    let near_one = [1.0 + f32::EPSILON, 1.0 - f32::EPSILON];
    let tiny = f32::from_bits(1);
    for k in 0..10_000_u16 {
        for sign in [1.0, -1.0] {
            let start = 1.0 + f32::from(k) * f32::EPSILON;
            let half = sign * f32::EPSILON / 2.0;
            check_product(near_one[0] * half, near_one[1], start);

            let size = 2.0_f32.powi(-75);
            check_product(
                sign * near_one[0] * size,
                near_one[1] * size,
                f32::from(k) * tiny,
            );
        }
    }

    let mut stream = streams::PlainStream::fixed("products", 0);
    for _ in 0..100_000 {
        let [x, w, start] = [0, 1, 2].map(|_| f32::from_bits(stream.next_u32()));
        if (x * w + start).is_finite() {
            check_product(x, w, start);
        }
    }
}

fn check_product(x: f32, w: f32, start: f32) {
    let mut sums = [start; 17];
    activations::add_products(x, &[w; 17], &mut sums);
    let expected = x.mul_add(w, start).to_bits();
    assert!(
        sums.iter().all(|sum| sum.to_bits() == expected),
        "{x} {w} {start}"
    );
}
