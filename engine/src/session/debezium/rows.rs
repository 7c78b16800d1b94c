//! The rows that changes become, column by column.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Int64Builder, RecordBatch,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;

use super::cells::{Cells, Kind};
use super::terms::Terms;
use crate::error::{Error, Result};
use crate::write::lossless;

/// Rows while they are made.
pub(super) struct Rows {
    pub cells: Vec<Cells>,
    delete: BooleanBuilder,
    keep: BinaryBuilder,
    position: Int64Builder,
    pub count: usize,
}

impl Rows {
    pub(super) fn new(terms: &Terms) -> Self {
        Self {
            cells: terms.kinds.iter().map(Cells::new).collect(),
            delete: BooleanBuilder::new(),
            keep: BinaryBuilder::new(),
            position: Int64Builder::new(),
            count: 0,
        }
    }

    pub(super) fn end(&mut self, delete: bool, keep: Option<&[u8]>, position: i64) {
        self.delete.append_value(delete);
        self.keep.append_option(keep);
        self.position.append_value(position);
        self.count += 1;
    }

    pub(super) fn finish(mut self, terms: &Terms) -> Result<RecordBatch> {
        let columns = self.cells.into_iter().map(Cells::finish);
        let mut columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        for place in &terms.shape.keys {
            if let Some((kind, column)) = terms.kinds.get(*place).zip(columns.get_mut(*place)) {
                let declared = terms.shape.declared.field(*place);
                *column = alike(kind, column, declared.data_type());
            }
        }
        columns.push(Arc::new(self.delete.finish()));
        columns.push(Arc::new(self.keep.finish()));
        columns.push(Arc::new(self.position.finish()));
        RecordBatch::try_new(Arc::clone(&terms.schema), columns)
            .map_err(|error| Error::internal("rows of changes").with_source(error))
    }
}

/// Keys as the table writes them, so that one key is one text: 7.5 and 7.50 are the same decimal. What is no value of
/// the column stays as it is, for the write path to refuse.
fn alike(kind: &Kind, keys: &ArrayRef, to: &DataType) -> ArrayRef {
    let plain = match kind {
        // What a text without a zone says is not known here.
        Kind::Time { zoned: true, .. } => {
            let mut texts = keys.as_string::<i32>().iter().flatten();
            texts.all(|text| text.ends_with('Z'))
        }
        Kind::Time { .. } | Kind::Number | Kind::Boolean => true,
        Kind::Text | Kind::Bytes | Kind::Nested(_) => false,
    };
    let typed = plain.then(|| lossless(keys, to).ok()).flatten();
    let texts = typed.and_then(|typed| cast(&typed, &DataType::Utf8).ok());
    texts.unwrap_or_else(|| Arc::clone(keys))
}
