//! Rows that are changed: the stage before all others takes note of where old rows are, and lets the new ones on.
//!
//! ```text
//! (columns.., file, row, change [, keys..])  ->  Received (columns..)
//! ```
//!
//! The old rows become deletion vectors in the same commit that shows the new ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{
    DataType, Field, FieldRef, Int8Type, Int64Type, Schema, SchemaRef, UInt32Type,
};
use arrow::util::display::array_value_to_string;
use datafusion::error::DataFusionError;
use parking_lot::Mutex;
use roaring::RoaringTreemap;

use super::conflict::TakenRows;
use super::stage::{Part, Slot, Stage, Step, Work};
use crate::error::{Error, Result};
use crate::table::located::{self, Located};

/// Column that says what is to become of a row: one of the codes of [`Kind`].
pub(crate) const CHANGE: &str = "__selvedge_change";

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is new.
    Insert = 1,
    /// It takes the place of an old one.
    Update = 2,
    /// The old one goes.
    Delete = 3,
}

/// The terms of a statement that changes rows.
#[derive(Debug)]
pub(crate) struct Change {
    /// `DELETE`, `UPDATE`, `MERGE`, ..
    pub statement: &'static str,
    pub located: Arc<Located>,
    /// Whether one old row may be named several times, as when each means its deletion.
    pub repeats: bool,
    /// Whether the statement also looked at this table by another way than its located scan.
    pub reads_itself: bool,
    /// Whether it acts on rows it did not find.
    pub absence: bool,
}

/// What a statement that changes rows has noted of the old ones.
#[derive(Debug, Clone)]
pub(super) struct ChangeAccount {
    pub change: Arc<Change>,
    pub noted: Arc<Slot<Changes>>,
}

/// What a run of the stage has noted.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// By the number of the file.
    rows: HashMap<u32, RoaringTreemap>,
    /// Of these, the rows that stay all the same.
    spared: HashMap<u32, RoaringTreemap>,
    /// Rows that went on.
    passed: u64,
    inserted: u64,
    updated: u64,
    deleted: u64,
    repeated: Option<String>,
    repeats: u64,
}

