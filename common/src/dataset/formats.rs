//! The published formats of datasets: IDX (MNIST and similar) and the binary CIFAR batches.

use super::Images;

/// Parses a pair of IDX files, pixels and labels.
///
/// # Errors
/// The first (0) or the second file (1) is damaged; the message says how.
pub(super) fn parse_idx_pair(
    pixels: &[u8],
    labels: &[u8],
    classes: u32,
) -> Result<Images, (usize, String)> {
    let (sizes, pixels) = parse_idx_file(pixels, 0x803).map_err(|e| (0, e))?;
    let [_, height, width] = sizes[..] else {
        return Err((0, "expected images of two dimensions".into()));
    };
    if (height, width) != (28, 28) {
        return Err((
            0,
            format!("expected images of 28x28, found {height}x{width}"),
        ));
    }

    let (counts, labels) = parse_idx_file(labels, 0x801).map_err(|e| (1, e))?;
    if counts[0] != sizes[0] {
        return Err((1, format!("{} labels for {} images", counts[0], sizes[0])));
    }

    check_labels(labels, classes).map_err(|e| (1, e))?;
    Ok(Images {
        pixels: pixels.to_vec(),
        labels: labels.to_vec(),
        ..Images::default()
    })
}

/// Sizes and content of an IDX file of unsigned bytes with this magic number.
fn parse_idx_file(bytes: &[u8], magic: u32) -> Result<(Vec<usize>, &[u8]), String> {
    let word = |at: usize| {
        bytes
            .get(4 * at..4 * at + 4)
            .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    };
    match word(0) {
        Some(found) if found == magic => {}
        Some(found) => {
            return Err(format!(
                "expected the magic number {magic:#x}, found {found:#x}: not this IDX file"
            ));
        }
        None => return Err(format!("only {} bytes long: truncated", bytes.len())),
    }

    let dims = (magic & 0xff) as usize;
    let sizes: Option<Vec<usize>> = (1..=dims).map(|at| word(at).map(|n| n as usize)).collect();
    let sizes = sizes.ok_or("the header is cut short: truncated")?;
    let len = sizes
        .iter()
        .try_fold(1_usize, |p, n| p.checked_mul(*n))
        .ok_or("the sizes in the header are too large")?;

    let content = &bytes[4 + 4 * dims..];
    if content.len() != len {
        let state = if content.len() < len {
            "truncated"
        } else {
            "too long"
        };
        return Err(format!(
            "expected {len} bytes after the header, found {}: {state}",
            content.len()
        ));
    }

    Ok((sizes, content))
}

/// Parses one batch of the binary CIFAR layout: `label_bytes` labels, the last of which counts, then 3072 bytes,
/// channels first.
///
/// # Errors
/// The file is damaged; the message says how.
pub(super) fn parse_cifar_batch(
    bytes: &[u8],
    label_bytes: usize,
    classes: u32,
) -> Result<Images, String> {
    const PLANE: usize = 32 * 32;
    let record = label_bytes + 3 * PLANE;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        return Err(format!(
            "expected a multiple of {record} bytes, found {}: truncated, or not this file",
            bytes.len()
        ));
    }

    let mut images = Images::default();
    for record in bytes.chunks_exact(record) {
        images.labels.push(record[label_bytes - 1]);
        let planes = &record[label_bytes..];
        images
            .pixels
            .extend((0..3 * PLANE).map(|i| planes[i % 3 * PLANE + i / 3]));
    }

    check_labels(&images.labels, classes)?;
    Ok(images)
}

fn check_labels(labels: &[u8], classes: u32) -> Result<(), String> {
    match labels.iter().position(|l| u32::from(*l) >= classes) {
        None => Ok(()),
        Some(at) => Err(format!(
            "label {} of image {at} is not below {classes}",
            labels[at]
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::dataset::formats::*;

    fn idx_bytes(magic: u32, sizes: &[u32], content: &[u8]) -> Vec<u8> {
        let header = [magic]
            .iter()
            .chain(sizes)
            .flat_map(|n| n.to_be_bytes())
            .collect::<Vec<_>>();
        [header, content.to_vec()].concat()
    }

    #[test]
    fn idx_is_read_and_every_defect_named() {
        let images = idx_bytes(0x803, &[2, 28, 28], &[7; 2 * 784]);
        let labels = idx_bytes(0x801, &[2], &[0, 9]);
        assert_eq!(
            parse_idx_pair(&images, &labels, 10).expect("valid").labels,
            [0, 9]
        );

        let defects = [
            (images[..100].to_vec(), labels.clone(), 0, "truncated"),
            (images[..3].to_vec(), labels.clone(), 0, "truncated"),
            (labels.clone(), labels.clone(), 0, "magic"),
            (images.clone(), images.clone(), 1, "magic"),
            (
                images.clone(),
                idx_bytes(0x801, &[1], &[0]),
                1,
                "1 labels for 2 images",
            ),
            (
                images.clone(),
                idx_bytes(0x801, &[2], &[0, 10]),
                1,
                "label 10",
            ),
            (
                idx_bytes(0x803, &[2, 14, 56], &[7; 2 * 784]),
                labels.clone(),
                0,
                "28x28",
            ),
            (
                idx_bytes(0x803, &[u32::MAX; 3], &[]),
                labels,
                0,
                "too large",
            ),
        ];

        for (a, b, file, word) in defects {
            let (at, message) = parse_idx_pair(&a, &b, 10).expect_err(word);
            assert!(at == file && message.contains(word), "{at} {message}");
        }
    }

    #[test]
    fn cifar_planes_become_channels_last() {
        let mut record = vec![3_u8];
        record.extend((0..3072).map(|i| (i / 1024) as u8));
        let images = parse_cifar_batch(&record, 1, 10).expect("valid");
        assert_eq!(
            (images.labels[0], &images.pixels[..6]),
            (3, &[0, 1, 2, 0, 1, 2][..])
        );

        assert!(parse_cifar_batch(&record[1..], 1, 10).is_err());
        record[0] = 10;
        assert!(parse_cifar_batch(&record, 1, 10).is_err());
    }
}
