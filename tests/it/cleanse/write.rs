//! Policies in the write: which rows and cells they take, what the report says, and what rules see of it.

use std::sync::Arc;

use object_store::memory::InMemory;
use selvedge_engine::{Engine, ErrorKind, Over, RuleOutcome, Session, Settings, WriteReport};

use super::{conserved, lines, of, open, session};
use crate::support::query;

/// The value of a metric over all written rows.
fn metric(report: &WriteReport, metric: &str) -> Option<String> {
    let found = report.metrics.iter().find(|value| {
        value.metric == metric && value.partition.is_none() && value.over == Over::Written
    });
    let found = found.unwrap_or_else(|| panic!("no {metric}: {:?}", report.metrics));
    found.value.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_a_key_that_is_sent_again_stays_erased() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(&session, "CREATE TABLE t (id BIGINT, email TEXT)").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    query::write(&session, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
    query::write(&session, "INSERT INTO asked VALUES (2)").await;
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    for again in 0..3 {
        let report = query::write(
            &session,
            "INSERT INTO t SELECT value % 3 + 2, 'again' FROM generate_series(0, 29999)",
        )
        .await;
        conserved(&report);
        assert_eq!((report.rows_written, report.rows_erased), (20_000, 10_000));
        let gone = of(&report, "gone");
        // How often it hit is told by each write.
        assert_eq!(
            (
                gone.keys,
                gone.rows_matched,
                gone.rows_erased,
                gone.cells_changed
            ),
            (1, 10_000, 10_000, 0),
            "{again}"
        );
        let left = "SELECT count(*) FROM t WHERE id = 2";
        assert_eq!(query::integers(&session, left).await, [0]);
    }
    // Its past cannot come back either, nor by a copy through another table.
    query::run(
        &session,
        "CREATE TABLE elsewhere AS SELECT 2 AS id, 'b' AS email",
    )
    .await;
    let report = query::write(&session, "INSERT INTO t SELECT id, email FROM elsewhere").await;
    assert_eq!((report.rows_written, report.rows_erased), (0, 1));
    let rows = query::try_integers(&session, "SELECT id FROM t VERSION AS OF 2").await;
    assert!(rows.is_err(), "{rows:?}");
}

/// The list that is asked is that of the moment, also when another engine made it longer.
#[tokio::test(flavor = "multi_thread")]
async fn c4_a_request_is_heeded_by_every_engine_at_once() {
    let disk = Arc::new(InMemory::new());
    let (one, two) = (open(disk.clone()).await, open(disk).await);
    let (writer, asker) = (one.session(), two.session());
    query::run(&writer, "CREATE TABLE asked (id BIGINT)").await;
    query::run(&writer, "CREATE TABLE t (id BIGINT)").await;
    query::run(
        &writer,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    for id in 1..=10 {
        query::write(&asker, &format!("INSERT INTO asked VALUES ({id})")).await;
        let report = query::write(&writer, &format!("INSERT INTO t VALUES ({id}), (0)")).await;
        assert_eq!((report.rows_written, report.rows_erased), (1, 1), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_policy_that_cannot_be_kept_is_refused_when_it_is_declared() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, city TEXT NOT NULL, email TEXT, p TEXT) PARTITIONED BY (p)",
    )
    .await;
    let keyed = "KEY (id) IN (SELECT id FROM asked)";
    for (clause, column, offered) in [
        (format!("{keyed} NULLIFY (city)"), "city", "SET"),
        (format!("{keyed} NULLIFY (email, city)"), "city", "SET"),
        (format!("{keyed} NULLIFY (id)"), "id", "SET"),
        (format!("{keyed} NULLIFY (p)"), "p", "DELETE ROWS"),
        (format!("{keyed} SET (p = 'x')"), "p", "DELETE ROWS"),
        ("COLUMNS (city) NULLIFY".to_owned(), "city", "SET"),
        ("COLUMNS (p) NULLIFY".to_owned(), "p", "DELETE ROWS"),
    ] {
        let sql = format!("CREATE CLEANSE POLICY forget ON t {clause}");
        let error = session.execute(&sql).await.expect_err(&sql);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}: {error}");
        let text = error.to_string();
        for part in ["forget", "public.t", column, offered] {
            assert!(text.contains(part), "{sql} should name {part}: {text}");
        }
    }
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$policies\"").await,
        0
    );
    // What is offered instead does it.
    query::write(&session, "INSERT INTO asked VALUES (1)").await;
    query::run(
        &session,
        &format!("CREATE CLEANSE POLICY forget ON t {keyed} SET (id = 0, city = '', email = '')"),
    )
    .await;
    query::write(&session, "INSERT INTO t VALUES (1, 'Basel', 'a@b', 'x')").await;
    assert_eq!(
        lines(&session, "SELECT * FROM t").await,
        ["0 (empty) (empty) x"]
    );
    // A column that becomes one that cannot be taken away is told before a row is written.
    query::run(
        &session,
        "CREATE TABLE later (id BIGINT, city TEXT NOT NULL, email TEXT)",
    )
    .await;
    query::run(&session, "ALTER TABLE later ALTER COLUMN email SET TAG pii").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY tagged ON later KEY (id) IN (SELECT id FROM asked) NULLIFY COLUMNS TAGGED pii",
    )
    .await;
    let error = query::error(&session, "ALTER TABLE later ALTER COLUMN city SET TAG pii").await;
    assert!(
        error.contains("city") && error.contains("tagged"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_keys_are_compared_by_type_and_counted() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id TEXT, n INT)").await;
    query::run(&session, "CREATE TABLE t (id BIGINT, name TEXT)").await;
    // Texts and numbers never match; both types are told.
    let error = query::error(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    assert!(
        error.contains("BIGINT") && error.contains("TEXT"),
        "{error}"
    );
    // Integers of different widths do.
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT n FROM asked) DELETE ROWS",
    )
    .await;
    // No key at all, and keys that nobody has: counted, and noted.
    let report = query::write(&session, "INSERT INTO t VALUES (1, 'a'), (NULL, 'b')").await;
    let gone = of(&report, "gone");
    assert_eq!((gone.keys, gone.rows_matched), (0, 0));
    assert!(!gone.notes.is_empty(), "an empty list is worth a note");
    query::write(
        &session,
        "INSERT INTO asked VALUES ('x', 7), ('x', 7), ('x', NULL)",
    )
    .await;
    let report = query::write(&session, "INSERT INTO t VALUES (1, 'a'), (NULL, 'b')").await;
    let gone = of(&report, "gone");
    assert_eq!((gone.keys, gone.rows_matched, gone.rows_erased), (1, 0, 0));
    assert_eq!(report.rows_written, 2);
    // NULL is nobody's key, and repeated keys are told.
    let notes = gone.notes.join("\n");
    assert!(notes.contains("NULL"), "{notes}");
    let report = query::write(&session, "INSERT INTO t VALUES (7, 'c'), (8, 'd')").await;
    assert_eq!(
        (of(&report, "gone").rows_matched, report.rows_erased),
        (1, 1)
    );
}

