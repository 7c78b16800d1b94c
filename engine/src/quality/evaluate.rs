//! All rules of a table over the batches of a write: each row is asked once, by the worker that has it, and what
//! the workers found is put together when all are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use parking_lot::Mutex;

use super::compile::{Body, Compiled, CompiledRule};
use super::condition;
use super::failure::Failure;
use super::formula::text;
use super::metric::{Asked, Measured, Measures, Metric};
use super::past::Past;
use super::record::{MetricValue, PartitionValues, RuleOutcome, RuleResult};
use super::reference::Keys;
use super::row::Answers;
use super::rule::{OnNull, OnViolation, Over};
use crate::error::{Error, Result};
use crate::shown::{HIDDEN, SHOWN_VALUES};
use crate::sql;
use crate::table::schema::personal;

/// One asking of the rules of a table, by many workers.
#[derive(Debug)]
pub(crate) struct Evaluation {
    compiled: Arc<Compiled>,
    /// For each rule that refers to another table, the keys of that.
    keys: Vec<Option<Keys>>,
    /// Whether some row breaks a rule that lets nothing through.
    fails: AtomicBool,
    found: Mutex<Found>,
    memory: MemoryReservation,
}

/// What has been found so far.
#[derive(Debug)]
struct Found {
    tallies: Vec<Tally>,
    written: Measures,
    /// Only where rules leave rows out.
    rejected: Option<Measures>,
    dropped: u64,
    quarantined: u64,
}

/// What was found of one rule.
#[derive(Debug, Clone, Default)]
struct Tally {
    asked: u64,
    violations: u64,
    nulls: u64,
    /// With the number of the worker: the samples of the lowest are told, so that they do not depend on timing.
    samples: Vec<(usize, String)>,
}

/// What comes after the last row.
#[derive(Debug)]
pub(crate) struct Settled {
    pub results: Vec<RuleResult>,
    pub metrics: Vec<MetricValue>,
    /// Rows that were asked.
    pub asked: u64,
    pub dropped: u64,
    pub quarantined: u64,
    /// Why nothing of the write may become visible.
    pub refused: Option<Error>,
}

/// The rows of a batch, told apart.
#[derive(Debug)]
pub(crate) struct Sorted {
    /// The rows that go on, and which ones do not; None: all of them go on.
    pub left: Option<(RecordBatch, BooleanArray)>,
    /// Rows for quarantine, ascending, with all that is wrong with each.
    pub quarantined: Vec<(usize, Vec<Failure>)>,
}

impl Evaluation {
    /// Reads what the rules refer to, and begins.
    pub(crate) async fn begin(
        compiled: &Arc<Compiled>,
        context: &Arc<TaskContext>,
    ) -> Result<Arc<Self>> {
        let mut keys = Vec::with_capacity(compiled.rules.len());
        for rule in &compiled.rules {
            keys.push(match &rule.body {
                Body::Reference(reference) => Some(reference.load(context).await?),
                Body::Row(_) | Body::Metric(_) => None,
            });
        }
        let memory = MemoryConsumer::new("Metrics").register(context.memory_pool());
        Ok(Arc::new(Self {
            found: Mutex::new(Found {
                tallies: vec![Tally::default(); compiled.rules.len()],
                written: measures(compiled)?,
                rejected: rejected(compiled)?,
                dropped: 0,
                quarantined: 0,
            }),
            compiled: Arc::clone(compiled),
            keys,
            fails: AtomicBool::new(false),
            memory,
        }))
    }

    /// One of those who ask; `number` orders them.
    pub(crate) fn worker(self: &Arc<Self>, number: usize) -> Result<Worker> {
        Ok(Worker {
            number,
            tallies: vec![Tally::default(); self.compiled.rules.len()],
            written: measures(&self.compiled)?,
            rejected: rejected(&self.compiled)?,
            dropped: 0,
            quarantined: 0,
            memory: self.memory.new_empty(),
            evaluation: Arc::clone(self),
        })
    }

    /// Whether nothing needs to go further: some row breaks a rule that fails the write.
    pub(crate) fn fails(&self) -> bool {
        self.fails.load(Relaxed)
    }

