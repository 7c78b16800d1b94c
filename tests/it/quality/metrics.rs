//! Rules about all rows of a write: what they are over, what they are held against, and what is kept of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use selvedge_engine::{
    Engine, Error, ErrorKind, RuleOutcome, Session, Settings, Verdict, WriteContext, WriteHook,
    WriteHookSupplier, WriteReport,
};

use super::{conserved, lines, metric, of, session};
use crate::support::lake::with_settings;
use crate::support::query;

#[tokio::test(flavor = "multi_thread")]
async fn q3_a_rule_about_all_rows_marks_none() {
    let session = session().await;
    query::run(&session, "CREATE TABLE clients (id BIGINT)").await;
    query::write(&session, "INSERT INTO clients VALUES (1), (2)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, client BIGINT, \
         CONSTRAINT key EXPECT (is_unique(id)) ON VIOLATION WARN, \
         CONSTRAINT known EXPECT (client REFERENCES clients (id)) ON VIOLATION QUARANTINE ROW)",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1, 1), (1, 2), (2, 9), (NULL, NULL), (NULL, 1)",
    )
    .await;
    conserved(&report);
    let key = of(&report, "key");
    // One verdict about the rows together; those that hold stay.
    assert_eq!((key.outcome, key.violations), (RuleOutcome::Violated, 1));
    assert_eq!(key.observed, ["is_unique(id) = false"]);
    // A rule with a culprit in each row names it.
    let known = of(&report, "known");
    assert_eq!(
        (known.rows_checked, known.violations, known.nulls),
        (5, 1, 1)
    );
    assert_eq!(
        lines(&session, "SELECT id, client FROM \"t$quarantine\"").await,
        ["2 9"]
    );
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 4);
    // Uniqueness is that of the rows being written, and a repeated NULL repeats nothing.
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1, 1), (NULL, NULL), (NULL, NULL)",
    )
    .await;
    assert_eq!(of(&report, "key").outcome, RuleOutcome::Passed);

    query::run(
        &session,
        "CREATE TABLE keyed (id BIGINT, part TEXT, CONSTRAINT key EXPECT (is_unique(id, part)))",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO keyed VALUES (1, 'a'), (1, 'b'), (2, 'a')",
    )
    .await;
    let error = session
        .execute("INSERT INTO keyed VALUES (1, 'a'), (1, 'b'), (1, 'a')")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"keyed$quarantine\"").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn q4_metrics_of_what_came_and_of_what_was_written() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, \
         CONSTRAINT low EXPECT (a > 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT thirteen EXPECT (a <> 13) ON VIOLATION DROP ROW, \
         CONSTRAINT came EXPECT (count(*) < 10) OVER INPUT, \
         CONSTRAINT went EXPECT (count(*) < 10))",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1), (2), (-1), (13), (NULL)",
    )
    .await;
    conserved(&report);
    assert_eq!(
        (
            of(&report, "came").rows_checked,
            of(&report, "went").rows_checked
        ),
        (5, 3)
    );
    let kept = "SELECT status, over, value FROM \"t$metrics\" WHERE metric = 'count(*)' ORDER BY version NULLS LAST, over";
    assert_eq!(
        lines(&session, kept).await,
        ["accepted input 5", "accepted written 3"]
    );

    // A write that is refused leaves its metrics, apart from the others and without a version.
    let many = "INSERT INTO t SELECT CASE WHEN value > 5 THEN -value ELSE value END FROM generate_series(1, 11)";
    let error = session.execute(many).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("came"), "{error}");
    assert_eq!(
        lines(&session, kept).await,
        [
            "accepted input 5",
            "accepted written 3",
            "blocked input 11",
            "blocked written 5"
        ]
    );
    let verdicts =
        "SELECT rule, outcome, version FROM \"t$quality\" WHERE status = 'blocked' ORDER BY rule";
    assert_eq!(
        lines(&session, verdicts).await,
        [
            "came violated NULL",
            "low violated NULL",
            "thirteen passed NULL",
            "went passed NULL"
        ]
    );
    assert_eq!(
        query::integers(&session, "SELECT max(version) FROM \"t$history\"").await,
        [1]
    );
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$quarantine\"").await,
        1
    );
}

/// Sets a column to NULL in every second row, and another to upper case.
#[derive(Debug)]
struct Rewrite;

