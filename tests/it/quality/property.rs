//! Random rules over random rows, split in any way: the same verdicts, the same metrics, and no row lost.
//!
//! What must come out is found by plain Rust over the rows, one by one. `SELVEDGE_QUALITY_SEED=n` runs one case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use selvedge_engine::{
    Answer, Error, ErrorKind, IngestMode, Over, PartitionValues, Session, Settings, WriteReport,
};

use super::{conserved, lines};
use crate::support::lake::with_settings;
use crate::support::query;

const CASES: u64 = 40;
const TEXTS: [&str; 4] = ["x", "xy", "y", ""];
const PARTITIONS: [&str; 3] = ["p", "q", "r s"];

/// SplitMix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from + 1) as u64) as i64
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone)]
struct Row {
    id: i64,
    a: Option<i64>,
    f: Option<f64>,
    s: Option<&'static str>,
    p: Option<&'static str>,
}

fn row(random: &mut Random, id: i64) -> Row {
    Row {
        id,
        a: (!random.one_in(6)).then(|| random.between(-20, 20)),
        f: (!random.one_in(6)).then(|| match random.below(8) {
            0 => f64::NAN,
            1 => -0.0,
            _ => random.between(-40, 40) as f64 / 4.0,
        }),
        s: (!random.one_in(5)).then(|| TEXTS[random.below(TEXTS.len())]),
        p: (!random.one_in(5)).then(|| PARTITIONS[random.below(PARTITIONS.len())]),
    }
}

