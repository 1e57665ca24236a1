//! Amounts of memory as users write them, and whether a sweep fits into what this worker may fill.

/// Parses `512MiB` or `8GiB`.
///
/// # Errors
/// Returns a message for the user if the text is no such size.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => f64::NAN,
    };
    let bytes = number
        .parse::<f64>()
        .ok()
        .map(|n| n * factor)
        .filter(|b| (1.0..=1e18).contains(b));

    bytes.map(|b| b as u64).ok_or_else(|| {
        format!("expected a size in B, KiB, MiB or GiB, like 512MiB or 8GiB, found '{text}'")
    })
}

/// Returns why trials that need `trial` bytes each do not fit beside a dataset of `dataset` bytes;
/// `None` if they fit.
pub(crate) fn explain_shortage(
    limit: Option<u64>,
    slots: u32,
    trial: u64,
    dataset: u64,
) -> Option<String> {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let need = trial
        .saturating_mul(u64::from(slots))
        .saturating_add(dataset);
    let limit = limit.filter(|limit| need > *limit)?;
    Some(format!(
        "{slots} slots of {} MiB and a dataset of {} MiB do not fit into the {} MiB that this worker may use: give it \
         fewer --slots or more --memory, or train on smaller batches",
        mib(trial),
        mib(dataset),
        limit >> 20
    ))
}

#[cfg(test)]
mod tests {
    use crate::memory::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(
            (parse_size("8GiB"), parse_size("0.5MiB"), parse_size("17B")),
            (Ok(8 << 30), Ok(1 << 19), Ok(17))
        );
        for bad in ["", "GiB", "-1", "17", "1GB", "0", "nan"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_in_numbers() {
        assert_eq!(
            explain_shortage(Some(100 << 20), 4, 20 << 20, 20 << 20),
            None
        );
        let words = explain_shortage(Some(100 << 20), 4, 20 << 20, 21 << 20).expect("too much");
        assert!(
            words.contains("4 slots of 20 MiB") && words.contains("the 100 MiB"),
            "{words}"
        );

        assert_eq!(explain_shortage(None, 4, u64::MAX, 1), None);
    }
}
