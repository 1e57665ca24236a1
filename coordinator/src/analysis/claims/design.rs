//! Which repeats are independent of each other, and how they are resampled.

use std::collections::BTreeSet;

use ergodic_common::Spec;
use ergodic_common::random_streams::RandomStream;

use crate::estimators::crossed_layout::CrossedLayout;
use crate::estimators::jackknife::FEW_LEVELS;

/// Number of resamples of whole repeats.
pub(super) const CLAIM_RESAMPLES: usize = 2_000;
/// Number of repeats above which mean curves are not resampled, which would take too much memory.
const MAX_RESAMPLED_REPEATS: u32 = 5_000;
/// Number of repeats from which on none are advised.
const MAX_ADVISED_REPEATS: u64 = 1_000_000_000;

/// How many repeats an effect is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SampleSize {
    pub(super) repeats: u64,
    /// How many of them are independent: all or, where streams are crossed, the levels of the stream with the fewest.
    pub(super) units: u64,
}

/// The design of a sweep's repeats.
#[derive(Debug, Clone)]
pub(super) struct RepeatDesign {
    crossed: Option<CrossedLayout>,
}

/// Resamples of whole repeats, the same for all cells: how often each repeat was drawn.
#[derive(Debug, Clone, Default)]
pub(super) struct RepeatDraws(Vec<Vec<u16>>);

impl RepeatDesign {
    pub(super) fn from_spec(spec: &Spec) -> Self {
        let is_crossed = !spec.seeds.crossed.is_empty();
        Self {
            crossed: is_crossed.then(|| CrossedLayout::from_spec(spec)),
        }
    }

    pub(super) fn is_crossed(&self) -> bool {
        self.crossed.is_some()
    }

    /// Number of random streams whose levels are deleted in turn; without crossed ones, repeats are the levels of one.
    pub(super) fn stream_count(&self) -> usize {
        self.crossed.as_ref().map_or(1, |layout| layout.sizes.len())
    }

    /// Whether a crossed stream has so few levels that the degrees of freedom are theirs.
    pub(super) fn has_few_levels(&self) -> bool {
        let crossed = self.crossed.as_ref();
        crossed.is_some_and(|layout| layout.sizes.iter().any(|levels| *levels < FEW_LEVELS))
    }

    /// The number of repeats that have as many units as wanted, if a sweep with `units` has those of today; `None` if there would be too
    /// many. Where streams are crossed, each gets as many more levels.
    pub(super) fn repeats_with_units(&self, wanted: u64, units: u64) -> Option<u64> {
        let Some(layout) = &self.crossed else {
            return Some(wanted);
        };
        let mut repeats = layout.replicates as u64;
        for levels in &layout.sizes {
            let levels = (*levels as u64).checked_mul(wanted)?;
            repeats = repeats.checked_mul(levels.div_ceil(units.max(1)))?;
        }
        (repeats < MAX_ADVISED_REPEATS).then_some(repeats)
    }

    /// How many of these repeats are independent.
    pub(super) fn sample_size(&self, repeats: &[u32]) -> SampleSize {
        let levels = self.levels_of_repeats(repeats).into_iter();
        let counts = levels.map(|levels| levels.into_iter().collect::<BTreeSet<_>>().len());
        SampleSize {
            repeats: repeats.len() as u64,
            units: counts.min().unwrap_or(0) as u64,
        }
    }

    /// The name of the units.
    pub(super) fn units_name(&self) -> &'static str {
        match self.is_crossed() {
            true => "levels of each crossed stream",
            false => "repeats",
        }
    }

    /// The level of each of these repeats, for each stream.
    pub(super) fn levels_of_repeats(&self, repeats: &[u32]) -> Vec<Vec<usize>> {
        let streams = (0..self.stream_count()).map(|stream| {
            let levels = repeats.iter().map(|repeat| self.group_of(stream, *repeat));
            levels.collect()
        });
        streams.collect()
    }

    /// The level of a stream in a repeat.
    pub(super) fn group_of(&self, stream: usize, repeat: u32) -> usize {
        let repeat = repeat as usize;
        self.crossed
            .as_ref()
            .map_or(repeat, |layout| layout.level_of_repeat(stream, repeat))
    }
}

impl RepeatDraws {
    /// Draws resamples of `repeats` repeats; none if there are too many.
    pub(super) fn draw(repeats: u32, stream: &mut RandomStream) -> Self {
        if repeats > MAX_RESAMPLED_REPEATS {
            return Self::default();
        }

        let resamples = (0..CLAIM_RESAMPLES).map(|_| {
            let mut times = vec![0_u16; repeats as usize];
            for _ in 0..repeats {
                let drawn = &mut times[stream.next_below(repeats) as usize];
                *drawn = drawn.saturating_add(1);
            }
            times
        });
        Self(resamples.collect())
    }

    /// How often a repeat was drawn, for each resample.
    pub(super) fn resamples(&self) -> impl Iterator<Item = &[u16]> {
        self.0.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
impl RepeatDraws {
    /// Resamples with these numbers of draws of each repeat.
    pub(super) fn from_counts(counts: Vec<Vec<u16>>) -> Self {
        Self(counts)
    }
}
