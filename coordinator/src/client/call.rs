//! Calls of a coordinator whose failures are errors for the user.

use ergodic_proto::status::UserError;
use tonic::{Response, Status, Streaming};

use super::Client;

impl Client {
    /// Makes a request, as in `client.call(async |client| client.sweeps.status(request).await)`; gives the message of the
    /// response.
    ///
    /// # Errors
    /// The coordinator refuses the request, or does not answer.
    pub async fn call<T>(
        &mut self,
        request: impl AsyncFnOnce(&mut Self) -> Result<Response<T>, Status>,
    ) -> Result<T, UserError> {
        match request(self).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.to_user_error(&status)),
        }
    }

    /// Waits for the next message of a stream; `None` after the last one.
    ///
    /// # Errors
    /// The coordinator ended the stream with an error, or the connection broke.
    pub async fn next_message<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, UserError> {
        stream
            .message()
            .await
            .map_err(|status| self.to_user_error(&status))
    }
}
