//! `ergodic init`: writes a sweep file to start from.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

use crate::app::{CommandOutcome, print_output};
use crate::client::render::{is_stream, write_atomic_file};

/// The sweep file, whose name is [`NAME`].
const TEMPLATE: &str = include_str!("init/sweep.toml");
/// The name of the sweep in [`TEMPLATE`], which the file's own name replaces.
const NAME: &str = "my-sweep";

/// `ergodic init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The file to write, which must not exist; - prints it
    #[arg(default_value = "sweep.toml")]
    pub file: PathBuf,
}

/// Writes a commented sweep file.
///
/// # Errors
/// The file exists, or cannot be written.
pub fn run_init(args: &InitArgs) -> Result<CommandOutcome, UserError> {
    let path = &args.file;
    if path == Path::new("-") {
        return print_output(TEMPLATE.to_owned());
    }

    let text = TEMPLATE.replacen(NAME, &name_sweep(path), 1);
    let shown = path.display();
    if path.symlink_metadata().is_ok() && (!is_stream(path) || is_named_pipe(path)) {
        let message = format!(
            "{shown}: there is such a file, and it stays: name another, as in `ergodic init other.toml`"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    write_atomic_file(path, text.as_bytes())?;

    print_output(format!(
        "wrote {shown}: `ergodic plan {shown}` checks it, `ergodic run {shown}` runs it\n"
    ))
}

/// Whether a path is a pipe in a folder of files: writing to it would wait for a reader. Those of `>(…)` and `/dev/stdout` have one.
fn is_named_pipe(path: &Path) -> bool {
    let is_pipe = std::fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo());
    is_pipe
        && !["/dev", "/proc"]
            .iter()
            .any(|of_system| path.starts_with(of_system))
}

/// The name of a sweep in a file: that of the file, as far as it can be one.
fn name_sweep(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = stem.starts_with(|c: char| c.is_ascii_alphanumeric())
        && stem.chars().all(is_plain)
        && stem.len() <= 64;
    if is_name {
        stem.into_owned()
    } else {
        NAME.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::Spec;
    use ergodic_common::spec::SpecSource;

    use super::*;

    #[test]
    fn the_template_is_a_sweep_with_the_name_of_its_file() {
        for (file, name) in [
            ("a/lr-wd.toml", "lr-wd"),
            ("sweep.toml", "sweep"),
            ("λ.toml", NAME),
            (".hidden", NAME),
        ] {
            let source = SpecSource {
                text: TEMPLATE.replacen(NAME, &name_sweep(Path::new(file)), 1),
                ..SpecSource::default()
            };
            let spec = Spec::read_new(&source).expect("a valid sweep");
            assert_eq!(spec.name, name, "{file}");
        }
    }
}
