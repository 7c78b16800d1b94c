//! What rules cost a write: the same rows into a new table without rules, with ten, and with a unique key besides.
//!
//! Each system is compared with itself: the columns are its three writes, the first is 1.00. Peers check as their
//! users do: by a query over the source before the write (DuckDB, DuckLake, polars), by constraints for what is about
//! a row and a query over the new table for the rest (delta-rs). Ours asks in the write itself.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::data::{CODEC, CODEC_LEVEL};
use crate::measure::{Sample, median, timed};
use crate::ours::{Lake, text};
use crate::peers::Peer;
use crate::report::{Report, Unit};
use crate::{Bench, Result, data};

const NAME: &str = "quality";
const OURS: &str = "selvedge";
/// The writes of each system.
const WRITES: [&str; 3] = ["no rules", "ten rules", "and a unique key"];
const PLAIN: &str = WRITES[0];
const RULES: &str = WRITES[1];
const UNIQUE: &str = WRITES[2];

/// What peers ask of each row.
pub(super) const CONDITIONS: [&str; 2] = [
    "amount >= 0",
    "status IN ('open', 'paid', 'packed', 'sent', 'returned')",
];

/// Peers by name and script.
pub(super) const PEERS: [(&str, &str); 4] = [
    ("duckdb", "duckdb_peer"),
    ("ducklake", "ducklake_peer"),
    ("delta-rs", "delta_peer"),
    ("polars", "polars_peer"),
];

/// How often a process is asked for the most memory it has held.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let source = data::wide(&bench.data, bench.args.rows)?;
    let lake = Lake::open(&bench.scratch("lake-quality"), &bench.settings).await?;
    let mut peers = Vec::new();
    for (name, script) in PEERS {
        peers.extend(Peer::start(bench, report, name, script)?);
    }

    let mut runs: Vec<[Vec<Run>; 3]> = (0..=peers.len()).map(|_| Default::default()).collect();
    for round in 0..=bench.args.rounds {
        // Every write of every system in turn, so that a slow minute of the machine meets them all alike.
        for turn in 0..runs.len() * WRITES.len() {
            let at = (round + turn) % (runs.len() * WRITES.len());
            let (system, write) = (at / WRITES.len(), at % WRITES.len());
            let run = match system {
                0 => ours(bench, &lake, &source, write).await?,
                peer => ask(bench, &mut peers[peer - 1], &source, write)?,
            };
            // The first round warms up.
            if round > 0 {
                runs[system][write].push(run);
            }
        }
    }

    let names = std::iter::once(OURS).chain(peers.iter().map(|peer| peer.name));
    for (name, writes) in names.zip(&runs) {
        keep(report, name, writes);
    }
    let plain = report.median(NAME, OURS, PLAIN);
    for (target, limit, write) in [
        ("quality_ten_rules", 1.08, RULES),
        ("quality_unique_key", 1.15, UNIQUE),
    ] {
        report.target(target, limit, report.median(NAME, OURS, write) / plain);
    }
    memory(bench, report, &source)?;
    Ok(())
}

/// One write: its time, and the most memory that its process held.
struct Run {
    sample: Sample,
    /// Of peers, which tell it where their system does; ours is measured in processes of their own.
    megabytes: Option<f64>,
}

fn keep(report: &mut Report, system: &str, writes: &[Vec<Run>; 3]) {
    for (write, runs) in WRITES.into_iter().zip(writes) {
        let samples: Vec<Sample> = runs.iter().map(|run| run.sample).collect();
        report.times(NAME, system, write, &samples);
        let cpu = samples.iter().map(|sample| sample.cpu * 1e3).collect();
        let case = format!("{system}, cpu");
        report.numbers(NAME, &case, write, Unit::Millis, cpu);
        let peaks: Vec<f64> = runs.iter().filter_map(|run| run.megabytes).collect();
        if !peaks.is_empty() {
            let case = format!("{system}, peak");
            report.numbers(NAME, &case, write, Unit::Megabytes, peaks);
        }
    }
}

