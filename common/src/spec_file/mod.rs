//! Sweep files as data: a tree of values that remember where they were written, and readers that
//! report errors with file, line and field.

pub mod error;
pub mod grammar;
pub mod node;
pub mod reader;
pub mod suggest;
