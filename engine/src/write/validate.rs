//! The first stage: rows become rows of the table, or are counted as refused.
//!
//! NOT NULL is asked, every value takes the exact type of its column ([`super::cast`]), then CHECK is
//! asked, in this order, and a row is counted at the first that refuses it. The stage never fails on a row: it
//! goes on counting, lets nothing further through, and the sink asks [`Violations`] for the verdict
//! before it commits. So the error is exact over all partitions, and nothing of the write is visible.
//!
//! Where the table says so, such rows go to its quarantine instead, as they came, and the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use parking_lot::Mutex;

use super::cast::{Cast, CastFailure, lossless};
use super::change::{ChangeAccount, Changes};
use super::cleanse::{CleanseAccount, CleanseRun};
use super::invalid::{Invalid, Refusal};
use super::journal::riders::{RIDERS, deletes, is_delete};
use super::quality::spare;
use super::stage::{Part, Slot, Stage, Step, Work};
use crate::error::{Error, Result};
use crate::quality::check::CompiledCheck;
use crate::quality::failure::quarantine_schema;
use crate::quality::record::RuleResult;

/// What every row of a table must satisfy.
#[derive(Debug, Clone)]
pub(crate) struct TableRules {
    /// Table as `schema.name`.
    pub table: String,
    /// Columns with their exact types; those that are not nullable are NOT NULL.
    pub schema: SchemaRef,
    /// Of a journal, what it needs of rows; None for a plain table.
    pub journal: Option<Needed>,
    pub checks: Vec<CompiledCheck>,
    /// Whether the last check is a condition of the statement, which holds for all of its rows or fails it.
    pub condition: bool,
    /// Whether rows that do not satisfy them go to quarantine, and the others on.
    pub quarantines_invalid: bool,
}

/// Columns in which rows for a journal must have a value.
#[derive(Debug, Clone)]
pub(crate) struct Needed {
    /// Each row: the keys, and when it is true from.
    pub always: Vec<usize>,
    /// Of these, the one that says when.
    pub sequence: Option<usize>,
    /// Rows that do not only end a key: the other columns that are NOT NULL.
    pub unless_deleted: Vec<usize>,
    /// Whether a row tells itself that it only ends its key, so that it does so again when it comes back.
    pub ends_told: bool,
}

impl TableRules {
    /// How many columns come beside those of the table on the whole way.
    pub(super) fn beside(&self) -> usize {
        self.journal.as_ref().map_or(0, |_| RIDERS)
    }

    /// Columns in which only rows that say what is true must have a value.
    fn not_null_unless_deleted(&self) -> impl Iterator<Item = (usize, &str)> {
        let needed = self
            .journal
            .iter()
            .flat_map(|needed| &needed.unless_deleted);
        needed.map(|at| (*at, self.schema.field(*at).name().as_str()))
    }

    /// Columns that lack a value that they must have, and in which rows.
    pub(super) fn missing(&self, batch: &RecordBatch) -> Vec<(usize, Vec<usize>)> {
        let ends = deletes(batch);
        let lacking = |at: usize, excused: bool| {
            let nulls = batch.column(at).logical_nulls()?;
            let rows = (0..nulls.len()).filter(|row| nulls.is_null(*row));
            let rows: Vec<usize> = rows
                .filter(|row| !(excused && is_delete(ends, *row)))
                .collect();
            (!rows.is_empty()).then_some((at, rows))
        };
        let all = self.not_null().filter_map(|(at, _)| lacking(at, false));
        let some = self.not_null_unless_deleted();
        all.chain(some.filter_map(|(at, _)| lacking(at, true)))
            .collect()
    }

    /// Columns that must have a value in rows that only end keys, or in the others.
    pub(super) fn demanded(&self, ends: bool) -> impl Iterator<Item = usize> {
        let some = self.not_null_unless_deleted().filter(move |_| !ends);
        self.not_null().chain(some).map(|(at, _)| at)
    }

