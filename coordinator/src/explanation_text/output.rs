//! Sentences about what the program of a trial printed.

use ergodic_common::TrialKey;
use ergodic_common::number_format::format_count;
use ergodic_proto::v1;
use v1::explain_finding::Finding;

/// A finding about the output of a trial, of a sweep that is given by its id; `None` for any other.
pub(super) fn render_output_finding(
    finding: &Finding,
    sweep: &str,
    key: TrialKey,
) -> Option<String> {
    let Finding::Output(output) = finding else {
        return None;
    };
    let command = format!("ergodic log {sweep} {key}");
    if output.running {
        return Some(format!("`{command} --follow` shows what it prints."));
    }

    let (who, command) = match output.earlier {
        true => (
            "That attempt",
            format!("{command} --attempt {}", output.attempt),
        ),
        false => ("It", command),
    };
    let printed = format_count(output.printed, "byte");
    let shown = match output.kept < output.printed {
        true => format!("the last {}", output.kept),
        false if output.printed == 1 => "it".to_owned(),
        false => "them".to_owned(),
    };
    let lines = match &output.last_lines[..] {
        "" => String::new(),
        lines => format!(" Its last lines are:\n{lines}"),
    };
    Some(format!(
        "{who} printed {printed}; `{command}` shows {shown}.{lines}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(output: v1::ExplainOutput) -> String {
        let finding = Finding::Output(output);
        render_output_finding(&finding, "abcdefgh", TrialKey::new(2, 5)).expect("a sentence")
    }

    #[test]
    fn each_attempt_names_the_command_that_shows_its_output() {
        let last = v1::ExplainOutput {
            attempt: 2,
            printed: 70_000,
            kept: 65_536,
            last_lines: "one\ntwo".into(),
            ..v1::ExplainOutput::default()
        };
        assert_eq!(
            render(last.clone()),
            "It printed 70000 bytes; `ergodic log abcdefgh 2/5` shows the last 65536. Its last lines are:\none\ntwo"
        );
        let earlier = v1::ExplainOutput {
            attempt: 1,
            earlier: true,
            printed: 3,
            kept: 3,
            last_lines: String::new(),
            ..last
        };
        assert_eq!(
            render(earlier),
            "That attempt printed 3 bytes; `ergodic log abcdefgh 2/5 --attempt 1` shows them."
        );
        let running = v1::ExplainOutput {
            running: true,
            ..v1::ExplainOutput::default()
        };
        assert_eq!(
            render(running),
            "`ergodic log abcdefgh 2/5 --follow` shows what it prints."
        );
    }
}
