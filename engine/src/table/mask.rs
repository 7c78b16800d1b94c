//! Which rows of a file are visible, and the columns of a batch without the others.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, GenericByteViewArray,
    PrimitiveArray, downcast_primitive_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, ScalarBuffer};
use datafusion::arrow::compute::{FilterBuilder, FilterPredicate};
use datafusion::arrow::datatypes::{ArrowNativeType, ByteViewType, DataType};
use datafusion::common::{Result, internal_err};

/// Which rows of its file are visible: an extension of a `PartitionedFile`. Files without it are read whole.
#[derive(Debug, Clone)]
pub(super) struct Mask(pub BooleanBuffer);

impl Mask {
    /// Of the rows with these numbers.
    pub(super) fn of(&self, numbers: &[i64]) -> Result<BooleanBuffer> {
        let Some(&first) = numbers.first() else {
            return Ok(BooleanBuffer::new_unset(0));
        };
        let rows = self.0.len();
        let known = |row: i64| usize::try_from(row).ok().filter(|row| *row < rows);
        // No early end, and no comparisons: that is the loop which the compiler makes wide on any machine.
        let gaps = numbers
            .iter()
            .zip(first..)
            .fold(0, |gaps, (row, next)| gaps | (row ^ next));
        if let Some(first) = known(first)
            && gaps == 0
            && numbers.len() <= rows - first
        {
            return Ok(self.0.slice(first, numbers.len()));
        }
        if let Some(row) = numbers.iter().find(|row| known(**row).is_none()) {
            return internal_err!("row {row} of a file of {rows} rows");
        }
        let visible = |at: usize| known(numbers[at]).is_some_and(|row| self.0.value(row));
        Ok(BooleanBuffer::collect_bool(numbers.len(), visible))
    }
}

/// Values that are copied at once: runs between deleted rows are a little shorter as a rule. Of wide values there are
/// fewer, for the compiler copies up to 128 bytes without a call.
const BLOCK: usize = 16;
const WIDE_BLOCK: usize = 8;

/// The visible rows of a batch.
///
/// Arrow's filter copies each run of rows by a call of its own, which with runs of nine rows takes longer than the copy.
/// Here a run is copied in blocks of a fixed size, and what is too much of the last one is taken back.
pub(super) struct Runs {
    runs: Vec<(usize, usize)>,
    /// Rows of the batch, and how many of them are visible.
    all: usize,
    rows: usize,
    filter: FilterPredicate,
}

impl Runs {
    pub(super) fn new(visible: BooleanBuffer) -> Self {
        Self {
            all: visible.len(),
            rows: visible.count_set_bits(),
            runs: runs(&visible),
            filter: FilterBuilder::new(&BooleanArray::new(visible, None)).build(),
        }
    }

    /// Visible rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The visible rows of a column of the batch.
    pub(super) fn of(&self, column: &ArrayRef) -> Result<ArrayRef> {
        if column.len() != self.all {
            return internal_err!("a mask of {} rows for {}", self.all, column.len());
        }
        // A few rows are found sooner one by one.
        if self.rows < self.all / 2 {
            return Ok(self.filter.filter(column)?);
        }
        downcast_primitive_array!(
            column => Ok(Arc::new(self.primitive(column))),
            DataType::Utf8View => Ok(Arc::new(self.view(column.as_string_view()))),
            DataType::BinaryView => Ok(Arc::new(self.view(column.as_binary_view()))),
            _ => Ok(self.filter.filter(column)?)
        )
    }

    fn primitive<T: ArrowPrimitiveType>(&self, column: &PrimitiveArray<T>) -> PrimitiveArray<T> {
        let nulls = self.filter.filter_nulls(column.nulls());
        let values = match size_of::<T::Native>() {
            ..16 => self.copied::<_, BLOCK>(column.values()),
            16.. => self.copied::<_, WIDE_BLOCK>(column.values()),
        };
        PrimitiveArray::new(values, nulls).with_data_type(column.data_type().clone())
    }

    #[expect(
        unsafe_code,
        reason = "to check anew that values are texts takes longer than all else here"
    )]
    fn view<T: ByteViewType + ?Sized>(
        &self,
        column: &GenericByteViewArray<T>,
    ) -> GenericByteViewArray<T> {
        let nulls = self.filter.filter_nulls(column.nulls());
        let views = self.copied::<_, WIDE_BLOCK>(column.views());
        let buffers = column.data_buffers().to_vec();
        // SAFETY: each view is one of the column's, over the column's own buffers. `copied` and `filter_nulls` both keep
        // `rows` of the column, which is as long as the mask.
        unsafe { GenericByteViewArray::new_unchecked(views, buffers, nulls) }
    }

    fn copied<T: ArrowNativeType, const N: usize>(&self, values: &[T]) -> ScalarBuffer<T> {
        let mut kept: Vec<T> = Vec::with_capacity(self.rows + N);
        for (start, end) in &self.runs {
            let mut run = *start;
            while run < *end {
                let Some(block) = values.get(run..).and_then(|rest| rest.first_chunk::<N>()) else {
                    kept.extend_from_slice(values.get(run..*end).unwrap_or_default());
                    break;
                };
                kept.extend_from_slice(block);
                run += N;
            }
            kept.truncate(kept.len() - run.saturating_sub(*end));
        }
        ScalarBuffer::from(kept)
    }
}

