//! Which values go where another type is declared. What would change a value silently is not among them.

use datafusion::arrow::compute::can_cast_types;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

use crate::error::Error;
use crate::session::types::sql_name;

/// `value`, which is a `from`, as a `to`; `None` when a person should say how.
pub(super) fn fitted(value: Expr, from: &DataType, to: &DataType) -> Option<Expr> {
    if from == to {
        return Some(value);
    }
    (fits(from, to) || dated(&value, to)).then(|| {
        Expr::Cast(datafusion::logical_expr::Cast::new(
            Box::new(value),
            to.clone(),
        ))
    })
}

/// That `what` is a `from` and should be a `to`.
pub(super) fn unfit(what: &str, from: &DataType, to: &DataType) -> Error {
    let (from, to) = (sql_name(from), sql_name(to));
    Error::invalid(format!("{what} is {from}, not {to}"))
        .with_hint(format!("say how it becomes one: CAST(.. AS {to})"))
}

fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (Null, _) => true,
        (Dictionary(_, value), _) => fits(value, to) || **value == *to,
        (_, Utf8 | LargeUtf8 | Utf8View) => from.is_string(),
        (_, Binary | LargeBinary | BinaryView) => {
            matches!(from, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
        }
        // Too large a number is an error when it comes; a fraction would be lost without one.
        (_, to) if to.is_integer() => from.is_integer(),
        (_, to) if to.is_numeric() => from.is_numeric(),
        (Timestamp(_, from), Timestamp(_, to)) => from.is_some() == to.is_some(),
        (Date32 | Date64, Timestamp(_, None) | Date32 | Date64) => true,
        (
            List(_) | LargeList(_) | ListView(_) | LargeListView(_) | FixedSizeList(..),
            List(_) | LargeList(_),
        )
        | (Struct(_), Struct(_))
        | (Map(..), Map(..)) => can_cast_types(from, to),
        _ => false,
    }
}

/// A date or an instant is written as text: `'2026-01-01'`.
fn dated(value: &Expr, to: &DataType) -> bool {
    let Expr::Literal(text, _) = value else {
        return false;
    };
    let text = matches!(
        text,
        ScalarValue::Utf8(_) | ScalarValue::LargeUtf8(_) | ScalarValue::Utf8View(_)
    );
    text && matches!(
        to,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)
    )
}
