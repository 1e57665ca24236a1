//! A plain scalar reference of whole trials, against the committed fingerprints.
//!
//! It is written from `worker/NUMERICS.md` and `worker/numerics/` alone, by a reader who has not read the engine, and
//! calls nothing of it: its streams, transforms and sums are its own. So a fingerprint that it reaches shows that the
//! contract says all that decides a bit there. Of this module, only `adapter` knows types of other modules.
//!
//! What trials of the tables do not have is not there: augmentation, averages, label noise, images that are no bytes,
//! other initial weights, schedules by entries, and what follows from numbers that are not finite.

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

/// Trials that are left out, and why.
const LEFT_OUT: [(&str, &str); 2] = [
    (
        "mlp target",
        "the contract does not say what the accuracies of images with targets are",
    ),
    ("layers targets", "the same"),
];

fn compare_fingerprints(all: &[(&str, TrialConfig)], golden: &[&str]) {
    assert_eq!(all.len(), golden.len());
    let mut differing = Vec::new();
    for ((name, config), golden) in all.iter().zip(golden) {
        if LEFT_OUT.iter().any(|(left_out, _)| left_out == name) {
            continue;
        }
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

#[test]
fn what_is_left_out_is_a_trial() {
    let names: Vec<&str> = trials::short_trials()
        .iter()
        .map(|(name, _)| *name)
        .collect();
    for (name, _) in LEFT_OUT {
        assert!(names.contains(&name), "{name}");
    }
}

/// Random numbers of close sizes, so that sums lie halfway between two f32 at times, and denormal ones.
#[test]
fn products_are_added_with_a_single_rounding() {
    let mut stream = streams::PlainStream::fixed("products", 0);
    for exponent in [0_u32, 1, 60, 120, 127] {
        for _ in 0..100_000 {
            let mut next_number = |exponent: u32| {
                let bits = stream.next_u32();
                let coarse = bits & 0x807f_f000;
                f32::from_bits(coarse | (exponent + bits % 12) << 23)
            };
            let x = next_number(121);
            let row: Vec<f32> = (0..3).map(|_| next_number(exponent)).collect();
            let start: Vec<f32> = (0..3).map(|_| next_number(exponent)).collect();
            let mut sums = start.clone();
            activations::add_products(x, &row, &mut sums);
            for k in 0..3 {
                let expected = x.mul_add(row[k], start[k]);
                assert_eq!(sums[k].to_bits(), expected.to_bits());
            }
        }
    }
}