/// The begin and the end of each run of bits that are set.
fn runs(bits: &BooleanBuffer) -> Vec<(usize, usize)> {
    let mut runs = Vec::with_capacity(1 + bits.len() / BLOCK);
    let mut start = 0;
    let mut end = |at: usize| {
        if at > start {
            runs.push((start, at));
        }
        start = at + 1;
    };
    let words = bits.bit_chunks();
    let last = u64::MAX
        .checked_shl(words.remainder_len() as u32)
        .unwrap_or(0);
    let words = words.iter().chain([words.remainder_bits() | last]);
    for (at, word) in words.enumerate() {
        let mut unset = !word;
        while unset != 0 {
            end(at * 64 + unset.trailing_zeros() as usize);
            unset &= unset - 1;
        }
    }
    end(bits.len());
    runs
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        BooleanArray, Decimal128Array, FixedSizeBinaryArray, Int64Array, StringArray,
        StringViewArray, StructArray, TimestampMicrosecondArray, UInt8Array,
    };
    use datafusion::arrow::compute::filter;
    use datafusion::arrow::datatypes::Field;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn mask(hidden: &[usize]) -> Mask {
        Mask((0..10).map(|row| !hidden.contains(&row)).collect())
    }

    fn shown(mask: &Mask, numbers: &[i64]) -> Vec<bool> {
        mask.of(numbers).unwrap().iter().collect()
    }

    #[test]
    fn rows_are_found_by_their_numbers() {
        let mask = mask(&[2, 7]);
        assert_eq!(shown(&mask, &[]), [false; 0]);
        assert_eq!(shown(&mask, &[1, 2, 3]), [true, false, true]);
        assert_eq!(shown(&mask, &[8, 9]), [true, true]);
        // A gap, and another order of row groups, of which first and last are as if there were none.
        assert_eq!(shown(&mask, &[1, 2, 4, 7]), [true, false, true, false]);
        assert_eq!(shown(&mask, &[6, 2, 8]), [true, false, true]);
        assert_eq!(shown(&mask, &[7, 8, 2, 3]), [false, true, false, true]);
    }

    #[test]
    fn rows_behind_the_end_are_an_error() {
        for numbers in [&[8, 9, 10][..], &[-1, 0], &[3, 12]] {
            assert!(mask(&[]).of(numbers).is_err(), "{numbers:?}");
        }
    }

    /// A column of each kind, some values of which are NULL unless all are `present`.
    fn columns(rows: usize, present: bool, dice: &mut StdRng) -> Vec<ArrayRef> {
        let mut numbers = || -> Vec<Option<i64>> {
            let number = |row| (present || dice.random_bool(0.8)).then_some(row as i64);
            (0..rows).map(number).collect()
        };
        let texts = |numbers: &[Option<i64>]| -> Vec<Option<String>> {
            let text = |n: i64| format!("{n}{}", "-".repeat(n as usize % 20));
            numbers.iter().map(|n| n.map(text)).collect()
        };
        let (a, b) = (numbers(), numbers());
        let decimals: Decimal128Array = b.iter().map(|n| n.map(i128::from)).collect();
        let instants: TimestampMicrosecondArray = a.iter().copied().collect();
        let views: StringViewArray = texts(&a).into_iter().collect();
        let bytes = b.iter().map(|n| n.map(i64::to_le_bytes));
        let bytes = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 8).unwrap();
        let pairs = [
            Field::new("n", DataType::Int64, true),
            Field::new("t", DataType::Utf8View, true),
        ];
        let of_pairs: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(a.clone())),
            Arc::new(views.clone()),
        ];
        vec![
            Arc::new(Int64Array::from(a.clone())),
            Arc::new(a.iter().map(|n| n.map(|n| n as u8)).collect::<UInt8Array>()),
            Arc::new(decimals.with_precision_and_scale(20, 3).unwrap()),
            Arc::new(instants.with_timezone("UTC")),
            Arc::new(StringArray::from(texts(&b))),
            Arc::new(views.clone().to_binary_view()),
            Arc::new(views),
            Arc::new(
                b.iter()
                    .map(|n| n.map(|n| n % 3 == 0))
                    .collect::<BooleanArray>(),
            ),
            Arc::new(bytes),
            Arc::new(StructArray::new(pairs.to_vec().into(), of_pairs, None)),
        ]
    }

    #[test]
    fn visible_rows_are_those_that_arrow_keeps() {
        let mut dice = StdRng::seed_from_u64(5);
        for rows in [0, 1, 15, 16, 17, 63, 64, 65, 200, 1_000] {
            for share in [0.0, 0.1, 0.5, 0.9, 0.99, 1.0] {
                let (before, after) = (dice.random_range(0..70), dice.random_range(0..70));
                let all = before + rows + after;
                let bits: BooleanBuffer = (0..all).map(|_| dice.random_bool(share)).collect();
                let visible = bits.slice(before, rows);
                let runs = Runs::new(visible.clone());
                assert_eq!(runs.rows(), visible.count_set_bits());
                let visible = BooleanArray::new(visible, None);
                for column in columns(all, rows % 2 == 0, &mut dice) {
                    let column = column.slice(before, rows);
                    let kept = runs.of(&column).unwrap();
                    kept.to_data().validate_full().unwrap();
                    assert_eq!(&kept, &filter(&column, &visible).unwrap(), "{rows} {share}");
                }
            }
        }
    }
}
