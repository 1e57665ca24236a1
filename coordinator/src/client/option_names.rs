//! The options that fields of requests come from: a coordinator names the field that it refuses, and people typed an option.

/// The fields that messages of coordinators begin with, and their options.
pub(crate) const FIELD_OPTIONS: [(&str, &str); 12] = [
    ("at", "--at"),
    ("baseline", "--baseline"),
    ("between", "--between"),
    ("by", "--by"),
    ("cell_condition", "--where"),
    ("interaction", "--interaction"),
    ("level", "--level"),
    ("metric", "--metric"),
    ("note", "--note"),
    ("permutations", "--permutations"),
    ("role", "--role"),
    // Older coordinators call the condition so.
    ("where", "--where"),
];

/// The message of a coordinator, with the option in place of the field that it begins with.
pub(super) fn name_option(message: String) -> String {
    let Some((field, problem)) = message.split_once(": ") else {
        return message;
    };
    let known = FIELD_OPTIONS.iter().find(|(name, _)| *name == field);
    match known {
        Some((_, option)) => format!("{option}: {problem}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use crate::client::option_names::*;

    #[test]
    fn a_field_is_called_by_its_option() {
        for (message, named) in [
            (
                "by: the axis 'lr' is named twice",
                "--by: the axis 'lr' is named twice",
            ),
            (
                "level: expected a percentage",
                "--level: expected a percentage",
            ),
            (
                "cell_condition: expected a condition",
                "--where: expected a condition",
            ),
            ("at: no trial was sampled", "--at: no trial was sampled"),
            (
                "metric: a parenthesis is open",
                "--metric: a parenthesis is open",
            ),
        ] {
            assert_eq!(name_option(message.to_owned()), named);
        }
        // A field of a sweep file is none of a request.
        for message in [
            "a.toml: repeats: expected a number",
            "there is no sweep 'by'",
            "metric",
        ] {
            assert_eq!(name_option(message.to_owned()), message);
        }
    }
}
