//! What becomes of the rows of a batch: pure, so that rows on their way in and rows that are there are cleansed alike.
//!
//! Every policy is asked of the rows as they came. Where several are about one cell the strictest has its way:
//! DELETE ROWS before NULLIFY before SET, and of two that SET it the one whose name comes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, Scalar, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{filter, filter_record_batch, nullif};
use arrow::datatypes::{FieldRef, Schema};
use datafusion::execution::TaskContext;

use super::compile::{Action, Compiled, CompiledPolicy};
use super::keys::Keys;
use super::mask::Masks;
use super::policy::{Columns, PolicyAction};
use super::record::PolicyResult;
use crate::error::{Error, Result};

/// The policies of a table with the keys of the moment.
#[derive(Debug)]
pub(crate) struct Running {
    compiled: Arc<Compiled>,
    /// For each policy that is about keys, these.
    keys: Vec<Option<Keys>>,
}

/// Rows after the policies.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The rows that are left.
    pub batch: RecordBatch,
    /// Rows of the given batch that are not; None: all of them are left.
    pub erased: Option<BooleanBuffer>,
    /// For each of the columns that policies touch, the rows of `batch` whose cell a policy is about; None: no row.
    pub cleansed: Vec<Option<BooleanBuffer>>,
    pub counts: Counts,
}

impl Applied {
    /// Whether the rows are as they were given, each cell the same.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.erased.is_none() && self.counts.cells_changed() == 0
    }

    /// Those of the rows it was given that are left, as they were.
    pub(crate) fn left_of(&self, given: &RecordBatch) -> Result<RecordBatch> {
        match &self.erased {
            Some(erased) => {
                let kept = BooleanArray::new(!erased, None);
                filter_record_batch(given, &kept).map_err(unexpected)
            }
            None => Ok(given.clone()),
        }
    }
}

/// What the policies did, one entry each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    policies: Vec<PolicyCounts>,
    /// Rows or cells that one policy is about and a stricter one had: by the places of both and the column, if it is
    /// not about whole rows.
    overruled: BTreeMap<(usize, usize, Option<usize>), u64>,
}

/// What one policy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PolicyCounts {
    pub rows_matched: u64,
    pub cells_changed: u64,
    pub rows_erased: u64,
}

impl Counts {
    /// Nothing yet.
    pub(crate) fn of(compiled: &Compiled) -> Self {
        Self {
            policies: vec![PolicyCounts::default(); compiled.policies().len()],
            overruled: BTreeMap::new(),
        }
    }

    /// Adds those of another batch.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.policies.len() < other.policies.len() {
            let all = other.policies.len();
            self.policies.resize(all, PolicyCounts::default());
        }
        for (own, other) in self.policies.iter_mut().zip(&other.policies) {
            own.rows_matched += other.rows_matched;
            own.cells_changed += other.cells_changed;
            own.rows_erased += other.rows_erased;
        }
        for (which, count) in &other.overruled {
            *self.overruled.entry(*which).or_default() += count;
        }
    }

    pub(crate) fn rows_erased(&self) -> u64 {
        self.policies.iter().map(|of| of.rows_erased).sum()
    }

    pub(crate) fn cells_changed(&self) -> u64 {
        self.policies.iter().map(|of| of.cells_changed).sum()
    }

    /// Of the policy at that place.
    pub(crate) fn policy(&self, at: usize) -> PolicyCounts {
        self.policies.get(at).copied().unwrap_or_default()
    }
}

impl Running {
    /// Reads the keys. They are held in memory as long as this lives.
    ///
    /// # Errors
    /// When they cannot be read, or are more than memory allows.
    pub(crate) async fn begin(
        compiled: &Arc<Compiled>,
        context: &Arc<TaskContext>,
    ) -> Result<Self> {
        let mut keys = Vec::with_capacity(compiled.policies().len());
        for policy in compiled.policies() {
            let listed = match policy.key() {
                Some(query) => Some(query.load(context).await?),
                None => None,
            };
            if listed.as_ref().is_some_and(|keys| keys.distinct() == 0) {
                let (table, policy) = (&compiled.table, &policy.policy().name);
                tracing::warn!(%table, %policy, "a cleanse policy lists no key");
            }
            keys.push(listed);
        }
        Ok(Self {
            compiled: Arc::clone(compiled),
            keys,
        })
    }

