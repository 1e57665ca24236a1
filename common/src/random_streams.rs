//! The random streams of all random choices.
//!
//! Each choice has a stream of its own, keyed by (sweep seed, purpose, repeat) and further data of
//! the purpose. By default all cells share the streams of a repeat (common random numbers), so that
//! cells can be compared pairwise. A stream is ChaCha8 under a key derived with BLAKE3. Normal
//! variates come from a ziggurat (`normal.rs`) in f64 with `libm`, so that every machine draws the
//! same bits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ids::{CellHash, Repeat};
use crate::normal::{self, unit_uniform};

/// The purpose of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Initial values of trained weights; further keyed by tensor name.
    Init,
    /// Initial values of the head; further keyed by tensor name.
    Head,
    /// The permutation of an epoch, or the draws of a step; further keyed by its number.
    Order,
    /// The transforms of the images of an epoch, or of a step; further keyed by its number.
    Augment,
    /// The batches and directions of gradient noise and curvature; further keyed by the step.
    Measure,
    /// The images that trials use. Ignores the repeat.
    Subset,
    /// The training images with a wrong label; further keyed by the image. Ignores the repeat.
    LabelNoise,
    /// The test images whose predictions are kept. Ignores the repeat.
    Probe,
    /// The made-up results of an empty trial.
    Empty,
    /// The trials of a resample for a statistic; further keyed by the cells. Ignores the repeat.
    Bootstrap,
    /// The seed of a program's trial.
    Program,
}

/// Purposes that a sweep file may name in `seeds`.
pub const NAMED_PURPOSES: [(&str, Purpose); 4] = [
    ("init", Purpose::Init),
    ("head", Purpose::Head),
    ("order", Purpose::Order),
    ("augment", Purpose::Augment),
];

impl Purpose {
    /// The name of the purpose, which enters the key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Head => "head",
            Self::Order => "order",
            Self::Augment => "augment",
            Self::Measure => "measure",
            Self::Subset => "subset",
            Self::LabelNoise => "label-noise",
            Self::Probe => "probe",
            Self::Empty => "empty",
            Self::Bootstrap => "bootstrap",
            Self::Program => "program",
        }
    }
}

/// Streams that depart from the default, `seeds = { per_cell = […], fixed = […], crossed = { … } }`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeedPlan {
    /// Streams that differ from cell to cell.
    pub per_cell: Vec<Purpose>,
    /// Streams that are the same in all repeats.
    pub fixed: Vec<Purpose>,
    /// Crossed streams and their numbers, in the order of [`NAMED_PURPOSES`]. Each combination
    /// occurs equally often.
    pub crossed: Vec<(Purpose, u32)>,
}

impl SeedPlan {
    /// The number of the stream that a purpose uses in a repeat. For crossed purposes it is a digit
    /// of the repeat's number; the last purpose changes fastest.
    pub fn stream_number(&self, purpose: Purpose, repeat: Repeat) -> u32 {
        let mut rest = repeat.0;
        for (crossed, count) in self.crossed.iter().rev() {
            if *crossed == purpose {
                return rest % count;
            }
            rest /= count;
        }
        repeat.0
    }

    /// Number of repeats in which every crossed stream meets every other one once; 1 if none is
    /// crossed.
    pub fn combination_count(&self) -> u64 {
        self.crossed.iter().fold(1, |product, (_, count)| {
            product.saturating_mul(u64::from(*count))
        })
    }

    /// The plan as part of a cell's identity. Fields of later versions appear only if they are
    /// used, so that old cells keep their identity.
    pub fn identity_text(&self) -> String {
        let Self {
            per_cell,
            fixed,
            crossed,
        } = self;
        let crossed = if crossed.is_empty() {
            String::new()
        } else {
            format!(", crossed: {crossed:?}")
        };

        format!("SeedPlan {{ per_cell: {per_cell:?}, fixed: {fixed:?}{crossed} }}")
    }
}

/// The streams of one trial.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The sweep's seed.
    pub sweep_seed: u64,
    /// Number of the repeat.
    pub repeat: Repeat,
    /// Hash of the cell, which keys the streams that `plan` makes differ per cell.
    pub cell: CellHash,
    /// Departures from the default.
    pub plan: SeedPlan,
}

