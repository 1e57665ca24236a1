//! Colours that remain distinct with any colour vision, and in grey.

/// Red, green and blue.
pub(super) type Colour = [u8; 3];

pub(super) const INK: Colour = [0x1a, 0x1a, 0x1a];
/// Colour of remarks.
pub(super) const GREY: Colour = [0x59, 0x59, 0x59];
/// Colour of frames and grids.
pub(super) const FAINT: Colour = [0xd9, 0xd9, 0xd9];
pub(super) const PAPER: Colour = [0xff, 0xff, 0xff];

/// Colours by Okabe and Ito, "Color universal design" (2008), without yellow, which is hard to see
/// on white.
pub(super) const SERIES: [Colour; 7] = [
    [0x00, 0x72, 0xb2],
    [0xd5, 0x5e, 0x00],
    [0x00, 0x9e, 0x73],
    [0xcc, 0x79, 0xa7],
    [0xe6, 0x9f, 0x00],
    [0x56, 0xb4, 0xe9],
    [0x00, 0x00, 0x00],
];

/// The colours of values, from the smallest to the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColourMap {
    points: &'static [u32],
    reversed: bool,
}

/// Names of the colour maps, each of which may end in `_r` for the reverse.
pub const COLOUR_MAPS: [&str; 6] = ["viridis", "cividis", "magma", "greys", "vermilion", "rdbu"];

impl ColourMap {
    pub(super) const VALUES: Self = Self::new(&VIRIDIS);
    pub(super) const SHARES: Self = Self::new(&SHARES);

    const fn new(points: &'static [u32]) -> Self {
        Self {
            points,
            reversed: false,
        }
    }

    /// The colour map with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let forwards = name.strip_suffix("_r");
        let points: &'static [u32] = match forwards.unwrap_or(name) {
            "viridis" => &VIRIDIS,
            "cividis" => &CIVIDIS,
            "magma" => &MAGMA,
            "greys" => &GREYS,
            "vermilion" => &SHARES,
            "rdbu" => &RED_BLUE,
            _ => return None,
        };
        Some(Self {
            points,
            reversed: forwards.is_some(),
        })
    }

    /// The colour of a value in [0, 1].
    pub(super) fn colour_at(&self, share: f64) -> Colour {
        let share = if self.reversed { 1.0 - share } else { share };
        interpolate_colour(self.points, share)
    }

    /// The colour of a line in [0, 1]: without the end of the map that is too light on white.
    pub(super) fn line_colour_at(&self, share: f64) -> Colour {
        let low = self.find_dark_share(0.0, 0.02);
        let high = self.find_dark_share(1.0, -0.02);
        self.colour_at(low + share * (high - low))
    }

    /// The share nearest to an end whose colour is dark enough for a line.
    fn find_dark_share(&self, end: f64, step: f64) -> f64 {
        (0..40)
            .map(|i| end + step * f64::from(i))
            .find(|share| luminance(self.colour_at(*share)) <= MAX_LINE_LUMINANCE)
            .unwrap_or(end)
    }
}

/// Maximum relative luminance of lines on white: a contrast of about 2 to 1.
const MAX_LINE_LUMINANCE: f64 = 0.47;

/// Cividis (Nuñez, Anderton and Renslow 2018) at 10 points.
const CIVIDIS: [u32; 10] = [
    0x00204d, 0x00336f, 0x39486b, 0x575c6d, 0x707173, 0x8a8779, 0xa69d75, 0xc4b56c, 0xe4cf5b,
    0xffea46,
];

/// Magma (van der Walt and Smith 2015, CC0) at 9 points.
const MAGMA: [u32; 9] = [
    0x000004, 0x1d1147, 0x51127c, 0x832681, 0xb73779, 0xe75263, 0xfc8961, 0xfec488, 0xfcfdbf,
];

const GREYS: [u32; 2] = [0xf7f7f7, 0x1a1a1a];

/// From blue to red through white, for values around a middle (Brewer's RdBu, Apache-2.0).
const RED_BLUE: [u32; 11] = [
    0x053061, 0x2166ac, 0x4393c3, 0x92c5de, 0xd1e5f0, 0xf7f7f7, 0xfddbc7, 0xf4a582, 0xd6604d,
    0xb2182b, 0x67001f,
];

/// Viridis (van der Walt and Smith 2015, CC0) at 17 points: lightness grows evenly, in grey too.
const VIRIDIS: [u32; 17] = [
    0x440154, 0x48186a, 0x472d7b, 0x424086, 0x3b528b, 0x33638d, 0x2c728e, 0x26828e, 0x21918c,
    0x1fa088, 0x28ae80, 0x3fbc73, 0x5ec962, 0x84d44b, 0xaddc30, 0xd8e219, 0xfde725,
];

/// Colours for shares: from white to Okabe and Ito's vermilion, and darker.
const SHARES: [u32; 5] = [0xffffff, 0xfbd9b5, 0xf0a45f, 0xd55e00, 0x7a2f00];

fn interpolate_colour(points: &[u32], share: f64) -> Colour {
    let place = share.clamp(0.0, 1.0) * (points.len() - 1) as f64;
    let at = (place as usize).min(points.len() - 2);
    let part = place - at as f64;
    let channel = |colour: u32, shift: u32| f64::from(colour >> shift & 0xff);
    [16, 8, 0].map(|shift| {
        let low = channel(points[at], shift);
        let high = channel(points[at + 1], shift);
        libm::round(low + part * (high - low)) as u8
    })
}

/// Black or white, whichever is more legible on a colour, by relative luminance as in WCAG 2. At
/// 0.18 both have the same contrast.
pub(super) fn text_colour_on(colour: Colour) -> Colour {
    if luminance(colour) > 0.18 { INK } else { PAPER }
}

/// The relative luminance of a colour, from 0 to 1.
fn luminance(colour: Colour) -> f64 {
    let [r, g, b] = colour.map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            libm::pow((c + 0.055) / 1.055, 2.4)
        }
    });

    0.2126 * r + 0.7152 * g + 0.0722 * b
}
