//! The name of a sweep.

use crate::spec_file::error::SpecError;
use crate::spec_file::reader::TableReader;

pub(super) fn read_name(r: &TableReader<'_>) -> Result<String, SpecError> {
    let Some(name) = r.read_str("name")? else {
        let message = "a sweep needs a name: add name = \"my-sweep\" at the top";
        return Err(r.error_at("name", message).of_missing_value());
    };

    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !starts_well || name.len() > 64 || !is_plain {
        let shown: String = name.chars().take(40).collect();
        let message = format!(
            "expected 1 to 64 letters, digits, '-', '_' or '.', the first a letter or digit, found '{shown}'"
        );
        return Err(r.error_at("name", message));
    }
    if name == "latest" {
        r.refuse_if_new("name", || {
            "'latest' is the word for your last sweep in every command: choose another name"
                .to_owned()
        })?;
    }

    Ok(name.to_owned())
}