    pub(crate) fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// The keys of the policy at that place; None for one that is about every row.
    pub(crate) fn keys(&self, policy: usize) -> Option<&Keys> {
        self.keys.get(policy)?.as_ref()
    }

    /// What becomes of rows. The batch begins with all columns of the table in their order; what stands behind
    /// them stays with its row.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<Applied> {
        let policies = self.compiled.policies();
        let width = self.compiled.schema.fields().len();
        if batch.num_columns() < width {
            return Err(Error::internal(format!(
                "table {}: {} columns came to its cleanse policies, which are about {width}",
                self.compiled.table,
                batch.num_columns()
            )));
        }
        let mut counts = Counts::of(&self.compiled);
        let hits = self.hits(batch, &mut counts)?;
        let touched = self.compiled.touched().len();
        if hits.iter().all(Option::is_none) {
            return Ok(Applied {
                batch: batch.clone(),
                erased: None,
                cleansed: vec![None; touched],
                counts,
            });
        }
        let erased = erased(policies, &hits, &mut counts);
        let mut columns = batch.columns().to_vec();
        let mut cleansed = Vec::with_capacity(touched);
        for at in self.compiled.touched() {
            let given = &columns[*at];
            let erased = erased.as_ref();
            let (column, of) = cells(policies, &hits, erased, *at, given, &mut counts)?;
            columns[*at] = column;
            cleansed.push(of);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut rows = RecordBatch::try_new_with_options(batch.schema(), columns, &options)
            .map_err(unexpected)?;
        if let Some(erased) = &erased {
            let kept = BooleanArray::new(!erased, None);
            rows = filter_record_batch(&rows, &kept).map_err(unexpected)?;
            for of in cleansed.iter_mut().flatten() {
                let left = filter(&BooleanArray::new(of.clone(), None), &kept);
                let left = left.map_err(unexpected)?;
                *of = left.as_boolean().values().clone();
            }
        }
        Ok(Applied {
            batch: rows,
            erased,
            cleansed,
            counts,
        })
    }

