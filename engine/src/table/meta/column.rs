//! Columns told row by row, and the plan that makes batches of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, Int64Builder, ListBuilder, MapBuilder,
    MapFieldNames, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::StreamExt;
use futures::stream::BoxStream;

/// Rows of one batch.
pub(super) const BATCH_ROWS: usize = 4096;

type Values<T> = dyn Fn(&[T]) -> Result<ArrayRef> + Send + Sync;

/// Columns of a relation, or of a statement's answer, whose rows are made of `T`.
pub(crate) struct Columns<T>(Vec<Column<T>>);

struct Column<T> {
    field: Field,
    values: Arc<Values<T>>,
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        Self {
            field: self.field.clone(),
            values: Arc::clone(&self.values),
        }
    }
}

impl<T: Send + Sync + 'static> Columns<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn fields(&self) -> Vec<Field> {
        self.0.iter().map(|column| column.field.clone()).collect()
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields()))
    }

    /// These rows in these columns.
    pub(crate) fn batch(&self, rows: &[T]) -> Result<RecordBatch> {
        let arrays = self.0.iter().map(|column| (column.values)(rows));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let count = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(
            self.schema(),
            arrays,
            &count,
        )?)
    }

    /// A column of any type.
    pub(crate) fn column(
        mut self,
        name: &str,
        data_type: DataType,
        values: impl Fn(&[T]) -> Result<ArrayRef> + Send + Sync + 'static,
    ) -> Self {
        self.0.push(Column {
            field: Field::new(name, data_type, true),
            values: Arc::new(values),
        });
        self
    }

    pub(crate) fn text(
        self,
        name: &str,
        value: impl Fn(&T) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.column(name, DataType::Utf8, move |rows| {
            Ok(Arc::new(rows.iter().map(&value).collect::<StringArray>()))
        })
    }

    pub(crate) fn number(
        self,
        name: &str,
        value: impl Fn(&T) -> Option<i64> + Send + Sync + 'static,
    ) -> Self {
        self.column(name, DataType::Int64, move |rows| {
            Ok(Arc::new(rows.iter().map(&value).collect::<Int64Array>()))
        })
    }

    /// A number with a fraction.
    pub(crate) fn float(
        self,
        name: &str,
        value: impl Fn(&T) -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.column(name, DataType::Float64, move |rows| {
            Ok(Arc::new(rows.iter().map(&value).collect::<Float64Array>()))
        })
    }

    /// A number that is never below zero.
    pub(crate) fn count(
        self,
        name: &str,
        value: impl Fn(&T) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.column(name, DataType::UInt64, move |rows| {
            Ok(Arc::new(rows.iter().map(&value).collect::<UInt64Array>()))
        })
    }

    pub(crate) fn truth(
        self,
        name: &str,
        value: impl Fn(&T) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        self.column(name, DataType::Boolean, move |rows| {
            Ok(Arc::new(rows.iter().map(&value).collect::<BooleanArray>()))
        })
    }

    /// An instant, of milliseconds since the epoch.
    pub(crate) fn instant(
        self,
        name: &str,
        millis: impl Fn(&T) -> Option<i64> + Send + Sync + 'static,
    ) -> Self {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        self.column(name, utc, move |rows| {
            let micros = rows.iter().map(|row| millis(row)?.checked_mul(1000));
            let micros: TimestampMicrosecondArray = micros.collect();
            Ok(Arc::new(micros.with_timezone("UTC")))
        })
    }

    /// A map from text to text.
    pub(crate) fn texts(
        self,
        name: &str,
        entries: impl Fn(&T) -> Option<BTreeMap<String, Option<String>>> + Send + Sync + 'static,
    ) -> Self {
        self.column(name, map_of(DataType::Utf8), move |rows| {
            let mut map = MapBuilder::new(
                Some(map_names()),
                StringBuilder::new(),
                StringBuilder::new(),
            );
            for row in rows {
                let entries = entries(row);
                for (key, value) in entries.iter().flatten() {
                    map.keys().append_value(key);
                    map.values().append_option(value.as_deref());
                }
                map.append(entries.is_some())?;
            }
            Ok(Arc::new(map.finish()))
        })
    }

    /// A list of texts.
    pub(crate) fn list(
        self,
        name: &str,
        items: impl Fn(&T) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let data_type = DataType::new_list(DataType::Utf8, true);
        self.column(name, data_type, move |rows| {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for row in rows {
                for item in items(row) {
                    lists.values().append_value(item);
                }
                lists.append(true);
            }
            Ok(Arc::new(lists.finish()))
        })
    }

    /// A map from text to whole numbers.
    pub(crate) fn numbers(
        self,
        name: &str,
        entries: impl Fn(&T) -> Option<BTreeMap<String, i64>> + Send + Sync + 'static,
    ) -> Self {
        self.column(name, map_of(DataType::Int64), move |rows| {
            let mut map =
                MapBuilder::new(Some(map_names()), StringBuilder::new(), Int64Builder::new());
            for row in rows {
                let entries = entries(row);
                for (key, value) in entries.iter().flatten() {
                    map.keys().append_value(key);
                    map.values().append_value(*value);
                }
                map.append(entries.is_some())?;
            }
            Ok(Arc::new(map.finish()))
        })
    }

    /// The columns that a query names.
    pub(super) fn project(self, projection: Option<&Vec<usize>>) -> Self {
        match projection {
            Some(wanted) => {
                let wanted = wanted.iter().filter_map(|at| self.0.get(*at).cloned());
                Self(wanted.collect())
            }
            None => self,
        }
    }

    /// The plan of these columns over `rows`, which it asks for when it runs.
    pub(super) fn plan(
        self,
        limit: Option<usize>,
        rows: impl Fn() -> BoxStream<'static, Result<Vec<T>>> + Send + Sync + 'static,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.ordered(None, limit, rows)
    }

    /// The same, of rows that come in an order.
    pub(super) fn ordered(
        self,
        order: Option<LexOrdering>,
        limit: Option<usize>,
        rows: impl Fn() -> BoxStream<'static, Result<Vec<T>>> + Send + Sync + 'static,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let relation = Relation {
            schema: Arc::clone(&schema),
            columns: Arc::new(self),
            rows: Box::new(rows),
        };
        let plan = StreamingTableExec::try_new(
            schema,
            vec![Arc::new(relation)],
            None,
            order,
            false,
            limit,
        )?;
        Ok(Arc::new(plan))
    }
}

fn map_of(value: DataType) -> DataType {
    let entries = vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", value, true),
    ];
    let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
    DataType::Map(Arc::new(entries), false)
}

fn map_names() -> MapFieldNames {
    MapFieldNames {
        entry: "key_value".to_owned(),
        key: "key".to_owned(),
        value: "value".to_owned(),
    }
}

type Rows<T> = dyn Fn() -> BoxStream<'static, Result<Vec<T>>> + Send + Sync;

struct Relation<T> {
    schema: SchemaRef,
    columns: Arc<Columns<T>>,
    rows: Box<Rows<T>>,
}

impl<T> fmt::Debug for Relation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relation")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> PartitionStream for Relation<T> {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let columns = Arc::clone(&self.columns);
        let batches = (self.rows)().map(move |rows| columns.batch(&rows?));
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            batches,
        ))
    }
}
