//! Numbers in and out of Candle tensors on the CPU.

use candle_core::{CpuStorage, Device, Result, Storage, Tensor};

/// Creates a tensor `[1, numbers]`.
pub(crate) fn tensor_from_vec(data: Vec<f32>) -> Result<Tensor> {
    let len = data.len();
    Tensor::from_vec(data, (1, len), &Device::Cpu)
}

/// Calls `f` with the numbers of a tensor.
pub(crate) fn with_tensor_data<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(storage.as_slice()?)),
        _ => candle_core::bail!("the trainer's tensors live on the CPU"),
    }
}

/// The numbers of a tensor, for writing.
pub(crate) fn f32_slice_mut(storage: &mut CpuStorage) -> Result<&mut [f32]> {
    match storage {
        CpuStorage::F32(data) => Ok(data),
        _ => candle_core::bail!("the trainer's tensors are of f32"),
    }
}
