//! A history that grows by days: a hundredth of the keys changed, a thousandth new, a thousandth deleted, and some
//! that came although nothing changed.
//!
//! Peers keep the same intervals as their users do: SQL that closes and inserts (DuckDB, DuckLake), a merge
//! (delta-rs), the whole table written anew (PySpark). After every day all of them must agree on what is current.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use serde_json::json;

use super::changes::{megabytes, sizes, with_options, written};
use super::quality::peak_megabytes;
use crate::data::CODEC_LEVEL;
use crate::measure::{Sample, median, timed};
use crate::ours::{Lake, text};
use crate::peers::Peer;
use crate::report::{Report, Unit};
use crate::{Bench, Result};

const NAME: &str = "journal";
const OURS: &str = "selvedge";
const BATCH_FILE: &str = "the batch";
const FRESH: &str = "freshly written";
const PEERS: [(&str, &str); 4] = [
    ("ducklake", "ducklake_peer"),
    ("duckdb", "duckdb_peer"),
    ("delta-rs", "delta_peer"),
    ("pyspark", "pyspark_peer"),
];

const CREATE: &str = "CREATE TABLE j (k BIGINT, city TEXT, plan TEXT, score INT, amount BIGINT, visits INT, op TEXT, \
    since TIMESTAMP) JOURNAL KEYS (k) SEQUENCE BY since APPLY AS DELETE WHEN op = 'D' TRACK HISTORY ON * EXCEPT (op)";
const AGGREGATE: &str = "SELECT city, count(*), sum(amount), avg(score) FROM";

/// Midnight of the first day, in microseconds.
const FIRST: i64 = 1_767_225_600_000_000;
const DAY_MICROS: i64 = 86_400_000_000;
/// Statements that take milliseconds are timed so often.
const TIMES: usize = 15;

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let folder = bench.scratch("journal-data");
    std::fs::create_dir_all(&folder)?;
    let mut source = Source::new(bench.args.rows, folder);
    let base = source.base()?;
    let mut systems = vec![System::ours(bench)];
    for (name, script) in PEERS {
        let peer = Peer::start(bench, report, name, script)?;
        systems.extend(peer.map(|peer| System::peer(bench, name, peer)));
    }
    for system in &mut systems {
        system.load(bench, &base).await?;
        system.agrees(&source).await?;
    }

    // Ten days, in turn.
    let mut batches = Vec::new();
    for day in 1..=bench.args.days {
        let file = source.day(1)?;
        batches.push(megabytes(std::fs::metadata(&file)?.len()));
        for turn in 0..systems.len() {
            let at = (day + turn) % systems.len();
            systems[at].day(&file).await?;
            systems[at].agrees(&source).await?;
        }
    }
    keep_days(bench, report, &systems, &batches);

    // A hundred times less, and one key.
    for _ in 0..TIMES.min(5) {
        let file = source.day(100)?;
        for system in systems.iter_mut().filter(|system| !system.slow()) {
            let sample = system.change(&file).await?.sample;
            system.small.push(sample);
        }
    }
    for system in systems.iter().filter(|system| !system.slow()) {
        report.times(NAME, "a small batch", system.name, &system.small);
    }
    let small = |system| report.median(NAME, "a small batch", system);
    let ratio = small(OURS) / small("ducklake");
    report.target("journal_small_batch_vs_ducklake", 0.25, ratio);
    reads(report, &mut systems, &source, "").await?;

    // The rest is about ourselves: a long time, and what it leaves.
    let ours = &mut systems[0];
    one_key(report, ours, &mut source).await?;
    long(bench, report, ours, &mut source).await?;
    reads(report, &mut systems[..1], &source, ", 100 days").await?;
    memory(bench, report, &base, &source)
}

// ---- The days ----

/// The keys as they are: each row is a function of its key and how often it has changed.
struct Source {
    /// How often each key has changed.
    versions: Vec<u32>,
    alive: Vec<bool>,
    /// Keys that were there at the beginning.
    rows: u64,
    dice: u64,
    /// Where the files lie.
    folder: PathBuf,
    /// The last day that has come.
    last: usize,
}

impl Source {
    fn new(rows: u64, folder: PathBuf) -> Self {
        Self {
            versions: vec![0; rows as usize],
            alive: vec![true; rows as usize],
            rows,
            dice: 7,
            folder,
            last: 0,
        }
    }

