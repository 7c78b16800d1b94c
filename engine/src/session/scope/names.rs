//! The names of a scope as DataFusion asks for them: catalogs, schemas, tables.
//!
//! Listings show what the catalog holds. Relations about a table (`orders$files`) are found by name
//! and never listed: they are part of the table, and would outnumber the tables.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::TableType;
use datafusion::physical_plan::ExecutionPlan;

use super::Scope;
use super::information::Information;
use crate::catalog;
use crate::catalog::entry::Relation;
use crate::error::Error;

/// The scope as DataFusion's catalogs see it.
#[derive(Debug)]
pub(super) struct Names(pub(super) Arc<Scope>);

impl CatalogProviderList for Names {
    fn register_catalog(
        &self,
        _name: String,
        _catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![catalog::NAME.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == catalog::NAME).then(|| Arc::new(LakeNames(Arc::clone(&self.0))) as _)
    }
}

#[derive(Debug)]
struct LakeNames(Arc<Scope>);

impl CatalogProvider for LakeNames {
    fn schema_names(&self) -> Vec<String> {
        self.0.pinned.catalog.schemas.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == catalog::INFORMATION_SCHEMA {
            let catalogs = Arc::new(Names(Arc::clone(&self.0)));
            return Some(Arc::new(Information::new(&self.0, catalogs)));
        }
        self.0.pinned.catalog.schemas.contains_key(name).then(|| {
            Arc::new(SchemaNames {
                scope: Arc::clone(&self.0),
                schema: name.to_owned(),
            }) as _
        })
    }
}

#[derive(Debug)]
struct SchemaNames {
    scope: Arc<Scope>,
    schema: String,
}

#[async_trait]
impl SchemaProvider for SchemaNames {
    fn table_names(&self) -> Vec<String> {
        let schemas = &self.scope.pinned.catalog.schemas;
        let mut names: Vec<String> = schemas
            .get(&self.schema)
            .map(|schema| schema.relations.keys().cloned().collect())
            .unwrap_or_default();
        if self.schema == self.scope.search_schema() {
            names.extend(self.scope.registered.keys().cloned());
        }
        names
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        match self.scope.resolve(&self.schema, name).await {
            Ok(found) => Ok(found),
            // A query that names it was refused before it came here, so this is a listing.
            Err(error) => {
                tracing::debug!(%error, schema = self.schema, name, "listed without its columns");
                let relation = self.scope.pinned.catalog.relation(&self.schema, name);
                let definition = match relation {
                    Some(Relation::View(view)) => Some(view.query.clone()),
                    _ => None,
                };
                Ok(Some(Arc::new(Broken { definition })))
            }
        }
    }

    /// From the catalog alone, so that listing tables opens none.
    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(
            match self.scope.pinned.catalog.relation(&self.schema, name) {
                Some(Relation::View(_)) => Some(TableType::View),
                Some(_) => Some(TableType::Base),
                None => self
                    .scope
                    .registered
                    .get(name)
                    .map(|table| table.table_type()),
            },
        )
    }

    fn table_exist(&self, name: &str) -> bool {
        self.scope
            .pinned
            .catalog
            .relation(&self.schema, name)
            .is_some()
            || self.scope.registered.contains_key(name)
    }
}

/// A view or table that cannot be opened, as listings show it: a name without columns.
#[derive(Debug)]
struct Broken {
    definition: Option<String>,
}

#[async_trait]
impl TableProvider for Broken {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        match self.definition {
            Some(_) => TableType::View,
            None => TableType::Base,
        }
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.definition.as_deref()
    }

    async fn scan(
        &self,
        _state: &dyn datafusion::catalog::Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[datafusion::logical_expr::Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(Error::internal("a table that cannot be opened was scanned").into())
    }
}
