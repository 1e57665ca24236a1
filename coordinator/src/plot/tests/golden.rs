//! Golden pictures: every kind at the width of a column and of a page.
//!
//! `ERGODIC_GOLDEN=write cargo test -p ergodic --lib plot` writes the golden pictures anew, and
//! `ERGODIC_PICTURES=DIR` also writes them to a folder as PNG and PDF: look at them before committing.

use std::path::Path;

use super::*;

/// Widths of a column and of a page, in millimetres.
const WIDTHS: [f64; 2] = [80.0, 170.0];

fn style(name: &str, width: f64) -> PlotStyle {
    PlotStyle {
        width: Some(width * style::PIXELS_PER_MM),
        ..look(name)
    }
}

/// Three facets, as of a sweep over norms: the same cells, a little shifted.
fn facets() -> Heatmap {
    let panels = ["none", "batch", "layer"].map(|norm| format!("norm = {norm}"));
    let cells = (0..3).flat_map(|panel| {
        heat().cells.into_iter().map(move |cell| HeatmapCell {
            panel,
            value: cell.value.map(|value| value - 0.05 * panel as f64),
            ..cell
        })
    });
    Heatmap {
        cells: cells.collect(),
        panels: panels.to_vec(),
        ..heat()
    }
}

/// A map in which one cell has a number far from all others.
fn far_cell() -> Heatmap {
    let mut map = heat();
    map.cells[4].value = Some(48.5);
    map
}

/// Words on the horizontal axis, and a logarithmic scale of colours.
fn word_map() -> Heatmap {
    Heatmap {
        columns: PlotAxis::new(
            "init.scheme",
            words(&["kaiming-normal", "xavier-uniform", "orthogonal"]),
        ),
        cells: heat()
            .cells
            .into_iter()
            .filter(|cell| cell.column < 3)
            .collect(),
        notes: Vec::new(),
        log: true,
        ..heat()
    }
}

/// A phase diagram whose cells are large enough for numbers beside the contours.
fn coarse_phase() -> Heatmap {
    let fine = phase();
    let coarse = |axis: &PlotAxis| {
        let levels = axis.levels.iter().step_by(2).cloned().collect();
        PlotAxis::new(&axis.name, levels)
    };
    let is_kept = |cell: &&HeatmapCell| cell.row.is_multiple_of(2) && cell.column.is_multiple_of(2);
    let cells = fine.cells.iter().filter(is_kept).map(|cell| HeatmapCell {
        row: cell.row / 2,
        column: cell.column / 2,
        ..cell.clone()
    });
    Heatmap {
        cells: cells.collect(),
        rows: coarse(&fine.rows),
        columns: coarse(&fine.columns),
        ..fine
    }
}

/// Curves of ordered values with single trials, over a logarithmic axis.
fn ordered_curves() -> CurvesPlot {
    let mut curves = curves_of(5, true);
    for (at, series) in curves.series.iter_mut().enumerate() {
        series.colour = SeriesColour::Ordered(at as f64 / 4.0);
        series.dash = 0;
    }
    for (at, line) in curves.lines.iter_mut().enumerate() {
        let trial = |repeat: usize| {
            let points = line.points.iter().enumerate();
            points
                .step_by(3)
                .map(|(i, point)| {
                    let shake = 0.8 + 0.4 * noise(repeat * 997 + at * 31 + i);
                    (point.x, point.mean * shake)
                })
                .collect()
        };
        line.trials = (0..3).map(trial).collect();
    }
    CurvesPlot {
        log_x: true,
        x_name: "epoch".to_owned(),
        ..curves
    }
}

/// Four facets with two series each.
fn curve_facets() -> CurvesPlot {
    let mut curves = curves_of(8, false);
    curves.panels = (0..4)
        .map(|i| format!("batch_size = {}", 16 << i))
        .collect();
    curves.series.truncate(2);
    for (at, line) in curves.lines.iter_mut().enumerate() {
        line.panel = at / 2;
        line.series = at % 2;
    }
    curves
}