const RULED: &str = "CREATE TABLE t (id BIGINT, email TEXT, n BIGINT, \
    CONSTRAINT there EXPECT (email IS NOT NULL) ON VIOLATION QUARANTINE ROW, \
    CONSTRAINT mail EXPECT (email LIKE '%@%') ON NULL VIOLATE ON VIOLATION WARN, \
    CONSTRAINT known EXPECT (n > 0) ON VIOLATION WARN, \
    CONSTRAINT share EXPECT (null_count(email) <= 1 AND null_fraction(email) < 0.5) ON VIOLATION WARN, \
    CONSTRAINT total EXPECT (sum(n) > 0 AND count(email) > 0 AND avg(n) > 0) ON VIOLATION WARN, \
    CONSTRAINT all_of EXPECT (count(*) > 0) ON VIOLATION WARN)";

#[tokio::test(flavor = "multi_thread")]
async fn q5_cells_that_were_taken_away_are_asked_by_no_rule() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::write(&session, "INSERT INTO asked VALUES (2), (4), (6)").await;
    query::run(&session, RULED).await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (email)",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (1, 'a@b', 1), (2, 'b@b', 2), (3, 'odd', 3), (4, 'd@b', 4), (5, NULL, 5), (6, NULL, 6)",
    )
    .await;
    conserved(&report);
    let rule = |name: &str| {
        let mut results = report.rules.iter();
        results.find(|result| result.rule == name).unwrap()
    };
    // Three rows are not asked: neither broken, nor unknown, nor quarantined. The one that came without is.
    assert_eq!((rule("there").violations, rule("there").nulls), (1, 0));
    assert_eq!(rule("there").rows_checked, 3);
    // A row that goes to quarantine for another rule is asked all the same.
    assert_eq!((rule("mail").violations, rule("mail").nulls), (2, 1));
    assert_eq!(
        (rule("known").rows_checked, rule("known").violations),
        (6, 0)
    );
    assert_eq!((report.rows_written, report.rows_quarantined), (5, 1));
    // Row 5 is put aside, so nothing that is written lacks what it should have.
    assert_eq!(rule("share").outcome, RuleOutcome::Passed);
    assert_eq!(metric(&report, "null_count(email)").as_deref(), Some("0"));
    assert_eq!(
        metric(&report, "null_fraction(email)").as_deref(),
        Some("0.0")
    );
    assert_eq!(metric(&report, "count(email)").as_deref(), Some("2"));
    assert_eq!(
        metric(&report, "cleansed_count(email)").as_deref(),
        Some("3")
    );
    // Other columns of these rows count as ever.
    assert_eq!(metric(&report, "sum(n)").as_deref(), Some("16"));
    assert_eq!(metric(&report, "count(*)").as_deref(), Some("5"));
    let forget = of(&report, "forget");
    assert_eq!(
        (forget.keys, forget.rows_matched, forget.rows_erased),
        (3, 3, 0)
    );
    let kept = "SELECT metric, value FROM \"t$metrics\" WHERE metric IN ('cleansed_count(email)', 'null_count(email)') \
                AND over = 'written' ORDER BY metric";
    assert_eq!(
        lines(&session, kept).await,
        ["cleansed_count(email) 3", "null_count(email) 0"]
    );
    // A file's own statistics are of the file.
    let files = "SELECT null_counts['email'] FROM \"t$files\"";
    assert_eq!(lines(&session, files).await, ["3"]);
}

