//! Kinds of failure, which travel over the wire and become exit codes.

/// The kind of a failure. Each has one exit code, and travels as a number in gRPC status details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The sweep ended, but some of its trials failed.
    TrialsFailed,
    /// A file, field or argument is wrong; nothing was stored.
    BadInput,
    /// The coordinator does not respond.
    Unreachable,
    /// The coordinator, or the operating system, refused.
    Refused,
    /// There is no such sweep, trial, axis or metric.
    NotFound,
    /// The versions of the two programs cannot work together.
    Version,
    /// A bug, or a disk that cannot be written.
    Internal,
}

impl ErrorCode {
    /// All codes, in the order of their exit codes.
    pub const ALL: [Self; 7] = [
        Self::TrialsFailed,
        Self::BadInput,
        Self::Unreachable,
        Self::Refused,
        Self::NotFound,
        Self::Version,
        Self::Internal,
    ];

    /// The process exit code: 1 failed trials, 2 bad input, 3 unreachable, 4 refused, 5 not found, 6 version, 70 internal.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::TrialsFailed => 1,
            Self::BadInput => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::NotFound => 5,
            Self::Version => 6,
            Self::Internal => 70,
        }
    }

    /// The code with this exit code.
    pub fn from_exit_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.exit_code() == code)
    }
}

#[cfg(test)]
mod tests {
    use crate::error_code::*;

    #[test]
    fn every_code_comes_back_from_its_exit_code() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_exit_code(code.exit_code()), Some(code));
        }
    }
}
