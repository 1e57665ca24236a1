//! Whether this coordinator leads or stands by, and the requests that it answers.

use ergodic_common::ids::Epoch;
use ergodic_proto::rpc::RpcMethod;
use ergodic_proto::status::not_leader;
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
}

impl Leadership {
    /// The epoch of the present leader.
    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            Self::Leading(epoch) => *epoch,
            Self::Standby(leader) => leader.borrow().epoch,
        }
    }

    /// The address of the leader, if it is another coordinator; empty if none is known.
    pub(crate) fn other_leader(&self) -> Option<String> {
        match self {
            Self::Leading(_) => None,
            Self::Standby(leader) => Some(leader.borrow().url.clone()),
        }
    }

    /// Checks that this coordinator answers a request, by its path.
    ///
    /// # Errors
    /// Only the leader answers the request; the status has its address.
    pub(crate) fn check_request_path(&self, path: &str) -> Result<(), Status> {
        match self.other_leader() {
            Some(leader) if !is_answered_by_standby(path) => Err(not_leader(&leader, "")),
            _ => Ok(()),
        }
    }
}

/// Whether a request can be answered from what is stored.
fn is_answered_by_standby(path: &str) -> bool {
    RpcMethod::find(path).is_some_and(|method| method.answered_by_standby)
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
}
