//! What forgetting costs: the same rows into a new table as they are, with 100,000 keys whose cells are taken away and
//! 10,000 whose rows are left out, and with ten rules besides; then a thousand keys of a table that is there.
//!
//! As in `quality`, each system is compared with itself. Peers do as their users must: they join the rows with the
//! lists in a query before the write (DuckDB, DuckLake, polars), or merge the lists into the new table (delta-rs).
//! Ours asks in the write itself.

use std::path::{Path, PathBuf};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, UInt64Type};
use serde_json::{Value, json};

use super::quality::{CONDITIONS, PEERS, checks, rules};
use crate::data::{CODEC, CODEC_LEVEL};
use crate::measure::{Sample, timed};
use crate::ours::{Lake, text};
use crate::peers::Peer;
use crate::report::{Report, Unit};
use crate::{Bench, Result, data};

const NAME: &str = "cleanse";
const REST: &str = "cleanse at rest";
const OURS: &str = "selvedge";
/// The writes of each system.
const WRITES: [&str; 3] = ["as they are", "cleansed", "and ten rules"];
const PLAIN: &str = WRITES[0];
const RULES: &str = WRITES[2];

/// Lists of clients by name, number of keys, and the first and the step of them. No client is on both.
const LISTS: [(&str, u64, u64, u64); 2] =
    [("nullified", 100_000, 3, 10), ("erased", 10_000, 7, 100)];
const POLICIES: [&str; 2] = [
    "CREATE CLEANSE POLICY cells ON t KEY (client_id) IN (SELECT client_id FROM nullified) NULLIFY (note, country)",
    "CREATE CLEANSE POLICY gone ON t KEY (client_id) IN (SELECT client_id FROM erased) DELETE ROWS",
];

/// Writes of the table whose keys are erased at rest: each brings files of its own.
const WRITTEN_IN: u64 = 40;
/// Keys erased at rest.
const KEYS: u64 = 1_000;

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let source = data::wide(&bench.data, bench.args.rows)?;
    let lake = Lake::open(&bench.scratch("lake-cleanse"), &bench.settings).await?;
    let lists = lists(bench, &lake).await?;
    let left = left(&lake, &source).await?;
    let case = Case {
        bench,
        source: &source,
        lists: &lists,
        left,
    };
    let mut peers = Vec::new();
    for (name, script) in PEERS {
        peers.extend(Peer::start(bench, report, name, script)?);
    }

    let mut runs: Vec<[Vec<Sample>; 3]> = (0..=peers.len()).map(|_| Default::default()).collect();
    for round in 0..=bench.args.rounds {
        // Every write of every system in turn, so that a slow minute of the machine meets them all alike.
        for turn in 0..runs.len() * WRITES.len() {
            let at = (round + turn) % (runs.len() * WRITES.len());
            let (system, write) = (at / WRITES.len(), at % WRITES.len());
            let sample = match system {
                0 => case.ours(&lake, write).await?,
                peer => case.ask(&mut peers[peer - 1], write)?,
            };
            // The first round warms up.
            if round > 0 {
                runs[system][write].push(sample);
            }
        }
    }
    let names = std::iter::once(OURS).chain(peers.iter().map(|peer| peer.name));
    for (name, writes) in names.zip(&runs) {
        for (write, samples) in WRITES.into_iter().zip(writes) {
            report.times(NAME, name, write, samples);
            let cpu = samples.iter().map(|sample| sample.cpu * 1e3).collect();
            report.numbers(NAME, &format!("{name}, cpu"), write, Unit::Millis, cpu);
        }
    }
    let plain = report.median(NAME, OURS, PLAIN);
    report.target(
        "cleanse_with_ten_rules",
        1.15,
        report.median(NAME, OURS, RULES) / plain,
    );
    at_rest(bench, report, &lake, &source).await
}

