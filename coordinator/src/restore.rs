//! `ergodic restore`: restores a backup into an empty store of any kind.
//!
//! The backup is read twice, because nothing is written before all of it is known to be intact. Sweeps are paused
//! until the last row is restored.

mod leadership;

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use ergodic_common::ids::{
    DatasetHash, Epoch, Fence, FileHash, LeaseId, ShapeClass, SweepNumber, WorkerId,
};
use ergodic_common::number_format::format_count;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::{ErrorCode, TrialKey, TrialResult};
use ergodic_proto::convert::WireError;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::MAX_FILE_BYTES;
use ergodic_proto::v1::backup_record::Kind;
use ergodic_proto::{archive, v1};
use leadership::{LeadershipRenewal, claim_store};

use crate::app::{CommandOutcome, print_output};
use crate::client::commands::backup::format_missing_file;
use crate::interval_set::IntervalSet;
use crate::records::{DataPin, EndedLease, Finding, LeaseRow, SweepRow, SweepState, SweepTallies};
use crate::server::backup::BACKUP_VERSION;
use crate::server::blobs::BlobStore;
use crate::server::{resolve_files_dir, sign_folder, store_error};
use crate::store::location::StoreLocation;
use crate::store::{
    Attempt, Audit, ClearRows, EndLeases, InsertLease, InsertSweep, RemoveSweep, RestoreAudits,
    RestoreOutputs, RestoreRows, SetSweepState, Store, StoreError, StoreWrite, StoreWriter,
    StoredOutput, StoredTrial,
};
use crate::terminal::print_stderr_line;

/// Distance between the numbers of the restored store's leases and those of the original store, which may have gone
/// on since. So no lease number exists in both.
const LEASE_ID_GAP: u64 = 1 << 40;

/// `ergodic restore`
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Backup file that `ergodic backup` wrote
    pub file: PathBuf,
    /// A new directory, or an empty PostgreSQL database as postgres://USER:PASSWORD@HOST:PORT/NAME
    #[arg(long, value_name = "DIR|URL")]
    pub store: PathBuf,
    /// Directory for datasets and weights, needed with a database [default: data, in the store's directory]
    #[arg(long = "artifacts", value_name = "DIR")]
    pub files: Option<PathBuf>,
}

/// Restores a backup and prints a line about it.
///
/// # Errors
/// The file is no whole backup, or the store is not empty or cannot be written.
pub async fn run_restore(args: RestoreArgs) -> Result<CommandOutcome, UserError> {
    print_output(tokio::task::block_in_place(|| restore_backup(&args))?)
}

/// Restores a backup; gives a line for the user.
fn restore_backup(args: &RestoreArgs) -> Result<String, UserError> {
    let location = StoreLocation::parse(&args.store);
    let files = args.files.as_deref();
    let blobs = BlobStore::new(resolve_files_dir(files, &location)?);
    check_backup(&args.file)?;

    let store = location.open().map_err(store_error)?;
    let epoch = claim_store(store.as_ref())?;
    let renewal = LeadershipRenewal::start(store.clone(), epoch)?;
    let restored = restore_into(store.as_ref(), epoch, &args.file, blobs, files.is_some());
    renewal.stop_and_resign();

    restored
}

/// Restores all of a backup, or nothing.
fn restore_into(
    store: &dyn Store,
    epoch: Epoch,
    path: &Path,
    blobs: BlobStore,
    has_own_folder: bool,
) -> Result<String, UserError> {
    check_store_empty(store)?;
    let mut writer = store.open_writer(epoch).map_err(store_error)?;
    // Signed before it holds files, so that no other store takes them for forgotten ones.
    if has_own_folder {
        sign_folder(writer.as_mut(), blobs.folder())?;
    }

    let mut restore = RestoreState {
        writer,
        blobs,
        sweeps: Vec::new(),
        rows: 0,
        next_lease: LeaseId(1),
        partial_file: None,
    };
    let restored =
        read_backup(path, |record| restore.apply_record(record)).and_then(|()| restore.finish());
    restored.inspect_err(|_| restore.undo())
}

