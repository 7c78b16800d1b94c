//! The 22 queries of TPC-H: plain Parquet files in DataFusion and DuckDB, our tables, and our tables with one row
//! in a hundred deleted by deletion vectors.

use std::path::Path;

use datafusion::prelude::SessionContext;
use serde_json::json;

use crate::compare::same_rows;
use crate::measure::{Sample, timed};
use crate::ours::{Lake, count, datafusion, register, text};
use crate::peers::Peer;
use crate::report::Report;
use crate::{Bench, Result, data, deletes};

const NAME: &str = "tpch";
const DATAFUSION: &str = "datafusion parquet";
const OURS: &str = "selvedge";
const DELETED: &str = "selvedge 1 % deleted";

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let source = data::tpch(&bench.data, bench.args.scale)?;
    let reference = datafusion(&bench.settings)?;
    for table in data::TPCH_TABLES {
        register(&reference, table, &source.join(table)).await?;
    }
    let lake = load(bench, &source, "lake").await?;
    let deleted = {
        drop(load(bench, &source, "lake-deleted").await?);
        let folder = bench.scratch("lake-deleted");
        eprintln!(
            "deleted {} rows by deletion vectors",
            deletes::delete(&folder)?
        );
        Lake::open(&folder, &bench.settings).await?
    };
    let mut duckdb = Peer::start(bench, report, "duckdb parquet", "duckdb_peer")?;
    if let Some(duckdb) = &mut duckdb {
        let folders: serde_json::Map<_, _> = data::TPCH_TABLES
            .iter()
            .map(|table| ((*table).to_owned(), json!(source.join(table))))
            .collect();
        duckdb.ask(&json!({"op": "tables", "tables": folders, "threads": bench.settings.target_partitions}))?;
    }

    let after_deletes = without_deleted(bench, &source).await?;
    for number in chosen(&bench.args.queries) {
        let sql = query(number, bench.args.scale)?;
        let case = format!("q{number:02}");
        check(&case, &sql, &reference, &lake, duckdb.as_mut()).await?;
        let expected = after_deletes.sql(&sql).await?.collect().await?;
        same_rows(
            &format!("{case}, {DELETED}"),
            &deleted.rows(&sql).await?,
            &expected,
        )?;
        measure(
            bench,
            report,
            &case,
            &sql,
            (&reference, &lake, &deleted),
            duckdb.as_mut(),
        )
        .await?;
    }
    let total = |system| report.total(NAME, system);
    let (plain, ours, with_vectors) = (total(DATAFUSION), total(OURS), total(DELETED));
    report.target("tpch_vs_parquet", 1.05, ours / plain);
    report.target("tpch_deleted_vs_parquet", 1.25, with_vectors / plain);
    Ok(())
}

/// A lake whose tables were written by our own engine, closed and opened again so that nothing is warm for it alone.
async fn load(bench: &Bench, source: &Path, name: &str) -> Result<Lake> {
    let folder = bench.scratch(name);
    let lake = Lake::open(&folder, &bench.settings).await?;
    for table in data::TPCH_TABLES {
        let files = source.join(table);
        lake.run(&format!(
            "CREATE TABLE {table} AS SELECT * FROM '{}/*.parquet'",
            text(&files)?
        ))
        .await?;
    }
    lake.settle().await;
    drop(lake);
    Lake::open(&folder, &bench.settings).await
}

/// DataFusion over the rows that the deletion vectors leave: what the second lake must answer.
async fn without_deleted(bench: &Bench, source: &Path) -> Result<SessionContext> {
    let context = datafusion(&bench.settings)?;
    for table in data::TPCH_TABLES {
        let files = format!("{table}_files");
        register(&context, &files, &source.join(table)).await?;
        let kept = deletes::kept(table).unwrap_or_else(|| "true".into());
        context
            .sql(&format!(
                "CREATE VIEW {table} AS SELECT * FROM {files} WHERE {kept}"
            ))
            .await?
            .collect()
            .await?;
    }
    Ok(context)
}

/// All systems must answer alike before any is timed; this is also the round that warms up.
async fn check(
    case: &str,
    sql: &str,
    reference: &SessionContext,
    lake: &Lake,
    duckdb: Option<&mut Peer>,
) -> Result<()> {
    let expected = reference.sql(sql).await?.collect().await?;
    same_rows(case, &lake.rows(sql).await?, &expected)?;
    if let Some(duckdb) = duckdb {
        let (_, rows) = duckdb.time(&json!({"op": "query", "sql": sql}))?;
        if rows != count(&expected) {
            return Err(format!(
                "{case}: duckdb has {rows} rows, datafusion {}",
                count(&expected)
            )
            .into());
        }
    }
    Ok(())
}

async fn measure(
    bench: &Bench,
    report: &mut Report,
    case: &str,
    sql: &str,
    (reference, lake, deleted): (&SessionContext, &Lake, &Lake),
    mut duckdb: Option<&mut Peer>,
) -> Result<()> {
    let mut samples: [Vec<Sample>; 4] = Default::default();
    for round in 0..bench.args.rounds {
        // Another one begins in each round, so that none always runs in the shadow of the same neighbour.
        for turn in 0..samples.len() {
            let system = (round + turn) % samples.len();
            let sample = match system {
                0 => {
                    timed(async { Ok(reference.sql(sql).await?.collect().await?) })
                        .await?
                        .0
                }
                1 => timed(lake.rows(sql)).await?.0,
                2 => timed(deleted.rows(sql)).await?.0,
                _ => match &mut duckdb {
                    Some(duckdb) => duckdb.time(&json!({"op": "query", "sql": sql}))?.0,
                    None => continue,
                },
            };
            samples[system].push(sample);
        }
    }
    let names = [DATAFUSION, OURS, DELETED, "duckdb parquet"];
    for (name, samples) in names
        .into_iter()
        .zip(&samples)
        .filter(|(_, samples)| !samples.is_empty())
    {
        report.times(NAME, case, name, samples);
    }
    Ok(())
}

fn chosen(queries: &[u8]) -> Vec<u8> {
    if queries.is_empty() {
        (1..=22).collect()
    } else {
        queries.to_vec()
    }
}

fn query(number: u8, scale: f64) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("queries/q{number:02}.sql"));
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.replace(":fraction", &format!("{:.12}", 0.0001 / scale)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_engine::Settings;

    #[tokio::test]
    async fn every_query_runs_on_generated_data() {
        let folder = tempfile::tempdir().unwrap();
        let source = data::tpch(folder.path(), 0.01).unwrap();
        let context = datafusion(&Settings::default()).unwrap();
        for table in data::TPCH_TABLES {
            register(&context, table, &source.join(table))
                .await
                .unwrap();
        }
        for number in chosen(&[]) {
            let sql = query(number, 0.01).unwrap();
            let rows = context.sql(&sql).await.unwrap().collect().await.unwrap();
            // These select so little that a hundredth of the data may have nothing for them.
            if ![2, 8, 16, 17, 18, 20, 21].contains(&number) {
                assert!(count(&rows) > 0, "q{number:02} selects nothing");
            }
        }
    }

    #[test]
    fn the_fraction_of_q11_follows_the_scale() {
        assert!(query(11, 10.0).unwrap().contains("* 0.000010000000"));
    }
}
