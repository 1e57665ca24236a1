//! Errors that keep their meaning over the wire: an [`ErrorCode`] and a message in the details of a
//! gRPC status.

use std::time::Duration;

use ergodic_common::ErrorCode;
use prost::Message;
use tonic::{Code, Status};

use crate::v1::ErrorDetail;

/// An error for the user, with the exit code that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UserError {
    /// The kind of failure.
    pub code: ErrorCode,
    /// The message for the user.
    pub message: String,
}

impl UserError {
    /// An error of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::BadInput => Code::InvalidArgument,
        ErrorCode::Unreachable => Code::Unavailable,
        ErrorCode::Refused => Code::PermissionDenied,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::Version => Code::FailedPrecondition,
        ErrorCode::TrialsFailed | ErrorCode::Internal => Code::Internal,
    }
}

impl From<UserError> for Status {
    fn from(error: UserError) -> Self {
        let code = error.code.exit_code().into();
        let message = error.message.clone();
        let detail = ErrorDetail {
            code,
            message,
            retry_after_ms: 0,
            leader: None,
        };

        Self::with_details(
            grpc_code(error.code),
            error.message,
            detail.encode_to_vec().into(),
        )
    }
}

/// A status of an overloaded coordinator. The request may be repeated after `retry_after`.
pub fn overloaded(message: &str, retry_after: Duration) -> Status {
    let code = ErrorCode::Refused.exit_code().into();
    let retry_after_ms = (retry_after.as_millis() as u64).max(1);
    let detail = ErrorDetail {
        code,
        message: message.to_owned(),
        retry_after_ms,
        leader: None,
    };

    Status::with_details(
        Code::ResourceExhausted,
        message,
        detail.encode_to_vec().into(),
    )
}

/// The time after which to repeat the request, if the peer named one.
pub fn retry_after(status: &Status) -> Option<Duration> {
    let detail = ErrorDetail::decode(status.details())
        .ok()
        .filter(|_| status.code() == Code::ResourceExhausted)?;
    Some(Duration::from_millis(detail.retry_after_ms)).filter(|wait| !wait.is_zero())
}

/// A status of a standby. `leader` is the leader's address, or empty if no leader is known; `more`
/// follows in the message.
pub fn not_leader(leader: &str, more: &str) -> Status {
    let message = match leader {
        "" => format!("this coordinator stands by, and none leads at the moment{more}"),
        leader => format!("this coordinator stands by; the one at {leader} leads{more}"),
    };
    let code = ErrorCode::Unreachable.exit_code().into();
    let detail = ErrorDetail {
        code,
        message: message.clone(),
        retry_after_ms: 0,
        leader: Some(leader.to_owned()),
    };

    Status::with_details(Code::Unavailable, message, detail.encode_to_vec().into())
}

/// The leader's address that a standby named; empty if it knows none. `None` if the status is not a
/// standby's.
pub fn leader_url(status: &Status) -> Option<String> {
    ErrorDetail::decode(status.details())
        .ok()
        .filter(|_| status.code() == Code::Unavailable)?
        .leader
}

/// Takes code and message from the details, or from the status itself if a peer sends no details.
impl From<&Status> for UserError {
    fn from(status: &Status) -> Self {
        let detail = ErrorDetail::decode(status.details()).ok();
        let known = detail.and_then(|d| {
            Some((
                ErrorCode::from_exit_code(d.code.try_into().ok()?)?,
                d.message,
            ))
        });
        if let Some((code, message)) = known {
            return Self { code, message };
        }

        let code = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => ErrorCode::BadInput,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                ErrorCode::Unreachable
            }
            Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted => {
                ErrorCode::Refused
            }
            Code::NotFound => ErrorCode::NotFound,
            Code::FailedPrecondition | Code::Unimplemented => ErrorCode::Version,
            // A status with a source was made by the connection and not by a peer: the other side
            // speaks another protocol.
            _ if std::error::Error::source(status).is_some() => ErrorCode::Unreachable,
            _ => ErrorCode::Internal,
        };

        Self {
            code,
            message: status.message().to_owned(),
        }
    }
}

/// The innermost reason why a connection could not be made.
pub fn innermost_reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The reason why a request failed.
pub fn describe_status(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => innermost_reason(source),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::status::*;

    #[test]
    fn every_error_survives_the_wire() {
        for code in ErrorCode::ALL {
            let error = UserError::new(code, "why");
            assert_eq!(UserError::from(&Status::from(error.clone())), error);
        }
    }

    #[test]
    fn a_busy_peer_says_when_to_ask_again_and_nobody_else_does() {
        let status = overloaded("too much", Duration::from_millis(250));
        assert_eq!(retry_after(&status), Some(Duration::from_millis(250)));
        assert_eq!(
            UserError::from(&status),
            UserError::new(ErrorCode::Refused, "too much")
        );

        assert_eq!(
            retry_after(&Status::resource_exhausted("a large message")),
            None
        );
        assert_eq!(
            retry_after(&UserError::new(ErrorCode::Internal, "why").into()),
            None
        );
    }

    #[test]
    fn a_coordinator_that_stands_by_says_who_leads_and_nobody_else_does() {
        assert_eq!(
            leader_url(&not_leader("http://a:1", "")).as_deref(),
            Some("http://a:1")
        );
        assert_eq!(leader_url(&not_leader("", "")).as_deref(), Some(""));
        assert_eq!(
            leader_url(&UserError::new(ErrorCode::Unreachable, "why").into()),
            None
        );

        assert_eq!(leader_url(&Status::unavailable("gone")), None);
    }

    #[test]
    fn a_status_without_details_still_means_something() {
        let error = UserError::from(&Status::unavailable("gone"));
        assert_eq!(
            (error.code, error.message.as_str()),
            (ErrorCode::Unreachable, "gone")
        );
    }
}
