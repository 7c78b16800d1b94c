//! What a name stands for: a table, a view, files, or a relation about a table.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::Scope;
use super::missing::no_such_kind;
use crate::catalog::Pinned;
use crate::catalog::entry::{Catalog, Relation, TableEntry, ViewEntry};
use crate::error::{Error, Result};
use crate::journal::shape::Shape;
use crate::session::dependents::Object;
use crate::session::prepared::parameters::Parameters;
use crate::session::{files, rename};
use crate::sql;
use crate::table::handle::Table;
use crate::table::meta::{Beside, MetadataTable};
use crate::table::snapshot::Snapshot;

impl Scope {
    /// What `schema.name` stands for in this statement.
    pub(in crate::session) fn resolve<'a>(
        self: &'a Arc<Self>,
        schema: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn TableProvider>>>> {
        Box::pin(async move {
            let key = (schema.to_owned(), name.to_owned());
            if let Some(known) = self.resolved.lock().get(&key) {
                return Ok(Some(Arc::clone(known)));
            }
            let found = match self.pinned.catalog.relation(schema, name) {
                Some(Relation::Table(entry)) => Some(self.table(schema, name, entry).await?),
                Some(Relation::View(entry)) => Some(self.view(schema, name, entry).await?),
                Some(Relation::Files(entry)) => {
                    Some(files::of_entry(&self.state(), &format!("{schema}.{name}"), entry).await?)
                }
                None => self.beside_the_catalog(schema, name).await?,
            };
            if let Some(table) = &found {
                self.resolved.lock().insert(key, Arc::clone(table));
            }
            Ok(found)
        })
    }

    /// What a name means that the catalog does not hold: a table of the program, files, a relation about a table.
    async fn beside_the_catalog(
        self: &Arc<Self>,
        schema: &str,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        if schema == self.search_schema() {
            if let Some(table) = self.registered.get(name) {
                return Ok(Some(Arc::clone(table)));
            }
            if files::looks_like_files(name) {
                self.may_use_files(name)?;
                return files::of_path(&self.state(), name).await.map(Some);
            }
        }
        let Some((base, kind)) = self.metadata(schema, name)? else {
            return Ok(None);
        };
        let (entry, _) = self.table_entry(schema, base)?;
        let handle = self.engine.table(entry)?;
        let snapshot = self.pin(schema, base, &handle).await?;
        Ok(Some(match kind {
            Beside::Journal => intervals(&handle, &format!("{schema}.{base}"), snapshot)?,
            Beside::Metadata(kind) => {
                Arc::new(MetadataTable::new(kind, snapshot, handle.root.clone()))
            }
        }))
    }

    /// The table or view of that name; an error that names the nearest one when there is none.
    pub(in crate::session) async fn relation(
        self: &Arc<Self>,
        schema: &str,
        name: &str,
    ) -> Result<Arc<dyn TableProvider>> {
        match self.resolve(schema, name).await? {
            Some(table) => Ok(table),
            None => Err(self.no_such_table(schema, name)),
        }
    }

    /// Refuses files outside the lake to sessions that may not use them.
    pub(in crate::session) fn may_use_files(&self, what: &str) -> Result<()> {
        match self.external_files {
            true => Ok(()),
            false => Err(files::denied(what)),
        }
    }

    async fn table(
        &self,
        schema: &str,
        name: &str,
        entry: &TableEntry,
    ) -> Result<Arc<dyn TableProvider>> {
        let full = format!("{schema}.{name}");
        let handle = self.engine.table(entry)?;
        let snapshot = self.pin(schema, name, &handle).await?;
        // A DataFrame writes through the table it reads, so every table knows its way in. Whether the
        // protocol allows the write is asked when one is planned.
        let target = self.target(
            &full,
            Arc::clone(&handle),
            Some(Arc::clone(&snapshot)),
            "WRITE",
        )?;
        let rows = handle.provider(&full, snapshot).current()?;
        Ok(Arc::new(rows.with_target(Arc::new(target))))
    }

