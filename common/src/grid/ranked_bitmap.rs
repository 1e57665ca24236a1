//! A bitmap of the kept cells, with counts to find the n-th one.

/// A bitmap with one bit per position, and counts to find the n-th set bit.
#[derive(Debug, Clone)]
pub(super) struct RankedBitmap {
    words: Vec<u64>,
    /// Number of set bits before each block of [`BLOCK_WORDS`] words.
    ranks: Vec<u32>,
    pub(super) count: u64,
}

const BLOCK_WORDS: usize = 8;

impl RankedBitmap {
    pub(super) fn new(len: u64) -> Self {
        Self {
            words: vec![0; len as usize / 64 + 1],
            ranks: Vec::new(),
            count: 0,
        }
    }

    pub(super) fn set(&mut self, at: u64) {
        self.words[at as usize / 64] |= 1 << (at % 64);
    }

    pub(super) fn get(&self, at: u64) -> bool {
        self.words[at as usize / 64] >> (at % 64) & 1 == 1
    }

    /// Hashes which bits are set.
    pub(super) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        for word in &self.words {
            hasher.update(&word.to_le_bytes());
        }
    }

    pub(super) fn build_ranks(&mut self) {
        for block in self.words.chunks(BLOCK_WORDS) {
            self.ranks.push(self.count as u32);
            self.count += block.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
        }
    }

    /// Number of set bits before `at`.
    pub(super) fn rank(&self, at: u64) -> u64 {
        let word = at as usize / 64;
        let block = word / BLOCK_WORDS;
        let whole: u32 = self.words[block * BLOCK_WORDS..word]
            .iter()
            .map(|w| w.count_ones())
            .sum();
        let part = (self.words[word] & ((1 << (at % 64)) - 1)).count_ones();
        u64::from(self.ranks[block] + whole + part)
    }

    /// Position of the `n`-th set bit, `n` < `count`.
    pub(super) fn select(&self, n: u64) -> u64 {
        let block = self.ranks.partition_point(|r| u64::from(*r) <= n) - 1;
        let mut left = n as u32 - self.ranks[block];
        let mut word = block * BLOCK_WORDS;
        while self.words[word].count_ones() <= left {
            left -= self.words[word].count_ones();
            word += 1;
        }

        let mut bits = self.words[word];
        (0..left).for_each(|_| bits &= bits - 1);
        word as u64 * 64 + u64::from(bits.trailing_zeros())
    }
}
