//! Renders a scene as PDF: one page of the picture's size, with the used part of the font inside.
//!
//! Text stays text. The file has no date and no random part, so the same scene gives the same bytes.

mod font_subset;

use std::collections::BTreeMap;

use miniz_oxide::deflate::compress_to_vec_zlib;
use pdf_writer::types::{LineCapStyle, LineJoinStyle};
use pdf_writer::{Content, Filter, Name, Pdf, Rect, Ref, Str, TextStr};

use super::colour::{Colour, PAPER};
use super::font;
use super::pdf::font_subset::FontSubset;
use super::scene::{Anchor, Fill, Mark, Scene, SceneShape, SceneText, Stroke};

/// Points per CSS pixel.
const POINTS_PER_PIXEL: f64 = 0.75;
/// Level of the compression: the one with the best ratio per time.
const COMPRESSION_LEVEL: u8 = 6;

const CATALOG: Ref = Ref::new(1);
const PAGES: Ref = Ref::new(2);
const PAGE: Ref = Ref::new(3);
const CONTENT: Ref = Ref::new(4);
const INFO: Ref = Ref::new(5);
/// The first object of the font; those behind it are free for it and the opacities.
const FIRST_FONT_OBJECT: i32 = 6;
const FIRST_OPACITY_OBJECT: i32 = FIRST_FONT_OBJECT + font_subset::OBJECTS;

/// Renders the picture as PDF.
///
/// # Errors
/// The font lacks a character.
pub fn render_pdf(scene: &Scene) -> Result<Vec<u8>, String> {
    scene.check_characters()?;
    let font = FontSubset::new(scene)?;
    let opacities = collect_opacities(scene);
    let scale = scene.unit * POINTS_PER_PIXEL;
    let width = round_number(scene.width * scale);
    let height = round_number(scene.height * scale);

    let mut pdf = Pdf::new();
    pdf.catalog(CATALOG).pages(PAGES);
    pdf.pages(PAGES).kids([PAGE]).count(1);
    pdf.document_info(INFO)
        .title(TextStr(&scene.description))
        .creator(TextStr("ergodic"));

    let mut page = pdf.page(PAGE);
    page.parent(PAGES)
        .media_box(Rect::new(0.0, 0.0, width, height))
        .contents(CONTENT);
    let mut resources = page.resources();
    if !font.is_empty() {
        resources
            .fonts()
            .pair(font_subset::NAME, Ref::new(FIRST_FONT_OBJECT));
    }
    let mut states = resources.ext_g_states();
    for (name, object) in opacities.values() {
        states.pair(Name(name.as_bytes()), *object);
    }
    drop(states);
    drop(resources);
    drop(page);

    for (percent, (_, object)) in &opacities {
        pdf.ext_graphics(*object)
            .non_stroking_alpha(f32::from(*percent) / 100.0);
    }

    let content = compress_to_vec_zlib(
        &write_content(scene, &font, &opacities, scale),
        COMPRESSION_LEVEL,
    );
    pdf.stream(CONTENT, &content).filter(Filter::FlateDecode);
    font.write_objects(&mut pdf, FIRST_FONT_OBJECT);

    Ok(pdf.finish())
}

/// Names and objects of the opacities of areas, in percent.
type Opacities = BTreeMap<u8, (String, Ref)>;

fn opacity_percent(fill: Fill) -> u8 {
    libm::round(fill.opacity * 100.0) as u8
}

fn collect_opacities(scene: &Scene) -> Opacities {
    let mut opacities = Opacities::new();
    for mark in &scene.marks {
        if let Mark::Shape(_, Some(fill), _) = mark {
            opacities.insert(opacity_percent(*fill), (String::new(), CATALOG));
        }
    }
    // White paper is the first area, and text is opaque.
    opacities.insert(100, (String::new(), CATALOG));

    for (object, (percent, entry)) in (FIRST_OPACITY_OBJECT..).zip(&mut opacities) {
        *entry = (format!("O{percent}"), Ref::new(object));
    }
    opacities
}

