//! Parameters that a statement needs while it is planned. Most of them stay in its plan until values take their places
//! there; the instants of valid time do not, as a plan has them as values.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, VisitMut, VisitorMut};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::sql;

/// Name under which expressions find parameters as columns.
pub(in crate::session) const PARAMETERS: &str = "$parameters";

/// What a plan knows of the parameters of its statement.
#[derive(Debug)]
pub(in crate::session) enum Parameters {
    /// They have no values: the statement is run as it stands.
    None,
    /// They will have values: the statement is being prepared.
    Awaited(Mutex<Instants>),
    /// One row of them.
    Given(RecordBatch),
}

/// What instants of valid time have told of their parameters.
#[derive(Debug, Default)]
pub(in crate::session) struct Instants {
    found: bool,
    /// Types by name, where they are known.
    types: HashMap<String, DataType>,
}

impl Instants {
    /// Notes an instant that has parameters. One that is a parameter tells its type.
    pub(in crate::session) fn note(&mut self, instant: &Expr) {
        self.found = true;
        if let Some(name) = sql::sole_parameter(instant) {
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            self.types.insert(name.to_owned(), utc);
        }
    }
}

impl Parameters {
    pub(super) fn awaited() -> Self {
        Self::Awaited(Mutex::default())
    }

    /// One row of a batch that has a column for each, in order.
    pub(super) fn given(batch: &RecordBatch, row: usize) -> Self {
        Self::Given(batch.slice(row, 1))
    }

    /// Whether instants of valid time are among them.
    pub(super) fn instants(&self) -> bool {
        match self {
            Self::Awaited(instants) => instants.lock().found,
            Self::None | Self::Given(_) => false,
        }
    }

    /// The types that instants of valid time tell.
    pub(super) fn types(&self) -> HashMap<String, DataType> {
        match self {
            Self::Awaited(instants) => instants.lock().types.clone(),
            Self::None | Self::Given(_) => HashMap::new(),
        }
    }
}

/// The parameters as a table with the columns `$1..$n`.
pub(in crate::session) fn table_of(parameters: &[RecordBatch]) -> Result<Arc<MemTable>> {
    let Some(first) = parameters.first() else {
        return Err(Error::invalid("no rows of parameters are given"));
    };
    let fields: Vec<Field> = first
        .schema()
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            Field::new(format!("${}", index + 1), field.data_type().clone(), true)
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batches = parameters
        .iter()
        .map(|batch| {
            RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).map_err(|_| {
                Error::invalid("the rows of parameters do not all have the same types")
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

/// Turns parameters into columns of the table of parameters.
pub(in crate::session) fn as_columns(expr: &mut Expr) {
    let _ = expr.visit(&mut Placeholders);
}

struct Placeholders;

impl VisitorMut for Placeholders {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Placeholder(name),
            ..
        }) = expr
        {
            *expr = Expr::Identifier(Ident::with_quote('"', name.as_str()));
        }
        ControlFlow::Continue(())
    }
}