fn check_store_empty(store: &dyn Store) -> Result<(), UserError> {
    let reader = store.open_reader().map_err(store_error)?;
    let sweeps = reader.read_sweeps().map_err(store_error)?;
    let removals = reader.read_unfinished_removals().map_err(store_error)?;
    if sweeps.is_empty() && removals.is_empty() {
        return Ok(());
    }
    let message = "--store: this store exists already and has sweeps: name a new directory, or an empty database";
    Err(UserError::new(ErrorCode::Refused, message))
}

/// Reads all of a backup to check it, and writes nothing.
fn check_backup(path: &Path) -> Result<(), UserError> {
    read_backup(path, |record| match record.kind {
        Some(Kind::Head(head)) if !(1..=BACKUP_VERSION).contains(&head.version) => {
            let message = format!(
                "{}: the backup was written by {}, a newer version: use a newer ergodic",
                path.display(),
                head.build
            );
            Err(UserError::new(ErrorCode::Version, message))
        }
        Some(_) => Ok(()),
        None => Err(UserError::new(
            ErrorCode::Version,
            format!(
                "{}: a record was written by a newer version: use a newer ergodic",
                path.display()
            ),
        )),
    })
}

fn read_backup(
    path: &Path,
    mut each: impl FnMut(v1::BackupRecord) -> Result<(), UserError>,
) -> Result<(), UserError> {
    let file = File::open(path).map_err(|e| backup_file_error(path, &e.to_string()))?;
    let mut failed = None;
    let outcome = archive::read_records(file, |record| {
        each(record).map_err(|error| {
            failed = Some(error.clone());
            RecordError(error)
        })
    });

    match (outcome, failed) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(error)) => Err(error),
        (Err(RecordError(error)), None) => Err(backup_file_error(path, &error.message)),
    }
}

/// The reason why reading stopped: a record could not be read, or was refused.
struct RecordError(UserError);

impl From<std::io::Error> for RecordError {
    fn from(error: std::io::Error) -> Self {
        Self(UserError::new(ErrorCode::BadInput, error.to_string()))
    }
}

fn backup_file_error(path: &Path, why: &str) -> UserError {
    UserError::new(ErrorCode::BadInput, format!("{}: {why}", path.display()))
}

struct RestoreState {
    writer: Box<dyn StoreWriter>,
    blobs: BlobStore,
    /// Numbers of sweeps, with the states that they get at the end.
    sweeps: Vec<(SweepNumber, SweepState)>,
    rows: usize,
    next_lease: LeaseId,
    /// Hash and content of the file whose pieces are arriving.
    partial_file: Option<(FileHash, Vec<u8>)>,
}

impl RestoreState {
    fn apply_record(&mut self, record: v1::BackupRecord) -> Result<(), UserError> {
        if !matches!(record.kind, Some(Kind::File(_))) {
            self.store_file()?;
        }

        match record.kind {
            Some(Kind::Head(head)) => self.next_lease = LeaseId(head.next_lease),
            Some(Kind::Sweep(sweep)) => self.restore_sweep(sweep)?,
            Some(Kind::Trials(page)) => self.restore_trials(page)?,
            Some(Kind::Attempt(attempt)) => self.restore_attempt(attempt)?,
            Some(Kind::Audits(page)) => self.restore_audits(page)?,
            Some(Kind::Outputs(page)) => self.restore_outputs(page)?,
            Some(Kind::File(piece)) => self.append_file_chunk(piece)?,
            Some(Kind::Missing(missing)) => print_stderr_line(&format_missing_file(&missing)),
            Some(Kind::End(_)) | None => {}
        }

        Ok(())
    }

    fn commit<W: StoreWrite>(&mut self, write: W) -> Result<W::Output, UserError> {
        self.writer.commit(write).map_err(store_error)
    }

    fn restore_sweep(&mut self, sweep: v1::BackupSweep) -> Result<(), UserError> {
        let row = sweep_from_wire(sweep)?;
        let state = row.state;
        let number = self.commit(InsertSweep(SweepRow {
            state: SweepState::Paused,
            ..row
        }))?;
        self.sweeps.push((number, state));

        Ok(())
    }

