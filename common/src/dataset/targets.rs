//! What the outputs of a network are compared with: labels, or the targets of a regression.

use safetensors::tensor::TensorView;

use crate::dataset::Images;

/// Maximum number of targets of an image, which is the largest width of a layer.
const MAX_TARGETS: usize = 65_536;

/// What the outputs for an image are compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target<'a> {
    /// The class of the image.
    Label(u8),
    /// A number for each output.
    Numbers(&'a [f32]),
}

impl Images {
    /// Number of targets of an image; 0 if images have labels.
    pub fn target_count(&self) -> usize {
        self.targets.len().checked_div(self.len()).unwrap_or(0)
    }
}

/// Reads the targets of so many images from a tensor of F32.
pub(super) fn read_targets(tensor: &TensorView<'_>, images: usize) -> Result<Vec<f32>, String> {
    let width = match *tensor.shape() {
        [n] if n == images => 1,
        [n, width] if n == images => width,
        _ => {
            return Err(format!(
                "has the shape {:?}; expected targets of {images} images, [{images}, output] or [{images}]",
                tensor.shape()
            ));
        }
    };
    if !(1..=MAX_TARGETS).contains(&width) {
        return Err(format!(
            "has the shape {:?}; expected 1 to {MAX_TARGETS} targets for each image",
            tensor.shape()
        ));
    }

    let (singles, _) = tensor.data().as_chunks();
    let targets: Vec<f32> = singles.iter().map(|x| f32::from_le_bytes(*x)).collect();
    match targets.iter().position(|x| !x.is_finite()) {
        None => Ok(targets),
        Some(at) => Err(format!(
            "holds {} in row {}, counted from 0: expected finite numbers",
            targets[at],
            at / width
        )),
    }
}
