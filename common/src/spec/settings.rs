//! Settings: fields from `--set`, and the choices of a scale and a stage.

use crate::config::expand_short_name;
use crate::grid::set_field;
use crate::spec::scale::{SCALE, apply_scale, other_length, remove_at_path};
use crate::spec::stage::{STAGE, apply_stage, is_stage_setting};
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::SCALES_GRAMMAR;
use crate::spec_file::node::{self, SpecTable};

/// Applies a setting to a document: sets a field, or lays the chosen scale or stage over the file.
///
/// # Errors
/// The setting cannot be read, or does not fit the file.
pub(super) fn apply_setting(
    document: &mut SpecTable,
    setting: &str,
    grammar: u32,
) -> Result<(), SpecError> {
    let (path, node) = node::parse_setting(setting)?;
    if path == SCALE && grammar >= SCALES_GRAMMAR {
        return apply_scale(document, &node);
    }
    if path == STAGE {
        return apply_stage(document, &node);
    }
    if is_stage_setting(&path) {
        return Ok(());
    }

    let field = expand_short_name(&path);
    set_field(document, &field, node).map_err(|error| SpecError { path, ..error })?;
    if let Some(other) = other_length(&field) {
        remove_at_path(document, other);
    }
    Ok(())
}
