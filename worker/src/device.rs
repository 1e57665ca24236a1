//! The device that networks run on: `--device`.

use std::fmt;
use std::str::FromStr;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;

use crate::train::CandleDevice;

/// The value of `--device`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The trainer's own engine, of the class `cpu-f32`.
    #[default]
    Cpu,
    /// Stock Candle operations on this CUDA device.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "auto" | "cpu") {
            return Ok(Self::Cpu);
        }

        text.strip_prefix("cuda:")
            .and_then(|number| number.parse().ok())
            .map(Self::Cuda)
            .ok_or_else(|| format!("expected auto, cpu or cuda:N, found '{text}'"))
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device for use by the calling thread alone. `None` means the trainer's own engine.
    ///
    /// # Errors
    /// The program was built without CUDA, or the machine has no such device.
    pub(crate) fn open_device(self) -> Result<Option<CandleDevice>, UserError> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(ordinal) => open_cuda(ordinal).map(Some).map_err(|why| {
                UserError::new(
                    ErrorCode::BadInput,
                    format!("--device cuda:{ordinal}: {why}"),
                )
            }),
        }
    }
}

/// Version of the arithmetic of Candle's stock operations. A change that alters any bit raises it.
#[cfg(feature = "cuda")]
pub(crate) const NUMERICS_VERSION: u32 = 2;

/// Opens a CUDA device and names all that can change the bits of its results.
#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<CandleDevice, String> {
    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute as Attribute;

    let device = Device::new_cuda(ordinal).map_err(|e| format!("it cannot be opened: {e}"))?;
    let Device::Cuda(cuda) = &device else {
        return Err("it is not a CUDA device".into());
    };
    let stream = cuda.cuda_stream();
    let context = stream.context();
    let number = |attribute| {
        context
            .attribute(attribute)
            .map_err(|e| format!("its compute capability cannot be read: {e}"))
    };
    let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;

    let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let cublas = cublas_version(cuda).ok_or("the version of cuBLAS cannot be read")?;
    Ok(CandleDevice {
        device,
        numerics_class: format!("cuda-f32/{NUMERICS_VERSION}/sm{major}{minor}/cublas{cublas}"),
        name: "cuda",
    })
}

/// Major and minor version of cuBLAS.
#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "cudarc has no safe way to ask for it")]
fn cublas_version(device: &candle_core::CudaDevice) -> Option<String> {
    use candle_core::cuda_backend::cudarc::cublas::sys;

    let handle = device.cublas_handle();
    let mut version = 0;
    // SAFETY: the handle is alive for as long as `handle`, and cuBLAS writes the version into our
    // own integer.
    let status = unsafe { sys::cublasGetVersion_v2(*handle.handle(), &raw mut version) };
    let known = status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
    known.then(|| format!("{}.{}", version / 10_000, version % 10_000 / 100))
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<CandleDevice, String> {
    Err("this program was built without CUDA: build it with deploy/cuda/build.sh".into())
}

#[cfg(test)]
mod tests {
    use crate::device::*;

    #[test]
    fn devices_are_named() {
        assert_eq!(
            ("cuda:3".parse(), "auto".parse()),
            (Ok(DeviceChoice::Cuda(3)), Ok(DeviceChoice::Cpu))
        );
        for bad in ["", "gpu", "cuda", "cuda:", "cuda:x"] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
    }
}