/// Also where a value is set: it is no value that the source should answer for.
#[tokio::test(flavor = "multi_thread")]
async fn q5_a_value_that_was_set_breaks_no_rule() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::write(&session, "INSERT INTO asked VALUES (2), (3)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, n BIGINT, CONSTRAINT low EXPECT (n > 0), \
         CONSTRAINT least EXPECT (min(n) > 0 AND is_unique(n)))",
    )
    .await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY zero ON t KEY (id) IN (SELECT id FROM asked) SET (n = 0)",
    )
    .await;
    let report = query::write(&session, "INSERT INTO t VALUES (1, 10), (2, 20), (3, -30)").await;
    assert_eq!(metric(&report, "min(n)").as_deref(), Some("10"));
    assert_eq!(metric(&report, "cleansed_count(n)").as_deref(), Some("2"));
    assert_eq!(of(&report, "zero").rows_matched, 2);
    assert_eq!(
        lines(&session, "SELECT * FROM t ORDER BY id").await,
        ["1 10", "2 0", "3 0"]
    );
    // Partition by partition too, of many batches.
    query::run(
        &session,
        "CREATE TABLE p (id BIGINT, part TEXT, n BIGINT, \
         CONSTRAINT some EXPECT (null_count(n) = 0 AND count(*) > 0) PER PARTITION) PARTITIONED BY (part)",
    )
    .await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY none ON p KEY (id) IN (SELECT id FROM asked) NULLIFY (n)",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO p SELECT value % 10, CASE WHEN value % 2 = 0 THEN 'even' ELSE 'odd' END, value \
         FROM generate_series(0, 99999)",
    )
    .await;
    assert_eq!(report.rows_written, 100_000);
    let each = report.metrics.iter().filter(|one| {
        one.metric == "null_count(n)" && one.partition.is_some() && one.over == Over::Written
    });
    let each: Vec<_> = each.filter_map(|one| one.value.as_deref()).collect();
    assert_eq!(each, ["0", "0"], "{:?}", report.metrics);
    assert_eq!(
        metric(&report, "cleansed_count(n)").as_deref(),
        Some("20000")
    );
}

