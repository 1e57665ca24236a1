//! Common parts of pictures: heading, notes, axes with ticks, and names of rows.

use super::axis::AxisScale;
use super::colour::{FAINT, GREY, INK};
use super::scene::{Anchor, Area, Scene, Stroke};
use super::{PlotStyle, font};

/// Height of ordinary text, in units of the layout.
pub(super) const TEXT_SIZE: f64 = 12.0;
/// Size of remarks, in units of the layout.
pub(super) const SMALL_TEXT_SIZE: f64 = 10.5;
const TITLE_SIZE: f64 = 14.0;
const MARGIN: f64 = 12.0;
const TITLE_LEADING: f64 = 20.0;
const NOTE_LEADING: f64 = 14.0;
/// Maximum number of lines of a title, and of a subtitle.
const MAX_LINES: usize = 3;
/// Minimum width and height of the area within the frame, in units of the layout.
const MIN_AREA_SIZE: f64 = 60.0;

/// A picture with its heading and notes, and the area that remains.
pub(super) struct PlotSheet {
    pub(super) scene: Scene,
    pub(super) body: Area,
    pub(super) look: PlotStyle,
}

impl PlotSheet {
    /// Creates a picture. `size` is its preferred size without heading and notes: the width in units of the layout,
    /// and the height in units of the layout.
    pub(super) fn new(look: &PlotStyle, size: (f64, f64), all_notes: &[String]) -> Self {
        let width = look.resolve_width(size.0);
        let room = width - 2.0 * MARGIN;
        let notes: Vec<String> = all_notes
            .iter()
            .filter(|_| !look.bare)
            .flat_map(|note| wrap_text(note, SMALL_TEXT_SIZE, room))
            .collect();

        let titles = wrap_heading(&look.title, TITLE_SIZE, room);
        let subtitles = wrap_heading(&look.subtitle, SMALL_TEXT_SIZE, room);

        let below_title = TITLE_LEADING * titles.len() as f64;
        let below_subtitle = NOTE_LEADING * subtitles.len() as f64;
        let top =
            MARGIN + below_title + below_subtitle + if subtitles.is_empty() { 0.0 } else { 1.0 };
        let below = MARGIN + notes.len() as f64 * NOTE_LEADING;
        let description = match look.description.as_str() {
            "" => &look.title,
            description => description,
        };
        let height = look.resolve_height(top + size.1 + below);
        let mut scene = Scene::new(width, height, look.pixels_per_unit(), description);
        scene.notes = all_notes.to_vec();
        for (text, lines) in [(&look.title, &titles), (&look.subtitle, &subtitles)] {
            if lines.last().is_some_and(|line| line.ends_with('…')) {
                scene.remember_cut(text, &lines.join(" "));
            }
        }

        for (at, title) in titles.iter().enumerate() {
            let y = MARGIN + TITLE_SIZE * 0.8 + at as f64 * TITLE_LEADING;
            scene.add_text((MARGIN, y), title, TITLE_SIZE, INK, Anchor::Start);
        }

        for (at, subtitle) in subtitles.iter().enumerate() {
            let y = MARGIN + below_title + 10.0 + at as f64 * NOTE_LEADING;
            scene.add_text((MARGIN, y), subtitle, SMALL_TEXT_SIZE, GREY, Anchor::Start);
        }

        for (at, note) in notes.iter().enumerate() {
            let y = height - below + (at as f64 + 1.0) * NOTE_LEADING - 1.0;
            scene.add_text((MARGIN, y), note, SMALL_TEXT_SIZE, GREY, Anchor::Start);
        }

        let body = Area {
            left: MARGIN,
            top: top + 4.0,
            right: width - MARGIN,
            bottom: height - below,
        };
        Self {
            scene,
            body,
            look: look.clone(),
        }
    }

    /// The area of the body within these margins.
    ///
    /// # Errors
    /// The picture is too small to show anything.
    pub(super) fn inner_area(&self, left: f64, right: f64, bottom: f64) -> Result<Area, String> {
        let Area {
            left: l,
            top,
            right: r,
            bottom: b,
        } = self.body;
        let area = Area {
            left: l + left,
            top: top + 4.0,
            right: r - right,
            bottom: b - bottom,
        };
        let short = MIN_AREA_SIZE - area.width();

        let low = MIN_AREA_SIZE - area.height();
        if short > 0.0 || low > 0.0 {
            return Err(self.look.too_small_error(
                "small for its labels",
                self.scene.width + short.max(0.0),
                self.scene.height + low.max(0.0),
            ));
        }

        Ok(area)
    }
}

/// The first lines of a wrapped text, with … if there are more.
fn wrap_heading(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines = wrap_text(text, size, room);
    if lines.len() > MAX_LINES {
        let cut = format!("{} {}", lines[MAX_LINES - 1], lines[MAX_LINES]);
        lines.truncate(MAX_LINES - 1);
        lines.push(font::truncate_to_width(&cut, size, room));
    }
    lines
}

/// Splits a word into parts that fit, after punctuation if there is any.
fn break_word(word: &str, size: f64, room: f64) -> Vec<String> {
    if font::text_width(word, size) <= room {
        return vec![word.to_owned()];
    }

    let mut parts = Vec::new();
    let mut part = String::new();

    for c in word.chars() {
        if !part.is_empty() && font::text_width(&format!("{part}{c}"), size) > room {
            let mark = part
                .rfind(['-', '_', '.', '/', ','])
                .map(|at| at + 1)
                .filter(|at| 2 * at > part.len());
            let rest = part.split_off(mark.unwrap_or(part.len()));
            parts.push(std::mem::replace(&mut part, rest));
        }

        part.push(c);
    }

    parts.push(part);
    parts
}

