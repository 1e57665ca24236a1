//! Ranges of a sweep's trials.

use ergodic_common::TrialKey;
use ergodic_common::ids::Repeat;

/// A range of trials, ordered by cell and repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialRange {
    /// The first trial of the range.
    pub from: TrialKey,
    /// The first trial after the range.
    pub to: TrialKey,
}

/// Mean number of cells per range from which on ranges consist of whole cells, whose sizes then
/// differ little.
const MIN_WHOLE_CELLS: u64 = 4;

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

    /// Whether the range consists of whole cells.
    pub fn has_whole_cells(&self) -> bool {
        self.from.repeat == Repeat(0) && self.to.repeat == Repeat(0)
    }

    /// Splits all trials into at most `n` ranges, of about equal size if cells are numbered below
    /// `cells` and repeats below `repeats`. Ranges consist of whole cells if there are many.
    pub fn split_all(cells: u64, repeats: u32, n: u64) -> Vec<Self> {
        let all = u128::from(cells) * u128::from(repeats);
        let whole_cells = cells >= MIN_WHOLE_CELLS.saturating_mul(n);
        let mut starts: Vec<TrialKey> = (0..n.max(1))
            .map(|part| {
                let trial = all * u128::from(part) / u128::from(n.max(1));
                let repeats = u128::from(repeats.max(1));
                let within = if whole_cells { 0 } else { trial % repeats };
                TrialKey::new((trial / repeats) as u64, within as u32)
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
        fn every_trial_is_in_one_part(cells in 1_u64..40, repeats in 1_u32..9, n in 1_u64..40) {
            let parts = TrialRange::split_all(cells, repeats, n);
            if cells >= MIN_WHOLE_CELLS * n {
                prop_assert!(parts.iter().all(TrialRange::has_whole_cells));
            }
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
