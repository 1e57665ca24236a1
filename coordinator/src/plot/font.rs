//! The font: widths for the layout, outlines for PNG, and its file for PDF.
//!
//! DejaVu Sans is wider than its usual substitutes, so text that fits by its widths fits in every
//! viewer of an SVG.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId, OutlineBuilder};

static FACE: LazyLock<Face<'static>> = LazyLock::new(|| {
    Face::parse(dejavu::sans::regular(), 0).expect("the font in the program is one")
});

/// The font families in an SVG; the first is the built-in one.
pub(super) const FONT_FAMILIES: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

/// Width of a text in pixels.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    glyph_ids(text)
        .map(|glyph| glyph_advance(glyph, size))
        .sum()
}

/// The beginning of a text that fits into `room` pixels, with … if the rest is cut.
pub(super) fn truncate_to_width(text: &str, size: f64, room: f64) -> String {
    if text_width(text, size) <= room {
        return text.to_owned();
    }

    let mut shortened: Vec<char> = text.chars().collect();
    while shortened.pop().is_some() {
        let cut = format!("{}…", shortened.iter().collect::<String>().trim_end());
        if text_width(&cut, size) <= room {
            return cut;
        }
    }

    String::new()
}

/// Texts that fit into `room` pixels each. Of texts that begin alike, whose cut beginnings would be the same, what they share is
/// left out, as in `…2` and `…3`.
pub(super) fn truncate_distinctly(texts: &[&str], size: f64, room: f64) -> Vec<String> {
    let mut starts = vec![0; texts.len()];
    loop {
        let cut = |(text, start): (&&str, &usize)| match start {
            0 => truncate_to_width(text, size, room),
            start => truncate_to_width(&format!("…{}", &text[*start..]), size, room),
        };
        let shown: Vec<String> = texts.iter().zip(&starts).map(cut).collect();
        let next: Vec<usize> = (0..texts.len())
            .map(|at| {
                let all = texts.iter().zip(&shown);
                let alike = all.filter(|(_, cut)| **cut == shown[at]);
                let alike: Vec<&str> = alike.map(|(text, _)| *text).collect();
                match alike.iter().all(|text| *text == texts[at]) {
                    true => starts[at],
                    false => shared_start(&alike).max(starts[at]),
                }
            })
            .collect();
        if next == starts {
            return shown;
        }
        starts = next;
    }
}

/// Number of bytes at the beginning that texts have in common, in whole characters.
fn shared_start(texts: &[&str]) -> usize {
    let Some((first, others)) = texts.split_first() else {
        return 0;
    };
    let is_shared = |end: usize| {
        let start = &first.as_bytes()[..end];
        others.iter().all(|text| text.as_bytes().starts_with(start))
    };
    let ends = first.char_indices().map(|(at, c)| at + c.len_utf8());
    ends.take_while(|end| is_shared(*end)).last().unwrap_or(0)
}

/// Draws a text at the origin, y downwards.
pub(super) fn outline_text(text: &str, size: f64, pen: &mut dyn OutlinePen) {
    let scale = size / f64::from(FACE.units_per_em());
    let mut at = 0.0;

    for glyph in glyph_ids(text) {
        FACE.outline_glyph(
            glyph,
            &mut PlacedGlyph {
                pen: &mut *pen,
                scale,
                at,
            },
        );

        at += glyph_advance(glyph, size);
    }
}

/// A receiver of outlines.
pub(super) trait OutlinePen {
    fn move_to(&mut self, x: f64, y: f64);
    fn line_to(&mut self, x: f64, y: f64);
    fn quad_to(&mut self, x1: f64, y1: f64, x: f64, y: f64);
    fn close(&mut self);
}

/// The first character that the font lacks.
pub(super) fn missing_character(text: &str) -> Option<char> {
    text.chars().find(|c| FACE.glyph_index(*c).is_none())
}

/// Blocks of characters of scripts from right to left, first and last: Hebrew to Arabic, their forms for presentation, and the
/// scripts of the supplementary plane. After Unicode's `DerivedBidiClass.txt`.
const RIGHT_TO_LEFT: [(char, char); 5] = [
    ('\u{590}', '\u{8ff}'),
    ('\u{fb1d}', '\u{fdff}'),
    ('\u{fe70}', '\u{fefe}'),
    ('\u{10800}', '\u{10fff}'),
    ('\u{1e800}', '\u{1efff}'),
];

/// Whether a character belongs to a script that is written from right to left.
pub(super) fn is_right_to_left(c: char) -> bool {
    RIGHT_TO_LEFT
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&c))
}

/// The font, for its measures.
pub(super) fn face() -> &'static Face<'static> {
    &FACE
}

/// The file of the font.
pub(super) fn font_file() -> &'static [u8] {
    dejavu::sans::regular()
}

fn glyph_ids(text: &str) -> impl Iterator<Item = GlyphId> + '_ {
    // The font draws glyph 0, a box, for characters that it lacks.
    text.chars()
        .map(|c| FACE.glyph_index(c).unwrap_or(GlyphId(0)))
}

fn glyph_advance(glyph: GlyphId, size: f64) -> f64 {
    // Characters that the font lacks are drawn by another font of the viewer; those of East Asian
    // scripts, the widest usual ones, are as wide as high.
    if glyph == GlyphId(0) {
        return size;
    }
    f64::from(FACE.glyph_hor_advance(glyph).unwrap_or(0)) * size / f64::from(FACE.units_per_em())
}

struct PlacedGlyph<'a> {
    pen: &'a mut dyn OutlinePen,
    scale: f64,
    at: f64,
}

impl PlacedGlyph<'_> {
    fn to_pen_position(&self, x: f32, y: f32) -> (f64, f64) {
        (
            self.at + f64::from(x) * self.scale,
            -f64::from(y) * self.scale,
        )
    }
}

impl OutlineBuilder for PlacedGlyph<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.to_pen_position(x, y);
        self.pen.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.to_pen_position(x, y);
        self.pen.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let (x1, y1) = self.to_pen_position(x1, y1);
        let (x, y) = self.to_pen_position(x, y);
        self.pen.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        // TrueType outlines have only quadratic curves, so a rough approximation suffices here.
        self.quad_to((x1 + x2) / 2.0, (y1 + y2) / 2.0, x, y);
    }

    fn close(&mut self) {
        self.pen.close();
    }
}
