//! Datasets in memory, with one canonical encoding whose BLAKE3 hash identifies the dataset.

pub mod files;
mod formats;
mod glyphs;
pub mod name;
pub mod safetensors;
mod summary;
mod targets;

use std::cmp::Ordering;

pub use glyphs::generate_glyphs;
pub use summary::DatasetSummary;
pub use targets::Target;

use crate::config::DataConfig;
use crate::dataset::name::DatasetName;
use crate::random_streams::{Purpose, RandomStream, Streams};

/// Images, channels last, one byte per channel, with their labels or targets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Images {
    /// `[image, height, width, channel]`
    pub pixels: Vec<u8>,
    /// The pixels as floats, if the dataset has floats; otherwise empty.
    pub floats: Vec<f32>,
    /// One label per image; all are 0 if the images have targets.
    pub labels: Vec<u8>,
    /// `[image, output]`: the targets of a regression; empty if the images have labels.
    pub targets: Vec<f32>,
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// A dataset in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Name of the dataset.
    pub name: DatasetName,
    /// Training images, as many as the files that were read hold.
    pub train: Images,
    /// Test images.
    pub test: Images,
}

/// A dataset that cannot be loaded or used, with a message for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DataError(pub String);

const MAGIC: &[u8; 8] = b"ERGODAT1";

impl Dataset {
    /// The canonical form: magic, name, sizes, then pixels and labels of both parts.
    pub fn encode_canonical(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let name = self.name.as_str().as_bytes();
        bytes.push(name.len() as u8);
        bytes.extend(name);

        for part in [&self.train, &self.test] {
            bytes.extend((part.len() as u32).to_le_bytes());
        }

        for part in [&self.train, &self.test] {
            bytes.extend(&part.pixels);
            bytes.extend(&part.labels);
        }

        bytes
    }

    /// Decodes the canonical encoding. For a dataset in a safetensors file, that is the file
    /// itself.
    ///
    /// # Errors
    /// The bytes have another form, or a label is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, DataError> {
        if !bytes.starts_with(MAGIC) {
            return crate::dataset::safetensors::decode_dataset(bytes);
        }
        Self::try_decode_canonical(bytes)
            .ok_or_else(|| DataError("these bytes are not a dataset in Ergodic's form".into()))
    }

    fn try_decode_canonical(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let len = take_bytes(&mut rest, 1)?[0] as usize;
        let word = std::str::from_utf8(take_bytes(&mut rest, len)?).ok()?;
        let (_, name) = DatasetName::NAMES.into_iter().find(|(w, _)| *w == word)?;
        let train_count = take_count(&mut rest)?;
        let test_count = take_count(&mut rest)?;

        let train = take_images(&mut rest, name, train_count)?;
        let test = take_images(&mut rest, name, test_count)?;
        rest.is_empty().then_some(Self { name, train, test })
    }

    /// Chooses the images that a trial uses, as indices into the training and the test part. The
    /// choice depends on the sweep's seed and is balanced over classes as far as the part allows; a
    /// whole part is used in its own order. Validation images are chosen first, so that they do not
    /// depend on the number of training images.
    ///
    /// # Errors
    /// The config needs more images than there are.
    pub fn choose_subset(
        &self,
        config: &DataConfig,
        streams: &Streams,
    ) -> Result<Subset, DataError> {
        let train = Vec::from_iter(0..self.train.len() as u32);
        let test = Vec::from_iter(0..self.test.len() as u32);
        let choose = |part: &str, from: &[u32], labels: &[u8], n: u32| {
            let stream = streams.open_stream(Purpose::Subset, part.as_bytes());
            choose_images(from, labels, n as usize, stream).ok_or_else(|| {
                let name = self.name.as_str();
                let all = from.len();
                DataError(format!("{name} has {all} {part} images here, not {n}"))
            })
        };
        let validation = choose("validation", &train, &self.train.labels, config.validation)?;

        // Both lists ascend, so a binary search is possible.
        let rest: Vec<u32> = train
            .into_iter()
            .filter(|i| validation.binary_search(i).is_err())
            .collect();
        Ok(Subset {
            train: choose("train", &rest, &self.train.labels, config.train)?,
            test: choose("test", &test, &self.test.labels, config.test)?,
            validation,
        })
    }

    /// Chooses the probe set: at most `points` test images, balanced over classes, by the sweep's
    /// seed. It does not depend on the test images of trials.
    pub fn choose_probe_set(&self, points: u32, streams: &Streams) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.test.len() as u32).collect();
        streams.open_stream(Purpose::Probe, b"").shuffle(&mut order);
        take_balanced(
            &order,
            &self.test.labels,
            (points as usize).min(self.test.len()),
        )
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}

fn take_count(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take_bytes(rest, 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes) as usize)
}

fn take_images(rest: &mut &[u8], name: DatasetName, n: usize) -> Option<Images> {
    let (h, w, c) = name.image_shape();
    let pixels = take_bytes(rest, n.checked_mul((h * w * c) as usize)?)?.to_vec();
    let labels = take_bytes(rest, n)?.to_vec();
    labels
        .iter()
        .all(|label| u32::from(*label) < name.class_count())
        .then_some(Images {
            pixels,
            labels,
            ..Images::default()
        })
}

/// Indices of the images a trial uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Indices into the training part, ascending.
    pub train: Vec<u32>,
    /// Indices into the test part, ascending.
    pub test: Vec<u32>,
    /// Indices into the training part, ascending and disjoint from `train`.
    pub validation: Vec<u32>,
}

