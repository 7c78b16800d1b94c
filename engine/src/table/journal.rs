//! A journal by valid time: views over its raw table, so that conditions on instants prune files, row groups and pages
//! as those of any query do.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType, ident, lit, when};
use datafusion::physical_plan::ExecutionPlan;

use super::versioned::VersionedTable;
use crate::error::{Error, Result};
use crate::journal::definition::FAR_FUTURE_MICROS;
use crate::journal::event::{FROM, TO};
use crate::journal::shape::Shape;

/// Which intervals are meant, by instants in microseconds since the epoch. An interval holds its first instant, and not
/// its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    /// Those that hold an instant: the state that was true then.
    AsOf(i64),
    /// Those that share an instant with `[a, b)`.
    FromTo(i64, i64),
    /// Those that share an instant with `[a, b]`.
    Between(i64, i64),
    /// Those that begin at `a` or later, and end at `b` or before.
    ContainedIn(i64, i64),
    All,
}

/// The intervals of `raw` that `period` means: a state in the declared columns, everything else in all of them.
pub(crate) fn view(
    raw: VersionedTable,
    shape: &Shape,
    period: Period,
) -> Result<Arc<dyn TableProvider>> {
    let name = raw.name().clone();
    let rows = LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(raw)), None)?;
    let rows = match period.condition(shape) {
        Some(condition) => rows.filter(condition)?,
        None => rows,
    };
    let rows = match period {
        Period::AsOf(_) => {
            let declared = shape.declared.fields().iter();
            rows.project(declared.map(|field| ident(field.name())))?
        }
        _ => rows,
    };
    Ok(Arc::new(ViewTable::new(rows.build()?, None)))
}

/// Every interval of `raw`: the declared columns, then [`FROM`] and [`TO`], which is NULL where there is no end.
pub(crate) fn spans(raw: VersionedTable, shape: &Shape) -> Result<Arc<dyn TableProvider>> {
    let columns = &shape.definition.columns;
    let to = match shape.far_future() {
        true => when(!ident(&columns.current), ident(&columns.to)).end()?,
        false => ident(&columns.to),
    };
    let name = raw.name().clone();
    let declared = shape.declared.fields().iter();
    let rows = declared
        .map(|field| ident(field.name()))
        .chain([ident(&columns.from).alias(FROM), to.alias(TO)]);
    let rows: Vec<Expr> = rows.collect();
    let plan = LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(raw)), None)?
        .project(rows)?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

impl Period {
    fn condition(self, shape: &Shape) -> Option<Expr> {
        let columns = &shape.definition.columns;
        let (from, to) = (ident(&columns.from), ident(&columns.to));
        Some(match self {
            Self::All => return None,
            // What ends before it begins is empty by the standard, but seldom meant.
            Self::FromTo(a, b) | Self::Between(a, b) | Self::ContainedIn(a, b) if a > b => {
                tracing::warn!(
                    table = shape.table,
                    "a period of FOR VALID_TIME ends before it begins, so it has no rows"
                );
                lit(false)
            }
            Self::AsOf(at) => from.lt_eq(instant(at)).and(lasts_beyond(shape, at)),
            Self::FromTo(a, b) => from.lt(instant(b)).and(lasts_beyond(shape, a)),
            Self::Between(a, b) => from.lt_eq(instant(b)).and(lasts_beyond(shape, a)),
            // The flag is a partition, so files of current rows are not looked at.
            Self::ContainedIn(a, b) => (!ident(&columns.current))
                .and(from.gt_eq(instant(a)))
                .and(to.lt_eq(instant(b))),
        })
    }
}

/// Whether an interval has no end, or one after an instant. Asked of columns that are in files, so that their bounds
/// answer it.
fn lasts_beyond(shape: &Shape, at: i64) -> Expr {
    let columns = &shape.definition.columns;
    if shape.far_future() && at >= FAR_FUTURE_MICROS {
        return ident(&columns.current);
    }
    let to = || ident(&columns.to);
    to().is_null().or(to().gt(instant(at)))
}

/// An instant as the period columns hold it.
pub(crate) fn instant(micros: i64) -> Expr {
    let value = ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    Expr::Literal(value, None)
}

/// Stands for a journal in a join in which each row of the other side chooses the instant, until the join is one on
/// intervals. It is never scanned.
#[derive(Debug, Clone)]
pub(crate) struct AsOfRow {
    /// The name by which the condition of the join means it.
    pub name: String,
    pub raw: Arc<VersionedTable>,
    pub shape: Arc<Shape>,
}

#[async_trait]
impl TableProvider for AsOfRow {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shape.declared)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(Error::internal(format!(
            "table {} was to be read at an instant of each row, and no join says which",
            self.shape.table
        ))
        .into())
    }
}
