//! CORRECT JOURNAL: intervals put right by hand. What was said of the past is changed where it lies, and the text of
//! the statement stays in the log.
//!
//! ```text
//! SELECT columns as they are to be, file, row, change FROM all intervals -> as any UPDATE or DELETE
//! ```
//!
//! Before that, the intervals that the touched keys would have are asked for faults: a correction leaves none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, SelectItem, TableWithJoins};
use futures::TryStreamExt;

use super::assign::{self, as_column};
use super::{Target, change, syntax};
use crate::error::{Error, Result};
use crate::journal::shape::Shape;
use crate::journal::{horizon, key};
use crate::session::journal::{as_kept, faults, plain};
use crate::session::scope::Scope;
use crate::sql::{self, Assignment, CorrectJournal, Correction};
use crate::table::mapping;
use crate::write::change::Kind;

const STATEMENT: &str = "CORRECT JOURNAL";

/// The end of an interval that has none, where the table keeps an instant for it.
const FAR_FUTURE: &str =
    "arrow_cast('9999-12-31T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')";

/// `CORRECT JOURNAL t {SET c = e, .. | DELETE} WHERE p`
pub(in crate::session) async fn correct(
    scope: &Arc<Scope>,
    statement: CorrectJournal,
) -> Result<LogicalPlan> {
    let text = told(&statement);
    let target = Target::intervals(scope, &statement.table).await?;
    let shape = target
        .opened
        .shape()?
        .ok_or_else(|| plain(&target.opened))?;
    let predicate = statement.predicate.ok_or_else(|| {
        Error::invalid(format!("{STATEMENT} of table {} needs WHERE", shape.table))
            .with_hint("WHERE true means all of its intervals")
    })?;
    let work = Work::new(&target, shape, statement.change, predicate)?;
    work.prove().await?;
    let rows = work.rows().await?;
    target.correct(rows, text)
}

/// The statement as the log keeps it.
fn told(statement: &CorrectJournal) -> String {
    let change = match &statement.change {
        Correction::Delete => "DELETE".to_owned(),
        Correction::Set(assignments) => {
            let each = assignments.iter().map(|Assignment { column, value }| {
                let value = value.as_ref().map(ToString::to_string);
                format!("{column} = {}", value.as_deref().unwrap_or("DEFAULT"))
            });
            format!("SET {}", each.collect::<Vec<_>>().join(", "))
        }
    };
    let table = &statement.table;
    match &statement.predicate {
        Some(predicate) => format!("{STATEMENT} {table} {change} WHERE {predicate}"),
        None => format!("{STATEMENT} {table} {change}"),
    }
}

struct Work<'a> {
    target: &'a Target<'a>,
    shape: Arc<Shape>,
    /// The new values of intervals by the place of their column; None: they go.
    values: Option<HashMap<usize, Expr>>,
    predicate: Expr,
    /// The names that stand for all intervals, and for those that are changed.
    all: String,
    touched: String,
}

impl<'a> Work<'a> {
    fn new(
        target: &'a Target<'a>,
        shape: Arc<Shape>,
        change: Correction,
        predicate: Expr,
    ) -> Result<Self> {
        let values = match change {
            Correction::Delete => None,
            Correction::Set(assignments) => Some(values(target, &shape, assignments)?),
        };
        let all = format!("{}@intervals", target.opened.name);
        // Read apart from the rows that are to be changed: what is only looked at has no place.
        target.scope.bind(&all, Arc::new(target.table()));
        Ok(Self {
            touched: format!("{}@touched", target.opened.name),
            target,
            shape,
            values,
            predicate,
            all,
        })
    }

    /// All columns as they are to be.
    fn columns(&self) -> Vec<SelectItem> {
        let fields = self.target.fields().iter().enumerate();
        let columns = fields.map(|(at, field)| {
            let value = self.values.as_ref().and_then(|values| values.get(&at));
            let value = value.cloned();
            let value = value.unwrap_or_else(|| self.target.column(field.name()));
            syntax::named(value, field.name())
        });
        columns.collect()
    }

