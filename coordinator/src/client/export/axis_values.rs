//! The types of axes, and their values as columns.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow_schema::DataType;
use ergodic_common::grid::axis::{Axis, AxisValues};
use ergodic_common::spec_file::node::SpecValue;

/// The narrowest type for the values of an axis.
pub(super) fn axis_data_type(axis: &Axis) -> DataType {
    let AxisValues::Listed(items) = &axis.values else {
        return DataType::Float64;
    };
    let all = |is: fn(&SpecValue) -> bool| items.iter().all(|item| is(&item.value));
    if all(|value| matches!(value, SpecValue::Int(_))) {
        DataType::Int64
    } else if all(|value| value.as_f64().is_some()) {
        DataType::Float64
    } else if all(|value| matches!(value, SpecValue::Bool(_))) {
        DataType::Boolean
    } else {
        DataType::Utf8
    }
}

/// Builds the column of an axis from its values, all of which have this type.
pub(super) fn encode_axis_values(kind: &DataType, values: &[SpecValue]) -> ArrayRef {
    match kind {
        DataType::Int64 => Arc::new(Int64Array::from_iter_values(
            values.iter().map(whole_number),
        )),
        DataType::Float64 => Arc::new(Float64Array::from_iter_values(
            values
                .iter()
                .map(|value| value.as_f64().unwrap_or(f64::NAN)),
        )),
        DataType::Boolean => Arc::new(BooleanArray::from_iter(
            values
                .iter()
                .map(|value| Some(*value == SpecValue::Bool(true))),
        )),
        _ => Arc::new(StringArray::from_iter_values(
            values.iter().map(SpecValue::to_string),
        )),
    }
}

fn whole_number(value: &SpecValue) -> i64 {
    match value {
        SpecValue::Int(whole) => *whole,
        _ => 0,
    }
}