    /// All keys, on the first day.
    fn base(&self) -> Result<PathBuf> {
        let base = self.folder.join("base");
        std::fs::create_dir_all(&base)?;
        let keys: Vec<(usize, bool)> = (0..self.versions.len()).map(|key| (key, true)).collect();
        self.write(&base.join("0.parquet"), &keys)?;
        Ok(base)
    }

    /// What comes on the next day: `fraction` times less than all of it.
    fn day(&mut self, fraction: u64) -> Result<PathBuf> {
        self.last += 1;
        let share = |parts: u64| (self.rows / parts / fraction).max(1);
        let (changed, deleted, same, new) = (share(100), share(1_000), share(500), share(1_000));
        let mut picked = HashSet::new();
        let mut rows = Vec::new();
        for number in 0..changed + deleted + same {
            let key = loop {
                let key = (self.roll() % self.versions.len() as u64) as usize;
                if self.alive[key] && picked.insert(key) {
                    break key;
                }
            };
            if number < changed {
                self.versions[key] += 1;
            } else if number < changed + deleted {
                self.alive[key] = false;
            }
            rows.push((key, self.alive[key]));
        }
        for _ in 0..new {
            rows.push((self.versions.len(), true));
            self.versions.push(0);
            self.alive.push(true);
        }
        let file = self.of_day(self.last);
        self.write(&file, &rows)?;
        Ok(file)
    }

    fn of_day(&self, day: usize) -> PathBuf {
        self.folder.join(format!("day-{day}.parquet"))
    }

    /// A change of one key, on a day of its own.
    fn one(&mut self) -> Result<PathBuf> {
        self.last += 1;
        let key = loop {
            let key = (self.roll() % self.rows) as usize;
            if self.alive[key] {
                break key;
            }
        };
        self.versions[key] += 1;
        let file = self.folder.join("one.parquet");
        self.write(&file, &[(key, true)])?;
        Ok(file)
    }

    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.dice)
    }

    fn score(&self, key: usize) -> i64 {
        (self.value(key, 3) % 1_000) as i64
    }

    fn value(&self, key: usize, column: u64) -> u64 {
        mixed(((key as u64) << 16) ^ u64::from(self.versions[key]) ^ (column << 56))
    }

    /// How many keys are current, and what their scores add up to.
    fn expected(&self) -> (i64, i64) {
        let alive = (0..self.alive.len()).filter(|key| self.alive[*key]);
        alive.fold((0, 0), |(count, sum), key| {
            (count + 1, sum + self.score(key))
        })
    }

    /// Keys as they are on the last day, and whether each is there.
    fn write(&self, path: &Path, rows: &[(usize, bool)]) -> Result<()> {
        const BATCH: usize = 65_536;
        let codec = Compression::ZSTD(ZstdLevel::try_new(CODEC_LEVEL)?);
        let properties = WriterProperties::builder().set_compression(codec).build();
        let first = self.batch(&[])?;
        let file = File::create(path)?;
        let mut writer = ArrowWriter::try_new(file, first.schema(), Some(properties))?;
        for rows in rows.chunks(BATCH) {
            writer.write(&self.batch(rows)?)?;
        }
        writer.close()?;
        Ok(())
    }

    fn batch(&self, rows: &[(usize, bool)]) -> Result<RecordBatch> {
        const PLANS: [&str; 5] = ["free", "basic", "plus", "pro", "staff"];
        let below = |column: u64, bound: u64| {
            rows.iter()
                .map(move |(key, _)| (self.value(*key, column) % bound) as i64)
        };
        let narrow = |value: i64| i32::try_from(value).unwrap_or_default();
        let keys = rows.iter().map(|(key, _)| *key as i64);
        let scores = rows.iter().map(|(key, _)| narrow(self.score(*key)));
        let plans = below(2, 5).map(|value| PLANS[value as usize % PLANS.len()]);
        let ops = rows.iter().map(|(_, alive)| if *alive { "U" } else { "D" });
        let at = FIRST + self.last as i64 * DAY_MICROS;
        let times = rows.iter().map(|_| at);
        let columns: [(&str, ArrayRef); 8] = [
            ("k", Arc::new(Int64Array::from_iter_values(keys))),
            (
                "city",
                Arc::new(StringArray::from_iter_values(
                    below(1, 200).map(|value| format!("C{value:03}")),
                )),
            ),
            ("plan", Arc::new(StringArray::from_iter_values(plans))),
            ("score", Arc::new(Int32Array::from_iter_values(scores))),
            (
                "amount",
                Arc::new(Int64Array::from_iter_values(below(4, 1_000_000))),
            ),
            (
                "visits",
                Arc::new(Int32Array::from_iter_values(below(5, 50).map(narrow))),
            ),
            ("op", Arc::new(StringArray::from_iter_values(ops))),
            (
                "since",
                Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
            ),
        ];
        let columns = columns.map(|(name, values)| (name, values, true));
        Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
    }
}

