//! A connection to a coordinator.

use std::io;
use std::time::{Duration, Instant};

use ergodic_common::ErrorCode;
use ergodic_proto::archive::MAX_RECORD_BYTES;
use ergodic_proto::channel::connect;
use ergodic_proto::channel::connect::ClientChannel;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::channel::transport::{NOT_TRUSTED, check_address};
use ergodic_proto::status::{UserError, innermost_reason};
use ergodic_proto::v1::admin_service_client::AdminServiceClient;
use ergodic_proto::v1::file_service_client::FileServiceClient;
use ergodic_proto::v1::sweep_service_client::SweepServiceClient;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use ergodic_proto::{MAX_MESSAGE_BYTES, v1};
use http::Uri;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::client::option_names::name_option;
use crate::client::render::print_stderr_line;

/// Time limit for the response of each of several addresses.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command waits for a coordinator at an address that refuses connections: it may have been started a moment ago.
pub const START_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two attempts to connect to an address that refuses connections.
const START_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A client of a coordinator that has responded.
#[derive(Debug, Clone)]
pub struct Client {
    /// The address of the coordinator, or the place of the store.
    pub url: String,
    target: ClientTarget,
    /// The service for sweeps and their results.
    pub sweeps: SweepServiceClient<ClientChannel>,
    /// The service for the files of sweeps and trials.
    pub files: FileServiceClient<ClientChannel>,
    /// The service for workers; users may fetch sweep files from it.
    pub workers: WorkerServiceClient<ClientChannel>,
    /// The service for tokens and backups.
    pub admin: AdminServiceClient<ClientChannel>,
}

/// What a client talks to.
#[derive(Debug, Clone)]
enum ClientTarget {
    /// Coordinators at these addresses.
    Coordinators(String, ClientAuth),
    /// The services of this process over a store that it only reads.
    Store,
}

impl Client {
    /// Talks to the services of this process over a store, whose place is only for people.
    pub fn on_store(channel: ClientChannel, place: String) -> Self {
        Self::over_channel(channel, place, ClientTarget::Store)
    }

    /// Whether this client reads a store without its coordinator.
    pub fn is_on_store(&self) -> bool {
        matches!(self.target, ClientTarget::Store)
    }

    /// Connects to a coordinator that answers within this time.
    ///
    /// # Errors
    /// No coordinator answers in time.
    pub async fn probe(
        url: &str,
        access: &ClientAuth,
        timeout: Duration,
    ) -> Result<Self, UserError> {
        let answered = async {
            let client = Self::connect(url, access).await?;
            client.ensure_responsive().await
        };
        tokio::time::timeout(timeout, answered)
            .await
            .unwrap_or_else(|_| Err(unreachable_error(url, "no answer in time")))
    }

    /// Connects to the first of these addresses, separated by commas, at which a coordinator
    /// responds. The connection sends requests that a standby cannot answer to the leader.
    ///
    /// # Errors
    /// An address is malformed, or no trusted coordinator responds.
    pub async fn connect(urls: &str, access: &ClientAuth) -> Result<Self, UserError> {
        let mut first_error = None;
        let several = urls.contains(',');

        for url in urls.split(',').map(str::trim) {
            let connected = match Self::connect_to_url(url, access).await {
                Ok(client) if several => client.ensure_responsive().await,
                connected => connected,
            };
            match connected {
                Ok(client) => {
                    return Ok(Self {
                        target: ClientTarget::Coordinators(urls.to_owned(), access.clone()),
                        ..client
                    });
                }
                Err(error) if error.code != ErrorCode::Unreachable => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }

        Err(first_error.unwrap_or_else(|| unreachable_error(urls, "no address")))
    }

    /// Connects as [`Client::connect`] does, and tries again for so long while each address refuses connections, which is said on
    /// stderr.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn connect_within(
        urls: &str,
        access: &ClientAuth,
        timeout: Duration,
    ) -> Result<Self, UserError> {
        let started = Instant::now();
        let mut is_waiting = false;

        loop {
            let error = match Self::connect(urls, access).await {
                Err(error) if error.code == ErrorCode::Unreachable => error,
                settled => return settled,
            };
            if started.elapsed() >= timeout {
                return Err(error);
            }
            // Something listens: it may have begun to since the attempt.
            if !refuse_connections(urls).await {
                return Self::connect(urls, access).await;
            }

            if !is_waiting {
                is_waiting = true;
                print_stderr_line(&format!(
                    "nothing listens at {urls} yet; trying for {} s",
                    timeout.as_secs()
                ));
            }
            tokio::time::sleep(START_POLL_INTERVAL).await;
        }
    }

