//! Values in texts: bounds of files and partition values in the log, samples and metrics in records.
//!
//! A value is looked for by its column: as the member of an object that has the column's name (`{"id": 42}`), or as
//! messages and samples write it (`id = 42`). Where all columns of a key are there, the key is asked for; where it is
//! listed, what stands beside it is what is left.
//!
//! Bounds and metrics stand beside no key. Where they are not sound, each that may be of a cell that was taken away is
//! told: of rows that were deleted, any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Field;
use datafusion::arrow::json::LineDelimitedWriter;
use serde_json::{Map, Value};

use super::sought::{Candidates, Column, REDACTED, Sought, plain, scalar};
use super::sound::Sound;
use super::{Tally, unreadable};
use crate::cleanse::apply::Running;
use crate::cleanse::cast::fit;
use crate::cleanse::policy::PolicyAction;
use crate::error::{Error, Result};
use crate::maintenance::cleanse::forget_by;
use crate::sql;
use crate::table::mapping;
use crate::table::snapshot::Snapshot;
use crate::write::commit::PartitionKey;

/// Members in which the names of columns stand for counts, or for what the table is.
const NO_VALUES: [&str; 6] = [
    "nullCount",
    "nanCount",
    "metaData",
    "schemaString",
    "configuration",
    "operationMetrics",
];

/// Members that are objects with a value for each column. Others only happen to have a member of its name.
const VALUES: [&str; 5] = [
    "minValues",
    "maxValues",
    "partitionValues",
    "partitionValues_parsed",
    "partition",
];

/// Those of them of which each value may be of another row.
const BOUNDS: [&str; 2] = ["minValues", "maxValues"];

/// Metrics whose value is one of a column's.
const OF_VALUES: [&str; 2] = ["min", "max"];

/// Members of what is said of a rule: metrics of the write with their values, and of those before it.
const OF_RULES: [&str; 2] = [OBSERVED, "threshold"];
const OBSERVED: &str = "observed";

