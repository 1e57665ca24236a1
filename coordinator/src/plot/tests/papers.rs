//! What papers ask of figures: sizes, limits, colours, formats.

use super::*;

fn svg_of(scene: &Scene) -> String {
    svg::render_svg(scene)
}

#[test]
fn lengths_have_units() {
    let near = |text: &str, pixels: f64| {
        let parsed = parse_length(text).expect("a length");
        assert!((parsed - pixels).abs() < 0.01, "{text}: {parsed}");
    };
    near("80mm", 302.36);
    near("8 cm", 302.36);
    near("3.25in", 312.0);
    near("240pt", 320.0);
    near("640", 640.0);
    near("640px", 640.0);
    for bad in [
        "", "mm", "80 miles", "-3mm", "0", "inf", "1e999mm", "80mmmm",
    ] {
        assert!(
            parse_length(bad).is_err_and(|e| e.contains("such as 80mm")),
            "{bad}"
        );
    }
}

#[test]
fn limits_may_have_one_end() {
    let limits = |low, high| Ok(AxisLimits { low, high });
    assert_eq!(parse_limits("0,1"), limits(Some(0.0), Some(1.0)));
    assert_eq!(parse_limits(" -2 , "), limits(Some(-2.0), None));
    assert_eq!(parse_limits(",1e3"), limits(None, Some(1000.0)));
    for bad in ["", ",", "1", "1,0", "1,1", "a,b", "0,inf"] {
        assert!(
            parse_limits(bad).is_err_and(|e| e.contains("expected")),
            "{bad}"
        );
    }
}

#[test]
fn a_narrow_picture_has_smaller_text_and_its_exact_width() {
    let of = |width: f64, font_size: Option<f64>| {
        let style = PlotStyle {
            width: Some(width * style::PIXELS_PER_MM),
            font_size,
            ..look("sizes")
        };
        curves::draw_curves(&curves_of(3, false), &style).expect("it can be drawn")
    };
    let points = |scene: &Scene| {
        let size = |text: &str| {
            scene.marks.iter().find_map(|mark| match mark {
                Mark::Text(t) if t.text == text => Some(t.size * scene.unit * 0.75),
                _ => None,
            })
        };
        size("step").expect("the name of the axis")
    };

    assert!((points(&of(170.0, None)) - 9.0).abs() < 1e-9);
    assert!((points(&of(80.0, None)) - 7.0).abs() < 1e-9);
    assert!((points(&of(80.0, Some(8.0))) - 8.0).abs() < 1e-9);
    assert!(
        svg_of(&of(80.0, None))
            .contains("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"302.36\"")
    );
}

#[test]
fn a_bare_picture_keeps_its_notes_for_the_caption() {
    let bare = PlotStyle {
        bare: true,
        title: String::new(),
        subtitle: String::new(),
        x_label: Some("learning rate".to_owned()),
        y_label: Some("weight decay".to_owned()),
        colour_label: Some("accuracy".to_owned()),
        ..PlotStyle::default()
    };
    let scene = heatmap::draw_heatmap(&heat(), &bare).expect("it can be drawn");
    let text = said(&scene);
    for words in ["learning rate", "weight decay", "accuracy"] {
        assert!(text.contains(words), "{text}");
    }

    assert!(
        !text.contains("Crossed") && !text.contains("mean test_acc"),
        "{text}"
    );
    assert!(scene.notes().iter().any(|note| note.contains("Crossed")));
}

#[test]
fn one_far_cell_does_not_take_all_colours() {
    let ticks = |far: f64, limits: AxisLimits| {
        let mut map = heat();
        map.cells[4].value = Some(far);
        let style = PlotStyle {
            colour_limits: limits,
            ..look("far")
        };
        said(&heatmap::draw_heatmap(&map, &style).expect("it can be drawn"))
    };
    let none = AxisLimits::default();
    let far = ticks(48.5, none);
    assert!(
        far.contains("Triangle: 1 cell is above the colours, up to 48.5 (--clim shows more).")
            && far.contains(" 0.6 "),
        "{far}"
    );

    assert!(!ticks(0.95, none).contains("Triangle"));
    let all = AxisLimits {
        low: Some(0.0),
        high: Some(50.0),
    };
    assert!(!ticks(48.5, all).contains("Triangle"));
    let few = AxisLimits {
        low: Some(0.6),
        high: Some(0.7),
    };
    assert!(ticks(0.65, few).contains("cells are below the colours"));
}

