//! Parameters of statements.

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

impl<'a> From<&'a str> for SqlParam<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}