impl Streams {
    /// Opens the stream for `purpose`, further keyed by `detail`, such as a tensor's name or an
    /// epoch's number.
    pub fn open_stream(&self, purpose: Purpose, detail: &[u8]) -> RandomStream {
        let mut key = StreamKey::new(self.sweep_seed, purpose.as_str());
        let once = matches!(
            purpose,
            Purpose::Subset | Purpose::Probe | Purpose::LabelNoise | Purpose::Bootstrap
        ) || self.plan.fixed.contains(&purpose);
        let number = self.plan.stream_number(purpose, self.repeat);
        key.add_part(
            if once { b"once" } else { b"each" },
            &if once { 0 } else { number }.to_le_bytes(),
        );

        if self.plan.per_cell.contains(&purpose) {
            key.add_part(b"cell", &self.cell.0);
        }

        key.add_part(b"detail", detail);
        RandomStream {
            rng: ChaCha8Rng::from_seed(key.finish()),
        }
    }
}

/// The key of a random axis. Its draws do not depend on their number.
pub fn axis_key(sweep_seed: u64, axis: &str) -> [u8; 32] {
    let mut key = StreamKey::new(sweep_seed, "axis");
    key.add_part(b"detail", axis.as_bytes());
    key.finish()
}

/// The `i`-th uniform number under `key`, in [0, 1).
pub fn uniform_at(key: &[u8; 32], i: u64) -> f64 {
    let mut rng = ChaCha8Rng::from_seed(*key);
    rng.set_word_pos(2 * u128::from(i));
    unit_uniform(rng.next_u64())
}

/// The uniform number in [0, 1) that decides whether a trial is audited.
pub fn audit_draw(sweep_seed: u64, cell: CellHash, repeat: Repeat) -> f64 {
    let mut key = StreamKey::new(sweep_seed, "audit");
    key.add_part(b"cell", &cell.0);
    key.add_part(b"each", &repeat.0.to_le_bytes());
    uniform_at(&key.finish(), 0)
}

/// The stream of something that belongs to no trial, such as the `i`-th generated image.
pub fn fixed_stream(name: &str, i: u64) -> RandomStream {
    let mut key = StreamKey::new(0, name);
    key.add_part(b"detail", &i.to_le_bytes());
    RandomStream {
        rng: ChaCha8Rng::from_seed(key.finish()),
    }
}

struct StreamKey(blake3::Hasher);

impl StreamKey {
    fn new(sweep_seed: u64, purpose: &str) -> Self {
        let mut key = Self(blake3::Hasher::new_derive_key(
            "ergodic 2026 random streams v1",
        ));
        key.add_part(b"seed", &sweep_seed.to_le_bytes());
        key.add_part(b"purpose", purpose.as_bytes());
        key
    }

    /// Hashes lengths before contents, so that different lists of parts have different hashes.
    fn add_part(&mut self, name: &[u8], value: &[u8]) {
        self.0
            .update(&(name.len() as u32).to_le_bytes())
            .update(name);
        self.0
            .update(&(value.len() as u32).to_le_bytes())
            .update(value);
    }

    fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct RandomStream {
    rng: ChaCha8Rng,
}

impl RandomStream {
    /// A uniform number in [0, 1), with 53 bits.
    pub fn next_uniform(&mut self) -> f64 {
        unit_uniform(self.rng.next_u64())
    }

    /// A uniform number in {0, …, n − 1}, without bias (Lemire 2019). `n` must be at least 1.
    pub fn next_below(&mut self, n: u32) -> u32 {
        loop {
            let product = u64::from(self.rng.next_u32()) * u64::from(n);
            // Rejects draws whose low half is below 2^32 mod n, which would favour some values. The
            // comparison with n avoids the division for most draws.
            if product as u32 >= n || product as u32 >= n.wrapping_neg() % n {
                return (product >> 32) as u32;
            }
        }
    }

    /// A standard normal number.
    pub fn next_normal(&mut self) -> f64 {
        normal::draw_normal(&mut self.rng)
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.next_below(i as u32 + 1) as usize;
            items.swap(i, j);
        }
    }

    /// The next 32 random bytes.
    pub fn next_bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use crate::random_streams::*;

    fn streams(repeat: u32, plan: SeedPlan) -> Streams {
        Streams {
            sweep_seed: 20,
            repeat: Repeat(repeat),
            cell: CellHash([repeat as u8; 32]),
            plan,
        }
    }

    fn first(s: &Streams, purpose: Purpose, detail: &[u8]) -> [u8; 32] {
        s.open_stream(purpose, detail).next_bytes()
    }

