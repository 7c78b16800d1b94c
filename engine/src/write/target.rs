//! Where a write goes and under which terms: everything the write path may know of the engine.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use roaring::RoaringTreemap;

use super::change::Change;
use super::hook::WriteHookSupplier;
use crate::cleanse::policy::{self, Policy};
use crate::clock::Ambient;
use crate::error::{Error, Result};
use crate::journal::shape::Shape;
use crate::quality::metric::Partitioning;
use crate::quality::record::Replayed;
use crate::quality::rule::{self, Rule};
use crate::settings::Settings;
use crate::table::actions::{Metadata, Protocol};
use crate::table::handle::Table;
use crate::table::located::Located;
use crate::table::snapshot::Snapshot;
use crate::table::{partition, records};

/// The terms of one write to one table, fixed when the statement is planned.
#[derive(Clone)]
pub(crate) struct WriteTarget {
    /// Table as `schema.name`.
    pub name: String,
    pub table: Arc<Table>,
    /// The version the statement was planned on; `None` when the write makes the table.
    pub base: Option<Arc<Snapshot>>,
    /// What the write makes or makes anew (CREATE TABLE AS, CREATE OR REPLACE).
    pub creates: Option<NewTable>,
    /// What a statement that changes rows looked at, and where they are.
    pub change: Option<Arc<Change>>,
    /// A condition that new rows must meet besides the constraints (INSERT .. REPLACE WHERE).
    pub condition: Option<String>,
    /// What new rows were made from, when they were made from this table.
    pub reads_itself: bool,
    /// The rows of the table's quarantine that new rows are, where they are.
    pub replays: Option<Arc<Located>>,
    /// What the table becomes when rows are first marked as deleted, if it may.
    pub vectors: Option<NewTable>,
    /// What rows become in a journal; `None` where they are rows of the table as they are.
    pub journal: Option<Arc<JournalTarget>>,
    /// The text of a statement that puts intervals of a journal right by hand, which is its own record.
    pub corrected: Option<String>,
    /// Name of the operation in the log.
    pub operation: &'static str,
    /// Columns of the table in order, with the types rows must have; of a journal those that were declared.
    pub schema: SchemaRef,
    /// Milliseconds since the epoch of the statement.
    pub batch_id: i64,
    pub user: Option<String>,
    pub hooks: Vec<Arc<dyn WriteHookSupplier>>,
    pub settings: Settings,
    pub ambient: Ambient,
}

/// How rows become intervals of a journal.
#[derive(Debug, Clone)]
pub(crate) struct JournalTarget {
    pub shape: Arc<Shape>,
    pub mode: JournalMode,
    /// Whether current rows may get another key, so that what refuses one of them must refuse all.
    pub moves: bool,
    /// When rows that say no instant of their own are true from, in microseconds since the epoch.
    pub instant: i64,
    /// The largest part of the current keys that a snapshot may close.
    pub max_delete_fraction: f64,
}

/// What the rows of a write to a journal are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JournalMode {
    /// Changes of keys; of the other keys they say nothing.
    Changes,
    /// Of each instant, all rows there are.
    Snapshots,
    /// Changes that a statement made of the current rows: none of them may come late.
    Dml,
    /// Intervals themselves, put right by hand.
    Correction,
}

/// The first lines of a table's log.
#[derive(Debug, Clone)]
pub(crate) struct NewTable {
    pub protocol: Protocol,
    pub metadata: Metadata,
}

impl WriteTarget {
    /// The metadata the rows will live under.
    pub(crate) fn metadata(&self) -> Option<&Metadata> {
        match (&self.creates, &self.base) {
            (Some(new), _) => Some(&new.metadata),
            (None, Some(base)) => Some(&base.metadata),
            (None, None) => None,
        }
    }

    /// The journal whose changes the rows are; None where rows are stored as they are.
    pub(super) fn journals(&self) -> Option<&Arc<JournalTarget>> {
        let journal = self.journal.as_ref()?;
        (journal.mode != JournalMode::Correction).then_some(journal)
    }

    /// Columns of rows on their way: those of the table, and of a journal such that rows that only end a key fit.
    pub(super) fn flow(&self) -> &SchemaRef {
        self.journals()
            .map_or(&self.schema, |journal| &journal.shape.flow)
    }

    /// The partition columns that rows on their way have.
    pub(super) fn flow_partition_columns(&self) -> &[String] {
        match self.journals() {
            Some(_) => &[],
            None => self.partition_columns(),
        }
    }

    fn property(&self, key: &str) -> Option<&str> {
        let configuration = &self.metadata()?.configuration;
        configuration.get(key).map(String::as_str)
    }

    /// Whether this property of the table says true.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.property(key) == Some("true")
    }

    /// The rules of the table.
    pub(super) fn rules(&self) -> Result<Vec<Rule>> {
        match self.metadata() {
            Some(metadata) => rule::rules(&self.name, &metadata.configuration),
            None => Ok(Vec::new()),
        }
    }

    /// The cleanse policies of the table.
    pub(super) fn policies(&self) -> Result<Vec<Policy>> {
        match self.metadata() {
            Some(metadata) => policy::policies(&self.name, &metadata.configuration),
            None => Ok(Vec::new()),
        }
    }

    /// How metrics tell the partitions of the table apart.
    pub(super) fn partitioning(&self) -> Result<Partitioning> {
        let columns = self.flow_partition_columns().iter();
        let columns = columns.map(|name| {
            self.schema.index_of(name).map_err(|error| {
                Error::corrupt(format!(
                    "table {}: partition column {name} is not a column of it",
                    self.name
                ))
                .with_source(error)
            })
        });
        Ok(Partitioning {
            columns: columns.collect::<Result<_>>()?,
            spell: partition::encode,
        })
    }

    /// Rows of quarantine that were taken up, as the commit names them.
    pub(super) fn replayed(&self, taken: &HashMap<u32, RoaringTreemap>) -> Result<Vec<Replayed>> {
        let Some(located) = &self.replays else {
            return Ok(Vec::new());
        };
        let files = located.files();
        let mut replayed = Vec::with_capacity(taken.len());
        for (number, rows) in taken {
            let file = files.get(*number as usize).ok_or_else(|| {
                Error::internal(format!(
                    "a replayed row lies in file {number}, which was not read"
                ))
            })?;
            replayed.push(records::replayed(&file.add.path, rows)?);
        }
        replayed.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(replayed)
    }

    pub(crate) fn partition_columns(&self) -> &[String] {
        self.metadata()
            .map_or(&[], |metadata| &metadata.partition_columns)
    }

    /// CHECK constraints as (name, predicate text).
    pub(crate) fn checks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata()
            .into_iter()
            .flat_map(|metadata| &metadata.configuration)
            .filter_map(|(key, text)| {
                Some((key.strip_prefix("delta.constraints.")?, text.as_str()))
            })
    }
}

impl fmt::Debug for WriteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteTarget")
            .field("table", &self.name)
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}
