//! Rows of a large table changed by one statement: one row in a hundred, scattered, and one row alone.
//!
//! Every statement meets a fresh copy of the table in each system, just opened. All start from the same rows and
//! compress with the same codec and level. Ours also syncs its files and commits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::Schema;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use crate::compare::Digest;
use crate::data::{CODEC, CODEC_LEVEL};
use crate::measure::{Sample, timed};
use crate::ours::{Lake, datafusion, register, text};
use crate::peers::Peer;
use crate::report::{Report, Unit};
use crate::{Bench, Result, data};

const NAME: &str = "changes";
const OURS: &str = "selvedge";
const DELTA: &str = "delta-rs";
const DUCKLAKE: &str = "ducklake";
/// The rows that a statement changes, as they are after it (before it, where it deletes them), in one Parquet file.
const ROWS: &str = "the changed rows";
/// The statement that changes a single row.
const POINT: &str = "point delete";

/// A number between 0 and 199 for each row, mixed so that no file, row group or page is without each of them.
const LOT: &str = "order_id * 2654435761 % 4294967296 % 200";

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let source = data::wide(&bench.data, bench.args.rows)?;
    let mut systems = vec![System::new(bench, OURS, None)];
    for (name, script) in [(DELTA, "delta_peer"), (DUCKLAKE, "ducklake_peer")] {
        let peer = Peer::start(bench, report, name, script)?;
        systems.extend(peer.map(|peer| System::new(bench, name, Some(peer))));
    }
    for system in &mut systems {
        system.load(bench, &source).await?;
    }
    let reference = datafusion(&bench.settings)?;
    register(&reference, "wide", &source).await?;
    for change in changes(bench)? {
        let expected = Expected::of(bench, &reference, &change).await?;
        measure(bench, report, &mut systems, &change, &expected).await?;
    }
    Ok(())
}

/// One statement, for those that speak SQL and for the one that does not, and what it means.
struct Change {
    name: &'static str,
    sql: String,
    /// Arguments of delta-rs.
    delta: Value,
    /// Which of the old rows are no more.
    gone: String,
    /// The rows it changes.
    changed: String,
    /// Whether those are rows of the table afterwards.
    stay: bool,
    /// Where they are kept as a file.
    file: PathBuf,
}

fn changes(bench: &Bench) -> Result<Vec<Change>> {
    let rows = bench.args.rows;
    let one_percent = format!("{LOT} IN (3, 103)");
    let one = format!("order_id = {}", rows / 3);
    // Of each pair, one row takes the place of an old one and one is new.
    let key = format!("CASE WHEN {LOT} = 3 THEN order_id ELSE order_id + {rows} END AS order_id");
    let file = |name: &str| bench.scratch(&format!("changed-{name}.parquet"));
    let delete = |name, condition: &str| Change {
        name,
        sql: format!("DELETE FROM t WHERE {condition}"),
        delta: json!({"predicate": condition}),
        gone: condition.to_owned(),
        changed: format!("SELECT * FROM wide WHERE {condition}"),
        stay: false,
        file: file(name),
    };
    let merged = file("merge");
    Ok(vec![
        delete("delete 1 %", &one_percent),
        Change {
            name: "update 1 %",
            sql: format!(
                "UPDATE t SET discount = discount / 2, status = 'changed' WHERE {one_percent}"
            ),
            delta: json!({
                "predicate": one_percent,
                "values": {"discount": "discount / 2", "status": "'changed'"},
            }),
            gone: one_percent.clone(),
            changed: with_new_values("order_id", &one_percent),
            stay: true,
            file: file("update"),
        },
        Change {
            name: "merge 1 %",
            sql: format!(
                "MERGE INTO t USING (SELECT * FROM '{}') AS s ON t.order_id = s.order_id \
                 WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
                text(&merged)?
            ),
            delta: json!({"predicate": "t.order_id = s.order_id", "source": merged}),
            gone: format!("{LOT} = 3"),
            changed: with_new_values(&key, &one_percent),
            stay: true,
            file: merged,
        },
        delete(POINT, &one),
    ])
}

/// The rows of a condition with another key and other values of two columns.
fn with_new_values(key: &str, condition: &str) -> String {
    format!(
        "SELECT {key}, client_id, product_id, quantity, amount, discount / 2 AS discount, 'changed' AS status, \
         country, ordered_at, ds, gift, note FROM wide WHERE {condition}"
    )
}

/// What a statement must do, by DataFusion over the files that all have loaded.
struct Expected {
    changed: u64,
    changed_bytes: u64,
    schema: Schema,
    after: Digest,
}