/// A condition about a row, as SQL and as what it means.
#[derive(Debug, Clone)]
enum Condition {
    Above(i64),
    AtMost(i64),
    Within(i64, i64),
    Among(Vec<i64>),
    Divides(i64),
    NotNull,
    FloatAtLeast(i64),
    FloatBelow(i64),
    Text(&'static str),
    Short(i64),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    fn random(random: &mut Random, depth: usize) -> Self {
        let c = random.between(-20, 20);
        match random.below(if depth == 0 { 10 } else { 13 }) {
            0 => Self::Above(c),
            1 => Self::AtMost(c),
            2 => Self::Within(c, c + random.between(0, 20)),
            3 => Self::Among(vec![c, c + 1, c + 5]),
            4 => Self::Divides(random.between(2, 5)),
            5 => Self::NotNull,
            6 => Self::FloatAtLeast(c),
            7 => Self::FloatBelow(c),
            8 => Self::Text(TEXTS[random.below(TEXTS.len())]),
            9 => Self::Short(random.between(0, 2)),
            // What NaN means below NOT and OR is for the rules of each comparison: not mixed here.
            10 => Self::Not(Box::new(Self::without_floats(random))),
            11 => Self::And(
                Box::new(Self::random(random, depth - 1)),
                Box::new(Self::random(random, depth - 1)),
            ),
            _ => Self::Or(
                Box::new(Self::without_floats(random)),
                Box::new(Self::without_floats(random)),
            ),
        }
    }

    fn without_floats(random: &mut Random) -> Self {
        loop {
            match Self::random(random, 0) {
                Self::FloatAtLeast(_) | Self::FloatBelow(_) => {}
                other => return other,
            }
        }
    }

    fn sql(&self) -> String {
        match self {
            Self::Above(c) => format!("a > {c}"),
            Self::AtMost(c) => format!("a <= {c}"),
            Self::Within(from, to) => format!("a BETWEEN {from} AND {to}"),
            Self::Among(values) => {
                let values: Vec<String> = values.iter().map(i64::to_string).collect();
                format!("a IN ({})", values.join(", "))
            }
            Self::Divides(by) => format!("a % {by} = 0"),
            Self::NotNull => "a IS NOT NULL".to_owned(),
            Self::FloatAtLeast(c) => format!("f >= {c}"),
            Self::FloatBelow(c) => format!("f < {c}"),
            Self::Text(text) => format!("s = '{text}'"),
            Self::Short(length) => format!("length(s) <= {length}"),
            Self::Not(inner) => format!("NOT ({})", inner.sql()),
            Self::And(left, right) => format!("({}) AND ({})", left.sql(), right.sql()),
            Self::Or(left, right) => format!("({}) OR ({})", left.sql(), right.sql()),
        }
    }

    fn holds(&self, row: &Row) -> Option<bool> {
        match self {
            Self::Above(c) => row.a.map(|a| a > *c),
            Self::AtMost(c) => row.a.map(|a| a <= *c),
            Self::Within(from, to) => row.a.map(|a| (*from..=*to).contains(&a)),
            Self::Among(values) => row.a.map(|a| values.contains(&a)),
            Self::Divides(by) => row.a.map(|a| a % by == 0),
            Self::NotNull => Some(row.a.is_some()),
            // NaN is false on either side, as every comparison of Rust has it.
            Self::FloatAtLeast(c) => row.f.map(|f| f >= *c as f64),
            Self::FloatBelow(c) => row.f.map(|f| f < *c as f64),
            Self::Text(text) => row.s.map(|s| s == *text),
            Self::Short(length) => row.s.map(|s| s.len() as i64 <= *length),
            Self::Not(inner) => inner.holds(row).map(|holds| !holds),
            Self::And(left, right) => match (left.holds(row), right.holds(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.holds(row), right.holds(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Warn,
    Drop,
    Quarantine,
    Fail,
}

#[derive(Debug, Clone)]
struct RowRule {
    name: String,
    condition: Condition,
    null_violates: bool,
    action: Action,
}

impl RowRule {
    fn random(random: &mut Random, number: usize) -> Self {
        Self {
            name: format!("r{number}"),
            condition: Condition::random(random, 2),
            null_violates: random.one_in(2),
            action: match random.below(20) {
                0..6 => Action::Warn,
                6..12 => Action::Drop,
                12..19 => Action::Quarantine,
                _ => Action::Fail,
            },
        }
    }

    fn sql(&self) -> String {
        let action = match self.action {
            Action::Warn => "WARN",
            Action::Drop => "DROP ROW",
            Action::Quarantine => "QUARANTINE ROW",
            Action::Fail => "FAIL",
        };
        let on_null = if self.null_violates {
            "VIOLATE"
        } else {
            "PASS"
        };
        format!(
            "CONSTRAINT {} EXPECT ({}) ON NULL {on_null} ON VIOLATION {action}",
            self.name,
            self.condition.sql()
        )
    }

    fn broken(&self, row: &Row) -> bool {
        self.condition
            .holds(row)
            .map_or(self.null_violates, |holds| !holds)
    }
}

/// A rule about all rows, whose metrics are compared; it never refuses.
#[derive(Debug, Clone, Copy)]
struct MetricRule {
    per_partition: bool,
    over: Over,
}

const EXACT: &str = "count(*) >= 0 AND count(a) >= 0 AND null_count(a) >= 0 AND nan_count(f) >= 0 \
    AND min(a) > -100 AND max(a) < 100 AND sum(a) > -1000000 AND is_unique(a) AND is_unique(id, s)";
const REST: &str = "avg(a) < 100 AND stddev(a) >= 0 AND approx_distinct(s) >= 0 AND null_fraction(f) <= 1 \
    AND min(f) > -100 AND max(f) < 100";

impl MetricRule {
    fn sql(self, number: usize) -> String {
        let partition = if self.per_partition {
            "PER PARTITION"
        } else {
            ""
        };
        let over = if self.over == Over::Input {
            "OVER INPUT"
        } else {
            ""
        };
        format!(
            "CONSTRAINT m{number} EXPECT ({EXACT} AND {REST}) {partition} {over} ON VIOLATION WARN"
        )
    }
}

#[derive(Debug)]
struct Case {
    rows: Vec<Row>,
    rules: Vec<RowRule>,
    metrics: Vec<MetricRule>,
}

impl Case {
    fn random(random: &mut Random) -> Self {
        let rows = random.below(300) as i64;
        let rules = 1 + random.below(5);
        Self {
            rows: (0..rows).map(|id| row(random, id)).collect(),
            rules: (0..rules)
                .map(|number| RowRule::random(random, number))
                .collect(),
            metrics: [
                (false, Over::Written),
                (true, Over::Written),
                (false, Over::Input),
            ]
            .into_iter()
            .map(|(per_partition, over)| MetricRule {
                per_partition,
                over,
            })
            .filter(|_| !random.one_in(3))
            .collect(),
        }
    }

    fn create(&self) -> String {
        let rules = self.rules.iter().map(RowRule::sql);
        let metrics = self.metrics.iter().enumerate();
        let rules: Vec<String> = rules
            .chain(metrics.map(|(number, rule)| rule.sql(number)))
            .collect();
        format!(
            "CREATE TABLE t (id BIGINT, a BIGINT, f DOUBLE, s TEXT, p TEXT, {}) PARTITIONED BY (p)",
            rules.join(", ")
        )
    }

    fn fate(&self, row: &Row) -> Action {
        let broken = |action| {
            self.rules
                .iter()
                .any(|rule| rule.action == action && rule.broken(row))
        };
        [Action::Fail, Action::Quarantine, Action::Drop]
            .into_iter()
            .find(|action| broken(*action))
            .unwrap_or(Action::Warn)
    }

    fn ids(&self, fate: Action) -> Vec<i64> {
        let rows = self.rows.iter().filter(|row| self.fate(row) == fate);
        rows.map(|row| row.id).collect()
    }

    fn batch(&self, schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
        let columns: [ArrayRef; 5] = [
            Arc::new(rows.iter().map(|row| Some(row.id)).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.a).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.f).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.s).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.p).collect::<StringArray>()),
        ];
        RecordBatch::try_new(Arc::clone(schema), columns.to_vec()).unwrap()
    }
}

fn schema() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("a", DataType::Int64),
        field("f", DataType::Float64),
        field("s", DataType::Utf8),
        field("p", DataType::Utf8),
    ]))
}

