//! Datasets in safetensors files, and files pinned by their hash.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::dataset::name::DatasetName;
use crate::dataset::targets::read_targets;
use crate::dataset::{DataError, Dataset, Images};
use crate::ids::FileHash;
use crate::number_format::format_count;
use crate::pinned_file::{FileData, FilePin};

/// Maximum number of images of a part, and of numbers in one image.
const MAX_IMAGES: usize = 10_000_000;

const MAX_IMAGE_NUMBERS: usize = 1 << 20;

impl FilePin {
    /// Pins a file by the hash of its content.
    ///
    /// # Errors
    /// The bytes are no safetensors file, or the dataset in it cannot be used.
    pub fn from_bytes(path: &str, bytes: &[u8]) -> Result<Self, DataError> {
        let file =
            parse_tensors(bytes).map_err(|message| DataError(format!("{path}: {message}")))?;
        let hash = blake3::hash(bytes).into();
        let is_data = file.names().contains(&"x_train");
        let images = is_data
            .then(|| read_dataset_tensors(&file, hash).map(|(data, ..)| data))
            .transpose()
            .map_err(|message| DataError(format!("{path}: {message}")))?;

        Ok(Self {
            path: path.to_owned(),
            hash,
            images,
        })
    }
}

/// Decodes the dataset in a safetensors file. `x_train` and `x_test` are U8 or F32, `[image,
/// height, width, channel]`, `[image, height, width]` or `[image, feature]`. `y_train` and `y_test`
/// are whole numbers from 0 to 255, or targets of a regression: F32, `[image, output]` or `[image]`.
///
/// # Errors
/// The file is not of this form; the message names the tensor.
pub fn decode_dataset(bytes: &[u8]) -> Result<Dataset, DataError> {
    let file = parse_tensors(bytes).map_err(DataError)?;
    let (data, train, test) =
        read_dataset_tensors(&file, blake3::hash(bytes).into()).map_err(DataError)?;
    Ok(Dataset {
        name: DatasetName::File(data),
        train,
        test,
    })
}

fn parse_tensors(bytes: &[u8]) -> Result<SafeTensors<'_>, String> {
    SafeTensors::deserialize(bytes)
        .map_err(|e| format!("this is no safetensors file, or a damaged one ({e})"))
}

fn read_dataset_tensors(
    file: &SafeTensors<'_>,
    hash: FileHash,
) -> Result<(FileData, Images, Images), String> {
    let (shape, train) = read_part(file, "train")?;
    let (test_shape, test) = read_part(file, "test")?;
    if shape != test_shape || train.floats.is_empty() != test.floats.is_empty() {
        return Err("'x_train' and 'x_test' must hold images of the same shape and type".into());
    }

    let (classes, targets) = count_outputs(&train, &test)?;
    let data = FileData {
        hash,
        sizes: (train.len() as u32, test.len() as u32),
        shape,
        classes,
        targets,
        floats: !train.floats.is_empty(),
    };
    Ok((data, train, test))
}

/// Numbers of classes and of targets, one of which is 0.
fn count_outputs(train: &Images, test: &Images) -> Result<(u32, u32), String> {
    match (train.target_count(), test.target_count()) {
        (0, 0) => {}
        (0, _) => return Err(describe_other_kind("y_test", "y_train")),
        (_, 0) => return Err(describe_other_kind("y_train", "y_test")),
        (of_train, of_test) if of_train != of_test => {
            return Err(format!(
                "'y_train' has {} for each image, and 'y_test' has {of_test}: expected as many in both",
                format_count(of_train as u64, "target")
            ));
        }
        (targets, _) => return Ok((0, targets as u32)),
    }

    let labels = train.labels.iter().chain(&test.labels);
    match labels.max() {
        None | Some(0) => Err("all labels are 0; at least two classes are needed".into()),
        Some(largest) => Ok((u32::from(*largest) + 1, 0)),
    }
}

