//! The labels of cases.

/// Maximum length of a label, in characters.
const MAX_LABEL_CHARS: usize = 64;

fn is_label_char(c: char) -> bool {
    !c.is_control() && !matches!(c, '"' | '\\')
}

/// What a label may not be, in words; `None` if it can be one.
pub(super) fn find_label_problem(label: &str) -> Option<&'static str> {
    if label.is_empty() || label.chars().count() > MAX_LABEL_CHARS {
        return Some("1 to 64 characters");
    }
    if label.trim() != label || !label.chars().all(is_label_char) {
        return Some(
            "printable characters without quotes and backslashes, and without spaces at its ends",
        );
    }
    None
}