/// The lists as tables of the lake, and as files for the peers.
async fn lists(bench: &Bench, lake: &Lake) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (name, keys, first, step) in LISTS {
        let rows = format!(
            "SELECT value * {step} + {first} AS client_id FROM generate_series(0, {})",
            keys - 1
        );
        let file = bench.scratch(&format!("{name}.parquet"));
        lake.run(&format!("CREATE TABLE {name} AS {rows}")).await?;
        lake.run(&format!(
            "COPY ({rows}) TO '{}' STORED AS PARQUET",
            text(&file)?
        ))
        .await?;
        files.push(file);
    }
    Ok(files)
}

/// How many rows are left when the lists have been heeded, and of how many of them cells are gone.
async fn left(lake: &Lake, source: &Path) -> Result<Left> {
    let [(_, _, nullified, every), (_, _, erased, each)] = LISTS;
    let counts = format!(
        "SELECT count(*) FILTER (WHERE client_id % {each} <> {erased}) AS kept, \
         count(*) FILTER (WHERE client_id % {every} = {nullified}) AS cells FROM '{}/*.parquet'",
        text(source)?
    );
    let batches = lake.rows(&counts).await?;
    let count = |column: usize| -> Result<u64> {
        let batch = batches.iter().find(|batch| batch.num_rows() == 1);
        let batch: &RecordBatch = batch.ok_or("no counts of the source")?;
        let value = batch.column(column).as_primitive::<Int64Type>().value(0);
        Ok(u64::try_from(value)?)
    };
    Ok(Left {
        rows: count(0)?,
        nullified: count(1)?,
    })
}

#[derive(Clone, Copy)]
struct Left {
    rows: u64,
    nullified: u64,
}

struct Case<'a> {
    bench: &'a Bench,
    source: &'a Path,
    lists: &'a [PathBuf],
    left: Left,
}

impl Case<'_> {
    async fn ours(&self, lake: &Lake, write: usize) -> Result<Sample> {
        let source = text(self.source)?;
        let cleansed = WRITES[write] != PLAIN;
        let create = format!("CREATE TABLE t AS SELECT * FROM '{source}/*.parquet' WHERE false");
        lake.run(&create).await?;
        if cleansed {
            for policy in POLICIES {
                lake.run(policy).await?;
            }
        }
        if WRITES[write] == RULES {
            for (name, expect) in rules(self.left.rows, false) {
                let add = format!("ALTER TABLE t ADD CONSTRAINT \"{name}\" EXPECT ({expect})");
                lake.run(&add).await?;
            }
        }
        let insert = format!("INSERT INTO t SELECT * FROM '{source}/*.parquet'");
        let (sample, report) = timed(lake.write(&insert)).await?;
        self.expect(OURS, write, report.rows_written)?;
        let matched: Vec<_> = report.policies.iter().map(|one| one.rows_matched).collect();
        let erased = self.bench.args.rows - self.left.rows;
        if cleansed && matched != [self.left.nullified, erased] {
            return Err(format!("cleanse: {OURS} matched {matched:?} rows").into());
        }
        lake.settle().await;
        lake.run("DROP TABLE t").await?;
        Ok(sample)
    }

    fn expect(&self, system: &str, write: usize, rows: u64) -> Result<()> {
        let expected = if WRITES[write] == PLAIN {
            self.bench.args.rows
        } else {
            self.left.rows
        };
        if rows == expected {
            Ok(())
        } else {
            Err(format!("cleanse: {system} wrote {rows} rows of {expected}").into())
        }
    }

    /// Peers check what comes, so they are asked for as many rows as there are.
    fn ask(&self, peer: &mut Peer, write: usize) -> Result<Sample> {
        let cleansed = WRITES[write] != PLAIN;
        let ruled = WRITES[write] == RULES;
        let request = json!({
            "op": "checked_write",
            "source": self.source,
            "to": self.bench.scratch(&format!("cleanse-{}", peer.name)),
            "threads": self.bench.settings.target_partitions,
            "codec": CODEC,
            "level": CODEC_LEVEL,
            "lists": if cleansed { json!(self.lists) } else { Value::Null },
            "checks": if ruled { checks(self.bench.args.rows, false) } else { json!([]) },
            "conditions": if ruled { json!(CONDITIONS) } else { json!([]) },
        });
        let (sample, rows) = peer.time(&request)?;
        self.expect(peer.name, write, rows)?;
        Ok(sample)
    }
}

