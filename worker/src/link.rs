//! The connection to a coordinator.

use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::MAX_MESSAGE;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::file_service_client::FileServiceClient;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};

/// What a worker asks of a coordinator, over one connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Leases and results.
    pub work: WorkerServiceClient<Channel>,
    /// Files.
    pub files: FileServiceClient<Channel>,
}

impl Link {
    /// Connects when it is first used, and again by itself after a restart of the coordinator.
    ///
    /// # Errors
    /// The address is none.
    pub fn to(url: &str) -> Result<Self, UserError> {
        let bad = || {
            let message = format!("--join {url}: expected the address of a coordinator, like http://127.0.0.1:7700");
            UserError::new(ErrorCode::BadInput, message)
        };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| bad())?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(bad());
        }
        let host = endpoint.uri().host().ok_or_else(bad)?.to_owned();
        let channel = endpoint
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let work = WorkerServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let files = FileServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let loopback = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        Ok(if loopback {
            Self { work, files }
        } else {
            Self { work: work.send_compressed(CompressionEncoding::Zstd), files }
        })
    }
}