    /// A scope that sees what this one sees.
    fn copied(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            pinned: self.pinned.clone(),
            state: self.state.clone(),
            batch_id: self.batch_id,
            user: self.user.clone(),
            external_files: self.external_files,
            observer: self.observer.clone(),
            registered: self.registered.clone(),
            resolved: Mutex::new(self.resolved.lock().clone()),
            // The same table has the same version wherever it is named.
            snapshots: Arc::clone(&self.snapshots),
            path: self.path.clone(),
            // Those of one statement: what is kept in the lake has none.
            parameters: Parameters::None,
        }
    }

    /// The scope of what a view or function holds: other names to search, and itself out of bounds.
    pub(in crate::session) fn within(&self, object: Object, search_schema: &str) -> Arc<Self> {
        let mut inside = self.copied();
        let options = inside.state.config_mut().options_mut();
        search_schema.clone_into(&mut options.catalog.default_schema);
        inside.registered.clear();
        inside.path.push(object);
        Arc::new(inside)
    }

    /// The same session over another catalog, which need not be there yet.
    pub(in crate::session) fn over(&self, catalog: Catalog) -> Arc<Self> {
        let pinned = Pinned {
            version: self.pinned.version,
            catalog: Arc::new(catalog),
        };
        Arc::new(Self {
            pinned,
            resolved: Mutex::default(),
            path: Vec::new(),
            ..self.copied()
        })
    }

    /// The same view of the lake, for a plan of a statement with these parameters.
    pub(in crate::session) fn with(&self, parameters: Parameters) -> Arc<Self> {
        Arc::new(Self {
            parameters,
            ..self.copied()
        })
    }

    async fn view(
        self: &Arc<Self>,
        schema: &str,
        name: &str,
        entry: &ViewEntry,
    ) -> Result<Arc<dyn TableProvider>> {
        let here = Object::relation(schema, name);
        let full = format!("{schema}.{name}");
        if self.path.contains(&here) {
            return Err(Error::invalid(format!("view {full} leads back to itself"))
                .with_hint("CREATE OR REPLACE VIEW with another query"));
        }
        let inside = self.within(here, &entry.search_schema);
        let within = |error: Error| match error.detail() {
            None => error.with_detail(format!("in view {full}")),
            Some(_) => error,
        };
        let sql::Statement::Query(query) = sql::parse(&entry.query).map_err(within)? else {
            return Err(Error::corrupt(format!("view {full} does not hold a query")));
        };
        let plan = inside.plan_query(*query).await.map_err(within)?;
        let plan = rename::columns(plan, &entry.columns).map_err(within)?;
        Ok(Arc::new(ViewTable::new(plan, Some(entry.query.clone()))))
    }

    /// The catalog's entry of a table, and its full name; says what the name is when it is no table.
    pub(in crate::session) fn table_entry(
        &self,
        schema: &str,
        name: &str,
    ) -> Result<(&TableEntry, String)> {
        let full = format!("{schema}.{name}");
        match self.pinned.catalog.relation(schema, name) {
            Some(Relation::Table(entry)) => Ok((entry, full)),
            Some(Relation::View(_)) => {
                Err(Error::invalid(format!("{full} is a view, not a table")))
            }
            Some(Relation::Files(_)) => Err(Error::invalid(format!(
                "{full} stands for files read in place, not for a versioned table"
            ))),
            None => match self.metadata(schema, name)? {
                Some((base, kind)) => Err(Error::invalid(format!(
                    "{full} is not a table of its own: it shows the {} of table {schema}.{base}",
                    kind.suffix()
                ))),
                None => Err(self.no_such_table(schema, name)),
            },
        }
    }

    /// The table and the kind of relation that a name such as `orders$files` means; `None` for every
    /// other name.
    pub(super) fn metadata<'n>(
        &self,
        schema: &str,
        name: &'n str,
    ) -> Result<Option<(&'n str, Beside)>> {
        let catalog = &self.pinned.catalog;
        let Some((base, suffix)) = name.rsplit_once('$') else {
            return Ok(None);
        };
        let what = match (
            catalog.relation(schema, name),
            catalog.relation(schema, base),
        ) {
            (Some(_), _) | (None, None) => return Ok(None),
            (None, Some(Relation::Table(_))) => match Beside::named(suffix) {
                Some(kind) => return Ok(Some((base, kind))),
                None => return Err(no_such_kind(schema, base, suffix)),
            },
            (None, Some(Relation::View(_))) => "is a view",
            (None, Some(Relation::Files(_))) => "stands for files read in place",
        };
        Err(Error::invalid(format!(
            "there is no {schema}.{name}: {schema}.{base} {what}, and only versioned tables have metadata tables"
        )))
    }
}

/// Every interval of a journal, with the columns that tell it.
pub(super) fn intervals(
    handle: &Arc<Table>,
    full: &str,
    snapshot: Arc<Snapshot>,
) -> Result<Arc<dyn TableProvider>> {
    if Shape::of(full, &snapshot)?.is_none() {
        return Err(Error::invalid(format!(
            "table {full} is not a journal table, so it has no $journal"
        ))
        .with_hint("CREATE TABLE .. JOURNAL KEYS (..) makes one"));
    }
    Ok(Arc::new(handle.provider(full, snapshot)))
}