/// A thousand keys of a table of many files: those of one time, and those of all times.
async fn at_rest(bench: &Bench, report: &mut Report, lake: &Lake, source: &Path) -> Result<()> {
    let source = text(source)?;
    let rows = bench.args.rows;
    let share = rows.div_ceil(WRITTEN_IN);
    let step = (rows / KEYS).max(1);
    for (case, keys, limit) in [
        ("keys of one file", "value".to_owned(), Some(0.06)),
        ("scattered keys", format!("value * {step}"), None),
    ] {
        lake.run(&format!(
            "CREATE TABLE t AS SELECT * FROM '{source}/*.parquet' WHERE false"
        ))
        .await?;
        lake.run("ALTER TABLE t SET TBLPROPERTIES ('selvedge.autoOptimize' = 'false')")
            .await?;
        for part in 0..WRITTEN_IN {
            let (from, to) = (part * share, (part + 1) * share);
            let insert = format!(
                "INSERT INTO t SELECT * FROM '{source}/*.parquet' WHERE order_id >= {from} AND order_id < {to}"
            );
            lake.write(&insert).await?;
        }
        lake.settle().await;
        lake.run(&format!(
            "CREATE TABLE asked AS SELECT {keys} AS order_id FROM generate_series(0, {})",
            KEYS - 1
        ))
        .await?;
        lake.run("CREATE CLEANSE POLICY forget ON t KEY (order_id) IN (SELECT order_id FROM asked) NULLIFY (note, country)")
            .await?;
        let before = "SELECT CAST(sum(size_bytes) AS BIGINT UNSIGNED) AS bytes, \
                      CAST(count(*) AS BIGINT UNSIGNED) AS files FROM \"t$files\"";
        let before = lake.rows(before).await?;
        let (bytes, all) = (number(&before, "bytes")?, number(&before, "files")?);
        let (sample, done) = timed(lake.rows("CLEANSE TABLE t")).await?;
        let (nullified, written) = (
            number(&done, "rows_nullified")?,
            number(&done, "bytes_written")?,
        );
        if nullified != KEYS.min(rows) {
            return Err(format!("cleanse: {nullified} rows of {KEYS} keys were cleansed").into());
        }
        let files = number(&done, "files_rewritten")?;
        let case = format!("{case}, {files} of {all} files");
        for (what, bytes) in [("table", bytes), ("rewritten", written)] {
            let megabytes = vec![bytes as f64 / 1e6];
            report.numbers(REST, &case, what, Unit::Megabytes, megabytes);
        }
        report.times(REST, &format!("{case}, time"), "rewritten", &[sample]);
        if let Some(limit) = limit {
            report.target(
                "cleanse_at_rest_bytes",
                limit,
                written as f64 / bytes as f64,
            );
        }
        lake.settle().await;
        lake.run("DROP TABLE t").await?;
        lake.run("DROP TABLE asked").await?;
    }
    Ok(())
}

/// A column of the only row.
fn number(batches: &[RecordBatch], column: &str) -> Result<u64> {
    let batch = batches.iter().find(|batch| batch.num_rows() == 1);
    let values = batch.and_then(|batch| batch.column_by_name(column));
    let values = values.and_then(|values| values.as_primitive_opt::<UInt64Type>());
    let values = values.ok_or_else(|| format!("no row with a number {column}"))?;
    Ok(values.value(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_is_on_both_lists() {
        let [(_, keys, first, step), (_, others, other, each)] = LISTS;
        let nullified: std::collections::HashSet<_> =
            (0..keys).map(|key| key * step + first).collect();
        assert!((0..others).all(|key| !nullified.contains(&(key * each + other))));
    }
}