    /// What must be known of the writes before this one.
    pub(crate) fn past(&self) -> Past {
        let partitions: Vec<PartitionValues> =
            self.found.lock().written.partitions().cloned().collect();
        let rules = self.compiled.rules.iter();
        let needs = rules.flat_map(|rule| {
            let asked: Vec<_> = match (&rule.body, rule.rule.per_partition) {
                (Body::Metric(formula), true) => formula
                    .needs()
                    .flat_map(|need| {
                        let of = |partition: &PartitionValues| {
                            (need.clone(), rule.rule.over, Some(partition.clone()))
                        };
                        partitions.iter().map(of).collect::<Vec<_>>()
                    })
                    .collect(),
                (Body::Metric(formula), false) => formula
                    .needs()
                    .map(|need| (need, rule.rule.over, None))
                    .collect(),
                _ => Vec::new(),
            };
            asked
        });
        let recorded = self.compiled.rules.iter();
        let recorded = recorded.filter(|rule| matches!(rule.body, Body::Metric(_)));
        let since = recorded.map(|rule| rule.rule.since_version).min();
        Past::of(needs).since(since.unwrap_or(0))
    }

    /// Whether a rule asks for values of writes before this one.
    pub(crate) fn looks_back(&self) -> bool {
        self.compiled.rules.iter().any(|rule| match &rule.body {
            Body::Metric(formula) => formula.needs().next().is_some(),
            Body::Row(_) | Body::Reference(_) => false,
        })
    }

    /// The verdict, when every worker is done. Without `all`, nothing is said: the statement writes no rows.
    pub(crate) fn settle(&self, past: &Past, all: bool) -> Result<Settled> {
        let mut found = self.found.lock();
        let cleansed = found.written.cleansed.clone();
        let mut cleansed_input = None;
        let out = found.rejected.take().filter(|measures| measures.rows > 0);
        let rejected = out.is_some();
        let input = match out {
            Some(out) => {
                let mut input = found.written.copied()?;
                input.merge(out)?;
                cleansed_input = Some(input.cleansed.clone());
                Some(input.finish()?)
            }
            None => None,
        };
        let written = found.written.finish()?;
        let input = input.unwrap_or_else(|| written.clone());
        let asked = written.first().map_or(0, |all| all.rows) + found.dropped + found.quarantined;
        let mut results = Vec::new();
        for (rule, tally) in self.compiled.rules.iter().zip(&found.tallies) {
            match &rule.body {
                _ if !all => {}
                Body::Row(_) | Body::Reference(_) => results.push(tally.result(rule)),
                Body::Metric(formula) => {
                    let of = match rule.rule.over {
                        Over::Written => &written,
                        Over::Input => &input,
                    };
                    for numbers in of {
                        if numbers.partition.is_some() != rule.rule.per_partition {
                            continue;
                        }
                        let metrics = &self.compiled.metrics;
                        results.push(judged(rule, formula, metrics, numbers, past)?);
                    }
                }
            }
        }
        let mut metrics = Vec::new();
        if all {
            self.record(&written, Over::Written, &mut metrics, |asked| {
                asked.written || rejected
            });
            self.record(&input[..1], Over::Input, &mut metrics, |asked| {
                asked.input || rejected
            });
            self.record_cleansed(&cleansed, Over::Written, &mut metrics);
            if let Some(cleansed) = cleansed_input {
                self.record_cleansed(&cleansed, Over::Input, &mut metrics);
            }
        }
        Ok(Settled {
            refused: self.refusal(&results, asked),
            asked,
            results,
            metrics,
            dropped: found.dropped,
            quarantined: found.quarantined,
        })
    }

    /// Where rows were left out, both what came and what was written are of interest; otherwise they are the same,
    /// and what is `asked` is told.
    fn record(
        &self,
        measured: &[Measured],
        over: Over,
        into: &mut Vec<MetricValue>,
        asked: impl Fn(Asked) -> bool,
    ) {
        for numbers in measured {
            for (metric, value) in self.compiled.metrics.iter().zip(&numbers.values) {
                let Some(value) = value else { continue };
                if metric.is_secret() {
                    continue;
                }
                if numbers.partition.is_none() && !asked(metric.asked) {
                    continue;
                }
                into.push(MetricValue {
                    metric: metric.text.clone(),
                    column: metric.column.clone(),
                    partition: numbers.partition.clone(),
                    over,
                    value: text(value),
                    exact: metric.exact,
                });
            }
        }
    }

    /// How many cells of each column were cleansed: what the other numbers leave out.
    fn record_cleansed(&self, cells: &[u64], over: Over, into: &mut Vec<MetricValue>) {
        for (at, count) in self.compiled.masks.about().iter().zip(cells) {
            let column = self.compiled.schema.field(*at).name();
            into.push(MetricValue {
                metric: format!("cleansed_count({})", sql::quoted(column)),
                column: Some(column.clone()),
                partition: None,
                over,
                value: Some(count.to_string()),
                exact: true,
            });
        }
    }

