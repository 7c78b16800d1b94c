//! UPDATE, DELETE, MERGE, TRUNCATE and INSERT .. REPLACE WHERE.
//!
//! Each is planned as a query over the table in which every row also says where it lies:
//!
//! ```text
//! statement -> SELECT new columns.., file, row, change FROM located table, other tables -> ChangeRows -> write
//! ```
//!
//! So subqueries, joins, version clauses and parameters mean what they mean in any query, and the whole
//! statement decides which rows go. The write path then turns places into deletion vectors.

mod assign;
mod correct;
mod delete;
mod journal;
mod merge;
mod node;
mod replace;
mod scoped;
mod update;

use std::sync::Arc;

use datafusion::arrow::datatypes::{Fields, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::{ViewTable, source_as_provider};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, SelectItem, TableWithJoins};

use super::scope::{Opened, Scope};
use super::{syntax, zone};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::shape::Shape;
use crate::sql;
use crate::table::located::{self, Located};
use crate::table::meta::QuarantineTable;
use crate::table::snapshot::TableRoot;
use crate::table::versioned::VersionedTable;
use crate::table::{mapping, protocol, schema};
use crate::write::change::{CHANGE, Change, Kind};
use crate::write::sink::REPLAY;
use crate::write::target::{JournalMode, JournalTarget, NewTable, WriteTarget};

pub(super) use assign::column_type;
pub(super) use correct::correct;
pub(super) use delete::{delete, truncate};
pub(super) use merge::merge;
pub(super) use node::{ChangePlanner, ChangeRows};
pub(super) use replace::replace;
pub(super) use update::update;

/// The table a statement changes, as its query sees it.
pub(super) struct Target<'a> {
    scope: &'a Arc<Scope>,
    opened: Opened,
    /// Its columns as statements know them, with what is noted of each.
    columns: SchemaRef,
    /// What it is if it is a journal, of which statements see the current rows.
    shape: Option<Arc<Shape>>,
    /// The name by which expressions know it.
    alias: Ident,
    /// The name that stands for its located scan in the query.
    internal: String,
    located: Arc<Located>,
}

