//! `Rows`: the rows that an exported dataset does not have yet, and the cursor after them.

use ergodic_common::BUILD;
use ergodic_common::ids::{DatasetHash, SweepNumber};
use ergodic_common::spec::SpecSource;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use prost::Message as _;
use tonic::Status;

use crate::server::limits::{PageSender, ResponseStream};
use crate::server::services::access::{SweepApi, check_grammar_support};
use crate::server::services::trials::read_probe_set;
use crate::server::status::sweep_status;
use crate::server::store_error;
use crate::store::{RowCursor, StoreReader, StoredTrial};

/// Maximum bytes of a page; a single row may exceed it.
const PAGE_BYTES: usize = 1 << 20;
/// Maximum number of rows of a page.
const PAGE_ROWS: usize = 512;

/// The images of a probe set, with their labels.
type ProbeImages = (Vec<u32>, Vec<u8>);

/// The sweep whose rows are sent, and the cursor to start after.
struct RowsQuery {
    number: SweepNumber,
    status: v1::SweepStatus,
    source: SpecSource,
    data_hash: Option<DatasetHash>,
    /// The cursor to start after, if the store knows it.
    after: v1::Cursor,
}

/// The range of rows to send from the present store.
struct RowSpan {
    /// Whether the cursor is unknown, so that all rows are sent.
    is_all: bool,
    from: RowCursor,
    end: RowCursor,
}

impl SweepApi {
    /// The body of `Rows`.
    pub(crate) async fn stream_new_rows(
        &self,
        request: v1::RowsRequest,
    ) -> Result<ResponseStream<v1::RowsResponse>, Status> {
        let v1::RowsRequest {
            sweep,
            after,
            grammar,
        } = request;
        let snapshot = self.find_snapshot(&sweep).await?;

        // Read after the sweep was found and before its rows, so that the status never counts more
        // rows than follow.
        let (source, status) = self
            .with_sweep(&snapshot.id, |core, sweep| {
                (sweep.record.source.clone(), sweep_status(core, sweep))
            })
            .await?;
        check_grammar_support(grammar, &source, "ergodic")?;

        let query = RowsQuery {
            number: snapshot.number,
            status,
            source,
            data_hash: snapshot.data_hash,
            after: after.unwrap_or_default(),
        };
        self.stream_pages(move |context, pages| {
            let reader = context.store.open_reader().map_err(store_error)?;
            send_rows_after(reader.as_ref(), query, pages, || {
                match &snapshot.spec.measure.probe {
                    Some(probe) => read_probe_set(context, &snapshot, probe),
                    None => Ok(Default::default()),
                }
            })
        })
    }
}

/// Sends the rows after a cursor, or all rows if the store does not know it, in which case the
/// dataset has other rows.
fn send_rows_after(
    reader: &dyn StoreReader,
    query: RowsQuery,
    pages: &PageSender<v1::RowsResponse>,
    read_probe_set: impl FnOnce() -> Result<ProbeImages, UserError>,
) -> Result<(), UserError> {
    let number = query.number;
    let span = find_row_span(reader, &query)?;
    let is_empty = span.end.row_count == span.from.row_count;
    let probe_set = if is_empty {
        Default::default()
    } else {
        read_probe_set()?
    };

    let mut page = v1::RowsResponse {
        head: Some(build_head(query, &span, probe_set)),
        rows: Vec::new(),
    };
    if !is_empty {
        send_full_pages(reader, number, &span, &mut page, pages)?;
    }

    let _ = pages.send_page_blocking(Ok(page));
    Ok(())
}

fn find_row_span(reader: &dyn StoreReader, query: &RowsQuery) -> Result<RowSpan, UserError> {
    let after = &query.after;
    let [here, end] = reader
        .read_row_cursors(query.number, after.row)
        .map_err(store_error)?;
    let is_all =
        after.row == 0 || (here.last_row, here.fingerprint) != (after.row, after.fingerprint);
    let from = if is_all { RowCursor::default() } else { here };

    Ok(RowSpan { is_all, from, end })
}

fn build_head(query: RowsQuery, span: &RowSpan, (images, labels): ProbeImages) -> v1::RowsHead {
    v1::RowsHead {
        status: Some(query.status),
        source: Some((&query.source).into()),
        data_hash: query.data_hash.map(|hash| hash.to_vec()),
        rows: span.end.row_count - span.from.row_count,
        all_rows: span.end.row_count,
        all: span.is_all,
        cursor: Some(v1::Cursor {
            row: span.end.last_row,
            fingerprint: span.end.fingerprint,
        }),
        images,
        labels,
        build: BUILD.to_owned(),
    }
}

/// Sends `page` and further ones whenever they are full. The caller sends the rest.
fn send_full_pages(
    reader: &dyn StoreReader,
    number: SweepNumber,
    span: &RowSpan,
    page: &mut v1::RowsResponse,
    pages: &PageSender<v1::RowsResponse>,
) -> Result<(), UserError> {
    let mut bytes = 0;
    reader
        .read_trials_after(number, span.from.last_row, &mut |row: StoredTrial| {
            let row = v1::TrialRow {
                result: Some(row.result.into()),
                values: Vec::new(),
                worker: row.worker,
            };
            bytes += row.encoded_len();

            page.rows.push(row);
            if bytes < PAGE_BYTES && page.rows.len() < PAGE_ROWS {
                return true;
            }

            bytes = 0;
            pages.send_page_blocking(Ok(std::mem::take(page)))
        })
        .map_err(store_error)
}
