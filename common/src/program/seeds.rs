//! The seeds that a program gets, by the same rule as all random streams.
//!
//! A seed depends on the sweep's seed, a purpose and the repeat alone: trials of the same repeat share it, so that cells can
//! be compared pairwise. `seeds` of the sweep file changes that for the purposes that it may name. Seeds are below 2^53, so that
//! JSON readers and floats keep them exactly.

use super::{PYTHON_HELPER, Placeholder, Program};
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

impl Program {
    /// The streams that decide what differs between repeats, as far as the sweep file shows it: those of `{seed.PURPOSE}`, unless the
    /// program sees the repeat by `{seed}`, `{repeat}` or the helper. A program that names no seed finds its own.
    pub fn named_streams(&self) -> Vec<Purpose> {
        let named = self.seed_purposes();
        match self.names_repeat() || self.has_helper() || named.is_empty() {
            true => vec![Purpose::Program],
            false => named,
        }
    }

    /// Whether the sweep file does not show which streams the program uses: all reach it by the helper, or by `ERGODIC_TRIAL` if its
    /// command names none. What a command names is seen.
    pub(crate) fn hides_streams(&self) -> bool {
        !self.names_repeat() && (self.has_helper() || self.seed_purposes().is_empty())
    }

    fn has_helper(&self) -> bool {
        self.files.iter().any(|name| name == PYTHON_HELPER)
    }

    /// Whether `{seed}` or `{repeat}` is a part of the command or of a variable.
    fn names_repeat(&self) -> bool {
        self.has_placeholder(|one| matches!(one, Placeholder::Seed | Placeholder::Repeat))
    }

    /// The purposes of `{seed.PURPOSE}`, in the order of [`NAMED_PURPOSES`].
    fn seed_purposes(&self) -> Vec<Purpose> {
        let is_named = |name: &str| {
            self.has_placeholder(|one| matches!(one, Placeholder::SeedOf(of) if of == name))
        };
        let named = NAMED_PURPOSES.iter().filter(|(name, _)| is_named(name));
        named.map(|(_, purpose)| *purpose).collect()
    }

    fn has_placeholder(&self, is_wanted: impl Fn(&Placeholder) -> bool) -> bool {
        let mut templates = self.templates();
        templates.any(|(_, text)| text.placeholders().any(&is_wanted))
    }
}

fn draw_seed(streams: &Streams, purpose: Purpose) -> u64 {
    let bytes = streams.open_stream(purpose, b"program seed").next_bytes();
    let (first, _) = bytes.split_first_chunk().expect("there are 32 bytes");
    u64::from_le_bytes(*first) >> DROPPED_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        assert_ne!(of(0, 0, Purpose::Order), of(1, 0, Purpose::Order));
    }

    #[test]
    fn crossed_seeds_meet_each_other_once_and_the_seed_of_a_trial_follows_the_repeat_alone() {
        let crossed = SeedPlan {
            crossed: vec![(Purpose::Init, 2), (Purpose::Order, 3)],
            ..SeedPlan::default()
        };
        let of = |repeat, purpose| seed_of_purpose(&streams(repeat, 0, crossed.clone()), purpose);
        let pairs: BTreeSet<_> = (0..6)
            .map(|repeat| (of(repeat, Purpose::Init), of(repeat, Purpose::Order)))
            .collect();
        let levels = |purpose| -> usize {
            let seeds: BTreeSet<u64> = (0..6).map(|repeat| of(repeat, purpose)).collect();
            seeds.len()
        };
        assert_eq!(
            (pairs.len(), levels(Purpose::Init), levels(Purpose::Order)),
            (6, 2, 3)
        );

        let everything = SeedPlan {
            fixed: vec![Purpose::Init, Purpose::Head],
            per_cell: vec![Purpose::Order, Purpose::Augment],
            ..SeedPlan::default()
        };
        for plan in [crossed, everything] {
            let of = |repeat, cell| trial_seed(&streams(repeat, cell, plan.clone()));
            let plain = |repeat| trial_seed(&streams(repeat, 0, SeedPlan::default()));
            assert_eq!((of(0, 1), of(5, 2)), (plain(0), plain(5)));
            assert_ne!(of(0, 0), of(5, 0));
        }
    }
}
