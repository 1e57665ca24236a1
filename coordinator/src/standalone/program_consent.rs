//! Asks before a program of a sweep file runs here for the first time.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use ergodic_common::escape::escape_line;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::cache_folder::find_cache_folder;
use ergodic_proto::status::UserError;

use crate::client::commands::plan::describe_program;
use crate::client::render::write_atomic_file;
use crate::client::sweep_file::SweepFile;
use crate::terminal::print_stderr_line;

/// The file in the cache folder that lists the programs that may run.
const ACCEPTED_FILE: &str = "accepted-programs";

/// Most bytes of that file that are read.
const MAX_ACCEPTED_BYTES: usize = 1 << 20;

/// Whether sweeps have a program, which the user lets run: by `--programs`, by an earlier yes, or by one now.
///
/// # Errors
/// The user says no, or cannot be asked.
pub(super) fn agree_to_programs<'a>(
    sweeps: impl Iterator<Item = (&'a Spec, Option<&'a SweepFile>)>,
    is_allowed: bool,
) -> Result<bool, UserError> {
    let mut has_program = false;
    for (spec, file) in sweeps {
        // The code of an experiment is that of the worker program, which the user names.
        let Some(program) = spec.program().filter(|one| one.experiment.is_none()) else {
            continue;
        };
        has_program = true;
        let memory = AcceptedPrograms::of_user();
        let hash = program.consent_hash(&spec.grid.text_values());
        if is_allowed || memory.has(&hash) {
            continue;
        }
        ask(spec, file)?;
        memory.add(&hash);
    }
    Ok(has_program)
}

/// Shows a program, and asks whether it may run.
fn ask(spec: &Spec, file: Option<&SweepFile>) -> Result<(), UserError> {
    let name = escape_line(&spec.name);
    let text = format!(
        "{name} runs a program on this machine, as you:\n{}",
        describe_program(spec, file)
    );
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = format!(
            "{text}it has not run here before, and there is no terminal to ask at: add --programs to let it run"
        );
        return Err(UserError::new(ErrorCode::Refused, message));
    }

    print_stderr_line(text.trim_end());
    let mut stderr = io::stderr();
    let asked = write!(stderr, "Let it run, now and later? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    let is_yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    match read.is_ok() && is_yes {
        true => Ok(()),
        false => {
            let message = format!("the program of {name} was not let run");
            Err(UserError::new(ErrorCode::Refused, message))
        }
    }
}

/// The programs that the user lets run, by their hashes, one per line.
struct AcceptedPrograms {
    folder: Option<PathBuf>,
}

impl AcceptedPrograms {
    fn of_user() -> Self {
        Self {
            folder: find_cache_folder(),
        }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join(ACCEPTED_FILE)
    }

    fn read(&self) -> String {
        let path = self.folder.as_deref().map(Self::path);
        let text = path.and_then(|path| fs::read_to_string(path).ok());
        text.filter(|text| text.len() <= MAX_ACCEPTED_BYTES)
            .unwrap_or_default()
    }

    fn has(&self, hash: &str) -> bool {
        self.read().lines().any(|line| line == hash)
    }

    /// Remembers a program. What cannot be remembered is asked again.
    fn add(&self, hash: &str) {
        let Some(folder) = &self.folder else {
            return;
        };
        let text = self.read() + hash + "\n";
        if fs::create_dir_all(folder).is_ok() {
            let _ = write_atomic_file(&Self::path(folder), text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use super::*;

    fn spec(text: &str) -> Spec {
        let source = SpecSource {
            text: text.to_owned(),
            ..SpecSource::default()
        };
        Spec::read_new(&source).expect("a sweep")
    }

    #[test]
    fn a_program_that_was_accepted_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = AcceptedPrograms {
            folder: Some(folder.path().join("cache")),
        };
        assert!(!memory.has("a"));
        memory.add("a");
        memory.add("b");
        assert!(memory.has("a") && memory.has("b") && !memory.has("c"));
    }

    #[test]
    fn wrong_ways_to_run_a_program_name_the_flag() {
        let program = spec(
            "name = \"t\"\n[program]\ncommand = [\"sh\", \"-c\", \"true\"]\nenv = { A = \"1\" }\n\
             metrics = { loss = \"min\" }\n",
        );
        let plain = spec("name = \"t\"\n[model]\nkind = \"empty\"\n");
        let agree = |spec: &Spec, allowed| agree_to_programs([(spec, None)].into_iter(), allowed);
        assert_eq!(agree(&plain, false), Ok(false));
        assert_eq!(agree(&program, true), Ok(true));
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            return;
        }
        let error = agree(&program, false).expect_err("nobody can be asked");
        for words in ["program: sh -c true", "sets A=1", "add --programs"] {
            assert!(error.message.contains(words), "{error}");
        }
    }
}
