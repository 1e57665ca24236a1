//! Random streams: ChaCha with 8 rounds under a key of BLAKE3, and the numbers that are drawn from them.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2};

const CONTEXT: &str = "ergodic 2026 random streams v1";

/// The words of a key stream, in order.
pub(super) struct PlainStream {
    key: [u32; 8],
    block: u64,
    words: [u32; 16],
    used: usize,
}

/// A key that is put together from pairs of a name and a value.
fn hash_key(parts: &[(&str, &[u8])]) -> [u32; 8] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for (name, value) in parts {
        for bytes in [name.as_bytes(), value] {
            hasher.update(&(bytes.len() as u32).to_le_bytes());
            hasher.update(bytes);
        }
    }
    let bytes = hasher.finalize();
    let bytes = bytes.as_bytes();

    let mut key = [0; 8];
    for (i, word) in key.iter_mut().enumerate() {
        let four = [0, 1, 2, 3].map(|at| bytes[4 * i + at]);
        *word = u32::from_le_bytes(four);
    }
    key
}

impl PlainStream {
    /// The stream of a purpose in the first repeat of a sweep with default seeds.
    pub(super) fn open(seed: u64, purpose: &str, detail: &[u8]) -> Self {
        let once = matches!(purpose, "subset" | "probe" | "label-noise");
        let how = if once { "once" } else { "each" };
        Self::with_key(hash_key(&[
            ("seed", &seed.to_le_bytes()),
            ("purpose", purpose.as_bytes()),
            (how, &0_u32.to_le_bytes()),
            ("detail", detail),
        ]))
    }

    /// A stream that belongs to no trial, such as that of generated images.
    pub(super) fn fixed(name: &str, number: u64) -> Self {
        Self::with_key(hash_key(&[
            ("seed", &0_u64.to_le_bytes()),
            ("purpose", name.as_bytes()),
            ("detail", &number.to_le_bytes()),
        ]))
    }

    fn with_key(key: [u32; 8]) -> Self {
        Self {
            key,
            block: 0,
            words: [0; 16],
            used: 16,
        }
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        if self.used == 16 {
            self.words = compute_block(self.key, self.block);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        let high = u64::from(self.next_u32());
        (high << 32) | low
    }

    pub(super) fn next_uniform(&mut self) -> f64 {
        to_uniform(self.next_u64())
    }

    pub(super) fn next_below(&mut self, n: u32) -> u32 {
        let least = (1_u64 << 32) % u64::from(n);
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            if product & 0xffff_ffff >= least {
                return (product >> 32) as u32;
            }
        }
    }

    pub(super) fn shuffle(&mut self, items: &mut [usize]) {
        for i in (1..items.len()).rev() {
            let j = self.next_below(i as u32 + 1) as usize;
            items.swap(i, j);
        }
    }

    pub(super) fn next_normal(&mut self, table: &ZigguratTable) -> f64 {
        loop {
            let bits = self.next_u64();
            let layer = (bits % 256) as usize;
            let x = (2.0 * to_uniform(bits) - 1.0) * table.ends[layer];
            if x.abs() < table.ends[layer + 1] {
                return x;
            }
            if layer == 0 {
                return self.next_tail().copysign(x);
            }
            let (low, high) = (table.heights[layer], table.heights[layer + 1]);
            if low + (high - low) * self.next_uniform() < density(x) {
                return x;
            }
        }
    }

    fn next_tail(&mut self) -> f64 {
        loop {
            let a = -libm::log(1.0 - self.next_uniform()) / TAIL;
            let b = -libm::log(1.0 - self.next_uniform());
            if 2.0 * b > a * a {
                return TAIL + a;
            }
        }
    }
}

fn to_uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn compute_block(key: [u32; 8], block: u64) -> [u32; 16] {
    let mut start = [0; 16];
    start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    start[4..12].copy_from_slice(&key);
    (start[12], start[13]) = (block as u32, (block >> 32) as u32);

    let mut words = start;
    for _ in 0..4 {
        for i in 0..4 {
            mix_quarter(&mut words, [i, 4 + i, 8 + i, 12 + i]);
        }
        for i in 0..4 {
            let diagonal = [i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4];
            mix_quarter(&mut words, diagonal);
        }
    }
    for (word, start) in words.iter_mut().zip(start) {
        *word = word.wrapping_add(start);
    }
    words
}

fn mix_quarter(words: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (first, second) in [(16, 12), (8, 7)] {
        words[a] = words[a].wrapping_add(words[b]);
        words[d] = (words[d] ^ words[a]).rotate_left(first);
        words[c] = words[c].wrapping_add(words[d]);
        words[b] = (words[b] ^ words[c]).rotate_left(second);
    }
}

/// Where the tail of the normal distribution begins.
const TAIL: f64 = 3.654_152_885_361_009;

fn density(x: f64) -> f64 {
    libm::exp((-0.5 * x) * x)
}

/// The layers of the ziggurat.
pub(super) struct ZigguratTable {
    ends: [f64; 257],
    heights: [f64; 257],
}

impl ZigguratTable {
    pub(super) fn new() -> Self {
        let mut ends = [0.0; 257];
        let tail = libm::sqrt(FRAC_PI_2) * libm::erfc(TAIL * FRAC_1_SQRT_2);
        let area = TAIL * density(TAIL) + tail;
        ends[0] = area / density(TAIL);
        ends[1] = TAIL;
        for at in 2..256 {
            let height = area / ends[at - 1] + density(ends[at - 1]);
            ends[at] = libm::sqrt(-2.0 * libm::log(height));
        }

        Self {
            ends,
            heights: ends.map(density),
        }
    }
}
