//! What a worker has for trials, and what the running ones leave of it: slots, memory and GPUs. Pure.

use ergodic_common::program::needs::{GPU_PARTS, TrialNeeds};

/// Slots, memory and GPUs of a worker, with what is free of each.
#[derive(Debug, Default)]
pub(crate) struct Supply {
    all_slots: u32,
    free_slots: u32,
    /// Bytes that programs may use; `None` without a limit.
    all_memory: Option<u64>,
    taken_memory: u64,
    gpus: Vec<Gpu>,
}

/// A GPU, and the hundredths of it that are free.
#[derive(Debug)]
struct Gpu {
    name: String,
    free_parts: u32,
}

/// What a running trial has of its worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TakenShare {
    needs: TrialNeeds,
    /// The names of its GPUs.
    pub(crate) gpus: Vec<String>,
}

impl Supply {
    /// The supply of an idle worker.
    pub(crate) fn new(slots: u32, memory: Option<u64>, gpus: Vec<String>) -> Self {
        let free_gpu = |name| Gpu {
            name,
            free_parts: GPU_PARTS,
        };
        Self {
            all_slots: slots,
            free_slots: slots,
            all_memory: memory,
            taken_memory: 0,
            gpus: gpus.into_iter().map(free_gpu).collect(),
        }
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> u32 {
        self.all_slots
    }

    /// Number of slots that no trial has.
    pub(crate) fn free_slots(&self) -> u32 {
        self.free_slots
    }

    /// Bytes that programs may use; `None` without a limit.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.all_memory
    }

    /// Number of GPUs.
    pub(crate) fn gpu_count(&self) -> u32 {
        self.gpus.len() as u32
    }

    /// Takes what a trial needs; `None` if too little is free.
    pub(crate) fn take_share(&mut self, needs: TrialNeeds) -> Option<TakenShare> {
        let memory = self.taken_memory.saturating_add(needs.memory);
        let has_memory = needs.memory == 0 || self.all_memory.is_none_or(|all| memory <= all);
        if self.free_slots < needs.slots || !has_memory {
            return None;
        }
        let gpus = self.take_gpus(needs.gpu_parts)?;
        self.free_slots -= needs.slots;
        self.taken_memory = memory;
        Some(TakenShare { needs, gpus })
    }

    /// Takes whole GPUs, or a share of the one that has least to spare.
    fn take_gpus(&mut self, parts: u32) -> Option<Vec<String>> {
        let share = parts.min(GPU_PARTS);
        let wanted = parts.div_ceil(GPU_PARTS) as usize;
        let mut fitting: Vec<&mut Gpu> = self
            .gpus
            .iter_mut()
            .filter(|gpu| gpu.free_parts >= share)
            .collect();
        fitting.sort_by_key(|gpu| gpu.free_parts);
        if fitting.len() < wanted {
            return None;
        }
        let taken = fitting.into_iter().take(wanted).map(|gpu| {
            gpu.free_parts -= share;
            gpu.name.clone()
        });
        Some(taken.collect())
    }

    /// Takes back what a trial had.
    pub(crate) fn give_back(&mut self, share: &TakenShare) {
        self.free_slots += share.needs.slots;
        self.taken_memory -= share.needs.memory;
        for gpu in &mut self.gpus {
            if share.gpus.contains(&gpu.name) {
                gpu.free_parts += share.needs.gpu_parts.min(GPU_PARTS);
            }
        }
    }

    /// Why this worker never has what a trial needs; `None` if it does once it is idle.
    pub(crate) fn explain_lack(&self, needs: TrialNeeds) -> Option<String> {
        if needs.slots > self.all_slots {
            return Some(format!(
                "a trial takes {} slots, and this worker has {}: start one with --slots {0}",
                needs.slots, self.all_slots
            ));
        }
        if let Some(all) = self.all_memory.filter(|all| needs.memory > *all) {
            return Some(format!(
                "a trial takes {} MiB of memory, and this worker has {} MiB: start one where there is more, or with more --memory",
                needs.memory.div_ceil(1 << 20),
                all >> 20
            ));
        }
        let gpus = needs.gpu_parts.div_ceil(GPU_PARTS) as usize;
        (gpus > self.gpus.len()).then(|| {
            let taken = match needs.gpu_parts < GPU_PARTS {
                true => "a share of a GPU".to_owned(),
                false => format!("GPUs: {gpus}"),
            };
            format!(
                "a trial takes {taken}, and this worker has {}: start one where there are more, or name them with --gpus",
                self.gpus.len()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::supply::*;

    fn needs(slots: u32, memory: u64, gpu_parts: u32) -> TrialNeeds {
        TrialNeeds {
            slots,
            memory,
            gpu_parts,
        }
    }

    fn supply() -> Supply {
        Supply::new(4, Some(10 << 20), vec!["0".into(), "3".into()])
    }

    #[test]
    fn trials_run_at_a_time_as_far_as_everything_suffices() {
        let mut supply = supply();
        let wide = supply.take_share(needs(3, 0, 0)).expect("all is free");
        assert_eq!(supply.take_share(needs(2, 0, 0)), None);
        let narrow = supply
            .take_share(needs(1, 10 << 20, 0))
            .expect("a slot is free");
        assert_eq!(supply.free_slots(), 0);
        supply.give_back(&wide);
        assert_eq!(supply.take_share(needs(1, 1, 0)), None, "no memory is left");
        supply.give_back(&narrow);
        assert!(supply.take_share(needs(4, 10 << 20, 200)).is_some());
    }

    #[test]
    fn shares_of_a_gpu_fill_one_before_the_next() {
        let mut supply = supply();
        let gpus = |share: &TakenShare| share.gpus.join(",");
        let half = supply.take_share(needs(1, 0, 50)).expect("all is free");
        let other = supply.take_share(needs(1, 0, 50)).expect("a half is free");
        assert_eq!((gpus(&half), gpus(&other)), ("0".into(), "0".into()));
        let whole = supply.take_share(needs(1, 0, 100)).expect("one is free");
        assert_eq!(gpus(&whole), "3");
        assert_eq!(supply.take_share(needs(1, 0, 1)), None);
        supply.give_back(&half);
        assert_eq!(
            supply.take_share(needs(1, 0, 100)),
            None,
            "half of it is taken"
        );
        supply.give_back(&other);
        supply.give_back(&whole);
        let both = supply.take_share(needs(1, 0, 200)).expect("both are free");
        assert_eq!(gpus(&both), "0,3");
    }

    #[test]
    fn what_a_worker_never_has_is_told_with_numbers() {
        let supply = supply();
        for (needs, why) in [
            (
                needs(5, 0, 0),
                "5 slots, and this worker has 4: start one with --slots 5",
            ),
            (
                needs(1, 11 << 20, 0),
                "11 MiB of memory, and this worker has 10 MiB",
            ),
            (
                needs(1, 0, 300),
                "a trial takes GPUs: 3, and this worker has 2: start",
            ),
        ] {
            let told = supply.explain_lack(needs).expect("too much");
            assert!(told.contains(why), "{told}");
        }
        assert_eq!(supply.explain_lack(needs(4, 10 << 20, 200)), None);
        let none = Supply::new(1, None, Vec::new());
        assert_eq!(none.explain_lack(needs(1, u64::MAX, 0)), None);
        let told = none.explain_lack(needs(1, 0, 50)).expect("no GPU");
        assert!(
            told.contains("takes a share of a GPU, and this worker has 0: start"),
            "{told}"
        );
    }
}
