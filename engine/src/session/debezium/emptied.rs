//! `t`: the source emptied its table.
//!
//! Which rows went with it is known of the table alone: those that are current when the load is planned. So a load may
//! begin with the event, and behind other changes it is an error. The ends of these rows go the way of all changes, so
//! that a row which came back at the same instant, in the same transaction, stands.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::physical_plan::ExecutionPlan;
use selvedge_udfs::debezium::envelope::{Message, Op};

use super::super::files::Listed;
use super::change::spelled;
use super::lines::{Line, Lines};
use super::terms::{POSITION, Terms, record};
use super::{first_position, placed, position};
use crate::error::{Error, Result};
use crate::journal::event::{DELETE, KEEP};

/// The instant at which all rows went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Emptied {
    /// None where the table keeps no sequence.
    pub at: Option<i64>,
    /// Its place in the stream.
    pub position: i64,
}

/// The events of the kind that the files begin with.
pub(super) async fn leading(files: &[Listed], terms: &Terms) -> Result<Vec<Emptied>> {
    let mut leading = Vec::new();
    for (file, place) in files.iter().zip(0_i64..) {
        let mut lines = Lines::open(file).await?;
        while let Some(Line { number, text }) = lines.next().await? {
            let at_line = |error: Error| placed(error, &lines.place(number));
            let (_, message) = record(&text, terms).map_err(at_line)?;
            match message {
                Message::Event(event) if event.op == Op::Truncate => leading.push(Emptied {
                    at: terms.instant(&event.times).map_err(at_line)?,
                    position: position(first_position(place), number)?,
                }),
                Message::Event(event) if event.op != Op::Message => return Ok(leading),
                _ => {}
            }
        }
    }
    Ok(leading)
}

/// The ends of all current rows, as rows of `terms`.
pub(super) async fn ends(
    state: &SessionState,
    current: &Arc<dyn TableProvider>,
    terms: &Terms,
    emptied: &Emptied,
) -> Result<Arc<dyn ExecutionPlan>> {
    let shape = &terms.shape;
    let mut columns = Vec::with_capacity(terms.kinds.len() + 3);
    for (place, kind) in terms.kinds.iter().enumerate() {
        let name = terms.name(place);
        let value = if shape.sequence == Some(place) {
            lit(spelled(kind, emptied.at)?)
        } else if shape.keys.contains(&place) {
            let column = Expr::Column(Column::new(Some("current"), name));
            cast(column, kind.data_type())
        } else {
            lit(ScalarValue::try_from(&kind.data_type())?)
        };
        columns.push(value.alias(name));
    }
    columns.push(lit(true).alias(DELETE));
    columns.push(lit(ScalarValue::Binary(None)).alias(KEEP));
    columns.push(lit(emptied.position).alias(POSITION));
    let rows = LogicalPlanBuilder::scan("current", provider_as_source(Arc::clone(current)), None)?;
    let plan = rows.project(columns)?.build()?;
    Ok(Box::pin(state.create_physical_plan(&plan)).await?)
}

/// `changes`, seen to depend on the current rows: whoever writes some meanwhile makes the statement run again.
pub(super) fn depending(
    changes: LogicalPlan,
    current: &Arc<dyn TableProvider>,
) -> Result<LogicalPlan> {
    let nulls = changes.schema().fields().iter().map(|field| {
        let null = ScalarValue::try_from(field.data_type())?;
        Ok::<_, Error>(lit(null).alias(field.name()))
    });
    let nulls: Vec<Expr> = nulls.collect::<Result<_>>()?;
    let none = LogicalPlanBuilder::scan("current", provider_as_source(Arc::clone(current)), None)?
        .filter(lit(false))?
        .project(nulls)?
        .build()?;
    Ok(LogicalPlanBuilder::from(changes).union(none)?.build()?)
}