    /// Rows that break a check. Those that only end a key are not asked.
    pub(super) fn breaking(
        &self,
        check: &CompiledCheck,
        batch: &RecordBatch,
    ) -> Result<Vec<usize>> {
        let mut rows = check.broken_by(&self.table, batch)?;
        let ends = deletes(batch);
        rows.retain(|row| !is_delete(ends, *row));
        Ok(rows)
    }

    /// Whether a row that is refused there holds up the whole write.
    fn is_fatal(&self, place: Place) -> bool {
        !self.quarantines_invalid
            || matches!(place, Place::Check(at) if self.condition && at + 1 == self.checks.len())
    }

    /// What the column is to a journal that can do with no row without it.
    fn role(&self, column: usize) -> Option<&'static str> {
        let needed = self.journal.as_ref()?;
        match needed.sequence == Some(column) {
            true => Some("sequence"),
            false => needed.always.contains(&column).then_some("key"),
        }
    }

    fn not_null(&self) -> impl Iterator<Item = (usize, &str)> {
        let fields = self.schema.fields().iter().enumerate();
        fields
            .filter(|(at, field)| !field.is_nullable() || self.role(*at).is_some())
            .map(|(at, field)| (at, field.name().as_str()))
    }
}

/// Casts and checks rows whose columns stand in the table's order.
#[derive(Debug)]
pub(super) struct Validating {
    rules: Arc<TableRules>,
    casts: Arc<[Cast]>,
    /// Columns of the table, and those that come along.
    schema: SchemaRef,
    violations: Arc<Slot<Violations>>,
    changes: Option<ChangeAccount>,
    cleansing: Option<CleanseAccount>,
}

impl Validating {
    /// Refuses at once what no row can satisfy: a wrong number of columns, types that never fit.
    pub(super) fn new(
        rules: Arc<TableRules>,
        given: &SchemaRef,
        violations: Arc<Slot<Violations>>,
        changes: Option<ChangeAccount>,
        cleansing: Option<CleanseAccount>,
    ) -> Result<Self> {
        let (table, columns) = (&rules.table, rules.schema.fields());
        let along: Vec<FieldRef> = match changes.is_some() || rules.journal.is_some() {
            true => given.fields().iter().skip(columns.len()).cloned().collect(),
            false => Vec::new(),
        };
        if given.fields().len() != columns.len() + along.len() {
            return Err(Error::invalid(format!(
                "table {table} has {} columns, but {} were given",
                columns.len(),
                given.fields().len()
            )));
        }
        let casts = given
            .fields()
            .iter()
            .zip(columns)
            .map(|(given, column)| {
                Cast::plan(given.data_type(), column.data_type()).map_err(|reason| {
                    let name = column.name();
                    let join = if reason.starts_with(['.', '[']) {
                        ""
                    } else {
                        ": "
                    };
                    Error::invalid(format!("table {table}, column {name}{join}{reason}"))
                })
            })
            .collect::<Result<_>>()?;
        let schema = match along.is_empty() {
            true => Arc::clone(&rules.schema),
            false => {
                let all: Vec<FieldRef> = columns.iter().cloned().chain(along).collect();
                Arc::new(Schema::new(all))
            }
        };
        Ok(Self {
            rules,
            casts,
            schema,
            violations,
            changes,
            cleansing,
        })
    }
}

impl Stage for Validating {
    const NAME: &'static str = "ValidateExec";
    type Work = Validation;

