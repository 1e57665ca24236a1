//! The state of a trial between two steps: what is needed to end it with the same bits, on this machine or another.

use super::Job;

/// Where unfinished trials are kept.
pub trait CheckpointStore: Sync {
    /// All that was kept under this identity, in any order; what does not fit is passed over.
    fn load_checkpoints(&self, identity: &[u8; 32]) -> Vec<Vec<u8>>;
    /// Whether to keep the trial now, after so many steps.
    fn should_save(&self, steps: u64) -> bool;
    /// Keeps a trial in place of what was kept of it before.
    fn save_checkpoint(&self, identity: &[u8; 32], steps: u64, checkpoint: Vec<u8>);
    /// Whether a trial that is to stop does so at once, and is not to reach the end of its step to be kept there.
    fn should_stop_at_once(&self) -> bool;
    /// The trial has ended: nothing of it is needed any more.
    fn discard_checkpoints(&self, identity: &[u8; 32]);
}

/// What a trial's result is a function of, hashed: a checkpoint is of no use to another one. A change of what is packed gets
/// another key, so that an older form does not fit.
pub(crate) fn compute_trial_identity(job: &Job<'_>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 checkpoint v3");
    let described = format!(
        "{} {:?} {:?} {:?} {:?}",
        job.numerics_class(),
        job.key,
        job.config,
        job.streams,
        job.measure
    );

    *hasher.update(described.as_bytes()).finalize().as_bytes()
}

/// Writes numbers one after the other.
#[derive(Debug, Default)]
pub(crate) struct CheckpointEncoder {
    bytes: Vec<u8>,
}

impl CheckpointEncoder {
    pub(crate) fn write_u64(&mut self, x: u64) {
        self.bytes.extend(x.to_le_bytes());
    }

    pub(crate) fn write_f64(&mut self, x: f64) {
        self.write_u64(x.to_bits());
    }

    pub(crate) fn write_f32s(&mut self, all: &[f32]) {
        self.write_u64(all.len() as u64);
        self.bytes
            .extend(all.iter().flat_map(|x| x.to_bits().to_le_bytes()));
    }

    pub(crate) fn write_f64s(&mut self, all: &[f64]) {
        self.write_u64(all.len() as u64);
        all.iter().for_each(|x| self.write_f64(*x));
    }

    pub(crate) fn write_u64s(&mut self, all: &[u64]) {
        self.write_u64(all.len() as u64);
        all.iter().for_each(|x| self.write_u64(*x));
    }

    pub(crate) fn write_bytes(&mut self, all: &[u8]) {
        self.write_u64(all.len() as u64);
        self.bytes.extend(all);
    }

    /// All of it, with a hash at the end.
    pub(crate) fn finish_with_hash(mut self) -> Vec<u8> {
        let hash = *blake3::hash(&self.bytes).as_bytes();
        self.bytes.extend(hash);
        self.bytes
    }
}

/// Reads a checkpoint of this trial: the steps that are done, and what follows. `None` if it is damaged, or of another trial
/// or form.
pub(crate) fn open_checkpoint<'a>(
    checkpoint: &'a [u8],
    identity: &[u8; 32],
) -> Option<(u64, CheckpointDecoder<'a>)> {
    let mut unpacker = CheckpointDecoder::new(checkpoint)?;
    unpacker.read_bytes().filter(|found| found == identity)?;
    Some((unpacker.read_u64()?, unpacker))
}

/// Reads what a [`Packer`] wrote. Everything is `None` once something is missing.
pub(crate) struct CheckpointDecoder<'a> {
    bytes: &'a [u8],
}

impl<'a> CheckpointDecoder<'a> {
    /// `None` if the bytes are not those that were written.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let (bytes, hash) = bytes.split_last_chunk::<32>()?;
        (blake3::hash(bytes).as_bytes() == hash).then_some(Self { bytes })
    }

    pub(crate) fn read_u64(&mut self) -> Option<u64> {
        let (first, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(u64::from_le_bytes(*first))
    }

    pub(crate) fn read_f64(&mut self) -> Option<f64> {
        self.read_u64().map(f64::from_bits)
    }

    pub(crate) fn read_f32s(&mut self) -> Option<Vec<f32>> {
        let len = usize::try_from(self.read_u64()?).ok()?;
        let (these, rest) = self.bytes.split_at_checked(len.checked_mul(4)?)?;
        self.bytes = rest;
        let (singles, _) = these.as_chunks();
        Some(
            singles
                .iter()
                .map(|x| f32::from_bits(u32::from_le_bytes(*x)))
                .collect(),
        )
    }

    pub(crate) fn read_bytes(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.read_u64()?).ok()?;
        let (these, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(these.to_vec())
    }

    pub(crate) fn read_f64s(&mut self) -> Option<Vec<f64>> {
        Some(self.read_u64s()?.into_iter().map(f64::from_bits).collect())
    }

    pub(crate) fn read_u64s(&mut self) -> Option<Vec<u64>> {
        let len = self.read_u64()?;
        (0..len).map(|_| self.read_u64()).collect()
    }

    /// Whether all has been read.
    pub(crate) fn is_fully_read(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crate::train::checkpoint::*;

    #[test]
    fn numbers_come_back_and_damage_is_noticed() {
        let mut packer = CheckpointEncoder::default();
        packer.write_u64(7);
        packer.write_f64(-0.0);
        packer.write_f32s(&[1.5, f32::MIN_POSITIVE]);
        packer.write_f64s(&[f64::NAN]);
        packer.write_u64s(&[u64::MAX]);

        packer.write_bytes(&[1, 2, 3]);
        let bytes = packer.finish_with_hash();
        let mut unpacker = CheckpointDecoder::new(&bytes).expect("nothing was changed");
        assert_eq!(
            (unpacker.read_u64(), unpacker.read_f64().map(f64::to_bits)),
            (Some(7), Some((-0.0_f64).to_bits()))
        );

        assert_eq!(unpacker.read_f32s(), Some(vec![1.5, f32::MIN_POSITIVE]));
        assert!(
            unpacker
                .read_f64s()
                .is_some_and(|x| x.len() == 1 && x[0].is_nan())
        );

        assert_eq!(unpacker.read_u64s(), Some(vec![u64::MAX]));
        assert_eq!(
            (unpacker.read_bytes(), unpacker.is_fully_read()),
            (Some(vec![1, 2, 3]), true)
        );
        assert_eq!(unpacker.read_u64(), None);

        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(CheckpointDecoder::new(&damaged).is_none());
            assert!(CheckpointDecoder::new(&bytes[..at]).is_none());
        }
    }
}
