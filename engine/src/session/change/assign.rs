//! A value as its column holds it, or an error: each branch of a MERGE keeps its own type until here, because a
//! CASE over all branches would first bring them to one that fits none (`BIGINT` and `DOUBLE` become `DOUBLE`).

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    ObjectName,
};

use super::syntax;
use crate::error::Error;
use crate::write::lossless;

/// Begins the names of the functions behind [`as_column`]; the place of the column in its table follows.
const AS_COLUMN: &str = "__selvedge_as_";

/// The name of the function behind [`instant`].
const INSTANT: &str = "__selvedge_instant";

/// `value` as a value of column `at` of the table. The column itself is not read for that: its type is enough.
pub(super) fn as_column(value: Expr, at: usize) -> Expr {
    call(&format!("{AS_COLUMN}{at}"), vec![value])
}

/// The instant at which a statement changes a journal.
pub(super) fn instant() -> Expr {
    call(INSTANT, vec![])
}

fn call(function: &str, values: Vec<Expr>) -> Expr {
    let values = values.into_iter().map(FunctionArgExpr::Expr);
    Expr::Function(Function {
        name: ObjectName::from(vec![syntax::exact(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: values.map(FunctionArg::Unnamed).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// The functions behind [`as_column`] for the columns of a table; their names are of no use to people.
pub(super) fn functions(columns: &Fields) -> Vec<ScalarUDF> {
    let function = |(at, column): (usize, &FieldRef)| {
        ScalarUDF::new_from_impl(AsColumn {
            name: format!("{AS_COLUMN}{at}"),
            column: Arc::clone(column),
            signature: Signature::any(1, Volatility::Immutable),
        })
    };
    columns.iter().enumerate().map(function).collect()
}

/// The function behind [`instant`]: `value` is the instant as the sequence of the journal holds it. No text stands for
/// it, so that no zone of a session comes between.
pub(super) fn instant_function(value: ScalarValue) -> ScalarUDF {
    ScalarUDF::new_from_impl(Instant {
        value,
        signature: Signature::nullary(Volatility::Immutable),
    })
}

/// The type of the column to which `function` brings a value, if it is one of these.
pub(in crate::session) fn column_type(function: &ScalarUDF) -> Option<&DataType> {
    let function = function.inner().downcast_ref::<AsColumn>()?;
    Some(function.column.data_type())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsColumn {
    name: String,
    column: FieldRef,
    signature: Signature,
}

impl ScalarUDFImpl for AsColumn {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.column.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.column.as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return Err(Error::internal("one value goes to a column").into());
        };
        let values = value.to_array(args.number_rows)?;
        match lossless(&values, self.column.data_type()) {
            Ok(values) => Ok(ColumnarValue::Array(values)),
            Err(failure) => {
                let shown = failure.shown(&self.column);
                Err(Error::rejected(format!(
                    "column {}{}: {} values are no {}: {shown}: {}",
                    self.column.name(),
                    failure.path,
                    failure.rows.len(),
                    failure.to,
                    failure.reason
                ))
                .into())
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Instant {
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Instant {
    fn name(&self) -> &str {
        INSTANT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}
