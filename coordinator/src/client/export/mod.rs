//! `ergodic export`: a sweep as a Parquet dataset, in a directory or an object store, which grows with the sweep.
//!
//! Rows are pulled from where the last pull ended, written as new parts beside those that are there, and belong to the dataset when
//! the manifest names them, which is replaced in one piece. `DATASET.md` describes the result.

pub(super) mod columns;
pub(super) mod encode;
pub(super) mod manifest;
mod place;
#[cfg(feature = "sql")]
pub(super) mod read;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ergodic_common::figures::format_significant;
use ergodic_common::grammar::GRAMMAR;
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec, TrialResult};
use ergodic_proto::convert::WireError;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::{Client, commands};
use crate::failpoint;
use columns::{Columns, ProbeSet, Row};
use manifest::{Cursor, Manifest, TABLES};
use place::{Found, Named, Place};
use write::{Tools, Writing};

/// What to export, and where to.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// A directory, or a URL such as `s3://bucket/prefix`.
    pub output: String,
    /// Go on until the sweep has ended.
    pub follow: bool,
    /// With it, time between two commits.
    pub every: Duration,
    /// Write all rows again.
    pub anew: bool,
}

/// How long a coordinator that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Exports a sweep; what to say about it.
///
/// # Errors
/// There is no such sweep, the place cannot be written, or nobody answers.
pub async fn export(client: &mut Client, sweep: &str, options: &ExportOptions) -> Result<String, UserError> {
    let named = Named::of("-o", &options.output)?;
    let id = commands::status(client, sweep).await?.id;
    let mut export = Export::open(named.sweep(&id)?, id, options.anew).await?;
    let mut away_since: Option<Instant> = None;
    loop {
        match export.pull(client).await {
            Ok(ended) if ended || !options.follow => return Ok(export.summary()),
            Ok(_) => {
                away_since = None;
                wait(client, &export.id, options.every).await;
            }
            Err(error) if error.code != ErrorCode::Unreachable || !options.follow => return Err(error),
            Err(error) => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                if let Ok(again) = client.again().await {
                    *client = again;
                }
            }
        }
    }
}

/// Waits for some time, or until the sweep has ended. Where the coordinator cannot say, the next pull does.
async fn wait(client: &mut Client, sweep: &str, time: Duration) {
    let ended = async {
        let request = v1::WatchRequest { sweep: sweep.to_owned() };
        let Ok(stream) = client.sweeps.watch(request).await else { return std::future::pending().await };
        let mut stream = stream.into_inner();
        while let Ok(Some(message)) = stream.message().await {
            if message.status.is_some_and(|status| has_ended(&status)) {
                return;
            }
        }
        std::future::pending().await
    };
    let _ = tokio::time::timeout(time, ended).await;
}

fn has_ended(status: &v1::SweepStatus) -> bool {
    !matches!(status.state(), v1::SweepState::Running | v1::SweepState::Paused)
}

/// The dataset of a sweep, as it is.
struct Export {
    id: String,
    place: Arc<Place>,
    found: Found,
    manifest: Option<Manifest>,
    anew: bool,
    /// Rows that were added.
    added: u64,
}

impl Export {
    async fn open(place: Place, id: String, anew: bool) -> Result<Self, UserError> {
        place.check(&nonce()).await?;
        let found = place.manifest().await?;
        let read = |text: &Vec<u8>| {
            Manifest::read(text).map_err(|why| {
                let message = format!("{}: {why}: name another place with -o", place.name());
                UserError::new(ErrorCode::BadInput, message)
            })
        };
        let manifest = found.text.as_ref().map(read).transpose()?;
        if let Some(other) = manifest.as_ref().map(|manifest| &manifest.sweep.id).filter(|other| **other != id) {
            let message =
                format!("{}: this is the dataset of the sweep {other}: name another place with -o", place.name());
            return Err(UserError::new(ErrorCode::BadInput, message));
        }
        Ok(Self { id, place: Arc::new(place), found, manifest, anew, added: 0 })
    }

