//! Many rows into one new version of an empty table, beside writers that only make Parquet files.
//!
//! All read the same files and compress with the same codec and level. Ours also syncs its files and commits.

use std::path::{Path, PathBuf};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::UInt64Type;
use datafusion::parquet::basic::{Compression, Type};
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use crate::data::{CODEC, CODEC_LEVEL};
use crate::measure::{Sample, timed};
use crate::ours::{Lake, datafusion, register, text};
use crate::peers::Peer;
use crate::report::Report;
use crate::{Bench, Result, data};

const NAME: &str = "bulk";
const COPY: &str = "datafusion copy";
const OURS: &str = "selvedge insert";

/// One set of rows and where they are.
struct Case<'a> {
    name: &'a str,
    source: &'a Path,
    context: SessionContext,
    lake: Lake,
    rows: u64,
}

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let lineitem = data::tpch(&bench.data, bench.args.scale)?.join("lineitem");
    let wide = data::wide(&bench.data, bench.args.rows)?;
    for (name, source) in [("wide", &wide), ("lineitem", &lineitem)] {
        let case = Case::open(bench, name, source).await?;
        let (copy, ours) = measure(bench, report, &case).await?;
        report.target(format!("bulk_{name}_vs_copy"), 1.15, ours / copy);
    }
    Ok(())
}

impl<'a> Case<'a> {
    async fn open(bench: &Bench, name: &'a str, source: &'a Path) -> Result<Self> {
        let context = datafusion(&bench.settings)?;
        register(&context, "source", source).await?;
        let rows = context.table("source").await?.count().await? as u64;
        let lake = Lake::open(&bench.scratch(&format!("lake-{name}")), &bench.settings).await?;
        Ok(Self {
            name,
            source,
            context,
            lake,
            rows,
        })
    }

    /// DataFusion's own writer: no log, no sync.
    async fn copy(&self, to: &Path) -> Result<Sample> {
        let sql = format!(
            "COPY source TO '{}/' STORED AS PARQUET OPTIONS ('format.compression' '{CODEC}({CODEC_LEVEL})')",
            text(to)?
        );
        let (sample, answer) =
            timed(async { Ok(self.context.sql(&sql).await?.collect().await?) }).await?;
        let rows = answer
            .iter()
            .map(|batch| batch.column(0).as_primitive::<UInt64Type>().value(0))
            .sum();
        self.expect(COPY, rows)?;
        std::fs::remove_dir_all(to)?;
        Ok(sample)
    }

    /// One INSERT into an empty table of ours.
    async fn insert(&self) -> Result<Sample> {
        let source = text(self.source)?;
        self.lake
            .run(&format!(
                "CREATE TABLE t AS SELECT * FROM '{source}/*.parquet' WHERE false"
            ))
            .await?;
        let insert = format!("INSERT INTO t SELECT * FROM '{source}/*.parquet'");
        let (sample, written) = timed(self.lake.write(&insert)).await?;
        self.expect(OURS, written.rows_written)?;
        let counted = self
            .lake
            .rows("SELECT CAST(count(*) AS BIGINT UNSIGNED) FROM t")
            .await?;
        let counted = counted
            .iter()
            .map(|batch| batch.column(0).as_primitive::<UInt64Type>().value(0))
            .sum();
        self.expect(OURS, counted)?;
        Ok(sample)
    }

    fn expect(&self, system: &str, rows: u64) -> Result<()> {
        if rows == self.rows {
            Ok(())
        } else {
            Err(format!("{}: {system} wrote {rows} rows of {}", self.name, self.rows).into())
        }
    }
}

/// Medians of the copy and of our insert, in seconds.
async fn measure(bench: &Bench, report: &mut Report, case: &Case<'_>) -> Result<(f64, f64)> {
    let to = bench.scratch(&format!("peer-{}", case.name));
    let threads = bench.settings.target_partitions;
    let duckdb = Peer::start(bench, report, "duckdb", "duckdb_peer")?;
    let delta = Peer::start(bench, report, "delta-rs", "delta_peer")?;
    let files = json!({"source": case.source, "to": to, "codec": CODEC, "level": CODEC_LEVEL});
    let table = json!({"source": case.source, "to": to, "threads": threads});
    let mut peers = Peers { duckdb, delta };

    let mut samples: [Vec<Sample>; 5] = Default::default();
    for round in 0..=bench.args.rounds {
        for turn in 0..samples.len() {
            let system = (round + turn) % samples.len();
            let sample = match system {
                0 => Some(case.copy(&bench.scratch("copy")).await?),
                1 => Some(case.insert().await?),
                2 => ask(case, peers.delta.as_mut(), "write", &files, None)?,
                3 => ask(case, peers.duckdb.as_mut(), "copy", &files, Some(threads))?,
                _ => ask(case, peers.duckdb.as_mut(), "create_table", &table, None)?,
            };
            if system == 1 {
                check_codec(&bench.scratch(&format!("lake-{}", case.name)))?;
                case.lake.settle().await;
                case.lake.run("DROP TABLE t").await?;
            }
            // The first round warms up.
            if round > 0 {
                samples[system].extend(sample);
            }
        }
    }
    let names = [COPY, OURS, "delta-rs write", "duckdb copy", "duckdb table"];
    for (name, samples) in names
        .into_iter()
        .zip(&samples)
        .filter(|(_, samples)| !samples.is_empty())
    {
        report.times(NAME, case.name, name, samples);
    }
    Ok((
        report.median(NAME, case.name, COPY),
        report.median(NAME, case.name, OURS),
    ))
}

struct Peers {
    duckdb: Option<Peer>,
    delta: Option<Peer>,
}

fn ask(
    case: &Case<'_>,
    peer: Option<&mut Peer>,
    op: &str,
    arguments: &Value,
    threads: Option<usize>,
) -> Result<Option<Sample>> {
    let Some(peer) = peer else { return Ok(None) };
    let mut request = arguments.clone();
    request["op"] = op.into();
    if let Some(threads) = threads {
        request["threads"] = threads.into();
    }
    let (sample, rows) = peer.time(&request)?;
    case.expect(peer.name, rows)?;
    Ok(Some(sample))
}

/// Nothing is compared with files that are compressed less, but for whole numbers, which the engine packs itself where
/// that takes no more. The level is not in a file: it is the engine's default.
fn check_codec(lake: &Path) -> Result<()> {
    for path in parquet_under(lake)? {
        let reader = SerializedFileReader::new(std::fs::File::open(&path)?)?;
        let groups = reader.metadata().row_groups();
        let codecs = groups
            .iter()
            .flat_map(|group| group.columns())
            .map(|column| (column.compression(), column.column_type()));
        let allowed = |codec, values| match codec {
            Compression::ZSTD(_) => true,
            Compression::UNCOMPRESSED => matches!(values, Type::INT32 | Type::INT64),
            _ => false,
        };
        if let Some((other, _)) = codecs
            .into_iter()
            .find(|(codec, values)| !allowed(*codec, *values))
        {
            return Err(format!(
                "{}: compressed with {other}, the peers with {CODEC}",
                path.display()
            )
            .into());
        }
    }
    Ok(())
}

fn parquet_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("_delta_log") {
            found.extend(parquet_under(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            found.push(path);
        }
    }
    Ok(found)
}