/// Writes the marks, in units of the layout with y downwards.
fn write_content(scene: &Scene, font: &FontSubset, opacities: &Opacities, scale: f64) -> Vec<u8> {
    let mut content = Content::new();
    content
        .transform([
            scale as f32,
            0.0,
            0.0,
            -scale as f32,
            0.0,
            round_number(scene.height * scale),
        ])
        .set_line_cap(LineCapStyle::ButtCap)
        .set_line_join(LineJoinStyle::RoundJoin);

    set_fill(&mut content, PAPER);
    content
        .rect(
            0.0,
            0.0,
            round_number(scene.width),
            round_number(scene.height),
        )
        .fill_nonzero();

    let mut opacity = 100;
    for mark in &scene.marks {
        let next = match mark {
            Mark::Shape(_, Some(fill), _) => opacity_percent(*fill),
            Mark::Shape(..) => opacity,
            Mark::Text(_) => 100,
        };
        if next != opacity {
            content.set_parameters(Name(opacities[&next].0.as_bytes()));
            opacity = next;
        }

        match mark {
            Mark::Shape(shape, fill, stroke) => write_shape(&mut content, shape, *fill, *stroke),
            Mark::Text(text) => write_text(&mut content, text, font),
        }
    }

    content.finish().into_vec()
}

fn write_shape(
    content: &mut Content,
    shape: &SceneShape,
    fill: Option<Fill>,
    stroke: Option<Stroke>,
) {
    if let Some(fill) = fill {
        set_fill(content, fill.colour);
    }
    if let Some(stroke) = stroke {
        let [r, g, b] = stroke.colour.map(to_share);
        let dash = stroke.dash.iter().map(|x| *x as f32);
        content
            .set_stroke_rgb(r, g, b)
            .set_line_width(round_number(stroke.width))
            .set_dash_pattern(dash, 0.0);
    }

    match shape {
        SceneShape::Path { points, closed } => write_path(content, points, *closed),
        SceneShape::Circle { at, radius } => write_circle(content, *at, *radius),
    }
    match (fill.is_some(), stroke.is_some()) {
        (true, true) => content.fill_nonzero_and_stroke(),
        (true, false) => content.fill_nonzero(),
        (false, true) => content.stroke(),
        (false, false) => content.end_path(),
    };
}

fn write_path(content: &mut Content, points: &[(f64, f64)], closed: bool) {
    for (at, (x, y)) in points.iter().enumerate() {
        let x = round_number(*x);
        let y = round_number(*y);
        if at == 0 {
            content.move_to(x, y);
        } else {
            content.line_to(x, y);
        }
    }
    if closed {
        content.close_path();
    }
}

/// Distance of the inner points of a Bézier curve that approximates a quarter of a circle of radius 1.
const QUARTER_CIRCLE: f64 = 0.552_284_75;

fn write_circle(content: &mut Content, (x, y): (f64, f64), radius: f64) {
    let place = |dx: f64, dy: f64| (round_number(x + radius * dx), round_number(y + radius * dy));
    let start = place(1.0, 0.0);
    content.move_to(start.0, start.1);

    for (from, to) in [
        ((1.0, 0.0), (0.0, 1.0)),
        ((0.0, 1.0), (-1.0, 0.0)),
        ((-1.0, 0.0), (0.0, -1.0)),
        ((0.0, -1.0), (1.0, 0.0)),
    ] {
        let first = place(
            from.0 + QUARTER_CIRCLE * to.0,
            from.1 + QUARTER_CIRCLE * to.1,
        );
        let second = place(
            to.0 + QUARTER_CIRCLE * from.0,
            to.1 + QUARTER_CIRCLE * from.1,
        );
        let end = place(to.0, to.1);
        content.cubic_to(first.0, first.1, second.0, second.1, end.0, end.1);
    }
    content.close_path();
}

fn write_text(content: &mut Content, text: &SceneText, font: &FontSubset) {
    let width = font::text_width(&text.text, text.size);
    let before = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => width / 2.0,
        Anchor::End => width,
    };
    let (x, y) = text.at;
    // Letters stand upright although y goes downwards; turned ones point upwards.
    let place = if text.turned {
        [
            0.0,
            -1.0,
            -1.0,
            0.0,
            round_number(x),
            round_number(y + before),
        ]
    } else {
        [
            1.0,
            0.0,
            0.0,
            -1.0,
            round_number(x - before),
            round_number(y),
        ]
    };

    set_fill(content, text.colour);
    content
        .begin_text()
        .set_font(font_subset::NAME, round_number(text.size))
        .set_text_matrix(place)
        .show(Str(&font.encode_text(&text.text)))
        .end_text();
}

fn set_fill(content: &mut Content, colour: Colour) {
    let [r, g, b] = colour.map(to_share);
    content.set_fill_rgb(r, g, b);
}

fn to_share(channel: u8) -> f32 {
    (libm::round(f64::from(channel) / 255.0 * 1000.0) / 1000.0) as f32
}

/// A number with at most two decimals.
fn round_number(x: f64) -> f32 {
    (libm::round(x * 100.0) / 100.0) as f32
}
