//! `null_count`, `null_fraction` and `nan_count`.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, PrimitiveArray,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::sum;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, Int64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator,
    Signature, Volatility,
};

use super::values::plain;
use crate::groups::{only, passed};
use crate::scalar::documentation;

pub(super) fn functions() -> Vec<AggregateUDF> {
    let function = |asked, name, about, column, example| {
        AggregateUDF::from(Counts {
            asked,
            name,
            signature: Signature::any(1, Volatility::Immutable),
            documentation: documentation(name, about, [("column", column)].into_iter(), example),
        })
    };
    vec![
        function(
            Asked::Nulls,
            "null_count",
            "How many values are NULL.",
            "values of any type",
            "SELECT null_count(x) FROM (VALUES (1), (NULL), (NULL), (4)) AS t(x) -- 2",
        ),
        function(
            Asked::NullFraction,
            "null_fraction",
            "The share of values that are NULL, from 0 to 1; NULL over no rows.",
            "values of any type",
            "SELECT null_fraction(x) FROM (VALUES (1), (NULL), (3), (4)) AS t(x) -- 0.25",
        ),
        function(
            Asked::Nans,
            "nan_count",
            "How many values are NaN; 0 for types that have none. NULL is not NaN.",
            "values of any type",
            "SELECT nan_count(x) FROM (VALUES (1.5), (CAST('NaN' AS DOUBLE)), (NULL)) AS t(x) -- 1",
        ),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    Nulls,
    NullFraction,
    Nans,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Counts {
    asked: Asked,
    name: &'static str,
    signature: Signature,
    documentation: Documentation,
}

impl AggregateUDFImpl for Counts {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.asked {
            Asked::Nulls | Asked::Nans => DataType::Int64,
            Asked::NullFraction => DataType::Float64,
        })
    }

    fn is_nullable(&self) -> bool {
        self.asked.needs_rows()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        match self.asked {
            Asked::Nulls | Asked::Nans => Ok(ScalarValue::Int64(Some(0))),
            Asked::NullFraction => ScalarValue::try_from(data_type),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let states = ["counted", "rows"].into_iter().take(self.asked.states());
        Ok(states
            .map(|state| format_state_name(args.name, state))
            .map(|name| Arc::new(Field::new(name, DataType::Int64, false)))
            .collect())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        super::not_distinct(self.name, &args)?;
        Ok(Box::new(Count {
            asked: self.asked,
            counted: 0,
            rows: 0,
        }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        super::not_distinct(self.name, &args)?;
        Ok(Box::new(CountByGroup {
            asked: self.asked,
            counted: Vec::new(),
            rows: Vec::new(),
        }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

impl Asked {
    /// Whether the answer depends on the number of all rows too.
    fn needs_rows(self) -> bool {
        self == Self::NullFraction
    }

    fn states(self) -> usize {
        1 + usize::from(self.needs_rows())
    }

    fn count(self, values: &ArrayRef) -> Result<i64> {
        Ok(match self {
            // Known to the array, so that nothing is read.
            Self::Nulls | Self::NullFraction => values.logical_null_count() as i64,
            Self::Nans => self.rows(values)?.map_or(0, |rows| rows.count_set_bits()) as i64,
        })
    }

    /// The rows that count, unless there are none.
    fn rows(self, values: &ArrayRef) -> Result<Option<BooleanBuffer>> {
        if self != Self::Nans {
            let nulls = values.logical_nulls();
            let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
            return Ok(nulls.map(|nulls| !nulls.inner()));
        }
        let values = plain(values)?;
        Ok(match values.data_type() {
            DataType::Float16 => Some(nans::<Float16Type>(values.as_primitive())),
            DataType::Float32 => Some(nans::<Float32Type>(values.as_primitive())),
            DataType::Float64 => Some(nans::<Float64Type>(values.as_primitive())),
            _ => None,
        })
    }
}

fn nans<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> BooleanBuffer {
    let values = array.values();
    let nans = BooleanBuffer::collect_bool(values.len(), |row| {
        // NaN alone has no order, not even with itself.
        values[row].partial_cmp(&values[row]).is_none()
    });
    match array.nulls() {
        Some(nulls) => &nans & nulls.inner(),
        None => nans,
    }
}

/// Over all rows.
#[derive(Debug)]
struct Count {
    asked: Asked,
    counted: i64,
    rows: i64,
}

impl Accumulator for Count {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = only(values)?;
        self.counted += self.asked.count(values)?;
        self.rows += values.len() as i64;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = only(values)?;
        self.counted -= self.asked.count(values)?;
        self.rows -= values.len() as i64;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (total, state) in [&mut self.counted, &mut self.rows].into_iter().zip(states) {
            *total += sum(state.as_primitive::<Int64Type>()).unwrap_or(0);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = [self.counted, self.rows].into_iter();
        let states = states.take(self.asked.states());
        Ok(states.map(ScalarValue::from).collect())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.asked {
            Asked::Nulls | Asked::Nans => ScalarValue::Int64(Some(self.counted)),
            Asked::NullFraction => ScalarValue::Float64(fraction(self.counted, self.rows)),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Over the rows of each group.
struct CountByGroup {
    asked: Asked,
    counted: Vec<i64>,
    /// Empty where they are not needed.
    rows: Vec<i64>,
}

impl CountByGroup {
    fn grow(&mut self, groups: usize) {
        self.counted.resize(groups, 0);
        if self.asked.needs_rows() {
            self.rows.resize(groups, 0);
        }
    }
}

impl GroupsAccumulator for CountByGroup {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = only(values)?;
        self.grow(total_num_groups);
        let passed = opt_filter.map(passed);
        if let Some(counted) = both(self.asked.rows(values)?, passed.as_ref()) {
            for row in counted.set_indices() {
                self.counted[group_indices[row]] += 1;
            }
        }
        if self.asked.needs_rows() {
            match passed {
                Some(passed) => passed
                    .set_indices()
                    .for_each(|row| self.rows[group_indices[row]] += 1),
                None => group_indices
                    .iter()
                    .for_each(|group| self.rows[*group] += 1),
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        for (totals, state) in [&mut self.counted, &mut self.rows].into_iter().zip(states) {
            let state = state.as_primitive::<Int64Type>().values();
            for (group, count) in group_indices.iter().zip(state.iter()) {
                totals[*group] += count;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let counted = emit_to.take_needed(&mut self.counted);
        if !self.asked.needs_rows() {
            return Ok(Arc::new(Int64Array::from(counted)));
        }
        let rows = emit_to.take_needed(&mut self.rows);
        let groups = counted.into_iter().zip(rows);
        let fractions: Float64Array = groups
            .map(|(counted, rows)| fraction(counted, rows))
            .collect();
        Ok(Arc::new(fractions))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let totals = [&mut self.counted, &mut self.rows].into_iter();
        let totals = totals.take(self.asked.states());
        Ok(totals
            .map(|totals| Int64Array::from(emit_to.take_needed(totals)))
            .map(|totals| Arc::new(totals) as ArrayRef)
            .collect())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = only(values)?;
        let passed = opt_filter.map(passed);
        let counted = both(self.asked.rows(values)?, passed.as_ref());
        let counted = counted.unwrap_or_else(|| BooleanBuffer::new_unset(values.len()));
        let rows = passed.unwrap_or_else(|| BooleanBuffer::new_set(values.len()));
        let states = [counted, rows].into_iter().take(self.asked.states());
        Ok(states
            .map(|rows| Int64Array::from_iter_values(rows.iter().map(i64::from)))
            .map(|ones| Arc::new(ones) as ArrayRef)
            .collect())
    }

    fn size(&self) -> usize {
        (self.counted.capacity() + self.rows.capacity()) * size_of::<i64>()
    }
}

fn fraction(counted: i64, rows: i64) -> Option<f64> {
    (rows > 0).then(|| counted as f64 / rows as f64)
}

fn both(rows: Option<BooleanBuffer>, passed: Option<&BooleanBuffer>) -> Option<BooleanBuffer> {
    match (rows, passed) {
        (Some(rows), Some(passed)) => Some(&rows & passed),
        (rows, _) => rows,
    }
}
