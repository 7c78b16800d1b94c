//! Rules that ask another table: `c REFERENCES t (k)`, one hash lookup per row.
//!
//! The keys are those of the version of the other table that the statement sees. As in SQL, a row with a NULL in
//! one of its columns refers to nothing, and the answer for it is unknown.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::runtime::JoinSet;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::physical_plan::{ExecutionPlan, execute_stream_partitioned};
use futures::TryStreamExt;

use super::condition::{Owner, suggest};
pub(super) use super::keys::Keys;
use crate::error::{Error, Result};
use crate::shown::sql_name;
use crate::sql;

/// A rule whose columns must be found among the keys of another table.
#[derive(Debug, Clone)]
pub(super) struct ReferenceRule {
    label: String,
    table: String,
    /// The other table, as the rule spells it.
    other: String,
    columns: Vec<usize>,
    /// The types in which columns and keys are compared.
    types: Vec<DataType>,
    /// Reads the keys, and nothing else, of the other table.
    keys: Arc<dyn ExecutionPlan>,
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
            other,
            columns,
            types,
            keys,
        })
    }

    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Reads the keys, all partitions of the other table at once.
    ///
    /// # Errors
    /// When they cannot be read, or are more than memory allows.
    pub(super) async fn load(&self, context: &Arc<TaskContext>) -> Result<Keys> {
        let what = format!(
            "{} of table {}: the keys of table {}",
            self.label, self.table, self.other
        );
        let memory =
            MemoryConsumer::new(format!("Keys[{}]", self.label)).register(context.memory_pool());
        let keys = Keys::new(&self.types, memory).map_err(|error| error.ending(&what))?;
        let mut readers = JoinSet::new();
        for mut batches in execute_stream_partitioned(Arc::clone(&self.keys), Arc::clone(context))?
        {
            let (keys, what) = (keys.clone(), what.clone());
            readers.spawn(async move {
                while let Some(batch) = batches.try_next().await? {
                    keys.add(batch.columns())
                        .map_err(|error| error.ending(&what))?;
                }
                Ok::<_, Error>(())
            });
        }
        while let Some(ended) = readers.join_next().await {
            ended.map_err(|error| {
                Error::internal(format!("{what}: a reader stopped")).with_source(error)
            })??;
        }
        Ok(keys)
    }

    /// Which rows of a batch of the own table refer to a key; unknown where a column is NULL.
    pub(super) fn ask(&self, keys: &Keys, batch: &RecordBatch) -> Result<BooleanArray> {
        let columns = self.columns.iter().map(|at| Arc::clone(batch.column(*at)));
        let columns: Vec<ArrayRef> = columns.collect();
        keys.find(&columns)
            .map_err(|error| error.ending(&format!("{} of table {}", self.label, self.table)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use arrow::array::Int64Array;
    use arrow::datatypes::{Field, Schema};
    use datafusion::datasource::MemTable;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};

    fn batch(ids: impl IntoIterator<Item = Option<i64>>) -> RecordBatch {
        let field = Field::new("id", DataType::Int64, true);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter(ids));
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![ids]).unwrap()
    }

    /// A rule about a table of four partitions, with keys from 0 on, each of them twice and one NULL in each
    /// partition; and the session it runs in.
    async fn rule(keys: i64, memory: usize) -> (ReferenceRule, SessionContext) {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory, 1.0);
        let session =
            SessionContext::new_with_config_rt(SessionConfig::new(), runtime.build_arc().unwrap());
        let partition = |number: i64| {
            let of = |key: &i64| key % 4 == number || key % 4 == (number + 1) % 4;
            let keys = (0..keys).filter(of).map(Some);
            vec![batch(keys.chain([None]))]
        };
        let partitions: Vec<_> = (0..4).map(partition).collect();
        let schema = batch([]).schema();
        let clients = MemTable::try_new(Arc::clone(&schema), partitions).unwrap();
        session
            .register_table("clients", Arc::new(clients))
            .unwrap();
        let owner = Owner {
            label: "rule known",
            table: "public.orders",
        };
        let text = "id REFERENCES clients (id)";
        let rule = ReferenceRule::compile(&session.state(), owner, text, &schema).await;
        (rule.unwrap(), session)
    }

    #[tokio::test]
    async fn keys_of_all_partitions_are_known() {
        let (rule, session) = rule(10_000, 16 << 20).await;
        let keys = rule.load(&session.task_ctx()).await.unwrap();
        let rows = batch([Some(0), Some(9_999), Some(10_000), Some(-1), None]);
        let answers: Vec<_> = rule.ask(&keys, &rows).unwrap().iter().collect();
        let expected = [Some(true), Some(true), Some(false), Some(false), None];
        assert_eq!(answers, expected);
        let all = batch((0..10_000).map(Some));
        assert_eq!(rule.ask(&keys, &all).unwrap().true_count(), 10_000);
        let pool = &session.runtime_env().memory_pool;
        assert!(pool.reserved() > 0);
        drop(keys);
        assert_eq!(pool.reserved(), 0);
    }

    #[tokio::test]
    async fn too_many_keys_are_told_with_rule_tables_and_bytes() {
        let (rule, session) = rule(100_000, 1 << 18).await;
        let error = rule.load(&session.task_ctx()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let start = "rule known of table public.orders: the keys of table clients: ";
        let bytes = error.message().strip_prefix(start).unwrap();
        let bytes = bytes.strip_suffix(" bytes do not fit into memory").unwrap();
        assert!(bytes.parse::<usize>().unwrap() > 1 << 17, "{error}");
    }
}
