//! Suggestions for misspelt names.

/// Longest name that is compared with known ones, in bytes.
pub(crate) const MAX_COMPARED_BYTES: usize = 200;

/// `, did you mean 'x'?` for the known name nearest to `name`, or the list of all when none is near.
pub fn suggest_nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let compared = known.iter().filter(|_| name.len() <= MAX_COMPARED_BYTES);
    let best = compared
        .map(|k| (strsim::damerau_levenshtein(name, k), *k))
        .min();
    match best {
        Some((distance, best)) if distance <= 1 + name.len().max(best.len()) / 3 => {
            format!("did you mean '{best}'?")
        }
        Some(_) => format!("known: {}", known.join(", ")),
        None if !known.is_empty() => format!("known: {}", known.join(", ")),
        None => "nothing may stand here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::spec_file::suggest::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        assert_eq!(
            suggest_nearest("widht", ["width", "depth"]),
            "did you mean 'width'?"
        );
        assert_eq!(suggest_nearest("zzzzzz", ["lr", "wd"]), "known: lr, wd");
    }
}
