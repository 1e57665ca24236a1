//! Standard normal numbers by the ziggurat method (Marsaglia and Tsang 2000). The layer and the
//! position in it come from different bits, as Doornik (2005) recommends. 99 of 100 numbers take
//! one draw and one comparison.
//!
//! The area under e^(−x²/2) is cut into 256 layers of equal area. The lowest holds the tail beyond `R`; the tables are made
//! once, by the same functions on every machine.

use std::sync::LazyLock;

use rand_chacha::rand_core::Rng;

/// Number of layers.
const LAYERS: usize = 256;
/// Start of the tail for 256 layers: the value for which the topmost layer ends at the top (Doornik
/// 2005).
const TAIL_START: f64 = 3.654_152_885_361_009;

struct ZigguratTables {
    /// Right ends of the layers' boxes, the lowest first. The lowest box is as long as its share of
    /// the tail requires.
    ends: [f64; LAYERS + 1],
    /// Values of e^(−x²/2) at the ends.
    heights: [f64; LAYERS + 1],
}

static TABLES: LazyLock<ZigguratTables> = LazyLock::new(ZigguratTables::new);

impl ZigguratTables {
    fn new() -> Self {
        let tail = libm::sqrt(std::f64::consts::FRAC_PI_2)
            * libm::erfc(TAIL_START * std::f64::consts::FRAC_1_SQRT_2);
        let area = TAIL_START * gaussian_density(TAIL_START) + tail;
        let mut ends = [0.0; LAYERS + 1];
        let mut heights = [1.0; LAYERS + 1];
        (ends[0], ends[1]) = (area / gaussian_density(TAIL_START), TAIL_START);

        for at in 2..LAYERS {
            let above = area / ends[at - 1] + gaussian_density(ends[at - 1]);
            ends[at] = libm::sqrt(-2.0 * libm::log(above));
        }

        heights
            .iter_mut()
            .zip(&ends)
            .for_each(|(height, end)| *height = gaussian_density(*end));
        Self { ends, heights }
    }
}

/// e^(−x²/2)
fn gaussian_density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x)
}

/// A uniform number in [0, 1) from the highest 53 bits.
pub(crate) fn unit_uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// Draws a standard normal number.
pub(crate) fn draw_normal(rng: &mut impl Rng) -> f64 {
    let ZigguratTables { ends, heights } = &*TABLES;
    loop {
        // One draw gives both: its lowest bits choose the layer, and its highest bits the position
        // in it.
        let bits = rng.next_u64();
        let layer = (bits % LAYERS as u64) as usize;
        let x = (2.0 * unit_uniform(bits) - 1.0) * ends[layer];
        if x.abs() < ends[layer + 1] {
            return x;
        }

        if layer == 0 {
            return draw_tail(rng).copysign(x);
        }

        let low = heights[layer];
        let high = heights[layer + 1];
        if low + (high - low) * unit_uniform(rng.next_u64()) < gaussian_density(x) {
            return x;
        }
    }
}

/// Draws a normal number beyond `R` (Marsaglia 1964).
fn draw_tail(rng: &mut impl Rng) -> f64 {
    loop {
        let a = -libm::log(1.0 - unit_uniform(rng.next_u64())) / TAIL_START;
        let b = -libm::log(1.0 - unit_uniform(rng.next_u64()));
        if 2.0 * b > a * a {
            return TAIL_START + a;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use crate::normal::*;

    #[test]
    fn layers_have_equal_areas_and_end_at_the_top() {
        let ZigguratTables { ends, heights } = &*TABLES;
        let area = ends[1] * (heights[2] - heights[1]);

        for layer in 1..LAYERS - 1 {
            let of_layer = ends[layer] * (heights[layer + 1] - heights[layer]);
            assert!((of_layer / area - 1.0).abs() < 1e-9, "layer {layer}");
        }

        let last = ends[LAYERS - 1] * (1.0 - heights[LAYERS - 1]);
        assert!((last / area - 1.0).abs() < 1e-6, "{last} {area}");
        assert!((ends[0] * heights[1] / area - 1.0).abs() < 1e-9);
    }

    /// Counts between quantiles of the normal distribution, its far tail included, against their expectation.
    #[test]
    fn draws_are_normal() {
        const DRAWS: usize = 4_000_000;
        let below = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        let edges: Vec<f64> = (-42..=42).map(|i| f64::from(i) * 0.1).collect();
        let mut counts = vec![0_u64; edges.len() + 1];
        let mut rng = ChaCha8Rng::from_seed([7; 32]);

        for _ in 0..DRAWS {
            let x = draw_normal(&mut rng);
            counts[edges.partition_point(|edge| *edge < x)] += 1;
        }

        let mut chi_squared = 0.0;
        let mut low = 0.0;

        for (count, high) in counts
            .iter()
            .zip(edges.iter().map(|e| below(*e)).chain([1.0]))
        {
            let expected = (high - low) * DRAWS as f64;
            chi_squared += (*count as f64 - expected) * (*count as f64 - expected) / expected;
            low = high;
        }

        // 85 degrees of freedom: mean 85, standard deviation 13.
        assert!(chi_squared < 85.0 + 4.0 * 13.0, "χ² = {chi_squared}");
        assert!(chi_squared > 85.0 - 4.0 * 13.0, "χ² = {chi_squared}");
    }
}