fn describe_other_kind(targets: &str, labels: &str) -> String {
    format!(
        "the tensor '{targets}' holds F32; expected U8, I32 or I64 as in '{labels}', or F32 in both"
    )
}

/// Reads the shape of an image, and images with labels, from the tensors `x_…` and `y_…`.
fn read_part(file: &SafeTensors<'_>, part: &str) -> Result<((u32, u32, u32), Images), String> {
    let x = format!("x_{part}");
    let y = format!("y_{part}");
    let x_tensor = find_tensor(file, &x)?;
    let y_tensor = find_tensor(file, &y)?;

    let (images, shape) = image_shape(&x_tensor).map_err(|e| format!("the tensor '{x}' {e}"))?;
    let (labels, targets) =
        read_outputs(&y_tensor, images).map_err(|e| format!("the tensor '{y}' {e}"))?;
    let (pixels, floats) =
        read_image_numbers(&x_tensor).map_err(|e| format!("the tensor '{x}' {e}"))?;

    let images = Images {
        pixels,
        floats,
        labels,
        targets,
    };
    Ok((shape, images))
}

fn find_tensor<'a>(file: &'a SafeTensors<'_>, name: &str) -> Result<TensorView<'a>, String> {
    file.tensor(name)
        .map_err(|_| format!("the tensor '{name}' is missing"))
}

/// The number of images, and height, width and channels of one.
fn image_shape(tensor: &TensorView<'_>) -> Result<(usize, (u32, u32, u32)), String> {
    let (images, shape) = match *tensor.shape() {
        [n, height, width, channels] => (n, (height, width, channels)),
        [n, height, width] => (n, (height, width, 1)),
        [n, features] => (n, (1, 1, features)),
        _ => {
            return Err(format!(
                "has the shape {:?}; expected [image, height, width, channel], [image, height, width] or [image, feature]",
                tensor.shape()
            ));
        }
    };
    let (height, width, channels) = shape;
    let numbers = height.saturating_mul(width).saturating_mul(channels);
    if !(1..=MAX_IMAGES).contains(&images) || !(1..=MAX_IMAGE_NUMBERS).contains(&numbers) {
        return Err(format!(
            "has the shape {:?}; expected 1 to {MAX_IMAGES} images of 1 to {MAX_IMAGE_NUMBERS} numbers",
            tensor.shape()
        ));
    }

    Ok((images, (height as u32, width as u32, channels as u32)))
}

/// Reads the numbers of a tensor, as bytes or as floats.
fn read_image_numbers(tensor: &TensorView<'_>) -> Result<(Vec<u8>, Vec<f32>), String> {
    match tensor.dtype() {
        Dtype::U8 => Ok((tensor.data().to_vec(), Vec::new())),
        Dtype::F32 => {
            let (singles, _) = tensor.data().as_chunks();
            let floats: Vec<f32> = singles.iter().map(|x| f32::from_le_bytes(*x)).collect();
            if floats.iter().any(|x| !x.is_finite()) {
                return Err("holds a number that is not finite".into());
            }

            Ok((Vec::new(), floats))
        }
        other => Err(format!("holds {other:?}; expected U8 or F32")),
    }
}

/// Reads labels and targets, of which images have one sort. Floats are targets.
fn read_outputs(tensor: &TensorView<'_>, images: usize) -> Result<(Vec<u8>, Vec<f32>), String> {
    match tensor.dtype() {
        Dtype::F32 => Ok((vec![0; images], read_targets(tensor, images)?)),
        _ => Ok((read_labels(tensor, images)?, Vec::new())),
    }
}

