//! `information_schema`: DataFusion's relations, and what columns are tagged as.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProviderList, MemTable, SchemaProvider, TableProvider};
use datafusion::error::Result as DfResult;

use super::Scope;
use crate::catalog::NAME;
use crate::catalog::entry::Relation;
use crate::table::schema::tags;

/// One row for each tag of each column.
const COLUMN_TAGS: &str = "column_tags";

#[derive(Debug)]
pub(super) struct Information {
    scope: Arc<Scope>,
    standard: InformationSchemaProvider,
}

impl Information {
    pub(super) fn new(scope: &Arc<Scope>, catalogs: Arc<dyn CatalogProviderList>) -> Self {
        Self {
            scope: Arc::clone(scope),
            standard: InformationSchemaProvider::new(catalogs),
        }
    }
}

#[async_trait]
impl SchemaProvider for Information {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.standard.table_names();
        names.push(COLUMN_TAGS.to_owned());
        names
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        if name != COLUMN_TAGS {
            return self.standard.table(name).await;
        }
        let rows = column_tags(&self.scope).await?;
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        Ok(Some(Arc::new(table)))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == COLUMN_TAGS || self.standard.table_exist(name)
    }
}

async fn column_tags(scope: &Arc<Scope>) -> DfResult<RecordBatch> {
    let names = [
        "catalog_name",
        "schema_name",
        "table_name",
        "column_name",
        "tag_name",
    ];
    let mut columns = names.map(|_| StringBuilder::new());
    for (schema, of_schema) in &scope.pinned.catalog.schemas {
        for (table, relation) in &of_schema.relations {
            let Relation::Table(entry) = relation else {
                continue;
            };
            let handle = scope.engine.table(entry)?;
            let snapshot = match scope.pin(schema, table, &handle).await {
                Ok(snapshot) => snapshot,
                // As the other listings do: one that cannot be opened hides none of the others.
                Err(error) => {
                    tracing::debug!(%error, schema, table, "listed without its tags");
                    continue;
                }
            };
            for field in snapshot.schema.fields() {
                for tag in tags(field) {
                    let row = [NAME, schema, table, field.name(), tag];
                    for (column, value) in columns.iter_mut().zip(row) {
                        column.append_value(value);
                    }
                }
            }
        }
    }
    let fields = names.map(|name| Field::new(name, DataType::Utf8, false));
    let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let columns = columns.map(|mut column| Arc::new(column.finish()) as ArrayRef);
    Ok(RecordBatch::try_new(schema, columns.to_vec())?)
}
