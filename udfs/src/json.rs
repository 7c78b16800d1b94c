//! JSON kept as text: the functions of `datafusion-functions-json`, made to fit a lake.
//!
//! That crate's own `json_get` and `->` answer with a union, which no table stores and no client shows.
//! Here both answer with JSON text, as in PostgreSQL: what `->` gives, `->` takes.

use std::sync::Arc;

use datafusion::arrow::array::{Array, BooleanArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::{cast, nullif};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs;

use crate::scalar::documentation;

const JSON: (&str, &str) = (
    "json",
    "text that holds JSON; NULL, and text that is no JSON, give NULL",
);
const PATH: (&str, &str) = (
    "path",
    "keys and positions, one argument for each step; a position counts from 0, a negative one from the end",
);

/// The functions of this room.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    [
        get(),
        as_text(),
        Json::new(
            "json_get_str",
            udfs::json_get_str_udf(),
            "Text at a path of a JSON value; NULL where something else or nothing is.",
            r#"SELECT json_get_str('{"a": {"b": "x"}}', 'a', 'b') -- x"#,
        ),
        Json::new(
            "json_get_int",
            udfs::json_get_int_udf(),
            "Whole number at a path of a JSON value; NULL where something else or nothing is.",
            r#"SELECT json_get_int('{"a": [1, 2]}', 'a', 1) -- 2"#,
        ),
        Json::new(
            "json_get_float",
            udfs::json_get_float_udf(),
            "Number at a path of a JSON value; NULL where something else or nothing is.",
            r#"SELECT json_get_float('{"a": 1.5}', 'a') -- 1.5"#,
        ),
        Json::new(
            "json_get_bool",
            udfs::json_get_bool_udf(),
            "Truth value at a path of a JSON value; NULL where something else or nothing is.",
            r#"SELECT json_get_bool('{"a": true}', 'a') -- true"#,
        ),
        Json::new(
            "json_get_array",
            udfs::json_get_array_udf(),
            "Elements of the array at a path of a JSON value, each as JSON text; NULL where something else or nothing is.",
            r#"SELECT json_get_array('{"a": [1, "x"]}', 'a')[2] -- "x""#,
        ),
        Json {
            strict: true,
            ..Json::new(
                "json_contains",
                udfs::json_contains_udf(),
                "Whether there is anything at a path of a JSON value, be it null. Text that is no JSON contains nothing.",
                r#"SELECT json_contains('{"a": null}', 'a') -- true"#,
            )
        },
        Json {
            // Delta tables have no unsigned numbers.
            returns: Some(DataType::Int64),
            ..Json::new(
                "json_length",
                udfs::json_length_udf(),
                "Number of elements of the array, or of keys of the object, at a path of a JSON value; NULL where something else or nothing is.",
                r#"SELECT json_length('{"a": [1, 2, 3]}', 'a') -- 3"#,
            )
        },
        Json::new(
            "json_object_keys",
            udfs::json_object_keys_udf(),
            "Keys of the object at a path of a JSON value; NULL where something else or nothing is.",
            r#"SELECT json_object_keys('{"a": 1, "b": 2}')[2] -- b"#,
        ),
    ]
    .into_iter()
    .map(ScalarUDF::from)
    .collect()
}

fn get() -> Json {
    Json::new(
        "json_get",
        udfs::json_get_json_udf(),
        "Value at a path of a JSON value, as JSON text (a text keeps its quotes); NULL where nothing is. json -> step is the same for one step.",
        r#"SELECT json_get('{"a": {"b": "x"}}', 'a') -- {"b": "x"}"#,
    )
}

fn as_text() -> Json {
    Json::new(
        "json_as_text",
        udfs::json_as_text_udf(),
        "Value at a path of a JSON value, as text: a text without its quotes, anything else as JSON; NULL where nothing or null is. json ->> step is the same for one step.",
        r#"SELECT json_as_text('{"a": {"b": "x"}}', 'a', 'b') -- x"#,
    )
}

/// A function of the crate under our name, with our words and our rules for NULL and types.
#[derive(Debug, Clone)]
struct Json {
    name: &'static str,
    inner: Arc<ScalarUDF>,
    documentation: Documentation,
    /// Another type than the crate answers with.
    returns: Option<DataType>,
    /// Whether the crate answers NULL with something else.
    strict: bool,
}