/// Null counts, bounds, a mean within a range, a number of distinct values, a number of rows, and two rules about
/// each row; a key that is unique, where asked. All hold, so that every system writes all rows.
pub(super) fn rules(rows: u64, unique: bool) -> Vec<(&'static str, String)> {
    let mut rules = vec![
        ("key_known", "null_count(order_id) = 0".to_owned()),
        ("time_known", "null_count(ordered_at) = 0".to_owned()),
        (
            "notes",
            "null_fraction(note) BETWEEN 0.05 AND 0.15".to_owned(),
        ),
        ("least", "min(quantity) >= 1".to_owned()),
        ("most", "max(quantity) <= 20".to_owned()),
        ("mean", "avg(amount) BETWEEN 4000 AND 6000".to_owned()),
        (
            "countries",
            "approx_distinct(country) BETWEEN 150 AND 250".to_owned(),
        ),
        ("rows", format!("count(*) = {rows}")),
        ("positive", "amount >= 0".to_owned()),
        (
            "status",
            "status IN ('open', 'paid', 'packed', 'sent', 'returned')".to_owned(),
        ),
    ];
    if unique {
        rules.push(("key", "is_unique(order_id)".to_owned()));
    }
    rules
}

/// The statements that make an empty table with the rules of a write, and the one that fills it. Rules come when the
/// table is there: made from a query without rows, it would not have the number of rows that one of them asks for.
fn statements(bench: &Bench, source: &Path, write: usize) -> Result<(Vec<String>, String)> {
    let source = text(source)?;
    let mut create = vec![format!(
        "CREATE TABLE t AS SELECT * FROM '{source}/*.parquet' WHERE false"
    )];
    if WRITES[write] != PLAIN {
        let rules = rules(bench.args.rows, WRITES[write] == UNIQUE);
        create.extend(rules.iter().map(|(name, expect)| {
            format!("ALTER TABLE t ADD CONSTRAINT \"{name}\" EXPECT ({expect})")
        }));
    }
    let insert = format!("INSERT INTO t SELECT * FROM '{source}/*.parquet'");
    Ok((create, insert))
}

async fn ours(bench: &Bench, lake: &Lake, source: &Path, write: usize) -> Result<Run> {
    let (create, insert) = statements(bench, source, write)?;
    for statement in &create {
        lake.run(statement).await?;
    }
    let (sample, report) = timed(lake.write(&insert)).await?;
    expect(bench, OURS, report.rows_written)?;
    let (asked, expected) = (report.rules.len(), create.len() - 1);
    if asked != expected {
        return Err(format!("quality: {OURS} asked {asked} rules of {expected}").into());
    }
    lake.settle().await;
    lake.run("DROP TABLE t").await?;
    Ok(Run {
        sample,
        megabytes: None,
    })
}

fn expect(bench: &Bench, system: &str, rows: u64) -> Result<()> {
    if rows == bench.args.rows {
        Ok(())
    } else {
        Err(format!("quality: {system} wrote {rows} rows of {}", bench.args.rows).into())
    }
}

/// The checks that peers put into a query: each a condition that all rows together hold. `APPROX(` stands for what the
/// peer calls an estimate of the number of distinct values.
pub(super) fn checks(rows: u64, unique: bool) -> Value {
    let mut checks = vec![
        "count(*) - count(order_id) = 0".to_owned(),
        "count(*) - count(ordered_at) = 0".to_owned(),
        "1.0 * (count(*) - count(note)) / count(*) BETWEEN 0.05 AND 0.15".to_owned(),
        "min(quantity) >= 1".to_owned(),
        "max(quantity) <= 20".to_owned(),
        "avg(amount) BETWEEN 4000 AND 6000".to_owned(),
        "APPROX(country) BETWEEN 150 AND 250".to_owned(),
        format!("count(*) = {rows}"),
    ];
    if unique {
        checks.push("count(DISTINCT order_id) = count(order_id)".to_owned());
    }
    json!(checks)
}

