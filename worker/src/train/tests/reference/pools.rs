//! Pools: means and maxima over windows of pixels.

use super::activations::fma;
use super::nets::{PlainPool, PlainShape};

/// For each pooled pixel, the pixels of its window in order.
fn list_windows(pool: PlainPool, shape: PlainShape) -> Vec<Vec<usize>> {
    if pool == PlainPool::Global {
        return vec![(0..shape.pixels()).collect()];
    }

    let mut windows = Vec::new();
    for y in 0..shape.height / 2 {
        for x in 0..shape.width / 2 {
            let corners = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let pixel = |(dy, dx)| (2 * y + dy) * shape.width + 2 * x + dx;
            windows.push(corners.map(pixel).to_vec());
        }
    }
    windows
}

fn pool_window(pool: PlainPool, window: &[f32]) -> f32 {
    let mut r = window[0];
    for a in &window[1..] {
        r = if pool == PlainPool::Max2 {
            fma(0.0, *a, if *a > r { *a } else { r })
        } else {
            r + a
        };
    }
    if pool == PlainPool::Max2 {
        r
    } else {
        (1.0 / window.len() as f32) * r
    }
}

/// The gradients of a window's pixels.
fn unpool_window(pool: PlainPool, window: &[f32], g: f32) -> Vec<f32> {
    if pool != PlainPool::Max2 {
        return vec![(1.0 / window.len() as f32) * g; window.len()];
    }

    let mut best = 0;
    for i in 1..window.len() {
        if window[i] > window[best] {
            best = i;
        }
    }
    let mut gradients = vec![0.0; window.len()];
    gradients[best] = g;
    gradients
}

/// Pools the activations of all images.
pub(super) fn pool_activations(
    pool: PlainPool,
    shape: PlainShape,
    activations: Vec<f32>,
    images: usize,
) -> Vec<f32> {
    if pool == PlainPool::None {
        return activations;
    }

    let mut pooled = Vec::new();
    for image in 0..images {
        let numbers = &activations[image * shape.numbers()..][..shape.numbers()];
        for window in list_windows(pool, shape) {
            for c in 0..shape.stored {
                let window: Vec<f32> = window
                    .iter()
                    .map(|pixel| numbers[pixel * shape.stored + c])
                    .collect();
                pooled.push(pool_window(pool, &window));
            }
        }
    }
    pooled
}

/// The gradient of the activations from that of the pooled ones.
pub(super) fn unpool_gradient(
    pool: PlainPool,
    shape: PlainShape,
    (activations, gradient): (&[f32], &[f32]),
    images: usize,
) -> Vec<f32> {
    if pool == PlainPool::None {
        return gradient.to_vec();
    }

    let mut unpooled = vec![0.0; images * shape.numbers()];
    let mut pooled = gradient.iter();
    for image in 0..images {
        let start = image * shape.numbers();
        for window in list_windows(pool, shape) {
            for c in 0..shape.stored {
                let places: Vec<usize> = window
                    .iter()
                    .map(|pixel| start + pixel * shape.stored + c)
                    .collect();
                let numbers: Vec<f32> = places.iter().map(|at| activations[*at]).collect();
                let g = pooled.next().expect("there is a gradient per window");
                for (at, number) in places.iter().zip(unpool_window(pool, &numbers, *g)) {
                    unpooled[*at] = number;
                }
            }
        }
    }
    unpooled
}
