//! Durations as typed on a command line.

use std::time::Duration;

/// Reads `500ms`, `30s`, `5m`, `1h`; a bare number means seconds. From 10 ms to about four months.
///
/// # Errors
/// Anything else, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "expected a time like 500ms, 30s, 5m or 1h, found '{text}'"
            ));
        }
    };
    let seconds = number
        .parse::<f64>()
        .ok()
        .map(|n| n * factor)
        .filter(|s| (0.01..=1e7).contains(s));

    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("expected a time like 500ms, 30s, 5m or 1h, found '{text}'"))
}

/// A time as it is typed, in the largest unit of which it is a whole number.
pub fn format_duration(time: Duration) -> String {
    let ms = time.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let unit = units
        .into_iter()
        .find(|(_, size)| ms >= *size && ms.is_multiple_of(*size));
    unit.map_or_else(
        || format!("{ms}ms"),
        |(unit, size)| format!("{}{unit}", ms / size),
    )
}

#[cfg(test)]
mod tests {
    use crate::duration::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));

        for bad in ["", "s", "-1s", "1d", "0s", "nan"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }

        for text in ["500ms", "30s", "90s", "10m", "2h"] {
            assert_eq!(
                parse_duration(text).map(format_duration).as_deref(),
                Ok(text)
            );
        }
    }
}
