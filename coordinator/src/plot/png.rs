//! Renders a scene as PNG, in portable arithmetic, so that the bytes are the same on every machine.

use tiny_skia::{
    FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, StrokeDash, Transform,
};

use super::colour::{Colour, PAPER};
use super::font::{self, OutlinePen};
use super::scene::{Anchor, Fill, Mark, Scene, SceneShape, SceneText, Stroke};

/// Maximum number of dots of an image, 256 MiB in memory.
const MAX_DOTS: f64 = 6.7e7;

/// Renders the picture as PNG, with `dots` dots per CSS pixel.
///
/// # Errors
/// The image would be too large, or the font lacks a character.
pub fn render_png(scene: &Scene, dots: f64) -> Result<Vec<u8>, String> {
    scene.check_characters()?;
    let dots = dots * scene.unit;
    let width = (scene.width * dots).ceil();
    let height = (scene.height * dots).ceil();
    if width * height > MAX_DOTS {
        let most = MAX_DOTS / 1e6;
        return Err(format!(
            "an image of {width} × {height} dots is too large: at most {most:.0} million are possible"
        ));
    }

    let mut pixmap = Pixmap::new(width as u32, height as u32)
        .ok_or("an image needs a width and a height of at least one dot")?;
    let [r, g, b] = PAPER;
    pixmap.fill(tiny_skia::Color::from_rgba8(r, g, b, 255));
    let scale = Transform::from_scale(dots as f32, dots as f32);

    for mark in &scene.marks {
        match mark {
            Mark::Shape(shape, fill, stroke) => {
                draw_shape(&mut pixmap, scale, shape, *fill, *stroke)
            }
            Mark::Text(text) => draw_text(&mut pixmap, scale, text),
        }
    }

    pixmap
        .encode_png()
        .map_err(|e| format!("the image cannot be written as PNG: {e}"))
}

fn draw_shape(
    pixmap: &mut Pixmap,
    scale: Transform,
    shape: &SceneShape,
    fill: Option<Fill>,
    stroke: Option<Stroke>,
) {
    // A path without length has nothing to draw, and tiny-skia rejects it.
    let Some(path) = build_path(shape) else {
        return;
    };
    if let Some(fill) = fill {
        pixmap.fill_path(
            &path,
            &solid_paint(fill.colour, fill.opacity),
            FillRule::Winding,
            scale,
            None,
        );
    }

    if let Some(stroke) = stroke {
        let dash = stroke.dash.iter().map(|x| *x as f32).collect();
        let how = tiny_skia::Stroke {
            width: stroke.width as f32,
            line_cap: LineCap::Butt,
            line_join: LineJoin::Round,
            dash: StrokeDash::new(dash, 0.0),
            ..tiny_skia::Stroke::default()
        };

        pixmap.stroke_path(&path, &solid_paint(stroke.colour, 1.0), &how, scale, None);
    }
}

fn build_path(shape: &SceneShape) -> Option<Path> {
    let mut builder = PathBuilder::new();
    match shape {
        SceneShape::Path { points, closed } => {
            let mut points = points.iter().map(|(x, y)| (*x as f32, *y as f32));
            if let Some((x, y)) = points.next() {
                builder.move_to(x, y);
            }

            points.for_each(|(x, y)| builder.line_to(x, y));
            if *closed {
                builder.close();
            }
        }
        SceneShape::Circle { at, radius } => {
            builder.push_circle(at.0 as f32, at.1 as f32, *radius as f32)
        }
    }

    builder.finish()
}

fn draw_text(pixmap: &mut Pixmap, scale: Transform, text: &SceneText) {
    let mut outline = PathPen(PathBuilder::new());
    font::outline_text(&text.text, text.size, &mut outline);
    let Some(path) = outline.0.finish() else {
        return;
    };
    let before = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => font::text_width(&text.text, text.size) / 2.0,
        Anchor::End => font::text_width(&text.text, text.size),
    };

    let x = text.at.0 as f32;
    let y = text.at.1 as f32;
    let turn = if text.turned {
        Transform::from_row(0.0, -1.0, 1.0, 0.0, x, y)
    } else {
        Transform::from_translate(x, y)
    };
    let place = scale.pre_concat(turn).pre_translate(-before as f32, 0.0);

    pixmap.fill_path(
        &path,
        &solid_paint(text.colour, 1.0),
        FillRule::Winding,
        place,
        None,
    );
}

fn solid_paint(colour: Colour, opacity: f64) -> Paint<'static> {
    let mut paint = Paint {
        anti_alias: true,
        ..Paint::default()
    };
    paint.set_color_rgba8(colour[0], colour[1], colour[2], (opacity * 255.0) as u8);
    paint
}

struct PathPen(PathBuilder);

impl OutlinePen for PathPen {
    fn move_to(&mut self, x: f64, y: f64) {
        self.0.move_to(x as f32, y as f32);
    }

    fn line_to(&mut self, x: f64, y: f64) {
        self.0.line_to(x as f32, y as f32);
    }

    fn quad_to(&mut self, x1: f64, y1: f64, x: f64, y: f64) {
        self.0.quad_to(x1 as f32, y1 as f32, x as f32, y as f32);
    }

    fn close(&mut self) {
        self.0.close();
    }
}
