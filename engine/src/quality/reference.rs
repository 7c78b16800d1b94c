//! Rules that ask another table: `c REFERENCES t (k)`, one hash lookup per row.
//!
//! The keys are those of the version of the other table that the statement sees. As in SQL, a row with a NULL in
//! one of its columns refers to nothing, and the answer for it is unknown.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;

use super::condition::{Owner, suggest};
use crate::error::{Error, Result};
use crate::shown::sql_name;
use crate::sql;

/// Memory of one kept key besides its bytes: its place in the table and its own allocation.
const KEY_BYTES: usize = 48;

/// A rule whose columns must be found among the keys of another table.
#[derive(Debug, Clone)]
pub(super) struct ReferenceRule {
    label: String,
    table: String,
    columns: Vec<usize>,
    /// The types in which columns and keys are compared.
    types: Vec<DataType>,
    /// Reads the keys, and nothing else, of the other table.
    keys: Arc<dyn ExecutionPlan>,
}

/// The keys of the other table, ready to be asked.
#[derive(Debug)]
pub(super) struct Keys {
    known: HashSet<Box<[u8]>>,
    /// Held as long as the keys are.
    _memory: MemoryReservation,
}

impl ReferenceRule {
    pub(super) async fn compile(
        state: &SessionState,
        owner: Owner<'_>,
        text: &str,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let reference = sql::parse_reference(text)?;
        let other = reference.table.to_string();
        let provider = provider(state, owner, &other, &reference.table).await?;
        let theirs = provider.schema();
        let (mut columns, mut keys, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for (column, key) in reference.columns.iter().zip(&reference.keys) {
            let column = place(owner, schema, &sql::fold(column), "")?;
            let key = place(
                owner,
                &theirs,
                &sql::fold(key),
                &format!(" in table {other}"),
            )?;
            let (own, their) = (
                schema.field(column).data_type(),
                theirs.field(key).data_type(),
            );
            let common = comparison_coercion(own, their).ok_or_else(|| {
                owner.wrong(format!(
                    "column {} is {}, which does not compare with {} of {other}, a {}",
                    schema.field(column).name(),
                    sql_name(own),
                    theirs.field(key).name(),
                    sql_name(their)
                ))
            })?;
            columns.push(column);
            keys.push(key);
            types.push(common);
        }
        let keys = provider.scan(state, Some(&keys), &[], None).await?;
        Ok(Self {
            label: owner.label.to_owned(),
            table: owner.table.to_owned(),
            columns,
            types,
            keys,
        })
    }

    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    fn converter(&self) -> Result<RowConverter> {
        let fields = self.types.iter().cloned().map(SortField::new);
        RowConverter::new(fields.collect()).map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &arrow::error::ArrowError) -> Error {
        Error::internal(format!("{} of table {}: {error}", self.label, self.table))
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// When they cannot be read, or are more than memory allows.
    pub(super) async fn load(&self, context: &Arc<TaskContext>) -> Result<Keys> {
        let converter = self.converter()?;
        let memory =
            MemoryConsumer::new(format!("Keys[{}]", self.label)).register(context.memory_pool());
        let mut known: HashSet<Box<[u8]>> = HashSet::new();
        let mut batches = execute_stream(Arc::clone(&self.keys), Arc::clone(context))?;
        while let Some(batch) = batches.try_next().await? {
            let (rows, nulls) = self.rows(&converter, batch.columns())?;
            let mut bytes = 0;
            for row in 0..rows.num_rows() {
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    continue;
                }
                let key = rows.row(row);
                if !known.contains(key.as_ref()) {
                    bytes += key.as_ref().len() + KEY_BYTES;
                    known.insert(key.as_ref().into());
                }
            }
            memory.try_grow(bytes)?;
        }
        Ok(Keys {
            known,
            _memory: memory,
        })
    }

    /// The keys in `columns` in a form that is equal where they are, and where one of their values is missing.
    fn rows(
        &self,
        converter: &RowConverter,
        columns: &[ArrayRef],
    ) -> Result<(arrow::row::Rows, Option<NullBuffer>)> {
        let exact = CastOptions {
            // A value that does not fit the common type equals none of the other side.
            safe: true,
            ..CastOptions::default()
        };
        let mut nulls = None;
        let mut common = Vec::with_capacity(columns.len());
        for (column, to) in columns.iter().zip(&self.types) {
            nulls = NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref());
            common
                .push(cast_with_options(column, to, &exact).map_err(|error| self.broken(&error))?);
        }
        let rows = converter
            .convert_columns(&common)
            .map_err(|error| self.broken(&error))?;
        Ok((rows, nulls))
    }

    pub(super) fn ask(&self, keys: &Keys, batch: &RecordBatch) -> Result<BooleanArray> {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|at| Arc::clone(batch.column(*at)))
            .collect();
        let (rows, nulls) = self.rows(&self.converter()?, &columns)?;
        let found = (0..rows.num_rows()).map(|row| keys.known.contains(rows.row(row).as_ref()));
        Ok(BooleanArray::new(found.collect(), nulls))
    }
}

async fn provider(
    state: &SessionState,
    owner: Owner<'_>,
    shown: &str,
    name: &datafusion::sql::sqlparser::ast::ObjectName,
) -> Result<Arc<dyn TableProvider>> {
    let parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident().map(sql::fold))
        .collect();
    let reference = match parts.as_slice() {
        [table] => TableReference::bare(table.clone()),
        [schema, table] => TableReference::partial(schema.clone(), table.clone()),
        [catalog, schema, table] => {
            TableReference::full(catalog.clone(), schema.clone(), table.clone())
        }
        _ => return Err(owner.wrong(format!("{shown} is not the name of a table"))),
    };
    let table = reference.table().to_owned();
    let missing = || owner.wrong(format!("there is no table {shown}"));
    let schema = state.schema_for_ref(reference).map_err(|_| missing())?;
    match schema.table(&table).await {
        Ok(Some(provider)) => Ok(provider),
        Ok(None) => Err(missing()),
        Err(error) => Err(Error::from(error)),
    }
}

fn place(owner: Owner<'_>, schema: &SchemaRef, name: &str, of: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        suggest(owner.wrong(format!("no column {name}{of}")), name, names)
    })
}
