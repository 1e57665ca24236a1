//! Contour lines over a grid of samples.

/// A line through the grid: column and row, counted from 0, with fractions between the samples.
pub type ContourLine = Vec<(f64, f64)>;

/// The lines on which linear interpolation between neighbouring samples has the value `level`
/// (marching squares: Lorensen and Cline 1987, in the plane). The rows of `grid` have equal length,
/// and there is no line next to a missing sample. If a square could be crossed in two ways, its
/// mean decides.
pub fn contour_lines(grid: &[Vec<Option<f64>>], level: f64) -> Vec<ContourLine> {
    let mut segments = Vec::new();
    for (row, pair) in grid.windows(2).enumerate() {
        for column in 0..pair[0].len().saturating_sub(1) {
            // Goes around the square from its lower left corner, so that neighbours in the list
            // share a side.
            let corners = [(0, 0), (1, 0), (1, 1), (0, 1)].map(|(c, r)| (column + c, row + r));
            let values = corners.map(|(c, r)| grid[r][c]);
            if let [Some(a), Some(b), Some(c), Some(d)] = values {
                add_square_segments(corners, [a, b, c, d], level, &mut segments);
            }
        }
    }

    join_segments(segments)
}

type ContourSegment = ((f64, f64), (f64, f64));

fn add_square_segments(
    corners: [(usize, usize); 4],
    values: [f64; 4],
    level: f64,
    segments: &mut Vec<ContourSegment>,
) {
    let above = values.map(|value| value >= level);
    let found: Vec<(f64, f64)> = (0..4)
        .filter_map(|side| {
            let from = side;
            let to = (side + 1) % 4;
            (above[from] != above[to]).then(|| {
                interpolate_crossing(corners[from], corners[to], values[from], values[to], level)
            })
        })
        .collect();

    match found[..] {
        [a, b] => segments.push((a, b)),
        [bottom, right, top, left] => {
            let high = values.iter().sum::<f64>() / 4.0 >= level;
            // A saddle: the mean of the corners decides which two are connected, and the other two
            // are cut off.
            if high == above[0] {
                segments.extend([(bottom, right), (top, left)]);
            } else {
                segments.extend([(left, bottom), (right, top)]);
            }
        }
        _ => {}
    }
}

fn interpolate_crossing(
    from: (usize, usize),
    to: (usize, usize),
    a: f64,
    b: f64,
    level: f64,
) -> (f64, f64) {
    // Interpolates from the smaller position, so that the two squares that share a side get the
    // same bits.
    let (from, to, a, b) = if from <= to {
        (from, to, a, b)
    } else {
        (to, from, b, a)
    };
    let part = (level - a) / (b - a);
    let mix = |x: usize, y: usize| x as f64 + part * (y as f64 - x as f64);
    (mix(from.0, to.0), mix(from.1, to.1))
}

/// Joins segments with a common end to lines.
fn join_segments(segments: Vec<ContourSegment>) -> Vec<ContourLine> {
    let mut lines: Vec<ContourLine> = Vec::new();
    let mut left = segments;
    while let Some((a, b)) = left.pop() {
        let mut line = vec![a, b];
        loop {
            let end = line[line.len() - 1];
            if let Some(other) = take_adjacent_end(&mut left, end) {
                line.push(other);
                continue;
            }

            let start = line[0];
            match take_adjacent_end(&mut left, start) {
                Some(other) => line.insert(0, other),
                None => break,
            }
        }

        lines.push(line);
    }

    lines
}

/// Takes a segment with this end; returns its other end.
fn take_adjacent_end(segments: &mut Vec<ContourSegment>, end: (f64, f64)) -> Option<(f64, f64)> {
    let at = segments.iter().position(|(a, b)| *a == end || *b == end)?;
    let (a, b) = segments.remove(at);
    Some(if a == end { b } else { a })
}