impl Expected {
    /// Also writes the file of the changed rows.
    async fn of(bench: &Bench, reference: &SessionContext, change: &Change) -> Result<Self> {
        let file = text(&change.file)?;
        reference
            .sql(&format!(
                "COPY ({}) TO '{file}' STORED AS PARQUET OPTIONS (\
                 'format.compression' '{CODEC}({CODEC_LEVEL})', 'format.skip_arrow_metadata' 'true')",
                change.changed
            ))
            .await?
            .collect()
            .await?;
        let context = datafusion(&bench.settings)?;
        context
            .register_parquet("changed", file, Default::default())
            .await?;
        let changed = context.table("changed").await?.count().await? as u64;
        let kept = format!("SELECT * FROM wide WHERE NOT ({})", change.gone);
        let after = match change.stay {
            true => format!("{kept} UNION ALL {}", change.changed),
            false => kept,
        };
        let schema = reference.table("wide").await?.schema().as_arrow().clone();
        let after = reference.sql(&after).await?.execute_stream().await?;
        Ok(Self {
            changed,
            changed_bytes: std::fs::metadata(&change.file)?.len(),
            after: Digest::of(after, &schema).await?,
            schema,
        })
    }
}

/// One of those that take turns.
struct System {
    name: &'static str,
    /// `None` is ourselves.
    peer: Option<Peer>,
    /// The table nobody changes.
    base: PathBuf,
}

/// What one statement took.
struct Run {
    sample: Sample,
    bytes: u64,
}

impl System {
    fn new(bench: &Bench, name: &'static str, peer: Option<Peer>) -> Self {
        Self {
            name,
            peer,
            base: bench.scratch(&format!("base-{name}")),
        }
    }

    async fn load(&mut self, bench: &Bench, source: &Path) -> Result<()> {
        if let Some(peer) = &mut self.peer {
            let load = json!({"op": "load", "source": source, "folder": self.base});
            peer.ask(&with_options(bench, load))?;
            return Ok(());
        }
        let lake = Lake::open(&self.base, &bench.settings).await?;
        let files = text(source)?;
        lake.run(&format!(
            "CREATE TABLE t AS SELECT * FROM '{files}/*.parquet'"
        ))
        .await?;
        lake.settle().await;
        Ok(())
    }

    /// Runs the statement on a copy; `check` also reads the whole table after it.
    async fn change(
        &mut self,
        bench: &Bench,
        change: &Change,
        expected: &Expected,
        check: bool,
    ) -> Result<Run> {
        let folder = bench.scratch("copy");
        copy(&self.base, &folder)?;
        let before = sizes(&folder)?;
        let dump = bench.scratch("dump.parquet");
        let (sample, rows, bytes, after) = match &mut self.peer {
            None => {
                let lake = Lake::open(&folder, &bench.settings).await?;
                // A table that is open knows its version, as the peers' do.
                lake.rows("SELECT * FROM t LIMIT 0").await?;
                let (sample, report) = timed(lake.write(&change.sql)).await?;
                lake.settle().await;
                let bytes = written(&before, &sizes(&folder)?);
                let after = match check {
                    true => {
                        let rows = lake.stream("SELECT * FROM t").await?;
                        Some(Digest::of(rows, &expected.schema).await?)
                    }
                    false => None,
                };
                (sample, report.rows_affected(), bytes, after)
            }
            Some(peer) => {
                peer.ask(&with_options(
                    bench,
                    json!({"op": "open", "folder": folder}),
                ))?;
                let mut request = change.delta.clone();
                request["op"] = "change".into();
                request["sql"] = change.sql.clone().into();
                let (sample, rows) = peer.time(&request)?;
                let bytes = written(&before, &sizes(&folder)?);
                let after = match check {
                    true => {
                        peer.ask(&json!({"op": "dump", "to": dump}))?;
                        Some(digest_of_file(bench, &dump, &expected.schema).await?)
                    }
                    false => None,
                };
                peer.ask(&json!({"op": "close"}))?;
                (sample, rows, bytes, after)
            }
        };
        std::fs::remove_dir_all(&folder)?;
        let (name, system) = (change.name, self.name);
        if rows != expected.changed {
            let expected = expected.changed;
            return Err(
                format!("{name}: {system} changed {rows} rows instead of {expected}").into(),
            );
        }
        match after {
            Some(after) if after != expected.after => {
                let (has, expected) = (after.rows, expected.after.rows);
                Err(format!("{name}: wrong rows in {system}: {has} where {expected} belong").into())
            }
            _ => Ok(Run { sample, bytes }),
        }
    }
}

