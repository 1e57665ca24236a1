//! What must hold of every picture.

mod golden;
mod papers;

use proptest::prelude::*;

use super::axis::{AxisScale, LevelSpacing};
use super::curves::{
    CurveOverlays, CurveSeries, CurveShape, CurvesPlot, FittedLine, MeanCurve, MeanPoint,
    SeriesColour,
};
use super::differences::DifferenceRow;
use super::heatmap::{CountedTrials, Heatmap, HeatmapCell};
use super::scene::{Anchor, Area, Mark, SceneShape, SceneText};
use crate::plot::*;

fn numbers(values: &[f64]) -> Vec<AxisLevel> {
    values
        .iter()
        .map(|x| AxisLevel {
            text: format!("{:.2e}", x)
                .parse::<f64>()
                .expect("a number")
                .to_string(),
            number: Some(*x),
        })
        .collect()
}

fn words(values: &[&str]) -> Vec<AxisLevel> {
    values
        .iter()
        .map(|text| AxisLevel {
            text: (*text).to_owned(),
            number: None,
        })
        .collect()
}

fn look(title: &str) -> PlotStyle {
    PlotStyle {
        title: title.to_owned(),
        subtitle: "abcdefgh · 12 trials <of> 12 & more".to_owned(),
        ..PlotStyle::default()
    }
}

/// Numbers between 0 and 1 that look like chance and are the same everywhere.
fn noise(i: usize) -> f64 {
    f64::from((i as u32).wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24)
}

/// Four cells of each kind: complete, some diverged, all diverged, without result; and a place that is no cell.
fn heat() -> Heatmap {
    let lr = [0.01, 0.03, 0.1, 0.3, 1.0];
    let wd = [0.0, 1e-4, 1e-3];
    let mut cells = Vec::new();

    for (column, _) in lr.iter().enumerate() {
        for (row, _) in wd.iter().enumerate() {
            let trials = match (row, column) {
                (0, 0) => continue,
                (1, 0) => [0, 0, 0],
                (2, 4) => [0, 12, 0],
                (_, 3 | 4) => [9, 3, 0],
                _ => [12, 0, 0],
            };
            let value = (trials[0] > 0).then(|| 0.5 + 0.4 * noise(3 * column + row));

            cells.push(HeatmapCell {
                row,
                column,
                panel: 0,
                value,
                half_width: value.map(|_| 0.0125),
                trials,
            });
        }
    }

    Heatmap {
        rows: PlotAxis::new("wd", numbers(&wd)),
        columns: PlotAxis::new("lr", numbers(&lr)),
        cells,
        name: "mean test_acc".to_owned(),
        counted_trials: CountedTrials::Completed,
        panels: Vec::new(),
        partial: false,
        shares: false,
        log: false,
        scattered: false,
        notes: vec!["Pooled over batch_size.".to_owned()],
    }
}

fn phase() -> Heatmap {
    let lr: Vec<f64> = (0..9).map(|i| 0.01 * libm::exp2(f64::from(i))).collect();
    let wd: Vec<f64> = (0..7)
        .map(|i| 1e-5 * libm::exp2(1.5 * f64::from(i)))
        .collect();
    let cell = |(row, column): (usize, usize)| {
        let p = (0.2 * column as f64 + 0.1 * row as f64 - 1.0 + 0.2 * noise(row * 9 + column))
            .clamp(0.0, 1.0);
        let diverged = libm::round(20.0 * p) as u64;
        let value = Some(diverged as f64 / 20.0);
        HeatmapCell {
            row,
            column,
            panel: 0,
            value,
            half_width: None,
            trials: [20 - diverged, diverged, 0],
        }
    };

    let places = (0..wd.len()).flat_map(|row| (0..lr.len()).map(move |column| (row, column)));
    Heatmap {
        cells: places.map(cell).collect(),
        rows: PlotAxis::new("train.wd", numbers(&wd)),
        columns: PlotAxis::new("train.lr", numbers(&lr)),
        name: "P(diverged)".to_owned(),
        counted_trials: CountedTrials::Counts,
        panels: Vec::new(),
        partial: false,
        shares: true,
        log: false,
        scattered: false,
        notes: Vec::new(),
    }
}

