//! Rules about each row: three outcomes, what becomes of the row, and rows that no rule can be asked of.

use std::sync::atomic::{AtomicI64, Ordering};

use selvedge_engine::{ErrorKind, OnViolation, RuleKind, RuleOutcome};

use super::{conserved, lines, metric, of, session};
use crate::support::lake::with_clock;
use crate::support::query;

const VALUES: &str = "(1, 5), (2, -5), (3, NULL), (4, 0), (5, NULL), (6, 13)";

#[tokio::test(flavor = "multi_thread")]
async fn q1_every_row_is_written_dropped_or_quarantined() {
    for action in ["WARN", "DROP ROW", "QUARANTINE ROW"] {
        for (on_null, unknown) in [
            ("", false),
            ("ON NULL PASS", false),
            ("ON NULL VIOLATE", true),
        ] {
            // A predicate and its negation: where it is unknown, so is the other.
            for (predicate, broken) in [("a > 0", &[2, 4][..]), ("NOT (a > 0)", &[1, 6])] {
                let session = session().await;
                let rule =
                    format!("CONSTRAINT c EXPECT ({predicate}) {on_null} ON VIOLATION {action}");
                query::run(
                    &session,
                    &format!("CREATE TABLE t (id BIGINT, a BIGINT, {rule})"),
                )
                .await;
                let report =
                    query::write(&session, &format!("INSERT INTO t VALUES {VALUES}")).await;
                conserved(&report);
                let mut broken = broken.to_vec();
                if unknown {
                    broken.extend([3, 5]);
                    broken.sort_unstable();
                }
                let result = of(&report, "c");
                assert_eq!((result.rows_checked, result.nulls), (6, 2), "{rule}");
                assert_eq!(result.violations, broken.len() as u64, "{rule}");
                assert_eq!(result.outcome, RuleOutcome::Violated, "{rule}");
                assert!(!result.sample.is_empty(), "{rule}");

                let written = query::integers(&session, "SELECT id FROM t ORDER BY id").await;
                let aside =
                    query::integers(&session, "SELECT id FROM \"t$quarantine\" ORDER BY id").await;
                let kept = (1..=6).filter(|id| action == "WARN" || !broken.contains(id));
                assert_eq!(written, kept.collect::<Vec<_>>(), "{rule}");
                let put_aside = if action == "QUARANTINE ROW" {
                    broken.clone()
                } else {
                    Vec::new()
                };
                assert_eq!(aside, put_aside, "{rule}");
                assert_eq!(report.rows_written, written.len() as u64);
                assert_eq!(report.rows_quarantined, aside.len() as u64);
                let dropped = if action == "DROP ROW" {
                    broken.len()
                } else {
                    0
                };
                assert_eq!(report.rows_dropped, dropped as u64);
            }
        }
    }
    // A CHECK knows no unknown: what is not true is refused.
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, CONSTRAINT c CHECK (a > 0))",
    )
    .await;
    let error = session
        .execute("INSERT INTO t VALUES (NULL)")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn q2_one_row_with_all_its_failures() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, a BIGINT, b TEXT, \
         CONSTRAINT dropped EXPECT (a > 0) ON VIOLATION DROP ROW, \
         CONSTRAINT one EXPECT (a > -10) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT two EXPECT (b <> 'x' OR a > 0) ON VIOLATION QUARANTINE ROW)",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1, 1, 'x'), (2, -1, 'y'), (3, -1, 'x'), (4, -11, 'x')",
    )
    .await;
    conserved(&report);
    // QUARANTINE wins over DROP: row 2 alone is dropped.
    assert_eq!(
        (
            report.rows_written,
            report.rows_dropped,
            report.rows_quarantined
        ),
        (1, 1, 2)
    );
    for (rule, violations, action) in [
        ("dropped", 3, OnViolation::DropRow),
        ("one", 1, OnViolation::QuarantineRow),
        ("two", 2, OnViolation::QuarantineRow),
    ] {
        let result = of(&report, rule);
        assert_eq!(
            (result.violations, result.action),
            (violations, action),
            "{rule}"
        );
        assert_eq!(result.kind, RuleKind::Row);
    }
    assert_eq!(
        lines(
            &session,
            "SELECT id, _version FROM \"t$quarantine\" ORDER BY id"
        )
        .await,
        ["3 1", "4 1"]
    );
    let failures = "SELECT id, f['rule'] FROM (SELECT id, unnest(_failures) AS f FROM \"t$quarantine\") \
                    WHERE f['rule'] <> 'dropped' ORDER BY 1, 2";
    assert_eq!(lines(&session, failures).await, ["3 two", "4 one", "4 two"]);
    // Which rule it was, by what it asks; the value it met, and the columns it read.
    let told = "SELECT f['fingerprint'] = c.fingerprint, f['columns'], f['value'] LIKE '%-11%', \
                f['message'] LIKE '%one%' \
                FROM (SELECT id, unnest(_failures) AS f FROM \"t$quarantine\") AS q \
                JOIN \"t$constraints\" AS c ON c.name = f['rule'] WHERE id = 4 AND c.name = 'one'";
    assert_eq!(lines(&session, told).await, ["true [a] true true"]);

    // FAIL wins over all.
    query::run(
        &session,
        "ALTER TABLE t ADD CONSTRAINT never EXPECT (b <> 'z') ON VIOLATION FAIL",
    )
    .await;
    let error = session
        .execute("INSERT INTO t VALUES (5, -20, 'z'), (6, -20, 'x'), (7, 1, 'a')")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("never"), "{error}");
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 1);
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$quarantine\"").await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn q7_nan_breaks_ranges_and_spoils_no_metric() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, x DOUBLE, y REAL, \
         CONSTRAINT low EXPECT (x >= 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT high EXPECT (x <= 100) ON VIOLATION WARN, \
         CONSTRAINT real EXPECT (y < 100) ON VIOLATION WARN, \
         CONSTRAINT allowed EXPECT (isnan(x) OR x < 100) ON VIOLATION WARN, \
         CONSTRAINT numbers EXPECT (nan_count(y) = 0 AND min(y) >= 1 AND max(y) <= 3 AND avg(y) = 2) ON VIOLATION WARN, \
         CONSTRAINT came EXPECT (nan_count(x) = 0 AND min(x) >= 1 AND max(x) <= 3) OVER INPUT ON VIOLATION WARN)",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1, 1, 1), (2, 'NaN', 1), (3, 3, 'NaN'), (4, NULL, 3), (5, '-NaN', 2)",
    )
    .await;
    conserved(&report);
    for (rule, violations, nulls) in [
        ("low", 2, 1),
        ("high", 2, 1),
        ("real", 1, 0),
        ("allowed", 0, 1),
    ] {
        let result = of(&report, rule);
        assert_eq!(
            (result.violations, result.nulls),
            (violations, nulls),
            "{rule}"
        );
    }
    assert_eq!(
        query::integers(&session, "SELECT id FROM \"t$quarantine\" ORDER BY id").await,
        [2, 5]
    );
    // Of what was written, rows 1, 3 and 4: 1, NaN, 3.
    assert_eq!(of(&report, "numbers").outcome, RuleOutcome::Violated);
    for (name, value) in [
        ("nan_count(y)", 1.0),
        ("min(y)", 1.0),
        ("max(y)", 3.0),
        ("avg(y)", 2.0),
    ] {
        let found = metric(&report, name).unwrap().parse::<f64>().unwrap();
        assert!((found - value).abs() < 1e-9, "{name}: {found}");
    }
    // Nothing but NaN: there is no least number.
    query::run(
        &session,
        "CREATE TABLE none (x DOUBLE, CONSTRAINT c EXPECT (min(x) >= 0 AND avg(x) >= 0) ON VIOLATION WARN)",
    )
    .await;
    let report = query::write(&session, "INSERT INTO none VALUES ('NaN'), ('NaN')").await;
    assert_eq!(of(&report, "c").outcome, RuleOutcome::Unknown);
    assert_eq!(
        (metric(&report, "min(x)"), metric(&report, "avg(x)")),
        (None, None)
    );
    // A CHECK is what Delta says of it, beside the same rule.
    assert_eq!(
        query::rows(&session, "SELECT * FROM none WHERE isnan(x)").await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn q10_rules_are_never_skipped() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, b BIGINT, \
         CONSTRAINT row_rule EXPECT (a > 0) ON VIOLATION WARN, \
         CONSTRAINT share EXPECT (null_fraction(b) < 0.5) ON VIOLATION WARN, \
         CONSTRAINT mean EXPECT (avg(b) > 0) ON VIOLATION WARN, \
         CONSTRAINT rows EXPECT (count(*) >= 0) ON VIOLATION WARN)",
    )
    .await;
    // At definition, not when rows come.
    for (rule, named) in [
        ("missing > 0", "missing"),
        ("avg(missing) > 0", "missing"),
        ("a", "c"),
        ("a > random()", "random"),
    ] {
        let sql = format!("ALTER TABLE t ADD CONSTRAINT c EXPECT ({rule})");
        let error = session.execute(&sql).await.expect_err(&sql);
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Unsupported
            ),
            "{sql}: {error}"
        );
        assert!(error.to_string().contains(named), "{sql}: {error}");
    }
    // A change of the table that would break one is refused.
    for (change, rule) in [
        ("RENAME COLUMN a TO x", "row_rule"),
        ("DROP COLUMN a", "row_rule"),
        ("DROP COLUMN b", "share"),
    ] {
        let error = query::error(&session, &format!("ALTER TABLE t {change}")).await;
        assert!(
            error.contains(rule) || error.contains("mean"),
            "{change}: {error}"
        );
    }
    // No rows: what has a value has one, what cannot be told is not a pass.
    let report = query::write(&session, "INSERT INTO t SELECT 1, 1 WHERE false").await;
    conserved(&report);
    assert_eq!(
        (
            of(&report, "row_rule").rows_checked,
            of(&report, "row_rule").violations
        ),
        (0, 0)
    );
    assert_eq!(of(&report, "rows").outcome, RuleOutcome::Passed);
    assert_eq!(metric(&report, "count(*)").as_deref(), Some("0"));
    for rule in ["share", "mean"] {
        assert_eq!(of(&report, rule).outcome, RuleOutcome::Unknown, "{rule}");
    }
    assert_eq!(metric(&report, "null_fraction(b)"), None);
    // Nor where the rule refuses writes: unknown is recorded, not taken for a violation.
    query::run(
        &session,
        "CREATE TABLE strict (b BIGINT, CONSTRAINT share EXPECT (null_fraction(b) < 0.5))",
    )
    .await;
    query::write(&session, "INSERT INTO strict SELECT 1 WHERE false").await;
    query::run(
        &session,
        "CREATE TABLE filled (b BIGINT, CONSTRAINT some EXPECT (count(*) > 0))",
    )
    .await;
    let error = session
        .execute("INSERT INTO filled SELECT 1 WHERE false")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    // A rule that fails on a row does not let it through.
    query::run(
        &session,
        "CREATE TABLE divided (a BIGINT, CONSTRAINT ratio EXPECT (10 / a > 1))",
    )
    .await;
    let error = session
        .execute("INSERT INTO divided VALUES (1), (0)")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("ratio"), "{error}");
    assert_eq!(query::rows(&session, "SELECT * FROM divided").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn q11_rows_that_do_not_fit_are_refused_or_kept_as_they_came() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT NOT NULL, small SMALLINT, price DECIMAL(5,2), day DATE, \
         CONSTRAINT low CHECK (small < 100), CONSTRAINT paid EXPECT (price > 0) ON VIOLATION QUARANTINE ROW)",
    )
    .await;
    let rows = "SELECT column1, column2, column3, column4 FROM (VALUES \
        (1, '1', '1.50', '2024-02-29'), (2, 'many', '2', NULL), (3, '70000', '2', NULL), (4, '4', '1.005', NULL), \
        (5, '5', '5', '2024-02-30'), (NULL, '6', '6', NULL), (7, '100', '7', NULL), (8, '8', '-8', NULL), \
        (9, 'x', '1000', '2024-13-01')) AS v";
    // Strict, as long as the table does not say otherwise.
    let error = session
        .execute(&format!("INSERT INTO t {rows}"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$quarantine\"").await,
        0
    );

    query::run(
        &session,
        "ALTER TABLE t SET TBLPROPERTIES ('selvedge.quarantineInvalid' = 'true')",
    )
    .await;
    let report = query::write(&session, &format!("INSERT INTO t {rows}")).await;
    conserved(&report);
    assert_eq!(
        (
            report.rows_received,
            report.rows_written,
            report.rows_quarantined
        ),
        (9, 1, 8)
    );
    assert_eq!(
        lines(&session, "SELECT * FROM t").await,
        ["1 1 1.5 2024-02-29"]
    );
    // Typed where it fits; as it came, in the text of the row.
    assert_eq!(
        lines(
            &session,
            "SELECT id, small, price, day FROM \"t$quarantine\" ORDER BY id NULLS LAST"
        )
        .await,
        [
            "2 NULL 2 NULL",
            "3 NULL 2 NULL",
            "4 4 NULL NULL",
            "5 5 5 NULL",
            "7 100 7 NULL",
            "8 8 -8 NULL",
            "9 NULL NULL NULL",
            "NULL 6 6 NULL",
        ]
    );
    for (id, text) in [
        (2, "many"),
        (3, "70000"),
        (4, "1.005"),
        (5, "2024-02-30"),
        (9, "2024-13-01"),
    ] {
        let sql = format!("SELECT _row FROM \"t$quarantine\" WHERE id = {id}");
        let row = lines(&session, &sql).await;
        assert!(row[0].contains(text), "{row:?} should hold {text}");
    }
    // Each failure names its column; those of one row are in one row.
    let columns = "SELECT id, f['columns'][1] FROM (SELECT id, unnest(_failures) AS f FROM \"t$quarantine\") \
                   WHERE id IN (2, 3, 4, 5) ORDER BY 1, 2";
    assert_eq!(
        lines(&session, columns).await,
        ["2 small", "3 small", "4 price", "5 day"]
    );
    let nine = "SELECT f['columns'][1] FROM (SELECT unnest(_failures) AS f FROM \"t$quarantine\" WHERE id = 9) ORDER BY 1";
    assert_eq!(lines(&session, nine).await, ["day", "price", "small"]);
    let low =
        "SELECT f['rule'] FROM (SELECT unnest(_failures) AS f FROM \"t$quarantine\" WHERE id = 7)";
    assert!(lines(&session, low).await[0].contains("low"));
}

