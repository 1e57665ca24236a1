//! Checkpoints: the state of a trial between two steps. A trial that resumes ends with the same
//! bits on any machine.

use super::Job;
use ergodic_common::ids::TrialIdentity;

/// A store for the checkpoints of unfinished trials.
pub trait CheckpointStore: Sync {
    /// Loads all checkpoints saved under this identity, in any order. The caller ignores those that
    /// do not fit.
    fn load_checkpoints(&self, identity: TrialIdentity) -> Vec<Vec<u8>>;
    /// Whether to save the trial now, after `steps` steps.
    fn should_save(&self, steps: u64) -> bool;
    /// Saves a checkpoint, which replaces earlier ones of the trial.
    fn save_checkpoint(&self, identity: TrialIdentity, steps: u64, checkpoint: Vec<u8>);
    /// Whether a trial that must stop should do so at once, instead of finishing its step and
    /// saving a checkpoint.
    fn should_stop_at_once(&self) -> bool;
    /// Discards the checkpoints of a trial that has ended.
    fn discard_checkpoints(&self, identity: TrialIdentity);
}

/// The key with which trial identities are hashed. Its version is raised with every change of the checkpoint's format, so that
/// older checkpoints fit no trial.
const IDENTITY_CONTEXT: &str = "ergodic 2026 checkpoint v3";

/// The hash of all that a trial's result is a function of; a checkpoint fits trials of the same identity only.
pub(crate) fn compute_trial_identity(job: &Job<'_>) -> TrialIdentity {
    let mut hasher = blake3::Hasher::new_derive_key(IDENTITY_CONTEXT);
    let described = format!(
        "{} {:?} {:?} {:?} {:?}",
        job.numerics_class(),
        job.key,
        job.config,
        job.streams,
        job.measure
    );

    hasher.update(described.as_bytes()).finalize().into()
}

/// Encodes a checkpoint as a sequence of numbers.
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

    /// Returns the bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends a hash and returns the bytes.
    pub(crate) fn finish_with_hash(mut self) -> Vec<u8> {
        let hash = *blake3::hash(&self.bytes).as_bytes();
        self.bytes.extend(hash);
        self.bytes
    }
}

/// Opens a checkpoint; returns the number of completed steps and a decoder for the rest. `None` if
/// it is damaged, or belongs to another trial or format.
pub(crate) fn open_checkpoint<'a>(
    checkpoint: &'a [u8],
    identity: TrialIdentity,
) -> Option<(u64, CheckpointDecoder<'a>)> {
    let mut decoder = CheckpointDecoder::new(checkpoint)?;
    decoder.read_bytes().filter(|found| *found == identity.0)?;
    Some((decoder.read_u64()?, decoder))
}

/// Decodes what a [`CheckpointEncoder`] wrote. Every method returns `None` at the end of the data.
pub(crate) struct CheckpointDecoder<'a> {
    bytes: &'a [u8],
}

impl<'a> CheckpointDecoder<'a> {
    /// Checks the hash at the end; `None` if the bytes are damaged.
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

    /// Whether all data has been read.
    pub(crate) fn is_fully_read(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::config::{HyperparamChange, Length, ScheduleStep};
    use ergodic_common::ids::{CellHash, CellIndex, FileHash};
    use ergodic_common::pinned_file::FilePin;
    use ergodic_common::spec::SpecSource;
    use ergodic_common::{Spec, TrialKey};

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

    /// Checkpoints of earlier builds are found under this identity: names of structs, fields and variants are part of it.
    #[test]
    fn the_identity_of_a_trial_never_changes() {
        let text = "name = \"pinned\"\nseed = 7\nrepeats = 6\n\
            seeds = { per_cell = [\"augment\"], fixed = [\"head\"], crossed = { init = 2, order = 3 } }\n\
            [data]\ndataset = \"cifar10\"\ntrain = 1000\ntest = 500\nvalidation = 100\norder = \"with-replacement\"\n\
            augment = \"crop-flip\"\nlabel_noise = 0.1\nstandardize = false\n\
            [model]\nkind = \"cnn4\"\nwidth = 8\nnorm = \"group\"\ngroups = 2\nnorm_eps = 1e-4\naffine = true\nfixed_head = true\n\
            [model.init]\nfile = \"start.safetensors\"\nscale = 0.5\n\
            [train]\nepochs = 4\nbatch_size = 50\nlr = 0.1\nwd = 1e-4\nwd_on = \"weights\"\n\
            schedule = { kind = \"cosine\", end = \"x0.1\", warmup = \"1 epoch\" }\n\
            average = { kind = \"ema\", decay = 0.9, from_epoch = 1, every = \"2 steps\" }\n\
            loss = { kind = \"cross-entropy\", label_smoothing = 0.1 }\n\
            optimizer = { kind = \"adamw\", beta1 = 0.8, beta2 = 0.99, eps = 1e-7 }\n\
            [measure]\nevery = \"1 epoch\"\nmetrics = [\"test_acc\", \"train_loss\", \"val_loss\"]\nstatistics = \"running\"\n\
            save = [\"final\"]\nprobe = { points = 20, at = [\"1 epoch\", \"5 steps\", \"final\"] }\n";
        let source = SpecSource {
            file: "pinned.toml".into(),
            text: text.into(),
            files: vec![FilePin {
                path: "start.safetensors".into(),
                hash: FileHash([3; 32]),
                images: None,
            }],
            ..SpecSource::default()
        };
        let spec = Spec::read_stored(&source).expect("a valid sweep");
        let key = TrialKey::new(0, 4);
        let mut config = spec.grid.resolve_config(CellIndex(0)).expect("a cell");
        config.model.layer_scales = vec![("conv1".into(), 2.0)];
        config.model.zero_residual = true;
        config.train.nesterov = true;
        config.train.schedule = vec![ScheduleStep {
            from: Length::Steps(7),
            lr: Some(HyperparamChange::Times(0.5)),
            wd: Some(HyperparamChange::Set(0.01)),
            momentum: Some(HyperparamChange::Set(0.3)),
        }];
        let streams = spec.trial_streams(key, CellHash([5; 32]));

        let job = crate::train::Job {
            config: &config,
            streams: &streams,
            measure: &spec.measure,
            data: None,
            initial_weights: None,
            key,
            isa: crate::train::Isa::Portable,
            candle_device: None,
            thread_pool: None,
            checkpoint_store: None,
            deadline: None,
        };
        assert_eq!(
            compute_trial_identity(&job).to_string(),
            "1a65b875abc3b8d7f922fd429abaeff9a159a171fcaa7ded94aa73eb45537efa"
        );
    }
}
