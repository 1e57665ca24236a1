//! The numerics class of a sweep.

use crate::program::{find_version, is_experiment_class, is_experiment_name, is_program_class};
use crate::spec::Spec;
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::reader::TableReader;
use crate::spec_file::suggest::suggest_nearest;
use crate::trial::{CPU_F32, CUDA_F32};

impl Spec {
    /// Pins the sweep to a numerics class. The setting returned says so in its source.
    ///
    /// # Errors
    /// `class` is neither an engine nor a class in full.
    pub fn pin_numerics(&mut self, class: &str) -> Result<String, SpecError> {
        self.numerics = parse_numerics(class)
            .map_err(|message| SpecError::new(Origin::Default, "numerics", message))?;
        Ok(format!("numerics=\"{class}\""))
    }
}

/// Reads a numerics class: an engine, such as `cuda-f32`, or a full class. The launch replaces `cuda-f32` by a full one.
pub(crate) fn read_numerics(r: &TableReader<'_>) -> Result<String, SpecError> {
    match r.read_str("numerics")? {
        None => Ok(CPU_F32.to_owned()),
        Some(text) => parse_numerics(text).map_err(|message| r.error_at("numerics", message)),
    }
}

/// The class, or what is wrong with the text.
fn parse_numerics(text: &str) -> Result<String, String> {
    match text {
        "cpu-f32" => Ok(CPU_F32.to_owned()),
        CUDA_F32 => Ok(CUDA_F32.to_owned()),
        full if is_full_class(full) => Ok(full.to_owned()),
        other => {
            let hint = suggest_nearest(other, ["cpu-f32", CUDA_F32]);
            Err(format!("unknown value '{other}', {hint}"))
        }
    }
}

/// Whether a text has the form of a full numerics class.
fn is_full_class(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    if is_program_class(text) {
        let is_hash = |part: &str| part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
        return parts.len() == 2 && is_hash(parts[1]);
    }
    if is_experiment_class(text) {
        // The launch adds the version, as it does for CUDA.
        return find_version(text).is_some() || parts.len() == 2 && is_experiment_name(parts[1]);
    }
    let is_known = matches!(parts[..], ["cpu-f32", _] | ["cuda-f32", _, _, _]);
    let is_complete = parts.iter().all(|part| !part.is_empty());
    let is_plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-./".contains(c));
    is_known && parts[1].parse::<u32>().is_ok() && is_complete && text.len() <= 64 && is_plain
}