impl<'a> Target<'a> {
    async fn open(
        scope: &'a Arc<Scope>,
        name: &ObjectName,
        alias: Option<Ident>,
    ) -> Result<Target<'a>> {
        let opened = scope.open(name).await?;
        let shape = opened.shape()?;
        let located = Arc::new(Located::default());
        let table = opened
            .handle
            .provider(&opened.name, Arc::clone(&opened.snapshot));
        let table = match &shape {
            // Whose rows they are says the key, and not where they lie.
            Some(_) => table.current()?,
            None => table.located(Arc::clone(&located)),
        };
        let mut target = Self::over(scope, opened, "rows", located, Arc::new(table));
        target.journal(shape)?;
        target.alias = alias.unwrap_or(target.alias);
        Ok(target)
    }

    /// The same over all intervals of a journal, each where it lies, with all columns.
    async fn intervals(scope: &'a Arc<Scope>, name: &ObjectName) -> Result<Target<'a>> {
        let opened = scope.open(name).await?;
        let located = Arc::new(Located::default());
        let table = opened
            .handle
            .provider(&opened.name, Arc::clone(&opened.snapshot))
            .located(Arc::clone(&located));
        Ok(Self::over(scope, opened, "rows", located, Arc::new(table)))
    }

    /// The same over the rows of the table's quarantine.
    pub(super) async fn quarantine(scope: &'a Arc<Scope>, name: &ObjectName) -> Result<Target<'a>> {
        let opened = scope.open(name).await?;
        let located = Arc::new(Located::default());
        let table = QuarantineTable::new(Arc::clone(&opened.snapshot), opened.handle.root.clone())
            .located(Arc::clone(&located));
        let rows = Arc::new(table);
        let shape = opened.shape()?;
        let mut target = Self::over(scope, opened, "quarantine", located, rows);
        target.journal(shape)?;
        Ok(target)
    }

    fn over(
        scope: &'a Arc<Scope>,
        opened: Opened,
        what: &str,
        located: Arc<Located>,
        rows: Arc<dyn TableProvider>,
    ) -> Self {
        let internal = format!("{}@{what}", opened.name);
        scope.bind(&internal, rows);
        Self {
            alias: Ident::with_quote('"', &opened.table),
            columns: Arc::clone(&opened.snapshot.schema),
            shape: None,
            scope,
            opened,
            internal,
            located,
        }
    }

    /// Of a journal, statements know the declared columns.
    fn journal(&mut self, shape: Option<Arc<Shape>>) -> Result<()> {
        if let Some(shape) = &shape {
            let declared = self.columns.project(&shape.places).map_err(|error| {
                let told = format!("table {} lacks columns of its journal", self.opened.name);
                Error::corrupt(told).with_source(error)
            })?;
            self.columns = Arc::new(declared);
        }
        self.shape = shape;
        Ok(())
    }

    /// Its columns, with what Delta notes of them.
    pub(super) fn fields(&self) -> &Fields {
        self.columns.fields()
    }

    /// The table in a FROM clause.
    pub(super) fn relation(&self) -> TableWithJoins {
        TableWithJoins {
            relation: syntax::table(&self.internal, self.alias.clone()),
            joins: vec![],
        }
    }

    pub(super) fn column(&self, name: &str) -> Expr {
        syntax::column(&self.alias, name)
    }

    /// The columns that say where a row lies.
    pub(super) fn places(&self) -> [SelectItem; 2] {
        [located::FILE, located::ROW].map(|name| syntax::named(self.column(name), name))
    }

    /// The column an assignment means.
    pub(super) fn find(&self, column: &Ident) -> Result<usize> {
        let name = sql::fold(column);
        let fields = self.fields();
        if let Some(at) = fields.iter().position(|field| *field.name() == name) {
            return Ok(at);
        }
        let missing = Error::new(
            ErrorKind::NotFound,
            format!("table {} has no column {name}", self.opened.name),
        );
        let missing = match sql::nearest(&name, fields.iter().map(|f| f.name().as_str())) {
            Some(near) => missing.with_hint(format!("did you mean {near}?")),
            None => missing,
        };
        Err(match sql::position(column.span.start) {
            Some(position) => missing.with_position(position),
            None => missing,
        })
    }

    /// The value of an assignment: what it says, or the column's default.
    pub(super) fn value(&self, column: usize, value: Option<Expr>) -> Result<Expr> {
        match value {
            Some(value) => {
                scoped::one_row(&value, &self.scope.state())?;
                Ok(value)
            }
            None => match schema::column_default(self.columns.field(column)) {
                Some(text) => sql::parse_expr(text),
                None => Ok(syntax::null()),
            },
        }
    }

    /// The write of what `input` says is to become of which row.
    fn write(&self, input: LogicalPlan, terms: Terms) -> Result<LogicalPlan> {
        let reads_itself = reads(&input, &self.opened.handle.root)?;
        let target = WriteTarget {
            change: Some(Arc::new(Change {
                statement: terms.statement,
                located: Arc::clone(&self.located),
                repeats: terms.repeats,
                reads_itself,
                absence: terms.absence,
            })),
            condition: terms.condition,
            vectors: self.vectors(),
            ..self.terms(terms.operation)?
        };
        self.plan(terms.node, target, input, self.table())
    }

    /// The write of intervals that are put right by `text`. Others are looked at for it, so none may come meanwhile.
    fn correct(&self, input: LogicalPlan, text: String) -> Result<LogicalPlan> {
        let terms = self.terms("CORRECT JOURNAL")?;
        let journal = terms.journal.as_deref().map(|journal| {
            Arc::new(JournalTarget {
                mode: JournalMode::Correction,
                ..journal.clone()
            })
        });
        let target = WriteTarget {
            change: Some(Arc::new(Change {
                statement: "CORRECT JOURNAL",
                located: Arc::clone(&self.located),
                repeats: false,
                reads_itself: true,
                absence: true,
            })),
            schema: mapping::logical(&self.columns),
            journal,
            corrected: Some(text),
            ..terms
        };
        self.plan("CorrectJournal", target, input, self.table())
    }

    /// The write of the rows of `input`, which come out of quarantine.
    pub(super) fn replay(&self, input: LogicalPlan) -> Result<LogicalPlan> {
        let target = WriteTarget {
            replays: Some(Arc::clone(&self.located)),
            reads_itself: reads(&input, &self.opened.handle.root)?,
            ..self.terms(REPLAY)?
        };
        self.plan("Replay", target, input, self.table().current()?)
    }

    /// The table with all columns that its files have.
    fn table(&self) -> VersionedTable {
        let opened = &self.opened;
        opened
            .handle
            .provider(&opened.name, Arc::clone(&opened.snapshot))
    }

    /// What is the same for all writes to it.
    fn terms(&self, operation: &'static str) -> Result<WriteTarget> {
        let opened = &self.opened;
        self.scope.target(
            &opened.name,
            Arc::clone(&opened.handle),
            Some(Arc::clone(&opened.snapshot)),
            operation,
        )
    }

    fn plan(
        &self,
        node: &'static str,
        target: WriteTarget,
        input: LogicalPlan,
        table: VersionedTable,
    ) -> Result<LogicalPlan> {
        let opened = &self.opened;
        protocol::check_writable(&opened.name, &opened.snapshot)?;
        self.scope.engine.sweep_once(&opened.handle, &opened.name);
        let zone = self.scope.zone()?;
        let input = zone::assign(input, &opened.snapshot.schema, zone.as_ref())?;
        let table = table.with_target(Arc::new(target));
        Ok(ChangeRows::plan(node, table, input))
    }

    /// A table of this lake gets deletion vectors with the first statement that needs them. One that lives elsewhere
    /// has other readers, who are asked first.
    fn vectors(&self) -> Option<NewTable> {
        let snapshot = &self.opened.snapshot;
        if snapshot.property("delta.enableDeletionVectors").is_some() || self.opened.external {
            return None;
        }
        let protocol = protocol::with_feature(&snapshot.protocol, "deletionVectors")
            .unwrap_or_else(|| (*snapshot.protocol).clone());
        let mut metadata = (*snapshot.metadata).clone();
        metadata
            .configuration
            .insert("delta.enableDeletionVectors".to_owned(), "true".to_owned());
        Some(NewTable { protocol, metadata })
    }
}

/// How a statement changes rows.
struct Terms {
    /// Name of the node in a logical plan.
    node: &'static str,
    /// Name of the statement in messages.
    statement: &'static str,
    /// Name of the operation in the log.
    operation: &'static str,
    repeats: bool,
    absence: bool,
    condition: Option<String>,
}

/// The column that says what becomes of a row.
fn change(kind: Kind) -> SelectItem {
    syntax::named(syntax::number(kind as u8), CHANGE)
}

/// Whether `plan` reads the newest version of the table at `root` other than by its located scan.
pub(super) fn reads(plan: &LogicalPlan, root: &TableRoot) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
        {
            if let Some(table) = provider.downcast_ref::<VersionedTable>() {
                found |= table.reads(root);
            } else if let Some(view) = provider.downcast_ref::<ViewTable>() {
                found |= reads(view.logical_plan(), root)?;
            }
        }
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}
