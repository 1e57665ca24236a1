//! What running programs have printed so far, for whoever asks the coordinator.

use ergodic_common::TrialKey;
use ergodic_common::ids::Fence;
use ergodic_proto::v1;

use crate::shared_queue::SharedQueue;
use crate::work_queue::TrialPlace;

/// The answer to a request for output: where the trial is, and what it has printed beyond what is known.
pub(crate) fn read_part(queue: &SharedQueue, wanted: &v1::SendOutput) -> v1::OutputPart {
    let fence = Fence::from(wanted.fence.unwrap_or_default());
    let key = TrialKey::from(wanted.trial.unwrap_or_default());
    let mut part = v1::OutputPart {
        request: wanted.request,
        ..v1::OutputPart::default()
    };

    match queue.with_queue(|queue| queue.find_trial(fence, key)) {
        TrialPlace::Running(output) => {
            let printed = output.read_after(wanted.known);
            part.set_place(v1::TrialPlace::Running);
            part.before = printed.before;
            part.bytes = printed.bytes;
        }
        TrialPlace::Queued => part.set_place(v1::TrialPlace::Queued),
        TrialPlace::Gone => {}
    }
    part
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ergodic_common::ids::{Epoch, LeaseId};

    use super::*;
    use crate::work_queue::tests::wide_sweep;

    #[test]
    fn the_answer_tells_where_the_trial_is_and_what_is_new() {
        let fence = |lease| Fence {
            lease: LeaseId(lease),
            epoch: Epoch(1),
        };
        let queue = SharedQueue::new(1);
        let keys = (0..2).map(|repeat| TrialKey::new(0, repeat)).collect();
        queue.with_queue(|queue| queue.add_lease(fence(1), wide_sweep(1), keys, BTreeSet::new()));
        let running = queue.wait_for_trial().expect("a slot is free");
        running.output.push_bytes(b"abc");

        let ask = |lease, repeat, known| {
            let part = read_part(
                &queue,
                &v1::SendOutput {
                    request: 7,
                    fence: Some(fence(lease).into()),
                    trial: Some(TrialKey::new(0, repeat).into()),
                    known,
                },
            );
            assert_eq!(part.request, 7);
            (part.place(), part.before, part.bytes)
        };
        let running_at = v1::TrialPlace::Running;
        assert_eq!(ask(1, 0, 0), (running_at, 0, b"abc".to_vec()));
        assert_eq!(ask(1, 0, 2), (running_at, 2, b"c".to_vec()));
        let nothing = |place| (place, 0, Vec::new());
        assert_eq!(ask(1, 1, 0), nothing(v1::TrialPlace::Queued));
        assert_eq!(ask(2, 0, 0), nothing(v1::TrialPlace::Unspecified));

        queue.finish_trial(&running, None);
        assert_eq!(ask(1, 0, 0), nothing(v1::TrialPlace::Unspecified));
    }
}
