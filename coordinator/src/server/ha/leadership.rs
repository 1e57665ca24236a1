//! Whether this coordinator leads or stands by, and the requests that it answers.

use ergodic_common::ErrorCode;
use ergodic_common::ids::Epoch;
use ergodic_proto::rpc::{RpcMethod, method_name};
use ergodic_proto::status::{UserError, not_leader};
use tokio::sync::watch;
use tonic::Status;

use crate::store::Leader;

/// The role of a coordinator on a store that several may share.
#[derive(Debug, Clone)]
pub(crate) enum Leadership {
    /// The coordinator decides and writes, in this epoch.
    Leading(Epoch),
    /// The coordinator answers reads from the store, while this one leads.
    Standby(watch::Receiver<Leader>),
    /// This process only reads the store at this place, beside the coordinator that there may be.
    Reading(String),
}

impl Leadership {
    /// The epoch of the present leader.
    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            Self::Leading(epoch) => *epoch,
            Self::Standby(leader) => leader.borrow().epoch,
            Self::Reading(_) => Leader::unknown().epoch,
        }
    }

    /// The address of the leader, if it is another coordinator; empty if none is known.
    pub(crate) fn other_leader(&self) -> Option<String> {
        match self {
            Self::Leading(_) | Self::Reading(_) => None,
            Self::Standby(leader) => Some(leader.borrow().url.clone()),
        }
    }

    /// Checks that this coordinator answers a request, by its path.
    ///
    /// # Errors
    /// Only the leader answers the request; the status of a standby has its address.
    pub(crate) fn check_request_path(&self, path: &str) -> Result<(), Status> {
        match self {
            Self::Standby(leader) if !is_answered_by_standby(path) => {
                Err(not_leader(&leader.borrow().url, ""))
            }
            Self::Reading(place) if !is_answered_by_reader(path) => {
                Err(read_only_error(place, path).into())
            }
            Self::Leading(_) | Self::Standby(_) | Self::Reading(_) => Ok(()),
        }
    }
}

/// Whether a request can be answered from what is stored.
fn is_answered_by_standby(path: &str) -> bool {
    RpcMethod::find(path).is_some_and(|method| method.answered_by_standby)
}

/// Whether a process that only reads a store answers a request. It explains too, and shows what programs printed, because nobody else
/// may be there to ask; what it says of workers is that there are none.
fn is_answered_by_reader(path: &str) -> bool {
    is_answered_by_standby(path)
        || RpcMethod::find(path).is_some_and(|method| matches!(method.name(), "Explain" | "Output"))
}

fn read_only_error(place: &str, path: &str) -> UserError {
    let message = format!(
        "the store {place} is only read here, and {} needs its coordinator: start one with `ergodic serve --store {place}`, or name the \
         one that runs with --coordinator URL",
        method_name(path)
    );
    UserError::new(ErrorCode::Refused, message)
}

#[cfg(test)]
mod tests {
    use ergodic_proto::status::leader_url;

    use crate::server::ha::leadership::*;

    #[test]
    fn who_stands_by_answers_reads_and_sends_all_else_to_the_leader() {
        let there = Leader {
            epoch: Epoch(3),
            url: "http://a:1".into(),
            is_this: false,
        };
        let (_told, told) = watch::channel(there);
        let stands_by = Leadership::Standby(told);

        let leads = Leadership::Leading(Epoch(3));
        for path in [
            "/ergodic.v1.SweepService/Table",
            "/ergodic.v1.FileService/Fetch",
        ] {
            assert!(
                stands_by.check_request_path(path).is_ok()
                    && leads.check_request_path(path).is_ok(),
                "{path}"
            );
        }

        for path in [
            "/ergodic.v1.SweepService/Launch",
            "/ergodic.v1.SweepService/Steer",
            "/ergodic.v1.FileService/Put",
            "/ergodic.v1.WorkerService/Session",
            "/ergodic.v1.AdminService/NewToken",
            "/",
        ] {
            assert!(leads.check_request_path(path).is_ok(), "{path}");
            let status = stands_by
                .check_request_path(path)
                .expect_err("it is not for this one");
            assert_eq!(leader_url(&status).as_deref(), Some("http://a:1"), "{path}");
        }
    }
    #[test]
    fn who_only_reads_answers_reads_and_says_what_else_to_do() {
        let reads = Leadership::Reading("/data/lab".into());
        for path in [
            "/ergodic.v1.SweepService/Table",
            "/ergodic.v1.SweepService/Explain",
            "/ergodic.v1.FileService/Fetch",
        ] {
            assert!(reads.check_request_path(path).is_ok(), "{path}");
        }

        for path in [
            "/ergodic.v1.SweepService/Launch",
            "/ergodic.v1.SweepService/Workers",
            "/ergodic.v1.FileService/Put",
            "/ergodic.v1.WorkerService/Session",
            "/ergodic.v1.AdminService/Backup",
        ] {
            let status = reads.check_request_path(path).expect_err("it changes");
            assert_eq!(leader_url(&status), None, "{path}");
            assert!(
                status
                    .message()
                    .contains("`ergodic serve --store /data/lab`")
            );
        }
    }
}
