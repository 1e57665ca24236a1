//! Suggestions for misspelt names.

use std::collections::HashSet;

/// Maximum length of a name that is compared with known ones, in bytes.
pub(crate) const MAX_COMPARED_BYTES: usize = 200;

/// `did you mean 'x'?` for the known name nearest to `name`, or the list of all when none is near.
pub fn suggest_nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    drop_repeated(&mut known);
    match find_nearest(name, known.iter().copied()) {
        Some(best) => format!("did you mean '{best}'?"),
        None if !known.is_empty() => format!("known: {}", known.join(", ")),
        None => "no key is allowed here".to_owned(),
    }
}

/// Keeps the first of equal names.
fn drop_repeated(names: &mut Vec<&str>) {
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(*name));
}

/// The known name nearest to `name`, if one is near enough to be meant.
pub(crate) fn find_nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let compared = known
        .into_iter()
        .filter(|_| name.len() <= MAX_COMPARED_BYTES);
    compared
        .filter_map(|known| Some((near_distance(name, known)?, known)))
        .min()
        .map(|(_, best)| best)
}

/// How many letters lie between two names, if few enough do that one may be the other, misspelt: one in four, one at least, and never
/// all. What dotted paths begin with in common counts for neither.
fn near_distance(name: &str, known: &str) -> Option<usize> {
    let (name, known) = without_common_sections(name, known);
    let length = name.chars().count().max(known.chars().count());
    let distance = strsim::damerau_levenshtein(name, known);
    (distance <= (length / 4).max(1) && distance < length).then_some(distance)
}

/// Two dotted paths without the sections that both begin with.
fn without_common_sections<'a>(mut a: &'a str, mut b: &'a str) -> (&'a str, &'a str) {
    while let (Some((first, rest)), Some((other, other_rest))) =
        (a.split_once('.'), b.split_once('.'))
    {
        if first != other {
            break;
        }
        a = rest;
        b = other_rest;
    }

    (a, b)
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
        assert_eq!(
            suggest_nearest("zzzzzz", ["lr", "wd", "lr"]),
            "known: lr, wd"
        );

        let fields = ["data.test", "data.train", "model.width"];
        let far = "known: data.test, data.train, model.width";
        for name in ["dataset", "data.seed", "data_set", "x"] {
            assert_eq!(suggest_nearest(name, fields), far, "{name}");
        }
        assert_eq!(
            suggest_nearest("data.trian", fields),
            "did you mean 'data.train'?"
        );
        assert_eq!(suggest_nearest("x", ["n"]), "known: n");
    }
}
