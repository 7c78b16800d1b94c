//! Rows of both sides as the ways to join compare them, and rows of both sides put together.

use arrow::array::{
    Array, ArrayData, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::array::{Int64Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{prep_null_mask_filter, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::row::{Row, RowConverter, Rows, SortField};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{JoinSide, JoinType, Result};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::joins::utils::JoinFilter;
use std::sync::Arc;

use super::interval::{Intervals, micros, value};
use crate::error::Error;

/// What is joined to what.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// [`JoinType::Inner`] or [`JoinType::Left`].
    pub join_type: JoinType,
    /// A pair for each key of the journal: of the facts, and of the journal. Both have one type.
    pub on: Vec<(PhysicalExprRef, PhysicalExprRef)>,
    /// The instant of a fact.
    pub at: PhysicalExprRef,
    /// Begin and end of an interval: columns of the journal.
    pub from: usize,
    pub to: usize,
    pub far_future: bool,
    /// What else must be true of a fact and its interval.
    pub filter: Option<JoinFilter>,
}

impl Terms {
    /// Begin and end of an interval, as columns of the journal.
    pub(super) fn period(&self, journal: &Schema) -> Result<[PhysicalExprRef; 2]> {
        let column = |at: usize| -> Result<PhysicalExprRef> {
            let field = journal.fields().get(at);
            let field = field.ok_or_else(|| Error::internal("an as-of join lost its intervals"))?;
            Ok(Arc::new(Column::new(field.name(), at)))
        };
        Ok([column(self.from)?, column(self.to)?])
    }
}

/// Facts, and what is compared of them.
pub(super) struct Facts {
    pub batch: RecordBatch,
    keys: Rows,
    at: Int64Array,
    /// Rows whose keys and whose instant are not NULL.
    whole: Option<NullBuffer>,
}

impl Facts {
    pub(super) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    pub(super) fn key(&self, row: usize) -> Row<'_> {
        self.keys.row(row)
    }

    pub(super) fn at(&self, row: usize) -> Option<i64> {
        value(&self.at, row)
    }

    /// The instant at which an interval is looked for. NULL is no instant, and equal to no key.
    pub(super) fn sought(&self, row: usize) -> Option<i64> {
        let whole = self.whole.as_ref();
        let whole = whole.is_none_or(|whole| whole.is_valid(row));
        whole.then(|| self.at.value(row))
    }

    pub(super) fn size(&self) -> usize {
        size(&self.batch) + self.keys.size() + self.at.get_array_memory_size()
    }
}

/// Rows of the journal, and what is compared of them.
pub(super) struct Spans {
    pub batch: RecordBatch,
    keys: Rows,
    pub intervals: Intervals,
}

impl Spans {
    pub(super) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    pub(super) fn key(&self, row: usize) -> Row<'_> {
        self.keys.row(row)
    }

    pub(super) fn size(&self) -> usize {
        size(&self.batch) + self.keys.size()
    }
}

/// Bytes of the rows that a batch has. What sorts hand out are parts of larger buffers, which are theirs to account for.
pub(super) fn size(batch: &RecordBatch) -> usize {
    let sizes = batch.columns().iter().map(|column| {
        let data = column.to_data();
        let bytes = data.get_slice_memory_size();
        bytes.unwrap_or_else(|_| column.get_array_memory_size()) + viewed(&data)
    });
    sizes.sum()
}

/// A view holds so short a text itself.
const INLINE: usize = 12;

/// Bytes of the texts of views, which arrow leaves out of slices.
fn viewed(data: &ArrayData) -> usize {
    let beside = |view: &u128| {
        let length = *view as u32 as usize;
        if length > INLINE { length } else { 0 }
    };
    let own: usize = match data.data_type() {
        DataType::Utf8View | DataType::BinaryView => {
            let views = data.buffer::<u128>(0).iter().take(data.len());
            views.map(beside).sum()
        }
        _ => 0,
    };
    own + data.child_data().iter().map(viewed).sum::<usize>()
}

/// Makes rows of both sides comparable: in the order in which they are sorted, ascending and NULL first. Only rows that
/// one of these made compare with each other, so a join has just one.
#[derive(Debug)]
pub(super) struct Encoder {
    terms: Arc<Terms>,
    converter: RowConverter,
}