/// The account of a finished run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changed {
    pub rows: BTreeMap<String, TakenRows>,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl Changes {
    /// Takes back what was noted of rows whose new ones did not make it: they stay as they are. Those without a
    /// place were new.
    pub(super) fn spare(&self, rows: impl Iterator<Item = Option<(u32, i64)>>) -> Result<()> {
        let mut noted = self.0.lock();
        for row in rows {
            let Some((file, row)) = row else {
                noted.inserted -= 1;
                continue;
            };
            let row = u64::try_from(row)
                .map_err(|_| Error::internal("a row lies before its file begins"))?;
            if noted.spared.entry(file).or_default().insert(row) {
                noted.updated -= 1;
            }
        }
        Ok(())
    }

    /// Takes note that new rows were erased: the old ones in their places go all the same.
    pub(super) fn erase(&self, rows: impl Iterator<Item = Option<(u32, i64)>>) {
        let mut noted = self.0.lock();
        for row in rows {
            match row {
                None => noted.inserted = noted.inserted.saturating_sub(1),
                Some(_) => {
                    noted.updated = noted.updated.saturating_sub(1);
                    noted.deleted += 1;
                }
            }
        }
    }

    /// What is to be taken out, by the path of its file, and how many rows went on.
    pub(super) fn verdict(&self, table: &str, change: &Change) -> Result<(Changed, u64)> {
        let noted = self.0.lock();
        if let Some(which) = &noted.repeated {
            let which = match which.as_str() {
                "" => String::new(),
                keys => format!(", first the row with {keys}"),
            };
            return Err(Error::rejected(format!(
                "{} of table {table}: several rows of the source change one row of the table, {} times in all{which}",
                change.statement, noted.repeats
            ))
            .with_hint("make the source name each row once, with DISTINCT, GROUP BY or a narrower condition"));
        }
        let files = change.located.files();
        let mut rows: BTreeMap<String, TakenRows> = BTreeMap::new();
        for (number, taken) in &noted.rows {
            let taken = match noted.spared.get(number) {
                Some(spared) => &(taken - spared),
                None => taken,
            };
            if taken.is_empty() {
                continue;
            }
            let file = files.get(*number as usize).ok_or_else(|| {
                Error::internal(format!(
                    "a changed row lies in file {number}, which was not read"
                ))
            })?;
            match rows.get_mut(&file.add.path) {
                Some(known) => known.rows |= taken,
                None => {
                    rows.insert(
                        file.add.path.clone(),
                        TakenRows {
                            file: Arc::clone(file),
                            rows: taken.clone(),
                        },
                    );
                }
            }
        }
        let changed = Changed {
            rows,
            inserted: noted.inserted,
            updated: noted.updated,
            deleted: noted.deleted,
        };
        Ok((changed, noted.passed))
    }

    /// Notes rows that only go, run by run: many of them lie side by side.
    fn note_deletes(&self, batch: &Places) -> Result<()> {
        let (files, rows) = (batch.file.values(), batch.row.values());
        let mut noted = self.0.lock();
        let mut at = 0;
        while at < rows.len() {
            let mut end = at + 1;
            while end < rows.len() && files[end] == files[at] && rows[end] == rows[end - 1] + 1 {
                end += 1;
            }
            let first = u64::try_from(rows[at])
                .map_err(|_| Error::internal("a row lies before its file begins"))?;
            let run = first..first + (end - at) as u64;
            let fresh = noted.rows.entry(files[at]).or_default().insert_range(run);
            noted.deleted += fresh;
            at = end;
        }
        Ok(())
    }

    /// Notes the old rows of a batch and returns which rows go on.
    fn note(&self, change: &Change, batch: &Places) -> Result<BooleanArray> {
        if change.repeats && batch.only_deletes() {
            self.note_deletes(batch)?;
            return Ok(BooleanArray::from(vec![false; batch.change.len()]));
        }
        let mut noted = self.0.lock();
        let mut on = Vec::with_capacity(batch.change.len());
        for (index, code) in batch.change.values().iter().enumerate() {
            let (goes_on, goes) = match code {
                1 => {
                    noted.inserted += 1;
                    (true, false)
                }
                2 => (true, true),
                3 => (false, true),
                other => {
                    return Err(Error::internal(format!(
                        "a row has the change code {other}"
                    )));
                }
            };
            on.push(goes_on);
            noted.passed += u64::from(goes_on);
            if !goes {
                continue;
            }
            if batch.file.is_null(index) || batch.row.is_null(index) {
                return Err(Error::internal("a row to be changed has no place"));
            }
            let position = u64::try_from(batch.row.value(index))
                .map_err(|_| Error::internal("a row lies before its file begins"))?;
            let fresh = noted
                .rows
                .entry(batch.file.value(index))
                .or_default()
                .insert(position);
            match (fresh, goes_on) {
                (true, true) => noted.updated += 1,
                (true, false) => noted.deleted += 1,
                (false, _) if change.repeats => {}
                (false, _) => {
                    noted.repeats += 1;
                    if noted.repeated.is_none() {
                        noted.repeated = Some(batch.keys(index)?);
                    }
                }
            }
        }
        Ok(on.into())
    }
}

/// The columns of a batch that say what and where.
struct Places {
    change: arrow::array::PrimitiveArray<Int8Type>,
    file: arrow::array::PrimitiveArray<UInt32Type>,
    row: arrow::array::PrimitiveArray<Int64Type>,
    keys: Vec<(String, ArrayRef)>,
}