impl Json {
    fn new(name: &'static str, inner: Arc<ScalarUDF>, about: &str, example: &str) -> Self {
        let parameters = [JSON, PATH];
        Self {
            name,
            inner,
            documentation: Documentation {
                syntax_example: format!("{name}(json, path..)"),
                ..documentation(name, about, parameters.into_iter(), example)
            },
            returns: None,
            strict: false,
        }
    }
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        // To the crate a bare NULL is of a wrong type; here it is a text like any other that is missing.
        let arguments: Vec<DataType> = arguments.iter().map(known).collect();
        // The crate's errors would name the function it wraps.
        let inner = self.inner.return_type(&arguments).map_err(|error| {
            let told = error.strip_backtrace();
            let told = told.replace(self.inner.name(), self.name);
            datafusion::common::DataFusionError::Plan(
                told.trim_start_matches("Error during planning: ")
                    .to_owned(),
            )
        })?;
        Ok(self.returns.clone().unwrap_or(inner))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        for argument in &mut args.args {
            let text = known(&argument.data_type());
            if text != argument.data_type() {
                *argument = argument.cast_to(&text, None)?;
            }
        }
        if self.returns.is_some() {
            // The crate is held to the type that it promises itself.
            let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
            let promised = self.inner.return_type(&types)?;
            args.return_field = Arc::new(Field::new(self.inner.name(), promised, true));
        }
        let (arguments, rows) = (args.args.clone(), args.number_rows);
        let answer = self.inner.invoke_with_args(args)?;
        let answer = match &self.returns {
            Some(data_type) => match answer {
                ColumnarValue::Array(array) => ColumnarValue::Array(cast(&array, data_type)?),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.cast_to(data_type)?),
            },
            None => answer,
        };
        match self.strict {
            true => null_for_null(answer, &arguments, rows),
            false => Ok(answer),
        }
    }

    fn simplify(&self, mut args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        // `json -> 'a' -> 'b'` walks the text once, as `json_get(json, 'a', 'b')` does.
        let inner = match args.first() {
            Some(Expr::ScalarFunction(call)) => call.func.inner().downcast_ref::<Self>(),
            _ => None,
        };
        let steps = |args: &[Expr]| {
            args.iter()
                .skip(1)
                .all(|step| matches!(step, Expr::Literal(..)))
        };
        if inner.is_some_and(|inner| inner.name == "json_get") && steps(&args) {
            let rest = args.split_off(1);
            match args.pop() {
                Some(Expr::ScalarFunction(call)) if steps(&call.args) => {
                    args = call.args;
                    args.extend(rest);
                    let func = Arc::new(ScalarUDF::from(self.clone()));
                    return Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(
                        ScalarFunction { func, args },
                    )));
                }
                first => {
                    args.extend(first);
                    args.extend(rest);
                }
            }
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// The type of an argument, which a NULL by itself does not have.
fn known(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}

fn null_for_null(
    answer: ColumnarValue,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    let mut nulls: Option<NullBuffer> = None;
    for argument in arguments {
        match argument {
            ColumnarValue::Scalar(value) if value.is_null() => {
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from(
                    answer.data_type(),
                )?));
            }
            ColumnarValue::Scalar(_) => {}
            ColumnarValue::Array(array) => {
                nulls = NullBuffer::union(nulls.as_ref(), array.logical_nulls().as_ref());
            }
        }
    }
    match nulls {
        None => Ok(answer),
        Some(nulls) => {
            let array = answer.into_array(rows)?;
            let missing = BooleanArray::new(!nulls.inner(), None);
            Ok(ColumnarValue::Array(nullif(&array, &missing)?))
        }
    }
}

/// Plans `->` and `->>`, and `#>` and `#>>` with a list as the path.
#[derive(Debug)]
pub(crate) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Arrow | BinaryOperator::HashArrow => get(),
            BinaryOperator::LongArrow | BinaryOperator::HashLongArrow => as_text(),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(Expr::ScalarFunction(
            ScalarFunction {
                func: Arc::new(ScalarUDF::from(function)),
                args: vec![expr.left, expr.right],
            },
        )))
    }
}

// The name alone tells these functions apart.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Json {}

impl std::hash::Hash for Json {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
