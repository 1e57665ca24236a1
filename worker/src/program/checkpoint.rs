//! Checkpoints of programs: a folder that the program wrote, with what it had reported until then.

use std::cell::RefCell;
use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ergodic_common::TrialKey;
use ergodic_common::ids::TrialIdentity;
use ergodic_common::program::bundle::{MAX_BUNDLED_FILES, check_name};
use ergodic_common::program::{DeclaredMetric, ProgramCell};
use ergodic_common::random_streams::Streams;
use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};

use super::record::TrialRecord;
use crate::train::CheckpointStore;
use crate::train::checkpoint::{CheckpointDecoder, CheckpointEncoder, open_checkpoint};

/// The key with which identities of trials are hashed. Its version is raised with every change of the format.
const IDENTITY_CONTEXT: &str = "ergodic 2026 program checkpoint v1";
/// Files that only their owner may execute.
const EXECUTABLE: u32 = 0o100;
/// How files and folders of a program are opened: neither a link nor a pipe has the worker do anything else.
const FILE_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
/// The same for what must be a folder.
const FOLDER_FLAGS: OFlags = FILE_FLAGS.union(OFlags::DIRECTORY);

/// A checkpoint that a program has announced.
struct AnnouncedCheckpoint {
    step: u64,
    /// What the program had reported, with the identity and the step before it.
    encoder: CheckpointEncoder,
}

/// Keeps the checkpoints of one attempt.
pub(super) struct CheckpointKeeper<'a> {
    store: &'a dyn CheckpointStore,
    identity: TrialIdentity,
    /// The folder of checkpoints, opened before the program could replace it.
    dir: BorrowedFd<'a>,
    limit: u64,
    /// The last one, if it was not due.
    waiting: RefCell<Option<AnnouncedCheckpoint>>,
}

/// A checkpoint that a trial goes on from.
pub(super) struct LoadedCheckpoint<'m> {
    pub(super) step: u64,
    pub(super) record: TrialRecord<'m>,
}

/// The hash of all that the state of a trial may depend on.
pub(super) fn compute_identity(
    cell: &ProgramCell,
    key: TrialKey,
    streams: &Streams,
) -> TrialIdentity {
    let class = cell.program.numerics_class();
    // The class knows no order of the metrics, and a record has one column for each, in their order.
    let metrics = &cell.program.metrics;
    let described = format!("{class} {metrics:?} {key:?} {:?} {streams:?}", cell.values);
    let mut hasher = blake3::Hasher::new_derive_key(IDENTITY_CONTEXT);
    hasher.update(described.as_bytes()).finalize().into()
}

impl<'a> CheckpointKeeper<'a> {
    pub(super) fn new(
        store: &'a dyn CheckpointStore,
        identity: TrialIdentity,
        dir: BorrowedFd<'a>,
        limit: u64,
    ) -> Self {
        Self {
            store,
            identity,
            dir,
            limit,
            waiting: RefCell::new(None),
        }
    }

    /// Keeps the folder of a step now, or remembers it until the end if none is due or the trial is being stopped: then the store
    /// waits until the checkpoint has arrived, which the program must not be kept waiting for.
    ///
    /// # Errors
    /// The program did not write the folder as it must.
    pub(super) fn keep_checkpoint(
        &self,
        record: &TrialRecord<'_>,
        step: u64,
        is_stopping: bool,
    ) -> Result<(), String> {
        open_folder(self.dir, step)?;
        let mut encoder = CheckpointEncoder::default();
        encoder.write_bytes(&self.identity.0);
        encoder.write_u64(step);
        record.encode_until(step, &mut encoder);
        *self.waiting.borrow_mut() = Some(AnnouncedCheckpoint { step, encoder });
        self.remove_older_folders(step);
        match !is_stopping && self.store.should_save(step) {
            true => self.save_waiting(),
            false => Ok(()),
        }
    }

