//! Causes of failures, of a length that the coordinator accepts.

use ergodic_proto::convert::MAX_CAUSE_BYTES;

/// Stands for what is left out.
const GAP: &str = " … ";
/// Bytes at the begin of a long cause that are kept. It says what happened, and its end shows what was printed last.
const KEPT_BEGIN: usize = 1000;

/// The cause without its middle, if the coordinator would refuse it.
pub(crate) fn shorten_cause(cause: String) -> String {
    if cause.len() <= MAX_CAUSE_BYTES {
        return cause;
    }
    let begin = cause.floor_char_boundary(KEPT_BEGIN);
    let end = cause.len() - (MAX_CAUSE_BYTES - begin - GAP.len());
    let end = cause.ceil_char_boundary(end);
    format!("{}{GAP}{}", &cause[..begin], &cause[end..])
}

#[cfg(test)]
mod tests {
    use crate::cause::*;

    #[test]
    fn a_cause_is_cut_by_bytes_and_keeps_begin_and_end() {
        let short = "x".repeat(MAX_CAUSE_BYTES);
        assert_eq!(shorten_cause(short.clone()), short);
        for bar in ["█", "é", "x", "𝛼"] {
            for pad in 0..4 {
                let pad = "-".repeat(pad);
                let long = format!("{pad}it failed: {} no memory", bar.repeat(5000));
                let cut = shorten_cause(long);
                assert!(cut.len() <= MAX_CAUSE_BYTES && cut.len() > MAX_CAUSE_BYTES - 8);
                assert!(cut.starts_with(&format!("{pad}it failed: ")), "{cut}");
                assert!(cut.ends_with(" no memory"), "{cut}");
            }
        }
    }
}
