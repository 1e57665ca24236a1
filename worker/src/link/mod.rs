//! The connection to the coordinator, or to the leader of several.

pub(crate) mod checkpoints;
pub mod datasets;
pub mod delivery;
mod hello;
pub(crate) mod outputs;
pub mod reconnect;
pub mod session;
pub(crate) mod sweeps;

use std::sync::{Arc, Mutex, MutexGuard};

use ergodic_common::ErrorCode;
use ergodic_proto::MAX_MESSAGE_BYTES;
use ergodic_proto::channel::connect;
use ergodic_proto::channel::connect::ClientChannel;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::channel::transport::is_loopback;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::file_service_client::FileServiceClient;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use tonic::codec::CompressionEncoding;

/// The coordinators that a worker may use. All its requests go to one of them at a time.
#[derive(Debug, Clone)]
pub struct LinkPool {
    all: Arc<[Link]>,
    auth: ClientAuth,
    /// Whether leaders on other machines are not followed.
    is_local_only: bool,
    cursor: Arc<Mutex<LinkCursor>>,
}

/// The position of the coordinator in use.
#[derive(Debug, Default)]
struct LinkCursor {
    /// Index into the list of coordinators.
    index: usize,
    /// The leader that a standby has named.
    leader: Option<Link>,
}

impl LinkPool {
    /// Creates links to the coordinators at these addresses, separated by commas.
    ///
    /// # Errors
    /// As for [`Link::from_url`].
    pub fn from_urls(urls: &str, access: &ClientAuth) -> Result<Self, UserError> {
        let all = urls
            .split(',')
            .map(|url| Link::from_url(url.trim(), access))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            all,
            auth: access.clone(),
            is_local_only: false,
            cursor: Arc::default(),
        })
    }

    /// Creates a pool of one coordinator.
    pub fn from_link(link: Link) -> Self {
        Self {
            all: [link].into(),
            auth: ClientAuth::default(),
            is_local_only: false,
            cursor: Arc::default(),
        }
    }

    /// Returns the pool, which follows no leader to another machine if `is_local_only`.
    #[must_use]
    pub(crate) fn with_local_leaders(self, is_local_only: bool) -> Self {
        Self {
            is_local_only,
            ..self
        }
    }

    /// The link to the coordinator in use.
    pub(crate) fn current_link(&self) -> Link {
        let at = self.lock_cursor();
        at.leader
            .clone()
            .unwrap_or_else(|| self.all[at.index % self.all.len()].clone())
    }

    /// Switches to the next coordinator, because the current one does not serve.
    pub(crate) fn switch_to_next(&self) {
        let mut at = self.lock_cursor();
        if at.leader.take().is_none() {
            at.index += 1;
        }
    }

    /// Switches to the leader at `url`, which a standby has named.
    pub(crate) fn follow_leader(&self, url: &str) -> Result<(), UserError> {
        if self.is_local_only && !is_loopback(url) {
            let message = format!(
                "the leader {url} is on another machine, whose programs this worker does not run: start it with --programs=trusted"
            );
            return Err(UserError::new(ErrorCode::Refused, message));
        }
        self.lock_cursor().leader = Some(Link::from_url(url, &self.auth)?);
        Ok(())
    }

    fn lock_cursor(&self) -> MutexGuard<'_, LinkCursor> {
        self.cursor
            .lock()
            .expect("nothing panics while it holds the cursor")
    }
}

/// Clients of a coordinator's services over one connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Client for leases and results.
    pub worker_service: WorkerServiceClient<ClientChannel>,
    /// Client for files.
    pub files: FileServiceClient<ClientChannel>,
    /// Client for checkpoints, which are not worth compressing.
    pub checkpoints: WorkerServiceClient<ClientChannel>,
}

impl Link {
    /// Creates a link that connects at its first use, and again after a restart of the coordinator.
    ///
    /// # Errors
    /// `url` is not an address, or the token must not be sent to it.
    pub fn from_url(url: &str, access: &ClientAuth) -> Result<Self, UserError> {
        let connection = connect::connect_lazily(url, access).map_err(|error| {
            UserError::new(
                error.code,
                format!("--coordinator {url}: {}", error.message),
            )
        })?;
        Ok(Self::from_channel(connection, !is_loopback(url)))
    }

    /// Creates a link over a connection. With `small`, messages are compressed.
    pub fn from_channel(connection: ClientChannel, small: bool) -> Self {
        let work = WorkerServiceClient::new(connection.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let checkpoints = work.clone();
        let files = FileServiceClient::new(connection).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let worker_service = if small {
            work.send_compressed(CompressionEncoding::Zstd)
        } else {
            work
        };

        Self {
            worker_service,
            files,
            checkpoints,
        }
    }
}
