//! Times of UTC as text.

/// Formats `2026-11-28 04:51:29 UTC`, `seconds` after the beginning of 1970.
pub fn format_utc(seconds: f64) -> String {
    let time = seconds.max(0.0) as u64 % 86_400;
    format!(
        "{} {:02}:{:02}:{:02} UTC",
        format_utc_date(seconds),
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

/// Formats `2026-11-28`. Converts days to dates as in Hinnant, "chrono-compatible low-level date algorithms" (2013).
pub fn format_utc_date(seconds: f64) -> String {
    let days = seconds.max(0.0) as u64 / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;

    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use crate::client::utc::*;

    #[test]
    fn seconds_are_dates() {
        assert_eq!(format_utc(0.0), "1970-01-01 00:00:00 UTC");
        assert_eq!(format_utc(951_782_399.0), "2000-02-28 23:59:59 UTC");
        assert_eq!(format_utc(951_782_400.0), "2000-02-29 00:00:00 UTC");
        assert_eq!(format_utc(1_795_841_489.9), "2026-11-28 04:51:29 UTC");
        assert_eq!(format_utc(4_107_542_399.0), "2100-02-28 23:59:59 UTC");
        assert_eq!(format_utc(4_107_542_400.0), "2100-03-01 00:00:00 UTC");
    }
}
