//! Finds datasets on disk, in the same way on coordinator and worker.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::glyphs::generate_glyphs;
use super::{DataError, Dataset, Images, formats};
use crate::dataset::name::DatasetName;

/// Number of images in a training file of CIFAR-10.
const CIFAR10_BATCH: u32 = 10_000;

/// Loads `name` from below `dir`. Reads only as many training files as hold `train` images.
///
/// # Errors
/// A file is missing, unreadable or damaged; the message names it and says how to get it.
pub fn load_dataset(
    name: DatasetName,
    dir: Option<&Path>,
    train: u32,
) -> Result<Dataset, DataError> {
    match name {
        DatasetName::Glyphs => Ok(generate_glyphs()),
        DatasetName::File(_) => Err(DataError(
            "a dataset file comes with its sweep, not from a folder".into(),
        )),
        DatasetName::Mnist => load_idx(name, dir, &["mnist", "MNIST/raw", "MNIST"]),
        DatasetName::FashionMnist => load_idx(
            name,
            dir,
            &["fashion-mnist", "FashionMNIST/raw", "FashionMNIST"],
        ),
        DatasetName::Cifar10 => {
            let batches = (1..=count_cifar10_batches(train))
                .map(|i| format!("data_batch_{i}.bin"))
                .collect();
            load_cifar(
                name,
                dir,
                &["cifar-10-batches-bin", "cifar10"],
                1,
                batches,
                "test_batch.bin",
            )
        }
        DatasetName::Cifar100 => load_cifar(
            name,
            dir,
            &["cifar-100-binary", "cifar100"],
            2,
            vec!["train.bin".into()],
            "test.bin",
        ),
    }
}

/// Number of training files of CIFAR-10 that hold so many images.
fn count_cifar10_batches(train: u32) -> u32 {
    train.div_ceil(CIFAR10_BATCH).max(1)
}

/// Number of training images that are read if a sweep trains and validates on at most `needed` together.
pub fn count_read_images(name: DatasetName, needed: u32) -> u32 {
    let (all, _) = name.split_sizes();
    match name {
        DatasetName::Cifar10 => all.min(count_cifar10_batches(needed) * CIFAR10_BATCH),
        _ => all,
    }
}

fn load_idx(name: DatasetName, dir: Option<&Path>, folders: &[&str]) -> Result<Dataset, DataError> {
    Ok(Dataset {
        name,
        train: load_idx_part(name, dir, folders, "train")?,
        test: load_idx_part(name, dir, folders, "t10k")?,
    })
}

fn load_idx_part(
    name: DatasetName,
    dir: Option<&Path>,
    folders: &[&str],
    prefix: &str,
) -> Result<Images, DataError> {
    let images_file = format!("{prefix}-images-idx3-ubyte");
    let labels_file = format!("{prefix}-labels-idx1-ubyte");
    let (images_path, images) = read_dataset_file(name, dir, folders, &images_file)?;
    let (labels_path, labels) = read_dataset_file(name, dir, folders, &labels_file)?;
    formats::parse_idx_pair(&images, &labels, name.class_count()).map_err(|(file, message)| {
        let path = if file == 0 {
            &images_path
        } else {
            &labels_path
        };
        damaged_error(path, &message)
    })
}

fn load_cifar(
    name: DatasetName,
    dir: Option<&Path>,
    folders: &[&str],
    label_bytes: usize,
    batches: Vec<String>,
    test: &str,
) -> Result<Dataset, DataError> {
    let part = |file: &str| {
        let (path, bytes) = read_dataset_file(name, dir, folders, file)?;
        formats::parse_cifar_batch(&bytes, label_bytes, name.class_count())
            .map_err(|message| damaged_error(&path, &message))
    };

    let mut train = Images::default();
    for batch in &batches {
        let images = part(batch)?;
        train.pixels.extend(images.pixels);
        train.labels.extend(images.labels);
    }

    Ok(Dataset {
        name,
        train,
        test: part(test)?,
    })
}

