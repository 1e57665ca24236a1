//! Responses in pages, sent from threads that wait for the reader for a limited time.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Permit;

/// Number of pages that are ready before they are read.
const PAGES_AHEAD: usize = 2;
/// Time limit for a reader to take the next page.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The stream of pages for a peer.
pub(crate) type ResponseStream<T> =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// Sends pages to a peer.
pub(crate) struct PageSender<T> {
    pages: mpsc::Sender<Result<T, Status>>,
    cutoff_status: Arc<OnceLock<Status>>,
    timeout: Duration,
    /// Held until the response ends.
    _permit: Permit,
}

impl<T: Send + 'static> PageSender<T> {
    /// Creates a sender of pages, and the stream that they become.
    pub(crate) fn new(permit: Permit) -> (Self, ResponseStream<T>) {
        Self::with_timeout(permit, READ_TIMEOUT)
    }

    fn with_timeout(permit: Permit, timeout: Duration) -> (Self, ResponseStream<T>) {
        let (pages, stream) = mpsc::channel(PAGES_AHEAD);
        let cut_off = Arc::new(OnceLock::new());
        // The error follows the last page that could be sent. Without it, the client would take the
        // response for complete.
        let why = cut_off.clone();
        let end = tokio_stream::once(()).filter_map(move |()| why.get().cloned().map(Err));
        (
            Self {
                pages,
                cutoff_status: cut_off,
                timeout,
                _permit: permit,
            },
            Box::pin(ReceiverStream::new(stream).chain(end)),
        )
    }

    /// Sends a page; returns whether more are wanted.
    pub(crate) async fn send_page(&self, page: Result<T, Status>) -> bool {
        match tokio::time::timeout(self.timeout, self.pages.send(page)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                let seconds = self.timeout.as_secs();
                let why = format!(
                    "the client read nothing of the answer for {seconds} s: ask again, and read the answer as it arrives"
                );
                let _ = self.cutoff_status.set(Status::aborted(why));

                false
            }
        }
    }

    /// Sends a page from a thread outside the runtime.
    pub(crate) fn send_page_blocking(&self, page: Result<T, Status>) -> bool {
        tokio::runtime::Handle::current().block_on(self.send_page(page))
    }

    /// Waits until the reader is gone.
    pub(crate) async fn wait_closed(&self) {
        self.pages.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use crate::server::limits::paged::*;

    #[tokio::test]
    async fn a_reader_that_stalls_is_told_so_when_it_reads_again() {
        let limit = super::super::Limit::with_capacity(1, "full");
        let (pages, mut stream) = PageSender::with_timeout(
            limit.try_acquire().expect("it is free"),
            Duration::from_millis(1),
        );
        assert!(pages.send_page(Ok(1)).await && pages.send_page(Ok(2)).await);

        assert!(!pages.send_page(Ok(3)).await);
        drop(pages);
        assert!(limit.try_acquire().is_ok());
        assert!(
            matches!(stream.next().await, Some(Ok(1)))
                && matches!(stream.next().await, Some(Ok(2)))
        );

        let end = stream
            .next()
            .await
            .expect("the answer is not whole")
            .expect_err("the answer is not whole");
        assert_eq!(end.code(), tonic::Code::Aborted, "{end}");

        assert!(stream.next().await.is_none());
    }
}