impl WriteHookSupplier for Rewrite {
    fn name(&self) -> &str {
        "rewrite"
    }

    fn create(&self, _: &WriteContext) -> Result<Option<Arc<dyn WriteHook>>, Error> {
        Ok(Some(Arc::new(Self)))
    }
}

impl WriteHook for Rewrite {
    fn rows(&self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        let schema = batch.schema();
        let columns =
            batch
                .columns()
                .iter()
                .zip(schema.fields())
                .map(|(column, field)| match field.name().as_str() {
                    "n" => {
                        let values = column.as_primitive::<arrow::datatypes::Int64Type>();
                        let kept = values
                            .iter()
                            .map(|value| value.filter(|value| value % 2 == 0));
                        Arc::new(kept.collect::<Int64Array>()) as ArrayRef
                    }
                    "p" => {
                        let texts = cast(column, &DataType::Utf8).unwrap();
                        let upper = texts
                            .as_string::<i32>()
                            .iter()
                            .map(|text| text.map(str::to_uppercase));
                        cast(&upper.collect::<StringArray>(), column.data_type()).unwrap()
                    }
                    _ => Arc::clone(column),
                });
        let columns = columns.collect();
        Ok(RecordBatch::try_new(schema, columns).unwrap())
    }

    fn finish(&self) -> Result<Verdict, Error> {
        Ok(Verdict::Accept {
            counters: Vec::new(),
        })
    }
}

async fn with_rewriting() -> Session {
    let builder = Engine::builder("memory:///").hook(Arc::new(Rewrite));
    builder.open().await.unwrap().session()
}

#[tokio::test(flavor = "multi_thread")]
async fn q5_rules_ask_the_rows_that_hooks_leave() {
    let session = with_rewriting().await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, n BIGINT, \
         CONSTRAINT there EXPECT (n IS NOT NULL) ON VIOLATION WARN, \
         CONSTRAINT counted EXPECT (null_count(n) >= 0 AND sum(n) > 0) ON VIOLATION WARN)",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, NULL)",
    )
    .await;
    conserved(&report);
    // The metrics are those of the files.
    let stored = "SELECT null_count(n), sum(n) FROM t";
    assert_eq!(lines(&session, stored).await, ["3 6"]);
    assert_eq!(metric(&report, "null_count(n)").as_deref(), Some("3"));
    assert_eq!(metric(&report, "sum(n)").as_deref(), Some("6"));
    assert_eq!(of(&report, "there").violations, 3);
    let files = "SELECT null_counts['n'] FROM \"t$files\"";
    assert_eq!(lines(&session, files).await, ["3"]);
}

/// Rows in as many plan partitions and batches as told.
fn source(values: &[Option<i64>], partitions: usize, batch: usize) -> Arc<MemTable> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    let mut parts = vec![Vec::new(); partitions];
    for (number, values) in values.chunks(batch).enumerate() {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        // Unlike parts: the mean of their means is not the mean.
        let part = if number % 3 == 0 {
            0
        } else {
            number % partitions
        };
        parts[part].push(RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap());
    }
    Arc::new(MemTable::try_new(schema, parts).unwrap())
}

async fn measured(values: &[Option<i64>], partitions: usize, batch: usize) -> WriteReport {
    let mut settings = Settings::default();
    settings.target_partitions = partitions;
    let engine = with_settings(settings).await;
    let session = engine.session();
    session.register_table("source", source(values, partitions, batch));
    query::run(
        &session,
        "CREATE TABLE t (n BIGINT, CONSTRAINT all_of EXPECT (count(*) >= 0 AND count(n) >= 0 AND null_count(n) >= 0 \
         AND null_fraction(n) >= 0 AND min(n) < 0 AND max(n) > 0 AND sum(n) > 0 AND avg(n) > 0 AND stddev(n) > 0 \
         AND approx_distinct(n) > 0 AND is_unique(n)) ON VIOLATION WARN)",
    )
    .await;
    query::write(&session, "INSERT INTO t SELECT n FROM source").await
}