fn damaged_error(path: &Path, message: &str) -> DataError {
    DataError(format!(
        "{}: {message}. Replace the file by an intact copy",
        path.display()
    ))
}

/// Maximum unpacked size of a dataset file in bytes, which stops a gzip bomb.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// Reads `file`, gzipped or not, from the first folder that has it.
fn read_dataset_file(
    name: DatasetName,
    dir: Option<&Path>,
    folders: &[&str],
    file: &str,
) -> Result<(PathBuf, Vec<u8>), DataError> {
    let Some(dir) = dir else {
        return Err(DataError(format!(
            "{} needs files: name their folder with --data-dir DIR of `ergodic run` or `ergodic serve`, or with \
             ERGODIC_DATA=DIR. {}",
            name.as_str(),
            download_hint(name)
        )));
    };
    let folders = folders.iter().map(|f| dir.join(f)).chain([dir.to_owned()]);
    let candidates: Vec<PathBuf> = folders
        .flat_map(|folder| [folder.join(file), folder.join(format!("{file}.gz"))])
        .collect();
    let Some(path) = candidates.iter().find(|path| path.exists()) else {
        let looked: Vec<String> = candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(DataError(format!(
            "{}: cannot find {file}; looked for {}. {}",
            name.as_str(),
            looked.join(", "),
            download_hint(name)
        )));
    };
    if path.is_dir() {
        return Err(DataError(format!(
            "{}: expected a file, found a directory. {}",
            path.display(),
            download_hint(name)
        )));
    }

    let bytes = read_unpacked(path).map_err(|e| {
        DataError(format!(
            "{}: cannot read it: {e}. Check its permissions, or replace it by an intact copy",
            path.display()
        ))
    })?;
    Ok((path.clone(), bytes))
}

fn read_unpacked(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    File::open(path)?
        .take(MAX_UNPACKED_BYTES)
        .read_to_end(&mut raw)?;

    if !raw.starts_with(&[0x1f, 0x8b]) {
        return Ok(raw);
    }

    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(&raw[..])
        .take(MAX_UNPACKED_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How to get the files of a dataset; empty if it needs none.
pub fn download_hint(name: DatasetName) -> &'static str {
    match name {
        DatasetName::Glyphs | DatasetName::File(_) => "",
        DatasetName::Mnist => {
            "Put the four IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…; .gz is fine) into DIR/mnist; \
             torchvision.datasets.MNIST(DIR, download=True) fetches them to a place that is found as well"
        }
        DatasetName::FashionMnist => {
            "Put the four IDX files (.gz is fine) into DIR/fashion-mnist; torchvision.datasets.FashionMNIST(DIR, \
             download=True) fetches them to a place that is found as well"
        }
        DatasetName::Cifar10 => {
            "Unpack the \"CIFAR-10 binary version\" of its home page into DIR/cifar-10-batches-bin"
        }
        DatasetName::Cifar100 => {
            "Unpack the \"CIFAR-100 binary version\" of its home page into DIR/cifar-100-binary"
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::dataset::files::*;

    #[test]
    fn missing_damaged_and_misplaced_files_are_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = |d: Option<&Path>| {
            load_dataset(DatasetName::Mnist, d, 10)
                .expect_err("no such data")
                .to_string()
        };
        assert!(error(None).contains("--data-dir"));

        assert!(error(Some(dir.path())).contains("mnist/train-images-idx3-ubyte.gz"));
        let file = dir.path().join("mnist/train-images-idx3-ubyte");
        std::fs::create_dir_all(&file).expect("created");
        assert!(error(Some(dir.path())).contains("directory"));
        std::fs::remove_dir(&file).expect("removed");
        std::fs::write(&file, [0, 0, 8, 3, 0]).expect("written");

        std::fs::write(
            dir.path().join("mnist/train-labels-idx1-ubyte"),
            [0, 0, 8, 1],
        )
        .expect("written");
        let message = error(Some(dir.path()));
        assert!(
            message.contains("truncated") && message.contains("train-images-idx3-ubyte"),
            "{message}"
        );
    }
}
