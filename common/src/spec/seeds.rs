//! `seeds`: the random streams that depart from the default.

use crate::random_streams::{NAMED_PURPOSES, Purpose, SeedPlan};
use crate::spec_file::error::SpecError;
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};
use crate::spec_file::suggest::suggest_nearest;

pub(crate) fn read_seeds(root: &TableReader<'_>) -> Result<SeedPlan, SpecError> {
    let r = root.section("seeds")?;
    let plan = SeedPlan {
        per_cell: read_purposes(&r, "per_cell")?,
        fixed: read_purposes(&r, "fixed")?,
        crossed: read_crossed_streams(&r)?,
    };

    r.refuse_unknown_keys()?;
    let both = plan
        .crossed
        .iter()
        .find(|(purpose, _)| plan.fixed.contains(purpose));
    let Some((purpose, _)) = both else {
        return Ok(plan);
    };
    let name = NAMED_PURPOSES
        .iter()
        .find(|(_, named)| named == purpose)
        .map_or("", |named| named.0);
    Err(r.error_at(
        "crossed",
        format!("the stream '{name}' is fixed, too: it cannot be both"),
    ))
}

fn read_purposes(r: &TableReader<'_>, key: &'static str) -> Result<Vec<Purpose>, SpecError> {
    let mut purposes = Vec::new();
    for item in r.read_list(key)?.unwrap_or_default() {
        let name = item.value.as_str().unwrap_or_default();
        let Some((_, purpose)) = NAMED_PURPOSES.iter().find(|(word, _)| *word == name) else {
            let known = NAMED_PURPOSES.iter().map(|(word, _)| *word);
            let hint = suggest_nearest(name, known.clone());
            let message = format!("unknown stream {}, {hint}", quote_value(&item.value));
            return Err(r.error_at(key, message).with_unknown(name, known));
        };

        if !purposes.contains(purpose) {
            purposes.push(*purpose);
        }
    }

    Ok(purposes)
}

/// Reads `seeds.crossed`: the number of streams of each crossed purpose.
fn read_crossed_streams(seeds: &TableReader<'_>) -> Result<Vec<(Purpose, u32)>, SpecError> {
    if seeds.read_node("crossed").is_none() {
        return Ok(Vec::new());
    }

    let r = seeds.section("crossed")?;
    let mut crossed = Vec::new();

    for (name, purpose) in NAMED_PURPOSES {
        crossed.extend(
            r.read_whole_number(name, NumberRange::whole_numbers(2, 1_000_000))?
                .map(|count| (purpose, count as u32)),
        );
    }

    r.refuse_unknown_keys()?;
    if crossed.len() < 2 {
        return Err(seeds.error_at(
            "crossed",
            "name two streams or more, as in crossed = { init = 10, order = 20 }",
        ));
    }

    Ok(crossed)
}
