//! Access to stores without a coordinator. The client knows only the wire: the program that it is part of provides the services over
//! a store, and the client reaches them by a channel.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::OnceLock;

use ergodic_common::ErrorCode;
use ergodic_proto::channel::connect::ClientChannel;
use ergodic_proto::status::UserError;

/// Services over a store, as they are being started.
pub type OpeningStore<'a> =
    Pin<Box<dyn Future<Output = Result<OpenedStore, UserError>> + Send + 'a>>;

/// A store whose services run in this process.
pub struct OpenedStore {
    /// The way to the services.
    pub channel: ClientChannel,
    /// Where the store is, for people: an absolute path, or a URL without password.
    pub place: String,
}

/// What finds stores, and starts services over them.
pub trait StoreAccess: Send + Sync {
    /// Starts the services of a standby over a store, a directory or the URL of a database, which is only read.
    ///
    /// The services fail to start if there is no store, or if it cannot be read.
    fn open_store<'a>(&'a self, store: &'a Path) -> OpeningStore<'a>;

    /// Whether there is a store in a directory.
    fn is_store(&self, dir: &Path) -> bool;

    /// The stores in the directories directly below `dir`, by name.
    fn list_stores(&self, dir: &Path) -> Vec<PathBuf>;
}

static ACCESS: OnceLock<Box<dyn StoreAccess>> = OnceLock::new();

/// Sets how this process gets at stores; only the first time counts.
pub fn set_store_access(access: Box<dyn StoreAccess>) {
    let _ = ACCESS.set(access);
}

/// How this process gets at stores.
///
/// # Errors
/// No access to stores was set, which is an error of the program.
pub(super) fn store_access() -> Result<&'static dyn StoreAccess, UserError> {
    let access = ACCESS.get().map(AsRef::as_ref);
    access.ok_or_else(|| {
        let message = "this program has no access to stores: name a coordinator with --coordinator";
        UserError::new(ErrorCode::Internal, message)
    })
}