/// As from a random search: hardly a place of the grid is taken.
fn scattered() -> Heatmap {
    let axis = |from: usize| {
        (0..40)
            .map(|i| 1e-3 * libm::exp2(10.0 * noise(from + i)))
            .collect::<Vec<f64>>()
    };
    let lr = axis(100);

    let wd = axis(300);
    let rows = PlotAxis::new("wd", numbers(&wd));
    let columns = PlotAxis::new("lr", numbers(&lr));
    let place = |factor: &PlotAxis, x: f64| {
        factor
            .levels
            .iter()
            .position(|l| l.number == Some(x))
            .expect("a level")
    };
    let cell = |i: usize| {
        let value = (!i.is_multiple_of(10)).then(|| noise(i));
        let trials = [
            u64::from(value.is_some()),
            u64::from(i.is_multiple_of(20)),
            0,
        ];
        HeatmapCell {
            row: place(&rows, wd[i]),
            column: place(&columns, lr[i]),
            panel: 0,
            value,
            half_width: None,
            trials,
        }
    };

    Heatmap {
        cells: (0..40).map(cell).collect(),
        rows: rows.clone(),
        columns: columns.clone(),
        ..heat()
    }
}

fn curves_of(lines: usize, log: bool) -> CurvesPlot {
    let point = |line: usize, step: usize| {
        let mean =
            2.0 / (1.0 + 0.1 * step as f64 * (1.0 + line as f64)) + 0.05 * noise(line * 50 + step);
        let half = 0.1 / (1.0 + 0.05 * step as f64);
        MeanPoint {
            x: 10.0 * step as f64,
            mean,
            interval: (step > 1).then_some((mean - half, mean + half)),
        }
    };
    let line = |i: usize| MeanCurve {
        series: i,
        panel: 0,
        points: (1..=30).map(|s| point(i, s)).collect(),
        trials: Vec::new(),
    };
    let series = |i: usize| CurveSeries {
        label: format!("{}", 0.01 * (i + 1) as f64),
        colour: SeriesColour::Distinct(i),
        dash: i / curves::DISTINCT_COLOURS,
    };

    CurvesPlot {
        metric: "train_loss".to_owned(),
        x_name: "step".to_owned(),
        key: "lr".to_owned(),
        series: (0..lines).map(series).collect(),
        lines: (0..lines).map(line).collect(),
        panels: Vec::new(),
        notes: vec!["Without a curve: 1e38 (all 12 diverged).".to_owned()],
        log,
        ..CurvesPlot::default()
    }
}

fn cells() -> Vec<distribution::DistributionCell> {
    let cell = |(at, (n, diverged)): (usize, (usize, u64))| distribution::DistributionCell {
        label: format!("{:.1} · sgd", 0.1 * (at + 1) as f64),
        values: (0..n)
            .map(|i| 0.8 + 0.1 * noise(at * 1000 + i) * noise(7 + at * 1000 + i))
            .collect(),
        diverged,
        failed: u64::from(at == 1),
    };

    [(1, 0), (12, 3), (60, 0), (300, 0), (0, 12)]
        .into_iter()
        .enumerate()
        .map(cell)
        .collect()
}

fn pairs_of(cells: usize) -> Vec<DifferenceRow> {
    let pair = |at: usize| {
        let differences: Vec<f64> = (0..20)
            .map(|i| 0.02 * (noise(at * 20 + i) - 0.2 * at as f64))
            .collect();
        let mean = differences.iter().sum::<f64>() / 20.0;
        DifferenceRow {
            label: format!("lr {at}"),
            mean: Some(mean),
            interval: Some((mean - 0.003, mean + 0.003)),
            differences,
            remark: "n = 20  ▲ 12  ▼ 8".to_owned(),
        }
    };

    let none = DifferenceRow {
        label: "1e38".to_owned(),
        differences: vec![],
        mean: None,
        interval: None,
        remark: "no repeat in common".to_owned(),
    };
    (0..cells).map(pair).chain([none]).collect()
}

