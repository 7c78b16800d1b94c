//! A value as its column holds it, or an error: each branch of a MERGE keeps its own type until here, because a
//! CASE over all branches would first bring them to one that fits none (`BIGINT` and `DOUBLE` become `DOUBLE`).

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
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

/// The name of the function behind [`as_column`].
pub(in crate::session) const AS_COLUMN: &str = "__selvedge_as";

/// `value` as a value of the type of `column`.
pub(super) fn as_column(value: Expr, column: Expr) -> Expr {
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    Expr::Function(Function {
        name: ObjectName::from(vec![syntax::exact(AS_COLUMN)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(value), argument(column)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// The function behind [`as_column`]; its name is of no use to people.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(AsColumn {
        signature: Signature::any(2, Volatility::Immutable),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsColumn {
    signature: Signature,
}

impl ScalarUDFImpl for AsColumn {
    fn name(&self) -> &str {
        AS_COLUMN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [_, column] => Ok(column.clone()),
            _ => Err(Error::internal("a value goes to one column").into()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [_, column] => Ok(Arc::new(column.as_ref().clone().with_nullable(true))),
            _ => Err(Error::internal("a value goes to one column").into()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, _] = args.args.as_slice() else {
            return Err(Error::internal("a value goes to one column").into());
        };
        let values = value.to_array(args.number_rows)?;
        match lossless(&values, args.return_field.data_type()) {
            Ok(values) => Ok(ColumnarValue::Array(values)),
            Err(failure) => {
                let column = args.arg_fields[1].name();
                let shown = failure.first.join(", ");
                Err(Error::rejected(format!(
                    "column {column}{}: {} values are no {}: {shown}: {}",
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
