//! The terms on which the trials of a sweep are run. They stand at the top level of a sweep file, and none of them is part
//! of a cell's identity.

use std::time::Duration;

use crate::duration::parse_duration;
use crate::error::SpecError;
use crate::reader::{Reader, quoted};

/// How a sweep's trials are run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// `time_limit`: an attempt that takes longer is broken off, and the trial fails.
    pub time_limit: Option<Duration>,
}

impl Terms {
    /// Reads them.
    ///
    /// # Errors
    /// One of them is none.
    pub fn read(root: &Reader<'_>) -> Result<Self, SpecError> {
        Ok(Self { time_limit: read_time_limit(root)? })
    }
}

fn read_time_limit(r: &Reader<'_>) -> Result<Option<Duration>, SpecError> {
    let Some(node) = r.node("time_limit") else { return Ok(None) };
    let limit = node.value.as_str().and_then(|text| parse_duration(text).ok());
    limit.map(Some).ok_or_else(|| {
        let found = quoted(&node.value);
        r.error(
            "time_limit",
            format!("expected a time above 0, like \"500ms\", \"30s\", \"10m\" or \"2h\", found {found}"),
        )
    })
}
