//! CHECK TABLE, EXPLAIN QUALITY, SUGGEST CONSTRAINTS and what else tables say of their rules, by the columns that
//! matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use selvedge_engine::{Answer, Session};

use super::{column, lines, of, session};
use crate::support::lake::{in_memory, with_clock};
use crate::support::query;

const TABLE: &str = "CREATE TABLE t (id BIGINT, a BIGINT, \
    CONSTRAINT low EXPECT (a >= 0) ON VIOLATION QUARANTINE ROW, \
    CONSTRAINT thirteen EXPECT (a <> 13) ON VIOLATION DROP ROW, \
    CONSTRAINT high EXPECT (a < 100), \
    CONSTRAINT key EXPECT (is_unique(id)) ON VIOLATION WARN)";

async fn results(session: &Session, sql: &str) -> Vec<(String, String, String)> {
    let rules = column(session, sql, "rule").await;
    let outcomes = column(session, sql, "outcome").await;
    let violations = column(session, sql, "violations").await;
    let mut all: Vec<_> = rules
        .into_iter()
        .zip(outcomes)
        .zip(violations)
        .map(|((rule, outcome), violations)| (rule, outcome, violations))
        .collect();
    all.sort();
    all
}

fn told(rule: &str, outcome: &str, violations: u64) -> (String, String, String) {
    (rule.to_owned(), outcome.to_owned(), violations.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_table_says_of_rows_at_rest_what_a_write_of_them_would() {
    let session = session().await;
    query::run(&session, "CREATE TABLE t (id BIGINT, a BIGINT)").await;
    query::write(&session, "INSERT INTO t VALUES (1, 1), (2, -2)").await;
    query::write(&session, "INSERT INTO t VALUES (2, 300), (3, NULL)").await;
    for rule in [
        "low EXPECT (a >= 0) ON NULL VIOLATE ON VIOLATION QUARANTINE ROW NOT VALID",
        "high EXPECT (a < 100) NOT VALID",
        "key EXPECT (is_unique(id))",
        "off EXPECT (a > 1000) NOT VALID",
    ] {
        query::run(&session, &format!("ALTER TABLE t ADD CONSTRAINT {rule}")).await;
    }
    query::run(&session, "ALTER TABLE t DISABLE CONSTRAINT off").await;
    assert_eq!(
        results(&session, "CHECK TABLE t").await,
        [
            told("high", "violated", 1),
            told("key", "violated", 1),
            told("low", "violated", 2)
        ]
    );
    assert_eq!(
        results(&session, "CHECK TABLE t CONSTRAINT high").await,
        [told("high", "violated", 1)]
    );
    // One that is asked for by name is asked, switched off or not.
    assert_eq!(
        column(&session, "CHECK TABLE t CONSTRAINT off", "rule").await,
        ["off"]
    );
    // The rules of today, of the rows as they were.
    assert_eq!(
        results(&session, "CHECK TABLE t VERSION AS OF 1").await,
        [
            told("high", "passed", 0),
            told("key", "passed", 0),
            told("low", "violated", 1)
        ]
    );
    query::run(&session, "DELETE FROM t WHERE a = 300").await;
    assert_eq!(
        results(&session, "CHECK TABLE t").await,
        [
            told("high", "passed", 0),
            told("key", "passed", 0),
            told("low", "violated", 2)
        ]
    );
    // The same as in a write of the same rows.
    query::run(&session, "CREATE TABLE u (id BIGINT, a BIGINT, CONSTRAINT low EXPECT (a >= 0) ON NULL VIOLATE ON VIOLATION WARN)").await;
    let report = query::write(&session, "INSERT INTO u SELECT * FROM t").await;
    assert_eq!(of(&report, "low").violations, 2);
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 3);
}

/// What a write would do: rows received, written, dropped, quarantined; and the violations of each rule by name.
type Forecast = ([&'static str; 4], [&'static str; 4]);

#[tokio::test(flavor = "multi_thread")]
async fn explain_quality_says_what_would_happen_and_does_nothing() {
    let session = session().await;
    query::run(&session, TABLE).await;
    query::write(&session, "INSERT INTO t VALUES (1, 1), (2, 2)").await;
    let forecasts: [(&str, Forecast); 3] = [
        (
            "INSERT INTO t VALUES (3, 3), (3, -3), (4, 13), (6, NULL)",
            (["4", "2", "1", "1"], ["0", "0", "1", "1"]),
        ),
        (
            "INSERT OVERWRITE t SELECT 7, value FROM generate_series(12, 14)",
            (["3", "2", "1", "0"], ["0", "1", "0", "1"]),
        ),
        (
            "MERGE INTO t USING (VALUES (8, 99), (9, -9)) AS s(id, a) ON t.id = s.id \
             WHEN NOT MATCHED THEN INSERT (id, a) VALUES (s.id, s.a)",
            (["2", "1", "0", "1"], ["0", "0", "1", "0"]),
        ),
    ];
    for (write, (rows, violations)) in forecasts {
        let told = forecast(&session, write).await;
        let counts = ["received", "written", "dropped", "quarantined"];
        for (what, rows) in counts.iter().zip(rows) {
            let line = format!("{what} NULL {rows}");
            assert!(told.contains(&line), "{write}: {line}: {told:?}");
        }
        for (rule, violations) in ["high", "key", "low", "thirteen"].iter().zip(violations) {
            let line = format!("rule {rule} {violations}");
            assert!(told.contains(&line), "{write}: {line}: {told:?}");
        }
    }
    // What would be refused says so, and what else would have become of it.
    let refused = forecast(&session, "INSERT INTO t VALUES (3, 500), (4, -4)").await;
    for line in [
        "received NULL 2",
        "refused NULL NULL",
        "rule high 1",
        "rule low 1",
    ] {
        assert!(refused.contains(&line.to_owned()), "{line}: {refused:?}");
    }
    let update = forecast(&session, "UPDATE t SET a = -a").await;
    assert!(update.contains(&"rule low 2".to_owned()), "{update:?}");
    // Rows that would be put aside are shown.
    let sample = "EXPLAIN QUALITY INSERT INTO t VALUES (5, -55)";
    let detail = column(&session, sample, "detail").await;
    assert!(
        detail.iter().any(|detail| detail.contains("a = -55")),
        "{detail:?}"
    );

    assert_eq!(
        lines(&session, "SELECT * FROM t ORDER BY id").await,
        ["1 1", "2 2"]
    );
    for nothing in [
        "SELECT * FROM \"t$quarantine\"",
        "SELECT * FROM \"t$quality\" WHERE status = 'blocked' OR version > 1",
        "SELECT * FROM \"t$metrics\" WHERE status = 'blocked' OR version > 1",
        "SELECT * FROM \"t$history\" WHERE version > 1",
    ] {
        assert_eq!(query::rows(&session, nothing).await, 0, "{nothing}");
    }
}

/// What, rule and rows of each line.
async fn forecast(session: &Session, write: &str) -> Vec<String> {
    let sql = format!("EXPLAIN QUALITY {write}");
    let what = column(session, &sql, "what").await;
    let rules = column(session, &sql, "rule").await;
    let rows = column(session, &sql, "rows").await;
    let lines = what.iter().zip(&rules).zip(&rows);
    lines
        .map(|((what, rule), rows)| format!("{what} {rule} {rows}"))
        .collect()
}

/// Whatever is proposed can be run as it is, and the writes so far would have kept it.
#[tokio::test(flavor = "multi_thread")]
async fn suggestions_are_statements_that_hold() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, kind TEXT, amount BIGINT, note TEXT) TBLPROPERTIES ('selvedge.profile' = 'true')",
    )
    .await;
    for batch in 0..4 {
        let sql = format!(
            "INSERT INTO t SELECT {batch} * 100 + value, CASE WHEN value % 2 = 0 THEN 'a' ELSE 'b' END, value % 10, \
             CASE WHEN value % 3 = 0 THEN 'x' END FROM generate_series(1, 100)"
        );
        query::write(&session, &sql).await;
    }
    let sql = "SUGGEST CONSTRAINTS FOR t";
    let statements = column(&session, sql, "statement").await;
    let reasons = column(&session, sql, "reason").await;
    assert!(reasons.iter().all(|reason| !reason.is_empty()));
    let names = column(&session, sql, "constraint_name").await;
    assert_eq!(names.len(), statements.len());
    let all = statements.join("\n").replace('"', "");
    // Complete, bounded, alike in number; and a key, but not of columns with few values.
    for part in [
        "id IS NOT NULL",
        "kind IS NOT NULL",
        "is_unique(id)",
        "baseline(count(*)",
    ] {
        assert!(all.contains(part), "{part} is missing from\n{all}");
    }
    for part in ["note IS NOT NULL", "is_unique(kind)", "is_unique(amount)"] {
        assert!(!all.contains(part), "{part} is in\n{all}");
    }
    for statement in &statements {
        query::run(&session, statement).await;
    }
    let report = query::write(
        &session,
        "INSERT INTO t SELECT 200 + value, 'a', value % 10, NULL FROM generate_series(1, 100)",
    )
    .await;
    let broken: Vec<_> = report
        .rules
        .iter()
        .filter(|result| result.violations > 0)
        .collect();
    assert!(broken.is_empty(), "{broken:?}");
    let sql = "INSERT INTO t SELECT NULL, NULL, 5000, NULL FROM generate_series(1, 1000)";
    if let Ok(Answer::Written(report)) = session.execute(sql).await {
        assert!(
            report.rules.iter().any(|result| result.violations > 0),
            "{report:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn show_create_table_makes_the_rules_again() {
    let session = session().await;
    query::run(&session, "CREATE TABLE clients (id BIGINT, region TEXT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, a BIGINT, region TEXT, \
         CONSTRAINT \"Odd \"\"name\"\"\" EXPECT (a >= 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT strict EXPECT (region <> 'it''s') ON NULL VIOLATE ON VIOLATION DROP ROW, \
         CONSTRAINT steady EXPECT (count(*) <= 2 * previous(count(*))) PER PARTITION ON VIOLATION WARN, \
         CONSTRAINT came EXPECT (count(*) > 0) OVER INPUT, \
         CONSTRAINT known EXPECT ((id, region) REFERENCES clients (id, region)), \
         CONSTRAINT off EXPECT (a < 7), \
         CONSTRAINT checked CHECK (a < 1000)) PARTITIONED BY (region)",
    )
    .await;
    query::run(&session, "ALTER TABLE t DISABLE CONSTRAINT off").await;
    let text = column(&session, "SHOW CREATE TABLE t", "create_statement")
        .await
        .join("\n");
    query::run(&session, "CREATE SCHEMA other").await;
    let again = text
        .replace("\"public\".t ", "other.t ")
        .replace("public.t ", "other.t ");
    assert_ne!(text, again, "{text}");
    for statement in again.split(';').filter(|part| !part.trim().is_empty()) {
        query::run(&session, statement.trim()).await;
    }
    let kept = |table: &str| {
        format!(
            "SELECT name, kind, expression, action, on_null, per_partition, over, enabled, fingerprint \
             FROM {table} ORDER BY name"
        )
    };
    assert_eq!(
        lines(&session, &kept("\"t$constraints\"")).await,
        lines(&session, &kept("other.\"t$constraints\"")).await
    );
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Quarantined rows and the records of blocked writes have an end.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_its_retention_is_gone() {
    let start = 1_767_225_600_000;
    let clock = Arc::new(AtomicI64::new(start));
    let hand = Arc::clone(&clock);
    let engine = with_clock(move || hand.load(Ordering::SeqCst)).await;
    let session = engine.session();
    query::run(&session, TABLE).await;
    query::run(
        &session,
        "ALTER TABLE t SET TBLPROPERTIES ('selvedge.quarantineRetention' = 'interval 30 days')",
    )
    .await;
    query::write(&session, "INSERT INTO t VALUES (1, 1), (2, -2)").await;
    query::error(&session, "INSERT INTO t VALUES (3, 100)").await;
    clock.store(start + 20 * DAY_MS, Ordering::SeqCst);
    query::write(&session, "INSERT INTO t VALUES (4, -4)").await;
    let aside = "SELECT id FROM \"t$quarantine\" ORDER BY id";
    let blocked = "SELECT count(DISTINCT batch_id) FROM \"t$quality\" WHERE status = 'blocked'";
    assert_eq!(query::integers(&session, aside).await, [2, 4]);
    assert_eq!(query::integers(&session, blocked).await, [1]);
    // Past it, they are not there, vacuumed or not.
    clock.store(start + 31 * DAY_MS, Ordering::SeqCst);
    assert_eq!(query::integers(&session, aside).await, [4]);
    assert_eq!(query::integers(&session, blocked).await, [0]);
    let listed = lines(&session, "VACUUM t DRY RUN").await;
    let side: Vec<_> = listed
        .iter()
        .filter(|line| line.contains("_selvedge/quarantine/"))
        .collect();
    assert_eq!(side.len(), 1, "{listed:?}");
    assert_eq!(query::rows(&session, "VACUUM t").await, 1);
    assert_eq!(query::integers(&session, aside).await, [4]);
    let listed = lines(&session, "VACUUM t DRY RUN").await;
    assert!(
        !listed.iter().any(|line| line.contains("_selvedge/")),
        "{listed:?}"
    );
    // And are not put back.
    let report = query::write(&session, "REPLAY QUARANTINE t SET a = 1").await;
    assert_eq!(report.rows_written, 1);
    assert_eq!(
        query::integers(&session, "SELECT id FROM t ORDER BY id").await,
        [1, 4]
    );
}

/// Two at once: each quarantined row is taken up by one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_replayed_once_whoever_asks() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(&session, TABLE).await;
    query::write(
        &session,
        "INSERT INTO t SELECT value, -value FROM generate_series(1, 50)",
    )
    .await;
    let replays = (0..4).map(|_| {
        let session = engine.session();
        tokio::spawn(async move {
            query::write(&session, "REPLAY QUARANTINE t SET a = 1")
                .await
                .rows_written
        })
    });
    let mut written = 0;
    for replay in replays.collect::<Vec<_>>() {
        written += replay.await.unwrap();
    }
    assert_eq!(written, 50);
    let ids = "SELECT count(*) FROM t";
    assert_eq!(query::integers(&session, ids).await, [50]);
    let ids = "SELECT count(DISTINCT id) FROM t";
    assert_eq!(query::integers(&session, ids).await, [50]);
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$quarantine\"").await,
        0
    );
}

/// An instant means the version of then, also to those who ask later which replays were taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_an_instant_takes_replays_back() {
    let start = 1_767_225_600_000;
    let clock = Arc::new(AtomicI64::new(start));
    let hand = Arc::clone(&clock);
    let engine = with_clock(move || hand.load(Ordering::SeqCst)).await;
    let session = engine.session();
    query::run(&session, TABLE).await;
    clock.store(start + DAY_MS, Ordering::SeqCst);
    query::write(&session, "INSERT INTO t VALUES (1, 1), (2, -2)").await;
    clock.store(start + 2 * DAY_MS, Ordering::SeqCst);
    query::write(&session, "REPLAY QUARANTINE t SET a = 2").await;
    let aside = "SELECT id FROM \"t$quarantine\"";
    assert_eq!(query::rows(&session, aside).await, 0);
    let restore = "RESTORE TABLE t TO TIMESTAMP AS OF TIMESTAMP '2026-01-02T12:00:00Z'";
    query::rows(&session, restore).await;
    assert_eq!(query::integers(&session, "SELECT id FROM t").await, [1]);
    assert_eq!(query::integers(&session, aside).await, [2]);
}