fn ask(bench: &Bench, peer: &mut Peer, source: &Path, write: usize) -> Result<Run> {
    let with = WRITES[write] != PLAIN;
    let rows = bench.args.rows;
    let request = json!({
        "op": "checked_write",
        "source": source,
        "to": bench.scratch(&format!("quality-{}", peer.name)),
        "threads": bench.settings.target_partitions,
        "codec": CODEC,
        "level": CODEC_LEVEL,
        "checks": if with { checks(rows, WRITES[write] == UNIQUE) } else { json!([]) },
        "conditions": if with { json!(CONDITIONS) } else { json!([]) },
    });
    let answer = peer.ask(&request)?;
    let number = |key: &str| {
        answer[key]
            .as_f64()
            .ok_or_else(|| format!("{}: no {key} in {answer}", peer.name))
    };
    expect(bench, peer.name, number("rows")? as u64)?;
    Ok(Run {
        sample: Sample {
            wall: number("seconds")?,
            cpu: number("cpu_seconds")?,
        },
        megabytes: answer["peak_megabytes"].as_f64(),
    })
}

/// The most memory each of our writes holds, in a process of its own: in this one, what earlier writes have left with
/// the allocator would hide it.
fn memory(bench: &Bench, report: &mut Report, source: &Path) -> Result<()> {
    let program = match bench.program() {
        Ok(program) => program,
        Err(missing) => {
            report.absent(format!("peak memory of {OURS}: {missing}"));
            return Ok(());
        }
    };
    let case = format!("{OURS}, peak");
    let mut medians = [0.0; 3];
    for (write, name) in WRITES.into_iter().enumerate() {
        let mut peaks = Vec::new();
        for _ in 0..bench.args.rounds.clamp(1, 3) {
            let folder = bench.scratch("lake-peak");
            let (create, insert) = statements(bench, source, write)?;
            let start = |sql: &str| -> Result<Command> {
                let mut command = Command::new(&program);
                command.args([text(&folder)?, "-c", sql]);
                Ok(command)
            };
            peak_megabytes(&mut start(&create.join("; "))?)?;
            peaks.push(peak_megabytes(&mut start(&insert)?)?);
            std::fs::remove_dir_all(&folder)?;
        }
        medians[write] = median(&peaks);
        report.numbers(NAME, &case, name, Unit::Megabytes, peaks);
    }
    let [plain, with, unique] = medians;
    report.target("quality_ten_rules_peak_mb", 200.0, with - plain);
    // Exact uniqueness keeps eight bytes of each key; the table of keys is at most half empty.
    let keys = bench.args.rows as f64 * 8.0 / 1e6;
    report.target(
        "quality_unique_key_peak_mb",
        200.0 + 3.0 * keys,
        unique - plain,
    );
    Ok(())
}

/// Runs a child to its end; the most memory it held, by what the system says of it while it runs.
pub(super) fn peak_megabytes(command: &mut Command) -> Result<f64> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let looking = std::thread::spawn(move || look(&status));
    let done = child.wait()?;
    let peak = looking.join().map_err(|_| "a look at a process panicked")?;
    if !done.success() {
        return Err(format!("{command:?} failed ({done})").into());
    }
    peak.ok_or_else(|| format!("nobody says how much memory {command:?} held").into())
}

/// The last word of a process on its memory: one that has ended has none.
fn look(status: &str) -> Option<f64> {
    let mut peak = None;
    while let Some(held) = std::fs::read_to_string(status)
        .ok()
        .and_then(|status| high_water(&status))
    {
        peak = Some(held);
        std::thread::sleep(LOOK);
    }
    peak
}

/// `VmHWM` of a process, in millions of bytes.
fn high_water(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?.trim();
    Some(kibibytes.parse::<f64>().ok()? * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_memory_is_read_from_what_the_system_says() {
        let status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t  250000 kB\nVmRSS:\t 10 kB\n";
        assert_eq!(high_water(status), Some(256.0));
        assert_eq!(high_water("Name:\tx\n"), None);
    }

    #[test]
    fn peers_are_asked_as_much_as_we_are() {
        for unique in [false, true] {
            let checks = checks(1, unique);
            // Two of our rules are about a row, and go to the peers as conditions.
            assert_eq!(checks.as_array().unwrap().len() + 2, rules(1, unique).len());
        }
    }
}
