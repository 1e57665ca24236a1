//! What one trial of a program takes of its worker: `slots`, `memory` and `gpus` of `[program]`.

use super::{DEFAULT_CHECKPOINT_LIMIT, Program};
use crate::spec_file::error::SpecError;
use crate::spec_file::node::SpecValue;
use crate::spec_file::reader::{NumberRange, TableReader, quote_value};

/// The parts of a GPU that trials take: hundredths.
pub const GPU_PARTS: u32 = 100;

/// The variable by which programs find the GPUs that are theirs.
pub const GPU_VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// The variable that says in which order CUDA counts GPUs.
pub const GPU_ORDER_VARIABLE: &str = "CUDA_DEVICE_ORDER";

/// Most slots of a trial, as many as a worker can have.
const MAX_SLOTS: u64 = 4096;
/// Most whole GPUs of a trial.
const MAX_GPUS: u32 = 64;
/// Most memory of a trial in bytes: 64 TiB.
const MAX_MEMORY: u64 = 65_536 << 30;
/// The words for units of sizes.
const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// What one trial takes of its worker while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialNeeds {
    /// Slots.
    pub slots: u32,
    /// Bytes of memory; 0 if none is set apart for it.
    pub memory: u64,
    /// Hundredths of GPUs: a share of one, or whole ones.
    pub gpu_parts: u32,
}

impl TrialNeeds {
    /// The needs of a trial that says nothing of them.
    pub const ONE_SLOT: Self = Self {
        slots: 1,
        memory: 0,
        gpu_parts: 0,
    };
}

/// Reads the needs of a trial.
///
/// # Errors
/// Names the first one that is wrong.
pub(super) fn read_needs(r: &TableReader<'_>) -> Result<TrialNeeds, SpecError> {
    let slots = r.read_whole_number("slots", NumberRange::whole_numbers(1, MAX_SLOTS));
    let memory = read_memory(r);
    let gpu_parts = read_gpus(r);
    Ok(TrialNeeds {
        slots: slots?.map_or(1, |slots| slots as u32),
        memory: memory?,
        gpu_parts: gpu_parts?,
    })
}

/// Reads `memory = "4 GiB"`.
fn read_memory(r: &TableReader<'_>) -> Result<u64, SpecError> {
    let Some(text) = read_size_text(r, "memory", "4 GiB")? else {
        return Ok(0);
    };
    let size = parse_size(text).filter(|bytes| (1 << 10..=MAX_MEMORY).contains(bytes));
    size.ok_or_else(|| {
        let message = format!(
            "expected a size from \"1 KiB\" to \"65536 GiB\", such as \"4 GiB\", found '{text}'"
        );
        r.error_at("memory", message)
    })
}

/// Reads `gpus = 0.5`.
fn read_gpus(r: &TableReader<'_>) -> Result<u32, SpecError> {
    let Some(node) = r.read_node("gpus") else {
        return Ok(0);
    };
    let parts = node.value.as_f64().and_then(count_gpu_parts);
    parts.ok_or_else(|| {
        let message = format!(
            "expected a share of one GPU in hundredths, such as 0.5, or a whole number of GPUs from 1 to {MAX_GPUS}, found {}",
            quote_value(&node.value)
        );
        r.error_at("gpus", message)
    })
}

/// The hundredths of a number of GPUs; `None` if no trial can have so many.
fn count_gpu_parts(gpus: f64) -> Option<u32> {
    let most = f64::from(MAX_GPUS);
    let parts = (1..=GPU_PARTS).find(|part| gpus == f64::from(*part) / f64::from(GPU_PARTS));
    let is_whole = gpus.fract() == 0.0 && (1.0..=most).contains(&gpus);
    parts.or_else(|| is_whole.then(|| gpus as u32 * GPU_PARTS))
}

/// Reads `checkpoint_limit = "512 MiB"`.
pub(super) fn read_checkpoint_limit(r: &TableReader<'_>) -> Result<u64, SpecError> {
    let Some(text) = read_size_text(r, "checkpoint_limit", "512 MiB")? else {
        return Ok(DEFAULT_CHECKPOINT_LIMIT);
    };
    let size =
        parse_size(text).filter(|bytes| (1 << 10..=DEFAULT_CHECKPOINT_LIMIT).contains(bytes));
    size.ok_or_else(|| {
        let message = format!(
            "expected a size from \"1 KiB\" to \"1 GiB\", such as \"512 MiB\", found '{text}'"
        );
        r.error_at("checkpoint_limit", message)
    })
}

/// Reads the text of a size.
///
/// # Errors
/// The value is no string; says how to write a size.
fn read_size_text<'a>(
    r: &TableReader<'a>,
    key: &'static str,
    example: &str,
) -> Result<Option<&'a str>, SpecError> {
    match r.read_node(key).map(|node| &node.value) {
        None => Ok(None),
        Some(SpecValue::Str(text)) => Ok(Some(text)),
        Some(other) => {
            let found = quote_value(other);
            let message = format!(
                "expected a string, found {found}: write a size with its unit, such as \"{example}\""
            );
            Err(r.error_at(key, message))
        }
    }
}

/// The bytes of a text such as `512 MiB`.
fn parse_size(text: &str) -> Option<u64> {
    let (count, unit) = text.trim().split_once(' ')?;
    let (_, bytes) = UNITS.iter().find(|(word, _)| *word == unit.trim())?;
    count.parse::<u64>().ok()?.checked_mul(*bytes)
}

impl Program {
    /// Checks that nothing but its share of GPUs says which of them a program sees.
    pub(super) fn check_gpu_variable(&self, r: &TableReader<'_>) -> Result<(), SpecError> {
        if self.needs.gpu_parts == 0 {
            return Ok(());
        }
        for variable in [GPU_VARIABLE, GPU_ORDER_VARIABLE] {
            let is_set = self.env.iter().any(|(name, _)| name == variable);
            let is_passed = self.pass_env.iter().any(|name| name == variable);
            for (key, is_there) in [("env", is_set), ("pass_env", is_passed)] {
                if is_there {
                    let message = format!("gpus sets {variable} already: keep one of the two");
                    return Err(r.error_at(key, message));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::program::needs::*;

    #[test]
    fn gpus_are_hundredths_of_one_or_whole() {
        let found = [0.01, 0.29, 0.5, 1.0, 3.0, 64.0].map(count_gpu_parts);
        assert_eq!(found, [1, 29, 50, 100, 300, 6400].map(Some));
        for wrong in [0.0, -1.0, 0.005, 0.333, 1.5, 65.0, f64::NAN, f64::INFINITY] {
            assert_eq!(count_gpu_parts(wrong), None, "{wrong}");
        }
    }
}