    /// Adds the rows that were stored since; whether the sweep had ended before.
    async fn pull(&mut self, client: &mut Client) -> Result<bool, UserError> {
        // Of an export that was broken off. In an object store another one may be at work on them; it cannot commit them any more
        // once this one has.
        let files = self.place.files().await?;
        if !self.anew {
            self.check_parts(&files)?;
        }
        let mut strays = self.strays(files);
        if self.place.is_locked() {
            self.place.remove(&std::mem::take(&mut strays)).await?;
        }
        let known = self.manifest.as_ref().filter(|_| !self.anew);
        let after = known.and_then(|manifest| manifest.cursor.to_wire());
        let request = v1::RowsRequest { sweep: self.id.clone(), after, grammar: GRAMMAR };
        let mut pages = client.sweeps.rows(request).await.map_err(|e| client.error(&e))?.into_inner();
        let first = pages.message().await.map_err(|e| client.error(&e))?.unwrap_or_default();
        let pull = Pull::begin(first.head)?;
        if pull.head.rows > 0 || pull.head.all {
            let mut writing = Writing::new(self.tools(&pull));
            if pull.head.all {
                writing.cells(pull.data_hash()?).await?;
            }
            let mut rows = first.rows;
            loop {
                for row in rows {
                    writing.take(read_row(row)?).await?;
                }
                let Some(page) = pages.message().await.map_err(|e| client.error(&e))? else { break };
                rows = page.rows;
            }
            let parts = writing.finish(pull.head.all).await?;
            if parts.received != pull.head.rows {
                let message = format!("{} of {} rows came: export again", parts.received, pull.head.rows);
                return Err(UserError::new(ErrorCode::Internal, message));
            }
            let mut next = pull.manifest(known)?;
            parts.enter(&mut next);
            self.commit(next, strays).await?;
            self.added += pull.head.rows;
        }
        self.anew = false;
        Ok(has_ended(&pull.status))
    }

    /// What the manifest names must be there: more would be added to less.
    fn check_parts(&self, files: &BTreeMap<String, u64>) -> Result<(), UserError> {
        for part in self.manifest.iter().flat_map(Manifest::parts) {
            let what = match files.get(&part.path) {
                Some(bytes) if *bytes == part.bytes => continue,
                Some(bytes) => format!("has {bytes} bytes, and {} by the manifest", part.bytes),
                None => "is not there, and the manifest names it".to_owned(),
            };
            let message = format!("{}/{} {what}: write all rows anew with --anew", self.place.name(), part.path);
            return Err(UserError::new(ErrorCode::Refused, message));
        }
        Ok(())
    }

    /// Parts that the manifest does not name. Files of other people's are none of ours.
    fn strays(&self, files: BTreeMap<String, u64>) -> Vec<String> {
        let named = |file: &String| self.manifest.iter().flat_map(Manifest::paths).any(|path| path == file);
        files.into_keys().filter(|file| is_part(file) && !named(file)).collect()
    }

    fn tools(&self, pull: &Pull) -> Tools {
        let serial = self.manifest.as_ref().map_or(0, |manifest| manifest.serial) + 1;
        Tools {
            place: self.place.clone(),
            spec: pull.spec.clone(),
            columns: Arc::new(Columns::of(&pull.spec)),
            probe: Arc::new(ProbeSet { images: pull.head.images.clone(), labels: pull.head.labels.clone() }),
            prefix: format!("{serial:06}-{}", nonce()),
        }
    }

    /// Makes parts that were written the dataset's, and removes what is not any more.
    async fn commit(&mut self, next: Manifest, mut strays: Vec<String>) -> Result<(), UserError> {
        let before: Vec<String> = self.manifest.iter().flat_map(Manifest::paths).map(str::to_owned).collect();
        let serial = self.manifest.as_ref().map_or(0, |manifest| manifest.serial) + 1;
        let next = Manifest { serial, ..next };
        failpoint::reach(failpoint::BEFORE_MANIFEST);
        self.found = self.place.commit(&self.found, next.text()).await?;
        strays.extend(before.into_iter().filter(|path| next.paths().all(|kept| kept != path)));
        self.manifest = Some(next);
        self.place.remove(&strays).await
    }

    fn summary(&self) -> String {
        let Some(manifest) = &self.manifest else { return String::new() };
        let parts = || manifest.tables.values().flat_map(|table| &table.parts);
        let bytes: u64 = parts().map(|part| part.bytes).sum();
        let so_far = if manifest.complete { "" } else { " so far" };
        let rows = |table: &&str| Some(format!("{table} {}", manifest.tables.get(*table)?.rows));
        format!(
            "{}: {} trials added, {} of {} in all{so_far}; rows: {}; {} files of {} MB\n",
            self.place.name(),
            self.added,
            manifest.cursor.rows,
            manifest.sweep.trials,
            TABLES.iter().filter_map(rows).collect::<Vec<_>>().join(", "),
            parts().count(),
            format_significant(bytes as f64 / 1e6, 3)
        )
    }
}

