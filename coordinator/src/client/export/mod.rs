//! `ergodic export`: writes a sweep as a Parquet dataset in a directory or an object store, and adds to it as the
//! sweep grows.
//!
//! An export pulls the rows after the last pull and writes them as new parts next to the existing ones. They belong
//! to the dataset once the manifest, which is replaced atomically, names them. `DATASET.md` describes the format.

mod axis_values;
pub(super) mod columns;
pub mod command;
mod dataset_writer;
pub(super) mod encode;
#[cfg(feature = "sql")]
pub(super) mod library;
mod location;
pub(super) mod manifest;
mod pull_head;
mod quantity_columns;
mod reported_predictions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use columns::ProbeSet;
use command::DatasetArgs;
use dataset_writer::{DatasetWriter, WriteContext};
use ergodic_common::ErrorCode;
use ergodic_common::number_format::format_significant;
use ergodic_common::spec_file::grammar::GRAMMAR;
use ergodic_proto::identity::random_hex;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use location::{DatasetLocation, DatasetRoot, StoredManifest};
use manifest::{Manifest, TABLES};
use pull_head::{PullHead, read_row};
use tonic::Streaming;

use super::Client;
use super::query::query_status;
use super::render::print_stderr_line;
use crate::failpoint;

/// Time limit for reconnecting to the coordinator.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Exports a sweep; returns a line about what was written.
///
/// # Errors
/// There is no such sweep, the dataset cannot be written, or the coordinator does not respond.
pub async fn export_sweep(
    client: &mut Client,
    sweep: &str,
    dataset: &DatasetArgs,
) -> Result<String, UserError> {
    let root = DatasetRoot::parse("-o", &dataset.output)?;
    let id = query_status(client, sweep).await?.id;
    let mut export = DatasetExport::open(root.open_sweep(&id)?, id, dataset.rewrite).await?;
    let mut away_since: Option<Instant> = None;

    loop {
        match export.pull_rows(client).await {
            Ok(ended) if ended || !dataset.follow => return Ok(export.format_summary()),
            Ok(_) => {
                away_since = None;
                wait_until_ended(client, &export.id, dataset.every).await;
            }
            Err(error) if error.code != ErrorCode::Unreachable || !dataset.follow => {
                return Err(error);
            }
            Err(error) => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > RECONNECT_TIMEOUT {
                    return Err(error);
                }

                tokio::time::sleep(Duration::from_secs(1)).await;
                if let Ok(again) = client.reconnect().await {
                    *client = again;
                }
            }
        }
    }
}

/// Waits for some time, or until the sweep has ended. If the coordinator cannot tell, the next pull does.
async fn wait_until_ended(client: &mut Client, sweep: &str, time: Duration) {
    let _ = tokio::time::timeout(time, watch_until_ended(client, sweep)).await;
}

/// Waits until the coordinator reports that the sweep has ended; forever, if it cannot.
async fn watch_until_ended(client: &mut Client, sweep: &str) {
    let request = v1::WatchRequest {
        sweep: sweep.to_owned(),
    };
    if let Ok(stream) = client.sweeps.watch(request).await {
        let mut stream = stream.into_inner();
        while let Ok(Some(message)) = stream.message().await {
            if message.status.is_some_and(|status| has_ended(&status)) {
                return;
            }
        }
    }

    std::future::pending().await
}

fn has_ended(status: &v1::SweepStatus) -> bool {
    !matches!(
        status.state(),
        v1::SweepState::Running | v1::SweepState::Paused
    )
}

/// The dataset of a sweep, with the last committed manifest.
struct DatasetExport {
    id: String,
    location: Arc<DatasetLocation>,
    stored_manifest: StoredManifest,
    manifest: Option<Manifest>,
    rewrite: bool,
    /// Number of rows that this export added.
    added: u64,
    /// Why quantities have no column, each once.
    notes: Vec<String>,
}

impl DatasetExport {
    async fn open(location: DatasetLocation, id: String, rewrite: bool) -> Result<Self, UserError> {
        location.check_object_store(&random_hex::<4>()).await?;
        let stored_manifest = location.read_manifest().await?;
        let manifest = match &stored_manifest.text {
            Some(text) => Some(parse_own_manifest(text, &location, &id)?),
            None => None,
        };

        Ok(Self {
            id,
            location: Arc::new(location),
            stored_manifest,
            manifest,
            rewrite,
            added: 0,
            notes: Vec::new(),
        })
    }