    /// The error of a write that breaks rules which fail it.
    fn refusal(&self, results: &[RuleResult], rows: u64) -> Option<Error> {
        let fatal = |result: &&RuleResult| {
            result.action == OnViolation::Fail && result.outcome == RuleOutcome::Violated
        };
        let mut broken = results.iter().filter(fatal).map(|result| {
            let mut rules = self.compiled.rules.iter();
            let rule = rules.find(|rule| rule.rule.name == result.rule);
            let what = rule.map_or_else(|| result.rule.clone(), |rule| rule.rule.told());
            if result.observed.is_empty() && result.threshold.is_empty() {
                let of = match result.violations {
                    1 => "1 row".to_owned(),
                    many => format!("{many} rows"),
                };
                return match result.sample.first() {
                    Some(first) => format!("{what} does not hold for {of}, first {first}"),
                    None => format!("{what} does not hold for {of}"),
                };
            }
            let numbers = result.observed.iter().chain(&result.threshold);
            let numbers: Vec<&str> = numbers.map(String::as_str).collect();
            let place = match &result.partition {
                Some(partition) => format!(" in partition {}", spelled(partition)),
                None => String::new(),
            };
            format!("{what} does not hold{place}: {}", numbers.join(", "))
        });
        let first = broken.next()?;
        let table = &self.compiled.table;
        let rows = match rows {
            1 => "1 row".to_owned(),
            many => format!("{many} rows"),
        };
        let error = Error::rejected(format!("table {table} refuses {rows}: rule {first}"));
        let rest: Vec<String> = broken.collect();
        Some(match rest.is_empty() {
            true => error,
            false => error.with_detail(rest.join("; ")),
        })
    }
}

fn measures(compiled: &Compiled) -> Result<Measures> {
    Measures::new(
        &compiled.metrics,
        &compiled.schema,
        &compiled.partitioning,
        &compiled.masks,
    )
}

fn rejected(compiled: &Compiled) -> Result<Option<Measures>> {
    let kept = compiled.rejects() && !compiled.metrics.is_empty();
    kept.then(|| measures(compiled)).transpose()
}

/// `ds = 2024-01-01, country = NULL`.
pub(crate) fn spelled(partition: &PartitionValues) -> String {
    let value = |(column, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{column} = {value}"),
        None => format!("{column} = NULL"),
    };
    partition.iter().map(value).collect::<Vec<_>>().join(", ")
}

fn judged(
    rule: &CompiledRule,
    formula: &super::formula::Formula,
    metrics: &[Metric],
    numbers: &Measured,
    past: &Past,
) -> Result<RuleResult> {
    let now = |at: usize| {
        let value = numbers.values.get(at).cloned().flatten();
        value.unwrap_or(ScalarValue::Null)
    };
    let before = |metric: &str, samples: usize| {
        past.newest(metric, rule.rule.over, numbers.partition.as_ref(), samples)
    };
    let said = formula.ask(now, before)?;
    let hidden = |told: String| {
        let mut secret = metrics.iter().filter(|metric| metric.is_secret());
        let begins = |metric: &&Metric| told.starts_with(&format!("{} = ", metric.text));
        match secret.find(begins) {
            Some(metric) => format!("{} = {HIDDEN}", metric.text),
            None => told,
        }
    };
    let outcome = match (said.outcome, rule.rule.on_null) {
        (RuleOutcome::Unknown, OnNull::Violate) => RuleOutcome::Violated,
        (outcome, _) => outcome,
    };
    Ok(RuleResult {
        partition: numbers.partition.clone(),
        outcome,
        rows_checked: numbers.rows,
        violations: u64::from(outcome == RuleOutcome::Violated),
        nulls: u64::from(said.unknown),
        observed: said.observed.into_iter().map(hidden).collect(),
        threshold: said.threshold,
        ..blank(rule)
    })
}

