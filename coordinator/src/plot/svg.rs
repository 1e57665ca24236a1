//! Renders a scene as SVG. Text stays text; numbers have at most two decimals.

use std::fmt::Write as _;

use ergodic_common::escape::escape_line;

use super::colour::{Colour, PAPER};
use super::font::FONT_FAMILIES;
use super::scene::{Anchor, Fill, Mark, Scene, SceneShape, SceneText, Stroke};

/// Renders the picture as an SVG document.
pub fn render_svg(scene: &Scene) -> String {
    let w = format_number(scene.width);
    let h = format_number(scene.height);
    let shown_width = format_number(scene.width * scene.unit);
    let shown_height = format_number(scene.height * scene.unit);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{shown_width}\" height=\"{shown_height}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
         font-family=\"{FONT_FAMILIES}\">\n<title>{}</title>\n<rect width=\"{w}\" height=\"{h}\" fill=\"{}\"/>\n",
        escape_xml(&scene.description),
        format_hex_colour(PAPER)
    );
    scene.marks.iter().for_each(|mark| match mark {
        Mark::Shape(shape, fill, stroke) => write_shape(&mut out, shape, *fill, *stroke),
        Mark::Text(text) => write_text(&mut out, text),
    });

    out + "</svg>\n"
}

fn write_shape(out: &mut String, shape: &SceneShape, fill: Option<Fill>, stroke: Option<Stroke>) {
    match shape {
        SceneShape::Path { points, closed } => {
            let mut d = String::new();
            for (at, (x, y)) in points.iter().enumerate() {
                let _ = write!(
                    d,
                    "{}{} {}",
                    if at == 0 { 'M' } else { 'L' },
                    format_number(*x),
                    format_number(*y)
                );
            }

            let end = if *closed { "Z" } else { "" };
            let _ = write!(out, "<path d=\"{d}{end}\"");
        }
        SceneShape::Circle { at, radius } => {
            let x = format_number(at.0);
            let y = format_number(at.1);
            let r = format_number(*radius);
            let _ = write!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\"");
        }
    }

    write_fill(out, fill);
    if let Some(stroke) = stroke {
        write_stroke(out, stroke);
    }

    out.push_str("/>\n");
}

fn write_fill(out: &mut String, fill: Option<Fill>) {
    match fill {
        None => out.push_str(" fill=\"none\""),
        Some(fill) => {
            let _ = write!(out, " fill=\"{}\"", format_hex_colour(fill.colour));
            if fill.opacity < 1.0 {
                let _ = write!(out, " fill-opacity=\"{}\"", format_number(fill.opacity));
            }
        }
    }
}

fn write_stroke(out: &mut String, stroke: Stroke) {
    let _ = write!(
        out,
        " stroke=\"{}\" stroke-width=\"{}\"",
        format_hex_colour(stroke.colour),
        format_number(stroke.width)
    );

    if !stroke.dash.is_empty() {
        let dash: Vec<String> = stroke.dash.iter().map(|x| format_number(*x)).collect();
        let _ = write!(out, " stroke-dasharray=\"{}\"", dash.join(" "));
    }

    out.push_str(" stroke-linejoin=\"round\"");
}

fn write_text(out: &mut String, text: &SceneText) {
    let x = format_number(text.at.0);
    let y = format_number(text.at.1);
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
        format_number(text.size),
        format_hex_colour(text.colour),
        escape_xml(&text.text)
    );
}

fn format_number(x: f64) -> String {
    let text = format!("{x:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

fn format_hex_colour([r, g, b]: Colour) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Escapes a text for XML, and removes control characters, which XML cannot express even as
/// entities.
fn escape_xml(text: &str) -> String {
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
