//! Parameters of statements.

use ergodic_common::ids::{CellIndex, Epoch, LeaseId, Repeat, ShapeClass, SweepNumber, WorkerId};

/// A parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SqlParam<'a> {
    Int(i64),
    Real(f64),
    Text(&'a str),
    OptionalText(Option<&'a str>),
    Bytes(Option<&'a [u8]>),
}

impl From<i64> for SqlParam<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<SweepNumber> for SqlParam<'_> {
    fn from(number: SweepNumber) -> Self {
        Self::Int(number.0)
    }
}

impl From<LeaseId> for SqlParam<'_> {
    fn from(lease: LeaseId) -> Self {
        lease.0.into()
    }
}

impl From<Epoch> for SqlParam<'_> {
    fn from(epoch: Epoch) -> Self {
        epoch.0.into()
    }
}

impl From<CellIndex> for SqlParam<'_> {
    fn from(cell: CellIndex) -> Self {
        cell.0.into()
    }
}

impl From<Repeat> for SqlParam<'_> {
    fn from(repeat: Repeat) -> Self {
        repeat.0.into()
    }
}

impl From<u32> for SqlParam<'_> {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

/// Converts a number; those of cells, leases and epochs stay far below 2^63.
impl From<u64> for SqlParam<'_> {
    fn from(value: u64) -> Self {
        Self::Int(value as i64)
    }
}

impl From<ShapeClass> for SqlParam<'_> {
    fn from(class: ShapeClass) -> Self {
        class.0.into()
    }
}

impl<'a> From<&'a WorkerId> for SqlParam<'a> {
    fn from(worker: &'a WorkerId) -> Self {
        Self::Text(worker.as_str())
    }
}

impl<'a> From<&'a str> for SqlParam<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}
