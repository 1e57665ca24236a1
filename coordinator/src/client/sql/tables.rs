//! The tables of a query: those of all datasets, concatenated.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::datasource::{MemTable, TableType};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;

use super::errors::TableColumns;
use crate::client::export::columns::DatasetColumns;
use crate::client::export::library::DatasetLibrary;
use crate::client::export::manifest::{Manifest, TABLES};

/// Name of the first column of each table.
const SWEEP_COLUMN: &str = "sweep";
/// The URL of the files of datasets within a query.
const STORE_URL: &str = "dataset://ergodic/";

/// Registers the tables of a query.
pub(super) fn register_tables(
    context: &SessionContext,
    library: &DatasetLibrary,
    manifests: &[Manifest],
) -> Result<()> {
    context.register_object_store(
        ObjectStoreUrl::parse(STORE_URL)?.as_ref(),
        library.store.clone(),
    );
    let sweeps = build_sweeps_table(manifests)?;
    context.register_table(
        "sweeps",
        Arc::new(MemTable::try_new(sweeps.schema(), vec![vec![sweeps]])?),
    )?;

    for name in TABLES {
        context.register_table(
            name,
            Arc::new(DatasetTable::from_manifests(name, manifests)),
        )?;
    }

    Ok(())
}

/// The tables with their columns.
pub(super) fn list_columns(manifests: &[Manifest]) -> Vec<TableColumns> {
    let names = |schema: SchemaRef| {
        schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    };
    let sweeps = build_sweeps_table(manifests)
        .map(|sweeps| names(sweeps.schema()))
        .unwrap_or_default();

    let others = TABLES.iter().map(|table| {
        (
            *table,
            names(DatasetTable::from_manifests(table, manifests).schema),
        )
    });
    std::iter::once(("sweeps", sweeps)).chain(others).collect()
}

/// Builds the table `sweeps`: one row per sweep.
fn build_sweeps_table(manifests: &[Manifest]) -> Result<RecordBatch> {
    let text = |of: fn(&Manifest) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(manifests.iter().map(of)))
    };
    let whole = |of: fn(&Manifest) -> u64| -> ArrayRef {
        Arc::new(
            manifests
                .iter()
                .map(|manifest| i64::try_from(of(manifest)).ok())
                .collect::<Int64Array>(),
        )
    };

    let launched = manifests
        .iter()
        .map(|manifest| (manifest.sweep.launched_at * 1e3).round() as i64);
    let complete: Vec<bool> = manifests.iter().map(|manifest| manifest.complete).collect();
    let columns: [(&str, ArrayRef); 12] = [
        ("id", text(|manifest| &manifest.sweep.id)),
        ("name", text(|manifest| &manifest.sweep.name)),
        ("cells", whole(|manifest| manifest.sweep.cells)),
        ("repeats", whole(|manifest| manifest.sweep.repeats.into())),
        ("trials", whole(|manifest| manifest.sweep.trials)),
        ("done", whole(|manifest| manifest.cursor.rows)),
        ("complete", Arc::new(BooleanArray::from(complete))),
        (
            "launched_at",
            Arc::new(TimestampMillisecondArray::from_iter_values(launched)),
        ),
        ("launched_by", text(|manifest| &manifest.sweep.launched_by)),
        (
            "seed",
            Arc::new(UInt64Array::from_iter_values(
                manifests.iter().map(|manifest| manifest.sweep.seed),
            )),
        ),
        ("numerics", text(|manifest| &manifest.sweep.numerics)),
        ("data", text(|manifest| &manifest.data.words)),
    ];

    Ok(RecordBatch::try_from_iter(columns)?)
}

/// A table over the files that manifests name.
#[derive(Debug)]
struct DatasetTable {
    /// The schema with the sweep as the first column.
    schema: SchemaRef,
    /// The schema with the sweep, which is in no file, as the last column.
    file_schema: TableSchema,
    files: Vec<PartitionedFile>,
}