/// Chooses `n` images of `from`, balanced over classes, or all of them in their own order. `None`
/// if there are fewer.
fn choose_images(
    from: &[u32],
    labels: &[u8],
    n: usize,
    mut stream: RandomStream,
) -> Option<Vec<u32>> {
    let mut order = from.to_vec();
    match n.cmp(&from.len()) {
        Ordering::Greater => None,
        Ordering::Equal => Some(order),
        Ordering::Less => {
            stream.shuffle(&mut order);
            Some(take_balanced(&order, labels, n))
        }
    }
}

/// Takes `n` of `order` in rounds of one per class, so that classes differ by at most one while
/// their images last.
fn take_balanced(order: &[u32], labels: &[u8], n: usize) -> Vec<u32> {
    let mut by_class: Vec<std::collections::VecDeque<u32>> = vec![Default::default(); 256];
    for i in order {
        by_class[labels[*i as usize] as usize].push_back(*i);
    }

    let mut chosen = Vec::with_capacity(n);
    while chosen.len() < n {
        for class in &mut by_class {
            if chosen.len() < n {
                chosen.extend(class.pop_front());
            }
        }
    }

    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use crate::dataset::*;
    use crate::ids::{CellHash, Repeat};
    use crate::random_streams::SeedPlan;

    fn small() -> Dataset {
        let mut data = generate_glyphs();
        for part in [&mut data.train, &mut data.test] {
            part.pixels.truncate(784 * 300);
            part.labels.truncate(300);
        }
        data
    }

    #[test]
    fn the_canonical_form_reads_back_and_refuses_anything_else() {
        let data = small();
        let bytes = data.encode_canonical();
        assert_eq!(Dataset::decode(&bytes).expect("reads back"), data);

        for cut in [0, 7, 8, 12, 20, bytes.len() - 1] {
            assert!(Dataset::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }

        let mut bad_label = bytes.clone();
        *bad_label.last_mut().expect("not empty") = 10;
        assert!(Dataset::decode(&bad_label).is_err());
        assert!(Dataset::decode(&[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn subsets_are_balanced_reproducible_and_chosen_by_the_seed() {
        let data = small();
        let config = DataConfig::new(DatasetName::Glyphs, 100, 300);
        let streams = |seed| Streams {
            sweep_seed: seed,
            repeat: Repeat(0),
            cell: CellHash([0; 32]),
            plan: SeedPlan::default(),
        };
        let a = data
            .choose_subset(&config, &streams(1))
            .expect("enough images");
        assert_eq!(
            a,
            data.choose_subset(
                &config,
                &Streams {
                    repeat: Repeat(5),
                    ..streams(1)
                }
            )
            .expect("enough images")
        );

        assert_ne!(
            a,
            data.choose_subset(&config, &streams(2))
                .expect("enough images")
        );
        let mut counts = [0; 10];
        a.train
            .iter()
            .for_each(|i| counts[data.train.labels[*i as usize] as usize] += 1);

        assert_eq!(counts, [10; 10]);
        assert_eq!(a.test.len(), 300);
        let probe = data.choose_probe_set(20, &streams(1));
        assert_eq!(
            probe,
            data.choose_probe_set(
                20,
                &Streams {
                    repeat: Repeat(5),
                    cell: CellHash([1; 32]),
                    ..streams(1)
                }
            )
        );

        assert_ne!(probe, data.choose_probe_set(20, &streams(2)));
        let classes = probe.iter().map(|i| data.test.labels[*i as usize]);
        assert_eq!(classes.filter(|label| *label == 3).count(), 2);
        let too_many = DataConfig {
            train: 301,
            ..config
        };
        assert!(data.choose_subset(&too_many, &streams(1)).is_err());
    }

    #[test]
    fn images_to_validate_on_are_balanced_the_same_for_all_and_never_trained_on() {
        let data = small();
        let subset = |train, validation, seed| {
            let config = DataConfig {
                validation,
                ..DataConfig::new(DatasetName::Glyphs, train, 300)
            };
            let streams = Streams {
                sweep_seed: seed,
                repeat: Repeat(3),
                cell: CellHash([0; 32]),
                plan: SeedPlan::default(),
            };

            data.choose_subset(&config, &streams)
        };
        let all = subset(250, 50, 1).expect("enough images");

        for train in [1, 100, 249] {
            let some = subset(train, 50, 1).expect("enough images");
            assert_eq!(
                (some.train.len(), &some.validation),
                (train as usize, &all.validation)
            );

            assert!(some.train.iter().all(|i| !some.validation.contains(i)));
        }

        let mut counts = [0; 10];
        all.validation
            .iter()
            .for_each(|i| counts[data.train.labels[*i as usize] as usize] += 1);
        assert_eq!(counts, [5; 10]);
        assert_eq!(all.train.len() + all.validation.len(), 300);

        assert_ne!(
            all.validation,
            subset(250, 50, 2).expect("enough images").validation
        );
        assert!(subset(251, 50, 1).is_err());

        // Without them, nothing about the others changes.
        let config = DataConfig::new(DatasetName::Glyphs, 100, 300);
        let streams = Streams {
            sweep_seed: 1,
            repeat: Repeat(0),
            cell: CellHash([0; 32]),
            plan: SeedPlan::default(),
        };

        let mut order: Vec<u32> = (0..300).collect();
        streams
            .open_stream(Purpose::Subset, b"train")
            .shuffle(&mut order);
        let expected = Subset {
            train: take_balanced(&order, &data.train.labels, 100),
            test: (0..300).collect(),
            validation: vec![],
        };

        assert_eq!(
            data.choose_subset(&config, &streams)
                .expect("enough images"),
            expected
        );
    }
}