    /// The rows of the write.
    async fn rows(&self) -> Result<LogicalPlan> {
        let (mut projection, kind) = match self.values {
            Some(_) => (self.columns(), Kind::Update),
            None => (Vec::new(), Kind::Delete),
        };
        projection.extend(self.target.places());
        projection.push(change(kind));
        let from = vec![self.target.relation()];
        let query = syntax::select(projection, from, Some(self.predicate.clone()))?;
        self.planned(query).await
    }

    /// Refuses what would leave a fault behind, and what events that are still kept would undo.
    async fn prove(&self) -> Result<()> {
        let touched = self.select(self.unchanged(), self.predicate.clone());
        let touched = self.planned(touched?).await?;
        self.refuse_kept(touched.clone()).await?;
        let view = Arc::new(ViewTable::new(touched, None));
        self.target.scope.bind(&self.touched, view);

        // A row for which the condition is unknown stays as it is.
        let stays = Expr::IsNotTrue(Box::new(self.predicate.clone()));
        let rest = self.select(self.unchanged(), syntax::and(stays, self.of_touched()?));
        let mut after = self.planned(rest?).await?;
        if self.values.is_some() {
            let changed = self.select(self.columns(), self.predicate.clone());
            let changed = self.planned(changed?).await?;
            after = LogicalPlanBuilder::from(after).union(changed)?.build()?;
        }
        let found = faults(self.target.scope, &self.shape, after).await?;
        let found: Vec<RecordBatch> = found.try_collect().await?;
        let count: usize = found.iter().map(RecordBatch::num_rows).sum();
        match found.first() {
            None => Ok(()),
            Some(first) => Err(Error::rejected(format!(
                "{STATEMENT} of table {} would leave {count} faults in its intervals: {}",
                self.shape.table,
                fault(first)?
            ))
            .with_hint(format!(
                "CHECK JOURNAL {} tells the faults that are there before it",
                self.shape.table
            ))),
        }
    }

    fn unchanged(&self) -> Vec<SelectItem> {
        let fields = self.target.fields().iter();
        fields
            .map(|field| syntax::named(self.target.column(field.name()), field.name()))
            .collect()
    }

    /// A query over all intervals, under the name that the statement has for the table.
    fn select(&self, projection: Vec<SelectItem>, condition: Expr) -> Result<ast::Query> {
        let from = TableWithJoins {
            relation: syntax::table(&self.all, self.target.alias.clone()),
            joins: vec![],
        };
        syntax::select(
            projection,
            vec![from],
            Some(Expr::Nested(Box::new(condition))),
        )
    }

    /// Whether an interval is of a key of which another one is changed.
    fn of_touched(&self) -> Result<Expr> {
        let alias = &self.target.alias;
        let keys = self.shape.key_names().map(|name| {
            let name = sql::quoted(name);
            format!("c.{name} = {alias}.{name}")
        });
        let keys: Vec<String> = keys.collect();
        let text = format!(
            "SELECT 1 FROM {} AS c WHERE {}",
            sql::quoted(&self.touched),
            keys.join(" AND ")
        );
        match sql::parse(&text)? {
            sql::Statement::Query(subquery) => Ok(Expr::Exists {
                subquery,
                negated: false,
            }),
            _ => Err(Error::internal("keys are not asked for by a query")),
        }
    }

    async fn planned(&self, query: ast::Query) -> Result<LogicalPlan> {
        let columns = mapping::logical(&self.target.columns);
        let functions = assign::functions(columns.fields());
        self.target.scope.plan_with(query, functions).await
    }