impl DatasetTable {
    fn from_manifests(table: &str, manifests: &[Manifest]) -> Self {
        let fields = merge_fields(table, manifests);
        let sweep = Arc::new(Field::new(SWEEP_COLUMN, DataType::Utf8, false));
        let schema = Schema::new([vec![sweep.as_ref().clone()], fields.clone()].concat());
        let scanned = TableSchema::builder(Arc::new(Schema::new(fields)))
            .with_table_partition_cols(vec![sweep]);
        let files = manifests
            .iter()
            .flat_map(|manifest| list_part_files(table, manifest))
            .collect();

        Self {
            schema: Arc::new(schema),
            file_schema: scanned.build(),
            files,
        }
    }
}

fn list_part_files(table: &str, manifest: &Manifest) -> impl Iterator<Item = PartitionedFile> {
    let id = &manifest.sweep.id;
    let parts = manifest
        .tables
        .get(table)
        .into_iter()
        .flat_map(|table| &table.parts);
    parts.map(move |part| {
        let file = PartitionedFile::new(format!("sweeps/{id}/{}", part.path), part.bytes);
        file.with_partition_values(vec![ScalarValue::from(id.as_str())])
    })
}

/// The columns that any of the sweeps has, each after the one that it follows there, with the
/// widest type that occurs.
fn merge_fields(table: &str, manifests: &[Manifest]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for table in manifests
        .iter()
        .filter_map(|manifest| manifest.tables.get(table))
    {
        let mut next = 0;
        for column in &table.columns {
            match fields.iter().position(|field| *field.name() == column.name) {
                Some(at) => {
                    let kind = wider_type(fields[at].data_type(), &column.data_type());
                    fields[at] = Field::new(&column.name, kind, true);
                    next = at + 1;
                }
                None => {
                    fields.insert(next, Field::new(&column.name, column.data_type(), true));
                    next += 1;
                }
            }
        }
    }

    // Most sweeps have no probe set. A query of their predictions should return no rows instead of
    // an error.
    if fields.is_empty() && table == "predictions" {
        fields.extend(
            DatasetColumns::predictions_schema()
                .fields()
                .iter()
                .map(|field| field.as_ref().clone()),
        );
    }

    fields
}

/// The narrowest type for the values of both types.
fn wider_type(a: &DataType, b: &DataType) -> DataType {
    const NUMBERS: [DataType; 4] = [
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float64,
    ];

    let width = |kind: &DataType| NUMBERS.iter().position(|number| number == kind);
    match (width(a), width(b)) {
        _ if a == b => a.clone(),
        (Some(one), Some(other)) => NUMBERS[one.max(other)].clone(),
        _ => DataType::Utf8,
    }
}

#[async_trait]
impl TableProvider for DatasetTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(
                &self.schema,
                projection,
            )?)));
        }

        let width = self.schema.fields().len();
        let all: Vec<usize> = (0..width).collect();
        // The table has the sweep as its first column, whereas DataFusion appends it last as the
        // partition column.
        let columns = projection
            .unwrap_or(&all)
            .iter()
            .map(|at| (at + width - 1) % width)
            .collect();

        let files =
            FileGroup::new(self.files.clone()).split_files(state.config().target_partitions());
        let source = Arc::new(ParquetSource::new(self.file_schema.clone()));
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, source)
            .with_file_groups(files)
            .with_projection_indices(Some(columns))?
            .with_limit(limit)
            .build();

        Ok(DataSourceExec::from_data_source(scan))
    }
}

#[cfg(test)]
mod tests {
    use crate::client::sql::tables::*;

    #[test]
    fn types_are_widened_rather_than_refused() {
        use DataType::{Boolean, Float64, Int32, Int64, Utf8};
        assert_eq!(wider_type(&Int32, &Int64), Int64);
        assert_eq!(wider_type(&Float64, &Int64), Float64);
        assert_eq!(wider_type(&Boolean, &Boolean), Boolean);
        for (a, b) in [(Boolean, Int64), (Utf8, Float64), (Int64, Utf8)] {
            assert_eq!((wider_type(&a, &b), wider_type(&b, &a)), (Utf8, Utf8));
        }
    }
}
