//! The pool of a layer in the exact passes of the Hessian. Means are linear, and a maximum stays where it is at the weights.

use ergodic_common::net::Pool;

use super::layer::{HessianLayer, LayerPassRecord, add_elementwise};

impl HessianLayer<'_> {
    /// The index of the first largest of four pixels, for every number behind a max-pool.
    pub(super) fn choose_max_pixels(&self, y: &[f64]) -> Vec<u8> {
        let mut chosen = Vec::new();
        self.for_each_pooled(y.len(), |_, members| {
            let best = (1..4).fold(0, |best, i| {
                if y[members[i]] > y[members[best]] {
                    i
                } else {
                    best
                }
            });
            chosen.push(best as u8);
        });

        chosen
    }

    /// Calls `each` with the index of every number behind a pool of 2×2 pixels and those of the four that it stands for.
    fn for_each_pooled(&self, len: usize, mut each: impl FnMut(usize, [usize; 4])) {
        let width = self.layer.output.width;
        let channels = self.channel_count();
        let pooled = self.layer.activation_shape();
        let mut at = 0;

        for image in (0..len).step_by(self.image_len()) {
            for y in 0..pooled.height {
                for x in 0..pooled.width {
                    for c in 0..channels {
                        let corner = image + (2 * y * width + 2 * x) * channels + c;
                        let below = corner + width * channels;
                        each(at, [corner, corner + channels, below, below + channels]);
                        at += 1;
                    }
                }
            }
        }
    }

    /// Activations, or their tangents, as readers see them.
    pub(super) fn pool_activations(&self, y: Vec<f64>, largest: &[u8]) -> Vec<f64> {
        let channels = self.channel_count();
        let pixels = self.image_len() / self.channel_count();

        match self.layer.pool {
            Pool::None => y,
            Pool::Average => {
                let mut means = vec![0.0; y.len() / pixels];
                for (image, means) in y
                    .chunks_exact(self.image_len())
                    .zip(means.chunks_exact_mut(channels))
                {
                    image
                        .chunks_exact(channels)
                        .for_each(|pixel| add_elementwise(means, pixel));
                    means.iter_mut().for_each(|sum| *sum /= pixels as f64);
                }

                means
            }
            Pool::Average2 => {
                let mut means = Vec::new();
                self.for_each_pooled(y.len(), |_, members| {
                    means.push(members.iter().map(|at| y[*at]).sum::<f64>() / 4.0)
                });
                means
            }
            Pool::Max2 => {
                let mut pooled = vec![0.0; largest.len()];
                self.for_each_pooled(y.len(), |at, members| {
                    pooled[at] = y[members[usize::from(largest[at])]]
                });
                pooled
            }
        }
    }

    /// The gradient of the activations, or its tangent, from that of the pooled ones; 0 if no layer reads them.
    pub(super) fn unpool_gradient(
        &self,
        record: &LayerPassRecord,
        pooled: Vec<f64>,
        images: usize,
    ) -> Vec<f64> {
        let len = images * self.image_len();
        if pooled.is_empty() {
            return vec![0.0; len];
        }

        match self.layer.pool {
            Pool::None => pooled,
            Pool::Average => self.spread_average_gradient(&pooled, len),
            Pool::Average2 => {
                let mut gradient = vec![0.0; len];
                self.for_each_pooled(len, |at, members| {
                    members
                        .iter()
                        .for_each(|to| gradient[*to] = pooled[at] / 4.0)
                });
                gradient
            }
            Pool::Max2 => {
                let mut gradient = vec![0.0; len];
                self.for_each_pooled(len, |at, members| {
                    gradient[members[usize::from(record.max_choices[at])]] = pooled[at]
                });
                gradient
            }
        }
    }

    /// The gradient of `len` averaged activations, whose pixels share that of their mean equally.
    fn spread_average_gradient(&self, pooled: &[f64], len: usize) -> Vec<f64> {
        let channels = self.channel_count();
        let pixels = self.image_len() / channels;
        let mut gradient = Vec::with_capacity(len);
        for mean in pooled.chunks_exact(channels) {
            for _ in 0..pixels {
                gradient.extend(mean.iter().map(|x| x / pixels as f64));
            }
        }

        gradient
    }
}