fn blank(rule: &CompiledRule) -> RuleResult {
    let rule = &rule.rule;
    RuleResult {
        rule: rule.name.clone(),
        fingerprint: rule.fingerprint.clone(),
        kind: rule.kind,
        action: rule.on_violation,
        partition: None,
        outcome: RuleOutcome::Passed,
        rows_checked: 0,
        violations: 0,
        nulls: 0,
        observed: Vec::new(),
        threshold: Vec::new(),
        sample: Vec::new(),
    }
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.asked += other.asked;
        self.violations += other.violations;
        self.nulls += other.nulls;
        self.samples.extend(other.samples);
        self.samples.sort_by_key(|(worker, _)| *worker);
        self.samples.truncate(SHOWN_VALUES);
    }

    fn result(&self, rule: &CompiledRule) -> RuleResult {
        RuleResult {
            outcome: match self.violations {
                0 => RuleOutcome::Passed,
                _ => RuleOutcome::Violated,
            },
            rows_checked: self.asked,
            violations: self.violations,
            nulls: self.nulls,
            sample: self.samples.iter().map(|(_, row)| row.clone()).collect(),
            ..blank(rule)
        }
    }
}

/// One of those who ask the rules; has some of the batches.
#[derive(Debug)]
pub(crate) struct Worker {
    evaluation: Arc<Evaluation>,
    number: usize,
    tallies: Vec<Tally>,
    written: Measures,
    rejected: Option<Measures>,
    dropped: u64,
    quarantined: u64,
    memory: MemoryReservation,
}

/// The rows of a batch that break one rule.
struct Broken {
    rule: usize,
    rows: BooleanBuffer,
    answers: Answers,
}