/// Also where the types of a file's columns could be guessed from its first rows.
#[tokio::test(flavor = "multi_thread")]
async fn q11_values_of_files_that_do_not_fit_are_kept_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.csv");
    let rows = (0..5000).map(|id| match id {
        4000 => "4000,many\n".to_owned(),
        4001 => "4001,\n".to_owned(),
        _ => format!("{id},{}\n", id * 2),
    });
    std::fs::write(&file, format!("id,amount\n{}", rows.collect::<String>())).unwrap();
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, amount BIGINT) TBLPROPERTIES ('selvedge.quarantineInvalid' = 'true')",
    )
    .await;
    let copy = format!("COPY INTO t FROM '{}'", file.display());
    let report = query::write(&session, &copy).await;
    assert_eq!((report.rows_written, report.rows_quarantined), (4999, 1));
    let kept = "SELECT id, amount, _row FROM \"t$quarantine\"";
    assert_eq!(
        lines(&session, kept).await,
        ["4000 NULL {\"id\":\"4000\",\"amount\":\"many\"}"]
    );
    let missing = "SELECT id FROM t WHERE amount IS NULL";
    assert_eq!(query::integers(&session, missing).await, [4001]);
}

/// A rule that asks for the time is asked with that of the statement, in every batch and every row.
#[tokio::test(flavor = "multi_thread")]
async fn t7_a_rule_has_the_instant_of_its_statement() {
    let hand = AtomicI64::new(1_767_225_600_000);
    let engine = with_clock(move || hand.fetch_add(1, Ordering::SeqCst)).await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, at TIMESTAMP WITH TIME ZONE DEFAULT now(), \
         CONSTRAINT now EXPECT (at = now()), CONSTRAINT all_now EXPECT (min(at) = now() AND max(at) = now()))",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t (id) SELECT value FROM generate_series(1, 20000)",
    )
    .await;
    assert_eq!(
        (of(&report, "now").violations, report.rows_written),
        (0, 20_000)
    );
    assert_eq!(of(&report, "all_now").outcome, RuleOutcome::Passed);
}