/// SplitMix64.
fn mixed(value: u64) -> u64 {
    let mut value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

// ---- The systems ----

/// One of those that take turns.
struct System {
    name: &'static str,
    /// `None` is ourselves.
    peer: Option<Peer>,
    lake: Option<Lake>,
    folder: PathBuf,
    days: Vec<Run>,
    small: Vec<Sample>,
}

/// What a batch took.
struct Run {
    sample: Sample,
    bytes: u64,
}

impl System {
    fn ours(bench: &Bench) -> Self {
        Self {
            name: OURS,
            peer: None,
            lake: None,
            folder: bench.scratch("journal-selvedge"),
            days: Vec::new(),
            small: Vec::new(),
        }
    }

    fn peer(bench: &Bench, name: &'static str, peer: Peer) -> Self {
        Self {
            name,
            peer: Some(peer),
            folder: bench.scratch(&format!("journal-{name}")),
            ..Self::ours(bench)
        }
    }

    /// Systems that write all of the table for a part of it are asked for the days alone.
    fn slow(&self) -> bool {
        matches!(self.name, "delta-rs" | "pyspark")
    }

    fn lake(&self) -> Result<&Lake> {
        Ok(self.lake.as_ref().ok_or("the lake is not open")?)
    }

    async fn load(&mut self, bench: &Bench, base: &Path) -> Result<()> {
        if let Some(peer) = &mut self.peer {
            let request = json!({"op": "journal_load", "source": base, "folder": self.folder});
            peer.ask(&with_options(bench, request))?;
            return Ok(());
        }
        let lake = Lake::open(&self.folder, &bench.settings).await?;
        lake.run(CREATE).await?;
        lake.write(&insert(&base.join("*.parquet"))?).await?;
        lake.settle().await;
        self.lake = Some(lake);
        Ok(())
    }

    /// A batch of changes: how long it took, and the bytes by which the folder has grown.
    async fn change(&mut self, file: &Path) -> Result<Run> {
        let before = sizes(&self.folder)?;
        let sample = match &mut self.peer {
            Some(peer) => peer.time(&json!({"op": "journal_day", "source": file}))?.0,
            None => timed(self.lake()?.write(&insert(file)?)).await?.0,
        };
        // Before upkeep in the background adds to it.
        let bytes = written(&before, &sizes(&self.folder)?);
        if let Some(lake) = &self.lake {
            lake.settle().await;
        }
        Ok(Run { sample, bytes })
    }

    async fn day(&mut self, file: &Path) -> Result<()> {
        let run = self.change(file).await?;
        self.days.push(run);
        Ok(())
    }

    /// What is current by this system is what the source says.
    async fn agrees(&mut self, source: &Source) -> Result<()> {
        let found = match &mut self.peer {
            Some(peer) => {
                let answer = peer.ask(&json!({"op": "journal_sum"}))?;
                (answer["rows"].as_i64(), answer["sum"].as_i64())
            }
            None => {
                let lake = self.lake()?;
                (
                    Some(integer(lake, "SELECT count(*) FROM j").await?),
                    Some(integer(lake, "SELECT sum(score) FROM j").await?),
                )
            }
        };
        let (rows, sum) = source.expected();
        match found == (Some(rows), Some(sum)) {
            true => Ok(()),
            false => Err(format!(
                "{NAME}: {} has {found:?} where {rows} rows of {sum} belong",
                self.name
            )
            .into()),
        }
    }

    /// Milliseconds of a question, asked often.
    async fn ask(&mut self, question: &Question, source: &Source) -> Result<Vec<f64>> {
        let mut millis = Vec::new();
        for number in 0..TIMES as u64 {
            let key = mixed(number) % source.rows;
            let sample = match &mut self.peer {
                Some(peer) => {
                    let request = json!({"op": "journal_query", "kind": question.kind, "key": key, "at": question.at});
                    peer.time(&request)?.0
                }
                None => {
                    let sql = question.sql.replace("{key}", &key.to_string());
                    timed(self.lake()?.rows(&sql)).await?.0
                }
            };
            millis.push(sample.wall * 1e3);
        }
        Ok(millis)
    }
}

fn insert(file: &Path) -> Result<String> {
    Ok(format!("INSERT INTO j SELECT * FROM '{}'", text(file)?))
}

async fn integer(lake: &Lake, sql: &str) -> Result<i64> {
    let batches = lake.rows(sql).await?;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1);
    let batch = batch.ok_or_else(|| format!("{sql}: no answer"))?;
    let column = cast(batch.column(0), &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().value(0))
}

