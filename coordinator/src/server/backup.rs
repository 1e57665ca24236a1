//! A backup as a stream of records: all sweeps with their rows as of one moment, then the files
//! that they name.

use ergodic_common::ids::{FileHash, SweepId};
use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::archive::RecordDigest;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::CHUNK_BYTES;
use ergodic_proto::v1;
use ergodic_proto::v1::backup_record::Kind;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use tokio::sync::mpsc;
use tonic::Status;

use super::blobs::BlobStore;
use super::context::ServerContext;
use super::status::state_to_wire;
use super::store_error;
use crate::records::{Finding, SweepRow};
use crate::store::{Audit, StoreError, StoreReader, StoredTrial};

/// Version of the records.
pub(crate) const BACKUP_VERSION: u32 = 2;
/// Maximum bytes and rows of a page.
const PAGE_LIMITS: (usize, usize) = (1 << 20, 512);

/// Maximum number of sweeps that are named for a lost file.
const MAX_SWEEPS_NAMED: usize = 16;

type BackupSender = mpsc::Sender<Result<v1::BackupRecord, Status>>;

/// Sends a backup to its requester, or the error that prevents it.
pub(super) fn send_backup(context: &ServerContext, records: BackupSender) {
    let mut backup = BackupExport {
        records,
        tally: RecordDigest::default(),
        files: BTreeMap::new(),
        is_wanted: true,
    };
    let sent = context
        .store
        .open_reader()
        .map_err(store_error)
        .and_then(|reader| {
            backup.send_store(reader.as_ref())?;
            backup.send_files(&context.catalog.blobs)
        });
    let last = sent
        .map(|()| backup.tally.end_record())
        .map_err(Status::from);

    let _ = backup.records.blocking_send(last);
}

struct BackupExport {
    records: BackupSender,
    tally: RecordDigest,
    /// Files to send, with the ids of the sweeps that name them.
    files: BTreeMap<FileHash, BTreeSet<SweepId>>,
    /// Whether the requester still reads.
    is_wanted: bool,
}

impl BackupExport {
    fn send_record(&mut self, kind: Kind) {
        let record = v1::BackupRecord { kind: Some(kind) };
        self.tally.add_record(&record);
        self.is_wanted = self.is_wanted && self.records.blocking_send(Ok(record)).is_ok();
    }

    fn send_store(&mut self, reader: &dyn StoreReader) -> Result<(), UserError> {
        let (_, next_lease) = reader.read_leases().map_err(store_error)?;
        self.send_record(Kind::Head(v1::BackupHead {
            version: BACKUP_VERSION,
            build: BUILD.to_owned(),
            next_lease: next_lease.0,
        }));

        for row in reader.read_sweeps().map_err(store_error)? {
            row.named_files()
                .for_each(|hash| self.add_blob_reference(hash, &row.id));
            self.send_record(Kind::Sweep(sweep_to_wire(&row)));
            self.send_rows(reader, &row).map_err(store_error)?;
        }

        Ok(())
    }

    fn send_rows(&mut self, reader: &dyn StoreReader, sweep: &SweepRow) -> Result<(), StoreError> {
        self.send_trials(reader, sweep)?;
        reader.read_all_attempts(sweep.number, &mut |key, attempt| {
            self.send_record(Kind::Attempt(v1::BackupAttempt {
                key: Some(key.into()),
                cause: attempt.cause,
                worker: attempt.worker,
                seconds: attempt.seconds,
            }));
        })?;

        self.send_outputs(reader, sweep)?;

        for audits in reader.read_audits(sweep.number)?.chunks(PAGE_LIMITS.1) {
            let audits = audits.iter().cloned().map(audit_to_wire).collect();
            self.send_record(Kind::Audits(v1::BackupAudits { audits }));
        }

        Ok(())
    }

    /// # Errors
    /// The store cannot be read, or a row of the sweep is damaged.
    fn send_trials(
        &mut self,
        reader: &dyn StoreReader,
        sweep: &SweepRow,
    ) -> Result<(), StoreError> {
        let mut page = v1::BackupTrials::default();
        let mut bytes = 0;
        let damages =
            reader.read_intact_trials(sweep.number, &mut |StoredTrial { result, worker }| {
                result
                    .weights_hash
                    .iter()
                    .for_each(|hash| self.add_blob_reference(*hash, &sweep.id));
                let row = v1::TrialRow {
                    result: Some(result.into()),
                    values: Vec::new(),
                    worker,
                };
                bytes += row.encoded_len();

                page.rows.push(row);
                if bytes >= PAGE_LIMITS.0 || page.rows.len() >= PAGE_LIMITS.1 {
                    bytes = 0;
                    self.send_record(Kind::Trials(std::mem::take(&mut page)));
                }
            })?;
        if let Some(mut damage) = damages.into_iter().next() {
            damage.sweep = sweep.id.to_string();
            return Err(StoreError::Damaged(Box::new(damage)));
        }

        self.send_record(Kind::Trials(page));
        Ok(())
    }

