//! `ergodic backup`: the coordinator's store, in a file.

use std::io::{BufWriter, IntoInnerError};
use std::path::Path;

use ergodic_common::number_format::format_significant;
use ergodic_proto::archive::ArchiveWriter;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use ergodic_proto::v1::backup_record::Kind;

use crate::client::Client;
use crate::client::render::{AtomicFile, file_write_error, print_stderr_line};

/// Fetches a backup into a file, which is there when it is whole.
///
/// # Errors
/// The caller may not have one, something in the store is damaged, the file cannot be written, or nobody answers.
pub async fn fetch_backup(client: &mut Client, path: &Path) -> Result<String, UserError> {
    let unwritten = |e: std::io::Error| file_write_error(path, &e);
    // Results are for their owner to see.
    let file = AtomicFile::create_private(path).map_err(unwritten)?;
    let mut archive = ArchiveWriter::create(BufWriter::new(file)).map_err(unwritten)?;
    let mut stream = client
        .admin
        .backup(v1::BackupRequest {})
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();

    let mut sweeps = 0_u64;
    let mut trials = 0;
    let mut lost = Vec::new();

    while let Some(record) = stream
        .message()
        .await
        .map_err(|e| client.to_user_error(&e))?
    {
        match &record.kind {
            Some(Kind::Sweep(_)) => sweeps += 1,
            Some(Kind::Trials(page)) => trials += page.rows.len(),
            Some(Kind::Missing(missing)) => lost.push(missing.clone()),
            _ => {}
        }

        archive.append(&record).map_err(unwritten)?;
    }

    let file = archive
        .finish()
        .and_then(|file| file.into_inner().map_err(IntoInnerError::into_error));
    let bytes = file.and_then(AtomicFile::finish).map_err(unwritten)?;
    lost.iter()
        .for_each(|missing| print_stderr_line(&format_missing_file(missing)));

    let megabytes = format_significant(bytes as f64 / 1e6, 3);
    Ok(format!(
        "{}: {sweeps} sweeps with {trials} rows, {megabytes} MB\n",
        path.display()
    ))
}

/// What is to be said of a file that a backup lacks.
pub(crate) fn format_missing_file(missing: &v1::BackupMissing) -> String {
    let hash: String = missing
        .hash
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();

    let why = &missing.why;
    let sweeps = missing.sweeps.join(", ");
    format!(
        "the backup lacks the file {hash} of {sweeps}: {why}. Weights of trials are computed again by `ergodic retry ID`; \
         data come again when the sweep is launched from where they are"
    )
}