fn keep_days(bench: &Bench, report: &mut Report, systems: &[System], batches: &[f64]) {
    for system in systems {
        let samples: Vec<Sample> = system.days.iter().map(|run| run.sample).collect();
        report.times(NAME, "a day", system.name, &samples);
        let cpu = samples.iter().map(|sample| sample.cpu * 1e3).collect();
        report.numbers(NAME, "a day, cpu", system.name, Unit::Millis, cpu);
        let bytes = system.days.iter().map(|run| megabytes(run.bytes)).collect();
        report.numbers(NAME, "a day, written", system.name, Unit::Megabytes, bytes);
        for (case, sample) in [("day 1", samples.first()), ("last day", samples.last())] {
            report.times(
                NAME,
                case,
                system.name,
                &sample.copied().into_iter().collect::<Vec<_>>(),
            );
        }
    }
    report.numbers(
        NAME,
        "a day, written",
        BATCH_FILE,
        Unit::Megabytes,
        batches.to_vec(),
    );
    let ours = report.median(NAME, "a day", OURS);
    for (target, limit, peer) in [
        ("journal_day_vs_ducklake", 0.6, "ducklake"),
        ("journal_day_vs_duckdb", 1.0, "duckdb"),
        ("journal_day_vs_delta_rs", 1.0 / 12.0, "delta-rs"),
        ("journal_day_vs_pyspark", 1.0 / 45.0, "pyspark"),
    ] {
        report.target(target, limit, ours / report.median(NAME, "a day", peer));
    }
    let bytes = |system| report.median(NAME, "a day, written", system);
    let ratio = bytes(OURS) / bytes(BATCH_FILE);
    report.target("journal_bytes_vs_batch", 2.5, ratio);
    let growth = report.median(NAME, "last day", OURS) / report.median(NAME, "day 1", OURS);
    report.target(
        format!("journal_day_{}_vs_day_1", bench.args.days),
        1.15,
        growth,
    );
}

// ---- Reads ----

/// A question, in our words and by the name that peers know.
struct Question {
    kind: &'static str,
    sql: String,
    at: i64,
}

fn questions() -> Vec<Question> {
    // The end of the fifth day.
    let at = FIRST + 5 * DAY_MICROS + DAY_MICROS / 2;
    let ask = |kind, sql: &str| Question {
        kind,
        sql: sql.to_owned(),
        at,
    };
    vec![
        ask("current aggregate", &format!("{AGGREGATE} j GROUP BY city")),
        ask(
            "as of aggregate",
            &format!(
                "{AGGREGATE} j FOR VALID_TIME AS OF TIMESTAMP '2026-01-06 12:00:00' GROUP BY city"
            ),
        ),
        ask("key, current", "SELECT * FROM j WHERE k = {key}"),
        ask(
            "key, history",
            "SELECT * FROM j FOR VALID_TIME ALL WHERE k = {key} ORDER BY valid_from",
        ),
    ]
}