/// Wraps a text between words, and within words that are too long for a line.
fn wrap_text(text: &str, size: f64, room: f64) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }

    let mut lines = vec![String::new()];
    for word in text
        .split(' ')
        .flat_map(|word| break_word(word, size, room))
    {
        let last = lines.last_mut().expect("there is always a line");
        let longer = if last.is_empty() {
            word.clone()
        } else {
            format!("{last} {word}")
        };
        if last.is_empty() || font::text_width(&longer, size) <= room {
            *last = longer
        } else {
            lines.push(word)
        }
    }

    lines
        .into_iter()
        .map(|line| font::truncate_to_width(&line, size, room))
        .collect()
}

pub(super) fn widest_text<'a>(texts: impl IntoIterator<Item = &'a str>, size: f64) -> f64 {
    texts
        .into_iter()
        .map(|text| font::text_width(text, size))
        .fold(0.0, f64::max)
}

/// Draws a frame of thin lines.
pub(super) fn draw_frame(scene: &mut Scene, area: Area) {
    scene.add_area(area, None, Some(Stroke::new(GREY, 1.0)));
}

/// Draws ticks below an area with lines through it, and their labels if they may reach `overhang`
/// beyond its sides. Leaves out labels that would touch.
pub(super) fn draw_ticks_below(
    scene: &mut Scene,
    area: Area,
    scale: &AxisScale,
    overhang: Option<f64>,
) {
    let most = (area.width() / 50.0).clamp(2.0, 10.0) as usize;
    let mut free_from = f64::NEG_INFINITY;

    for (value, label) in scale.choose_ticks(most) {
        let x = area.left + scale.position_of(value) * area.width();
        scene.add_line(
            vec![(x, area.top), (x, area.bottom)],
            Stroke::new(FAINT, 0.75),
        );
        scene.add_line(
            vec![(x, area.bottom), (x, area.bottom + 4.0)],
            Stroke::new(GREY, 1.0),
        );

        let half = font::text_width(&label, TEXT_SIZE) / 2.0;
        // The last label may end beyond the frame, but not beyond the picture.
        let middle = x.min(scene.width - half - 1.0);
        let has_room = overhang.is_some_and(|overhang| {
            middle - half >= area.left - overhang && middle + half <= area.right + overhang
        });
        if has_room && middle - half >= free_from {
            scene.add_text(
                (middle, area.bottom + 17.0),
                &label,
                TEXT_SIZE,
                INK,
                Anchor::Middle,
            );

            free_from = middle + half + 6.0;
        }
    }
}

/// Draws the name of the horizontal axis below an area and its ticks.
pub(super) fn draw_name_below(scene: &mut Scene, area: Area, name: &str) {
    let centre = area.centre().0;
    // A long name may be wider than the area, as far as the picture reaches on both sides.
    let room = 2.0 * (centre - 4.0).min(scene.width - centre - 4.0);
    let name = scene.fit_text(name, TEXT_SIZE, room.max(area.width()));
    scene.add_text(
        (centre, area.bottom + 35.0),
        &name,
        TEXT_SIZE,
        INK,
        Anchor::Middle,
    );
}

/// Height of the ticks below an area, in units of the layout.
pub(super) const TICKS_BELOW_HEIGHT: f64 = 40.0;

/// Chooses the ticks of an axis at the left.
pub(super) fn choose_left_ticks(height: f64, scale: &AxisScale) -> Vec<(f64, String)> {
    scale.choose_ticks((height / 34.0).clamp(2.0, 9.0) as usize)
}

/// Width of the ticks at the left with the name of the axis, in units of the layout.
pub(super) fn left_ticks_width(ticks: &[(f64, String)]) -> f64 {
    widest_text(ticks.iter().map(|(_, label)| label.as_str()), TEXT_SIZE) + 30.0
}

/// Draws the ticks at the left with lines through the area, and their labels if wanted.
pub(super) fn draw_left_ticks(
    scene: &mut Scene,
    area: Area,
    scale: &AxisScale,
    ticks: &[(f64, String)],
    labelled: bool,
) {
    for (value, label) in ticks {
        let y = area.bottom - scale.position_of(*value) * area.height();
        scene.add_line(
            vec![(area.left, y), (area.right, y)],
            Stroke::new(FAINT, 0.75),
        );
        scene.add_line(
            vec![(area.left - 4.0, y), (area.left, y)],
            Stroke::new(GREY, 1.0),
        );

        if labelled {
            scene.add_text(
                (area.left - 7.0, y + TEXT_SIZE * 0.36),
                label,
                TEXT_SIZE,
                INK,
                Anchor::End,
            );
        }
    }
}

/// Draws the name of an axis upwards; `left` is where its space begins.
pub(super) fn draw_left_name(scene: &mut Scene, area: Area, left: f64, name: &str) {
    let name = scene.fit_text(name, TEXT_SIZE, area.height());
    scene.add_turned_text(
        (left + TEXT_SIZE, area.centre().1),
        &name,
        TEXT_SIZE,
        INK,
        Anchor::Middle,
    );
}
