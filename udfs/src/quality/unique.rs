//! `is_unique`: whether no row has the values of another.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, LargeListArray, UInt64Array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Signature, Volatility,
};

use super::key::Key;
use super::seen::Seen;
use super::values::{bits, hashed, nulls, packed, plain};
use crate::scalar::documentation;

pub(super) fn function() -> AggregateUDF {
    AggregateUDF::from(Unique {
        signature: Signature::variadic_any(Volatility::Immutable),
        documentation: documentation(
            "is_unique",
            "Whether no two rows have the same values in these columns. Rows with a NULL in any of them are left out; NULL when no row remains. Takes memory for every row: 8 bytes where the values of a row fit into them, otherwise 16. Exact for values of 128 bits and less; wider ones are compared by a hash of 128 bits, which errs once in 10^21 times for a thousand million rows.",
            [("column..", "what is to be unique, of any type")].into_iter(),
            "SELECT is_unique(x, y) FROM (VALUES (1, 'a'), (1, 'b'), (2, NULL), (2, NULL)) AS t(x, y) -- true",
        ),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unique {
    signature: Signature,
    documentation: Documentation,
}

impl AggregateUDFImpl for Unique {
    fn name(&self) -> &str {
        "is_unique"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let repeated = format_state_name(args.name, "repeated");
        let keys = format_state_name(args.name, "keys");
        Ok(vec![
            Arc::new(Field::new(repeated, DataType::Boolean, false)),
            Arc::new(Field::new(keys, DataType::LargeList(word_field()), false)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        super::not_distinct(self.name(), &args)?;
        let types = args.expr_fields.iter().map(|field| bits(field.data_type()));
        let rows: Box<dyn Accumulator> = match types.sum::<Option<u32>>() {
            Some(..=64) => Box::new(Rows::new(packed::<u64>)),
            Some(..=128) => Box::new(Rows::new(packed::<u128>)),
            _ => Box::new(Rows::new(hashed)),
        };
        Ok(rows)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

fn word_field() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::UInt64, true))
}

/// The rows met, by keys that stand for their values.
#[derive(Debug)]
struct Rows<K> {
    keys: fn(&[ArrayRef]) -> Result<Vec<K>>,
    seen: Seen<K>,
}

impl<K: Key> Rows<K> {
    fn new(keys: fn(&[ArrayRef]) -> Result<Vec<K>>) -> Self {
        let seen = Seen::new();
        Self { keys, seen }
    }
}

impl<K: Key> Accumulator for Rows<K> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.seen.repeated() {
            return Ok(());
        }
        let values: Vec<ArrayRef> = values.iter().map(plain).collect::<Result<_>>()?;
        let keys = (self.keys)(&values)?;
        match nulls(&values) {
            Some(nulls) => self.seen.extend(nulls.valid_indices().map(|row| keys[row])),
            None => self.seen.extend(keys.into_iter()),
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [repeated, keys] = states else {
            return internal_err!("is_unique has two states, found {}", states.len());
        };
        if repeated.as_boolean().has_true() {
            self.seen.repeat();
            return Ok(());
        }
        let keys = keys.as_list::<i64>();
        // The lists of all rows lie one behind the other.
        let (Some(start), Some(end)) = (keys.offsets().first(), keys.offsets().last()) else {
            return Ok(());
        };
        let words = keys.values().as_primitive::<UInt64Type>().values();
        let words = &words[*start as usize..*end as usize];
        self.seen.extend(words.chunks_exact(K::WORDS).map(K::read));
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let repeated = self.seen.repeated();
        let words = self.seen.drain();
        let keys = LargeListArray::try_new(
            word_field(),
            OffsetBuffer::from_lengths([words.len()]),
            Arc::new(UInt64Array::from(words)),
            None,
        )?;
        Ok(vec![
            ScalarValue::Boolean(Some(repeated)),
            ScalarValue::LargeList(Arc::new(keys)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let unique = !self.seen.repeats();
        let some = !unique || self.seen.len() > 0;
        Ok(ScalarValue::Boolean(some.then_some(unique)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.seen.size()
    }
}
