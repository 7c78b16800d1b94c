//! Tombstones: records without a value that follow the delete of a key, for the broker to forget the key.
//!
//! A tombstone says nothing new, and not when its row went. Where files are cut, its delete may lie in another file, or
//! have been loaded long ago. So each is held against all deletes of the load, and at the end of the last file the ones
//! that are left against the table: a key that the table holds lost its row by a delete that is missing.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, HashMap, HashSet, JoinType};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast};
use datafusion::physical_plan::collect;
use parking_lot::Mutex;

use super::LINE_BITS;
use super::cells::{Cells, Given};
use super::change::of_field;
use super::schema::Hint;
use super::terms::{POSITION, Terms};
use crate::error::{Error, ErrorKind, Result};

/// A tombstone whose delete was not met yet.
#[derive(Debug)]
struct Tombstone {
    position: i64,
    /// The values of the key columns, as they are written, and what the key's schema says of each.
    key: Vec<(String, Option<Hint>)>,
}

impl Tombstone {
    /// Bytes of its values, which lie beside the table of tombstones.
    fn size(&self) -> usize {
        let texts = self.key.iter().map(|(value, _)| value.capacity());
        texts.sum::<usize>() + self.key.capacity() * size_of::<(String, Option<Hint>)>()
    }
}

/// What one file says of keys that went, or all of them. How much it is hangs on the load alone, so memory is asked for.
#[derive(Debug)]
pub(super) struct Gone {
    /// Hashes of the keys that were deleted, as records write them.
    deleted: HashSet<u64>,
    /// The first tombstone of each other key.
    open: HashMap<u64, Tombstone>,
    /// Bytes of the values of these.
    values: usize,
    memory: MemoryReservation,
}

impl Gone {
    /// No keys, and memory of `pool` for those to come.
    pub(super) fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        Self {
            deleted: HashSet::default(),
            open: HashMap::default(),
            values: 0,
            memory: MemoryConsumer::new("DebeziumDeletes").register(pool),
        }
    }

    pub(super) fn delete(&mut self, key: &str) -> Result<()> {
        self.deleted(hash(key))
    }

    pub(super) fn is_deleted(&self, key: &str) -> bool {
        self.deleted.contains(&hash(key))
    }

    /// Takes a tombstone that no delete was before.
    pub(super) fn wait(
        &mut self,
        key: &str,
        position: i64,
        values: Vec<(String, Option<Hint>)>,
    ) -> Result<()> {
        let tombstone = Tombstone {
            position,
            key: values,
        };
        self.open(hash(key), tombstone)
    }

    /// A row that came anew was gone before: the tombstone is of a stream that was sent once more. Only one of the same
    /// file is told by it: files come in any order, and of those behind others it is not known here.
    pub(super) fn create(&mut self, key: &str) {
        if self.open.is_empty() {
            return;
        }
        if let Some(tombstone) = self.open.remove(&hash(key)) {
            self.values -= tombstone.size();
            self.settle();
        }
    }

    /// Takes what another file said.
    fn extend(&mut self, other: Self) -> Result<()> {
        if self.deleted.is_empty() && self.open.is_empty() {
            *self = other;
            return Ok(());
        }
        for key in other.deleted {
            self.deleted(key)?;
        }
        for (key, tombstone) in other.open {
            // It moves: what was asked for it there is asked for here.
            other.memory.shrink(tombstone.size());
            self.open(key, tombstone)?;
        }
        Ok(())
    }

    fn deleted(&mut self, key: u64) -> Result<()> {
        let full = self.deleted.len() == self.deleted.capacity();
        if full {
            // A full table would grow before it finds that it has the key.
            if self.deleted.contains(&key) {
                return Ok(());
            }
            self.reserve(grown(self.deleted.allocation_size()))?;
        }
        self.deleted.insert(key);
        if full {
            self.settle();
        }
        Ok(())
    }

    fn open(&mut self, key: u64, tombstone: Tombstone) -> Result<()> {
        if self.open.contains_key(&key) {
            return Ok(());
        }
        let table = match self.open.len() == self.open.capacity() {
            true => grown(self.open.allocation_size()),
            false => 0,
        };
        let values = tombstone.size();
        self.reserve(table + values)?;
        self.values += values;
        self.open.insert(key, tombstone);
        self.settle();
        Ok(())
    }

    fn reserve(&self, more: usize) -> Result<()> {
        self.memory.try_grow(more).map_err(|source| {
            let source = Error::from(source);
            let keys = self.deleted.len() + self.open.len();
            let bytes = self.memory.size() + more;
            let told = format!(
                "{keys} keys that were deleted, and one more, take {bytes} bytes, which do not fit into memory"
            );
            Error::new(ErrorKind::Exhausted, told)
                .with_detail(source.message())
                .with_hint("load fewer files at a time: tombstones are held against all deletes of a load")
                .with_source(source)
        })
    }

    /// Keeps the memory that is taken by now, and no more.
    fn settle(&self) {
        let tables = self.deleted.allocation_size() + self.open.allocation_size();
        self.memory.resize(tables + self.values);
    }
}