/// How rows reach the write path.
#[derive(Debug, Clone, Copy)]
enum Split {
    /// All at once.
    Whole,
    /// In batches of random length, in one stream.
    Stream,
    /// In batches of random length, in so many partitions of the plan.
    Partitions(usize),
}

/// Rows in runs of random length.
fn runs(random: &mut Random, rows: &[Row]) -> Vec<Vec<Row>> {
    let mut runs = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (run, after) = rest.split_at((1 + random.below(40)).min(rest.len()));
        runs.push(run.to_vec());
        rest = after;
    }
    runs
}

async fn write(
    random: &mut Random,
    case: &Case,
    split: Split,
) -> (Session, Result<WriteReport, Error>) {
    let mut settings = Settings::default();
    settings.target_partitions = match split {
        Split::Partitions(partitions) => partitions,
        Split::Whole | Split::Stream => 1,
    };
    let engine = with_settings(settings).await;
    let session = engine.session();
    query::run(&session, &case.create()).await;
    let schema = schema();
    let outcome = match split {
        Split::Whole | Split::Stream => {
            let batches = match split {
                Split::Whole => vec![case.batch(&schema, &case.rows)],
                _ => runs(random, &case.rows)
                    .iter()
                    .map(|run| case.batch(&schema, run))
                    .collect(),
            };
            let rows = stream::iter(batches.into_iter().map(Ok));
            let rows = RecordBatchStreamAdapter::new(schema, rows);
            session
                .ingest(None, "t", IngestMode::Append, Box::pin(rows))
                .await
        }
        Split::Partitions(partitions) => {
            let mut parts = vec![Vec::new(); partitions];
            for run in runs(random, &case.rows) {
                parts[random.below(partitions)].push(case.batch(&schema, &run));
            }
            let table = MemTable::try_new(schema, parts).unwrap();
            session.register_table("source", Arc::new(table));
            match session.execute("INSERT INTO t SELECT * FROM source").await {
                Ok(Answer::Written(report)) => Ok(report),
                Ok(other) => panic!("not a write: {other:?}"),
                Err(error) => Err(error),
            }
        }
    };
    (session, outcome)
}

