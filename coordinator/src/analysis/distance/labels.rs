//! The predictions of one cell's trials at one moment.

/// One class per repeat and probe point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PredictedLabels {
    pub(super) points: usize,
    repeats: Vec<u32>,
    classes: Vec<u8>,
}

/// Number of points that are counted together, so that their counts stay in the cache.
const POINTS_PER_CHUNK: usize = 64;

impl PredictedLabels {
    /// Creates predictions of `points` points without repeats.
    pub fn new(points: usize) -> Self {
        Self {
            points,
            ..Self::default()
        }
    }

    /// Appends a repeat, with a higher number than the others; one class per point.
    pub fn push(&mut self, repeat: u32, classes: &[u8]) {
        debug_assert!(
            classes.len() == self.points && self.repeats.last().is_none_or(|last| *last < repeat)
        );
        self.repeats.push(repeat);
        self.classes.extend_from_slice(classes);
    }

    /// Appends a repeat like [`Self::push`], whose number of points is known by the first one alone. `false` if it has other points,
    /// and is not appended.
    pub fn push_reported(&mut self, repeat: u32, classes: &[u8]) -> bool {
        if self.repeats.is_empty() {
            self.points = classes.len();
        }
        let fits = classes.len() == self.points;
        if fits {
            self.push(repeat, classes);
        }
        fits
    }

    /// Number of points of each repeat.
    pub fn point_count(&self) -> usize {
        self.points
    }

    /// Numbers of the repeats, ascending.
    pub fn repeats(&self) -> &[u32] {
        &self.repeats
    }

    /// Largest class that occurs, plus 1.
    pub fn class_count(&self) -> usize {
        self.classes
            .iter()
            .max()
            .map_or(0, |class| usize::from(*class) + 1)
    }

    /// Predictions of all repeats, one slice each.
    pub fn repeat_rows(&self) -> Vec<&[u8]> {
        self.classes.chunks_exact(self.points.max(1)).collect()
    }

    /// Predictions of these repeats, one slice each. All of them must exist.
    pub fn rows_of_repeats(&self, repeats: &[u32]) -> Vec<&[u8]> {
        repeats
            .iter()
            .filter_map(|repeat| {
                self.repeats
                    .binary_search(repeat)
                    .ok()
                    .map(|at| at * self.points)
            })
            .map(|start| &self.classes[start..start + self.points])
            .collect()
    }
}

/// Repeats that all these cells have.
pub fn find_common_repeats(cells: &[&PredictedLabels]) -> Vec<u32> {
    let Some((first, others)) = cells.split_first() else {
        return Vec::new();
    };
    first
        .repeats
        .iter()
        .filter(|repeat| {
            others
                .iter()
                .all(|cell| cell.repeats.binary_search(repeat).is_ok())
        })
        .copied()
        .collect()
}

/// Splits `points` into ranges.
pub(super) fn point_ranges(points: usize) -> Vec<std::ops::Range<usize>> {
    (0..points)
        .step_by(POINTS_PER_CHUNK)
        .map(|start| start..points.min(start + POINTS_PER_CHUNK))
        .collect()
}

/// Counts each class at each point of a range: `[point][class]`.
pub(super) fn count_classes<'a>(
    rows: impl Iterator<Item = &'a [u8]>,
    range: &std::ops::Range<usize>,
    classes: usize,
    counts: &mut Vec<i32>,
) {
    counts.clear();
    counts.resize(range.len() * classes, 0);
    for row in rows {
        for (bins, class) in counts.chunks_exact_mut(classes).zip(&row[range.clone()]) {
            bins[usize::from(*class)] += 1;
        }
    }
}
