//! The store as a stream of records: sweeps with their rows, as of one moment, then the files that these name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

use ergodic_common::trial::to_hex;
use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::archive::RecordDigest;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::CHUNK_BYTES;
use ergodic_proto::v1;
use ergodic_proto::v1::backup_record::Kind;
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Status;

use super::files::Shelf;
use super::status::state;
use super::{Shared, store_error};
use crate::core::SweepRow;
use crate::core::audits::Finding;
use crate::store::{Audit, StoreError, StoreReader, StoredTrial};

/// Newest version of the records.
pub(crate) const VERSION: u32 = 2;
/// Bytes and rows per page.
const PAGE: (usize, usize) = (1 << 20, 512);

/// Sweeps that are told of a file that is lost, at most.
const SWEEPS_NAMED: usize = 16;

type Records = mpsc::Sender<Result<v1::BackupRecord, Status>>;

/// Sends a backup to whoever asked for it, or what hinders it.
pub(super) fn send(shared: &Shared, records: Records) {
    let mut backup = Backup { records, tally: RecordDigest::default(), files: BTreeMap::new(), wanted: true };
    let sent = shared.store.open_reader().map_err(store_error).and_then(|reader| {
        backup.store(reader.as_ref())?;
        backup.files(&shared.catalog.shelf)
    });
    let last = sent.map(|()| backup.tally.end_record()).map_err(Status::from);
    let _ = backup.records.blocking_send(last);
}

struct Backup {
    records: Records,
    tally: RecordDigest,
    /// Files that are named, with ids of the sweeps that name them.
    files: BTreeMap<[u8; 32], BTreeSet<String>>,
    /// Whether anybody listens still.
    wanted: bool,
}

impl Backup {
    fn send(&mut self, kind: Kind) {
        let record = v1::BackupRecord { kind: Some(kind) };
        self.tally.add_record(&record);
        self.wanted = self.wanted && self.records.blocking_send(Ok(record)).is_ok();
    }

    fn store(&mut self, reader: &dyn StoreReader) -> Result<(), UserError> {
        let (_, next_lease) = reader.read_leases().map_err(store_error)?;
        self.send(Kind::Head(v1::BackupHead { version: VERSION, build: BUILD.to_owned(), next_lease }));
        for row in reader.read_sweeps().map_err(store_error)? {
            row.named_files().for_each(|hash| self.name(hash, &row.id));
            self.send(Kind::Sweep(to_wire(&row)));
            self.rows(reader, &row).map_err(store_error)?;
        }
        Ok(())
    }

    fn rows(&mut self, reader: &dyn StoreReader, sweep: &SweepRow) -> Result<(), StoreError> {
        let (mut page, mut bytes) = (v1::BackupTrials::default(), 0);
        let damages = reader.read_intact_trials(sweep.number, &mut |StoredTrial { result, worker }| {
            result.weights_hash.iter().for_each(|hash| self.name(*hash, &sweep.id));
            let row = v1::TrialRow { result: Some(result.into()), values: Vec::new(), worker };
            bytes += row.encoded_len();
            page.rows.push(row);
            if bytes >= PAGE.0 || page.rows.len() >= PAGE.1 {
                bytes = 0;
                self.send(Kind::Trials(std::mem::take(&mut page)));
            }
        })?;
        if let Some(mut damage) = damages.into_iter().next() {
            damage.sweep.clone_from(&sweep.id);
            return Err(StoreError::Damaged(Box::new(damage)));
        }
        self.send(Kind::Trials(page));
        reader.read_all_attempts(sweep.number, &mut |key, attempt| {
            let crate::store::Attempt { cause, worker, seconds } = attempt;
            self.send(Kind::Attempt(v1::BackupAttempt { key: Some(key.into()), cause, worker, seconds }));
        })?;
        for audits in reader.read_audits(sweep.number)?.chunks(PAGE.1) {
            let audits = audits.iter().cloned().map(audit).collect();
            self.send(Kind::Audits(v1::BackupAudits { audits }));
        }
        Ok(())
    }

    fn name(&mut self, hash: [u8; 32], sweep: &str) {
        let sweeps = self.files.entry(hash).or_default();
        if sweeps.len() < SWEEPS_NAMED {
            sweeps.insert(sweep.to_owned());
        }
    }

    /// What is lost is told, and takes nothing else with it.
    fn files(&mut self, shelf: &Shelf) -> Result<(), UserError> {
        for (hash, sweeps) in std::mem::take(&mut self.files) {
            // Looked at before anything of it is sent.
            if let Err(flaw) = shelf.check(&hash) {
                let why = flaw.to_string();
                let (hash, sweeps) = (hash.to_vec(), sweeps.into_iter().collect());
                self.send(Kind::Missing(v1::BackupMissing { hash, why, sweeps }));
                continue;
            }
            self.file(shelf, &hash).map_err(|e| {
                let message = format!("the file {} that the store names cannot be backed up: {e}", to_hex(&hash));
                UserError::new(ErrorCode::Internal, message)
            })?;
        }
        Ok(())
    }

    fn file(&mut self, shelf: &Shelf, hash: &[u8; 32]) -> std::io::Result<()> {
        let mut file = File::open(shelf.place(hash))?;
        let mut hasher = blake3::Hasher::new();
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
            hasher.update(&chunk);
            let last = chunk.len() < CHUNK_BYTES;
            self.send(Kind::File(v1::BackupFile { hash: hash.to_vec(), chunk }));
            if last || !self.wanted {
                break;
            }
        }
        let whole = !self.wanted || hasher.finalize().as_bytes() == hash;
        if whole { Ok(()) } else { Err(std::io::Error::other("it was damaged while it was sent")) }
    }
}

fn audit(audit: Audit) -> v1::BackupAudit {
    let finding = match audit.finding {
        None => v1::Finding::Unspecified,
        Some(Finding::Same) => v1::Finding::Same,
        Some(Finding::Different) => v1::Finding::Different,
        Some(Finding::Failed) => v1::Finding::Failed,
    };
    v1::BackupAudit {
        key: Some(audit.key.into()),
        process: audit.process,
        finding: finding.into(),
        auditor: audit.auditor,
        auditor_process: audit.auditor_process,
        why: audit.why,
    }
}

fn to_wire(row: &SweepRow) -> v1::BackupSweep {
    v1::BackupSweep {
        id: row.id.clone(),
        source: Some((&row.source).into()),
        data_hash: row.data.hash.map(|hash| hash.to_vec()),
        data_train: row.data.train,
        data_words: row.data.words.clone(),
        state: state(row.state).into(),
        launched_at: row.launched_at,
        launched_by: row.launched_by.clone(),
        releases: row.tallies.releases,
        duplicates: row.tallies.duplicates,
        mismatches: row.tallies.mismatches,
        fenced: row.tallies.fenced,
        priority: row.share.priority,
        weight: row.share.weight,
    }
}
