//! `min` and `max` as DataFusion has them, but right for groups of floats. Its accumulators for groups begin with the
//! largest or the least finite number, which a group of nothing but infinities never gets past, and take whatever
//! comes after a NaN. Here all floats have the total order that they have without GROUP BY.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    ArrowNativeTypeOp, ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type,
};
use datafusion::common::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::NullState;

use crate::adapted::Adapted;
use crate::groups::{only, passed};
use crate::scalar::documentation;

/// The functions of this room. Rules of the planner know them by their names.
pub(crate) fn functions() -> Vec<AggregateUDF> {
    let min = documentation(
        "min",
        "The least value. NULLs are left out; NULL over nothing but NULLs.",
        [("expression", "values that have an order")].into_iter(),
        "SELECT min(x) FROM (VALUES (2), (NULL), (3)) AS t(x) -- 2",
    );
    let max = documentation(
        "max",
        "The greatest value. NULLs are left out; NULL over nothing but NULLs.",
        [("expression", "values that have an order")].into_iter(),
        "SELECT max(x) FROM (VALUES (2), (NULL), (3)) AS t(x) -- 3",
    );
    let min = Adapted::named("min", min_udaf(), min).of_floats(Extreme::Least);
    let max = Adapted::named("max", max_udaf(), max).of_floats(Extreme::Greatest);
    vec![min.into(), max.into()]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Extreme {
    Least,
    Greatest,
}

/// For floats; others are right in DataFusion.
pub(crate) fn groups_accumulator(
    extreme: Extreme,
    data_type: &DataType,
) -> Option<Box<dyn GroupsAccumulator>> {
    match data_type {
        DataType::Float16 => Some(of_floats::<Float16Type>(extreme)),
        DataType::Float32 => Some(of_floats::<Float32Type>(extreme)),
        DataType::Float64 => Some(of_floats::<Float64Type>(extreme)),
        _ => None,
    }
}

fn of_floats<T: ArrowPrimitiveType + Send>(extreme: Extreme) -> Box<dyn GroupsAccumulator> {
    match extreme {
        Extreme::Least => Box::new(ByGroup::<T, _> {
            start: T::Native::MAX_TOTAL_ORDER,
            beats: |new: T::Native, best: T::Native| new.is_lt(best),
            best: Vec::new(),
            met: NullState::new(),
        }),
        Extreme::Greatest => Box::new(ByGroup::<T, _> {
            start: T::Native::MIN_TOTAL_ORDER,
            beats: |new: T::Native, best: T::Native| new.is_gt(best),
            best: Vec::new(),
            met: NullState::new(),
        }),
    }
}

/// The best value of each group.
struct ByGroup<T: ArrowPrimitiveType, F> {
    /// What every value beats or equals.
    start: T::Native,
    beats: F,
    best: Vec<T::Native>,
    /// Groups that had a value.
    met: NullState,
}

impl<T, F> GroupsAccumulator for ByGroup<T, F>
where
    T: ArrowPrimitiveType + Send,
    F: Fn(T::Native, T::Native) -> bool + Send + Sync + 'static,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = only(values)?.as_primitive::<T>();
        self.best.resize(total_num_groups, self.start);
        let (best, beats) = (&mut self.best, &self.beats);
        self.met.accumulate(
            group_indices,
            values,
            opt_filter,
            total_num_groups,
            |group, value| {
                if beats(value, best[group]) {
                    best[group] = value;
                }
            },
        );
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.update_batch(states, group_indices, None, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let best = emit_to.take_needed(&mut self.best);
        let met = self.met.build(emit_to);
        Ok(Arc::new(PrimitiveArray::<T>::try_new(best.into(), met)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = only(values)?.as_primitive::<T>();
        let passed = opt_filter.map(|filter| NullBuffer::new(passed(filter)));
        let met = NullBuffer::union(values.nulls(), passed.as_ref());
        let state = PrimitiveArray::<T>::try_new(values.values().clone(), met)?;
        Ok(vec![Arc::new(state)])
    }

    fn size(&self) -> usize {
        self.best.capacity() * size_of::<T::Native>() + self.met.size()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Float32Array, Float64Array};
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::tests::{context, rows};

    /// What a group gives, whichever way its values come in.
    fn grouped(extreme: Extreme, values: &[Option<f64>]) -> Option<f64> {
        let array: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let groups = vec![0; values.len()];
        let new = || groups_accumulator(extreme, &DataType::Float64).unwrap();
        let answer = |mut accumulator: Box<dyn GroupsAccumulator>| {
            let answer = accumulator.evaluate(EmitTo::All).unwrap();
            let answer = answer.as_primitive::<Float64Type>().clone();
            answer.is_valid(0).then(|| answer.value(0).to_bits())
        };
        let mut once = new();
        let values = [array];
        once.update_batch(&values, &groups, None, 1).unwrap();
        let mut merged = new();
        let state = merged.convert_to_state(&values, None).unwrap();
        merged.merge_batch(&state, &groups, 1).unwrap();
        let mut again = new();
        let state = merged.state(EmitTo::All).unwrap();
        again.merge_batch(&state, &[0], 1).unwrap();
        let once = answer(once);
        assert_eq!(once, answer(again));
        once.map(f64::from_bits)
    }

    #[test]
    fn infinities_and_nan_of_a_group_are_as_without_groups() {
        const INF: f64 = f64::INFINITY;
        let least = |values: &[Option<f64>]| grouped(Extreme::Least, values);
        let greatest = |values: &[Option<f64>]| grouped(Extreme::Greatest, values);
        assert_eq!(greatest(&[Some(-INF)]), Some(-INF));
        assert_eq!(least(&[Some(INF), None]), Some(INF));
        assert_eq!(greatest(&[Some(-INF), Some(f64::MIN)]), Some(f64::MIN));
        assert_eq!(least(&[Some(INF), Some(-INF)]), Some(-INF));
        assert_eq!(greatest(&[None, None]), None);
        for values in [[Some(f64::NAN), Some(1.0)], [Some(1.0), Some(f64::NAN)]] {
            assert!(greatest(&values).unwrap().is_nan());
            assert_eq!(least(&values), Some(1.0));
        }
        assert!(least(&[Some(f64::NAN)]).unwrap().is_nan());
    }

    #[test]
    fn groups_are_apart_and_filtered_rows_do_not_count() {
        let mut max = groups_accumulator(Extreme::Greatest, &DataType::Float32).unwrap();
        let values: ArrayRef = Arc::new(Float32Array::from(vec![
            Some(-1.0),
            Some(f32::NEG_INFINITY),
            None,
            Some(5.0),
        ]));
        let filter = BooleanArray::from(vec![Some(true), Some(true), Some(true), None]);
        let groups = [0, 1, 2, 3];
        let values = [values];
        max.update_batch(&values, &groups, Some(&filter), 4)
            .unwrap();
        let first = max.evaluate(EmitTo::First(2)).unwrap();
        assert_eq!(
            first.as_primitive::<Float32Type>(),
            &Float32Array::from(vec![-1.0, f32::NEG_INFINITY])
        );
        let rest = max.evaluate(EmitTo::All).unwrap();
        assert_eq!(rest.null_count(), 2);
        let state = max.convert_to_state(&values, Some(&filter)).unwrap();
        assert_eq!(state[0].null_count(), 2);
    }

    async fn same_with_and_without(context: &SessionContext, call: &str, values: &str) {
        let from = format!("FROM (VALUES {values}) AS t(g, x)");
        let grouped = rows(context, &format!("SELECT {call} {from} GROUP BY g")).await;
        let whole = rows(context, &format!("SELECT {call} {from}")).await;
        assert_eq!(grouped.unwrap(), whole.unwrap(), "{call} {values}");
    }

    #[tokio::test]
    async fn sql_uses_them() {
        let context = context();
        for kind in ["Float16", "Float32", "Float64"] {
            for values in [
                "(1, '-inf')",
                "(1, 'inf'), (1, NULL)",
                "(1, '-inf'), (1, '2')",
                "(1, 'NaN'), (1, '1'), (1, 'inf')",
                "(1, NULL)",
            ] {
                for function in ["min", "max"] {
                    let call =
                        format!("{function}(arrow_cast(arrow_cast(x, 'Float64'), '{kind}'))");
                    same_with_and_without(&context, &call, values).await;
                }
            }
        }
        let sql = "SELECT max(x) FILTER (WHERE x < 0) FROM (VALUES (1, CAST('-inf' AS DOUBLE)), (1, 3)) AS t(g, x) GROUP BY g";
        assert_eq!(rows(&context, sql).await.unwrap(), ["-inf"]);
        for sql in [
            "SELECT max(x) FROM (VALUES ('a'), ('b')) AS t(x)",
            "SELECT max(DISTINCT x) FROM (VALUES (1, 'a'), (1, 'b')) AS t(g, x) GROUP BY g",
            "SELECT max(x) OVER () FROM (VALUES ('b')) AS t(x)",
        ] {
            assert_eq!(rows(&context, sql).await.unwrap(), ["b"], "{sql}");
        }
    }
}