async fn reads(
    report: &mut Report,
    systems: &mut [System],
    source: &Source,
    after: &str,
) -> Result<()> {
    for question in questions() {
        let case = format!("{}{after}", question.kind);
        for system in systems.iter_mut() {
            let millis = system.ask(&question, source).await?;
            report.numbers(NAME, &case, system.name, Unit::Millis, millis);
        }
    }
    // The same rows as a table that has no history.
    let ours = systems.first_mut().ok_or("no system")?;
    ours.lake()?.run("DROP TABLE IF EXISTS fresh").await?;
    ours.lake()?
        .run("CREATE TABLE fresh AS SELECT * FROM j")
        .await?;
    ours.lake()?.settle().await;
    let question = Question {
        kind: "current aggregate",
        sql: format!("{AGGREGATE} fresh GROUP BY city"),
        at: 0,
    };
    let millis = ours.ask(&question, source).await?;
    let case = format!("current aggregate{after}");
    report.numbers(NAME, &case, FRESH, Unit::Millis, millis);
    let of = |kind: &str, system| report.median(NAME, &format!("{kind}{after}"), system);
    let (current, fresh) = (
        of("current aggregate", OURS),
        of("current aggregate", FRESH),
    );
    let lookups = [of("key, current", OURS), of("key, history", OURS)];
    let (as_of, ducklake) = (
        of("as of aggregate", OURS),
        report.median(NAME, "as of aggregate", "ducklake"),
    );
    let suffix = if after.is_empty() { "" } else { "_100_days" };
    report.target(
        format!("journal_current_vs_fresh{suffix}"),
        1.3,
        current / fresh,
    );
    for (what, millis) in ["current", "history"].into_iter().zip(lookups) {
        report.target(format!("journal_key_{what}_ms{suffix}"), 15.0, millis);
    }
    report.target(
        format!("journal_as_of_vs_ducklake{suffix}"),
        1.0,
        as_of / ducklake,
    );
    Ok(())
}

// ---- Ourselves alone ----

async fn one_key(report: &mut Report, ours: &mut System, source: &mut Source) -> Result<()> {
    let mut cpu = Vec::new();
    for _ in 0..TIMES {
        let file = source.one()?;
        cpu.push(ours.change(&file).await?.sample.cpu * 1e3);
    }
    report.target("journal_one_key_cpu_ms", 50.0, median(&cpu));
    report.numbers(NAME, "one key, cpu", OURS, Unit::Millis, cpu);
    ours.agrees(source).await
}

/// Many days with upkeep in the background: all that was written, beside what the days themselves wrote.
async fn long(
    bench: &Bench,
    report: &mut Report,
    ours: &mut System,
    source: &mut Source,
) -> Result<()> {
    let before = sizes(&ours.folder)?;
    let mut days = 0;
    let mut samples = Vec::new();
    for _ in 0..bench.args.long_days {
        let file = source.day(1)?;
        let run = ours.change(&file).await?;
        days += run.bytes;
        samples.push(run.sample);
        std::fs::remove_file(file)?;
    }
    ours.agrees(source).await?;
    let broken = ours.lake()?.rows("CHECK JOURNAL j").await?;
    if broken.iter().any(|batch| batch.num_rows() > 0) {
        return Err(format!("{NAME}: CHECK JOURNAL finds {broken:?}").into());
    }
    // Nothing is vacuumed meanwhile, so what the folder has grown by is all that was ever written.
    let all = written(&before, &sizes(&ours.folder)?);
    report.times(NAME, "a day of many", OURS, &samples);
    report.target(
        "journal_amplification",
        4.0,
        all as f64 / days.max(1) as f64,
    );
    Ok(())
}

/// The most memory that a day takes, in a process of its own.
fn memory(bench: &Bench, report: &mut Report, base: &Path, source: &Source) -> Result<()> {
    let program = match bench.program() {
        Ok(program) => program,
        Err(missing) => {
            report.absent(format!("peak memory of {OURS}: {missing}"));
            return Ok(());
        }
    };
    let lake = bench.scratch("journal-peak");
    let start = |sql: &str| -> Result<Command> {
        let mut command = Command::new(&program);
        command.args([text(&lake)?, "-c", sql]);
        Ok(command)
    };
    let load = insert(&base.join("*.parquet"))?;
    peak_megabytes(&mut start(CREATE)?)?;
    let loaded = peak_megabytes(&mut start(&load)?)?;
    let mut days = Vec::new();
    for day in 1..=bench.args.days.min(3) {
        let file = source.of_day(day);
        days.push(peak_megabytes(&mut start(&insert(&file)?)?)?);
    }
    report.target("journal_day_peak_mb", 1_000.0, median(&days));
    report.numbers(NAME, "a day, peak", OURS, Unit::Megabytes, days);
    report.numbers(NAME, "all keys, peak", OURS, Unit::Megabytes, vec![loaded]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut source = Source::new(10_000, folder.path().to_owned());
        assert_eq!(source.expected().0, 10_000);
        source.day(1).unwrap();
        // Ten are new, and ten are gone.
        assert_eq!(source.expected().0, 10_000);
        assert_eq!(source.versions.len(), 10_010);
        assert_eq!(
            source
                .versions
                .iter()
                .filter(|changes| **changes > 0)
                .count(),
            100
        );
        assert_eq!(source.alive.iter().filter(|alive| !**alive).count(), 10);
    }
}