#[test]
fn far_values_do_not_stretch_rows_and_far_curves_do_not_stretch_the_frame() {
    let mut pairs = pairs_of(4);
    pairs[1].differences[0] = 7.0;
    let text = said(
        &differences::draw_differences("m", "b", &pairs, &[], &look("far"))
            .expect("it can be drawn"),
    );
    assert!(
        text.contains("Triangles: 1 value is outside of the axis") && text.contains("0.01"),
        "{text}"
    );

    let mut curves = curves_of(5, false);
    curves.lines[2]
        .points
        .iter_mut()
        .for_each(|point| (point.mean, point.interval) = (point.mean * 1e4, None));
    let text = said(&curves::draw_curves(&curves, &look("far")).expect("it can be drawn"));
    assert!(
        text.contains("1 curve leaves the frame") && text.contains(" 1.4 "),
        "{text}"
    );
    let wide = PlotStyle {
        y_limits: AxisLimits {
            low: None,
            high: Some(2e4),
        },
        ..look("far")
    };
    let text = said(&curves::draw_curves(&curves, &wide).expect("it can be drawn"));
    assert!(!text.contains("leaves the frame"), "{text}");
}

#[test]
fn a_robust_range_needs_a_far_value() {
    use robust::find_robust_range;

    let values = [0.1, 0.2, 0.3, 0.4, 0.5];
    assert_eq!(find_robust_range(&values, false), None);
    assert_eq!(find_robust_range(&[0.5, 0.5, 0.5, 0.5, 9.0], false), None);
    let far = [&values[..], &[90.0]].concat();
    let range = find_robust_range(&far, false).expect("one is far");
    assert_eq!((range.low, range.high, range.outside), (0.1, 0.5, [0, 1]));

    // Two of six are no exception, and on a logarithmic scale nothing is far.
    assert_eq!(
        find_robust_range(&[&far[..], &[91.0]].concat(), false),
        None
    );
    let decades: Vec<f64> = (0..9).map(|i| libm::exp10(f64::from(i))).collect();
    assert_eq!(find_robust_range(&decades, true), None);
}

#[test]
fn limits_cut_lines_and_bands_at_the_frame() {
    let style = PlotStyle {
        x_limits: AxisLimits {
            low: Some(50.0),
            high: Some(120.0),
        },
        y_limits: AxisLimits {
            low: Some(0.5),
            high: Some(1.0),
        },
        ..look("limits")
    };
    let scene = curves::draw_curves(&curves_of(4, false), &style).expect("it can be drawn");
    assert_eq!(check(&scene).map_err(|e| e.to_string()), Ok(()));

    let log = CurvesPlot {
        log: true,
        ..curves_of(2, false)
    };
    let below_zero = PlotStyle {
        y_limits: AxisLimits {
            low: Some(0.0),
            high: None,
        },
        ..look("limits")
    };
    assert!(
        curves::draw_curves(&log, &below_zero).is_err_and(|e| e.contains("--ylim: 0 has no place"))
    );
    let beyond = PlotStyle {
        x_limits: AxisLimits {
            low: Some(1e9),
            high: None,
        },
        ..look("limits")
    };
    assert!(
        curves::draw_curves(&curves_of(2, false), &beyond).is_err_and(
            |e| e.contains("--xlim: nothing lies from 1000000000 on: the data are from")
        )
    );
}

#[test]
fn limits_that_leave_everything_out_are_refused_with_the_range_of_the_data() {
    let style = |x: Option<(f64, f64)>, y: Option<(f64, f64)>| {
        let limits = |ends: Option<(f64, f64)>| AxisLimits {
            low: ends.map(|ends| ends.0),
            high: ends.map(|ends| ends.1),
        };
        PlotStyle {
            x_limits: limits(x),
            y_limits: limits(y),
            ..look("empty")
        }
    };
    let far = Some((1e9, 2e9));
    let says = |drawn: Result<Scene, String>, words: &str| {
        assert!(
            drawn.as_ref().is_err_and(|e| e.contains(words)),
            "{words}: {:?}",
            drawn.err()
        );
    };

    let curves = curves_of(2, false);
    let draw = |x, y| curves::draw_curves(&curves, &style(x, y));
    says(
        draw(far, None),
        "--xlim: nothing lies from 1000000000 to 2000000000: the data are from",
    );
    says(
        draw(None, far),
        "--ylim: nothing lies from 1000000000 to 2000000000: the data are from",
    );
    says(
        distribution::draw_distributions("m", "lr", &cells(), false, &style(far, None)),
        "--xlim: nothing lies",
    );
    let map = scattered();
    for (x, y, option) in [(far, None, "--xlim"), (None, far, "--ylim")] {
        says(
            heatmap::draw_heatmap(&map, &style(x, y)),
            &format!("{option}: nothing lies"),
        );
    }
}