    fn describe(&self) -> String {
        let not_null = self.rules.not_null();
        let not_null = not_null.chain(self.rules.not_null_unless_deleted());
        let not_null: Vec<&str> = not_null.map(|(_, name)| name).collect();
        let checks: Vec<&str> = self.rules.checks.iter().map(|c| c.name.as_str()).collect();
        format!(
            "table={}, columns={}, not_null=[{}], checks=[{}]",
            self.rules.table,
            self.rules.schema.fields().len(),
            not_null.join(", "),
            checks.join(", ")
        )
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn over(self: &Arc<Self>, input: &SchemaRef) -> Result<Arc<Self>> {
        let (rules, violations) = (Arc::clone(&self.rules), Arc::clone(&self.violations));
        let (changes, cleansing) = (self.changes.clone(), self.cleansing.clone());
        Self::new(rules, input, violations, changes, cleansing).map(Arc::new)
    }

    fn expressions(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        let checks = self.rules.checks.iter();
        checks.map(CompiledCheck::predicate).collect()
    }

    fn begin(&self, part: Part) -> Result<Validation> {
        let violations = self.violations.current()?;
        violations.partitions.store(part.of, Relaxed);
        let changes = self.changes.as_ref();
        let sets_aside = self.rules.quarantines_invalid;
        let cleansing = self.cleansing.as_ref().filter(|_| sets_aside);
        Ok(Validation {
            rules: Arc::clone(&self.rules),
            casts: Arc::clone(&self.casts),
            schema: Arc::clone(&self.schema),
            aside: sets_aside.then(|| quarantine_schema(&self.rules.schema)),
            changes: changes.map(|changes| changes.noted.current()).transpose()?,
            cleansing: cleansing.map(|of| of.run.current()).transpose()?,
            violations,
            partition: part.number,
        })
    }
}

/// The work of one partition.
pub(super) struct Validation {
    rules: Arc<TableRules>,
    casts: Arc<[Cast]>,
    schema: SchemaRef,
    /// Columns of quarantine, where invalid rows go there.
    aside: Option<SchemaRef>,
    changes: Option<Arc<Changes>>,
    /// Rows in quarantine are kept too, so they are cleansed as all others.
    cleansing: Option<Arc<CleanseRun>>,
    violations: Arc<Violations>,
    partition: usize,
}

impl Work for Validation {
    /// The batch as rows of the table; nothing once any row of the write was refused.
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let rows = batch.num_rows();
        self.violations.received.fetch_add(rows as u64, Relaxed);
        let mut refused = Refused::none(rows, self.aside.is_some());
        let given = batch.clone();
        let batch = self.required(batch, &mut refused)?;
        let batch = self.cast(batch, &mut refused)?;
        let batch = self.checked(batch, &mut refused)?;
        let Some(schema) = &self.aside else {
            let passes = batch.num_rows() > 0 && !self.violations.any.load(Relaxed);
            return Ok(Step {
                on: passes.then_some(batch),
                aside: None,
            });
        };
        let aside = match refused.invalid.is_empty() {
            true => None,
            false => {
                if let Some(changes) = &self.changes {
                    spare(changes, &given, &self.rules.schema, &refused.out(rows))?;
                }
                let invalid = Invalid {
                    rules: &self.rules,
                    casts: &self.casts,
                    refusals: &refused.invalid,
                };
                let mut rows = invalid.set_aside(schema, &given)?;
                if let Some(cleansing) = &self.cleansing {
                    rows = cleansing.aside(&rows)?;
                }
                let count = rows.num_rows() as u64;
                self.violations.quarantined.fetch_add(count, Relaxed);
                (count > 0).then_some(rows)
            }
        };
        if self.violations.any.load(Relaxed) {
            return Ok(Step::default());
        }
        Ok(Step {
            on: (batch.num_rows() > 0).then_some(batch),
            aside,
        })
    }

