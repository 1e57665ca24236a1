//! `ergodic log`: shows what the program of a trial printed, or prints now.

use std::io::{self, IsTerminal as _, Write};

use clap::Args;
use ergodic_common::TrialKey;
use ergodic_common::number_format::format_count;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use crate::app::{CommandOutcome, stdout_error};
use crate::client::args::SweepTarget;
use crate::client::render::print_stderr_line;
use crate::terminal::PrintedText;

/// `ergodic log`
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// A trial of the sweep, as cell/repeat
    pub trial: TrialKey,
    /// Number of the attempt, from 1 [default: the last one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Go on until an attempt that runs has ended
    #[arg(long, short)]
    pub follow: bool,
}

/// Prints what the program of a trial printed, as it arrives.
///
/// # Errors
/// There is no such trial or attempt, it is no program, stdout cannot be written, or nobody answers.
pub async fn run_log(args: LogArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let request = v1::OutputRequest {
        sweep: id.into(),
        trial: Some(args.trial.into()),
        attempt: args.attempt,
        follow: args.follow,
    };
    let mut parts = client
        .call(async |client| client.sweeps.output(request).await)
        .await?;

    let mut printer = OutputPrinter::new(io::stdout(), io::stdout().is_terminal());
    let mut written = Ok(());
    while let Some(part) = client.next_message(&mut parts).await? {
        for note in describe_part(&part) {
            print_stderr_line(&note);
        }
        written = printer.print_bytes(&part.bytes);
        if written.is_err() {
            break;
        }
    }

    match written.and_then(|()| printer.finish()) {
        // A reader that closes the pipe, such as `head`, has read enough.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(stdout_error(&e)),
        _ => Ok(CommandOutcome::Done),
    }
}

/// What is to be known of a part besides its bytes.
fn describe_part(part: &v1::OutputResponse) -> impl Iterator<Item = String> {
    let missing = (part.missing > 0).then(|| {
        format!(
            "({} before this are not kept)",
            format_count(part.missing, "byte")
        )
    });
    let note = Some(part.note.clone()).filter(|note| !note.is_empty());
    missing.into_iter().chain(note)
}

/// Prints bytes as they are or, to a terminal, as text that cannot move its cursor.
struct OutputPrinter<W> {
    out: W,
    text: Option<PrintedText>,
}

impl<W: Write> OutputPrinter<W> {
    fn new(out: W, is_terminal: bool) -> Self {
        Self {
            out,
            text: is_terminal.then(PrintedText::default),
        }
    }

    fn print_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.text {
            Some(text) => self.out.write_all(text.escape_bytes(bytes).as_bytes())?,
            None => self.out.write_all(bytes)?,
        }
        self.out.flush()
    }

    /// Prints what was kept back, and ends the last line on a terminal.
    fn finish(mut self) -> io::Result<()> {
        if let Some(text) = self.text.take() {
            self.out.write_all(text.finish().as_bytes())?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(parts: &[&[u8]], is_terminal: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut printer = OutputPrinter::new(&mut out, is_terminal);
        for part in parts {
            printer.print_bytes(part).expect("memory can be written");
        }
        printer.finish().expect("memory can be written");
        out
    }

    #[test]
    fn bytes_pass_as_they_are_but_for_a_terminal() {
        let parts: [&[u8]; 2] = [b"\x1b[2J\xff", b"\0a"];
        assert_eq!(print(&parts, false), parts.concat());
        assert_eq!(print(&parts, true), b"\\u001b[2J\\xff\\u0000a\n");
    }

    #[test]
    fn what_is_missing_is_told_apart_from_the_output() {
        let part = v1::OutputResponse {
            missing: 1,
            note: "it is over".into(),
            ..v1::OutputResponse::default()
        };
        let notes: Vec<String> = describe_part(&part).collect();
        assert_eq!(notes, ["(1 byte before this are not kept)", "it is over"]);
        assert_eq!(describe_part(&v1::OutputResponse::default()).next(), None);
    }
}