/// Policies that meet; their names are in the other order, and so are they declared.
async fn strict(session: &Session, table: &str) {
    for (name, how, action) in [
        ("a", "set", "SET (a = 'x', b = 'x')"),
        ("b", "null", "NULLIFY (a)"),
        ("c", "gone", "DELETE ROWS"),
    ] {
        query::run(
            session,
            &format!(
                "CREATE CLEANSE POLICY {name} ON {table} KEY (id) IN (SELECT id FROM asked WHERE how = '{how}') {action}"
            ),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stricter_of_two_policies_wins_and_the_report_says_so() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT, how TEXT)").await;
    query::write(
        &session,
        "INSERT INTO asked VALUES (1, 'set'), (2, 'set'), (2, 'null'), (3, 'set'), (3, 'null'), (3, 'gone')",
    )
    .await;
    query::run(&session, "CREATE TABLE t (id BIGINT, a TEXT, b TEXT)").await;
    strict(&session, "t").await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (0, 'k', 'k'), (1, 'k', 'k'), (2, 'k', 'k'), (3, 'k', 'k')",
    )
    .await;
    conserved(&report);
    assert_eq!(
        lines(&session, "SELECT * FROM t ORDER BY id").await,
        ["0 k k", "1 x x", "2 NULL x"]
    );
    assert_eq!((report.rows_written, report.rows_erased), (3, 1));
    assert_eq!(of(&report, "c").rows_erased, 1);
    let notes: Vec<_> = report
        .policies
        .iter()
        .flat_map(|one| one.notes.clone())
        .collect();
    let notes = notes.join("\n");
    for part in ["nullifies", "deletes", "stricter"] {
        assert!(notes.contains(part), "notes should say which won: {notes}");
    }
    // At rest as in the write.
    query::run(&session, "CREATE TABLE u (id BIGINT, a TEXT, b TEXT)").await;
    query::write(
        &session,
        "INSERT INTO u VALUES (0, 'k', 'k'), (1, 'k', 'k'), (2, 'k', 'k'), (3, 'k', 'k')",
    )
    .await;
    strict(&session, "u").await;
    query::run(&session, "CLEANSE TABLE u").await;
    assert_eq!(
        lines(&session, "SELECT * FROM u ORDER BY id").await,
        lines(&session, "SELECT * FROM t ORDER BY id").await
    );
}

/// A row whose new version is erased does not stay as its old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_an_erased_row_erases_it() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(&session, "CREATE TABLE t (id BIGINT, n BIGINT)").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    query::write(&session, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await;
    query::write(&session, "INSERT INTO asked VALUES (2)").await;
    let report = query::write(&session, "UPDATE t SET n = n + 1").await;
    assert_eq!((report.rows_written, report.rows_erased), (2, 1));
    assert_eq!(
        lines(&session, "SELECT * FROM t ORDER BY id").await,
        ["1 2", "3 4"]
    );
    query::write(&session, "INSERT INTO asked VALUES (3)").await;
    let merge = "MERGE INTO t USING (VALUES (1, 5), (2, 6), (3, 7)) AS s(id, n) ON t.id = s.id \
                 WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n)";
    let report = query::write(&session, merge).await;
    assert_eq!(report.rows_erased, 2);
    assert_eq!(lines(&session, "SELECT * FROM t").await, ["1 5"]);
}

/// What cannot be held in memory refuses the write; what can is held in little.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_held_in_bounded_memory() {
    for (keys, limit_bytes, fits) in [(1_000_000, 256 << 20, true), (4_000_000, 24 << 20, false)] {
        let disk = Arc::new(InMemory::new());
        let wide = open(disk.clone()).await;
        let session = wide.session();
        query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
        query::run(&session, "CREATE TABLE t (id BIGINT)").await;
        query::run(
            &session,
            "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
        )
        .await;
        // Twice each.
        for _ in 0..2 {
            let sql = format!("INSERT INTO asked SELECT value * 2 FROM generate_series(1, {keys})");
            query::write(&session, &sql).await;
        }
        let mut settings = Settings::default();
        settings.memory_limit_bytes = limit_bytes;
        let engine = Engine::builder("memory:///")
            .store(disk)
            .settings(settings)
            .open()
            .await
            .unwrap();
        let narrow = engine.session();
        let sql = "INSERT INTO t SELECT value FROM generate_series(1, 1000)";
        let outcome = narrow.execute(sql).await;
        if fits {
            outcome.unwrap();
            let left = "SELECT count(*) FROM t WHERE id % 2 = 0";
            assert_eq!(query::integers(&session, left).await, [0]);
            assert_eq!(
                query::integers(&session, "SELECT count(*) FROM t").await,
                [500]
            );
        } else {
            let error = outcome.expect_err("a list that does not fit");
            assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
            assert!(
                error.to_string().contains("gone"),
                "should name the policy: {error}"
            );
            assert_eq!(query::rows(&session, "SELECT * FROM t").await, 0);
        }
    }
}
