//! Answers that come page by page, from threads that wait for whoever reads them, though not for ever.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Place;

/// Pages that are ready before they are read.
const AHEAD: usize = 2;
/// A reader that takes nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a peer is answered with.
pub(crate) type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// Where pages go.
pub(crate) struct Pages<T> {
    pages: mpsc::Sender<Result<T, Status>>,
    cut_off: Arc<OnceLock<Status>>,
    patience: Duration,
    /// Held, not read: its place among those that are answered.
    _place: Place,
}

impl<T: Send + 'static> Pages<T> {
    /// Pages, and the stream that they become.
    pub(crate) fn new(place: Place) -> (Self, Stream<T>) {
        Self::patient(place, PATIENCE)
    }

    fn patient(place: Place, patience: Duration) -> (Self, Stream<T>) {
        let (pages, stream) = mpsc::channel(AHEAD);
        let cut_off = Arc::new(OnceLock::new());
        // What comes after the last page that there was room for. Without it, the answer would seem to be whole.
        let why = cut_off.clone();
        let end = tokio_stream::once(()).filter_map(move |()| why.get().cloned().map(Err));
        (Self { pages, cut_off, patience, _place: place }, Box::pin(ReceiverStream::new(stream).chain(end)))
    }

    /// Sends a page; whether another one is wanted.
    pub(crate) async fn send(&self, page: Result<T, Status>) -> bool {
        match tokio::time::timeout(self.patience, self.pages.send(page)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                let seconds = self.patience.as_secs();
                let why = format!("nothing of the answer was read for {seconds} s: ask again, and read it as it comes");
                let _ = self.cut_off.set(Status::aborted(why));
                false
            }
        }
    }

    /// The same from a thread that is no part of the runtime's.
    pub(crate) fn blocking_send(&self, page: Result<T, Status>) -> bool {
        tokio::runtime::Handle::current().block_on(self.send(page))
    }

    /// Returns when nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.pages.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_stalls_is_told_so_when_it_reads_again() {
        let room = super::super::Room::of(1, "full");
        let (pages, mut stream) = Pages::patient(room.place().expect("it is free"), Duration::from_millis(1));
        assert!(pages.send(Ok(1)).await && pages.send(Ok(2)).await);
        assert!(!pages.send(Ok(3)).await);
        drop(pages);
        assert!(room.place().is_ok());
        assert!(matches!(stream.next().await, Some(Ok(1))) && matches!(stream.next().await, Some(Ok(2))));
        let end = stream.next().await.expect("the answer is not whole").expect_err("the answer is not whole");
        assert_eq!(end.code(), tonic::Code::Aborted, "{end}");
        assert!(stream.next().await.is_none());
    }
}
