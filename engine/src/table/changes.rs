//! What versions of a table brought and took, told from its log and deletion vectors.
//!
//! The answer is a table of its own, in memory. Its files are the data files that the commits touched, each
//! with a deletion vector that leaves exactly the rows that came or went, and with the kind, version and time
//! of the change as partition values. So it is read as every version is: pruned by these three columns, by
//! partition and by statistics, and nothing that stayed is opened.
//!
//! A writer that changes rows by writing whole files anew gives each row of them as gone and come. Of a journal the
//! rows are its intervals, with their begins and ends: what is told is when the lake learned of them, and
//! `valid_time_changes` tells when they were true.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringTreemap;

use super::actions::{Action, Add, DeletionVector, Remove};
use super::erased;
use super::handle::Table;
use super::located::physical_rows;
use super::log::{self, Commit};
use super::partition;
use super::replay;
use super::snapshot::{DataFile, Snapshot, TableRoot};
use crate::error::{Error, ErrorKind, Result};

const TYPE: &str = "_change_type";
const VERSION: &str = "_commit_version";
const TIMESTAMP: &str = "_commit_timestamp";

/// Commits fetched at once.
const READ_AHEAD: usize = 16;

/// The changes of the versions from `first` to that of `last`, with the columns of `last`.
pub(crate) async fn between(
    table: &Table,
    name: &str,
    first: u64,
    last: &Snapshot,
) -> Result<Snapshot> {
    let mut feed = Feed {
        table,
        name,
        last,
        schema: with_change_columns(name, &last.schema)?,
        files: Vec::new(),
    };
    let commits = feed.commits(first).await?;
    // Most commits say all there is to know. A schema that changes, or a removal without its details, needs the
    // version before.
    let stated = commits.iter().any(|commit| feed.needs_state(commit));
    let mut before = match first.checked_sub(1) {
        Some(version) if stated => Some(table.at_version(name, version).await?),
        _ => None,
    };
    for commit in commits {
        let after = match (stated, &before) {
            (false, _) => None,
            (true, Some(before)) => Some(replay::advance(&table.root, before, commit.clone())?),
            (true, None) => Some(replay::begin(&table.root, commit.clone())?),
        };
        let after = after.map(Arc::new);
        feed.add(&commit, before.as_deref(), after.as_deref())
            .await?;
        before = after;
    }
    Ok(feed.finish())
}

/// The columns of a table, and what is told of each change.
fn with_change_columns(name: &str, schema: &SchemaRef) -> Result<SchemaRef> {
    let own = [TYPE, VERSION, TIMESTAMP];
    if let Some(taken) = own.iter().find(|column| schema.index_of(column).is_ok()) {
        return Err(Error::invalid(format!(
            "table_changes: table {name} has a column {taken} of its own"
        ))
        .with_hint(format!(
            "ALTER TABLE {name} RENAME COLUMN {taken} TO another name"
        )));
    }
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let told = [
        Field::new(TYPE, DataType::Utf8View, false),
        Field::new(VERSION, DataType::Int64, false),
        Field::new(TIMESTAMP, utc, false),
    ];
    let fields = schema.fields().iter().cloned();
    let fields: Vec<_> = fields.chain(told.map(Arc::new)).collect();
    Ok(Arc::new(Schema::new_with_metadata(
        fields,
        schema.metadata().clone(),
    )))
}

struct Feed<'a> {
    table: &'a Table,
    name: &'a str,
    last: &'a Snapshot,
    schema: SchemaRef,
    files: Vec<DataFile>,
}

/// What one commit says of one file.
#[derive(Default)]
struct Touched<'c> {
    removed: Option<&'c Remove>,
    added: Option<&'c Add>,
}

/// How the changes of one commit are told.
struct Told {
    gone: &'static str,
    come: &'static str,
    version: String,
    time: Option<String>,
}

