//! The threads that share one trial's work.

use super::aligned_buffer::AlignedBuffer;

/// The number of threads to use of the pool that the trial runs in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parallelism {
    threads: usize,
}

impl Parallelism {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
        }
    }

    /// Creates one workspace per thread.
    pub(crate) fn make_workspaces<W>(self, workspace: impl Fn() -> W) -> Vec<W> {
        (0..self.threads).map(|_| workspace()).collect()
    }

    /// Processes every item in a workspace, as many at a time as there are workspaces, and merges
    /// the workspaces in the order of the items. Item i always uses workspace i mod their number.
    pub(crate) fn process_and_merge<I: Send, W: Send>(
        self,
        workspaces: &mut [W],
        mut items: impl Iterator<Item = I>,
        process: impl Fn(&mut W, I) + Sync,
        mut merge: impl FnMut(&mut W),
    ) {
        if let [workspace] = workspaces {
            for item in items {
                process(workspace, item);
                merge(workspace);
            }
            return;
        }

        loop {
            let mut busy = 0;
            rayon::in_place_scope(|scope| {
                for (workspace, item) in workspaces.iter_mut().zip(items.by_ref()) {
                    busy += 1;
                    let process = &process;
                    scope.spawn(move |_| process(workspace, item));
                }
            });

            workspaces[..busy].iter_mut().for_each(&mut merge);
            if busy < workspaces.len() {
                return;
            }
        }
    }
}

/// Splits data into pieces of `len` numbers; yields empty pieces without end if `len` is 0.
pub(crate) fn chunks_or_empty(data: &mut [f32], len: usize) -> impl Iterator<Item = &mut [f32]> {
    let (pieces, empty) = match len {
        0 => (None, Some(std::iter::repeat_with(Default::default))),
        _ => (Some(data.chunks_mut(len)), None),
    };
    pieces
        .into_iter()
        .flatten()
        .chain(empty.into_iter().flatten())
}

/// total ← total + part
pub(crate) fn add_elementwise(total: &mut [f32], part: &AlignedBuffer) {
    total
        .iter_mut()
        .zip(part.iter())
        .for_each(|(sum, x)| *sum += x);
}

#[cfg(test)]
mod tests {
    use crate::train::engine::parallel::*;

    #[test]
    fn work_is_merged_in_the_order_of_the_items() {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .expect("threads can be had");

        for threads in 1..=4 {
            for items in 0..20_u64 {
                let mut merged = Vec::new();
                let parallelism = Parallelism::new(threads);
                pool.install(|| {
                    parallelism.process_and_merge(
                        &mut parallelism.make_workspaces(|| 0),
                        0..items,
                        |slot, i| *slot = i * i,
                        |slot| merged.push(*slot),
                    );
                });

                assert_eq!(merged, (0..items).map(|i| i * i).collect::<Vec<_>>());
            }
        }
    }
}