/// What is looked for in texts.
pub(super) struct Texts<'a> {
    running: &'a Running,
    sought: Vec<Sought>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(base: &Snapshot, running: &'a Running, sound: Vec<Sound>) -> Self {
        let compiled = running.compiled();
        let policies = compiled.policies().iter().zip(sound).enumerate();
        let sought = policies.map(|(at, (policy, sound))| {
            let action = &policy.policy().action;
            let column = |at: &usize| {
                let field: &Field = base.schema.field(*at);
                let set = match action {
                    PolicyAction::Set { values } => values.get(field.name()),
                    _ => None,
                };
                Column {
                    name: field.name().clone(),
                    physical: mapping::physical_name(field).to_owned(),
                    data_type: field.data_type().clone(),
                    set: set.map(|literal| plain(literal)),
                }
            };
            let key = policy.key().map(|key| key.columns()).unwrap_or_default();
            Sought {
                policy: at,
                deletes: matches!(action, PolicyAction::DeleteRows),
                key: key.iter().map(column).collect(),
                touched: policy.columns().iter().map(column).collect(),
                forget: forget_by(compiled, policy),
                sound,
            }
        });
        Self {
            running,
            sought: sought.collect(),
        }
    }

    /// Bounds of a file that is gone: its rows cannot be asked whose values these are.
    pub(super) fn bounds(&self, version: Option<u64>, action: &Value, found: &mut Tally) {
        let sought = self.sought.iter();
        let sought: Vec<&Sought> = sought.filter(|of| !of.sound.rows(version)).collect();
        if sought.is_empty() {
            return;
        }
        let text = action.get("stats").and_then(Value::as_str);
        let parsed = text
            .filter(|text| !text.is_empty())
            .map(serde_json::from_str::<Value>);
        let stats = match &parsed {
            Some(Ok(stats)) => Some(stats),
            Some(Err(_)) => {
                unreadable(found);
                None
            }
            None => action.get("stats_parsed"),
        };
        let mut told = BTreeSet::new();
        for side in BOUNDS {
            let bounds = stats.and_then(|stats| stats.get(side));
            for (name, bound) in bounds.and_then(Value::as_object).into_iter().flatten() {
                if let Some(of) = sought.iter().find(|of| of.bounded(name, bound)) {
                    told.insert(of.called(name));
                }
            }
        }
        for column in told {
            let place = ("bounds of a file that is gone", column);
            *found.entry(place).or_default() += 1;
        }
    }

    /// Looks through a line about a version, or about none.
    pub(super) fn search(
        &self,
        what: &'static str,
        version: Option<u64>,
        line: &Value,
        found: &mut Tally,
    ) -> Result<()> {
        let mut candidates: Vec<Candidates> = Vec::new();
        candidates.resize_with(self.sought.len(), Candidates::default);
        self.value(line, version, &mut candidates, found);
        for (sought, candidates) in self.sought.iter().zip(candidates) {
            self.settle(what, sought, &candidates, found)?;
        }
        Ok(())
    }

    /// Looks through values of columns, as the folders of a path name them.
    pub(super) fn named(
        &self,
        what: &'static str,
        values: &PartitionKey,
        found: &mut Tally,
    ) -> Result<()> {
        let values = serde_json::json!({ "partitionValues": values });
        self.search(what, None, &values, found)
    }

    fn value(
        &self,
        value: &Value,
        version: Option<u64>,
        candidates: &mut [Candidates],
        found: &mut Tally,
    ) {
        match value {
            Value::Object(members) => {
                self.metric(members, version, candidates, found);
                for (name, value) in members {
                    let name = name.as_str();
                    if let (true, Value::Object(values)) = (VALUES.contains(&name), value) {
                        self.columns(values, !BOUNDS.contains(&name), candidates);
                    }
                    if let (true, Value::Array(texts)) = (OF_RULES.contains(&name), value) {
                        self.observed(name, texts, version, found);
                    }
                    if !NO_VALUES.contains(&name) {
                        self.value(value, version, candidates, found);
                    }
                }
            }
            Value::Array(values) => {
                for value in values {
                    self.value(value, version, candidates, found);
                }
            }
            Value::String(text) => {
                // Statistics, and rows as they came, are JSON within a text.
                let json = text.starts_with(['{', '[']);
                match json.then(|| serde_json::from_str::<Value>(text)) {
                    Some(Ok(value)) => self.value(&value, version, candidates, found),
                    _ => self.sample(text, candidates),
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// An object with a value for each column. Where they are not of one row, what stands beside a key is nobody's:
    /// the file itself is asked for that.
    fn columns(&self, values: &Map<String, Value>, of_one: bool, candidates: &mut [Candidates]) {
        let of = |column: &Column| {
            let value = values.get(&column.name);
            scalar(value.or_else(|| values.get(&column.physical))?)
        };
        for (sought, candidates) in self.sought.iter().zip(candidates) {
            if of_one || sought.deletes {
                candidates.add(sought, of);
            }
        }
    }

    fn metric(
        &self,
        members: &Map<String, Value>,
        version: Option<u64>,
        candidates: &mut [Candidates],
        found: &mut Tally,
    ) {
        let metric = members.get("metric").and_then(Value::as_str);
        let (Some(metric), Some(value)) = (metric, members.get("value").and_then(scalar)) else {
            return;
        };
        let mut sought = self.sought.iter();
        if sought.any(|of| !of.sound.written(version) && of.forget.told(metric)) {
            *found.entry(("metric", metric.to_owned())).or_default() += 1;
            return;
        }
        // The least or greatest value of a column is one of its values.
        let column = members.get("column").and_then(Value::as_str);
        let function = metric.split('(').next().unwrap_or_default();
        for (sought, candidates) in self.sought.iter().zip(candidates) {
            // How many there are is no key, though the number may be one.
            if sought.deletes && OF_VALUES.contains(&function) {
                candidates.add(sought, |key| {
                    (column == Some(key.name.as_str())).then(|| value.clone())
                });
            }
        }
    }

    /// Metrics as rules tell of them, `max(email) = a@b`: of the write, or what those before it had.
    fn observed(&self, name: &str, texts: &[Value], version: Option<u64>, found: &mut Tally) {
        for text in texts.iter().filter_map(Value::as_str) {
            let (metric, value) = text.rsplit_once(" = ").unwrap_or((text, text));
            let mut sought = self.sought.iter();
            let told = sought.any(|of| {
                let sound = match name == OBSERVED {
                    true => of.sound.written(version),
                    false => of.sound.rows(version),
                };
                !sound && of.forget.told(text)
            });
            if told && !REDACTED.contains(&value) {
                *found.entry(("metric", metric.to_owned())).or_default() += 1;
            }
        }
    }

    /// Values as messages and samples write them.
    fn sample(&self, text: &str, candidates: &mut [Candidates]) {
        if !text.contains(" = ") {
            return;
        }
        let told: BTreeMap<&str, &str> = text
            .split(", ")
            .flat_map(|part| part.split("; "))
            .filter_map(|part| part.split_once(" = "))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('\'')))
            .collect();
        for (sought, candidates) in self.sought.iter().zip(candidates) {
            candidates.add(sought, |column| {
                let name = column.name.as_str();
                let text = told
                    .get(name)
                    .or_else(|| told.get(sql::quoted(name).as_str()));
                text.map(|text| (*text).to_owned())
            });
        }
    }

    /// Which of the keys are listed.
    fn settle(
        &self,
        what: &'static str,
        sought: &Sought,
        candidates: &Candidates,
        found: &mut Tally,
    ) -> Result<()> {
        if candidates.keys.is_empty() {
            return Ok(());
        }
        let rows = candidates.keys.len();
        let listed = match self.running.keys(sought.policy) {
            Some(keys) => {
                let columns = sought.key.iter().enumerate();
                let columns = columns.map(|(at, column)| {
                    let texts = candidates.keys.iter().map(|key| key.get(at));
                    let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
                    fit(&texts, &column.data_type)
                });
                keys.ask(&columns.collect::<Vec<_>>())?
            }
            None => datafusion::arrow::buffer::BooleanBuffer::new_set(rows),
        };
        for row in listed.set_indices() {
            let Some(beside) = candidates.beside.get(row) else {
                continue;
            };
            for column in beside {
                *found.entry((what, column.clone())).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// Rows as lines of JSON.
pub(super) fn lines(batch: &RecordBatch) -> Result<Vec<Value>> {
    let mut bytes = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut bytes);
    writer.write(batch).map_err(unexpected)?;
    writer.finish().map_err(unexpected)?;
    drop(writer);
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| line.len() > 2)
        .map(|line| {
            serde_json::from_slice(line)
                .map_err(|error| Error::internal(format!("a row as JSON cannot be read: {error}")))
        })
        .collect()
}

fn unexpected(error: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal(format!("texts that are looked through: {error}")).with_source(error)
}