/// Curves with the moments of a schedule and a theory.
fn curves_with_theory() -> CurvesPlot {
    let places = (1..=30).map(|step| 10.0 * f64::from(step));
    CurvesPlot {
        overlays: CurveOverlays {
            guides: vec![places.map(|x| (x, 20.0 / x)).collect()],
            marks: vec![150.0],
            notes: vec!["Dashed curves: 20/x.".to_owned()],
            ..CurveOverlays::default()
        },
        ..curves_of(3, true)
    }
}

/// Effects of a claim in cells of two kinds over three decades, one without an interval.
fn effects() -> CurvesPlot {
    let point = |at: usize, series: usize| {
        let x = 1e-4 * libm::pow(10.0, at as f64 / 2.0);
        let mean = 1.0 + 0.1 * noise(20 * series + at) + 0.05 * series as f64;
        MeanPoint {
            x,
            mean,
            interval: (at != 3).then_some((mean - 0.04, mean + 0.05)),
        }
    };
    let mut curves = curves_of(2, false);
    for (series, line) in curves.lines.iter_mut().enumerate() {
        line.points = (0..7).map(|at| point(at, series)).collect();
    }
    CurvesPlot {
        metric: "ratio of settling times".to_owned(),
        x_name: "intrinsic_lr".to_owned(),
        log_x: true,
        shape: CurveShape::Points,
        overlays: CurveOverlays {
            guides: vec![vec![(1e-4, 1.0), (0.1, 1.1)]],
            region: Some((0.85, 1.2)),
            ..CurveOverlays::default()
        },
        ..curves
    }
}

/// Values of cells in two panels, with the power law that is fitted to each.
fn fitted() -> CurvesPlot {
    let height = |x: f64, panel: usize| (1.0 + panel as f64) * 0.05 / x;
    let point = |at: usize, panel: usize| {
        let x = 1e-3 * libm::pow(10.0, at as f64 / 3.0);
        let mean = height(x, panel) * (1.0 + 0.2 * (noise(30 * panel + at) - 0.5));
        MeanPoint {
            x,
            mean,
            interval: Some((0.9 * mean, 1.12 * mean)),
        }
    };
    let mut curves = curves_of(2, true);
    for (panel, line) in curves.lines.iter_mut().enumerate() {
        line.panel = panel;
        line.points = (0..7).map(|at| point(at, panel)).collect();
    }
    let fit = |panel: usize| FittedLine {
        series: panel,
        panel,
        points: [1e-3, 0.1].map(|x| (x, height(x, panel))).to_vec(),
    };
    CurvesPlot {
        metric: "settling time".to_owned(),
        x_name: "intrinsic_lr".to_owned(),
        log_x: true,
        panels: vec!["path = η".to_owned(), "path = λ".to_owned()],
        shape: CurveShape::Points,
        notes: vec!["Point and bar: value of a cell and its 90 % CI.".to_owned()],
        overlays: CurveOverlays {
            fits: vec![fit(0), fit(1)],
            ..CurveOverlays::default()
        },
        ..curves
    }
}

/// Rows of which one has a difference far from all others.
fn far_pairs() -> Vec<DifferenceRow> {
    let mut pairs = pairs_of(4);
    pairs[2].differences[3] = 0.9;
    pairs
}

/// A picture with its name.
type NamedPicture = (String, Result<Scene, String>);

fn pictures_of_width(width: f64) -> Vec<NamedPicture> {
    let maps = [
        ("heatmap", heat()),
        ("heatmap-words", word_map()),
        ("heatmap-far", far_cell()),
        ("heatmap-facets", facets()),
        ("scatter", scattered()),
        ("phase", phase()),
    ];
    let curves = [
        ("curves", curves_of(4, false)),
        ("curves-trials", ordered_curves()),
        ("curves-facets", curve_facets()),
        ("curves-theory", curves_with_theory()),
        ("effects", effects()),
        ("fitted", fitted()),
    ];
    let named = |name: &str| format!("{name}-{width}");

    let mut pictures: Vec<NamedPicture> = maps
        .iter()
        .map(|(name, map)| (named(name), heatmap::draw_heatmap(map, &style(name, width))))
        .chain(curves.iter().map(|(name, curves)| {
            (
                named(name),
                curves::draw_curves(curves, &style(name, width)),
            )
        }))
        .collect();
    pictures.push((
        named("distribution"),
        distribution::draw_distributions(
            "test_acc",
            "lr · kind",
            &cells(),
            false,
            &style("distribution", width),
        ),
    ));
    pictures.push((
        named("pairs"),
        differences::draw_differences(
            "test_acc",
            "lr=0.1",
            &far_pairs(),
            &["Rows: lr.".to_owned()],
            &style("pairs", width),
        ),
    ));
    pictures.push((
        named("bare"),
        heatmap::draw_heatmap(
            &coarse_phase(),
            &PlotStyle {
                bare: true,
                title: String::new(),
                subtitle: String::new(),
                x_label: Some("learning rate η".to_owned()),
                y_label: Some("weight decay λ".to_owned()),
                ..style("", width)
            },
        ),
    ));
    pictures
}

