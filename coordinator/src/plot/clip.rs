//! Cuts lines and areas at the frame of a picture.

use super::scene::Area;

type Point = (f64, f64);

/// A side of an area: the coordinate that it limits, its place, and whether smaller values are within.
#[derive(Clone, Copy)]
struct AreaSide {
    vertical: bool,
    at: f64,
    below: bool,
}

impl AreaSide {
    fn all_of(area: Area) -> [Self; 4] {
        let side = |vertical, at, below| Self {
            vertical,
            at,
            below,
        };
        [
            side(false, area.left, false),
            side(false, area.right, true),
            side(true, area.top, false),
            side(true, area.bottom, true),
        ]
    }

    fn contains(&self, point: Point) -> bool {
        let x = if self.vertical { point.1 } else { point.0 };
        if self.below {
            x <= self.at
        } else {
            x >= self.at
        }
    }

    /// The point between two others that lies on the side.
    fn crossing(&self, a: Point, b: Point) -> Point {
        let along = |from: f64, to: f64, share: f64| from + share * (to - from);
        if self.vertical {
            (along(a.0, b.0, (self.at - a.1) / (b.1 - a.1)), self.at)
        } else {
            (self.at, along(a.1, b.1, (self.at - a.0) / (b.0 - a.0)))
        }
    }
}

/// The part of a polygon within an area (Sutherland and Hodgman 1974); empty if none is.
pub(super) fn clip_polygon(points: Vec<Point>, area: Area) -> Vec<Point> {
    let mut points = points;
    for side in AreaSide::all_of(area) {
        let mut kept = Vec::with_capacity(points.len() + 4);
        for (at, point) in points.iter().enumerate() {
            let before = points[(at + points.len() - 1) % points.len()];
            if side.contains(*point) != side.contains(before) {
                kept.push(side.crossing(before, *point));
            }
            if side.contains(*point) {
                kept.push(*point);
            }
        }
        points = kept;
    }

    points
}

/// The parts of a line within an area.
pub(super) fn clip_line(points: &[Point], area: Area) -> Vec<Vec<Point>> {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    for pair in points.windows(2) {
        let Some((a, b)) = clip_segment(pair[0], pair[1], area) else {
            continue;
        };
        match parts.last_mut() {
            Some(part) if part.last() == Some(&a) => part.push(b),
            _ => parts.push(vec![a, b]),
        }
    }

    parts
}

fn clip_segment(a: Point, b: Point, area: Area) -> Option<(Point, Point)> {
    let mut a = a;
    let mut b = b;
    for side in AreaSide::all_of(area) {
        match (side.contains(a), side.contains(b)) {
            (true, true) => {}
            (false, false) => return None,
            (false, true) => a = side.crossing(a, b),
            (true, false) => b = side.crossing(a, b),
        }
    }

    Some((a, b))
}

/// Whether a point is within an area.
pub(super) fn is_within(point: Point, area: Area) -> bool {
    AreaSide::all_of(area)
        .iter()
        .all(|side| side.contains(point))
}
