//! Files read into columns that they were not written for: a column the file lacks is NULL, and so is a value
//! that is none in the type of today.
//!
//! Nothing but columns may reach such a scan. The Parquet source decides from the types of the table which filters it
//! takes over, and would drop rows, or keep them, by those of the file. So filters stay above.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::nested_struct::validate_data_type_compatibility;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, TryCastExpr, lit};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datafusion::physical_plan::ExecutionPlan;

use crate::around::Around;

/// Makes columns of a file into those that are wanted, by name.
#[derive(Debug)]
pub(super) struct Lenient;

impl PhysicalExprAdapterFactory for Lenient {
    fn create(&self, wanted: SchemaRef, found: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(Arc::new(Columns { wanted, found }))
    }
}

#[derive(Debug)]
struct Columns {
    wanted: SchemaRef,
    /// In the file.
    found: SchemaRef,
}

impl PhysicalExprAdapter for Columns {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        expr.transform(|expr| match expr.downcast_ref::<Column>() {
            Some(column) => self.column(column.name()).map(Transformed::yes),
            None => Ok(Transformed::no(expr)),
        })
        .data()
    }
}

impl Columns {
    fn column(&self, name: &str) -> Result<Arc<dyn PhysicalExpr>> {
        let wanted = self.wanted.field_with_name(name)?.data_type();
        if let Some((at, found)) = self.found.fields().find(name) {
            let column = Arc::new(Column::new(name, at));
            if found.data_type() == wanted {
                return Ok(column);
            }
            if validate_data_type_compatibility(name, found.data_type(), wanted).is_ok() {
                return Ok(Arc::new(TryCastExpr::new(column, wanted.clone())));
            }
        }
        Ok(lit(ScalarValue::try_new_null(wanted)?))
    }
}

/// The type with NULL allowed at every depth: what does not cast is NULL inside lists and structs too.
pub(super) fn nullable(data_type: &DataType) -> DataType {
    let inside = |field: &FieldRef| -> FieldRef {
        let inner = nullable(field.data_type());
        Arc::new(Field::new(field.name(), inner, true))
    };
    match data_type {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inside).collect()),
        DataType::List(item) => DataType::List(inside(item)),
        DataType::Map(entries, sorted) => match entries.data_type() {
            // The key of an entry stays: a map has no other.
            DataType::Struct(fields) if fields.len() == 2 => {
                let fields = [Arc::clone(&fields[0]), inside(&fields[1])];
                let fields = DataType::Struct(fields.into_iter().collect());
                let entries = entries.as_ref().clone().with_data_type(fields);
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => data_type.clone(),
        },
        other => other.clone(),
    }
}

/// Keeps filters and projections of a plan away from the scan below: the files have been divided among the
/// partitions already, and their columns are others.
#[derive(Debug)]
pub(super) struct Apart;

impl Around for Apart {
    const NAME: &'static str = "QuarantineExec";

    fn execute(
        &self,
        scan: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        scan.execute(partition, context)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray,
    };
    use datafusion::arrow::datatypes::{Int32Type, Schema};
    use datafusion::physical_expr::expressions::col;

    use super::*;

    fn read(file: &RecordBatch, name: &str, wanted: DataType) -> ArrayRef {
        let wanted = Arc::new(Schema::new(vec![Field::new(name, wanted, true)]));
        let column = col(name, &wanted).unwrap();
        let adapter = Lenient.create(wanted, file.schema()).unwrap();
        let expr = adapter.rewrite(column).unwrap();
        let value = expr.evaluate(file).unwrap();
        value.into_array(file.num_rows()).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_null() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["7", "seven"]));
        let file = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap();

        let n = read(&file, "n", DataType::Int32);
        assert_eq!(
            n.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(),
            [Some(1), None]
        );
        let t = read(&file, "t", DataType::Int32);
        assert_eq!(
            t.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(),
            [Some(7), None]
        );
        let of_struct = DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into());
        assert_eq!(read(&file, "n", of_struct).null_count(), 2);
        assert_eq!(read(&file, "later", DataType::Utf8View).null_count(), 2);
        assert_eq!(read(&file, "n", DataType::Int64).null_count(), 0);
    }

    #[test]
    fn null_is_allowed_at_every_depth_but_in_keys() {
        let item = |nullable| Arc::new(Field::new("item", DataType::Int32, nullable));
        let list = |nullable| DataType::List(item(nullable));
        let deep =
            |nullable| DataType::Struct(vec![Field::new("a", list(nullable), nullable)].into());
        assert_eq!(nullable(&deep(false)), deep(true));
        let map = |nullable| {
            let entries = vec![
                Field::new("key", DataType::Utf8, false),
                Field::new("value", list(nullable), nullable),
            ];
            let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
            DataType::Map(Arc::new(entries), false)
        };
        assert_eq!(nullable(&map(false)), map(true));
    }
}
