//! Tombstones: records without a value that follow the delete of a key, for the broker to forget the key.
//!
//! A tombstone says nothing new, and not when its row went. Where files are cut, its delete may lie in another file, or
//! have been loaded long ago. So each is held against all deletes of the load, and at the end of the last file the ones
//! that are left against the table: a key that the table holds lost its row by a delete that is missing.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast};
use datafusion::physical_plan::collect;
use parking_lot::Mutex;

use super::LINE_BITS;
use super::cells::{Cells, Given};
use super::change::of_field;
use super::schema::Hint;
use super::terms::{POSITION, Terms};
use crate::error::{Error, Result};

/// A tombstone whose delete was not met yet.
#[derive(Debug)]
struct Tombstone {
    position: i64,
    /// The values of the key columns, as they are written, and what the key's schema says of each.
    key: Vec<(String, Option<Hint>)>,
}

/// What one file says of keys that went.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Hashes of the keys that were deleted, as records write them.
    deleted: HashSet<u64>,
    /// The first tombstone of each other key.
    open: HashMap<u64, Tombstone>,
}

impl Gone {
    pub(super) fn delete(&mut self, key: &str) {
        self.deleted.insert(hash(key));
    }

    pub(super) fn is_deleted(&self, key: &str) -> bool {
        self.deleted.contains(&hash(key))
    }

    /// Takes a tombstone that no delete was before.
    pub(super) fn wait(&mut self, key: &str, position: i64, values: Vec<(String, Option<Hint>)>) {
        let tombstone = Tombstone {
            position,
            key: values,
        };
        self.open.entry(hash(key)).or_insert(tombstone);
    }

    /// A row that came anew was gone before: the tombstone is of a stream that was sent once more. Only one of the same
    /// file is told by it: files come in any order, and of those behind others it is not known here.
    pub(super) fn create(&mut self, key: &str) {
        if !self.open.is_empty() {
            self.open.remove(&hash(key));
        }
    }
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
        Self {
            terms,
            files,
            current,
            state,
            heard: Mutex::default(),
        }
    }

    /// Takes what a file said. Behind the last one it is known which tombstones have no delete.
    ///
    /// # Errors
    /// When the table holds the key of such a tombstone.
    pub(super) async fn file_ends(&self, gone: Gone) -> Result<()> {
        let left = {
            let mut heard = self.heard.lock();
            let (files, all) = &mut *heard;
            *files += 1;
            all.deleted.extend(gone.deleted);
            for (key, tombstone) in gone.open {
                all.open.entry(key).or_insert(tombstone);
            }
            if *files < self.files.len() {
                return Ok(());
            }
            let Gone { deleted, open } = std::mem::take(all);
            let open = open.into_iter();
            let left = open.filter(|(key, _)| !deleted.contains(key));
            left.map(|(_, tombstone)| tombstone).collect::<Vec<_>>()
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