fn pictures() -> Vec<(String, Scene)> {
    WIDTHS
        .into_iter()
        .flat_map(pictures_of_width)
        .map(|(name, scene)| {
            let scene = scene.unwrap_or_else(|why| panic!("{name}: {why}"));
            (name, scene)
        })
        .collect()
}

#[test]
fn pictures_are_as_they_were_when_somebody_looked_at_them() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace")
        .join("tests/plots");
    let writing = std::env::var("ERGODIC_GOLDEN").is_ok_and(|word| word == "write");
    let look_at = std::env::var_os("ERGODIC_PICTURES");

    for (name, scene) in pictures() {
        let file = dir.join(format!("{name}.svg"));
        let svg = svg::render_svg(&scene);

        if writing {
            std::fs::create_dir_all(&dir).expect("a directory can be made");
            std::fs::write(&file, &svg).expect("a file can be written");
        }
        if let Some(folder) = &look_at {
            let write = |end: &str, bytes: Vec<u8>| {
                std::fs::write(Path::new(folder).join(format!("{name}.{end}")), bytes)
                    .expect("a file can be written");
            };
            write("png", png::render_png(&scene, 3.0).expect("an image"));
            write("pdf", pdf::render_pdf(&scene).expect("a page"));
        }

        let golden = std::fs::read_to_string(&file).expect("a golden picture");
        let other = svg
            .lines()
            .zip(golden.lines())
            .find(|(new, old)| new != old);
        assert!(svg == golden, "{name}: {other:?}");
    }
}

#[test]
fn the_golden_pictures_have_no_texts_that_touch() {
    for (name, scene) in pictures() {
        assert_eq!(check(&scene).map_err(|e| format!("{name}: {e}")), Ok(()));
    }
}

/// Text is at least 6 points high on paper, the remarks included.
#[test]
fn text_is_large_enough_for_a_column() {
    for (name, scene) in pictures() {
        for mark in &scene.marks {
            let Mark::Text(text) = mark else { continue };
            let points = text.size * scene.unit * 0.75;
            assert!(points >= 6.0, "{name}: '{}' has {points} points", text.text);
        }
    }
}

/// The bytes of pictures in a format, as one hash: of those with a fitted line, which came later, or of all others.
fn hash_pictures(is_fitted: bool, render: impl Fn(&Scene) -> Result<Vec<u8>, String>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, scene) in pictures() {
        if name.starts_with("fitted") != is_fitted {
            continue;
        }
        hasher.update(&render(&scene).unwrap_or_else(|why| panic!("{name}: {why}")));
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The bytes of a PNG depend on nothing of the machine: see the features of tiny-skia in Cargo.toml.
///
/// A build with SQL reads Parquet of all kinds, brings another compressor with it, and has other bytes for the same pixels.
#[cfg(not(feature = "sql"))]
#[test]
fn a_png_has_the_same_bytes_everywhere() {
    assert_eq!(
        hash_pictures(false, |scene| png::render_png(scene, 2.0)),
        "5177edfbd0a9a169"
    );
}

#[test]
fn a_pdf_has_the_same_bytes_everywhere() {
    assert_eq!(hash_pictures(false, pdf::render_pdf), "23404d66ef4b1465");
    assert_eq!(hash_pictures(true, pdf::render_pdf), "ea2d2ed5faf0967c");
}