    /// Rows as they are, with the masks of the cells that policies are about behind them: for those who judge rows
    /// that were cleansed before.
    pub(crate) fn marked(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let policies = self.compiled.policies();
        let hits = self.hits(batch, &mut Counts::of(&self.compiled))?;
        let of_column = |at: &usize| {
            let both = policies.iter().zip(&hits);
            let about = both.filter(|(policy, _)| policy.columns().contains(at));
            about.fold(None, |all, (_, hit)| match (all, hit) {
                (Some(all), Some(hit)) => Some(&all | hit),
                (None, Some(hit)) => Some(hit.clone()),
                (all, None) => all,
            })
        };
        let touched = self.compiled.touched();
        let cleansed: Vec<Option<BooleanBuffer>> = touched.iter().map(of_column).collect();
        let masks = Masks::new(touched, batch.num_columns());
        let fields = batch.schema_ref().fields().iter().cloned();
        let fields = fields.chain(
            masks
                .fields(&self.compiled.schema)
                .into_iter()
                .map(Arc::new),
        );
        let schema = Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()));
        let masks = Masks::columns(&cleansed, batch.num_rows());
        let columns = batch.columns().iter().cloned().chain(masks).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(schema, columns, &options).map_err(unexpected)
    }

    /// The rows that each policy is about; None: no row.
    fn hits(&self, batch: &RecordBatch, counts: &mut Counts) -> Result<Vec<Option<BooleanBuffer>>> {
        let rows = batch.num_rows();
        let mut hits = Vec::with_capacity(self.keys.len());
        let both = self.compiled.policies().iter().zip(&self.keys);
        for ((policy, keys), counts) in both.zip(&mut counts.policies) {
            let listed = match (policy.key(), keys) {
                (Some(query), Some(keys)) => {
                    let columns = query.columns().iter();
                    let columns: Vec<ArrayRef> =
                        columns.map(|at| Arc::clone(batch.column(*at))).collect();
                    keys.ask(&columns)?
                }
                (None, _) => BooleanBuffer::new_set(rows),
                (Some(_), None) => {
                    return Err(Error::internal(format!(
                        "cleanse policy {} of table {} runs without its keys",
                        policy.policy().name,
                        self.compiled.table
                    )));
                }
            };
            let matched = listed.count_set_bits();
            counts.rows_matched = matched as u64;
            hits.push((matched > 0).then_some(listed));
        }
        Ok(hits)
    }

    /// What each policy did, and what people should know of it.
    pub(crate) fn results(&self, counts: &Counts) -> Vec<PolicyResult> {
        let policies = self.compiled.policies();
        let result = |(at, policy): (usize, &CompiledPolicy)| {
            let own = counts.policy(at);
            let mut notes = Vec::new();
            if let Some(keys) = self.keys(at) {
                said_of_keys(keys, &mut notes);
            }
            if let PolicyAction::Nullify {
                columns: Columns::Tagged(tag),
            } = &policy.policy().action
                && policy.columns().is_empty()
            {
                notes.push(format!("no column carries the tag {tag}"));
            }
            let overruled = counts.overruled.iter();
            for ((_, by, column), count) in overruled.filter(|((which, ..), _)| *which == at) {
                notes.extend(self.overruled(*by, *column, *count));
            }
            PolicyResult {
                policy: policy.policy().name.clone(),
                keys: self.keys(at).map_or(0, Keys::distinct),
                rows_matched: own.rows_matched,
                cells_changed: own.cells_changed,
                rows_erased: own.rows_erased,
                notes,
            }
        };
        policies.iter().enumerate().map(result).collect()
    }

    fn overruled(&self, by: usize, column: Option<usize>, count: u64) -> Option<String> {
        let by = self.compiled.policies().get(by)?;
        let name = &by.policy().name;
        let Some(column) = column else {
            return Some(format!(
                "{}: policy {name} deletes them, which is stricter",
                counted(count, "row")
            ));
        };
        let column = self.compiled.schema.fields().get(column)?.name();
        let cells = format!("{} of column {column}", counted(count, "cell"));
        Some(match by.action() {
            Action::Set(_) => {
                format!("{cells}: policy {name} sets them too, and its name comes first")
            }
            Action::Delete | Action::Nullify => {
                format!("{cells}: policy {name} nullifies them, which is stricter")
            }
        })
    }
}

fn said_of_keys(keys: &Keys, notes: &mut Vec<String>) {
    if keys.distinct() == 0 {
        notes.push("warning: it lists no key, so it matches nothing".to_owned());
    }
    if keys.nulls() > 0 {
        let nulls = counted(keys.nulls(), "key");
        notes.push(format!("{nulls} with NULL, which match nothing"));
    }
    if keys.unfit() > 0 {
        let unfit = counted(keys.unfit(), "key");
        notes.push(format!("{unfit} that no value of the key's type equals"));
    }
    if keys.duplicates() > 0 {
        let duplicates = counted(keys.duplicates(), "key");
        notes.push(format!("{duplicates} listed more than once"));
    }
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    }
}

/// Rows that policies delete, each counted for the first of these.
fn erased(
    policies: &[CompiledPolicy],
    hits: &[Option<BooleanBuffer>],
    counts: &mut Counts,
) -> Option<BooleanBuffer> {
    let mut all: Option<BooleanBuffer> = None;
    for (at, (policy, hit)) in policies.iter().zip(hits).enumerate() {
        let (Action::Delete, Some(hit)) = (policy.action(), hit) else {
            continue;
        };
        let fresh = match &all {
            Some(before) => hit & &!before,
            None => hit.clone(),
        };
        if let Some(counts) = counts.policies.get_mut(at) {
            counts.rows_erased = fresh.count_set_bits() as u64;
        }
        for (loser, (other, theirs)) in policies.iter().zip(hits).enumerate() {
            if let (Action::Nullify | Action::Set(_), Some(theirs)) = (other.action(), theirs) {
                counts.overrule(loser, at, None, &(theirs & &fresh));
            }
        }
        all = Some(match all {
            Some(before) => &before | hit,
            None => hit.clone(),
        });
    }
    all
}