#[test]
fn a_png_that_is_too_large_is_refused() {
    let huge = PlotStyle {
        width: Some(8000.0),
        height: Some(8000.0),
        ..look("huge")
    };
    let scene = heatmap::draw_heatmap(&heat(), &huge).expect("it can be drawn");
    assert!(png::render_png(&scene, 2.0).is_err_and(|e| e.contains("too large")));
}

/// The place that a text takes.
fn extent(text: &SceneText) -> Area {
    let width = font::text_width(&text.text, text.size);
    let before = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => width / 2.0,
        Anchor::End => width,
    };

    let (x, y) = text.at;
    let up = text.size * 0.76;
    let down = text.size * 0.2;

    match text.turned {
        false => Area {
            left: x - before,
            right: x - before + width,
            top: y - up,
            bottom: y + down,
        },
        true => Area {
            left: x - up,
            right: x + down,
            top: y + before - width,
            bottom: y + before,
        },
    }
}

/// Texts do not touch each other, nothing lies outside, and every number is one.
fn check(scene: &Scene) -> Result<(), TestCaseError> {
    let texts: Vec<&SceneText> = scene
        .marks
        .iter()
        .filter_map(|m| if let Mark::Text(t) = m { Some(t) } else { None })
        .collect();
    for (at, text) in texts.iter().enumerate() {
        let a = extent(text);
        let inside = a.left >= -0.5
            && a.top >= -0.5
            && a.right <= scene.width + 0.5
            && a.bottom <= scene.height + 0.5;
        prop_assert!(
            inside,
            "'{}' is outside: {a:?} of {} × {}",
            text.text,
            scene.width,
            scene.height
        );

        for other in &texts[at + 1..] {
            let b = extent(other);
            let apart =
                a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
            prop_assert!(
                apart,
                "'{}' and '{}' touch: {a:?}, {b:?}",
                text.text,
                other.text
            );
        }
    }

    for mark in &scene.marks {
        let points = match mark {
            Mark::Shape(SceneShape::Path { points, .. }, ..) => points.clone(),
            Mark::Shape(SceneShape::Circle { at, .. }, ..) => vec![*at],
            Mark::Text(text) => vec![text.at],
        };
        for (x, y) in points {
            let inside =
                (-1.0..=scene.width + 1.0).contains(&x) && (-1.0..=scene.height + 1.0).contains(&y);
            prop_assert!(
                inside,
                "{x}, {y} is outside of {} × {}",
                scene.width,
                scene.height
            );
        }
    }

    Ok(())
}

