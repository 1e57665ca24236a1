//! Encodes record batches as Parquet files in memory.

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::schema::types::ColumnPath;

use super::manifest::DATASET_VERSION;

/// Maximum number of rows of a row group.
const MAX_ROW_GROUP_ROWS: usize = 1 << 20;

/// Encodes a file of a dataset, whose rows are sorted by their first `order` columns.
pub(super) fn encode_part(
    batches: &[RecordBatch],
    schema: &Schema,
    order: usize,
) -> Result<Vec<u8>, ParquetError> {
    let sorting = (0..order as i32).map(|column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: false,
    });
    let properties = writer_properties(schema)
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "ergodic.dataset.version".into(),
            DATASET_VERSION.to_string(),
        )]))
        .set_sorting_columns(Some(sorting.collect()));
    let mut writer =
        ArrowWriter::try_new(Vec::new(), schema.clone().into(), Some(properties.build()))?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;

    writer.into_inner()
}

/// Encodes a file with these rows.
pub(in crate::client) fn encode_record_batch(batch: &RecordBatch) -> Result<Vec<u8>, ParquetError> {
    let mut writer = ArrowWriter::try_new(
        Vec::new(),
        batch.schema(),
        Some(writer_properties(&batch.schema()).build()),
    )?;
    writer.write(batch)?;
    writer.into_inner()
}

/// Properties that every reader of Parquet understands: version 1 pages, and plain floats, which
/// hardly compress in other encodings either. Repetitive columns, such as keys, have a dictionary.
pub(in crate::client) fn writer_properties(schema: &Schema) -> WriterPropertiesBuilder {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(MAX_ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(format!("ergodic {}", ergodic_common::BUILD));

    for field in schema
        .fields()
        .iter()
        .filter(|field| *field.data_type() == DataType::Float64)
    {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(vec![field.name().clone()]), false);
    }

    properties
}