    /// Adds the rows that were stored since the last pull. Returns whether the sweep had ended before.
    async fn pull_rows(&mut self, client: &mut Client) -> Result<bool, UserError> {
        let strays = self.clean_up().await?;
        let (mut first, mut pages) = self.request_rows(client).await?;
        let mut pull = PullHead::from_head(first.head.take())?;
        let known = self.continued_manifest();
        if known.is_some_and(|known| !pull.head.all && !pull.continues_columns(known)) {
            print_stderr_line(&format!(
                "{}: an earlier version wrote it with other columns: all rows are written again",
                self.location.name()
            ));
            self.rewrite = true;
            (first, pages) = self.request_rows(client).await?;
            pull = PullHead::from_head(first.head.take())?;
        }

        self.notes = pull.columns.quantities.describe_left_out();
        if pull.head.rows > 0 || pull.head.all {
            let mut writer = DatasetWriter::new(self.write_context(&pull));
            if pull.head.all {
                writer.write_cells(pull.data_hash()?).await?;
            }
            write_rows(client, &mut writer, first.rows, &mut pages).await?;

            let parts = writer.finish(pull.head.all).await?;
            check_row_count(parts.received, pull.head.rows)?;
            let mut next = pull.next_manifest(self.continued_manifest())?;
            parts.add_to_manifest(&mut next);
            self.commit_manifest(next, strays).await?;
            self.added += pull.head.rows;
        }

        self.rewrite = false;
        Ok(has_ended(&pull.status))
    }

    /// Requests the rows after those of the dataset; returns the first page and the stream of the others.
    async fn request_rows(
        &self,
        client: &mut Client,
    ) -> Result<(v1::RowsResponse, Streaming<v1::RowsResponse>), UserError> {
        let known = self.continued_manifest();
        let request = v1::RowsRequest {
            sweep: self.id.clone(),
            after: known.and_then(|manifest| manifest.cursor.to_wire()),
            grammar: GRAMMAR,
        };
        let mut pages = client
            .call(async |client| client.sweeps.rows(request).await)
            .await?;
        let first = client.next_message(&mut pages).await?.unwrap_or_default();
        Ok((first, pages))
    }

    /// The manifest that new rows are added to; `None` if all rows are written again.
    fn continued_manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref().filter(|_| !self.rewrite)
    }

    /// Checks the parts of the dataset, and removes what an interrupted export left. In an object store another
    /// export may be using these files, so they are returned, to be removed once this one has committed and the other
    /// one cannot any more.
    async fn clean_up(&self) -> Result<Vec<String>, UserError> {
        let files = self.location.list_files().await?;
        if !self.rewrite {
            self.check_parts(&files)?;
        }

        let mut strays = self.find_stray_files(files);
        if self.location.is_locked() {
            self.location
                .remove_files(&std::mem::take(&mut strays))
                .await?;
        }

        Ok(strays)
    }

    /// Refuses a dataset without parts that its manifest names, because it has fewer rows than it counts.
    fn check_parts(&self, files: &BTreeMap<String, u64>) -> Result<(), UserError> {
        for part in self.manifest.iter().flat_map(Manifest::parts) {
            let what = match files.get(&part.path) {
                Some(bytes) if *bytes == part.bytes => continue,
                Some(bytes) => format!(
                    "has {bytes} bytes, but {} according to the manifest",
                    part.bytes
                ),
                None => "is missing, although the manifest names it".to_owned(),
            };
            let message = format!(
                "{}/{} {what}: write all rows again with --rewrite",
                self.location.name(),
                part.path
            );

            return Err(UserError::new(ErrorCode::Refused, message));
        }

        Ok(())
    }

    /// Files with names of parts that the manifest does not name. The export must not remove other files.
    fn find_stray_files(&self, files: BTreeMap<String, u64>) -> Vec<String> {
        let named = |file: &String| {
            self.manifest
                .iter()
                .flat_map(Manifest::part_paths)
                .any(|path| path == file)
        };
        files
            .into_keys()
            .filter(|file| is_part_path(file) && !named(file))
            .collect()
    }

    fn write_context(&self, pull: &PullHead) -> WriteContext {
        let serial = self.manifest.as_ref().map_or(0, |manifest| manifest.serial) + 1;
        WriteContext {
            location: self.location.clone(),
            spec: pull.spec.clone(),
            columns: pull.columns.clone(),
            probe: Arc::new(ProbeSet {
                images: pull.head.images.clone(),
                labels: pull.head.labels.clone(),
            }),
            // Two exports to one object store may write at a time, though only one can commit.
            prefix: format!("{serial:06}-{}", random_hex::<4>()),
        }
    }

    /// Commits a manifest that names the new parts, then removes files that it does not name.
    async fn commit_manifest(
        &mut self,
        next: Manifest,
        mut strays: Vec<String>,
    ) -> Result<(), UserError> {
        let before: Vec<String> = self
            .manifest
            .iter()
            .flat_map(Manifest::part_paths)
            .map(str::to_owned)
            .collect();

        let serial = self.manifest.as_ref().map_or(0, |manifest| manifest.serial) + 1;
        let next = Manifest { serial, ..next };
        failpoint::reach(failpoint::BEFORE_MANIFEST);
        self.stored_manifest = self
            .location
            .replace_manifest(&self.stored_manifest, next.to_json_bytes())
            .await?;

        strays.extend(
            before
                .into_iter()
                .filter(|path| next.part_paths().all(|named| named != path)),
        );
        self.manifest = Some(next);

        self.location.remove_files(&strays).await
    }

    fn format_summary(&self) -> String {
        let Some(manifest) = &self.manifest else {
            return String::new();
        };
        let mut rows = Vec::new();
        for name in TABLES {
            if let Some(table) = manifest.tables.get(name) {
                rows.push(format!("{name} {}", table.rows));
            }
        }

        let bytes: u64 = manifest.parts().map(|part| part.bytes).sum();
        let so_far = if manifest.complete { "" } else { " so far" };
        let summary = format!(
            "{}: {} trials added, {} of {} in all{so_far}; rows: {}; {} files of {} MB\n",
            self.location.name(),
            self.added,
            manifest.cursor.rows,
            manifest.sweep.trials,
            rows.join(", "),
            manifest.parts().count(),
            format_significant(bytes as f64 / 1e6, 3)
        );
        let lines = self.notes.iter().map(|note| format!("  {note}\n"));
        lines.fold(summary, |text, line| text + &line)
    }
}