/// A factor of `n` levels: on a log or linear scale, or words.
fn factor(name: &str, n: usize, kind: u8) -> PlotAxis {
    let number = |i: usize| match kind {
        0 => 1e-4 * libm::exp2(i as f64 * 0.37),
        1 => 3.0 * i as f64 - 5.0,
        _ => {
            if i == 0 {
                0.0
            } else {
                libm::exp10(-(i as f64))
            }
        }
    };

    match kind {
        3 => PlotAxis::new(
            name,
            (0..n)
                .map(|i| AxisLevel {
                    text: format!("word-{i}"),
                    number: None,
                })
                .collect(),
        ),
        _ => PlotAxis::new(
            name,
            (0..n)
                .map(|i| AxisLevel {
                    text: format!("{:.3e}", number(i)),
                    number: Some(number(i)),
                })
                .collect(),
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grids_of_any_size_are_legible_or_refused(
        (rows, columns) in (1_usize..40, 1_usize..40), kinds in (0_u8..4, 0_u8..4), shares: bool,
        width in proptest::option::of(200.0..1200.0_f64), height in proptest::option::of(150.0..900.0_f64),
        from in -1e3..1e3_f64, span in prop_oneof![Just(0.0), 1e-9..1e6_f64],
    ) {
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let cell = |(row, column): (usize, usize)| {
            let x = noise(row * columns + column);
            let value = (x > 0.1).then_some(if shares { x } else { from + span * x });
            HeatmapCell { row, column, panel: 0, value, half_width: value.map(|_| span / 50.0), trials: [10, u64::from(x < 0.3), 0] }
        };
        let map = Heatmap {
            cells: places.map(cell).collect(),
            rows: factor("some.long.name", rows, kinds.0),
            columns: factor("lr", columns, kinds.1),
            shares,
            ..heat()
        };
        match heatmap::draw_heatmap(&map, &PlotStyle { width, height, ..look("any") }) {
            Ok(scene) => check(&scene)?,
            Err(why) => prop_assert!(why.contains("too small") || why.contains("no cell has a value"), "{why}"),
        }
    }

    #[test]
    fn curves_and_rows_of_any_number_are_legible_or_refused(
        n in 1_usize..25, log: bool, width in 200.0..1000.0_f64, height in 150.0..900.0_f64,
    ) {
        let look = PlotStyle { width: Some(width), height: Some(height), ..look("any") };
        let distribution = distribution::draw_distributions("test_acc", "lr", &cells()[..n.clamp(1, 5)], log, &look);
        for drawn in [curves::draw_curves(&curves_of(n, log), &look), distribution, differences::draw_differences("m", "b", &pairs_of(n), &[], &look)] {
            match drawn {
                Ok(scene) => check(&scene)?,
                Err(why) => prop_assert!(["too small", "too low", "to tell apart"].iter().any(|w| why.contains(w)), "{why}"),
            }
        }
    }

    #[test]
    fn ticks_are_few_round_and_told_apart(from in -1e4..1e4_f64, span in 1e-6..1e6_f64, log: bool, most in 2_usize..10) {
        let scale = if log { AxisScale::from_range(from.abs() + 1e-5, from.abs() + 1e-5 + span, true) } else { AxisScale::from_range(from, from + span, false) };
        let ticks = scale.choose_ticks(most);
        prop_assert!(ticks.len() <= most + 2, "{ticks:?}");
        for pair in ticks.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1, "{ticks:?}");
        }
        let near = (scale.to - scale.from) * 1e-6;
        prop_assert!(ticks.iter().all(|(x, _)| *x >= scale.from - near && *x <= scale.to + near));
    }

    /// On each contour, the interpolated samples have its value.
    #[test]
    fn contours_lie_where_the_value_is(rows in 2_usize..9, columns in 2_usize..9, salt in 0_usize..1000, level in 0.05..0.95_f64) {
        let grid: Vec<Vec<Option<f64>>> = (0..rows)
            .map(|r| (0..columns).map(|c| Some(noise(salt + r * 31 + c)).filter(|x| *x < 0.97)).collect())
            .collect();
        let lines = contour::contour_lines(&grid, level);
        for (x, y) in lines.iter().flatten() {
            let (c, r) = (x.floor() as usize, y.floor() as usize);
            let (fx, fy) = (x - x.floor(), y - y.floor());
            prop_assert!(fx == 0.0 || fy == 0.0, "contours cross the lines between neighbours");
            let at = |r: usize, c: usize| grid[r][c].expect("a line is between two samples");
            let value = match (fx > 0.0, fy > 0.0) {
                (true, _) => at(r, c) * (1.0 - fx) + at(r, c + 1) * fx,
                (_, true) => at(r, c) * (1.0 - fy) + at(r + 1, c) * fy,
                _ => at(r, c),
            };
            prop_assert!((value - level).abs() < 1e-9, "{value} at {x}, {y}");
        }
        let whole = grid.iter().flatten().all(Option::is_some);
        let crossed = grid.iter().flatten().any(|x| *x >= Some(level)) && grid.iter().flatten().any(|x| *x < Some(level));
        prop_assert!(!whole || lines.is_empty() != crossed);
    }
}

#[test]
fn a_contour_of_a_plane_is_one_straight_line() {
    let grid: Vec<Vec<Option<f64>>> = (0..4)
        .map(|_| (0..5).map(|c| Some(f64::from(c) / 4.0)).collect())
        .collect();
    let lines = contour::contour_lines(&grid, 0.5 + 1.0 / 16.0);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].len(), 4);

    assert!(lines[0].iter().all(|(x, _)| *x == 2.25), "{lines:?}");
    let all = Some(1.0);
    assert!(
        contour::contour_lines(&[vec![all, None], vec![Some(0.0), Some(0.0)]], 0.5).is_empty(),
        "none beside what is missing"
    );
}