    fn restore_trials(&mut self, page: v1::BackupTrials) -> Result<(), UserError> {
        let rows = page
            .rows
            .into_iter()
            .map(trial_from_wire)
            .collect::<Result<Vec<_>, _>>()?;

        self.rows += rows.len();
        self.restore_rows(rows, Vec::new())
    }

    fn restore_attempt(&mut self, attempt: v1::BackupAttempt) -> Result<(), UserError> {
        let key: TrialKey = attempt
            .key
            .ok_or_else(|| invalid_backup_error("an attempt without a trial"))?
            .into();
        let attempt = Attempt {
            cause: attempt.cause,
            worker: attempt.worker,
            seconds: attempt.seconds,
        };

        self.restore_rows(Vec::new(), vec![(key, attempt)])
    }

    fn restore_audits(&mut self, page: v1::BackupAudits) -> Result<(), UserError> {
        let audits = page
            .audits
            .into_iter()
            .map(audit_from_wire)
            .collect::<Result<Vec<_>, _>>()?;

        let sweep = self.current_sweep()?;
        self.commit(RestoreAudits { sweep, audits })
    }

    fn restore_outputs(&mut self, page: v1::BackupOutputs) -> Result<(), UserError> {
        let outputs = page
            .outputs
            .into_iter()
            .map(output_from_wire)
            .collect::<Result<Vec<_>, _>>()?;

        let sweep = self.current_sweep()?;
        self.commit(RestoreOutputs { sweep, outputs })
    }

    fn restore_rows(
        &mut self,
        rows: Vec<StoredTrial>,
        attempts: Vec<(TrialKey, Attempt)>,
    ) -> Result<(), UserError> {
        let sweep = self.current_sweep()?;
        self.commit(RestoreRows {
            sweep,
            rows,
            attempts,
        })
    }

    /// The sweep that the current rows belong to.
    fn current_sweep(&self) -> Result<SweepNumber, UserError> {
        self.sweeps
            .last()
            .map(|(sweep, _)| *sweep)
            .ok_or_else(|| invalid_backup_error("rows before a sweep"))
    }

    fn append_file_chunk(&mut self, piece: v1::BackupFile) -> Result<(), UserError> {
        let hash = FileHash::try_from(piece.hash)
            .map_err(|_| invalid_backup_error("a file without a hash"))?;
        if self
            .partial_file
            .as_ref()
            .is_some_and(|(known, _)| *known != hash)
        {
            self.store_file()?;
        }

        let (_, content) = self.partial_file.get_or_insert_with(|| (hash, Vec::new()));
        content.extend(piece.chunk);

        if content.len() as u64 > MAX_FILE_BYTES {
            Err(invalid_backup_error("a file that is too large"))
        } else {
            Ok(())
        }
    }

    /// Stores the file whose pieces have arrived, if its content has the hash in its name.
    fn store_file(&mut self) -> Result<(), UserError> {
        let Some((hash, content)) = self.partial_file.take() else {
            return Ok(());
        };
        if FileHash::from(blake3::hash(&content)) != hash {
            return Err(invalid_backup_error(&format!(
                "a file whose content does not have the hash {}",
                hash
            )));
        }

        self.blobs.store_blob(&hash, &content).map_err(|e| {
            let path = self.blobs.blob_path(&hash);
            UserError::new(
                ErrorCode::Internal,
                format!("{}: cannot be written: {e}", path.display()),
            )
        })
    }

    /// Removes the sweeps of a backup that could not be restored completely.
    fn undo(&mut self) {
        for (number, _) in std::mem::take(&mut self.sweeps) {
            if let Err(error) = self.remove_sweep(number) {
                tracing::warn!(%error, sweep = number.0, "a partly restored sweep could not be removed");
            }
        }
    }

    fn remove_sweep(&mut self, number: SweepNumber) -> Result<(), StoreError> {
        self.writer.commit(RemoveSweep(number))?;
        while self.writer.commit(ClearRows(number))?.has_more {}
        Ok(())
    }