#[test]
fn limits_between_which_no_curve_passes_are_refused() {
    let point = |x: f64, mean: f64| MeanPoint {
        x,
        mean,
        interval: None,
    };
    let mut curves = curves_of(1, false);
    curves.lines[0].points = vec![point(0.0, 0.0), point(10.0, 1.0)];
    let style = |y| PlotStyle {
        x_limits: AxisLimits {
            low: None,
            high: Some(2.0),
        },
        y_limits: AxisLimits {
            low: Some(y),
            high: None,
        },
        ..look("empty")
    };
    assert!(curves::draw_curves(&curves, &style(0.1)).is_ok());
    assert!(
        curves::draw_curves(&curves, &style(0.5))
            .is_err_and(|e| e.contains("no curve passes within both: the means there are from 0"))
    );
}

#[test]
fn cut_names_that_begin_alike_still_differ() {
    let titles = [
        "optimizer.schedule.kind = cosine_with_warmup_10",
        "optimizer.schedule.kind = cosine_with_warmup_20",
    ];
    let cut = font::truncate_distinctly(&titles, 12.0, 105.0);
    assert_eq!(cut, ["…10", "…20"]);
    assert_eq!(
        font::truncate_distinctly(&["lr = 0.1", "lr = 0.2", "lr = 0.2"], 12.0, 105.0),
        ["lr = 0.1", "lr = 0.2", "lr = 0.2"]
    );

    let of_facets = CurvesPlot {
        panels: titles.map(str::to_owned).to_vec(),
        ..curves_of(2, false)
    };
    let narrow = PlotStyle {
        width: Some(80.0 * style::PIXELS_PER_MM),
        ..look("facets")
    };
    let scene = curves::draw_curves(&of_facets, &narrow).expect("it can be drawn");
    let shown: Vec<&str> = scene
        .marks
        .iter()
        .filter_map(|mark| match mark {
            Mark::Text(text) if text.text.contains('…') => Some(text.text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(shown, cut);
}

#[test]
fn rows_find_their_levels_in_ascending_order() {
    let level = |x: f64| AxisLevel {
        text: x.to_string(),
        number: Some(x),
    };
    let (axis, of_row) = PlotAxis::from_rows("lr", [0.3, 0.1, 0.3, 0.2].map(level));
    let texts: Vec<&str> = axis
        .levels
        .iter()
        .map(|level| level.text.as_str())
        .collect();
    assert_eq!(
        (texts, of_row),
        (vec!["0.1", "0.2", "0.3"], vec![2, 0, 2, 1])
    );

    // What equals nothing, not even itself, is taken for no other level.
    let (axis, of_row) = PlotAxis::from_rows("lr", [0.1, f64::NAN].map(level));
    assert_eq!((axis.levels.len(), of_row), (2, vec![0, 1]));
}

#[test]
fn options_without_effect_are_refused() {
    let limits = AxisLimits {
        low: Some(0.0),
        high: None,
    };
    let x = PlotStyle {
        x_limits: limits,
        ..look("options")
    };
    assert!(heatmap::draw_heatmap(&heat(), &x).is_err_and(|e| e.contains("--kind scatter")));
    // Its axes are logarithmic.
    assert!(
        heatmap::draw_heatmap(&scattered(), &x)
            .is_err_and(|e| e.contains("--xlim: 0 has no place"))
    );
    let y = PlotStyle {
        y_limits: limits,
        ..look("options")
    };
    assert!(
        distribution::draw_distributions("m", "lr", &cells(), false, &y)
            .is_err_and(|e| e.contains("--ylim"))
    );
    let colours = PlotStyle {
        colour_limits: limits,
        ..look("options")
    };
    assert!(
        curves::draw_curves(&curves_of(2, false), &colours).is_err_and(|e| e.contains("--clim"))
    );
}

#[test]
fn points_need_two_axes_of_numbers() {
    let grid = Heatmap {
        scattered: true,
        ..heat()
    };
    let scene = heatmap::draw_heatmap(&grid, &look("points")).expect("it can be drawn");
    let circles = scene
        .marks
        .iter()
        .filter(|mark| matches!(mark, Mark::Shape(SceneShape::Circle { .. }, ..)))
        .count();
    assert!(circles >= 12, "{circles}");

    let words = Heatmap {
        columns: PlotAxis::new("kind", words(&["a", "b", "c", "d", "e"])),
        ..grid
    };
    assert!(
        heatmap::draw_heatmap(&words, &look("points"))
            .is_err_and(|e| e.contains("'kind' has the value 'a'"))
    );
}

#[test]
fn colour_maps_have_names_and_lines_are_dark_enough() {
    for name in COLOUR_MAPS {
        let map = ColourMap::from_name(name).expect("a colour map");
        let reversed = ColourMap::from_name(&format!("{name}_r")).expect("a colour map");
        assert_eq!(map.colour_at(0.2), reversed.colour_at(0.8), "{name}");
    }
    assert_eq!(ColourMap::from_name("jet"), None);

    let map = ColourMap::from_name("viridis").expect("a colour map");
    let [r, g, b] = map.line_colour_at(1.0).map(f64::from);
    assert!(0.2126 * r + 0.7152 * g + 0.0722 * b < 190.0, "not yellow");
}

#[test]
fn what_the_font_lacks_is_refused_except_in_an_svg() {
    let scene =
        curves::draw_curves(&curves_of(2, false), &look("学習率 η")).expect("it can be drawn");
    for refused in [pdf::render_pdf(&scene), png::render_png(&scene, 1.0)] {
        assert!(refused.is_err_and(|e| e.contains("'学'") && e.contains("--title")));
    }
    assert!(svg_of(&scene).contains("学習率 η"));

    let greek =
        curves::draw_curves(&curves_of(2, false), &look("η λ ± Ω ž")).expect("it can be drawn");
    assert!(pdf::render_pdf(&greek).is_ok());
}

#[test]
fn a_pdf_has_the_same_bytes_twice_and_its_page_is_as_large_as_asked() {
    let style = PlotStyle {
        width: Some(80.0 * style::PIXELS_PER_MM),
        ..look("page")
    };
    let scene = heatmap::draw_heatmap(&phase(), &style).expect("it can be drawn");
    let bytes = pdf::render_pdf(&scene).expect("a page");
    assert_eq!(bytes, pdf::render_pdf(&scene).expect("a page"));

    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("%PDF-1.7") && text.contains("+DejaVuSans"));
    // 80 mm are 226.77 points.
    assert!(text.contains("/MediaBox [0 0 226.77 "), "{text}");
    assert!(!text.contains("CreationDate") && text.contains("/ToUnicode"));
}

/// Panels of any number and width have no texts that touch, or are refused.
#[test]
fn facets_are_legible_or_refused() {
    for panels in [1, 2, 5, 9, 16] {
        let titles: Vec<String> = (0..panels).map(|i| format!("norm = {i}")).collect();
        let mut map = heat();
        map.cells = (0..panels)
            .flat_map(|panel| {
                heat()
                    .cells
                    .into_iter()
                    .map(move |cell| HeatmapCell { panel, ..cell })
            })
            .collect();
        map.panels.clone_from(&titles);
        let points = Heatmap {
            scattered: true,
            ..map.clone()
        };
        let mut curves = curves_of(panels, false);
        for (at, line) in curves.lines.iter_mut().enumerate() {
            (line.panel, line.series) = (at, 0);
        }
        curves.series.truncate(1);
        curves.panels = titles;

        for millimetres in [42.0, 60.0, 80.0, 120.0, 170.0, 300.0] {
            for height in [None, Some(200.0)] {
                let style = PlotStyle {
                    width: Some(millimetres * style::PIXELS_PER_MM),
                    height,
                    ..look("facets")
                };
                for drawn in [
                    heatmap::draw_heatmap(&map, &style),
                    heatmap::draw_heatmap(&points, &style),
                    curves::draw_curves(&curves, &style),
                ] {
                    match drawn {
                        Ok(scene) => assert_eq!(
                            check(&scene).map_err(|e| format!("{panels}, {millimetres} mm: {e}")),
                            Ok(())
                        ),
                        Err(why) => assert!(why.contains("the picture is too"), "{why}"),
                    }
                }
            }
        }
    }

    let many = Heatmap {
        panels: vec!["panel".to_owned(); 17],
        ..heat()
    };
    assert!(
        heatmap::draw_heatmap(&many, &look("facets"))
            .is_err_and(|e| e.contains("--facet: 17 panels are too many"))
    );
}