#[test]
fn levels_lie_by_their_logarithms_where_these_are_even() {
    let spacing = |values: &[f64]| PlotAxis::new("lr", numbers(values)).choose_spacing();
    assert_eq!(spacing(&[0.01, 0.03, 0.1, 0.3, 1.0]), LevelSpacing::Log);
    assert_eq!(spacing(&[1.0, 2.0, 3.0, 4.0]), LevelSpacing::Linear);
    assert_eq!(spacing(&[0.0, 1e-4, 1e-3, 1e-2]), LevelSpacing::Even);
    assert_eq!(
        PlotAxis::new("kind", words(&["b", "a"])).levels[0].text,
        "b",
        "words stay in their order"
    );

    let edges = PlotAxis::new("lr", numbers(&[1.0, 0.01, 0.1])).level_edges();
    let even = [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0];
    assert!(
        edges.iter().zip(even).all(|(a, b)| (a - b).abs() < 1e-12),
        "{edges:?}"
    );
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let without = |trials: [u64; 3]| {
        let mut map = heat();
        map.cells
            .iter_mut()
            .for_each(|cell| (cell.value, cell.half_width, cell.trials) = (None, None, trials));
        heatmap::draw_heatmap(&map, &look("none"))
            .map(|_| ())
            .expect_err("nothing to draw")
    };
    assert!(
        without([0, 12, 0]).contains("mean test_acc: all 168 trials that have ended diverged"),
        "{}",
        without([0, 12, 0])
    );

    assert!(without([0, 0, 0]).contains("no trial has ended yet"));
    assert!(without([0, 1, 1]).contains("14 diverged and 14 failed"));
    let negative = Heatmap {
        log: true,
        cells: vec![HeatmapCell {
            value: Some(-1.0),
            ..heat().cells[1].clone()
        }],
        ..heat()
    };
    assert!(
        heatmap::draw_heatmap(&negative, &look("log"))
            .is_err_and(|e| e.contains("leave out --log-scale"))
    );

    let nothing = CurvesPlot {
        lines: vec![MeanCurve {
            points: vec![],
            ..curves_of(1, false).lines[0].clone()
        }],
        ..curves_of(1, false)
    };
    assert!(
        curves::draw_curves(&nothing, &look("none"))
            .is_err_and(|e| e.contains("no value of train_loss"))
    );

    assert!(
        curves::draw_curves(&curves_of(22, false), &look("many"))
            .is_err_and(|e| e.contains("--by AXIS") && e.contains("at most 21"))
    );
    let diverged = &cells()[4..];
    assert!(
        distribution::draw_distributions("test_acc", "lr", diverged, false, &look("none"))
            .is_err_and(|e| e.contains("all diverged"))
    );

    let none = &pairs_of(0);
    assert!(
        differences::draw_differences("test_acc", "lr=0.1", none, &[], &look("none"))
            .is_err_and(|e| e.contains("in common with lr=0.1"))
    );
    let small = PlotStyle {
        width: Some(160.0),
        height: Some(120.0),
        ..look("small")
    };

    assert!(
        curves::draw_curves(&curves_of(4, false), &small).is_err_and(|e| e.contains("--height"))
    );
}