type Key = (String, Option<PartitionValues>, &'static str);

fn key(metric: &str, partition: Option<&PartitionValues>, over: Over) -> Key {
    let over = match over {
        Over::Written => "written",
        Over::Input => "input",
    };
    (metric.to_owned(), partition.cloned(), over)
}

fn metrics(report: &WriteReport) -> BTreeMap<Key, Option<String>> {
    let mut found = BTreeMap::new();
    for value in &report.metrics {
        let key = key(&value.metric, value.partition.as_ref(), value.over);
        let before = found.insert(key, value.value.clone());
        assert!(before.is_none(), "a metric twice: {value:?}");
    }
    found
}

/// What plain counting says of the exact metrics.
fn counted(case: &Case) -> BTreeMap<Key, Option<String>> {
    let mut all = BTreeMap::new();
    for rule in &case.metrics {
        let over = rule.over;
        let rows = case
            .rows
            .iter()
            .filter(|row| over == Over::Input || case.fate(row) == Action::Warn);
        let mut groups: BTreeMap<Option<PartitionValues>, Vec<&Row>> = BTreeMap::new();
        if !rule.per_partition {
            groups.insert(None, Vec::new());
        }
        for row in rows {
            let partition = rule.per_partition.then(|| {
                let value = row.p.map(str::to_owned);
                PartitionValues::from([("p".to_owned(), value)])
            });
            groups.entry(partition).or_default().push(row);
        }
        for (partition, rows) in groups {
            let values: Vec<i64> = rows.iter().filter_map(|row| row.a).collect();
            let pairs: Vec<_> = rows
                .iter()
                .filter_map(|row| Some((row.id, row.s?)))
                .collect();
            // Where a NULL leaves out every row, there is nothing to tell.
            let unique =
                |distinct: usize, of: usize| (of > 0).then(|| (distinct == of).to_string());
            let distinct = values.iter().collect::<BTreeSet<_>>().len();
            let nan = rows.iter().filter(|row| row.f.is_some_and(f64::is_nan));
            for (metric, value) in [
                ("count(*)", Some(rows.len().to_string())),
                ("count(a)", Some(values.len().to_string())),
                (
                    "null_count(a)",
                    Some((rows.len() - values.len()).to_string()),
                ),
                ("nan_count(f)", Some(nan.count().to_string())),
                ("min(a)", values.iter().min().map(i64::to_string)),
                ("max(a)", values.iter().max().map(i64::to_string)),
                (
                    "sum(a)",
                    (!values.is_empty()).then(|| values.iter().sum::<i64>().to_string()),
                ),
                ("is_unique(a)", unique(distinct, values.len())),
                (
                    "is_unique(id, s)",
                    unique(pairs.iter().collect::<BTreeSet<_>>().len(), pairs.len()),
                ),
            ] {
                all.insert(key(metric, partition.as_ref(), over), value);
            }
        }
    }
    all
}

/// Equal, but for the last digits of floats, which depend on the order of additions.
fn near(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) if one != other => {
            match (one.parse::<f64>(), other.parse::<f64>()) {
                (Ok(one), Ok(other)) => (one - other).abs() <= 1e-9 * one.abs().max(1.0),
                _ => false,
            }
        }
        (one, other) => one == other,
    }
}

