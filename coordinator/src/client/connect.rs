//! A connection to a coordinator.

use ergodic_common::ErrorCode;
use ergodic_proto::MAX_MESSAGE;
use ergodic_proto::archive::MAX_RECORD;
use ergodic_proto::connect::{self, Access, Connection};
use ergodic_proto::status::UserError;
use ergodic_proto::v1::admin_service_client::AdminServiceClient;
use ergodic_proto::v1::file_service_client::FileServiceClient;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use tonic::Status;

/// A coordinator that answered.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub url: String,
    target: (String, Access),
    /// Its service.
    pub sweeps: SweepServiceClient<Connection>,
    /// Its files.
    pub files: FileServiceClient<Connection>,
    /// What it tells workers, of which users may ask for sweep files.
    pub workers: WorkerServiceClient<Connection>,
    /// Its tokens.
    pub admin: AdminServiceClient<Connection>,
}

impl Client {
    /// Connects to the first of these addresses, separated by commas, where a coordinator answers: of
    /// those that share a store, only the one that leads does.
    ///
    /// # Errors
    /// An address is none, or nobody answers who is to be trusted.
    pub async fn connect(urls: &str, access: &Access) -> Result<Self, UserError> {
        let mut first_error = None;
        for url in urls.split(',').map(str::trim) {
            match Self::connect_to(url, access).await {
                Ok(client) => return Ok(Self { target: (urls.to_owned(), access.clone()), ..client }),
                Err(error) if error.code != ErrorCode::Unreachable => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| unreachable(urls, "no address")))
    }

    /// Connects once more, after a connection broke.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn again(&self) -> Result<Self, UserError> {
        Self::connect(&self.target.0, &self.target.1).await
    }

    async fn connect_to(url: &str, access: &Access) -> Result<Self, UserError> {
        let connection = connect::now(url, access).await.map_err(|error| match error.code {
            ErrorCode::Unreachable => unreachable(url, &error.message),
            _ => error,
        })?;
        let sweeps = SweepServiceClient::new(connection.clone())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(MAX_MESSAGE);
        let files = FileServiceClient::new(connection.clone()).max_decoding_message_size(MAX_MESSAGE);
        let target = (url.to_owned(), access.clone());
        let workers = WorkerServiceClient::new(connection.clone()).max_decoding_message_size(MAX_MESSAGE);
        let admin = AdminServiceClient::new(connection).max_decoding_message_size(MAX_RECORD);
        Ok(Self { url: url.to_owned(), target, sweeps, files, workers, admin })
    }

    /// What a failed call means to the user.
    pub fn error(&self, status: &Status) -> UserError {
        let error = UserError::from(status);
        if error.code == ErrorCode::Unreachable { unreachable(&self.url, &connect::reason(status)) } else { error }
    }
}

fn unreachable(url: &str, why: &str) -> UserError {
    let message = format!(
        "no coordinator answers at {url} ({why}). Start one with `ergodic serve`, or name another with --coordinator URL or \
         ERGODIC_COORDINATOR; one that asks for tokens is at https://"
    );
    UserError::new(ErrorCode::Unreachable, message)
}