/// What stands in a picture, as one text.
fn said(scene: &Scene) -> String {
    let texts = scene.marks.iter().filter_map(|m| {
        if let Mark::Text(t) = m {
            Some(t.text.as_str())
        } else {
            None
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}

#[test]
fn bands_are_within_the_frame_or_said_to_be_cut() {
    let drawn = |halves: &[f64], log: bool| {
        let line = |half: &f64| {
            let point = |step: u8| {
                let mean = 0.3 + 0.001 * f64::from(step);
                MeanPoint {
                    x: f64::from(step),
                    mean,
                    interval: Some((mean - half, mean + half)),
                }
            };

            MeanCurve {
                points: (1..=9).map(point).collect(),
                ..curves_of(1, false).lines[0].clone()
            }
        };
        let curves = CurvesPlot {
            lines: halves.iter().map(line).collect(),
            log,
            notes: vec![],
            ..curves_of(1, false)
        };

        curves::draw_curves(&curves, &look("bands")).expect("it can be drawn")
    };

    // The values at the left tell how far the frame reaches.
    let wide = said(&drawn(&[0.11, 0.11], false));
    assert!(
        wide.contains("0.20") && wide.contains("0.40") && !wide.contains("cut"),
        "{wide}"
    );
    let one = said(&drawn(&[0.01, 0.01, 0.01, 300.0], false));
    assert!(
        one.contains("Bands are cut") && one.contains("0.29") && !one.contains("100"),
        "{one}"
    );

    let below = said(&drawn(&[0.11, 0.4], true));
    assert!(below.contains("Bands are cut"), "{below}");
}

#[test]
fn captions_tell_the_marks_that_are_drawn_and_are_true_of_the_statistic() {
    let drawn = |map: &Heatmap| {
        said(&heatmap::draw_heatmap(map, &look("caption")).expect("it can be drawn"))
    };
    let of = |over: CountedTrials, value: fn([u64; 3]) -> Option<f64>| {
        let mut map = Heatmap {
            counted_trials: over,
            ..heat()
        };
        map.cells
            .iter_mut()
            .for_each(|cell| (cell.value, cell.half_width) = (value(cell.trials), None));

        drawn(&map)
    };

    let mean = drawn(&heat());
    for words in [
        "Crossed: all trials diverged.",
        "Hatched: no result.",
        "Blank: no such cell.",
        "3/12 div.",
        "completed",
    ] {
        assert!(mean.contains(words), "'{words}' in: {mean}");
    }

    let at = of(CountedTrials::Diverged, |trials| {
        (trials[1] > 0).then_some(7.5)
    });
    assert!(
        at.contains("Hatched: no result, or no trial diverged.") && at.contains("3/12 div."),
        "{at}"
    );

    assert!(
        !at.contains("completed")
            && !at.contains("Crossed")
            && !at.contains("Bar at")
            && !at.contains('±'),
        "{at}"
    );

    let counts = of(CountedTrials::Counts, |trials| Some(trials[0] as f64));
    assert!(
        !counts.contains("div") && !counts.contains("Hatched") && !counts.contains("12.0"),
        "{counts}"
    );
    let std = of(CountedTrials::Completed, |trials| {
        (trials[0] > 9).then_some(0.5)
    });
    assert!(
        std.contains("Hatched: no result, or too few trials for it."),
        "{std}"
    );

    let part = drawn(&Heatmap {
        partial: true,
        ..heat()
    });
    assert!(part.contains("not chosen"), "{part}");
}

#[test]
fn colours_that_say_more_or_less_than_the_numbers_are_told() {
    let of = |value: fn(usize) -> f64, half: f64| {
        let mut map = heat();
        map.cells.iter_mut().enumerate().for_each(|(at, cell)| {
            cell.value = Some(value(at));
            cell.half_width = Some(half);
        });

        said(&heatmap::draw_heatmap(&map, &look("colours")).expect("it can be drawn"))
    };
    assert!(of(|at| 0.1 + 1e-5 * at as f64, 9e-4).contains("intervals of all cells overlap"));

    assert!(!of(|at| 0.1 + 1e-2 * at as f64, 9e-4).contains("overlap"));
    assert!(of(|at| if at > 11 { 1e9 } else { 0.1 }, 0.01).contains("--log-scale"));
    assert!(!of(|at| libm::exp10(0.1 * at as f64), 0.01).contains("--log-scale"));
}

#[test]
fn what_is_infinite_is_drawn_outside_of_the_scale() {
    for log in [false, true] {
        let mut map = Heatmap { log, ..heat() };
        (map.cells[0].value, map.cells[0].half_width) = (Some(f64::INFINITY), None);
        let scene = heatmap::draw_heatmap(&map, &look("scale")).expect("it can be drawn");
        let text = said(&scene);
        assert!(
            text.contains(" inf ") && text.contains("Grey: inf, outside of the scale."),
            "{text}"
        );

        assert!(
            !text.contains("NaN") && text.matches("inf").count() == 2,
            "{text}"
        );
        let all = Heatmap {
            cells: vec![map.cells[0].clone()],
            ..map
        };

        assert!(
            heatmap::draw_heatmap(&all, &look("scale"))
                .is_err_and(|e| e.contains("infinite in every cell"))
        );
    }

    let points = scattered();
    let cells = points.cells.iter().map(|cell| HeatmapCell {
        value: Some(f64::INFINITY),
        ..cell.clone()
    });
    let cells = cells
        .take(3)
        .chain(points.cells.iter().skip(3).cloned())
        .collect();
    let text = said(
        &heatmap::draw_heatmap(&Heatmap { cells, ..points }, &look("scale"))
            .expect("it can be drawn"),
    );
    assert!(
        text.contains("Grey: inf") && !text.contains("NaN"),
        "{text}"
    );

    let mut curves = curves_of(2, false);
    curves.lines[0].points[0].mean = f64::INFINITY;
    let text = said(&curves::draw_curves(&curves, &look("scale")).expect("it can be drawn"));
    assert!(
        text.contains("1 point is infinite") && !text.contains("below 0"),
        "{text}"
    );
}

#[test]
fn between_words_there_are_no_contours_and_shares_are_numbers_where_there_is_room() {
    let lines = |map: &Heatmap| {
        let scene = heatmap::draw_heatmap(map, &look("phase")).expect("it can be drawn");
        (
            said(&scene).contains("Lines: P = "),
            said(&scene).contains("1.00"),
        )
    };
    assert_eq!(lines(&phase()), (true, true));

    let schemes = PlotAxis::new("init", words(&["a", "b", "c", "d", "e", "f", "g"]));
    assert_eq!(
        lines(&Heatmap {
            rows: schemes,
            ..phase()
        }),
        (false, true)
    );
}

#[test]
fn labels_are_values_of_cells_and_all_or_every_so_manieth_stands_there() {
    let ticks = |n: usize| {
        (0..n)
            .map(|i| (20.0 * i as f64, format!("{i}")))
            .collect::<Vec<_>>()
    };
    let labels = |half: f64| {
        axis::thin_labels(ticks(7), |_| half)
            .into_iter()
            .map(|(_, label)| label)
            .collect::<Vec<_>>()
    };
    assert_eq!(labels(10.0).len(), 7);

    assert_eq!(labels(10.5), ["0", "2", "4", "6"]);
    assert_eq!(labels(1e9), ["0"]);
    let map = Heatmap {
        columns: PlotAxis::new("lr", numbers(&[0.01, 0.0316, 0.1, 0.316, 1.0])),
        ..heat()
    };
    let said = said(&heatmap::draw_heatmap(&map, &look("ticks")).expect("it can be drawn"));
    assert!(said.contains(" 0.01 0.0316 0.1 0.316 1 "), "{said}");
}

#[test]
fn many_powers_of_ten_have_few_ticks() {
    let ticks = AxisScale {
        from: 0.09,
        to: 2.6e44,
        log: true,
    }
    .choose_ticks(5);
    let labels: Vec<&str> = ticks.iter().map(|(_, label)| label.as_str()).collect();
    assert_eq!(labels, ["1", "1e10", "1e20", "1e30", "1e40"]);
}

#[test]
fn long_titles_are_wrapped() {
    let name = format!(
        "{}: mean test_acc",
        "three-axes-with-a-very-long-name".repeat(2)
    );
    let narrow = PlotStyle {
        width: Some(440.0),
        ..look(&name)
    };
    let scene = heatmap::draw_heatmap(&heat(), &narrow).expect("it can be drawn");
    assert_eq!(check(&scene).map_err(|e| e.to_string()), Ok(()));

    let text = said(&scene);
    assert!(
        text.contains("mean test_acc") && !text.contains('…'),
        "{text}"
    );
    let endless = PlotStyle {
        width: Some(440.0),
        ..look(&"x".repeat(1000))
    };

    assert!(
        said(&heatmap::draw_heatmap(&heat(), &endless).expect("it can be drawn")).contains('…')
    );
}

#[test]
fn texts_without_room_are_told() {
    let long = "a name that is much too long for an axis ".repeat(4);
    let with = |x_label: &str, title: &str| PlotStyle {
        width: Some(440.0),
        x_label: Some(x_label.to_owned()),
        ..look(title)
    };
    let drawn = |look: &PlotStyle| {
        let curves = curves_of(2, false);
        let scene = curves::draw_curves(&curves, look).expect("it can be drawn");
        assert_eq!(scene.cut_texts().is_empty(), !said(&scene).contains('…'));
        scene.cut_texts().to_vec()
    };
    assert_eq!(drawn(&with("lr", "short")), [""; 0]);
    assert_eq!(drawn(&with(&long, "short")), [long.as_str()]);
    let endless = "x".repeat(1000);
    assert_eq!(drawn(&with("lr", &endless)), [endless.as_str()]);

    let rows: Vec<_> = cells()
        .into_iter()
        .map(|cell| distribution::DistributionCell {
            label: format!("{long}{}", cell.label),
            ..cell
        })
        .collect();
    let scene = distribution::draw_distributions("m", "lr", &rows, false, &look("rows"))
        .expect("it can be drawn");
    assert_eq!(scene.cut_texts().len(), rows.len());
}

#[test]
fn text_from_right_to_left_is_only_in_an_svg() {
    let titles = [
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        "\u{645}",
        "a \u{fb2a}",
        "\u{1e900}",
    ];
    for title in titles {
        let scene = curves::draw_curves(&curves_of(1, false), &look(title)).expect("drawn");
        assert!(svg::render_svg(&scene).contains(title));
        for refused in [
            pdf::render_pdf(&scene).map(|_| ()),
            png::render_png(&scene, 1.0).map(|_| ()),
        ] {
            let refused = refused.expect_err(title);
            assert!(refused.contains("from right to left"), "{refused}");
        }
    }
    let scene = curves::draw_curves(&curves_of(1, false), &look("λ Ж é ≤")).expect("drawn");
    assert!(pdf::render_pdf(&scene).is_ok());
}

#[test]
fn one_trial_is_a_dot_in_the_middle_of_its_row_and_has_neither_box_nor_density() {
    let cell = |n: usize| distribution::DistributionCell {
        values: vec![0.5; n],
        ..cells()[0].clone()
    };
    let scene = distribution::draw_distributions("test_acc", "lr", &[cell(1)], false, &look("one"))
        .expect("it can be drawn");
    let dots = scene.marks.iter().filter_map(|mark| match mark {
        Mark::Shape(SceneShape::Circle { at, .. }, ..) => Some(at.1),
        _ => None,
    });

    let name = scene.marks.iter().find_map(|mark| match mark {
        Mark::Text(text) if text.text == "n = 1" => Some(text.at.1 - text.size * 0.36),
        _ => None,
    });
    let dots: Vec<f64> = dots.collect();
    assert!(
        dots.len() == 1 && name.is_some_and(|y| (y - dots[0]).abs() < 1e-9),
        "{dots:?}, {name:?}"
    );

    assert!(!said(&scene).contains("box") && !said(&scene).contains("density"));
    let many = said(
        &distribution::draw_distributions("m", "lr", &cells(), false, &look("many"))
            .expect("it can be drawn"),
    );
    assert!(
        many.contains("box") && many.contains("density") && many.contains("at most 200"),
        "{many}"
    );
}

#[test]
fn names_cannot_break_out_of_an_svg() {
    let title = "<script>\"&\u{1}";
    let scene = curves::draw_curves(&curves_of(1, false), &look(title)).expect("it can be drawn");
    let svg = svg::render_svg(&scene);
    assert!(
        svg.contains("&lt;script&gt;&quot;&amp;\\u0001") && !svg.contains("<script"),
        "{svg}"
    );
}

#[test]
fn colours_of_figures_grow_lighter_evenly() {
    let lightness = |share: f64| {
        let [r, g, b] = ColourMap::VALUES.colour_at(share).map(f64::from);
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    let steps: Vec<f64> = (0..=20).map(|i| lightness(f64::from(i) / 20.0)).collect();
    assert!(steps.is_sorted(), "{steps:?}");

    assert_eq!(
        (
            colour::text_colour_on([255, 255, 255]),
            colour::text_colour_on([0, 0, 0])
        ),
        (colour::INK, colour::PAPER)
    );
}
