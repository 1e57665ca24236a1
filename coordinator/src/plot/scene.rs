//! A picture as a list of marks, which [`svg`](super::svg), [`png`](super::png) and [`pdf`](super::pdf) draw alike.

use ergodic_common::escape::escape_line;

use super::colour::Colour;
use super::font;

/// The position of a text relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The style of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stroke {
    pub(super) colour: Colour,
    pub(super) width: f64,
    /// Lengths of dashes and gaps, alternately; empty for a solid line.
    pub(super) dash: &'static [f64],
}

impl Stroke {
    pub(super) fn new(colour: Colour, width: f64) -> Self {
        Self {
            colour,
            width,
            dash: &[],
        }
    }
}

/// The style of an area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill {
    pub(super) colour: Colour,
    /// Opacity from 0, invisible, to 1.
    pub(super) opacity: f64,
}

#[derive(Debug, Clone)]
pub(super) enum SceneShape {
    Path {
        points: Vec<(f64, f64)>,
        closed: bool,
    },
    Circle {
        at: (f64, f64),
        radius: f64,
    },
}

#[derive(Debug, Clone)]
pub(super) struct SceneText {
    /// The point on the base line.
    pub(super) at: (f64, f64),
    pub(super) text: String,
    pub(super) size: f64,
    pub(super) colour: Colour,
    pub(super) anchor: Anchor,
    /// Whether the text is written upwards.
    pub(super) turned: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Mark {
    Shape(SceneShape, Option<Fill>, Option<Stroke>),
    Text(SceneText),
}

/// A picture: marks on white, in units of the layout from the upper left corner.
#[derive(Debug, Clone)]
pub struct Scene {
    pub(super) width: f64,
    pub(super) height: f64,
    /// CSS pixels per unit.
    pub(super) unit: f64,
    pub(super) marks: Vec<Mark>,
    /// What a caption has to say: the meaning of marks, and what is not shown.
    pub(super) notes: Vec<String>,
    /// Texts that had no room, of which the picture shows a part.
    pub(super) cut_texts: Vec<String>,
    /// What the picture shows, for readers who cannot see it.
    pub(super) description: String,
}

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Area {
    pub(super) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(super) fn height(&self) -> f64 {
        self.bottom - self.top
    }

    pub(super) fn centre(&self) -> (f64, f64) {
        (
            (self.left + self.right) / 2.0,
            (self.top + self.bottom) / 2.0,
        )
    }
}

impl Scene {
    pub(super) fn new(width: f64, height: f64, unit: f64, description: &str) -> Self {
        Self {
            width,
            height,
            unit,
            marks: Vec::new(),
            notes: Vec::new(),
            cut_texts: Vec::new(),
            description: description.to_owned(),
        }
    }

    /// What a caption has to say, sentence by sentence.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The texts that had no room, each once: the picture shows a part of them, and `…`.
    pub fn cut_texts(&self) -> &[String] {
        &self.cut_texts
    }

    /// Cuts a text to a width, and remembers that.
    pub(super) fn fit_text(&mut self, text: &str, size: f64, room: f64) -> String {
        let fitting = font::truncate_to_width(text, size, room);
        self.remember_cut(text, &fitting);
        fitting
    }

    /// Cuts texts to a width such that different ones still differ, and remembers that.
    pub(super) fn fit_texts(&mut self, texts: &[&str], size: f64, room: f64) -> Vec<String> {
        let fitting = font::truncate_distinctly(texts, size, room);
        for (text, shown) in texts.iter().zip(&fitting) {
            self.remember_cut(text, shown);
        }
        fitting
    }

    /// Remembers a text of which the picture shows only a part.
    pub(super) fn remember_cut(&mut self, text: &str, shown: &str) {
        if text != shown && !self.cut_texts.iter().any(|known| known == text) {
            self.cut_texts.push(text.to_owned());
        }
    }