fn parse_own_manifest(
    text: &[u8],
    location: &DatasetLocation,
    id: &str,
) -> Result<Manifest, UserError> {
    let name = location.name();
    let manifest = Manifest::parse(text).map_err(|why| {
        let message = format!("{name}: {why}: name another location with -o");
        UserError::new(ErrorCode::BadInput, message)
    })?;

    if manifest.sweep.id != id {
        let other = &manifest.sweep.id;
        let message = format!(
            "{name}: this is the dataset of the sweep {other}: name another location with -o"
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    Ok(manifest)
}

/// Writes the rows of the first page, then those of the following pages.
async fn write_rows(
    client: &Client,
    writer: &mut DatasetWriter,
    first: Vec<v1::TrialRow>,
    pages: &mut Streaming<v1::RowsResponse>,
) -> Result<(), UserError> {
    let mut rows = first;
    loop {
        for row in rows {
            writer.add_row(read_row(row)?).await?;
        }

        match client.next_message(pages).await? {
            Some(page) => rows = page.rows,
            None => return Ok(()),
        }
    }
}

fn check_row_count(received: u64, promised: u64) -> Result<(), UserError> {
    if received == promised {
        return Ok(());
    }

    let message = format!("only {received} of {promised} rows arrived: export again");
    Err(UserError::new(ErrorCode::Internal, message))
}

/// Whether a path has the form of a part's: `trials/000001-1f6c3a90-00016.parquet`.
fn is_part_path(path: &str) -> bool {
    let all = |text: &str, kind: fn(&char) -> bool| text.chars().all(|c| kind(&c));
    let Some((table, name)) = path.split_once('/') else {
        return false;
    };
    let fields: Vec<&str> = name
        .strip_suffix(".parquet")
        .unwrap_or_default()
        .split('-')
        .collect();
    let [serial, nonce, number] = fields[..] else {
        return false;
    };

    TABLES.contains(&table)
        && (serial.len() >= 6 && all(serial, char::is_ascii_digit))
        && (nonce.len() == 8 && all(nonce, char::is_ascii_hexdigit))
        && (number.len() >= 5 && all(number, char::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use crate::client::export::*;

    #[test]
    fn other_peoples_files_are_no_parts() {
        for part in [
            "trials/000001-1f6c3a90-00016.parquet",
            "cells/1234567-00000000-123456.parquet",
        ] {
            assert!(is_part_path(part), "{part}");
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
            assert!(!is_part_path(other), "{other}");
        }
    }
}
