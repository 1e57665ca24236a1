//! The bar that relates colours to numbers.

use crate::plot::axis::AxisScale;
use crate::plot::colour::{GREY, INK};
use crate::plot::frame::{SMALL_TEXT_SIZE, TEXT_SIZE};
use crate::plot::heatmap::Heatmap;
use crate::plot::heatmap::colour_scale::ColourScale;
use crate::plot::scene::{Anchor, Area, Fill, Scene, Stroke};
use crate::plot::{PlotStyle, font, frame};

const COLOUR_BAR_WIDTH: f64 = 14.0;

fn choose_bar_ticks(scale: &AxisScale, height: f64) -> Vec<(f64, String)> {
    scale.choose_ticks((height / 36.0).clamp(2.0, 8.0) as usize)
}

pub(super) fn colour_bar_width(colours: &ColourScale) -> f64 {
    // The height is not known yet, so the widest labels of every likely number of ticks are
    // measured.
    let widest = (2..=8)
        .map(|labels| {
            let labels = choose_bar_ticks(&colours.scale, f64::from(labels) * 36.0);
            frame::widest_text(labels.iter().map(|(_, label)| label.as_str()), TEXT_SIZE)
        })
        .fold(0.0, f64::max);
    18.0 + COLOUR_BAR_WIDTH + 7.0 + widest + 22.0
}

/// Draws the colours with their values, at the right.
pub(super) fn draw_colour_bar(
    scene: &mut Scene,
    map: &Heatmap,
    look: &PlotStyle,
    area: Area,
    colours: &ColourScale,
) {
    // Colours are about a picture's height, not a page's.
    let trim = ((area.height() - MAX_BAR_HEIGHT) / 2.0).max(0.0);
    let bar = Area {
        left: area.right + 18.0,
        right: area.right + 18.0 + COLOUR_BAR_WIDTH,
        top: area.top + trim,
        bottom: area.bottom - trim,
    };
    draw_colours(scene, colours, bar);
    draw_bar_ends(scene, colours, bar);
    scene.add_area(bar, None, Some(Stroke::new(GREY, 1.0)));
    draw_bar_ticks(scene, bar, &colours.scale);

    let name = format_bar_name(map, look);
    let size = if font::text_width(&name, TEXT_SIZE) > area.height() {
        SMALL_TEXT_SIZE
    } else {
        TEXT_SIZE
    };
    let name = scene.fit_text(&name, size, area.height());

    scene.add_turned_text(
        (scene.width - 14.0, area.centre().1),
        &name,
        size,
        INK,
        Anchor::Middle,
    );
}

/// What the colours mean.
fn format_bar_name(map: &Heatmap, look: &PlotStyle) -> String {
    match &look.colour_label {
        Some(name) => name.clone(),
        None if map.log => format!("{} (log scale)", map.name),
        None => map.name.clone(),
    }
}

/// The height that the bar's name needs, unless it is very long.
pub(super) fn bar_name_height(map: &Heatmap, look: &PlotStyle) -> f64 {
    font::text_width(&format_bar_name(map, look), SMALL_TEXT_SIZE).min(220.0)
}

/// Maximum height of the bar.
const MAX_BAR_HEIGHT: f64 = 420.0;

/// Draws a triangle at each end beyond which there are numbers.
fn draw_bar_ends(scene: &mut Scene, colours: &ColourScale, bar: Area) {
    let middle = (bar.left + bar.right) / 2.0;
    for (cells, share, base, tip) in [
        (colours.outside[0], 0.0, bar.bottom, bar.bottom + 8.0),
        (colours.outside[1], 1.0, bar.top, bar.top - 8.0),
    ] {
        if cells > 0 {
            let fill = Fill {
                colour: colours.map.colour_at(share),
                opacity: 1.0,
            };
            let points = vec![(bar.left, base), (bar.right, base), (middle, tip)];
            scene.add_polygon(points, Some(fill), Some(Stroke::new(GREY, 1.0)));
        }
    }
}

/// Number of parts of the bar, each of one colour.
const COLOUR_STEPS: i32 = 64;

fn draw_colours(scene: &mut Scene, colours: &ColourScale, bar: Area) {
    for i in 0..COLOUR_STEPS {
        let share = f64::from(i) / f64::from(COLOUR_STEPS);
        let next_share = f64::from(i + 1) / f64::from(COLOUR_STEPS);
        let colour = colours
            .map
            .colour_at((f64::from(i) + 0.5) / f64::from(COLOUR_STEPS));

        // Overlaps the next piece by half a pixel, so that no background shows through.
        let bottom = bar.bottom - share * bar.height() + 0.5;
        let part = Area {
            top: bar.bottom - next_share * bar.height(),
            bottom: bottom.min(bar.bottom),
            ..bar
        };

        let fill = Fill {
            colour,
            opacity: 1.0,
        };
        scene.add_area(part, Some(fill), None);
    }
}

fn draw_bar_ticks(scene: &mut Scene, bar: Area, scale: &AxisScale) {
    for (value, label) in &choose_bar_ticks(scale, bar.height()) {
        let y = bar.bottom - scale.position_of(*value) * bar.height();
        scene.add_line(
            vec![(bar.right, y), (bar.right + 4.0, y)],
            Stroke::new(GREY, 1.0),
        );

        scene.add_text(
            (bar.right + 7.0, y + TEXT_SIZE * 0.36),
            label,
            TEXT_SIZE,
            INK,
            Anchor::Start,
        );
    }
}
