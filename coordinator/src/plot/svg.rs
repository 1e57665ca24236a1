//! A scene as SVG. Text stays text; every number has at most two decimals.

use std::fmt::Write as _;

use ergodic_common::text::escape_line;

use super::colour::{Colour, PAPER};
use super::font::FAMILIES;
use super::scene::{Anchor, Fill, Mark, Scene, Shape, Stroke, Text};

pub(super) fn document(scene: &Scene) -> String {
    let (w, h) = (number(scene.width), number(scene.height));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
         font-family=\"{FAMILIES}\">\n<title>{}</title>\n<rect width=\"{w}\" height=\"{h}\" fill=\"{}\"/>\n",
        escaped(&scene.description),
        hex(PAPER)
    );
    scene.marks.iter().for_each(|mark| match mark {
        Mark::Shape(shape, fill, stroke) => shape_element(&mut out, shape, *fill, *stroke),
        Mark::Text(text) => text_element(&mut out, text),
    });
    out + "</svg>\n"
}

fn shape_element(out: &mut String, shape: &Shape, fill: Option<Fill>, stroke: Option<Stroke>) {
    match shape {
        Shape::Path { points, closed } => {
            let mut d = String::new();
            for (at, (x, y)) in points.iter().enumerate() {
                let _ = write!(d, "{}{} {}", if at == 0 { 'M' } else { 'L' }, number(*x), number(*y));
            }
            let end = if *closed { "Z" } else { "" };
            let _ = write!(out, "<path d=\"{d}{end}\"");
        }
        Shape::Circle { at, radius } => {
            let (x, y, r) = (number(at.0), number(at.1), number(*radius));
            let _ = write!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\"");
        }
    }
    match fill {
        None => out.push_str(" fill=\"none\""),
        Some(fill) => {
            let _ = write!(out, " fill=\"{}\"", hex(fill.colour));
            if fill.opacity < 1.0 {
                let _ = write!(out, " fill-opacity=\"{}\"", number(fill.opacity));
            }
        }
    }
    if let Some(stroke) = stroke {
        let _ = write!(out, " stroke=\"{}\" stroke-width=\"{}\"", hex(stroke.colour), number(stroke.width));
        if !stroke.dash.is_empty() {
            let dash: Vec<String> = stroke.dash.iter().map(|x| number(*x)).collect();
            let _ = write!(out, " stroke-dasharray=\"{}\"", dash.join(" "));
        }
        out.push_str(" stroke-linejoin=\"round\"");
    }
    out.push_str("/>\n");
}

fn text_element(out: &mut String, text: &Text) {
    let (x, y) = (number(text.at.0), number(text.at.1));
    let anchor = match text.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let place = match text.turned {
        true => format!("transform=\"translate({x} {y}) rotate(-90)\""),
        false => format!("x=\"{x}\" y=\"{y}\""),
    };
    let _ = writeln!(
        out,
        "<text {place} font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\">{}</text>",
        number(text.size),
        hex(text.colour),
        escaped(&text.text)
    );
}

fn number(x: f64) -> String {
    let text = format!("{x:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn hex([r, g, b]: Colour) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// XML has no control characters, not even as entities.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape_line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