impl Worker {
    /// Asks every rule of every row of a batch, which has the columns of the table.
    pub(crate) fn sort(&mut self, batch: &RecordBatch) -> Result<Sorted> {
        let broken = self.broken(batch)?;
        let rejected = |action: OnViolation| {
            let of = broken.iter().filter(|broken| {
                self.evaluation.compiled.rules[broken.rule]
                    .rule
                    .on_violation
                    == action
            });
            of.fold(None, |rows: Option<BooleanBuffer>, broken| match rows {
                Some(rows) => Some(&rows | &broken.rows),
                None => Some(broken.rows.clone()),
            })
        };
        let quarantined = rejected(OnViolation::QuarantineRow);
        let dropped = match (rejected(OnViolation::DropRow), &quarantined) {
            // A row that both want is kept for people to see.
            (Some(dropped), Some(quarantined)) => Some(&dropped & &!quarantined),
            (dropped, _) => dropped,
        };
        let out = match (&quarantined, &dropped) {
            (Some(one), Some(other)) => Some(one | other),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        let count = |rows: &Option<BooleanBuffer>| {
            rows.as_ref().map_or(0, |rows| rows.count_set_bits() as u64)
        };
        self.quarantined += count(&quarantined);
        self.dropped += count(&dropped);
        let of = |rows: &BooleanArray| {
            filter_record_batch(batch, rows).map_err(|error| {
                Error::internal(format!("rows told apart: {error}")).with_source(error)
            })
        };
        let left = match out {
            Some(out) => {
                let kept = BooleanArray::new(!&out, None);
                let out = BooleanArray::new(out, None);
                if let Some(rejected) = &mut self.rejected {
                    rejected.update(&of(&out)?)?;
                }
                Some((of(&kept)?, out))
            }
            None => None,
        };
        self.written
            .update(left.as_ref().map_or(batch, |(kept, _)| kept))?;
        self.account()?;
        let quarantined = match quarantined {
            Some(rows) => self.failures(batch, &broken, &rows),
            None => Vec::new(),
        };
        Ok(Sorted { left, quarantined })
    }

    /// Asks every rule of rows that stay where they are: numbers are over all of them.
    pub(crate) fn count(&mut self, batch: &RecordBatch) -> Result<()> {
        self.broken(batch)?;
        self.written.update(batch)?;
        self.account()
    }

    fn account(&self) -> Result<()> {
        let bytes = self.written.size() + self.rejected.as_ref().map_or(0, Measures::size);
        Ok(self.memory.try_resize(bytes)?)
    }

    /// Rules that rows of the batch break, and counts all of it.
    fn broken(&mut self, batch: &RecordBatch) -> Result<Vec<Broken>> {
        let compiled = Arc::clone(&self.evaluation.compiled);
        let mut all = Vec::new();
        for (at, rule) in compiled.rules.iter().enumerate() {
            let answers = match (&rule.body, &self.evaluation.keys[at]) {
                (Body::Row(rule), _) => rule.ask(batch),
                (Body::Reference(rule), Some(keys)) => Answers {
                    holds: rule.ask(keys, batch)?,
                    failed: Vec::new(),
                },
                _ => continue,
            };
            // A row is not to blame for what was taken from it.
            let spared = compiled.masks.over(batch, rule.columns());
            let answers = match &spared {
                Some(rows) => answers.sparing(rows),
                None => answers,
            };
            let spared = spared.map_or(0, |rows| rows.count_set_bits());
            let tally = &mut self.tallies[at];
            tally.asked += (batch.num_rows() - spared) as u64;
            tally.nulls += answers.holds.null_count() as u64;
            let Some(rows) = violations(&answers.holds, rule.rule.on_null) else {
                continue;
            };
            let first = rows.set_indices();
            for row in first.take(SHOWN_VALUES.saturating_sub(tally.samples.len())) {
                let row = shown(rule, &compiled.schema, batch, row);
                tally.samples.push((self.number, row));
            }
            tally.violations += rows.count_set_bits() as u64;
            if rule.rule.on_violation == OnViolation::Fail {
                self.evaluation.fails.store(true, Relaxed);
            }
            all.push(Broken {
                rule: at,
                rows,
                answers,
            });
        }
        Ok(all)
    }

    /// All that is wrong with each of `rows`.
    fn failures(
        &self,
        batch: &RecordBatch,
        broken: &[Broken],
        rows: &BooleanBuffer,
    ) -> Vec<(usize, Vec<Failure>)> {
        let compiled = &self.evaluation.compiled;
        let rules = &compiled.rules;
        let secret = |rule: &CompiledRule| {
            let mut columns = rule.columns().iter();
            columns.any(|at| personal(compiled.schema.field(*at)))
        };
        let of_row = |row: usize| {
            let broken = broken.iter().filter(|broken| broken.rows.value(row));
            let failures = broken.map(|broken| {
                let rule = &rules[broken.rule];
                let failed = &broken.answers.failed;
                let reason = failed.binary_search_by_key(&row, |(failed, _)| *failed);
                let reason = reason.ok().and_then(|at| failed.get(at));
                Failure::of_rule(
                    &rule.rule,
                    match reason {
                        // The reason may quote the value.
                        Some(_) if secret(rule) => format!("{} has no answer", rule.rule.told()),
                        Some((_, reason)) => {
                            format!("{} has no answer: {reason}", rule.rule.told())
                        }
                        None if broken.answers.holds.is_null(row) => {
                            format!("{} is unknown", rule.rule.told())
                        }
                        None => format!("{} does not hold", rule.rule.told()),
                    },
                    condition::values(&compiled.schema, batch, rule.columns(), row),
                    columns(rule, batch),
                )
            });
            (row, failures.collect())
        };
        rows.set_indices().map(of_row).collect()
    }

    /// Gives what was found to the others.
    pub(crate) fn finish(self) -> Result<()> {
        let mut found = self.evaluation.found.lock();
        for (tally, own) in found.tallies.iter_mut().zip(self.tallies) {
            tally.merge(own);
        }
        found.dropped += self.dropped;
        found.quarantined += self.quarantined;
        found.written.merge(self.written)?;
        if let (Some(all), Some(own)) = (&mut found.rejected, self.rejected) {
            all.merge(own)?;
        }
        let size = found.written.size() + found.rejected.as_ref().map_or(0, Measures::size);
        drop(self.memory);
        Ok(self.evaluation.memory.try_resize(size)?)
    }
}

/// Rows that break a rule with these answers, if any does.
fn violations(holds: &BooleanArray, on_null: OnNull) -> Option<BooleanBuffer> {
    let held = holds.true_count();
    let passes = match on_null {
        OnNull::Pass => held + holds.null_count(),
        OnNull::Violate => held,
    };
    if passes == holds.len() {
        return None;
    }
    let broken = !holds.values();
    Some(match (holds.nulls(), on_null) {
        (None, _) => broken,
        (Some(nulls), OnNull::Pass) => &broken & nulls.inner(),
        (Some(nulls), OnNull::Violate) => &broken | &!nulls.inner(),
    })
}

/// A row by its first column, which often is its key, and the values that the rule reads.
fn shown(rule: &CompiledRule, schema: &Schema, batch: &RecordBatch, row: usize) -> String {
    let mut columns = vec![0];
    columns.extend(rule.columns().iter().filter(|column| **column != 0));
    condition::values(schema, batch, &columns, row)
}

fn columns(rule: &CompiledRule, batch: &RecordBatch) -> Vec<String> {
    let schema = batch.schema_ref();
    let names = rule.columns().iter();
    names.map(|at| schema.field(*at).name().clone()).collect()
}