    fn send_outputs(
        &mut self,
        reader: &dyn StoreReader,
        sweep: &SweepRow,
    ) -> Result<(), StoreError> {
        let mut page = v1::BackupOutputs::default();
        let mut bytes = 0;
        reader.read_outputs(sweep.number, &mut |stored| {
            bytes += stored.output.packed.len();
            page.outputs.push(v1::BackupOutput {
                key: Some(stored.key.into()),
                attempt: stored.attempt,
                output: Some(stored.output.into()),
            });
            if bytes >= PAGE_LIMITS.0 || page.outputs.len() >= PAGE_LIMITS.1 {
                bytes = 0;
                self.send_record(Kind::Outputs(std::mem::take(&mut page)));
            }
        })?;

        // Earlier versions know no such record, and restore backups without any.
        if !page.outputs.is_empty() {
            self.send_record(Kind::Outputs(page));
        }
        Ok(())
    }

    fn add_blob_reference(&mut self, hash: FileHash, sweep: &SweepId) {
        let sweeps = self.files.entry(hash).or_default();
        if sweeps.len() < MAX_SWEEPS_NAMED {
            sweeps.insert(sweep.clone());
        }
    }

    /// Sends all files; a lost one is reported instead.
    fn send_files(&mut self, blobs: &BlobStore) -> Result<(), UserError> {
        for (hash, sweeps) in std::mem::take(&mut self.files) {
            // Verified before any of it is sent, so that a damaged file does not end up half in a
            // backup.
            if let Err(flaw) = blobs.verify_blob(&hash) {
                let why = flaw.to_string();
                let hash = hash.to_vec();
                let sweeps = sweeps.into_iter().map(String::from).collect();
                self.send_record(Kind::Missing(v1::BackupMissing { hash, why, sweeps }));
                continue;
            }

            self.send_file(blobs, &hash).map_err(|e| {
                let message = format!(
                    "the file {} that the store names cannot be backed up: {e}",
                    hash
                );
                UserError::new(ErrorCode::Internal, message)
            })?;
        }

        Ok(())
    }

    fn send_file(&mut self, blobs: &BlobStore, hash: &FileHash) -> std::io::Result<()> {
        let mut file = File::open(blobs.blob_path(hash))?;
        let mut hasher = blake3::Hasher::new();

        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            (&mut file)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)?;
            hasher.update(&chunk);
            let last = chunk.len() < CHUNK_BYTES;

            self.send_record(Kind::File(v1::BackupFile {
                hash: hash.to_vec(),
                chunk,
            }));

            if last || !self.is_wanted {
                break;
            }
        }

        let whole = !self.is_wanted || FileHash::from(hasher.finalize()) == *hash;
        if whole {
            Ok(())
        } else {
            Err(std::io::Error::other("it was damaged in transit"))
        }
    }
}

fn audit_to_wire(audit: Audit) -> v1::BackupAudit {
    let finding = match audit.finding {
        None => v1::Finding::Unspecified,
        Some(Finding::Same) => v1::Finding::Same,
        Some(Finding::Different) => v1::Finding::Different,
        Some(Finding::Failed) => v1::Finding::Failed,
    };
    v1::BackupAudit {
        key: Some(audit.key.into()),
        process: audit.process.into(),
        finding: finding.into(),
        auditor: audit.auditor,
        auditor_process: audit.auditor_process.into(),
        why: audit.why,
    }
}

fn sweep_to_wire(row: &SweepRow) -> v1::BackupSweep {
    v1::BackupSweep {
        id: row.id.to_string(),
        source: Some((&row.source).into()),
        data_hash: row.data.hash.map(|hash| hash.to_vec()),
        data_train: row.data.train,
        data_words: row.data.provenance.clone(),
        state: state_to_wire(row.state).into(),
        launched_at: row.launched_at,
        launched_by: row.launched_by.clone(),
        releases: row.tallies.lost_leases,
        duplicates: row.tallies.duplicates,
        mismatches: row.tallies.mismatches,
        fenced: row.tallies.fenced,
        priority: row.share.priority,
        weight: row.share.weight,
    }
}