impl Places {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let column = |name: &str, data_type: &DataType| -> Result<ArrayRef> {
            let column = batch
                .column_by_name(name)
                .ok_or_else(|| Error::internal(format!("a change has no column {name}")))?;
            Ok(cast(column, data_type).map_err(DataFusionError::from)?)
        };
        let mut keys = Vec::new();
        let schema = batch.schema();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            if let Some(name) = field.name().strip_prefix(KEY) {
                keys.push((name.to_owned(), Arc::clone(array)));
            }
        }
        Ok(Self {
            change: column(CHANGE, &DataType::Int8)?.as_primitive().clone(),
            file: column(located::FILE, &DataType::UInt32)?
                .as_primitive()
                .clone(),
            row: column(located::ROW, &DataType::Int64)?
                .as_primitive()
                .clone(),
            keys,
        })
    }

    fn only_deletes(&self) -> bool {
        let delete = Kind::Delete as i8;
        self.file.null_count() == 0
            && self.row.null_count() == 0
            && self.change.values().iter().all(|code| *code == delete)
    }

    /// The values by which a person knows the row.
    fn keys(&self, index: usize) -> Result<String> {
        let shown = self.keys.iter().map(|(name, values)| {
            let value = array_value_to_string(values, index).map_err(DataFusionError::from)?;
            Ok(format!("{name} = {value}"))
        });
        Ok(shown.collect::<Result<Vec<_>>>()?.join(", "))
    }
}

/// Begins the names of columns that only messages need.
pub(crate) const KEY: &str = "__selvedge_key_";

/// The stage: notes old rows, passes new ones.
#[derive(Debug)]
pub(super) struct Changing {
    account: ChangeAccount,
    /// Of the rows that go on.
    schema: SchemaRef,
    /// How many of these columns are the table's; the others are places.
    width: usize,
}

impl Changing {
    /// `columns` are those of the table: a statement that only deletes gives none of them.
    pub(super) fn new(
        account: ChangeAccount,
        columns: &SchemaRef,
        given: &SchemaRef,
        places: bool,
    ) -> Self {
        let first = |schema: &SchemaRef| schema.fields().first().map(|field| field.name().clone());
        let fields = match first(columns) == first(given) {
            true => &given.fields()[..columns.fields().len()],
            false => columns.fields(),
        };
        let places = places.then(|| {
            [
                Field::new(located::FILE, DataType::UInt32, true),
                Field::new(located::ROW, DataType::Int64, true),
            ]
        });
        let places = places.into_iter().flatten().map(Arc::new);
        let all: Vec<FieldRef> = fields.iter().cloned().chain(places).collect();
        Self {
            account,
            width: fields.len(),
            schema: Arc::new(Schema::new(all)),
        }
    }
}

impl Stage for Changing {
    const NAME: &'static str = "ChangeExec";
    type Work = Noting;

    fn describe(&self) -> String {
        self.account.change.statement.to_owned()
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin(&self, _: Part) -> Result<Noting> {
        Ok(Noting {
            change: Arc::clone(&self.account.change),
            noted: self.account.noted.current()?,
            schema: Arc::clone(&self.schema),
            width: self.width,
        })
    }
}

/// The work of one partition.
pub(super) struct Noting {
    change: Arc<Change>,
    noted: Arc<Changes>,
    schema: SchemaRef,
    width: usize,
}

impl Work for Noting {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let places = Places::of(&batch)?;
        let on = self.noted.note(&self.change, &places)?;
        if on.true_count() == 0 {
            return Ok(Step::default());
        }
        let mut columns = batch.columns()[..self.width].to_vec();
        if self.schema.fields().len() > self.width {
            columns.push(Arc::new(places.file));
            columns.push(Arc::new(places.row));
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .and_then(|rows| filter_record_batch(&rows, &on))
            .map_err(DataFusionError::from)?;
        Ok(Step {
            on: Some(rows),
            aside: None,
        })
    }

    fn end(self) -> Result<()> {
        Ok(())
    }
}