impl Encoder {
    pub(super) fn new(terms: &Arc<Terms>, facts: &Schema) -> Result<Self> {
        let fields = terms.on.iter();
        let fields = fields.map(|(key, _)| Ok(SortField::new(key.data_type(facts)?)));
        Ok(Self {
            terms: Arc::clone(terms),
            converter: RowConverter::new(fields.collect::<Result<Vec<_>>>()?)?,
        })
    }

    pub(super) fn facts(&self, batch: RecordBatch) -> Result<Facts> {
        let keys = self.terms.on.iter().map(|(key, _)| key);
        let keys = evaluated(keys, &batch)?;
        let at = self.terms.at.evaluate(&batch)?;
        let at = micros(&at.into_array(batch.num_rows())?)?;
        let nulls = keys.iter().map(|key| key.logical_nulls());
        let whole = nulls.fold(at.logical_nulls(), |all, nulls| {
            NullBuffer::union(all.as_ref(), nulls.as_ref())
        });
        Ok(Facts {
            keys: self.converter.convert_columns(&keys)?,
            at,
            whole,
            batch,
        })
    }

    pub(super) fn spans(&self, batch: RecordBatch) -> Result<Spans> {
        let keys = self.terms.on.iter().map(|(_, key)| key);
        let keys = self.converter.convert_columns(&evaluated(keys, &batch)?)?;
        let (from, to) = (
            column(&batch, self.terms.from)?,
            column(&batch, self.terms.to)?,
        );
        Ok(Spans {
            keys,
            intervals: Intervals::new(from, to, self.terms.far_future)?,
            batch,
        })
    }
}

fn evaluated<'a>(
    expressions: impl Iterator<Item = &'a PhysicalExprRef>,
    batch: &RecordBatch,
) -> Result<Vec<ArrayRef>> {
    let values = expressions.map(|key| key.evaluate(batch)?.into_array(batch.num_rows()));
    values.collect()
}

fn column(batch: &RecordBatch, at: usize) -> Result<&ArrayRef> {
    let column = batch.columns().get(at);
    column.ok_or_else(|| Error::internal(format!("an as-of join has no column {at}")).into())
}

/// Of which pairs of rows the further conditions are true.
pub(super) fn passing(
    filter: &JoinFilter,
    [facts, spans]: [&RecordBatch; 2],
    pairs: &[(u64, u64)],
) -> Result<BooleanArray> {
    let left: UInt64Array = pairs.iter().map(|(fact, _)| *fact).collect();
    let right: UInt64Array = pairs.iter().map(|(_, span)| *span).collect();
    let mut columns = Vec::with_capacity(filter.column_indices().len());
    for place in filter.column_indices() {
        columns.push(match place.side {
            JoinSide::Left => take(column(facts, place.index)?, &left, None)?,
            JoinSide::Right => take(column(spans, place.index)?, &right, None)?,
            JoinSide::None => {
                return Err(Error::internal("a condition of a join reads neither side").into());
            }
        });
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(pairs.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(filter.schema()), columns, &rows)?;
    let passed = filter.expression().evaluate(&batch)?;
    let passed = passed.into_array(pairs.len())?;
    let passed = as_boolean_array(&passed)?;
    // What is unknown is not true.
    Ok(match passed.null_count() {
        0 => passed.clone(),
        _ => prep_null_mask_filter(passed),
    })
}

/// Rows of the join: each fact with its interval, or with NULL.
pub(super) fn assembled(
    schema: &SchemaRef,
    [facts, spans]: [&RecordBatch; 2],
    pairs: &[(u64, Option<u64>)],
) -> Result<RecordBatch> {
    let left: UInt64Array = pairs.iter().map(|(fact, _)| *fact).collect();
    let right: UInt64Array = pairs.iter().map(|(_, span)| *span).collect();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for column in facts.columns() {
        columns.push(take(column, &left, None)?);
    }
    for column in spans.columns() {
        columns.push(match right.null_count() == right.len() {
            // There may be no row to take.
            true => new_null_array(column.data_type(), right.len()),
            false => take(column, &right, None)?,
        });
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
