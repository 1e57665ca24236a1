//! Lists of metrics and quantities, as typed behind `--metric`.

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

/// The entries of lists such as `test_acc,mean(test_acc, last 20 %)`. Commas in parentheses, quotes and braces belong to an entry.
pub(crate) fn split_metric_lists(lists: &[String]) -> Vec<String> {
    let entries = lists.iter().flat_map(|list| split_metric_list(list));
    entries.map(|entry| entry.trim().to_owned()).collect()
}

/// Refuses a metric that is named twice, as other lists of names do.
pub(crate) fn check_metrics_differ(metrics: &[String]) -> Result<(), UserError> {
    for (at, metric) in metrics.iter().enumerate() {
        if metrics[..at].contains(metric) {
            let message = format!("--metric: '{metric}' is named twice: name each metric once");
            return Err(UserError::new(ErrorCode::BadInput, message));
        }
    }
    Ok(())
}

fn split_metric_list(list: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let mut start = 0;
    let mut depth = 0_u32;
    let mut is_quoted = false;

    for (at, c) in list.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            '(' | '{' => depth += 1,
            ')' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                entries.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }

    entries.push(&list[start..]);
    entries
}

#[cfg(test)]
mod tests {
    use crate::client::metric_list::*;

    #[test]
    fn commas_within_an_entry_do_not_end_it() {
        let split = |text: &str| split_metric_lists(&[text.to_owned()]);
        assert_eq!(split("test_acc, test_loss"), ["test_acc", "test_loss"]);
        assert_eq!(
            split("mean(test_acc, last 20 %),at(max(lr, wd)*step, 5)"),
            ["mean(test_acc, last 20 %)", "at(max(lr, wd)*step, 5)"]
        );
        assert_eq!(
            split("{a,b}+1,(norm == \"x),\")*1"),
            ["{a,b}+1", "(norm == \"x),\")*1"]
        );

        let listed = split("test_acc,test_loss");
        assert!(check_metrics_differ(&listed).is_ok());
        let twice = split("test_acc,test_loss, test_acc");
        let refused = check_metrics_differ(&twice).expect_err("named twice");
        assert!(
            refused.message.contains("'test_acc' is named twice"),
            "{refused}"
        );

        // What is wrong is one entry, which the coordinator refuses.
        assert_eq!(split("mean(a, b"), ["mean(a, b"]);
        assert_eq!(split_metric_lists(&[]), Vec::<String>::new());
    }
}
