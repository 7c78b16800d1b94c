//! When an interval holds an instant: from its begin on, and not at its end.

use arrow::array::{Array, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{
    DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

use crate::error::Error;
use crate::journal::definition::FAR_FUTURE_MICROS;

/// `__selvedge_holds(from, to, at, keys ..)`: whether the interval `[from, to)` holds `at`. It does not read `keys`:
/// they say that intervals of rows which agree in all of these columns never overlap.
pub(crate) fn holds(
    far_future: bool,
    [from, to]: [Expr; 2],
    at: Expr,
    keys: impl IntoIterator<Item = Expr>,
) -> Expr {
    let arguments = [from, to, at].into_iter().chain(keys);
    ScalarUDF::new_from_impl(Holds {
        signature: Signature::variadic_any(Volatility::Immutable),
        far_future,
    })
    .call(arguments.collect())
}

/// The function. Native comparisons would turn the end of an interval that has none into nanoseconds for an instant in
/// nanoseconds, and fail: the far future is beyond them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Holds {
    signature: Signature,
    /// Whether an interval without end is kept as one that ends in the far future.
    pub far_future: bool,
}

impl ScalarUDFImpl for Holds {
    fn name(&self) -> &str {
        "__selvedge_holds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [from, to, at, ..] = columns.as_slice() else {
            return Err(Error::internal("an interval has a begin, an end and an instant").into());
        };
        let intervals = Intervals::new(from, to, self.far_future)?;
        let at = micros(at)?;
        let held = at.iter().enumerate().map(|(row, at)| {
            let held = at.is_some_and(|at| intervals.hold(row, at));
            Some(held)
        });
        let held: BooleanArray = held.collect();
        Ok(ColumnarValue::Array(Arc::new(held)))
    }
}

/// Intervals of rows, in microseconds.
#[derive(Debug)]
pub(super) struct Intervals {
    from: Int64Array,
    to: Int64Array,
    far_future: bool,
}

impl Intervals {
    pub(super) fn new(from: &dyn Array, to: &dyn Array, far_future: bool) -> Result<Self> {
        Ok(Self {
            from: micros(from)?,
            to: micros(to)?,
            far_future,
        })
    }

    pub(super) fn begin(&self, row: usize) -> Option<i64> {
        value(&self.from, row)
    }

    pub(super) fn hold(&self, row: usize, at: i64) -> bool {
        self.begin(row).is_some_and(|from| from <= at)
            && value(&self.to, row)
                .is_none_or(|to| to > at || (self.far_future && to >= FAR_FUTURE_MICROS))
    }
}

/// A value that may be NULL.
pub(super) fn value(instants: &Int64Array, row: usize) -> Option<i64> {
    instants.is_valid(row).then(|| instants.value(row))
}

/// Instants as the period columns hold them. Parts of a microsecond are cut off towards the past: whole microseconds
/// begin at or before the instant exactly if they begin at or before the rest. Order stays, so what is sorted by the
/// instant is sorted by this.
pub(crate) fn micros(instants: &dyn Array) -> Result<Int64Array> {
    Ok(match instants.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            instants
                .as_primitive::<TimestampSecondType>()
                .unary::<_, Int64Type>(|at| at.saturating_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => instants
            .as_primitive::<TimestampMillisecondType>()
            .unary::<_, Int64Type>(|at| at.saturating_mul(1_000)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => instants
            .as_primitive::<TimestampMicrosecondType>()
            .reinterpret_cast::<Int64Type>(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => instants
            .as_primitive::<TimestampNanosecondType>()
            .unary::<_, Int64Type>(|at| at.div_euclid(1_000)),
        other => {
            return Err(Error::internal(format!("{other} was taken for a point in time")).into());
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray,
    };

    use super::*;

    fn intervals(of: &[(Option<i64>, Option<i64>)], far_future: bool) -> Intervals {
        let (from, to): (Vec<_>, Vec<_>) = of.iter().copied().unzip();
        let from = TimestampMicrosecondArray::from(from);
        let to = TimestampMicrosecondArray::from(to);
        Intervals::new(&from, &to, far_future).unwrap()
    }

    #[test]
    fn an_interval_holds_its_begin_and_not_its_end() {
        let found = intervals(
            &[(Some(10), Some(20)), (Some(10), None), (None, None)],
            false,
        );
        for (at, expected) in [
            (9, [false; 3]),
            (10, [true, true, false]),
            (19, [true, true, false]),
            (20, [false, true, false]),
        ] {
            let held = [0, 1, 2].map(|row| found.hold(row, at));
            assert_eq!(held, expected, "{at}");
        }
    }

    #[test]
    fn the_far_future_is_no_end() {
        let at = FAR_FUTURE_MICROS + 1;
        let of = [(Some(10), Some(FAR_FUTURE_MICROS))];
        assert!(intervals(&of, true).hold(0, at));
        assert!(!intervals(&of, false).hold(0, at));
    }

    #[test]
    fn instants_are_cut_towards_the_past_and_keep_their_order() {
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![
            Some(-1_001),
            Some(-1_000),
            Some(-1),
            None,
            Some(999),
            Some(1_000),
        ]));
        let cut: Vec<_> = micros(&nanos).unwrap().iter().collect();
        assert_eq!(cut, [Some(-2), Some(-1), Some(-1), None, Some(0), Some(1)]);
        let seconds = TimestampSecondArray::from(vec![i64::MIN, -1, 2, i64::MAX]);
        let whole: Vec<_> = micros(&seconds).unwrap().iter().flatten().collect();
        assert_eq!(whole, [i64::MIN, -1_000_000, 2_000_000, i64::MAX]);
        assert!(micros(&Int64Array::from(vec![1])).is_err());
    }
}
