//! Images: which are used, their inputs, and their order.

use super::streams::PlainStream;

/// The images of one part of a dataset.
pub(super) struct PlainImages {
    /// `[image, height, width, channel]`
    pub(super) pixels: Vec<u8>,
    pub(super) labels: Vec<u8>,
    /// `[image, output]`, if images have targets.
    pub(super) targets: Vec<f32>,
}

/// Draws as many images as are wanted, classes by turns; the indices ascend.
pub(super) fn choose_subset(labels: &[u8], wanted: usize, (seed, part): (u64, &str)) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..labels.len()).collect();
    if wanted == labels.len() {
        return indices;
    }

    PlainStream::open(seed, "subset", part.as_bytes()).shuffle(&mut indices);
    let mut queues = vec![Vec::new(); 256];
    for index in indices {
        queues[usize::from(labels[index])].push(index);
    }

    let mut chosen = Vec::new();
    let rounds = (0..).flat_map(|round| (0..256).map(move |class| (round, class)));
    for (round, class) in rounds {
        if chosen.len() == wanted {
            break;
        }
        chosen.extend(queues[class].get(round));
    }
    chosen.sort_unstable();
    chosen
}

/// For each channel, the input of each byte, standardized over these images.
pub(super) fn build_input_table(
    pixels: &[u8],
    channels: usize,
    (image_bytes, subset): (usize, &[usize]),
) -> Vec<[f32; 256]> {
    let mut tables = Vec::new();
    for channel in 0..channels {
        let (mut n, mut s, mut t) = (0_u64, 0_u64, 0_u64);
        for image in subset {
            let bytes = &pixels[image * image_bytes..(image + 1) * image_bytes];
            for byte in bytes.iter().skip(channel).step_by(channels) {
                let b = u64::from(*byte);
                n += 1;
                s += b;
                t += b * b;
            }
        }

        let spread = u128::from(n) * u128::from(t) - u128::from(s) * u128::from(s);
        let mean = s as f64 / n as f64 / 255.0;
        let std = if spread == 0 {
            1.0
        } else {
            libm::sqrt(spread as f64) / n as f64 / 255.0
        };
        let mut table = [0.0; 256];
        for (b, input) in table.iter_mut().enumerate() {
            *input = ((b as f64 / 255.0 - mean) / std) as f32;
        }
        tables.push(table);
    }
    tables
}

/// The inputs of these images, one image after the other.
pub(super) fn write_inputs(
    images: &PlainImages,
    indices: &[usize],
    tables: &[[f32; 256]],
    image_bytes: usize,
) -> Vec<f32> {
    let mut inputs = Vec::new();
    for image in indices {
        let bytes = &images.pixels[image * image_bytes..(image + 1) * image_bytes];
        for (i, byte) in bytes.iter().enumerate() {
            inputs.push(tables[i % tables.len()][usize::from(*byte)]);
        }
    }
    inputs
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PlainOrder {
    Shuffle,
    WithReplacement,
    FullBatch,
}

/// The images of a step.
pub(super) fn choose_batch(
    order: PlainOrder,
    subset: &[usize],
    batch: usize,
    (seed, step): (u64, usize),
) -> Vec<usize> {
    match order {
        PlainOrder::Shuffle => {
            let steps = (subset.len() / batch).max(1);
            let epoch = (step / steps) as u64;
            let mut indices = subset.to_vec();
            PlainStream::open(seed, "order", &epoch.to_le_bytes()).shuffle(&mut indices);
            let first = step % steps * batch;
            indices[first..first + batch].to_vec()
        }
        PlainOrder::WithReplacement => {
            let detail = (step as u64).to_le_bytes();
            let mut stream = PlainStream::open(seed, "order", &detail);
            draw_images(&mut stream, subset, batch)
        }
        PlainOrder::FullBatch => subset.to_vec(),
    }
}

/// So many images, each drawn from all of the subset.
pub(super) fn draw_images(stream: &mut PlainStream, subset: &[usize], count: usize) -> Vec<usize> {
    let mut indices = Vec::new();
    for _ in 0..count {
        indices.push(subset[stream.next_below(subset.len() as u32) as usize]);
    }
    indices
}
