//! Answers about a sweep's rows: computed outside the runtime's threads, with permits for readers
//! and bytes.

use ergodic_common::ErrorCode;
use ergodic_common::ids::DatasetHash;
use ergodic_proto::status::UserError;
use tonic::Status;

use crate::analysis::{AnalysisError, RowSource};
use crate::server::limits::{PageSender, Permit, ResponseStream};
use crate::server::services::access::SweepApi;
use crate::server::services::snapshot::SweepSnapshot;
use crate::server::{ServerContext, store_error};

/// Number of rows for which another reader pays off.
const ROWS_PER_READER: u64 = 10_000;

pub(crate) fn table_error(error: AnalysisError) -> UserError {
    match error {
        AnalysisError::Unknown(message) => UserError::new(ErrorCode::NotFound, message),
        AnalysisError::Invalid(message) => UserError::new(ErrorCode::BadInput, message),
        AnalysisError::Store(error) => store_error(error),
    }
}

impl SweepSnapshot {
    /// Memory for a response about all cells, in bytes: 32 for each trial's value and 1 KiB for each cell.
    pub(crate) fn answer_bytes(&self) -> u64 {
        let cells = self.spec.grid.cell_count().min(self.done);
        let values = self.done.saturating_mul(32);
        values.saturating_add(cells.saturating_mul(1024))
    }
}

impl SweepApi {
    /// Reads the rows of a sweep, on several threads if there are many rows.
    pub(crate) async fn read_rows<T: Send + 'static>(
        &self,
        snapshot: &SweepSnapshot,
        work: impl FnOnce(RowSource<'_>) -> Result<T, AnalysisError> + Send + 'static,
    ) -> Result<T, Status> {
        let spec = snapshot.spec.clone();
        let sweep = snapshot.number;
        let dataset_hash = snapshot.data_hash.unwrap_or(DatasetHash::NONE);
        let context = self.0.clone();
        let permits = self.reader_permits(snapshot.done)?;

        let task = tokio::task::spawn_blocking(move || {
            let readers = context
                .store
                .open_readers(permits.len())
                .map_err(store_error)?;
            work(RowSource {
                spec: &spec,
                sweep,
                dataset_hash,
                readers: &readers,
            })
            .map_err(table_error)
        });
        let result: Result<T, UserError> =
            task.await.map_err(|e| Status::internal(e.to_string()))?;

        result.map_err(Into::into)
    }

    /// Reads the rows of a sweep as [`Self::read_rows`] does, for a response in pages.
    pub(crate) fn stream_rows<T: Send + 'static>(
        &self,
        snapshot: &SweepSnapshot,
        work: impl FnOnce(RowSource<'_>, &PageSender<T>) -> Result<(), AnalysisError> + Send + 'static,
    ) -> Result<ResponseStream<T>, Status> {
        let spec = snapshot.spec.clone();
        let sweep = snapshot.number;
        let dataset_hash = snapshot.data_hash.unwrap_or(DatasetHash::NONE);
        let mut permits = self.reader_permits(snapshot.done)?;
        let count = permits.len();
        let first_permit = permits.remove(0);

        let work = move |context: &ServerContext, pages: &PageSender<T>| {
            let _held = permits;
            let readers = context.store.open_readers(count).map_err(store_error)?;
            let rows = RowSource {
                spec: &spec,
                sweep,
                dataset_hash,
                readers: &readers,
            };
            work(rows, pages).map_err(table_error)
        };

        Ok(self.spawn_page_task(first_permit, work))
    }

    /// Sends pages from a thread that may read the store; an error is the last page.
    pub(crate) fn stream_pages<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ServerContext, &PageSender<T>) -> Result<(), UserError> + Send + 'static,
    ) -> Result<ResponseStream<T>, Status> {
        let permit = self.0.limits.readers.try_acquire()?;
        Ok(self.spawn_page_task(permit, work))
    }

    fn spawn_page_task<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl FnOnce(&ServerContext, &PageSender<T>) -> Result<(), UserError> + Send + 'static,
    ) -> ResponseStream<T> {
        let (pages, stream) = PageSender::new(permit);
        let context = self.0.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = work(&context, &pages) {
                let _ = pages.send_page_blocking(Err(error.into()));
            }
        });

        stream
    }

    /// Permits for the readers of `rows` rows: at least one, and as many more as help and are free.
    fn reader_permits(&self, rows: u64) -> Result<Vec<Permit>, Status> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = threads.min((rows / ROWS_PER_READER) as usize);
        let first = self.0.limits.readers.try_acquire()?;
        let others = (1..wanted).map_while(|_| self.0.limits.readers.try_acquire().ok());
        Ok(std::iter::once(first).chain(others).collect())
    }

    /// A permit for a response about all cells of a sweep that takes `more` further bytes.
    pub(crate) async fn acquire_for_cells(
        &self,
        snapshot: &SweepSnapshot,
        more: u64,
    ) -> Result<Permit, Status> {
        let bytes = snapshot.answer_bytes().saturating_add(more);
        self.acquire_for_answer(
            bytes,
            "ask about fewer cells or trials, or run `ergodic export` and query its files",
        )
        .await
    }

    /// A permit for a response of `bytes` bytes; `instead` says what to do if that is too much.
    pub(crate) async fn acquire_for_answer(
        &self,
        bytes: u64,
        instead: &str,
    ) -> Result<Permit, Status> {
        self.0
            .limits
            .answer_bytes
            .acquire_for_answer(bytes, instead)
            .await
    }
}