    fn finish(&mut self) -> Result<String, UserError> {
        self.store_file()?;
        let fence = Fence {
            lease: LeaseId(self.next_lease.0 + LEASE_ID_GAP),
            epoch: Epoch(0),
        };
        let lease = InsertLease(LeaseRow {
            fence,
            sweep: SweepNumber::UNSTORED,
            class: ShapeClass(0),
            worker: WorkerId::NONE,
            trials: IntervalSet::default(),
            audits: None,
        });
        let end = EndLeases(vec![EndedLease { fence, lost: false }]);
        let states: Vec<SetSweepState> = self
            .sweeps
            .iter()
            .map(|&(sweep, state)| SetSweepState { sweep, state })
            .collect();

        // The lease is never in force: it only moves the numbers of leases on.
        self.commit((lease, (end, states)))?;
        Ok(format!(
            "{} with {} restored\n",
            format_count(self.sweeps.len() as u64, "sweep"),
            format_count(self.rows as u64, "row")
        ))
    }
}

fn trial_from_wire(row: v1::TrialRow) -> Result<StoredTrial, UserError> {
    let result = row
        .result
        .ok_or_else(|| invalid_backup_error("a row without a result"))?;
    let result = TrialResult::try_from(result).map_err(|e| invalid_backup_error(&e.to_string()))?;
    Ok(StoredTrial {
        result,
        worker: row.worker,
    })
}

fn output_from_wire(wire: v1::BackupOutput) -> Result<StoredOutput, UserError> {
    let (Some(key), Some(output)) = (wire.key, wire.output) else {
        return Err(invalid_backup_error("an output without a trial"));
    };
    Ok(StoredOutput {
        key: key.into(),
        attempt: wire.attempt,
        output: output
            .try_into()
            .map_err(|e: WireError| invalid_backup_error(&e.to_string()))?,
    })
}

fn audit_from_wire(audit: v1::BackupAudit) -> Result<Audit, UserError> {
    let finding = match v1::Finding::try_from(audit.finding) {
        Ok(v1::Finding::Unspecified) => None,
        Ok(v1::Finding::Same) => Some(Finding::Same),
        Ok(v1::Finding::Different) => Some(Finding::Different),
        Ok(v1::Finding::Failed) => Some(Finding::Failed),
        Err(_) => return Err(invalid_backup_error("an audit without a known finding")),
    };

    let key = audit
        .key
        .ok_or_else(|| invalid_backup_error("an audit without a trial"))?
        .into();
    let v1::BackupAudit {
        process,
        auditor,
        auditor_process,
        why,
        ..
    } = audit;

    Ok(Audit {
        key,
        process: process.into(),
        finding,
        auditor,
        auditor_process: auditor_process.into(),
        why,
    })
}

fn sweep_from_wire(sweep: v1::BackupSweep) -> Result<SweepRow, UserError> {
    let state = state_from_wire(sweep.state())?;
    let hash = sweep.data_hash.map(DatasetHash::try_from).transpose();
    let source = sweep
        .source
        .ok_or_else(|| invalid_backup_error("a sweep without a file"))?;
    Ok(SweepRow {
        number: SweepNumber::UNSTORED,
        id: sweep.id.into(),
        source: source
            .try_into()
            .map_err(|e: WireError| invalid_backup_error(&e.to_string()))?,
        data: DataPin {
            hash: hash.map_err(|_| invalid_backup_error("a dataset without a hash"))?,
            train: sweep.data_train,
            provenance: sweep.data_words,
        },
        state,
        share: Share {
            priority: sweep.priority,
            weight: sweep.weight,
        },
        launched_at: sweep.launched_at,
        launched_by: sweep.launched_by,
        tallies: SweepTallies {
            lost_leases: sweep.releases,
            duplicates: sweep.duplicates,
            mismatches: sweep.mismatches,
            fenced: sweep.fenced,
        },
    })
}

fn state_from_wire(state: v1::SweepState) -> Result<SweepState, UserError> {
    match state {
        v1::SweepState::Running => Ok(SweepState::Running),
        v1::SweepState::Completed => Ok(SweepState::Completed),
        v1::SweepState::Cancelled => Ok(SweepState::Cancelled),
        v1::SweepState::Paused => Ok(SweepState::Paused),
        v1::SweepState::Unspecified => Err(invalid_backup_error("a sweep without a known state")),
    }
}

fn invalid_backup_error(what: &str) -> UserError {
    UserError::new(
        ErrorCode::BadInput,
        format!("the backup cannot be restored: {what}"),
    )
}