    /// Reconnects after the connection broke.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn reconnect(&self) -> Result<Self, UserError> {
        match &self.target {
            ClientTarget::Coordinators(urls, access) => Self::connect(urls, access).await,
            // Its channel connects again by itself.
            ClientTarget::Store => Ok(self.clone()),
        }
    }

    /// Switches to the leader if this coordinator is a standby, before a request that is too large
    /// to be sent twice.
    ///
    /// # Errors
    /// The standby or the leader does not respond.
    pub async fn switch_to_leader(&mut self) -> Result<(), UserError> {
        let ClientTarget::Coordinators(_, access) = &self.target else {
            return Ok(());
        };
        let access = access.clone();
        let info = self
            .sweeps
            .info(v1::InfoRequest {})
            .await
            .map_err(|e| self.to_user_error(&e))?
            .into_inner();
        if !info.leader.is_empty() {
            let leader = Self::connect_to_url(&info.leader, &access).await?;
            *self = Self {
                target: self.target.clone(),
                ..leader
            };
        }

        Ok(())
    }

    /// Checks that the coordinator responds, because a frozen one accepts connections too. Any
    /// response except "unavailable" will do.
    async fn ensure_responsive(mut self) -> Result<Self, UserError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.sweeps.info(v1::InfoRequest {})).await {
            Err(_) => Err(unreachable_error(
                &self.url,
                "no answer within five seconds",
            )),
            Ok(Err(status)) if status.code() == Code::Unavailable => {
                Err(self.to_user_error(&status))
            }
            Ok(_) => Ok(self),
        }
    }

    async fn connect_to_url(url: &str, access: &ClientAuth) -> Result<Self, UserError> {
        check_coordinator_option(url)?;
        let connection =
            connect::connect_now(url, access)
                .await
                .map_err(|error| match error.code {
                    ErrorCode::Unreachable => unreachable_error(url, &error.message),
                    _ => error,
                })?;
        let target = ClientTarget::Coordinators(url.to_owned(), access.clone());
        Ok(Self::over_channel(connection, url.to_owned(), target))
    }

    fn over_channel(connection: ClientChannel, url: String, target: ClientTarget) -> Self {
        let sweeps = SweepServiceClient::new(connection.clone())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);

        let files =
            FileServiceClient::new(connection.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let workers = WorkerServiceClient::new(connection.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let admin = AdminServiceClient::new(connection).max_decoding_message_size(MAX_RECORD_BYTES);
        Self {
            url,
            target,
            sweeps,
            files,
            workers,
            admin,
        }
    }

    /// Converts the status of a failed call to an error for the user.
    pub fn to_user_error(&self, status: &Status) -> UserError {
        let error = UserError::from(status);
        // A status with details comes from a coordinator; without, the connection itself failed.
        if error.code != ErrorCode::Unreachable || !status.details().is_empty() {
            return UserError::new(error.code, name_option(error.message));
        }

        let why = innermost_reason(status);
        match self.target {
            ClientTarget::Coordinators(..) => unreachable_error(&self.url, &why),
            ClientTarget::Store => UserError::new(
                ErrorCode::Internal,
                format!("the store {} can no longer be read ({why})", self.url),
            ),
        }
    }
}

/// Checks an address that the user named.
///
/// # Errors
/// The address is none; the message names the option.
pub fn check_coordinator_option(url: &str) -> Result<(), UserError> {
    check_address(url).map_err(|error| {
        let message = format!("--coordinator: {}", error.message);
        UserError::new(error.code, message)
    })
}

/// Whether at each of these addresses, separated by commas, a machine answers on which nobody listens there.
async fn refuse_connections(urls: &str) -> bool {
    for url in urls.split(',').map(str::trim) {
        let uri = url.parse::<Uri>().ok();
        let Some(authority) = uri.as_ref().and_then(Uri::authority) else {
            return false;
        };
        let host = authority.host().trim_matches(['[', ']']);
        // The ports of http and https, if none is named.
        let default_port = if url.starts_with("https:") { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default_port);

        let connected = TcpStream::connect((host, port)).await;
        if !connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return false;
        }
    }

    true
}

fn unreachable_error(url: &str, why: &str) -> UserError {
    let message = if why.contains(NOT_TRUSTED) {
        format!(
            "{url}: {why}: the token, or the authority of --ca, belongs to another coordinator. Name that one with \
             --coordinator URL or ERGODIC_COORDINATOR, or a token of this one with --token-file FILE or ERGODIC_TOKEN_FILE"
        )
    } else {
        format!(
            "no coordinator answers at {url} ({why}). Start one with `ergodic serve`, or name another with --coordinator URL \
             or ERGODIC_COORDINATOR; the address of one that requires tokens begins with https://"
        )
    };
    UserError::new(ErrorCode::Unreachable, message)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use crate::client::connect::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_with_the_name_of_the_option() {
        let access = ClientAuth::default();
        for (url, problem) in [
            ("127.0.0.1", "expected something like"),
            ("http://127.0.0.1:99999", "its port is no number"),
            ("http://127.0.0.1:1,http://[::1]:", "its port is no number"),
        ] {
            let refused = Client::connect(url, &access).await;
            let error = refused.expect_err("it is no address");
            let names_option = error.message.starts_with("--coordinator: '");
            assert_eq!(error.code, ErrorCode::BadInput, "{error}");
            assert!(names_option && error.message.contains(problem), "{error}");
        }
    }

    #[tokio::test]
    async fn a_coordinator_that_is_starting_is_waited_for() {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let url = format!("http://{address}");
        let access = ClientAuth::default();

        assert!(refuse_connections(&url).await);
        let refused = Client::connect_within(&url, &access, Duration::ZERO).await;
        assert!(refused.is_err_and(|error| error.code == ErrorCode::Unreachable));

        let listen_later = async {
            tokio::time::sleep(3 * START_POLL_INTERVAL).await;
            TcpListener::bind(address)
                .await
                .expect("the port is free still")
        };
        let (listener, connected) = tokio::join!(
            listen_later,
            Client::connect_within(&url, &access, Duration::from_secs(60))
        );
        assert!(connected.is_ok(), "{connected:?}");
        assert!(!refuse_connections(&url).await);
        drop(listener);
    }
}
