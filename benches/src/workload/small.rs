//! One row at a time, each insert a durable commit of its own: how long one takes, and whether it takes longer as
//! versions grow in number.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use serde_json::json;

use crate::measure::{median, quantile};
use crate::ours::Lake;
use crate::peers::Peer;
use crate::report::{Report, Unit};
use crate::{Bench, Result};

const NAME: &str = "small";
const OURS: &str = "selvedge";
const FLOOR: &str = "synced files";
/// Windows of versions that are looked at apart.
const WINDOWS: usize = 10;

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let lake = Lake::open(&bench.scratch("lake-small"), &bench.settings).await?;
    lake.run("CREATE TABLE t (id BIGINT, name TEXT, amount DOUBLE)")
        .await?;
    let mut peers = Vec::new();
    for (name, script) in [
        ("delta-rs", "delta_peer"),
        ("duckdb", "duckdb_peer"),
        ("sqlite", "sqlite_peer"),
    ] {
        peers.extend(Peer::start(bench, report, name, script)?);
    }

    let window = bench.args.inserts.div_ceil(WINDOWS).max(1);
    let (mut ours, mut windows) = (Vec::new(), Vec::new());
    for first in (0..bench.args.inserts).step_by(window) {
        let count = window.min(bench.args.inserts - first);
        let case = format!("{} to {}", first + 1, first + count);
        let mut keep = |system, millis: Vec<f64>| {
            report.numbers(
                NAME,
                &format!("{case} p99"),
                system,
                Unit::Millis,
                vec![quantile(&millis, 0.99)],
            );
            report.numbers(NAME, &format!("{case} p50"), system, Unit::Millis, millis);
        };
        let millis = insert(&lake, first, count).await?;
        windows.push(median(&millis));
        ours.extend(&millis);
        keep(OURS, millis);
        keep(FLOOR, floor(&bench.scratch("floor"), count)?);
        for peer in &mut peers {
            let millis = peer.insert(&bench.scratch("small"), first, count)?;
            keep(peer.name, millis);
        }
    }

    report.numbers(NAME, "all p50", OURS, Unit::Millis, vec![median(&ours)]);
    report.numbers(
        NAME,
        "all p99",
        OURS,
        Unit::Millis,
        vec![quantile(&ours, 0.99)],
    );
    read(bench, report, &lake, &mut peers).await?;
    report.target("small_p50_ms", 4.0, median(&ours));
    if let [first, .., last] = windows.as_slice() {
        report.target("small_last_window_vs_first", 1.25, last / first);
    }
    Ok(())
}

async fn insert(lake: &Lake, first: usize, count: usize) -> Result<Vec<f64>> {
    let mut millis = Vec::with_capacity(count);
    for id in first..first + count {
        let sql = format!("INSERT INTO t VALUES ({id}, 'row {id}', {}.5)", id % 100);
        let start = Instant::now();
        lake.write(&sql).await?;
        millis.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(millis)
}

/// What the disk allows: a file synced, its folder synced, a log entry synced, its folder synced.
fn floor(folder: &Path, count: usize) -> Result<Vec<f64>> {
    let log = folder.join("log");
    std::fs::create_dir_all(&log)?;
    let mut millis = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        for place in [folder, &log] {
            let mut file = File::create(place.join("entry"))?;
            file.write_all(&[7; 1_024])?;
            file.sync_all()?;
            File::open(place)?.sync_all()?;
        }
        millis.push(start.elapsed().as_secs_f64() * 1e3);
        std::fs::remove_file(folder.join("entry"))?;
        std::fs::remove_file(log.join("entry"))?;
    }
    Ok(millis)
}

/// Counts the rows in the end: all must be there, and reading so many small files is a cost of its own.
async fn read(bench: &Bench, report: &mut Report, lake: &Lake, peers: &mut [Peer]) -> Result<()> {
    let all = bench.args.inserts as u64;
    let start = Instant::now();
    let answer = lake.rows("SELECT count(*), sum(amount) FROM t").await?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let rows: i64 = answer
        .iter()
        .map(|batch| batch.column(0).as_primitive::<Int64Type>().value(0))
        .sum();
    let mut keep = |system: &'static str, rows: u64, millis| {
        if rows != all {
            return Err(format!("{system} has {rows} rows after {all} inserts"));
        }
        report.numbers(NAME, "count and sum", system, Unit::Millis, vec![millis]);
        Ok(())
    };
    keep(OURS, rows.try_into()?, millis)?;
    for peer in peers {
        let (sample, rows) = peer.time(&json!({"op": "read"}))?;
        keep(peer.name, rows, sample.wall * 1e3)?;
    }
    Ok(())
}