    /// Removes the folders of earlier steps, which nobody reads any more. What cannot be removed goes with the attempt's folder.
    fn remove_older_folders(&self, step: u64) {
        let entries = Dir::read_from(self.dir).into_iter().flatten().flatten();
        let steps = entries.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
        let older: Vec<u64> = steps.filter(|other| *other < step).collect();
        for other in older {
            // Below the folder that was opened, whatever the program has put in its place since.
            let path = format!("/proc/self/fd/{}/{other}", self.dir.as_raw_fd());
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// Saves the last checkpoint, if it was not saved.
    ///
    /// # Errors
    /// The program did not write the folder as it must.
    pub(super) fn save_waiting(&self) -> Result<(), String> {
        let Some(AnnouncedCheckpoint { step, mut encoder }) = self.waiting.borrow_mut().take()
        else {
            return Ok(());
        };
        let files = read_folder(open_folder(self.dir, step)?, self.limit)
            .map_err(|why| format!("the checkpoint of step {step} cannot be kept: {why}"))?;
        encoder.write_u64(files.len() as u64);
        for file in &files {
            encoder.write_bytes(file.name.as_bytes());
            encoder.write_u64(u64::from(file.is_executable));
            encoder.write_bytes(&file.content);
        }

        drop(files);
        self.store
            .save_checkpoint(self.identity, step, encoder.finish_with_hash());
        Ok(())
    }
}

/// Opens the folder of a step.
fn open_folder(dir: BorrowedFd<'_>, step: u64) -> Result<OwnedFd, String> {
    openat(dir, step.to_string(), FOLDER_FLAGS, Mode::empty()).map_err(|error| {
        format!(
            "there is no checkpoint of step {step} ({error}): write its files into the folder {step} in ERGODIC_CHECKPOINT before you report it"
        )
    })
}

/// The files below a folder. Links are refused at every level, so that the worker reads nothing that the program could not.
struct FolderReader {
    limit: u64,
    bytes: u64,
    files: Vec<StoredFile>,
    /// Folders that are to be read, each behind the begin of its files' names.
    open: Vec<(String, OwnedFd)>,
}

/// A file of a checkpoint.
struct StoredFile {
    name: String,
    is_executable: bool,
    content: Vec<u8>,
}

fn read_folder(folder: OwnedFd, limit: u64) -> Result<Vec<StoredFile>, String> {
    let mut reader = FolderReader {
        limit,
        bytes: 0,
        files: Vec::new(),
        open: vec![(String::new(), folder)],
    };
    while let Some((prefix, folder)) = reader.open.pop() {
        let entries = Dir::read_from(&folder).map_err(|error| error.to_string())?;
        for entry in entries {
            let entry = entry.map_err(|error| error.to_string())?;
            let name = entry.file_name().to_str();
            let name = name.map_err(|_| "the name of a file is not UTF-8")?;
            if name != "." && name != ".." {
                let path = format!("{prefix}{name}");
                reader
                    .add_entry(&path, folder.as_fd(), name)
                    .map_err(|why| format!("{path}: {why}"))?;
            }
        }
    }
    Ok(reader.files)
}

impl FolderReader {
    fn add_entry(&mut self, path: &str, folder: BorrowedFd<'_>, name: &str) -> Result<(), String> {
        check_name(path)?;
        let entry = openat(folder, name, FILE_FLAGS, Mode::empty());
        let entry = entry.map_err(|error| format!("it cannot be read ({error})"))?;
        let facts = fstat(&entry).map_err(|error| error.to_string())?;
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Directory => self.open.push((format!("{path}/"), entry)),
            FileType::RegularFile => {
                let most = self.limit.saturating_sub(self.bytes).saturating_add(1);
                let mut content = Vec::new();
                let read = File::from(entry).take(most).read_to_end(&mut content);
                read.map_err(|error| error.to_string())?;
                self.bytes += content.len() as u64;
                self.files.push(StoredFile {
                    name: path.to_owned(),
                    is_executable: facts.st_mode & EXECUTABLE != 0,
                    content,
                });
            }
            _ => return Err("it is neither a file nor a folder".into()),
        }

        let count = self.files.len() + self.open.len();
        if self.bytes > self.limit || count > MAX_BUNDLED_FILES {
            return Err(format!(
                "there are more than {} bytes or {MAX_BUNDLED_FILES} files: save less, or raise program.checkpoint_limit",
                self.limit
            ));
        }
        Ok(())
    }
}

/// Writes the files of the furthest checkpoint that fits into the folder of its step.
///
/// # Errors
/// The system refuses to write.
pub(super) fn load_checkpoint<'m>(
    store: &dyn CheckpointStore,
    identity: TrialIdentity,
    dir: &Path,
    metrics: &'m [DeclaredMetric],
) -> io::Result<Option<LoadedCheckpoint<'m>>> {
    let checkpoints = store.load_checkpoints(identity);
    let fitting = checkpoints
        .iter()
        .filter_map(|bytes| open_checkpoint(bytes, identity));
    let Some((step, mut decoder)) = fitting.max_by_key(|(step, _)| *step) else {
        return Ok(None);
    };
    let folder = dir.join(step.to_string());
    let Some(record) = TrialRecord::decode(metrics, step, &mut decoder) else {
        return Ok(None);
    };

    std::fs::create_dir(&folder)?;
    match write_files(&folder, &mut decoder)? {
        Some(()) => Ok(Some(LoadedCheckpoint { step, record })),
        None => {
            std::fs::remove_dir_all(&folder)?;
            Ok(None)
        }
    }
}

/// Writes the files of a checkpoint; `None` if it is none.
fn write_files(folder: &Path, decoder: &mut CheckpointDecoder<'_>) -> io::Result<Option<()>> {
    let Some(count) = decoder.read_u64() else {
        return Ok(None);
    };
    for _ in 0..count {
        let Some(file) = read_file_entry(decoder) else {
            return Ok(None);
        };
        let path = folder.join(&file.name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.content)?;
        if file.is_executable {
            std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
    }
    Ok(decoder.is_fully_read().then_some(()))
}

fn read_file_entry(decoder: &mut CheckpointDecoder<'_>) -> Option<StoredFile> {
    let name = String::from_utf8(decoder.read_bytes()?).ok()?;
    check_name(&name).ok()?;
    Some(StoredFile {
        name,
        is_executable: decoder.read_u64()? != 0,
        content: decoder.read_bytes()?,
    })
}

#[cfg(test)]
mod tests;
