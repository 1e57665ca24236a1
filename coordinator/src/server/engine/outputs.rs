//! Requests to workers for what running programs have printed so far.

use std::collections::HashMap;

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, WorkerId};
use ergodic_proto::v1;
use ergodic_proto::v1::session_response::Message;
use tokio::sync::oneshot;

use crate::server::convert::fence_to_wire;
use crate::server::engine::Engine;

/// Maximum number of requests that a worker has not answered. Its session ends if it leaves too many messages unread, and nobody who
/// reads output may cause that.
const MAX_OPEN_REQUESTS: usize = 16;

/// Why nobody knows what a running program has printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputRefusal {
    /// The lease is over.
    NoLease,
    /// The worker is not connected.
    Away,
    /// The worker is too old to be asked.
    TooOld,
    /// The worker has not answered earlier requests yet.
    Busy,
}

/// Receives a worker's answer.
pub type OutputReply = oneshot::Sender<Result<v1::OutputPart, OutputRefusal>>;

/// A request for what a running program has printed.
#[derive(Debug)]
pub struct OutputQuestion {
    /// The lease of the trial.
    pub fence: Fence,
    /// The trial.
    pub key: TrialKey,
    /// Number of bytes that are known already.
    pub known: u64,
}

/// Requests that no worker has answered yet.
#[derive(Debug, Default)]
pub(crate) struct OpenOutputs {
    last: u64,
    requests: HashMap<u64, (WorkerId, OutputReply)>,
}

impl OpenOutputs {
    /// Adds a request to a worker; gives its number, or nothing if the worker has too many. Requests that nobody waits for any more
    /// count until the worker has answered them, or has gone: it may not have read them.
    fn add_request(&mut self, worker: &WorkerId, reply: OutputReply) -> Option<u64> {
        let of_worker = self.requests.values().filter(|(of, _)| of == worker);
        if of_worker.count() >= MAX_OPEN_REQUESTS {
            let _ = reply.send(Err(OutputRefusal::Busy));
            return None;
        }

        self.last += 1;
        self.requests.insert(self.last, (worker.clone(), reply));
        Some(self.last)
    }

    /// Passes on the answer of a worker, if it was asked.
    fn answer_request(&mut self, worker: &WorkerId, part: v1::OutputPart) {
        let is_asked = |(of, _): &(WorkerId, OutputReply)| of == worker;
        if self.requests.get(&part.request).is_some_and(is_asked)
            && let Some((_, reply)) = self.requests.remove(&part.request)
        {
            let _ = reply.send(Ok(part));
        }
    }

    /// Forgets the requests to a worker, which will not answer them.
    pub(crate) fn forget_worker(&mut self, worker: &WorkerId) {
        for (_, (_, reply)) in self.requests.extract_if(|_, (of, _)| of == worker) {
            let _ = reply.send(Err(OutputRefusal::Away));
        }
    }
}

impl Engine {
    /// Asks the worker that runs a trial what it has printed.
    pub(crate) fn ask_for_output(&mut self, question: &OutputQuestion, reply: OutputReply) {
        let Some(worker) = self.core.find_lease_holder(question.fence).cloned() else {
            let _ = reply.send(Err(OutputRefusal::NoLease));
            return;
        };
        let why = match self.sessions.get(&worker) {
            None => Some(OutputRefusal::Away),
            Some(session) if !session.abilities.sends_output => Some(OutputRefusal::TooOld),
            Some(_) => None,
        };
        if let Some(why) = why {
            let _ = reply.send(Err(why));
            return;
        }

        if let Some(request) = self.open_outputs.add_request(&worker, reply) {
            let message = v1::SendOutput {
                request,
                fence: Some(fence_to_wire(question.fence)),
                trial: Some(question.key.into()),
                known: question.known,
            };
            self.send_to_worker(&worker, Message::SendOutput(message));
        }
    }

    pub(crate) fn pass_on_output(&mut self, worker: &WorkerId, part: v1::OutputPart) {
        self.open_outputs.answer_request(worker, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: u64) -> v1::OutputPart {
        v1::OutputPart {
            request,
            ..v1::OutputPart::default()
        }
    }

    #[test]
    fn only_the_worker_that_was_asked_answers_and_only_once() {
        let (asked, other) = (WorkerId::from("w"), WorkerId::from("v"));
        let mut open = OpenOutputs::default();
        let (reply, mut answered) = oneshot::channel();
        let request = open.add_request(&asked, reply).expect("there is room");
        open.answer_request(&other, answer(request));
        open.answer_request(&asked, answer(request + 1));
        assert!(answered.try_recv().is_err(), "nobody has answered");

        open.answer_request(&asked, answer(request));
        assert_eq!(answered.try_recv(), Ok(Ok(answer(request))));
        open.answer_request(&asked, answer(request));
        assert!(open.requests.is_empty());
    }

    #[test]
    fn a_worker_that_answers_nothing_is_asked_no_more_until_it_joins_again() {
        let (silent, other) = (WorkerId::from("w"), WorkerId::from("v"));
        let mut open = OpenOutputs::default();
        let mut replies = Vec::new();
        for _ in 0..MAX_OPEN_REQUESTS {
            let (reply, answered) = oneshot::channel();
            assert!(open.add_request(&silent, reply).is_some());
            replies.push(answered);
        }
        let (reply, mut refused) = oneshot::channel();
        assert_eq!(open.add_request(&silent, reply), None);
        assert_eq!(refused.try_recv(), Ok(Err(OutputRefusal::Busy)));
        assert!(open.add_request(&other, oneshot::channel().0).is_some());

        open.forget_worker(&silent);
        for mut answered in replies {
            assert_eq!(answered.try_recv(), Ok(Err(OutputRefusal::Away)));
        }
        assert!(open.add_request(&silent, oneshot::channel().0).is_some());
    }
}