    /// Keys whose events are kept are told anew from these with the next late one, which would undo the correction.
    async fn refuse_kept(&self, touched: LogicalPlan) -> Result<()> {
        let opened = &self.target.opened;
        let kept = horizon::of(&opened.snapshot)?;
        if kept.files.is_empty() {
            return Ok(());
        }
        let state = self.target.scope.state();
        let touched = as_kept(touched, &self.shape.stored)?;
        let touched = state.create_physical_plan(&touched).await?;
        let declared = |batch: RecordBatch| {
            let declared = batch.project(&self.shape.places);
            declared.map_err(|error| Error::from(DataFusionError::from(error)))
        };
        let touched = self.hashes(touched, declared).await?;
        let root = &opened.handle.root;
        let metadata = &opened.snapshot.metadata;
        let events = horizon::scan(&state, &self.shape, root, metadata, &kept, &[]);
        let events = self.hashes(events.await?, Ok).await?;
        match events.intersection(&touched).count() {
            0 => Ok(()),
            keys => Err(Error::unsupported(format!(
                "{STATEMENT} of table {}: {keys} keys have events within the horizon, from which their intervals \
                 are told again",
                self.shape.table
            ))
            .with_hint("write what was true as changes with its sequence, or wait until the horizon has passed")),
        }
    }

    /// The hashes of the keys of rows, which `declared` brings into the declared columns.
    async fn hashes(
        &self,
        rows: Arc<dyn ExecutionPlan>,
        declared: impl Fn(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<HashSet<u64>> {
        let context = self.target.scope.state().task_ctx();
        let mut rows = execute_stream(rows, context)?;
        let (mut all, mut some) = (HashSet::new(), Vec::new());
        while let Some(batch) = rows.try_next().await? {
            key::hashes(&self.shape, &declared(batch)?, &mut some)?;
            all.extend(some.iter().copied());
        }
        Ok(all)
    }
}

/// The new values of intervals, each of the type of its column, and with them the mark of the current one.
fn values(
    target: &Target<'_>,
    shape: &Shape,
    assignments: Vec<Assignment>,
) -> Result<HashMap<usize, Expr>> {
    let mut values = HashMap::new();
    for Assignment { column, value } in assignments {
        let at = target.find(&column)?;
        let name = sql::fold(&column);
        if shape.definition.keys.contains(&name) {
            return Err(Error::invalid(format!(
                "{STATEMENT} of table {}: {name} is a key, and an interval stays that of its key",
                shape.table
            ))
            .with_hint(
                "DELETE the interval, and INSERT what was true as a change of the other key",
            ));
        }
        if at == shape.current {
            return Err(Error::invalid(format!(
                "{STATEMENT} of table {}: {name} follows from {}",
                shape.table, shape.definition.columns.to
            ))
            .with_hint(format!(
                "SET {} = NULL opens the end",
                shape.definition.columns.to
            )));
        }
        let value = as_column(target.value(at, value)?, at);
        values.insert(at, value);
    }
    if let Some(to) = values.remove(&shape.to) {
        let open = syntax::is_null(to.clone());
        let (is_open, to) = match shape.far_future() {
            false => (open, to),
            true => {
                let far = sql::parse_expr(FAR_FUTURE)?;
                let at_end = Expr::BinaryOp {
                    left: Box::new(to.clone()),
                    op: BinaryOperator::Eq,
                    right: Box::new(far.clone()),
                };
                let kept = [(open.clone(), far), (syntax::is_not_null(to.clone()), to)];
                (syntax::or(open, at_end), syntax::case(kept))
            }
        };
        values.insert(shape.current, is_open);
        values.insert(shape.to, as_column(to, shape.to));
    }
    Ok(values)
}

/// The first fault, in words.
fn fault(found: &RecordBatch) -> Result<String> {
    let text = |name: &str| {
        let column = found.column_by_name(name);
        let column = column.ok_or_else(|| Error::internal(format!("a fault has no {name}")))?;
        let shown = array_value_to_string(column, 0).map_err(DataFusionError::from)?;
        Ok::<_, Error>(match shown.is_empty() {
            true => "the open end".to_owned(),
            false => shown,
        })
    };
    let own = format!("from {} to {}", text("valid_from")?, text("valid_to")?);
    let told = format!("{} of {} {own}", text("kind")?, text("key")?);
    let other = found.column_by_name("other_from");
    let alone = other.is_none_or(|other| other.is_null(0));
    Ok(match alone {
        true => told,
        false => format!(
            "{told} with the one from {} to {}",
            text("other_from")?,
            text("other_to")?
        ),
    })
}
