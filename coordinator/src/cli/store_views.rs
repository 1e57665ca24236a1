//! Services over stores for the client, which does not know the server.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ergodic_proto::status::UserError;

use crate::client::store_access::{OpenedStore, OpeningStore, StoreAccess};
use crate::server::view::StoreView;
use crate::store::location::StoreLocation;
use crate::store::{is_store, list_stores};

/// The stores that this process has opened for reading.
#[derive(Clone, Default)]
pub(super) struct StoreViews {
    opened: Arc<Mutex<Vec<StoreView>>>,
}

impl StoreViews {
    /// Closes all stores.
    pub(super) async fn close_all(&self) {
        let opened = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *opened)
        };
        for view in opened {
            view.close().await;
        }
    }

    async fn open(&self, store: &Path) -> Result<OpenedStore, UserError> {
        let location = StoreLocation::parse(store);
        // Beside a database, as for `ergodic serve`; a directory has its files in itself unless they are named.
        let files = std::env::var_os("ERGODIC_FILES")
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from);
        let view = StoreView::open(&location, files).await?;
        let channel = view.channel();
        self.opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(view);

        let place = location.describe();
        Ok(OpenedStore { channel, place })
    }
}

impl StoreAccess for StoreViews {
    fn open_store<'a>(&'a self, store: &'a Path) -> OpeningStore<'a> {
        Box::pin(self.open(store))
    }

    fn is_store(&self, dir: &Path) -> bool {
        is_store(dir)
    }

    fn list_stores(&self, dir: &Path) -> Vec<PathBuf> {
        list_stores(dir)
    }
}