impl Counts {
    fn overrule(&mut self, which: usize, by: usize, column: Option<usize>, rows: &BooleanBuffer) {
        let rows = rows.count_set_bits() as u64;
        if rows > 0 {
            *self.overruled.entry((which, by, column)).or_default() += rows;
        }
    }
}

/// The cells of one column after the policies, and which of them some policy is about.
fn cells(
    policies: &[CompiledPolicy],
    hits: &[Option<BooleanBuffer>],
    erased: Option<&BooleanBuffer>,
    at: usize,
    given: &ArrayRef,
    counts: &mut Counts,
) -> Result<(ArrayRef, Option<BooleanBuffer>)> {
    let mut column = Arc::clone(given);
    // Who has which of the cells already, the strictest first.
    let mut decided: Vec<(usize, &CompiledPolicy, BooleanBuffer)> = Vec::new();
    let mut cleansed: Option<BooleanBuffer> = None;
    for strict in [true, false] {
        for (which, (policy, hit)) in policies.iter().zip(hits).enumerate() {
            let Some(place) = policy.columns().iter().position(|column| *column == at) else {
                continue;
            };
            let (Some(hit), true) = (hit, strict == matches!(policy.action(), Action::Nullify))
            else {
                continue;
            };
            let mut own = match erased {
                Some(erased) => hit & &!erased,
                None => hit.clone(),
            };
            for (by, other, theirs) in &decided {
                let lost = &own & theirs;
                if lost.count_set_bits() == 0 {
                    continue;
                }
                if disagree(policy, other, at) {
                    counts.overrule(which, *by, Some(at), &lost);
                }
                own = &own & &!theirs;
            }
            if own.count_set_bits() == 0 {
                continue;
            }
            let (after, changed) = changed(policy.action(), place, &column, &own)?;
            column = after;
            if let Some(counts) = counts.policies.get_mut(which) {
                counts.cells_changed += changed;
            }
            cleansed = Some(match cleansed {
                Some(before) => &before | &own,
                None => own.clone(),
            });
            decided.push((which, policy, own));
        }
    }
    Ok((column, cleansed))
}

/// Whether two policies want another content for cells of the column at this place of the table.
fn disagree(one: &CompiledPolicy, other: &CompiledPolicy, at: usize) -> bool {
    let value = |of: &CompiledPolicy| {
        let place = of.columns().iter().position(|column| *column == at)?;
        match of.action() {
            Action::Set(literals) => literals.get(place).cloned(),
            Action::Delete | Action::Nullify => None,
        }
    };
    match (value(one), value(other)) {
        (None, None) => false,
        (Some(one), Some(other)) => one.to_data() != other.to_data(),
        (Some(value), None) | (None, Some(value)) => value.is_valid(0),
    }
}

/// A column of which the cells of `rows` are cleansed, and how many of them have another content now.
fn changed(
    action: &Action,
    place: usize,
    column: &ArrayRef,
    rows: &BooleanBuffer,
) -> Result<(ArrayRef, u64)> {
    let literal = match action {
        Action::Set(literals) => literals
            .get(place)
            .filter(|literal| literal.is_valid(0))
            .map(|literal| Scalar::new(Arc::clone(literal))),
        Action::Delete | Action::Nullify => None,
    };
    let mask = BooleanArray::new(rows.clone(), None);
    let Some(literal) = literal else {
        let had = match column.logical_nulls() {
            Some(nulls) => (rows & nulls.inner()).count_set_bits(),
            None => rows.count_set_bits(),
        };
        let after = match had {
            0 => Arc::clone(column),
            _ if rows.count_set_bits() == rows.len() => {
                new_null_array(column.data_type(), rows.len())
            }
            _ => nullif(column, &mask).map_err(unexpected)?,
        };
        return Ok((after, had as u64));
    };
    let other = distinct(column, &literal).map_err(unexpected)?;
    let other = (rows & other.values()).count_set_bits();
    let after = match other {
        0 => Arc::clone(column),
        _ => zip(&mask, &literal, column).map_err(unexpected)?,
    };
    Ok((after, other as u64))
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("a cleanse policy: {error}")).with_source(error)
}