    /// Refuses texts with characters that the built-in font lacks, or that are written from right to left, which PNG and PDF
    /// cannot do.
    pub(super) fn check_characters(&self) -> Result<(), String> {
        for mark in &self.marks {
            let Mark::Text(text) = mark else { continue };
            if let Some(c) = text.text.chars().find(|c| font::is_right_to_left(*c)) {
                return Err(format!(
                    "'{}' has the character '{c}', which is written from right to left, and PNG and PDF have only text from left to \
                     right: write an .svg, or choose other words with --title, --xlabel, --ylabel or --clabel",
                    text.text
                ));
            }
            if let Some(c) = font::missing_character(&text.text) {
                return Err(format!(
                    "'{}' has the character '{c}', which the font of PNG and PDF lacks: write an .svg, whose viewer \
                     brings its own fonts, or choose other words with --title, --xlabel, --ylabel or --clabel",
                    text.text
                ));
            }
        }

        Ok(())
    }

    pub(super) fn add_line(&mut self, points: Vec<(f64, f64)>, stroke: Stroke) {
        self.marks.push(Mark::Shape(
            SceneShape::Path {
                points,
                closed: false,
            },
            None,
            Some(stroke),
        ));
    }

    pub(super) fn add_polygon(
        &mut self,
        points: Vec<(f64, f64)>,
        fill: Option<Fill>,
        stroke: Option<Stroke>,
    ) {
        self.marks.push(Mark::Shape(
            SceneShape::Path {
                points,
                closed: true,
            },
            fill,
            stroke,
        ));
    }

    pub(super) fn add_area(&mut self, area: Area, fill: Option<Fill>, stroke: Option<Stroke>) {
        let Area {
            left,
            top,
            right,
            bottom,
        } = area;
        self.add_polygon(
            vec![(left, top), (right, top), (right, bottom), (left, bottom)],
            fill,
            stroke,
        );
    }

    pub(super) fn add_circle(
        &mut self,
        at: (f64, f64),
        radius: f64,
        fill: Option<Fill>,
        stroke: Option<Stroke>,
    ) {
        self.marks
            .push(Mark::Shape(SceneShape::Circle { at, radius }, fill, stroke));
    }

    /// Adds parallel lines over an area, from lower left to upper right.
    pub(super) fn add_hatching(&mut self, area: Area, stroke: Stroke) {
        let w = area.width();
        let h = area.height();
        let mut at = 4.0;
        while at < w + h {
            let from = if at <= h { (0.0, at) } else { (at - h, h) };
            let to = if at <= w { (at, 0.0) } else { (w, at - w) };
            let place = |(x, y): (f64, f64)| (area.left + x, area.top + y);
            self.add_line(vec![place(from), place(to)], stroke);
            at += 6.0;
        }
    }

    pub(super) fn add_text(
        &mut self,
        at: (f64, f64),
        text: &str,
        size: f64,
        colour: Colour,
        anchor: Anchor,
    ) {
        self.marks.push(Mark::Text(SceneText {
            at,
            text: escape_line(text).into_owned(),
            size,
            colour,
            anchor,
            turned: false,
        }));
    }

    /// Adds a text that is written upwards.
    pub(super) fn add_turned_text(
        &mut self,
        at: (f64, f64),
        text: &str,
        size: f64,
        colour: Colour,
        anchor: Anchor,
    ) {
        self.marks.push(Mark::Text(SceneText {
            at,
            text: escape_line(text).into_owned(),
            size,
            colour,
            anchor,
            turned: true,
        }));
    }

    /// Adds a text on a patch of white, over lines.
    pub(super) fn add_label(&mut self, at: (f64, f64), text: &str, size: f64, colour: Colour) {
        let half = font::text_width(text, size) / 2.0 + 2.0;
        let area = Area {
            left: at.0 - half,
            right: at.0 + half,
            top: at.1 - size * 0.55,
            bottom: at.1 + size * 0.55,
        };
        self.add_area(
            area,
            Some(Fill {
                colour: super::colour::PAPER,
                opacity: 0.85,
            }),
            None,
        );

        self.add_text(
            (at.0, at.1 + size * 0.36),
            text,
            size,
            colour,
            Anchor::Middle,
        );
    }
}
