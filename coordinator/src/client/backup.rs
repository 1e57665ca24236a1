//! `ergodic backup`: the coordinator's store, in a file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ergodic_common::ErrorCode;
use ergodic_proto::archive::Archive;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use ergodic_proto::v1::backup_record::Kind;

use super::Client;

/// Fetches a backup into a file, which is there when it is whole.
///
/// # Errors
/// The caller may not have one, something in the store is damaged, the file cannot be written, or nobody answers.
pub async fn backup(client: &mut Client, path: &Path) -> Result<String, UserError> {
    let unwritten = |e: std::io::Error| {
        UserError::new(ErrorCode::BadInput, format!("{}: cannot write the backup: {e}", path.display()))
    };
    let part = Part::begin(path).map_err(unwritten)?;
    let mut archive = Archive::begin(BufWriter::new(&part.file)).map_err(unwritten)?;
    let mut stream = client.admin.backup(v1::BackupRequest {}).await.map_err(|e| client.error(&e))?.into_inner();
    let (mut sweeps, mut trials) = (0_u64, 0);
    while let Some(record) = stream.message().await.map_err(|e| client.error(&e))? {
        match &record.kind {
            Some(Kind::Sweep(_)) => sweeps += 1,
            Some(Kind::Trials(page)) => trials += page.rows.len(),
            _ => {}
        }
        archive.append(&record).map_err(unwritten)?;
    }
    archive.finish().and_then(|mut file| file.flush()).map_err(unwritten)?;
    let bytes = part.finish(path).map_err(unwritten)?;
    Ok(format!("{}: {sweeps} sweeps with {trials} rows, {:.1} MB\n", path.display(), bytes as f64 / 1e6))
}

/// A file beside the one that is wanted, removed when it is dropped before it is whole. Results are for their owner to see.
struct Part {
    place: PathBuf,
    file: File,
}

impl Part {
    fn begin(path: &Path) -> std::io::Result<Self> {
        let mut place = path.as_os_str().to_owned();
        place.push(format!(".{}.part", std::process::id()));
        let place = PathBuf::from(place);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&place)?;
        Ok(Self { place, file })
    }

    /// Gives it its name; how many bytes it has.
    fn finish(self, path: &Path) -> std::io::Result<u64> {
        self.file.sync_all()?;
        std::fs::rename(&self.place, path)?;
        Ok(self.file.metadata()?.len())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename there is nothing of this name any more.
        let _ = std::fs::remove_file(&self.place);
    }
}