#[tokio::test(flavor = "multi_thread")]
async fn q6_metrics_do_not_depend_on_how_rows_are_split() {
    let values: Vec<Option<i64>> = (0..5_000)
        .map(|n| (n % 11 != 0).then_some((n * n) % 7_919 - 100))
        .collect();
    let whole = measured(&values, 1, values.len()).await;
    assert_eq!(metric(&whole, "count(*)").as_deref(), Some("5000"));
    for (partitions, batch) in [(1, 7), (2, 100), (4, 1), (8, 613)] {
        let split = measured(&values, partitions, batch).await;
        assert_eq!(split.metrics.len(), whole.metrics.len());
        for one in &whole.metrics {
            let (expected, found) = (one.value.as_deref(), metric(&split, &one.metric));
            let near = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
                _ => a == b,
            };
            let same = match (expected, found.as_deref()) {
                (Some(expected), Some(found)) => near(expected, found),
                (None, None) => true,
                _ => false,
            };
            assert!(
                same,
                "{} by {partitions} and {batch}: {expected:?}, {found:?}",
                one.metric
            );
        }
    }
    for value in &whole.metrics {
        assert_eq!(
            value.exact,
            !value.metric.starts_with("approx"),
            "{}",
            value.metric
        );
    }
    // What is too much for the type of the column is not for its sum.
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE big (n BIGINT, CONSTRAINT total EXPECT (sum(n) > 0) ON VIOLATION WARN)",
    )
    .await;
    let report = query::write(
        &session,
        &format!("INSERT INTO big VALUES ({0}), ({0})", i64::MAX),
    )
    .await;
    assert_eq!(of(&report, "total").outcome, RuleOutcome::Passed);
    assert_eq!(
        metric(&report, "sum(n)").as_deref(),
        Some("18446744073709551614")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn q8_partitions_are_those_that_are_written() {
    let session = with_rewriting().await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, p TEXT, \
         CONSTRAINT filled EXPECT (count(*) >= 2 AND min(id) >= 0) PER PARTITION ON VIOLATION WARN, \
         CONSTRAINT positive EXPECT (id > 0) ON VIOLATION QUARANTINE ROW) PARTITIONED BY (p)",
    )
    .await;
    // The hook makes one partition of three; NULL is one by itself; a quarantined row is in none.
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1, 'late'), (2, 'Late'), (3, 'LATE'), (4, NULL), (5, 'x'), (6, 'X'), (-1, 'none')",
    )
    .await;
    conserved(&report);
    let verdicts = "SELECT partition['p'], outcome, rows_checked FROM \"t$quality\" WHERE rule = 'filled' \
                    ORDER BY 1 NULLS LAST";
    assert_eq!(
        lines(&session, verdicts).await,
        ["LATE passed 3", "X passed 2", "NULL violated 1"]
    );
    let metrics = "SELECT partition['p'], metric, value FROM \"t$metrics\" WHERE metric = 'min(id)' ORDER BY 1 NULLS LAST";
    assert_eq!(
        lines(&session, metrics).await,
        ["LATE min(id) 1", "X min(id) 5", "NULL min(id) 4"]
    );
    assert_eq!(
        lines(
            &session,
            "SELECT partition['p'] FROM \"t$partitions\" ORDER BY 1 NULLS LAST"
        )
        .await,
        ["LATE", "X", "NULL"]
    );
    // Many of them: each counted, none cut off.
    query::run(
        &session,
        "CREATE TABLE many (id BIGINT, k BIGINT, \
         CONSTRAINT filled EXPECT (count(*) = 3) PER PARTITION) PARTITIONED BY (k)",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO many SELECT value, value % 500 FROM generate_series(1, 1500)",
    )
    .await;
    assert_eq!(report.rules.len(), 500);
    assert!(
        report
            .rules
            .iter()
            .all(|result| result.outcome == RuleOutcome::Passed)
    );
    let error = session
        .execute("INSERT INTO many SELECT value, value % 500 FROM generate_series(1, 1499)")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(
        error.to_string().contains("k = 0") || error.to_string().contains("k=0"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn q9_the_past_is_that_of_accepted_writes_to_the_partition() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (p TEXT, n BIGINT, \
         CONSTRAINT steady EXPECT (count(*) <= 2 * previous(count(*))) PER PARTITION, \
         CONSTRAINT usual EXPECT (sum(n) <= 2 * baseline(sum(n), 2)) ON VIOLATION WARN) PARTITIONED BY (p)",
    )
    .await;
    let insert = |p: &str, rows: i64| {
        format!("INSERT INTO t SELECT '{p}', 1 FROM generate_series(1, {rows})")
    };
    let outcome = |report: &WriteReport, rule: &str| of(report, rule).outcome;
    // Nothing to hold it against: told, not passed over.
    let first = query::write(&session, &insert("a", 2)).await;
    assert_eq!(outcome(&first, "steady"), RuleOutcome::Unknown);
    assert_eq!(outcome(&first, "usual"), RuleOutcome::Unknown);
    // Another partition is another past.
    let other = query::write(&session, &insert("b", 50)).await;
    assert_eq!(outcome(&other, "steady"), RuleOutcome::Unknown);
    let second = query::write(&session, &insert("a", 4)).await;
    assert_eq!(outcome(&second, "steady"), RuleOutcome::Passed);
    assert_eq!(of(&second, "steady").threshold, ["previous(count(*)) = 2"]);
    // The mean over two writes, 2 and 50: it is kept with the result.
    assert_eq!(outcome(&second, "usual"), RuleOutcome::Passed);
    let usual = &of(&second, "usual").threshold[0];
    assert!(usual.starts_with("baseline(sum(n), 2) = 26"), "{usual}");

    // Refused writes, however often they are tried again, are not the past of the next one.
    for _ in 0..3 {
        let error = session.execute(&insert("a", 9)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    }
    let third = query::write(&session, &insert("a", 8)).await;
    assert_eq!(of(&third, "steady").threshold, ["previous(count(*)) = 4"]);
    let thresholds = "SELECT version, status, outcome, threshold[1] FROM \"t$quality\" \
                      WHERE rule = 'steady' AND partition['p'] = 'a' AND version > 1 ORDER BY version";
    assert_eq!(
        lines(&session, thresholds).await,
        [
            "3 accepted passed previous(count(*)) = 2",
            "4 accepted passed previous(count(*)) = 4",
        ]
    );
    let blocked = "SELECT count(*) FROM \"t$quality\" WHERE rule = 'steady' AND status = 'blocked'";
    assert_eq!(query::integers(&session, blocked).await, [3]);
    // 52 rows in all is far over the mean of 4 and 8.
    let many = query::write(&session, &insert("b", 52)).await;
    assert_eq!(outcome(&many, "usual"), RuleOutcome::Violated);
    // Rules that write nothing of their past: a version without rows between changes nothing.
    query::run(&session, "ALTER TABLE t ADD COLUMN note TEXT").await;
    let last = query::write(
        &session,
        "INSERT INTO t (p, n) SELECT 'a', 1 FROM generate_series(1, 16)",
    )
    .await;
    assert_eq!(of(&last, "steady").threshold, ["previous(count(*)) = 8"]);
}

/// The past outlives the commits it was written in: checkpoints condense it.
#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_kept_when_commits_are_condensed() {
    let mut settings = Settings::default();
    settings.checkpoint_interval = 3;
    let engine = with_settings(settings).await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (n BIGINT, CONSTRAINT low EXPECT (n > 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT steady EXPECT (count(*) <= 1 + previous(count(*))))",
    )
    .await;
    for rows in 1..=20 {
        let sql = format!(
            "INSERT INTO t SELECT value - 1 FROM generate_series(1, {})",
            rows + 1
        );
        let report = query::write(&session, &sql).await;
        conserved(&report);
        assert_eq!((report.rows_written, report.rows_quarantined), (rows, 1));
        if rows > 1 {
            assert_eq!(
                of(&report, "steady").threshold,
                [format!("previous(count(*)) = {}", rows - 1)]
            );
        }
        engine.settle().await;
    }
    for (sql, count) in [
        ("SELECT count(*) FROM \"t$quality\" WHERE rule = 'low'", 20),
        ("SELECT count(DISTINCT version) FROM \"t$quality\"", 20),
        (
            "SELECT count(*) FROM \"t$metrics\" WHERE metric = 'count(*)' AND over = 'written'",
            20,
        ),
        ("SELECT count(*) FROM \"t$quarantine\"", 20),
        ("SELECT count(DISTINCT _version) FROM \"t$quarantine\"", 20),
        ("SELECT count(*) FROM \"t$quarantine\" VERSION AS OF 7", 7),
    ] {
        assert_eq!(query::integers(&session, sql).await, [count], "{sql}");
    }
}
