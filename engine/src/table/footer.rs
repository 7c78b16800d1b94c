//! Parquet footers as pruning may trust them.
//!
//! Bounds of floats in Parquet leave NaN out, and nothing in a footer says whether one was there.
//! SQL orders NaN all the same: above every other value, or below when its sign bit is set, as in
//! `0.0 / 0.0` on x86. So `x > 5`, `x <> 5`, `x = 'NaN'` and their opposites may hold for rows
//! outside the bounds, and a filter may fail for rows inside them. Bloom filters hash bits, by
//! which 0.0 and -0.0 differ. Files of ours bound a chunk only if it is free of NaN; of all others
//! the bounds of floats are taken away before DataFusion prunes by them.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    DefaultParquetFileReaderFactory, ParquetFileReaderFactory,
};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use object_store::ObjectStore;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{LogicalType, Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::{Statistics as ChunkStatistics, ValueStatistics};

use super::reader::{FooterChange, Readers};

/// Begins the writer's name in the files of this engine. With its version it has the form that the
/// format asks for: Spark ignores the statistics of writers it cannot parse.
const WRITER: &str = "selvedge version ";

/// The writer's name in the files of this engine.
pub(crate) fn created_by() -> String {
    format!("{WRITER}{}", env!("CARGO_PKG_VERSION"))
}

/// `chunk` with its null count as its only statistics.
///
/// # Errors
/// When the rest of the description contradicts itself.
pub(crate) fn unbounded(chunk: ColumnChunkMetaData) -> ParquetResult<ColumnChunkMetaData> {
    let nulls = chunk.statistics().and_then(ChunkStatistics::null_count_opt);
    let statistics = match chunk.column_type() {
        Type::FLOAT => ChunkStatistics::Float(ValueStatistics::new(None, None, None, nulls, false)),
        Type::DOUBLE => {
            ChunkStatistics::Double(ValueStatistics::new(None, None, None, nulls, false))
        }
        Type::FIXED_LEN_BYTE_ARRAY => {
            ChunkStatistics::FixedLenByteArray(ValueStatistics::new(None, None, None, nulls, false))
        }
        other => {
            return Err(ParquetError::General(format!(
                "column {} of type {other} is not a float",
                chunk.column_path()
            )));
        }
    };
    chunk
        .into_builder()
        .set_statistics(statistics)
        .set_column_index_offset(None)
        .set_column_index_length(None)
        .set_bloom_filter_offset(None)
        .set_bloom_filter_length(None)
        .build()
}

/// Whether a file of these columns has bounds of floats at all: other scans need not look into footers.
pub(crate) fn holds_floats(columns: &Schema) -> bool {
    fn within(data_type: &DataType) -> bool {
        match data_type {
            DataType::Struct(fields) => fields.iter().any(|field| within(field.data_type())),
            DataType::List(item) | DataType::Map(item, _) => within(item.data_type()),
            other => other.is_floating(),
        }
    }
    let mut fields = columns.fields().iter();
    fields.any(|field| within(field.data_type()))
}

/// Footers without what they say of floats, unless this engine wrote them.
#[derive(Debug)]
pub(super) struct Sound;

impl FooterChange for Sound {
    fn changed(&self, footer: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>> {
        let writer = footer.file_metadata().created_by();
        let columns = footer.file_metadata().schema_descr().columns();
        let float = |leaf: &usize| match columns[*leaf].physical_type() {
            Type::FLOAT | Type::DOUBLE => true,
            _ => columns[*leaf].logical_type_ref() == Some(&LogicalType::Float16),
        };
        let floats: Vec<usize> = (0..columns.len()).filter(float).collect();
        if floats.is_empty() || writer.is_some_and(|writer| writer.starts_with(WRITER)) {
            return Ok(footer);
        }
        let mut builder = ParquetMetaData::clone(&footer).into_builder();
        let mut groups = builder.take_row_groups();
        for group in &mut groups {
            for &leaf in &floats {
                let chunk = &mut group.columns_mut()[leaf];
                *chunk = unbounded(chunk.clone())?;
            }
        }
        let mut pages = builder.take_column_index();
        for group in pages.iter_mut().flatten() {
            for &leaf in &floats {
                group[leaf] = ColumnIndexMetaData::NONE;
            }
        }
        let footer = builder.set_row_groups(groups).set_column_index(pages);
        Ok(Arc::new(footer.build()))
    }
}

/// Statistics read from a footer, in which bounds of floats are hints only.
pub(crate) fn without_float_bounds(mut statistics: Statistics) -> Statistics {
    for column in &mut statistics.column_statistics {
        for bound in [&mut column.min_value, &mut column.max_value] {
            let float = bound.get_value().is_some_and(|value| {
                matches!(
                    value,
                    ScalarValue::Float16(_) | ScalarValue::Float32(_) | ScalarValue::Float64(_)
                )
            });
            if float {
                *bound = std::mem::replace(bound, Precision::Absent).to_inexact();
            }
        }
    }
    statistics
}

/// `inner`, with footers that pruning may trust.
pub(crate) fn sound(inner: impl ParquetFileReaderFactory) -> impl ParquetFileReaderFactory {
    Readers::new(inner, PageIndexPolicy::Skip, vec![Box::new(Sound)])
}

/// A file that is read outside of any scan, with a footer that may be trusted.
pub(crate) fn open(
    store: Arc<dyn ObjectStore>,
    file: PartitionedFile,
) -> Result<Box<dyn AsyncFileReader>> {
    let files = sound(DefaultParquetFileReaderFactory::new(store));
    let reader = files.create_reader(0, file, None, &ExecutionPlanMetricsSet::new())?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{DataType, Field, Schema};

    use super::holds_floats;

    #[test]
    fn floats_are_found_at_any_depth() {
        let list = |item| DataType::List(Arc::new(Field::new("element", item, true)));
        let inside = |item| DataType::Struct(vec![Field::new("inner", list(item), true)].into());
        let holds = |data_type| holds_floats(&Schema::new(vec![Field::new("c", data_type, true)]));
        assert!(holds(DataType::Float32) && holds(inside(DataType::Float64)));
        assert!(!holds(DataType::Int64) && !holds(inside(DataType::Decimal128(9, 2))));
    }
}