    #[test]
    fn streams_differ_by_purpose_repeat_and_detail_only() {
        let a = streams(1, SeedPlan::default());
        let b = Streams {
            cell: CellHash([9; 32]),
            ..a.clone()
        };
        assert_eq!(
            first(&a, Purpose::Init, b"w"),
            first(&b, Purpose::Init, b"w")
        );

        assert_ne!(
            first(&a, Purpose::Init, b"w"),
            first(&a, Purpose::Init, b"v")
        );
        assert_ne!(
            first(&a, Purpose::Init, b"w"),
            first(&a, Purpose::Order, b"w")
        );

        let c = streams(2, SeedPlan::default());
        assert_ne!(
            first(&a, Purpose::Init, b"w"),
            first(&c, Purpose::Init, b"w")
        );

        assert_eq!(
            first(&a, Purpose::Subset, b""),
            first(&c, Purpose::Subset, b"")
        );
    }

    #[test]
    fn a_plan_fixes_or_breaks_single_streams() {
        let fixed = SeedPlan {
            fixed: vec![Purpose::Init],
            ..SeedPlan::default()
        };
        let a = streams(1, fixed.clone());
        let b = streams(2, fixed);
        assert_eq!(
            first(&a, Purpose::Init, b"w"),
            first(&b, Purpose::Init, b"w")
        );

        assert_ne!(
            first(&a, Purpose::Order, b"w"),
            first(&b, Purpose::Order, b"w")
        );
        let broken = SeedPlan {
            per_cell: vec![Purpose::Init],
            ..SeedPlan::default()
        };
        let a = streams(1, broken);
        let b = Streams {
            cell: CellHash([9; 32]),
            ..a.clone()
        };

        assert_ne!(
            first(&a, Purpose::Init, b"w"),
            first(&b, Purpose::Init, b"w")
        );
    }

    #[test]
    fn crossed_streams_meet_each_other_once() {
        let crossed = vec![(Purpose::Init, 3), (Purpose::Order, 2)];
        let plan = SeedPlan {
            crossed,
            ..SeedPlan::default()
        };
        assert_eq!(plan.combination_count(), 6);

        let of = |repeat, purpose| first(&streams(repeat, plan.clone()), purpose, b"w");
        let pairs: std::collections::BTreeSet<_> = (0..6)
            .map(|repeat| (of(repeat, Purpose::Init), of(repeat, Purpose::Order)))
            .collect();
        assert_eq!(pairs.len(), 6);
        assert_eq!(
            (of(2, Purpose::Init), of(0, Purpose::Order)),
            (of(3, Purpose::Init), of(2, Purpose::Order))
        );

        // The next six are the same again, but for what is not crossed.
        assert_eq!(
            (of(1, Purpose::Init), of(1, Purpose::Order)),
            (of(7, Purpose::Init), of(7, Purpose::Order))
        );
        assert_ne!(of(1, Purpose::Augment), of(7, Purpose::Augment));

        // The first ones are those of a sweep that crosses nothing.
        let plain = streams(1, SeedPlan::default());
        assert_eq!(of(2, Purpose::Init), first(&plain, Purpose::Init, b"w"));
        assert_ne!(plan.identity_text(), SeedPlan::default().identity_text());
        assert_eq!(
            SeedPlan::default().identity_text(),
            "SeedPlan { per_cell: [], fixed: [] }"
        );
    }

    /// Pinned, because every published result hangs on them.
    #[test]
    fn the_first_draws_never_change() {
        let mut s = streams(0, SeedPlan::default()).open_stream(Purpose::Init, b"conv1.weight");
        let draws = [s.next_normal(), s.next_normal(), s.next_uniform()];
        assert_eq!(
            draws.map(f64::to_bits),
            GOLDEN.map(f64::to_bits),
            "{draws:?}"
        );
    }
    const GOLDEN: [f64; 3] = [
        -0.8220829674102186,
        0.041418290087016287,
        0.08966110198778965,
    ];

    #[test]
    fn moments_and_ranges_are_right() {
        let mut s = streams(3, SeedPlan::default()).open_stream(Purpose::Init, b"");
        let n = 200_000;
        let draws: Vec<f64> = (0..n).map(|_| s.next_normal()).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let var = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n);
        assert!(
            mean.abs() < 0.01 && (var - 1.0).abs() < 0.02,
            "{mean} {var}"
        );

        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[s.next_below(7) as usize] += 1);
        assert!(
            counts.iter().all(|c| (9_500..10_500).contains(c)),
            "{counts:?}"
        );
    }
}