impl Feed<'_> {
    async fn commits(&self, first: u64) -> Result<Vec<Commit>> {
        let root = &self.table.root;
        let commits: Vec<Option<Commit>> = stream::iter(first..=self.last.version)
            .map(|version| log::read(root, version))
            .buffered(READ_AHEAD)
            .try_collect()
            .await?;
        let untold = |commit: &Option<Commit>| commit.as_ref().is_none_or(Commit::is_erased);
        let Some(lost) = commits.iter().rposition(untold) else {
            return Ok(commits.into_iter().flatten().collect());
        };
        let told = format!(
            "its log has the changes of the versions {} to {}",
            first + lost as u64 + 1,
            self.last.version
        );
        let erased = erased::of(self.last).filter(|_| commits[lost].is_some());
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "table_changes: what version {} of table {} changed can no longer be read",
                first + lost as u64,
                self.name
            ),
        )
        .with_detail(match erased {
            Some(erased) => format!("{}; {told}", erased.by()),
            None => told,
        }))
    }

    fn needs_state(&self, commit: &Commit) -> bool {
        let partitioned = !self.last.partition_columns().is_empty();
        commit.actions.iter().any(|action| match action {
            Action::Metadata(_) => true,
            Action::Remove(remove) => {
                remove.data_change
                    && (remove.size.is_none() || partitioned && remove.partition_values.is_none())
            }
            _ => false,
        })
    }

    async fn add(
        &mut self,
        commit: &Commit,
        before: Option<&Snapshot>,
        after: Option<&Snapshot>,
    ) -> Result<()> {
        let told = Told::of(commit)?;
        for touched in touched(commit) {
            // Rows that only lie in other files now have not changed.
            let changed = touched.removed.is_some_and(|remove| remove.data_change)
                || touched.added.is_some_and(|add| add.data_change);
            if !changed {
                continue;
            }
            if let (Some(_), Some(before)) = (touched.removed, before) {
                self.check_columns(before)?;
            }
            if let (Some(_), Some(after)) = (touched.added, after) {
                self.check_columns(after)?;
            }
            match (touched.removed, touched.added) {
                (Some(removed), Some(added)) => self.marked(removed, added, &told).await?,
                (Some(removed), None) => {
                    let file = self.removed(removed, before)?;
                    self.push(file, told.gone, &told);
                }
                (None, Some(added)) => self.push(added.clone(), told.come, &told),
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// A file that stayed with other rows deleted: those newly gone, and those that are back.
    async fn marked(&mut self, removed: &Remove, added: &Add, told: &Told) -> Result<()> {
        let root = &self.table.root;
        let (old, new) = futures::try_join!(
            deleted(root, &added.path, removed.deletion_vector.as_ref()),
            deleted(root, &added.path, added.deletion_vector.as_ref()),
        )?;
        let file = DataFile::new(added.clone());
        for (rows, kind) in [(&new - &old, told.gone), (&old - &new, told.come)] {
            if rows.is_empty() {
                continue;
            }
            let all = physical_rows(root, &file, &self.last.schema).await?;
            if rows.max().is_some_and(|last| last >= all) {
                return Err(Error::corrupt(format!(
                    "table {}, data file '{}': a deletion vector names row {}, the file has {all} rows",
                    self.name,
                    added.path,
                    rows.max().unwrap_or_default()
                )));
            }
            let mut hidden = RoaringTreemap::new();
            hidden.insert_range(0..all);
            hidden -= rows;
            let vector = match hidden.is_empty() {
                true => None,
                false => Some(DeletionVector::inline(&hidden)?),
            };
            let add = Add {
                deletion_vector: vector,
                ..added.clone()
            };
            self.push(add, kind, told);
        }
        Ok(())
    }

    /// A file that left, as it was.
    fn removed(&self, removed: &Remove, before: Option<&Snapshot>) -> Result<Add> {
        if let (Some(size), Some(partition_values)) = (removed.size, &removed.partition_values) {
            return Ok(Add {
                path: removed.path.clone(),
                partition_values: partition_values.clone(),
                size,
                modification_time: 0,
                data_change: true,
                stats: None,
                tags: None,
                deletion_vector: removed.deletion_vector.clone(),
                base_row_id: None,
                default_row_commit_version: None,
                clustering_provider: None,
            });
        }
        let known = before.and_then(|before| before.files.get(&removed.path));
        known.map(|file| file.add.clone()).ok_or_else(|| {
            Error::corrupt(format!(
                "table {}: its log removes the data file '{}', which it does not have",
                self.name, removed.path
            ))
        })
    }

    fn push(&mut self, mut file: Add, kind: &str, told: &Told) {
        let values = &mut file.partition_values;
        values.insert(TYPE.to_owned(), Some(kind.to_owned()));
        values.insert(VERSION.to_owned(), Some(told.version.clone()));
        values.insert(TIMESTAMP.to_owned(), told.time.clone());
        self.files.push(DataFile::new(file));
    }

    /// Refuses rows that the columns of the last version cannot hold.
    fn check_columns(&self, then: &Snapshot) -> Result<()> {
        let last = self.last;
        if then.metadata.schema_string == last.metadata.schema_string
            && then.partition_columns() == last.partition_columns()
        {
            return Ok(());
        }
        let lost = |field: &&Arc<Field>| match last.schema.field_with_name(field.name()) {
            Ok(now) => !holds(now.data_type(), field.data_type()),
            Err(_) => true,
        };
        let why = match then.schema.fields().iter().find(lost) {
            Some(field) if last.schema.index_of(field.name()).is_ok() => {
                format!("had a column {} of another type", field.name())
            }
            Some(field) => format!("had a column {}", field.name()),
            None if then.partition_columns() != last.partition_columns() => {
                "was partitioned otherwise".to_owned()
            }
            None => return Ok(()),
        };
        Err(Error::invalid(format!(
            "table_changes: at version {} table {} {why}, unlike at version {}",
            then.version, self.name, last.version
        ))
        .with_hint("ask for the versions before and after that change apart"))
    }

    fn finish(self) -> Snapshot {
        let mut metadata = (*self.last.metadata).clone();
        let told = [TYPE, VERSION, TIMESTAMP].map(str::to_owned);
        metadata.partition_columns.extend(told);
        // Keys only keep the order of the commits: one file may be there several times.
        let files = self.files.into_iter().enumerate();
        let files = files.map(|(at, file)| (format!("{at:020}"), Arc::new(file)));
        Snapshot {
            schema: self.schema,
            metadata: Arc::new(metadata),
            files: files.collect(),
            ..self.last.clone()
        }
    }
}

async fn deleted(
    root: &TableRoot,
    file: &str,
    vector: Option<&DeletionVector>,
) -> Result<RoaringTreemap> {
    match vector {
        Some(vector) => vector.load(root, file).await,
        None => Ok(RoaringTreemap::new()),
    }
}

impl Told {
    fn of(commit: &Commit) -> Result<Self> {
        let operation = commit.info().and_then(|info| info.operation.as_deref());
        // An update alone says that each row it takes comes back changed. What a merge takes may be gone.
        let (gone, come) = match operation {
            Some(name) if name.eq_ignore_ascii_case("UPDATE") => {
                ("update_preimage", "update_postimage")
            }
            _ => ("delete", "insert"),
        };
        let micros = commit.time_ms().saturating_mul(1000);
        let time = ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
        Ok(Self {
            gone,
            come,
            version: commit.version.to_string(),
            time: partition::encode(&time)?,
        })
    }
}

/// What a commit says of each file, in the order in which it names them.
fn touched(commit: &Commit) -> Vec<Touched<'_>> {
    let mut files: Vec<Touched<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for action in &commit.actions {
        let path = match action {
            Action::Add(add) => &add.path,
            Action::Remove(remove) => &remove.path,
            _ => continue,
        };
        let at = *places.entry(path).or_insert_with(|| {
            files.push(Touched::default());
            files.len() - 1
        });
        match action {
            Action::Add(add) => files[at].added = Some(add),
            Action::Remove(remove) => files[at].removed = Some(remove),
            _ => {}
        }
    }
    files
}

/// Whether every value of `old` is one of `new`, so that a file with the old type is read as the new one.
fn holds(new: &DataType, old: &DataType) -> bool {
    use DataType as D;
    let all = |news: &Fields, olds: &Fields| {
        olds.iter().all(|old| {
            let new = news.iter().find(|new| new.name() == old.name());
            new.is_some_and(|new| holds(new.data_type(), old.data_type()))
        })
    };
    match (new, old) {
        (D::Struct(news), D::Struct(olds)) => all(news, olds),
        (D::List(new), D::List(old)) => holds(new.data_type(), old.data_type()),
        (D::Map(new, _), D::Map(old, _)) => holds(new.data_type(), old.data_type()),
        (D::Decimal128(p, s), D::Decimal128(old_p, old_s)) => {
            s >= old_s && i16::from(*p) - i16::from(*s) >= i16::from(*old_p) - i16::from(*old_s)
        }
        (D::Int16, D::Int8)
        | (D::Int32, D::Int8 | D::Int16)
        | (D::Int64, D::Int8 | D::Int16 | D::Int32)
        | (D::Float64, D::Float32) => true,
        (new, old) => new == old,
    }
}