pub(super) fn with_options(bench: &Bench, mut request: Value) -> Value {
    request["codec"] = CODEC.into();
    request["level"] = CODEC_LEVEL.into();
    request["threads"] = bench.settings.target_partitions.into();
    request
}

async fn digest_of_file(bench: &Bench, file: &Path, schema: &Schema) -> Result<Digest> {
    let context = datafusion(&bench.settings)?;
    let rows = context
        .read_parquet(text(file)?, Default::default())
        .await?;
    let digest = Digest::of(rows.execute_stream().await?, schema).await?;
    std::fs::remove_file(file)?;
    Ok(digest)
}

async fn measure(
    bench: &Bench,
    report: &mut Report,
    systems: &mut [System],
    change: &Change,
    expected: &Expected,
) -> Result<()> {
    let mut runs: Vec<Vec<Run>> = systems.iter().map(|_| Vec::new()).collect();
    for round in 0..=bench.args.rounds {
        for turn in 0..systems.len() {
            let system = (round + turn) % systems.len();
            let run = systems[system]
                .change(bench, change, expected, round == 0)
                .await?;
            // The first round warms up.
            if round > 0 {
                runs[system].push(run);
            }
        }
    }

    let name = change.name;
    let (cpu, bytes) = (format!("{name}, cpu"), format!("{name}, written"));
    for (system, runs) in systems.iter().zip(&runs) {
        let samples: Vec<_> = runs.iter().map(|run| run.sample).collect();
        report.times(NAME, name, system.name, &samples);
        let millis = samples.iter().map(|sample| sample.cpu * 1e3).collect();
        report.numbers(NAME, &cpu, system.name, Unit::Millis, millis);
        let written = runs.iter().map(|run| megabytes(run.bytes)).collect();
        report.numbers(NAME, &bytes, system.name, Unit::Megabytes, written);
    }
    let changed = vec![megabytes(expected.changed_bytes)];
    report.numbers(NAME, &bytes, ROWS, Unit::Megabytes, changed);

    let ours = |case: &str| report.median(NAME, case, OURS);
    if name == POINT {
        let millis = ours(&cpu);
        report.target("changes_point_delete_cpu_ms", 50.0, millis);
        return Ok(());
    }
    let ratio = |case: &str, peer| ours(case) / report.median(NAME, case, peer);
    let ratios = [
        ("vs_delta_rs", 0.2, ratio(name, DELTA)),
        ("vs_ducklake", 1.0, ratio(name, DUCKLAKE)),
        ("bytes_vs_rows", 2.0, ratio(&bytes, ROWS)),
    ];
    let statement = name.split(' ').next().unwrap_or(name);
    for (what, limit, ratio) in ratios {
        report.target(format!("changes_{statement}_{what}"), limit, ratio);
    }
    Ok(())
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A copy of a folder. Its data files are links: nobody writes a Parquet file twice.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&path, &copied)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            std::fs::hard_link(path, copied)?;
        } else {
            std::fs::copy(path, copied)?;
        }
    }
    Ok(())
}

/// The bytes of every file under a folder.
pub(super) fn sizes(folder: &Path) -> Result<HashMap<PathBuf, u64>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(sizes(&entry.path())?);
        } else {
            found.insert(entry.path(), entry.metadata()?.len());
        }
    }
    Ok(found)
}

/// The bytes of new files, and those by which others have grown.
pub(super) fn written(before: &HashMap<PathBuf, u64>, after: &HashMap<PathBuf, u64>) -> u64 {
    let grown = |(path, size): (&PathBuf, &u64)| {
        size.saturating_sub(before.get(path).copied().unwrap_or_default())
    };
    after.iter().map(grown).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_and_growth_are_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (base, to) = (folder.path().join("base"), folder.path().join("copy"));
        std::fs::create_dir_all(base.join("log")).unwrap();
        for (name, bytes) in [("a.parquet", 7), ("log/catalog", 5)] {
            std::fs::write(base.join(name), vec![0; bytes]).unwrap();
        }
        copy(&base, &to).unwrap();
        let before = sizes(&to).unwrap();
        assert_eq!(written(&before, &sizes(&to).unwrap()), 0);
        std::fs::write(to.join("log/catalog"), [0; 6]).unwrap();
        std::fs::write(to.join("log/0"), [0; 10]).unwrap();
        assert_eq!(written(&before, &sizes(&to).unwrap()), 11);
        assert_eq!(
            std::fs::metadata(base.join("log/catalog")).unwrap().len(),
            5
        );
    }
}
