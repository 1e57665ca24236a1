//! The seeds that a program gets, by the same rule as all random streams.
//!
//! A seed depends on the sweep's seed, a purpose and the repeat alone: trials of the same repeat share it, so that cells can
//! be compared pairwise. `seeds` of the sweep file changes that for the purposes that it may name. Seeds are below 2^53, so that
//! JSON readers and floats keep them exactly.

use crate::random_streams::{NAMED_PURPOSES, Purpose, Streams};

/// Bits of a 64-bit number that are dropped, so that 53 are left.
const DROPPED_BITS: u32 = 11;

/// The seed `{seed}` of a trial. It has a purpose of its own, on which `seeds` has no effect.
pub fn trial_seed(streams: &Streams) -> u64 {
    draw_seed(streams, Purpose::Program)
}

/// The seed `{seed.PURPOSE}` of a trial.
pub fn seed_of_purpose(streams: &Streams, purpose: Purpose) -> u64 {
    draw_seed(streams, purpose)
}

/// All seeds by purpose, in the order of [`NAMED_PURPOSES`].
pub fn seeds_by_purpose(streams: &Streams) -> Vec<(&'static str, u64)> {
    NAMED_PURPOSES
        .iter()
        .map(|(name, purpose)| (*name, draw_seed(streams, *purpose)))
        .collect()
}

/// The purpose that a sweep file names so.
pub fn find_purpose(name: &str) -> Option<Purpose> {
    let mut purposes = NAMED_PURPOSES.iter();
    purposes
        .find(|(word, _)| *word == name)
        .map(|(_, purpose)| *purpose)
}

fn draw_seed(streams: &Streams, purpose: Purpose) -> u64 {
    let bytes = streams.open_stream(purpose, b"program seed").next_bytes();
    let (first, _) = bytes.split_first_chunk().expect("there are 32 bytes");
    u64::from_le_bytes(*first) >> DROPPED_BITS
}

#[cfg(test)]
mod tests {
    use crate::ids::{CellHash, Repeat};
    use crate::program::seeds::*;
    use crate::random_streams::SeedPlan;

    fn streams(repeat: u32, cell: u8, plan: SeedPlan) -> Streams {
        Streams {
            sweep_seed: 7,
            repeat: Repeat(repeat),
            cell: CellHash([cell; 32]),
            plan,
        }
    }

    #[test]
    fn seeds_follow_purpose_and_repeat_and_fit_into_a_float() {
        let plain = |repeat, cell| streams(repeat, cell, SeedPlan::default());
        let seeds = seeds_by_purpose(&plain(0, 0));
        assert_eq!(seeds, seeds_by_purpose(&plain(0, 1)));
        assert_ne!(seeds, seeds_by_purpose(&plain(1, 0)));
        assert_ne!(seeds[0].1, seeds[1].1);

        let seed = trial_seed(&plain(0, 0));
        assert_eq!(seed, trial_seed(&plain(0, 1)));
        assert!(seeds.iter().all(|(_, other)| *other != seed));
        assert!(seeds.iter().all(|(_, seed)| *seed < 1 << 53));
    }

    #[test]
    fn designs_of_seeds_act_on_the_seeds_of_a_program() {
        let fixed = SeedPlan {
            fixed: vec![Purpose::Init],
            per_cell: vec![Purpose::Order],
            ..SeedPlan::default()
        };
        let of =
            |repeat, cell, purpose| seed_of_purpose(&streams(repeat, cell, fixed.clone()), purpose);
        assert_eq!(of(0, 0, Purpose::Init), of(1, 1, Purpose::Init));
        assert_ne!(of(0, 0, Purpose::Order), of(0, 1, Purpose::Order));
        assert_ne!(of(0, 0, Purpose::Augment), of(1, 0, Purpose::Augment));
    }
}
