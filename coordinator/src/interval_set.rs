//! A set of numbers, stored as disjoint ranges, such as the pending trials of a class.

use std::collections::BTreeMap;

/// A set of `u64`, efficient if it consists of few ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntervalSet {
    /// Starts and exclusive ends of ranges, which neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl IntervalSet {
    /// The numbers from `from` up to but not including `to`.
    pub fn from_range(from: u64, to: u64) -> Self {
        let mut set = Self::default();
        set.insert(from, to);
        set
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The smallest number.
    pub fn first(&self) -> Option<u64> {
        self.ranges.keys().next().copied()
    }

    /// The smallest number that is not in the set.
    pub fn first_gap(&self) -> u64 {
        self.ranges.get(&0).copied().unwrap_or(0)
    }

    /// Whether the set holds `n`.
    pub fn contains(&self, n: u64) -> bool {
        self.ranges
            .range(..=n)
            .next_back()
            .is_some_and(|(_, to)| n < *to)
    }

    /// The ranges, ascending, with exclusive ends.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(from, to)| (*from, *to))
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges().flat_map(|(from, to)| from..to)
    }

    /// Adds the numbers from `from` up to but not including `to`.
    pub fn insert(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }

        while let Some((start, end)) = self.ranges.range(..=to).next_back().map(|(s, e)| (*s, *e)) {
            if end < from {
                break;
            }

            self.ranges.remove(&start);
            self.len -= end - start;
            from = from.min(start);
            to = to.max(end);
        }

        self.ranges.insert(from, to);
        self.len += to - from;
    }

    /// Adds all numbers of another set.
    pub fn insert_all(&mut self, other: &Self) {
        other.ranges().for_each(|(from, to)| self.insert(from, to));
    }

    /// Removes `n`; returns whether it was in the set.
    pub fn remove(&mut self, n: u64) -> bool {
        let Some((start, end)) = self.ranges.range(..=n).next_back().map(|(s, e)| (*s, *e)) else {
            return false;
        };
        if n >= end {
            return false;
        }

        self.ranges.remove(&start);
        self.len -= end - start;
        self.insert(start, n);
        self.insert(n + 1, end);
        true
    }

    /// Removes those of these ascending numbers that are in the set, in a single pass.
    pub fn remove_all(&mut self, sorted: &[u64]) {
        let mut gone = sorted.iter().copied().peekable();
        for (mut from, to) in std::mem::take(self).ranges {
            while let Some(n) = gone.next_if(|n| *n < to) {
                if n >= from {
                    self.append_range(from, n);
                    from = n + 1;
                }
            }

            self.append_range(from, to);
        }
    }

    /// Adds numbers above all elements.
    fn append_range(&mut self, from: u64, to: u64) {
        if from < to {
            self.ranges.insert(from, to);
            self.len += to - from;
        }
    }

    /// Removes and returns the `n` smallest elements, or all if there are fewer.
    pub fn take_smallest(&mut self, n: u64) -> Self {
        let mut taken = Self::default();
        while taken.len < n {
            let Some((from, to)) = self.ranges.pop_first() else {
                break;
            };
            self.len -= to - from;
            let cut = to.min(from + (n - taken.len));
            taken.insert(from, cut);

            self.insert(cut, to);
        }

        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::IntervalSet;

    proptest! {
        /// Any sequence of operations leaves the same numbers as on a plain set.
        #[test]
        fn behaves_like_a_set(ops in prop::collection::vec((0..4_u8, 0..60_u64, 0..12_u64), 0..60)) {
            let (mut set, mut model) = (IntervalSet::default(), BTreeSet::new());
            for (op, at, n) in ops {
                match op {
                    3 => {
                        let gone: Vec<u64> = (at..at + 3 * n).step_by(1 + n as usize % 3).collect();
                        set.remove_all(&gone);
                        gone.iter().for_each(|x| { model.remove(x); });
                    }
                    0 => {
                        set.insert(at, at + n);
                        model.extend(at..at + n);
                    }
                    1 => prop_assert_eq!(set.remove(at), model.remove(&at)),
                    _ => {
                        let wanted: Vec<u64> = model.iter().take(n as usize).copied().collect();
                        wanted.iter().for_each(|x| { model.remove(x); });
                        prop_assert_eq!(set.take_smallest(n).iter().collect::<Vec<_>>(), wanted);
                    }
                }
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(set.len(), model.len() as u64);
                prop_assert!((0..80).all(|x| set.contains(x) == model.contains(&x)));
                prop_assert_eq!(Some(set.first_gap()), (0..80).find(|x| !model.contains(x)));
                let gaps = set.ranges().zip(set.ranges().skip(1)).all(|((_, a), (b, _))| a < b);
                prop_assert!(gaps, "ranges touch: {:?}", set);
            }
        }
    }
}