    fn end(self) -> Result<()> {
        self.violations.drained.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl Validation {
    /// Rows with a value wherever one must be.
    fn required(&self, batch: RecordBatch, refused: &mut Refused) -> Result<RecordBatch> {
        refused.begin(batch.num_rows());
        // A cast makes no NULLs, so those of the source are those of the table.
        for (at, rows) in self.rules.missing(&batch) {
            let name = self.rules.schema.field(at).name();
            let what = || match self.rules.role(at) {
                Some(role) => format!("{role} {name} has no value"),
                None => format!("column {name} is NOT NULL and has no value"),
            };
            self.refuse(refused, Place::Null(at), &rows, what);
        }
        self.without(refused, batch)
    }

    /// Rows in the types of the table.
    fn cast(&self, batch: RecordBatch, refused: &mut Refused) -> Result<RecordBatch> {
        refused.begin(batch.num_rows());
        let mut columns = self.cast_columns(&batch, refused);
        let mut batch = batch;
        if refused.count > 0 {
            // The rest fits; it is cast again only to count the checks it breaks.
            batch = self.without(refused, batch)?;
            refused.begin(batch.num_rows());
            columns = self.cast_columns(&batch, refused);
        }
        let width = self.rules.schema.fields().len();
        columns.extend_from_slice(&batch.columns()[width..]);
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| self.broken(error))
    }

    fn cast_columns(&self, batch: &RecordBatch, refused: &mut Refused) -> Vec<ArrayRef> {
        let mut columns = Vec::with_capacity(batch.num_columns());
        for at in 0..self.rules.schema.fields().len() {
            match cast_column(&self.rules, &self.casts, batch, at) {
                Ok(column) => columns.push(column),
                Err(failure) => {
                    let what = || self.unfit(at, &failure);
                    self.refuse(refused, Place::Type(at), &failure.rows, what);
                }
            }
        }
        columns
    }

    /// Rows for which every CHECK is TRUE.
    fn checked(&self, batch: RecordBatch, refused: &mut Refused) -> Result<RecordBatch> {
        refused.begin(batch.num_rows());
        for (at, check) in self.rules.checks.iter().enumerate() {
            let rows = self.rules.breaking(check, &batch)?;
            if let Some(first) = rows.first() {
                let what = || check.describe(&batch, *first);
                self.refuse(refused, Place::Check(at), &rows, what);
            }
        }
        self.without(refused, batch)
    }

    /// Counts `rows` as refused; where they are quarantined, each with its reason.
    fn refuse(
        &self,
        refused: &mut Refused,
        place: Place,
        rows: &[usize],
        what: impl FnOnce() -> String,
    ) {
        refused.add(rows, place);
        if self.rules.is_fatal(place) {
            self.violations.any.store(true, Relaxed);
        }
        self.violations
            .note(place, rows.len() as u64, self.partition, what);
    }

    fn without(&self, refused: &mut Refused, batch: RecordBatch) -> Result<RecordBatch> {
        if refused.count == 0 {
            return Ok(batch);
        }
        let refused_rows = refused.count as u64;
        self.violations.refused.fetch_add(refused_rows, Relaxed);
        let kept = refused.taken_out();
        filter_record_batch(&batch, &kept).map_err(|error| self.broken(error))
    }

    fn unfit(&self, at: usize, failure: &CastFailure) -> String {
        let field = self.rules.schema.field(at);
        format!(
            "column {}{} {} cannot hold {}: {}",
            field.name(),
            failure.path,
            failure.to,
            failure.shown(field),
            failure.reason
        )
    }

    fn broken(&self, error: arrow::error::ArrowError) -> Error {
        Error::internal(format!("table {}: {error}", self.rules.table)).with_source(error)
    }
}

/// A column of the rows given, in the type of the table's.
pub(super) fn cast_column(
    rules: &TableRules,
    casts: &[Cast],
    batch: &RecordBatch,
    at: usize,
) -> std::result::Result<ArrayRef, CastFailure> {
    let column = batch.column(at);
    // A source may send another layout than it announced, and a plan was made for what it announced.
    match casts.get(at) {
        Some(cast) if column.data_type() == batch.schema_ref().field(at).data_type() => {
            cast.run(column)
        }
        _ => lossless(column, rules.schema.field(at).data_type()),
    }
}

/// Rows of one batch that do not go on.
struct Refused {
    /// Of the rows that are left.
    kept: Vec<bool>,
    count: usize,
    /// Where the rows that are left were in the batch as it came; only where somebody asks.
    places: Option<Vec<usize>>,
    /// All rows that were taken out, by their places, where somebody asks.
    invalid: Vec<Refusal>,
}

impl Refused {
    fn none(rows: usize, told: bool) -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
            places: told.then(|| (0..rows).collect()),
            invalid: Vec::new(),
        }
    }

    fn begin(&mut self, rows: usize) {
        self.kept = vec![true; rows];
        self.count = 0;
    }

    fn add(&mut self, rows: &[usize], place: Place) {
        for row in rows {
            self.count += usize::from(std::mem::take(&mut self.kept[*row]));
            if let Some(places) = &self.places {
                self.invalid.push(Refusal {
                    row: places[*row],
                    place,
                });
            }
        }
    }

    fn taken_out(&mut self) -> BooleanArray {
        if let Some(places) = &mut self.places {
            let mut kept = self.kept.iter();
            places.retain(|_| kept.next().copied().unwrap_or(true));
        }
        BooleanArray::from(std::mem::take(&mut self.kept))
    }

    /// Which of the rows that came are taken out.
    fn out(&self, rows: usize) -> BooleanArray {
        let mut out = vec![false; rows];
        for refusal in &self.invalid {
            out[refusal.row] = true;
        }
        BooleanArray::from(out)
    }
}

