//! Ranges of a sweep's trials.

use ergodic_common::TrialKey;

/// A range of trials, ordered by cell and repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialRange {
    /// The first trial of the range.
    pub from: TrialKey,
    /// The first trial after the range.
    pub to: TrialKey,
}

impl TrialRange {
    /// The range of all trials, whose numbers stay far below 2^63.
    pub const ALL: Self = Self {
        from: TrialKey::new(0, 0),
        to: TrialKey::new(i64::MAX as u64, 0),
    };

    /// Whether the range contains a trial.
    pub fn contains(&self, key: TrialKey) -> bool {
        self.from <= key && key < self.to
    }

    /// Splits all trials into at most `n` ranges, of equal size if cells are numbered below `cells`
    /// and repeats below `repeats`.
    pub fn split_all(cells: u64, repeats: u32, n: u64) -> Vec<Self> {
        let all = u128::from(cells) * u128::from(repeats);
        let mut starts: Vec<TrialKey> = (0..n.max(1))
            .map(|part| {
                let trial = all * u128::from(part) / u128::from(n.max(1));
                let repeats = u128::from(repeats.max(1));
                TrialKey::new((trial / repeats) as u64, (trial % repeats) as u32)
            })
            .collect();
        starts.dedup();

        let ends = starts.iter().copied().skip(1).chain([Self::ALL.to]);
        starts
            .iter()
            .zip(ends)
            .map(|(from, to)| Self { from: *from, to })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::store::trial_range::*;

    proptest! {
        #[test]
        fn every_trial_is_in_one_part(cells in 1_u64..9, repeats in 1_u32..9, n in 1_u64..40) {
            let parts = TrialRange::split_all(cells, repeats, n);
            prop_assert!(parts.len() as u64 <= n);
            prop_assert!(parts.windows(2).all(|two| two[0].to == two[1].from));
            for cell in 0..cells {
                for repeat in 0..repeats + 2 {
                    let key = TrialKey::new(cell, repeat);
                    prop_assert_eq!(parts.iter().filter(|part| part.contains(key)).count(), 1);
                }
            }
        }
    }
}
