//! The connection to a coordinator, or to the one of several that leads.

use std::sync::{Arc, Mutex, MutexGuard};

use ergodic_proto::MAX_MESSAGE_BYTES;
use ergodic_proto::connect::{self, ClientAuth, ClientChannel};
use ergodic_proto::status::UserError;
use ergodic_proto::v1::file_service_client::FileServiceClient;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use tonic::codec::CompressionEncoding;

/// The coordinators that a worker may ask, one at a time: all that it does goes to the same one.
#[derive(Debug, Clone)]
pub struct Links {
    all: Arc<[Link]>,
    access: ClientAuth,
    at: Arc<Mutex<At>>,
}

/// Which one is asked.
#[derive(Debug, Default)]
struct At {
    /// The place among all.
    place: usize,
    /// The one that leads, as one of them said.
    leader: Option<Link>,
}

impl Links {
    /// The coordinators at these addresses, separated by commas.
    ///
    /// # Errors
    /// As for [`Link::to`].
    pub fn to(urls: &str, access: &ClientAuth) -> Result<Self, UserError> {
        let all = urls.split(',').map(|url| Link::to(url.trim(), access)).collect::<Result<_, _>>()?;
        Ok(Self { all, access: access.clone(), at: Arc::default() })
    }

    /// The coordinator at the other end of one link.
    pub fn only(link: Link) -> Self {
        Self { all: [link].into(), access: ClientAuth::default(), at: Arc::default() }
    }

    /// The one to ask now.
    pub(crate) fn current(&self) -> Link {
        let at = self.at();
        at.leader.clone().unwrap_or_else(|| self.all[at.place % self.all.len()].clone())
    }

    /// It does not serve: the next one is to be asked.
    pub(crate) fn turn(&self) {
        let mut at = self.at();
        if at.leader.take().is_none() {
            at.place += 1;
        }
    }

    /// It stands by: the one at this address, which leads, is to be asked.
    pub(crate) fn follow(&self, url: &str) -> Result<(), UserError> {
        self.at().leader = Some(Link::to(url, &self.access)?);
        Ok(())
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().expect("nothing panics while it holds the place")
    }
}

/// What a worker asks of a coordinator, over one connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Leases and results.
    pub work: WorkerServiceClient<ClientChannel>,
    /// Files.
    pub files: FileServiceClient<ClientChannel>,
    /// Checkpoints, which are not worth compressing.
    pub bulk: WorkerServiceClient<ClientChannel>,
}

impl Link {
    /// Connects when it is first used, and again by itself after a restart of the coordinator.
    ///
    /// # Errors
    /// The address is none, or the token cannot be used there.
    pub fn to(url: &str, access: &ClientAuth) -> Result<Self, UserError> {
        let connection = connect::connect_lazily(url, access)
            .map_err(|error| UserError::new(error.code, format!("--join {url}: {}", error.message)))?;
        Ok(Self::over(connection, !connect::is_loopback(url)))
    }

    /// Over a connection, along which messages are `small`, or as they are.
    pub fn over(connection: ClientChannel, small: bool) -> Self {
        let work = WorkerServiceClient::new(connection.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let bulk = work.clone();
        let files = FileServiceClient::new(connection).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let work = if small { work.send_compressed(CompressionEncoding::Zstd) } else { work };
        Self { work, files, bulk }
    }
}