/// Bytes that a table will take which has grown from these.
fn grown(bytes: usize) -> usize {
    /// More than the smallest one.
    const FIRST: usize = 512;
    (2 * bytes).max(FIRST)
}

fn hash(key: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

/// What all files of a load say of keys that went.
pub(super) struct Tombstones {
    terms: Arc<Terms>,
    /// Names of the files, in their order.
    files: Vec<String>,
    /// The current rows of the table.
    current: Arc<dyn TableProvider>,
    state: SessionState,
    heard: Mutex<(usize, Gone)>,
}

impl Tombstones {
    pub(super) fn new(
        terms: Arc<Terms>,
        files: Vec<String>,
        current: Arc<dyn TableProvider>,
        state: SessionState,
    ) -> Self {
        let none = Gone::new(&state.runtime_env().memory_pool);
        Self {
            terms,
            files,
            current,
            state,
            heard: Mutex::new((0, none)),
        }
    }

    /// Takes what a file said. Behind the last one it is known which tombstones have no delete.
    ///
    /// # Errors
    /// When the table holds the key of such a tombstone, or the keys are more than memory allows.
    pub(super) async fn file_ends(&self, gone: Gone) -> Result<()> {
        let (left, _memory) = {
            let mut heard = self.heard.lock();
            let (files, all) = &mut *heard;
            *files += 1;
            all.extend(gone).map_err(|error| {
                let told = format!("table {}: {}", self.terms.shape.table, error.message());
                error.reworded(told)
            })?;
            if *files < self.files.len() {
                return Ok(());
            }
            let none = Gone::new(&self.state.runtime_env().memory_pool);
            let all = std::mem::replace(all, none);
            let (deleted, open) = (all.deleted, all.open.into_iter());
            let left = open.filter(|(key, _)| !deleted.contains(key));
            let left: Vec<_> = left.map(|(_, tombstone)| tombstone).collect();
            (left, all.memory)
        };
        if left.is_empty() {
            return Ok(());
        }
        match self.first_held(&left).await? {
            Some(tombstone) => Err(self.contradicts(tombstone)),
            None => Ok(()),
        }
    }

    /// The first of the tombstones whose key is in the table.
    async fn first_held<'t>(&self, open: &'t [Tombstone]) -> Result<Option<&'t Tombstone>> {
        let shape = &self.terms.shape;
        let (mut fields, mut columns) = (Vec::new(), Vec::<ArrayRef>::new());
        let (mut typed, mut stored) = (Vec::new(), Vec::new());
        let keys = shape.keys.iter().enumerate();
        for (number, place) in keys {
            let (field, kind) = (shape.declared.field(*place), self.terms.kinds.get(*place));
            let kind = kind.ok_or_else(|| Error::internal("a key that is no column"))?;
            let mut cells = Cells::new(kind);
            for tombstone in open {
                let (value, hint) = match tombstone.key.get(number) {
                    Some((value, hint)) => (value.as_str(), *hint),
                    None => ("null", None),
                };
                let given = cells.push(kind, hint, value, &self.terms.reading);
                if given.map_err(of_field(field.name()))? != Given::Value {
                    return Err(Error::rejected(format!(
                        "key {} of a tombstone is missing",
                        field.name()
                    )));
                }
            }
            let name = format!("k{number}");
            fields.push(Field::new(&name, kind.data_type(), true));
            columns.push(cells.finish()?);
            let told = Expr::Column(Column::new(Some("told"), &name));
            typed.push(cast(told, field.data_type().clone()).alias(&name));
            let held = Expr::Column(Column::new(Some("held"), field.name()));
            stored.push(held.alias(format!("h{number}")));
        }
        fields.push(Field::new(POSITION, DataType::Int64, false));
        columns.push(Arc::new(Int64Array::from_iter_values(
            open.iter().map(|tombstone| tombstone.position),
        )));
        typed.push(Expr::Column(Column::new(Some("told"), POSITION)));
        let schema = Arc::new(Schema::new(fields));
        let told = RecordBatch::try_new(Arc::clone(&schema), columns)
            .map_err(|error| Error::internal("keys of tombstones").with_source(error))?;
        let told = provider_as_source(Arc::new(MemTable::try_new(schema, vec![vec![told]])?));
        let told = LogicalPlanBuilder::scan("told", told, None)?.project(typed)?;
        let held = provider_as_source(Arc::clone(&self.current));
        let held = LogicalPlanBuilder::scan("held", held, None)?.project(stored)?;
        let named = |letter: &str| -> Vec<Column> {
            let numbers = 0..shape.keys.len();
            let names = numbers.map(|number| Column::new_unqualified(format!("{letter}{number}")));
            names.collect()
        };
        let on = (named("k"), named("h"));
        let plan = told.join(held.build()?, JoinType::LeftSemi, on, None)?;
        let plan = plan.build()?;
        let plan = Box::pin(self.state.create_physical_plan(&plan)).await?;
        let found = collect(plan, self.state.task_ctx()).await?;
        let positions = found.iter().filter_map(|batch| {
            let positions = batch.column_by_name(POSITION)?;
            positions.as_primitive_opt::<Int64Type>()
        });
        let first = positions.flat_map(|positions| positions.values()).min();
        Ok(first.and_then(|first| open.iter().find(|open| open.position == *first)))
    }

    fn contradicts(&self, tombstone: &Tombstone) -> Error {
        let shape = &self.terms.shape;
        let (file, line) = (
            tombstone.position >> LINE_BITS,
            (tombstone.position & ((1 << LINE_BITS) - 1)) / 2,
        );
        let file = usize::try_from(file).ok();
        let file = file.and_then(|file| self.files.get(file));
        let file = file.map_or("a file", String::as_str);
        let key = shape.key_names().zip(&tombstone.key);
        let key: Vec<String> = key
            .map(|(name, (value, _))| format!("{name} = {value}"))
            .collect();
        Error::rejected(format!(
            "{file}, line {line}: a tombstone follows no delete, and table {} holds the key {}",
            shape.table,
            key.join(", ")
        ))
        .with_hint(
            "the delete before it, which says when the row went, is missing: load it as well",
        )
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    fn pool(bytes: usize) -> Arc<dyn MemoryPool> {
        Arc::new(GreedyMemoryPool::new(bytes))
    }

    fn value(text: &str) -> Vec<(String, Option<Hint>)> {
        vec![(text.to_owned(), None)]
    }

    /// What the tables and the values take.
    fn taken(gone: &Gone) -> usize {
        let values = gone.open.values().map(Tombstone::size).sum::<usize>();
        assert_eq!(gone.values, values);
        gone.deleted.allocation_size() + gone.open.allocation_size() + values
    }

    #[test]
    fn memory_is_asked_for_as_keys_go() {
        let pool = pool(10 << 20);
        let mut gone = Gone::new(&pool);
        assert_eq!(pool.reserved(), 0);
        for key in 0..1_000 {
            gone.delete(&format!("{}", key % 700)).unwrap();
            let waiting = format!("t{}", key % 300);
            gone.wait(&waiting, key, value(&waiting)).unwrap();
            assert_eq!(pool.reserved(), taken(&gone));
        }
        assert_eq!((gone.deleted.len(), gone.open.len()), (700, 300));
        for key in 0..300 {
            gone.create(&format!("t{key}"));
            assert_eq!(pool.reserved(), taken(&gone));
        }
        assert_eq!((gone.open.len(), gone.values), (0, 0));
        // Of a second file.
        let mut other = Gone::new(&pool);
        other.delete("x").unwrap();
        other.wait("y", 7, value("y")).unwrap();
        gone.extend(other).unwrap();
        assert_eq!((gone.deleted.len(), gone.open.len()), (701, 1));
        assert_eq!(pool.reserved(), taken(&gone));
        let mut first = Gone::new(&pool);
        first.extend(gone).unwrap();
        assert!(first.is_deleted("x") && first.is_deleted("699"));
        assert_eq!(pool.reserved(), taken(&first));
        drop(first);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn more_keys_than_memory_are_refused() {
        let pool = pool(10_000);
        let mut gone = Gone::new(&pool);
        let mut keys = 0..10_000;
        let error = keys.find_map(|key| gone.delete(&key.to_string()).err());
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(
            error.message().ends_with("do not fit into memory"),
            "{error}"
        );
        // What was there stays, and what is there already needs no room.
        assert_eq!(pool.reserved(), taken(&gone));
        gone.delete("0").unwrap();
        assert!(gone.wait("long", 1, value(&"x".repeat(10_000))).is_err());
        assert_eq!(pool.reserved(), taken(&gone));
        drop(gone);
        assert_eq!(pool.reserved(), 0);
    }
}
