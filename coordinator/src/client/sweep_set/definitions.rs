//! How several sweeps define a quantity.

/// The definitions of all sweeps: one that they have in common, or what each of them has. Each sweep comes with its label.
pub(super) fn join_definitions<'a>(
    sweeps: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> String {
    let first = sweeps.clone().next();
    let first = first.map_or("", |(_, definition)| definition);
    if sweeps.clone().all(|(_, other)| other == first) {
        return first.to_owned();
    }

    let each: Vec<String> = sweeps
        .map(|(label, definition)| match definition {
            "" => format!("none in {label}"),
            definition => format!("{definition} in {label}"),
        })
        .collect();
    format!("defined differently: {}", each.join("; "))
}

#[cfg(test)]
mod tests {
    use crate::client::sweep_set::definitions::*;

    #[test]
    fn definitions_that_differ_are_told() {
        let same = [("a", "inv = 1/lr"), ("b", "inv = 1/lr")];
        assert_eq!(join_definitions(same.into_iter()), "inv = 1/lr");
        let differing = [("a", "inv = 1/lr"), ("b", "inv = 2/lr")];
        assert_eq!(
            join_definitions(differing.into_iter()),
            "defined differently: inv = 1/lr in a; inv = 2/lr in b"
        );
    }
}