async fn one_case(seed: u64) {
    let mut random = Random(seed);
    let case = Case::random(&mut random);
    let refused = case.rows.iter().any(|row| case.fate(row) == Action::Fail);
    let mut first: Option<BTreeMap<Key, Option<String>>> = None;
    for split in [
        Split::Whole,
        Split::Stream,
        Split::Partitions(1),
        Split::Partitions(4),
    ] {
        let context = format!("SELVEDGE_QUALITY_SEED={seed}, {split:?}\n{}", case.create());
        let (session, outcome) = write(&mut random, &case, split).await;
        let ids = async |from: &str| {
            query::integers(&session, &format!("SELECT id FROM {from} ORDER BY id")).await
        };
        if refused {
            let Err(error) = outcome else {
                panic!("{context}: not refused");
            };
            assert_eq!(error.kind(), ErrorKind::Rejected, "{context}\n{error}");
            assert_eq!(ids("t").await, [0; 0], "{context}");
            assert_eq!(ids("\"t$quarantine\"").await, [0; 0], "{context}");
            continue;
        }
        let report = outcome.unwrap_or_else(|error| panic!("{context}\n{error}"));
        conserved(&report);
        assert_eq!(report.rows_received, case.rows.len() as u64, "{context}");
        assert_eq!(ids("t").await, case.ids(Action::Warn), "{context}");
        assert_eq!(
            ids("\"t$quarantine\"").await,
            case.ids(Action::Quarantine),
            "{context}"
        );
        assert_eq!(
            report.rows_dropped,
            case.ids(Action::Drop).len() as u64,
            "{context}"
        );
        for rule in &case.rules {
            let result = super::of(&report, &rule.name);
            let broken = case.rows.iter().filter(|row| rule.broken(row)).count();
            let nulls = case
                .rows
                .iter()
                .filter(|row| rule.condition.holds(row).is_none());
            assert_eq!(
                (result.rows_checked, result.violations, result.nulls),
                (case.rows.len() as u64, broken as u64, nulls.count() as u64),
                "{context}\n{}",
                rule.name
            );
        }
        failures(&session, &case, &context).await;

        let found = metrics(&report);
        for (key, value) in counted(&case) {
            let ours = found
                .get(&key)
                .unwrap_or_else(|| panic!("{context}\nno {key:?}"));
            assert_eq!(*ours, value, "{context}\n{key:?}");
        }
        let before = first.get_or_insert_with(|| found.clone());
        assert_eq!(
            before.keys().collect::<Vec<_>>(),
            found.keys().collect::<Vec<_>>(),
            "{context}"
        );
        for (key, value) in &found {
            let other = before[key].as_deref();
            assert!(
                near(other, value.as_deref()),
                "{context}\n{key:?}: {other:?}, {value:?}"
            );
        }
    }
}

/// Each quarantined row names the rules that put it there, and none that it does not break.
async fn failures(session: &Session, case: &Case, context: &str) {
    let sql = "SELECT id, f['rule'] FROM (SELECT id, unnest(_failures) AS f FROM \"t$quarantine\")";
    let mut told: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for line in lines(session, sql).await {
        let (id, rule) = line.split_once(' ').unwrap();
        let new = told
            .entry(id.parse().unwrap())
            .or_default()
            .insert(rule.to_owned());
        assert!(new, "{context}\n{line} twice");
    }
    for row in case
        .rows
        .iter()
        .filter(|row| case.fate(row) == Action::Quarantine)
    {
        let broken = |rule: &&RowRule| rule.broken(row);
        let all: BTreeSet<_> = case
            .rules
            .iter()
            .filter(broken)
            .map(|rule| rule.name.clone())
            .collect();
        let least: BTreeSet<_> = case
            .rules
            .iter()
            .filter(|rule| rule.action == Action::Quarantine)
            .filter(broken)
            .map(|rule| rule.name.clone())
            .collect();
        let told = &told[&row.id];
        assert!(
            least.is_subset(told) && told.is_subset(&all),
            "{context}\n{row:?}: {told:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_rules_over_any_rows_in_any_split() {
    let seeds = match std::env::var("SELVEDGE_QUALITY_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=CASES,
    };
    for seed in seeds {
        println!("SELVEDGE_QUALITY_SEED={seed}");
        one_case(seed).await;
    }
}