fn read_labels(tensor: &TensorView<'_>, images: usize) -> Result<Vec<u8>, String> {
    let is_whole = matches!(tensor.dtype(), Dtype::U8 | Dtype::I32 | Dtype::I64);
    if is_whole && tensor.shape() != [images] {
        return Err(format!(
            "has the shape {:?}; expected one label per image, [{images}], or targets as F32",
            tensor.shape()
        ));
    }

    let data = tensor.data();
    let numbers: Vec<i64> = match tensor.dtype() {
        Dtype::U8 => data.iter().map(|x| i64::from(*x)).collect(),
        Dtype::I32 => data
            .as_chunks()
            .0
            .iter()
            .map(|x| i64::from(i32::from_le_bytes(*x)))
            .collect(),
        Dtype::I64 => data
            .as_chunks()
            .0
            .iter()
            .map(|x| i64::from_le_bytes(*x))
            .collect(),
        other => {
            return Err(format!(
                "holds {other:?}; expected U8, I32 or I64 for labels, or F32 for targets"
            ));
        }
    };

    numbers
        .into_iter()
        .map(|x| {
            u8::try_from(x)
                .map_err(|_| format!("holds {x}; labels are whole numbers from 0 to 255"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::serialize;

    use crate::dataset::safetensors::*;

    /// Name, type, shape and bytes of a tensor.
    type Part = (&'static str, Dtype, Vec<usize>, Vec<u8>);

    fn file(parts: &[Part]) -> Vec<u8> {
        let view = |part: &Part| TensorView::new(part.1, part.2.clone(), &part.3).map(|_| ());
        assert!(parts.iter().all(|part| view(part).is_ok()));
        let views = parts.iter().map(|(name, dtype, shape, bytes)| {
            (
                name,
                TensorView::new(*dtype, shape.clone(), bytes).expect("consistent"),
            )
        });

        serialize(views, None).expect("small")
    }

    fn good() -> Vec<Part> {
        let floats = |n: usize| {
            (0..n)
                .flat_map(|i| (i as f32 - 1.5).to_le_bytes())
                .collect()
        };
        vec![
            ("x_train", Dtype::F32, vec![3, 2, 2], floats(12)),
            (
                "y_train",
                Dtype::I64,
                vec![3],
                [2_i64, 0, 1].iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            ("x_test", Dtype::F32, vec![1, 2, 2], floats(4)),
            ("y_test", Dtype::U8, vec![1], vec![1]),
        ]
    }

    #[test]
    fn datasets_are_read_and_pinned_by_content() {
        let bytes = file(&good());
        let data = decode_dataset(&bytes).expect("a dataset");
        let pin = FilePin::from_bytes("a.safetensors", &bytes)
            .expect("a dataset")
            .images
            .expect("images");
        assert_eq!(
            (data.name, pin.sizes, pin.shape, pin.classes),
            (DatasetName::File(pin), (3, 1), (2, 2, 1), 3)
        );

        assert_eq!(
            (data.train.labels, data.test.floats[0]),
            (vec![2, 0, 1], -1.5)
        );
        assert_eq!(pin.hash, blake3::hash(&bytes).into());
    }

    /// The tensors of [`good`], with these targets of three training images and one test image.
    fn with_targets(train: (Vec<usize>, &[f32]), test: (Vec<usize>, &[f32])) -> Vec<u8> {
        let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut parts = good();
        parts[1] = ("y_train", Dtype::F32, train.0, bytes(train.1));
        parts[3] = ("y_test", Dtype::F32, test.0, bytes(test.1));
        file(&parts)
    }

    #[test]
    fn floats_are_targets_of_a_regression() {
        let all: [f32; 6] = [0.5, -1.0, 2.0, 3.0, 4.0, 5.5];
        let two = with_targets((vec![3, 2], &all), (vec![1, 2], &[7.0, -8.0]));
        let pin = FilePin::from_bytes("a.safetensors", &two).expect("a dataset");
        let pin = pin.images.expect("images");
        assert_eq!((pin.classes, pin.targets), (0, 2));
        let data = decode_dataset(&two).expect("a dataset");
        assert_eq!((data.name.output_count(), data.name.class_count()), (2, 0));
        assert_eq!(data.train.targets, all);
        assert_eq!(data.test.targets, [7.0, -8.0]);
        assert_eq!((data.train.labels, data.test.labels), (vec![0; 3], vec![0]));

        // A single target needs no dimension of its own.
        for shape in [vec![3], vec![3, 1]] {
            let one = with_targets((shape, &all[..3]), (vec![1], &[1.0]));
            let data = decode_dataset(&one).expect("a dataset");
            assert_eq!(data.name.target_count(), 1);
        }
    }

    #[test]
    fn targets_that_cannot_be_used_are_refused_by_tensor() {
        let train =
            |shape: &[usize], x: &[f32]| with_targets((shape.to_vec(), x), (vec![1], &[1.0]));
        let mut labels = good();
        labels[1] = ("y_train", Dtype::F32, vec![3], vec![0; 12]);
        let mut wide = good();
        wide[1] = ("y_train", Dtype::F64, vec![3, 2], vec![0; 48]);
        let mut whole = good();
        whole[1] = ("y_train", Dtype::I64, vec![3, 2], vec![0; 48]);

        for (bytes, words) in [
            (
                train(&[3], &[0.0, f32::NAN, 1.0]),
                "the tensor 'y_train' holds NaN in row 1",
            ),
            (
                train(&[3, 2], &[0.0, 1.0, 2.0, 3.0, f32::NEG_INFINITY, 5.0]),
                "the tensor 'y_train' holds -inf in row 2",
            ),
            (
                with_targets((vec![3], &[1.0; 3]), (vec![1, 2], &[1.0; 2])),
                "'y_train' has 1 target for each image, and 'y_test' has 2",
            ),
            (
                train(&[2], &[0.0, 1.0]),
                "has the shape [2]; expected targets of 3 images, [3, output] or [3]",
            ),
            (
                train(&[3, 1, 1], &[0.0, 1.0, 2.0]),
                "expected targets of 3 images",
            ),
            (train(&[3, 0], &[]), "1 to 65536 targets"),
            (
                file(&labels),
                "'y_train' holds F32; expected U8, I32 or I64 as in 'y_test', or F32 in both",
            ),
            (
                file(&wide),
                "holds F64; expected U8, I32 or I64 for labels, or F32 for targets",
            ),
            (
                file(&whole),
                "expected one label per image, [3], or targets as F32",
            ),
        ] {
            let error = decode_dataset(&bytes).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_tensor() {
        let with = |at: usize, part: Part| {
            let mut parts = good();
            parts[at] = part;
            file(&parts)
        };
        for (bytes, words) in [
            (file(&good()[..3]), "'y_test' is missing"),
            (
                with(1, ("y_train", Dtype::U8, vec![2], vec![0, 1])),
                "expected one label per image, [3]",
            ),
            (
                with(3, ("y_test", Dtype::I32, vec![1], vec![255, 255, 255, 255])),
                "holds -1",
            ),
            (
                with(3, ("y_test", Dtype::F32, vec![1], vec![0; 4])),
                "expected U8, I32 or I64",
            ),
            (
                with(0, ("x_train", Dtype::F32, vec![3], vec![0; 12])),
                "expected [image, height",
            ),
            (
                with(
                    0,
                    (
                        "x_train",
                        Dtype::F32,
                        vec![3, 1, 1],
                        f32::NAN.to_le_bytes().repeat(3),
                    ),
                ),
                "not finite",
            ),
            (
                with(0, ("x_train", Dtype::F32, vec![3, 1, 1], vec![0; 12])),
                "same shape",
            ),
            (
                with(0, ("x_train", Dtype::U8, vec![3, 2, 2], vec![0; 12])),
                "same shape and type",
            ),
            (
                with(0, ("x_train", Dtype::F64, vec![3, 1, 1], vec![0; 24])),
                "expected U8 or F32",
            ),
            (b"no file".to_vec(), "no safetensors file"),
        ] {
            let error = decode_dataset(&bytes).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
