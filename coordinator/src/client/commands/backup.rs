//! `ergodic backup`: writes a backup of the coordinator's store to a file.

use std::io::{BufWriter, IntoInnerError};
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::number_format::{format_count, format_significant};
use ergodic_proto::archive::ArchiveWriter;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use ergodic_proto::v1::backup_record::Kind;

use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::args::ConnectionArgs;
use crate::client::render::{AtomicFile, file_write_error, print_stderr_line};

/// `ergodic backup`
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File to write the backup to
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
}

/// Fetches a backup into a file, which appears when it is whole.
///
/// # Errors
/// The caller may not have one, something in the store is damaged, the file cannot be written, or nobody answers.
pub async fn run_backup(args: BackupArgs) -> Result<CommandOutcome, UserError> {
    let mut client = args.connection.connect().await?;
    let path = &args.output;
    let written = write_archive(&mut client, path).await?;
    for missing in &written.missing {
        print_stderr_line(&format_missing_file(missing));
    }

    print_output(format!(
        "{}: {} with {}, {} MB\n",
        path.display(),
        format_count(written.sweeps, "sweep"),
        format_count(written.trials as u64, "row"),
        format_significant(written.bytes as f64 / 1e6, 3)
    ))
}

/// The content of a backup.
#[derive(Default)]
struct WrittenArchive {
    sweeps: u64,
    trials: usize,
    /// Files that the coordinator could not read.
    missing: Vec<v1::BackupMissing>,
    bytes: u64,
}

async fn write_archive(client: &mut Client, path: &Path) -> Result<WrittenArchive, UserError> {
    // A backup has unpublished results, so only its owner may read it.
    let file = AtomicFile::create_private(path).map_err(|e| file_write_error(path, &e))?;
    let mut archive =
        ArchiveWriter::create(BufWriter::new(file)).map_err(|e| file_write_error(path, &e))?;
    let mut written = WrittenArchive::default();
    let mut stream = client
        .call(async |client| client.admin.backup(v1::BackupRequest {}).await)
        .await?;

    while let Some(record) = client.next_message(&mut stream).await? {
        match &record.kind {
            Some(Kind::Sweep(_)) => written.sweeps += 1,
            Some(Kind::Trials(page)) => written.trials += page.rows.len(),
            Some(Kind::Missing(missing)) => written.missing.push(missing.clone()),
            _ => {}
        }

        archive
            .append(&record)
            .map_err(|e| file_write_error(path, &e))?;
    }

    written.bytes = archive
        .finish()
        .and_then(|file| file.into_inner().map_err(IntoInnerError::into_error))
        .and_then(AtomicFile::finish)
        .map_err(|e| file_write_error(path, &e))?;
    Ok(written)
}

/// The warning about a file that a backup lacks.
pub(crate) fn format_missing_file(missing: &v1::BackupMissing) -> String {
    let hash = hex::encode(&missing.hash);
    let why = &missing.why;
    let sweeps = missing.sweeps.join(", ");
    format!(
        "the backup lacks the file {hash} of {sweeps}: {why}. `ergodic retry ID` computes weights of trials again; to send \
         a dataset again, launch the sweep from a machine that has it"
    )
}
