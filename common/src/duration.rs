//! Durations as typed on a command line and in sweep files.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The durations that can be typed: up to a year.
const DURATION_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(366 * 86_400);

/// The units that messages name.
const UNITS: &str = "ms, s, m, h, d or w";

/// Reads `500ms`, `30s`, `1.5m`, `2h`, `30d`, `2w`, `1h 30m`: from 10 ms to a year.
///
/// # Errors
/// Anything else, in words; a bare number too, because its unit would be a guess.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if is_bare_number(text) {
        return Err(format!(
            "expected a time with its unit ({UNITS}), such as '{text}s', found '{text}'"
        ));
    }
    parse_with_unit(text)
}

/// Reads the time of a sweep that was stored before bare numbers were refused: they meant seconds.
///
/// # Errors
/// As for [`parse_duration`], but for bare numbers.
pub fn parse_stored_duration(text: &str) -> Result<Duration, String> {
    if is_bare_number(text) {
        return parse_with_unit(&format!("{text}s"));
    }
    parse_with_unit(text)
}

fn is_bare_number(text: &str) -> bool {
    text.parse::<f64>().is_ok() && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn parse_with_unit(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .ok()
        .or_else(|| parse_decimal(text));
    time.filter(|time| DURATION_RANGE.contains(time))
        .ok_or_else(|| {
            format!(
                "expected a time from 10ms to a year in {UNITS}, like 500ms, 30s, 1h 30m or 30d, found '{text}'"
            )
        })
}

/// Reads one decimal number and its unit. `humantime` reads no `.5s`, and no fraction that is not a whole number of nanoseconds, or
/// of seconds for units from an hour on.
fn parse_decimal(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let unit = &text[split..];
    if !unit.chars().all(char::is_alphabetic) {
        return None;
    }

    let unit = humantime::parse_duration(&format!("1{unit}")).ok()?;
    let number: f64 = text[..split].parse().ok()?;
    Duration::try_from_secs_f64(number * unit.as_secs_f64()).ok()
}

/// A time as it is typed, in the largest unit up to hours of which it is a whole number. Stored rows have such texts, so it is no
/// other way of writing the same time, such as that of `humantime`.
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
    fn what_was_read_before_days_were_known_is_read_as_before() {
        for (text, seconds) in [
            ("500ms", 0.5),
            ("10ms", 0.01),
            ("12.5ms", 0.0125),
            ("1234.5ms", 1.2345),
            ("30s", 30.0),
            ("30", 30.0),
            ("0.25", 0.25),
            (".5", 0.5),
            ("5.", 5.0),
            (".5s", 0.5),
            ("5.s", 5.0),
            ("007s", 7.0),
            ("0.1s", 0.1),
            ("1.23456789012s", 1.234_567_890_12),
            ("90s", 90.0),
            ("5m", 300.0),
            ("1.5m", 90.0),
            ("0.333333333333m", 20.0),
            ("1h", 3600.0),
            ("1.5h", 5400.0),
            ("0.0001h", 0.36),
            ("2777h", 9_997_200.0),
            ("10000000", 1e7),
        ] {
            assert_eq!(
                parse_stored_duration(text),
                Ok(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }

        for bad in [
            "", "s", "1.5ms", "-1s", "+1s", "0s", "0", "9ms", "nan", "inf", "1e3", "1.2.3s", "1x",
            "5,5s", "1m!",
        ] {
            assert!(parse_stored_duration(bad).is_err(), "{bad}");
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_number_is_told_its_units() {
        for bare in ["30", "0.25", ".5", "5.", "0", "10000000"] {
            let message = parse_duration(bare).expect_err(bare);
            assert!(
                message.contains(&format!("ms, s, m, h, d or w), such as '{bare}s'")),
                "{message}"
            );
        }
    }

    #[test]
    fn days_and_sums_are_read() {
        for (text, seconds) in [
            ("30d", 30 * 86_400),
            ("1.5d", 129_600),
            ("366d", 366 * 86_400),
            ("2w", 14 * 86_400),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            ("2 min", 120),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }

        for bad in ["367d", "1000000000000d", "1h 30", ".5h 30m", "d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["500ms", "30s", "90s", "10m", "2h", "48h"] {
            assert_eq!(
                parse_duration(text).map(format_duration).as_deref(),
                Ok(text)
            );
        }
    }
}
