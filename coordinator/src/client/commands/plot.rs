//! `ergodic plot`: writes a picture of sweeps to a file, or prints it.

use std::path::PathBuf;

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::plot::{FigureArgs, draw_scene};
use crate::client::render::{is_stream, print_stderr_line, write_atomic_file};
use crate::client::sweep_set::SweepSet;
use crate::plot::{pdf, png, svg};

/// `ergodic plot`
#[derive(Debug, Args)]
pub struct PlotArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// Further sweeps, shown beside it; the axis `sweep` tells them apart
    #[arg(index = 2, value_name = "SWEEP")]
    pub others: Vec<String>,
    /// File to write to, with a name that ends in .svg, .pdf or .png [default: SVG on stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub figure: FigureArgs,
}

/// Dots per pixel of a PNG: 192 per inch.
const PNG_SCALE: f64 = 2.0;

/// Writes a picture to a file; without one, prints it as SVG.
///
/// # Errors
/// There is no such sweep, axis, metric or statistic, nothing to draw, the file cannot be written, or nobody answers.
pub async fn run_plot(args: PlotArgs) -> Result<CommandOutcome, UserError> {
    // A wrong name or option is an error before the data are queried.
    let format = args.choose_format()?;
    args.figure.check_options()?;
    let (mut client, id) = args.sweep.connect().await?;
    let sweeps = SweepSet::resolve(&mut client, id, &args.others).await?;
    let scene = draw_scene(&mut client, &sweeps, &args.figure).await?;

    let bytes = match format {
        ImageFormat::Svg => svg::render_svg(&scene).into_bytes(),
        ImageFormat::Png => png::render_png(&scene, PNG_SCALE).map_err(bad_input_error)?,
        ImageFormat::Pdf => pdf::render_pdf(&scene).map_err(bad_input_error)?,
    };
    if args.figure.look.bare {
        scene
            .notes()
            .iter()
            .for_each(|note| print_stderr_line(note));
    }

    for text in scene.cut_texts() {
        print_stderr_line(&format!(
            "warning: '{text}' has no room and is cut: more --width or --height, a smaller --font-size or shorter words make it fit"
        ));
    }

    match &args.output {
        Some(path) => write_atomic_file(path, &bytes)?,
        None => return print_output(svg::render_svg(&scene)),
    }
    Ok(CommandOutcome::Done)
}

fn bad_input_error(message: String) -> UserError {
    UserError::new(ErrorCode::BadInput, message)
}

/// The file format of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImageFormat {
    Svg,
    Png,
    Pdf,
}

impl PlotArgs {
    /// The format that the name of the file says.
    ///
    /// # Errors
    /// The name has another ending.
    fn choose_format(&self) -> Result<ImageFormat, UserError> {
        let Some(path) = &self.output else {
            return Ok(ImageFormat::Svg);
        };
        let ending = path
            .extension()
            .map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("svg") => Ok(ImageFormat::Svg),
            Some("png") => Ok(ImageFormat::Png),
            Some("pdf") => Ok(ImageFormat::Pdf),
            // A pipe has no extension to choose a format by.
            _ if is_stream(path) => Ok(ImageFormat::Svg),
            _ => Err(UserError::new(
                ErrorCode::BadInput,
                format!(
                    "-o {}: expected a name that ends in .svg, .pdf or .png",
                    path.display()
                ),
            )),
        }
    }
}
