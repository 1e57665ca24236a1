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

/// Viridis (van der Walt and Smith 2015, CC0) at 17 points: lightness grows evenly, in grey too.
const VIRIDIS: [u32; 17] = [
    0x440154, 0x48186a, 0x472d7b, 0x424086, 0x3b528b, 0x33638d, 0x2c728e, 0x26828e, 0x21918c,
    0x1fa088, 0x28ae80, 0x3fbc73, 0x5ec962, 0x84d44b, 0xaddc30, 0xd8e219, 0xfde725,
];

/// Colours for shares: from white to Okabe and Ito's vermilion, and darker.
const SHARES: [u32; 5] = [0xffffff, 0xfbd9b5, 0xf0a45f, 0xd55e00, 0x7a2f00];

/// The colour of a value in [0, 1].
pub(super) fn value_colour(share: f64) -> Colour {
    interpolate_colour(&VIRIDIS, share)
}

/// The colour of a share in [0, 1].
pub(super) fn share_colour(share: f64) -> Colour {
    interpolate_colour(&SHARES, share)
}

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
    let [r, g, b] = colour.map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 {
            c / 12.92
        } else {
            libm::pow((c + 0.055) / 1.055, 2.4)
        }
    });

    if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 {
        INK
    } else {
        PAPER
    }
}
