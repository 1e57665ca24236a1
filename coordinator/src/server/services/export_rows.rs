//! `Rows`: what a dataset outside of the store does not have yet, and the position up to which it then has it.

use ergodic_common::BUILD;
use ergodic_common::spec::SpecSource;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use prost::Message as _;

use crate::server::limits::PageSender;
use crate::server::store_error;
use crate::store::{RowCursor, StoreReader};

/// Bytes and rows per page.
const PAGE_LIMITS: (usize, usize) = (1 << 20, 512);

/// Of which sweep rows are sent.
pub(crate) struct RowsQuery {
    pub(crate) number: i64,
    pub(crate) status: Option<v1::SweepStatus>,
    pub(crate) source: SpecSource,
    pub(crate) data_hash: Option<[u8; 32]>,
    /// Rows after this position, if it is one.
    pub(crate) after: Option<v1::Cursor>,
}

/// Sends the rows after a position. Where that is none any more, all rows: whoever asked has others.
pub(crate) fn send_rows_after(
    reader: &dyn StoreReader,
    asked: RowsQuery,
    probe: impl FnOnce() -> Result<(Vec<u32>, Vec<u8>), UserError>,
    pages: &PageSender<v1::RowsResponse>,
) -> Result<(), UserError> {
    let after = asked.after.unwrap_or_default();
    let [here, end] = reader
        .read_row_cursors(asked.number, after.row)
        .map_err(store_error)?;
    let all = after.row == 0 || (here.last_row, here.fingerprint) != (after.row, after.fingerprint);
    let from = if all { RowCursor::default() } else { here };
    let rows = end.row_count - from.row_count;
    let (images, labels) = if rows > 0 {
        probe()?
    } else {
        Default::default()
    };
    let head = v1::RowsHead {
        status: asked.status,
        source: Some((&asked.source).into()),
        data_hash: asked.data_hash.map(|hash| hash.to_vec()),
        rows,
        all_rows: end.row_count,
        all,
        cursor: Some(v1::Cursor {
            row: end.last_row,
            fingerprint: end.fingerprint,
        }),
        images,
        labels,
        build: BUILD.to_owned(),
    };
    let mut page = v1::RowsResponse {
        head: Some(head),
        rows: Vec::new(),
    };

    let mut bytes = 0;
    let mut send = |row: crate::store::StoredTrial| {
        let row = v1::TrialRow {
            result: Some(row.result.into()),
            values: Vec::new(),
            worker: row.worker,
        };
        bytes += row.encoded_len();

        page.rows.push(row);
        if bytes < PAGE_LIMITS.0 && page.rows.len() < PAGE_LIMITS.1 {
            return true;
        }

        bytes = 0;
        pages.send_page_blocking(Ok(std::mem::take(&mut page)))
    };

    if rows > 0 {
        reader
            .read_trials_after(asked.number, from.last_row, &mut send)
            .map_err(store_error)?;
    }

    let _ = pages.send_page_blocking(Ok(page));
    Ok(())
}
