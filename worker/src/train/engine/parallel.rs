//! The threads that share one trial's work.

use super::simd::AlignedBuffer;

/// So many threads, of the pool that the trial runs in.
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

    /// One desk per thread.
    pub(crate) fn make_workspaces<D>(self, desk: impl Fn() -> D) -> Vec<D> {
        (0..self.threads).map(|_| desk()).collect()
    }

    /// Works on every item at a desk, as many at a time as there are desks, and takes up what lies on the desks in the
    /// order of the items. Item i is always worked on at desk i mod their number.
    pub(crate) fn process_and_merge<I: Send, D: Send>(
        self,
        desks: &mut [D],
        mut items: impl Iterator<Item = I>,
        work: impl Fn(&mut D, I) + Sync,
        mut take_up: impl FnMut(&mut D),
    ) {
        if let [desk] = desks {
            for item in items {
                work(desk, item);
                take_up(desk);
            }
            return;
        }

        loop {
            let mut busy = 0;
            rayon::in_place_scope(|scope| {
                for (desk, item) in desks.iter_mut().zip(items.by_ref()) {
                    busy += 1;
                    let work = &work;
                    scope.spawn(move |_| work(desk, item));
                }
            });

            desks[..busy].iter_mut().for_each(&mut take_up);
            if busy < desks.len() {
                return;
            }
        }
    }
}

/// Pieces of `len` numbers; empty ones without end where `len` is 0.
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
    fn work_is_taken_up_in_the_order_of_the_items() {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .expect("threads can be had");

        for threads in 1..=4 {
            for items in 0..20_u64 {
                let mut taken = Vec::new();
                let team = Parallelism::new(threads);
                pool.install(|| {
                    team.process_and_merge(
                        &mut team.make_workspaces(|| 0),
                        0..items,
                        |desk, i| *desk = i * i,
                        |desk| taken.push(*desk),
                    );
                });

                assert_eq!(taken, (0..items).map(|i| i * i).collect::<Vec<_>>());
            }
        }
    }
}