/// Why rows are refused, in the order in which an error tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// No value in this column.
    Null(usize),
    /// A value that does not fit this column.
    Type(usize),
    /// A row that breaks this constraint.
    Check(usize),
}

impl Place {
    /// What results and quarantine call it.
    pub(super) fn rule(self, rules: &TableRules) -> String {
        match self {
            Self::Null(at) => format!("not null({})", rules.schema.field(at).name()),
            Self::Type(at) => format!("cast({})", rules.schema.field(at).name()),
            Self::Check(at) => match rules.checks.get(at) {
                Some(check) => format!("check {}", check.name),
                None => "check".to_owned(),
            },
        }
    }
}

#[derive(Debug)]
struct Tally {
    rows: u64,
    /// Partition the example is from: the lowest, so that errors do not depend on timing.
    partition: usize,
    what: String,
}

/// What became of the rows of a write.
#[derive(Debug, Default)]
pub(super) struct Validated {
    pub received: u64,
    pub quarantined: u64,
    /// What sent rows to quarantine.
    pub results: Vec<RuleResult>,
}

/// What all partitions of one run have seen.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    received: AtomicU64,
    refused: AtomicU64,
    quarantined: AtomicU64,
    /// Whether some row holds up the write.
    any: AtomicBool,
    tallies: Mutex<BTreeMap<Place, Tally>>,
    partitions: AtomicUsize,
    drained: AtomicUsize,
}

impl Violations {
    fn note(&self, place: Place, rows: u64, partition: usize, what: impl FnOnce() -> String) {
        let mut tallies = self.tallies.lock();
        match tallies.get_mut(&place) {
            None => {
                let what = what();
                let tally = Tally {
                    rows,
                    partition,
                    what,
                };
                tallies.insert(place, tally);
            }
            Some(tally) => {
                tally.rows += rows;
                if partition < tally.partition {
                    (tally.partition, tally.what) = (partition, what());
                }
            }
        }
    }

    /// What became of the rows, if all of them were seen and none holds up the write.
    pub(super) fn verdict(&self, rules: &TableRules) -> Result<Validated> {
        let table = &rules.table;
        let (drained, partitions) = (self.drained.load(Relaxed), self.partitions.load(Relaxed));
        if drained == 0 || drained != partitions {
            return Err(Error::internal(format!(
                "table {table}: {drained} of {partitions} partitions were read to their end"
            )));
        }
        let received = self.received.load(Relaxed);
        let tallies = self.tallies.lock();
        if rules.quarantines_invalid && !self.any.load(Relaxed) {
            let results = tallies.iter();
            return Ok(Validated {
                received,
                quarantined: self.quarantined.load(Relaxed),
                results: results
                    .map(|(place, tally)| {
                        let name = place.rule(rules);
                        RuleResult::of_table(name, received, tally.rows, tally.what.clone())
                    })
                    .collect(),
            });
        }
        let mut told = tallies.values().map(|tally| {
            let rows = if tally.rows == 1 { "row" } else { "rows" };
            format!("{} ({} {rows})", tally.what, tally.rows)
        });
        let Some(first) = told.next() else {
            return Ok(Validated {
                received,
                ..Validated::default()
            });
        };
        let refused = self.refused.load(Relaxed);
        let error = Error::rejected(format!(
            "table {table} refuses {refused} of {received} rows: {first}"
        ));
        let rest: Vec<String> = told.collect();
        Err(if rest.is_empty() {
            error
        } else {
            error.with_detail(rest.join("; "))
        })
    }
}

#[cfg(test)]
mod tests;