/// Eight digits that no other export has: two of them to one object store may write at a time, though only one can commit.
fn nonce() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    blake3::hash(format!("{} {}", std::process::id(), now.as_nanos()).as_bytes()).to_hex()[..8].to_owned()
}

/// Whether a path is one that parts are written under: `trials/000001-1f6c3a90-00016.parquet`.
fn is_part(path: &str) -> bool {
    let all = |text: &str, kind: fn(&char) -> bool| text.chars().all(|c| kind(&c));
    let Some((table, name)) = path.split_once('/') else { return false };
    let fields: Vec<&str> = name.strip_suffix(".parquet").unwrap_or_default().split('-').collect();
    let [serial, nonce, number] = fields[..] else { return false };
    TABLES.contains(&table)
        && (serial.len() >= 6 && all(serial, char::is_ascii_digit))
        && (nonce.len() == 8 && all(nonce, char::is_ascii_hexdigit))
        && (number.len() >= 5 && all(number, char::is_ascii_digit))
}

/// What is pulled, apart from the rows.
struct Pull {
    head: v1::RowsHead,
    status: v1::SweepStatus,
    cursor: v1::Cursor,
    source: SpecSource,
    spec: Arc<Spec>,
}

impl Pull {
    fn begin(head: Option<v1::RowsHead>) -> Result<Self, UserError> {
        let mut head = head.ok_or_else(|| incomplete("head"))?;
        let source = head.source.take().ok_or_else(|| incomplete("source"))?;
        let source = SpecSource::try_from(source).map_err(|e| bad(&e))?;
        let spec = Spec::read_stored(&source).map_err(|e| {
            let message = format!("the sweep cannot be read by this version: {e}");
            UserError::new(ErrorCode::Version, message)
        })?;
        if !spec.is_as_stored(&source) {
            let message = "by this program the cells of the sweep would be others than those whose results are stored: use the \
                           version that launched it";
            return Err(UserError::new(ErrorCode::Version, message));
        }
        let status = head.status.clone().ok_or_else(|| incomplete("status"))?;
        let cursor = head.cursor.ok_or_else(|| incomplete("cursor"))?;
        Ok(Self { head, status, cursor, source, spec: Arc::new(spec) })
    }

    /// Zeros without a dataset, as in the identity of cells.
    fn data_hash(&self) -> Result<[u8; 32], UserError> {
        let Some(hash) = &self.head.data_hash else { return Ok([0; 32]) };
        hash.as_slice().try_into().map_err(|_| incomplete("data_hash"))
    }

    /// The next manifest without the new parts.
    fn manifest(&self, known: Option<&Manifest>) -> Result<Manifest, UserError> {
        let new = Manifest::new(&self.head, &self.status, &self.source, &self.spec);
        let old = known.filter(|_| !self.head.all);
        Ok(Manifest {
            hosts: old.map_or_else(Default::default, |old| old.hosts.clone()),
            tables: old.map_or_else(Default::default, |old| old.tables.clone()),
            complete: self.head.all_rows == self.status.trials,
            cursor: Cursor::of(self.cursor, self.head.all_rows),
            ..new
        })
    }
}

fn read_row(row: v1::TrialRow) -> Result<Row, UserError> {
    let result = TrialResult::try_from(row.result.ok_or_else(|| incomplete("result"))?).map_err(|e| bad(&e))?;
    Ok(Row { result, worker: row.worker })
}

fn incomplete(field: &str) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("the coordinator's answer is incomplete: the field {field} of RowsResponse is missing"),
    )
}

fn bad(error: &WireError) -> UserError {
    UserError::new(ErrorCode::Internal, format!("the coordinator's answer cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_files_are_no_parts() {
        for part in ["trials/000001-1f6c3a90-00016.parquet", "cells/1234567-00000000-123456.parquet"] {
            assert!(is_part(part), "{part}");
        }
        for other in [
            "trials/summary.parquet",
            "analysis/000001-1f6c3a90-00016.parquet",
            "trials/mine/000001-1f6c3a90-00016.parquet",
            "000001-1f6c3a90-00016.parquet",
            "trials/000001-1f6c3a90-00016.parquet.bak",
            "trials/00001-1f6c3a90-00016.parquet",
            "trials/000001-1f6c3a9g-00016.parquet",
            "manifest.json",
        ] {
            assert!(!is_part(other), "{other}");
        }
    }
}
