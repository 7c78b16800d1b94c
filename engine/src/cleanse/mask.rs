//! Which cells of rows were cleansed, told to those who judge the rows afterwards: a missing value that was taken away
//! is no flaw of what came. The answer rides along as Boolean columns behind those of the table.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};

/// Begins the names of columns that tell which cells were cleansed; no column of a table is called so.
const CLEANSED: &str = "__selvedge_cleansed_";

/// The columns that tell it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Masks {
    /// The columns of the table that they are about, ascending.
    about: Arc<[usize]>,
    /// The place of the first.
    first: usize,
}

impl Masks {
    /// Masks of these columns, behind `first` others.
    pub(crate) fn new(about: &[usize], first: usize) -> Self {
        Self {
            about: about.into(),
            first,
        }
    }

    /// The columns of the table that they are about.
    pub(crate) fn about(&self) -> &[usize] {
        &self.about
    }

    /// The masks as columns beside those of the table.
    pub(crate) fn fields(&self, table: &Schema) -> Vec<Field> {
        let about = self.about.iter();
        about
            .map(|at| {
                let name = table.field(*at).name();
                Field::new(format!("{CLEANSED}{name}"), DataType::Boolean, false)
            })
            .collect()
    }

    /// The same columns for some rows; None stands for cells that all are as they came.
    pub(crate) fn columns(cleansed: &[Option<BooleanBuffer>], rows: usize) -> Vec<ArrayRef> {
        let column = |of: &Option<BooleanBuffer>| -> ArrayRef {
            let of = of.clone();
            let of = of.unwrap_or_else(|| BooleanBuffer::new_unset(rows));
            Arc::new(BooleanArray::new(of, None))
        };
        cleansed.iter().map(column).collect()
    }

    /// Rows of which a cell in one of these columns was cleansed; None: no row. Rows that come without masks are as
    /// they are.
    pub(crate) fn over(&self, batch: &RecordBatch, columns: &[usize]) -> Option<BooleanBuffer> {
        let mut found: Option<BooleanBuffer> = None;
        for (number, at) in self.about.iter().enumerate() {
            let Some(mask) = self.mask(batch, number).filter(|_| columns.contains(at)) else {
                continue;
            };
            if mask.count_set_bits() == 0 {
                continue;
            }
            found = Some(match found {
                Some(before) => &before | mask,
                None => mask.clone(),
            });
        }
        found
    }

    /// How many cells of each column were cleansed.
    pub(crate) fn count(&self, batch: &RecordBatch, into: &mut [u64]) {
        for (number, count) in into.iter_mut().enumerate() {
            if let Some(mask) = self.mask(batch, number) {
                *count += mask.count_set_bits() as u64;
            }
        }
    }

    fn mask<'a>(&self, batch: &'a RecordBatch, number: usize) -> Option<&'a BooleanBuffer> {
        let mask = batch.columns().get(self.first + number)?;
        Some(mask.as_boolean_opt()?.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("email", DataType::Int64, true),
            Field::new("phone", DataType::Int64, true),
        ])
    }

    #[test]
    fn masks_stand_behind_the_columns_and_tell_rows() {
        let masks = Masks::new(&[1, 2], 3);
        let mut fields: Vec<Field> = schema()
            .fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .collect();
        fields.extend(masks.fields(&schema()));
        assert_eq!(fields[4].name(), "__selvedge_cleansed_phone");
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let mut columns = vec![Arc::clone(&values), Arc::clone(&values), values];
        let email = BooleanBuffer::from(vec![true, false, true]);
        columns.extend(Masks::columns(&[Some(email), None], 3));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let told = |columns: &[usize]| {
            let rows = masks.over(&batch, columns);
            rows.map(|rows| rows.set_indices().collect::<Vec<_>>())
        };
        assert_eq!(told(&[0]), None);
        assert_eq!(told(&[2]), None);
        assert_eq!(told(&[0, 1]), Some(vec![0, 2]));
        let mut counts = [0, 0];
        masks.count(&batch, &mut counts);
        assert_eq!(counts, [2, 0]);
        // Rows that are asked at rest come without.
        assert_eq!(masks.over(&batch.project(&[0, 1, 2]).unwrap(), &[1]), None);
    }
}
