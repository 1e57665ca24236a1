//! `ergodic files`: lists or fetches the files that a trial of a program kept.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_count;
use ergodic_common::program::bundle::BundledFile;
use ergodic_common::program::is_program_class;
use ergodic_common::program::kept_files::decode_kept_files;
use ergodic_common::{ErrorCode, Outcome, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::transfer;
use serde_json::json;

use crate::app::{CommandOutcome, print_output};
use crate::client::args::SweepTarget;
use crate::client::query::{query_trial, read_trial_result};
use crate::client::render::{
    TableData, TextFormat, file_write_error, print_stderr_line, render_human_rows,
    render_table_data,
};

/// `ergodic files`
#[derive(Debug, Args)]
pub struct FilesArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepTarget,
    /// A trial of the sweep, as cell/repeat
    pub trial: TrialKey,
    /// Folder to write the files to; those that exist there are never replaced [default: list the files]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Output format of the list
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// Lists the files that a trial of a program kept, or writes them into a folder.
///
/// # Errors
/// There is no such trial, it kept no files, a file cannot be written or exists, or nobody answers.
pub async fn run_files(args: FilesArgs) -> Result<CommandOutcome, UserError> {
    let (mut client, id) = args.sweep.connect().await?;
    let page = query_trial(&mut client, &id, args.trial).await?;
    let result = read_trial_result(&page)?;
    let Some(hash) = result
        .weights_hash
        .filter(|_| is_program_class(&page.numerics))
    else {
        let is_of_program = is_program_class(&page.numerics);
        return Err(no_files_error(
            &page.sweep,
            args.trial,
            (is_of_program, &result.outcome),
        ));
    };
    let archive = transfer::fetch_file(&mut client.files, hash)
        .await
        .map_err(|e| client.to_user_error(&e))?;
    let files = decode_kept_files(&archive).map_err(|why| {
        let message = format!("the files that the coordinator sent cannot be read: {why}");
        UserError::new(ErrorCode::Internal, message)
    })?;
    drop(archive);

    let Some(folder) = &args.output else {
        return print_output(render_list(&files, args.format));
    };
    write_files(folder, &files)?;
    let bytes: usize = files.iter().map(|file| file.content.len()).sum();
    print_stderr_line(&format!(
        "{}: {} of trial {} of {}, {bytes} bytes",
        folder.display(),
        format_count(files.len() as u64, "file"),
        args.trial,
        page.sweep
    ));
    Ok(CommandOutcome::Done)
}

fn no_files_error(
    sweep: &str,
    trial: TrialKey,
    (is_of_program, outcome): (bool, &Outcome),
) -> UserError {
    let why = match outcome {
        _ if !is_of_program => {
            "only programs keep files; `ergodic weights` fetches the weights of built-in trainings"
                .to_owned()
        }
        Outcome::Completed => {
            "set save = [\"*.json\"] under [program] in the next sweep".to_owned()
        }
        other => format!("it {}", other.as_str()),
    };
    let message = format!("the trial {trial} of {sweep} kept no files: {why}");
    UserError::new(ErrorCode::NotFound, message)
}

fn render_list(files: &[BundledFile], format: TextFormat) -> String {
    let names = ["file", "bytes", "executable"].map(str::to_owned);
    let data = TableData {
        columns: names.to_vec(),
        rows: files
            .iter()
            .map(|file| {
                let bytes = file.content.len();
                vec![json!(file.name), json!(bytes), json!(file.is_executable)]
            })
            .collect(),
        key_columns: 1,
    };
    render_table_data(&data, format, |_| {
        let rows = files.iter().map(|file| {
            let mode = if file.is_executable { "executable" } else { "" };
            vec![
                json!(escape_line(&file.name)),
                json!(file.content.len().to_string()),
                json!(mode),
            ]
        });
        render_human_rows(
            &["file", "bytes", ""].map(str::to_owned),
            &rows.collect::<Vec<_>>(),
        )
    })
}

/// Writes the files into a folder, after a look at all of their places.
fn write_files(folder: &Path, files: &[BundledFile]) -> Result<(), UserError> {
    for file in files {
        check_place(folder, &file.name)?;
    }
    for file in files {
        let path = folder.join(&file.name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|e| file_write_error(parent, &e))?;
        write_new_file(&path, file).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => existing_file_error(&path),
            _ => file_write_error(&path, &e),
        })?;
    }
    Ok(())
}

/// Checks that nothing is at the place of a file, and that the way to it leads through folders alone.
fn check_place(folder: &Path, name: &str) -> Result<(), UserError> {
    for (at, _) in name.match_indices('/') {
        let path = folder.join(&name[..at]);
        match path.symlink_metadata() {
            Ok(facts) if !facts.is_dir() => {
                let message = format!("{} is no folder: name another one with -o", path.display());
                return Err(UserError::new(ErrorCode::BadInput, message));
            }
            _ => {}
        }
    }
    let path = folder.join(name);
    match path.symlink_metadata() {
        Ok(_) => Err(existing_file_error(&path)),
        Err(_) => Ok(()),
    }
}

fn existing_file_error(path: &Path) -> UserError {
    let message = format!(
        "{} exists already: remove it, or name another folder with -o",
        path.display()
    );
    UserError::new(ErrorCode::BadInput, message)
}

/// Writes a file where none is. What is cut is removed.
fn write_new_file(path: &Path, file: &BundledFile) -> io::Result<()> {
    let mode = if file.is_executable { 0o777 } else { 0o666 };
    let mut options = OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(mode).open(path)?;
    new.write_all(&file.content)
        .and_then(|()| new.sync_all())
        .inspect_err(|_| drop(std::fs::remove_file(path)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use crate::client::commands::files::*;

    fn file(name: &str, is_executable: bool) -> BundledFile {
        BundledFile {
            name: name.into(),
            content: name.into(),
            is_executable,
        }
    }

    #[test]
    fn files_are_written_where_none_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let target = dir.path().join("new");
        let files = [file("a.pt", false), file("out/run.sh", true)];
        write_files(&target, &files).expect("they are written");
        for file in &files {
            let path = target.join(&file.name);
            assert_eq!(std::fs::read(&path).expect("a file"), file.content);
            let mode = std::fs::metadata(&path)
                .expect("a file")
                .permissions()
                .mode();
            assert_eq!(mode & 0o100 != 0, file.is_executable);
        }

        std::fs::remove_file(target.join("a.pt")).expect("it was written");
        std::fs::write(target.join("out/run.sh"), "mine").expect("a file");
        let refused = write_files(&target, &files).expect_err("one file is there");
        assert!(
            refused.message.contains("run.sh exists already"),
            "{refused}"
        );
        assert!(!target.join("a.pt").exists());
        let mine = std::fs::read(target.join("out/run.sh")).expect("a file");
        assert_eq!(mine, b"mine");
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        symlink(elsewhere.path(), dir.path().join("out")).expect("a link");
        let refused = write_files(dir.path(), &[file("out/a", false)]).expect_err("a link");
        assert!(refused.message.contains("out is no folder"), "{refused}");
        symlink(elsewhere.path().join("b"), dir.path().join("b")).expect("a link");
        let refused = write_files(dir.path(), &[file("b", false)]).expect_err("a link");
        assert!(refused.message.contains("b exists already"), "{refused}");
        let written = std::fs::read_dir(elsewhere.path()).expect("a folder");
        assert_eq!(written.count(), 0);
    }
}
