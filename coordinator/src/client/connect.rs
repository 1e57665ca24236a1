//! A connection to a coordinator.

use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::MAX_MESSAGE;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::file_service_client::FileServiceClient;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A coordinator that answered.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub url: String,
    /// Its service.
    pub sweeps: SweepServiceClient<Channel>,
    /// Its files.
    pub files: FileServiceClient<Channel>,
}

impl Client {
    /// Connects to the coordinator at `url`.
    ///
    /// # Errors
    /// The address is none, or nobody answers there.
    pub async fn connect(url: &str) -> Result<Self, UserError> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| {
            let message =
                format!("'{url}' is not the address of a coordinator: expected something like http://127.0.0.1:7700");
            UserError::new(ErrorCode::BadInput, message)
        })?;
        let channel = endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true).connect().await;
        let channel = channel.map_err(|_| unreachable(url))?;
        let sweeps = SweepServiceClient::new(channel.clone())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(MAX_MESSAGE);
        let files = FileServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { url: url.to_owned(), sweeps, files })
    }

    /// What a failed call means to the user.
    pub fn error(&self, status: &Status) -> UserError {
        let error = UserError::from(status);
        if error.code == ErrorCode::Unreachable { unreachable(&self.url) } else { error }
    }
}

fn unreachable(url: &str) -> UserError {
    let message = format!(
        "no coordinator answers at {url}. Start one with `ergodic serve`, or name another with --coordinator URL or \
         ERGODIC_COORDINATOR"
    );
    UserError::new(ErrorCode::Unreachable, message)
}
