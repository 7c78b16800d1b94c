//! What a journal table promises, rule by rule.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use selvedge_engine::{ErrorKind, Settings};

use super::{
    Event, FOLDER, checked, conserved, create, history, insert, lines, newest, open, orders,
    session, table, values, write, zoned,
};
use crate::support::delta::Folder;
use crate::support::lake::with_settings;
use crate::support::query;

#[tokio::test(flavor = "multi_thread")]
async fn j1_late_events_split_what_is_stored() {
    let session = table("").await;
    write(
        &session,
        &[(1, Some("a"), 2), (1, Some("c"), 9), (2, Some("x"), 2)],
    )
    .await;
    // Inside a closed interval, inside the open one, before the first.
    write(&session, &[(1, Some("b"), 5), (2, Some("y"), 4)]).await;
    write(&session, &[(1, Some("z"), 1)]).await;
    let expected = [
        "1 z 01 02",
        "1 a 02 05",
        "1 b 05 09",
        "1 c 09 NULL",
        "2 x 02 04",
        "2 y 04 NULL",
    ];
    assert_eq!(history(&session).await, expected);
    let current = lines(&session, "SELECT k, v, at FROM t ORDER BY k").await;
    assert_eq!(current, ["1 c 2026-01-09", "2 y 2026-01-04"]);
    checked(&session, "t").await;

    // Every order of the same events: one key for each, and a write for each place in the order.
    let session = table("LATE APPLY AFTER INTERVAL '300 days'").await;
    let events = [(Some("a"), 1), (Some("b"), 3), (None, 5), (Some("b"), 7)];
    let orders = orders(&events);
    for place in 0..events.len() {
        let batch: Vec<Event<'_>> = orders
            .iter()
            .zip(1..)
            .map(|(order, key)| (key, order[place].0, order[place].1))
            .collect();
        write(&session, &batch).await;
        checked(&session, "t").await;
    }
    let expected: Vec<String> = (1..=orders.len())
        .flat_map(|key| ["a 01 03", "b 03 05", "b 07 NULL"].map(|rest| format!("{key} {rest}")))
        .collect();
    assert_eq!(history(&session).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn j2_sightings_are_remembered_inside_the_horizon() {
    let seen = [(1, Some("a"), 1), (1, Some("a"), 5)];
    let session = table("LATE APPLY AFTER INTERVAL '30 days'").await;
    for event in seen {
        write(&session, &[event]).await;
    }
    assert_eq!(history(&session).await, ["1 a 01 NULL"]);
    write(&session, &[(1, Some("b"), 3)]).await;
    assert_eq!(
        history(&session).await,
        ["1 a 01 03", "1 b 03 05", "1 a 05 NULL"]
    );
    checked(&session, "t").await;

    // Without one, what is stored is split: nothing is known of the second sighting.
    let session = table("LATE APPLY").await;
    write(&session, &seen).await;
    write(&session, &[(1, Some("b"), 3)]).await;
    assert_eq!(history(&session).await, ["1 a 01 03", "1 b 03 NULL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn j3_an_early_delete_is_not_forgotten() {
    let session = table("LATE APPLY AFTER INTERVAL '30 days'").await;
    let report = write(&session, &[(1, None, 5)]).await;
    assert_eq!((report.intervals_opened, report.intervals_closed), (0, 0));
    write(&session, &[(1, Some("a"), 3)]).await;
    assert_eq!(history(&session).await, ["1 a 03 05"]);
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 0);
    // In one write too.
    write(&session, &[(2, None, 5), (2, Some("a"), 3)]).await;
    assert_eq!(history(&session).await, ["1 a 03 05", "2 a 03 05"]);
    // What comes after it is alive again.
    write(&session, &[(1, Some("b"), 7)]).await;
    assert_eq!(
        history(&session).await,
        ["1 a 03 05", "1 b 07 NULL", "2 a 03 05"]
    );
    checked(&session, "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j4_two_rows_of_one_instant() {
    let session = table("").await;
    // Identical ones are one.
    let report = write(&session, &[(1, Some("a"), 1), (1, Some("a"), 1)]).await;
    assert_eq!((report.rows_accepted, report.intervals_opened), (2, 1));
    let before = newest(&session).await;
    for clash in [
        [(7, Some("a"), 1), (7, Some("b"), 1)],
        // Against what is stored.
        [(1, Some("b"), 1), (8, Some("a"), 1)],
    ] {
        let error = session.execute(&insert(&clash)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        let text = error.to_string();
        let named = format!("k = {}", clash[0].0);
        assert!(
            text.contains("different") && text.contains(&named) && text.contains("2026-01-01"),
            "{text}"
        );
        assert_eq!(history(&session).await, ["1 a 01 NULL"]);
        assert_eq!(newest(&session).await, before);
    }
    // The delete wins, whatever comes first.
    write(
        &session,
        &[(2, None, 3), (2, Some("a"), 3), (2, Some("a"), 1)],
    )
    .await;
    write(
        &session,
        &[(3, Some("a"), 1), (3, Some("a"), 3), (3, None, 3)],
    )
    .await;
    assert_eq!(
        history(&session).await,
        ["1 a 01 NULL", "2 a 01 03", "3 a 01 03"]
    );
    // A delete at the instant at which what is stored began leaves nothing of it; one that is stored stays.
    write(&session, &[(1, None, 1), (2, Some("a"), 3)]).await;
    assert_eq!(history(&session).await, ["2 a 01 03", "3 a 01 03"]);
    checked(&session, "t").await;

    // A table that puts rows aside does so with all that contradict each other, however they are split.
    for partitions in [1, 8] {
        let mut settings = Settings::default();
        settings.target_partitions = partitions;
        let session = with_settings(settings).await.session();
        create(
            &session,
            "TBLPROPERTIES ('selvedge.quarantineInvalid' = 'true')",
        )
        .await;
        let rows = "SELECT value % 50, CASE WHEN value = 7 THEN 'odd' ELSE 'same' END, DATE '2026-01-01' FROM generate_series(0, 199)";
        let report = query::write(&session, &format!("INSERT INTO t {rows}")).await;
        conserved(&report);
        assert_eq!(
            (report.rows_quarantined, report.intervals_opened),
            (4, 49),
            "{report:?}"
        );
        let aside = "SELECT k, v, count(*) FROM \"t$quarantine\" GROUP BY 1, 2 ORDER BY 2";
        assert_eq!(lines(&session, aside).await, ["7 odd 1", "7 same 3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j5_every_change_of_a_write_is_kept() {
    let session = table("").await;
    let changes = [
        (1, Some("c"), 4),
        (1, Some("a"), 1),
        (1, Some("b"), 3),
        (1, Some("a"), 2),
        (1, Some("a"), 5),
    ];
    let report = write(&session, &changes).await;
    assert_eq!(report.rows_accepted, 5);
    assert_eq!(
        history(&session).await,
        ["1 a 01 03", "1 b 03 04", "1 c 04 05", "1 a 05 NULL"]
    );
    assert_eq!(newest(&session).await, 1);
    checked(&session, "t").await;

    // Without a sequence nobody knows which of two is the later one.
    query::run(
        &session,
        "CREATE TABLE unordered (k BIGINT, v TEXT) JOURNAL KEYS (k)",
    )
    .await;
    let error = query::error(
        &session,
        "INSERT INTO unordered VALUES (1, 'a'), (1, 'b'), (2, 'a')",
    )
    .await;
    assert!(
        error.contains("k = 1") && error.contains("SEQUENCE BY"),
        "{error}"
    );
    query::write(&session, "INSERT INTO unordered VALUES (1, 'a'), (1, 'a')").await;
    query::write(&session, "INSERT INTO unordered VALUES (1, 'b')").await;
    query::write(&session, "INSERT INTO unordered VALUES (1, 'b')").await;
    let all = "SELECT k, v, valid_to IS NULL FROM \"unordered$journal\" ORDER BY valid_from";
    assert_eq!(lines(&session, all).await, ["1 a false", "1 b true"]);
    checked(&session, "unordered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j6_the_same_rows_again_are_no_version() {
    for clauses in ["", "LATE APPLY AFTER INTERVAL '30 days'"] {
        let session = table(clauses).await;
        let rows = [
            (1, Some("a"), 1),
            (1, Some("b"), 3),
            (2, Some("x"), 1),
            (2, None, 2),
        ];
        write(&session, &rows).await;
        let (before, version) = (history(&session).await, newest(&session).await);
        for again in [&rows[..], &rows[1..2], &rows[2..]] {
            let report = write(&session, again).await;
            assert_eq!(report.version, None, "{clauses}: {report:?}");
            assert_eq!(report.rows_unchanged, again.len() as u64, "{report:?}");
            assert_eq!((report.intervals_opened, report.files_added), (0, 0));
        }
        assert_eq!(newest(&session).await, version, "{clauses}");
        assert_eq!(history(&session).await, before, "{clauses}");
    }
    // A later sighting without news costs no version where sightings are not kept.
    let session = table("").await;
    write(&session, &[(1, Some("a"), 1)]).await;
    let report = write(&session, &[(1, Some("a"), 9)]).await;
    assert_eq!((report.version, report.rows_unchanged), (None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn j7_a_null_in_a_key_is_refused_or_put_aside() {
    let session = session().await;
    let columns = "(country TEXT, client BIGINT, v TEXT, at DATE) JOURNAL KEYS (country, client) SEQUENCE BY at";
    let rows = "('CH', 1, 'a', DATE '2026-01-01'), ('CH', NULL, 'b', DATE '2026-01-01'), (NULL, 1, 'c', DATE '2026-01-01')";
    query::run(&session, &format!("CREATE TABLE t {columns}")).await;
    let error = query::error(&session, &format!("INSERT INTO t VALUES {rows}")).await;
    assert!(
        error.contains("has no value") && (error.contains("client") || error.contains("country")),
        "{error}"
    );
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 0);
    let error = query::error(&session, "INSERT INTO t VALUES ('CH', 1, 'a', NULL)").await;
    assert!(
        error.contains("sequence") && error.contains("at"),
        "{error}"
    );

    query::run(
        &session,
        &format!(
            "CREATE TABLE aside {columns} TBLPROPERTIES ('selvedge.quarantineInvalid' = 'true')"
        ),
    )
    .await;
    let report = query::write(
        &session,
        &format!("INSERT INTO aside VALUES {rows}, ('CH', 2, 'd', NULL)"),
    )
    .await;
    conserved(&report);
    assert_eq!((report.rows_accepted, report.rows_quarantined), (1, 3));
    let kept = "SELECT v FROM \"aside$quarantine\" ORDER BY v";
    assert_eq!(lines(&session, kept).await, ["b", "c", "d"]);
    checked(&session, "aside").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j8_changes_are_seen_through_null_and_nesting() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (k BIGINT, v TEXT, tags TEXT[], place STRUCT<city TEXT, zip INT>, m MAP(TEXT, INT), at DATE) \
         JOURNAL KEYS (k) SEQUENCE BY at",
    )
    .await;
    // One column differs from row to row, in each way it can.
    let states = [
        (
            "NULL",
            "['x', NULL]",
            "{city: 'Basel', zip: 1}",
            "MAP {'a': 1, 'b': NULL}",
        ),
        (
            "'a'",
            "['x', NULL]",
            "{city: 'Basel', zip: 1}",
            "MAP {'a': 1, 'b': NULL}",
        ),
        (
            "NULL",
            "['x', NULL]",
            "{city: 'Basel', zip: 1}",
            "MAP {'a': 1, 'b': NULL}",
        ),
        (
            "NULL",
            "['x', 'y']",
            "{city: 'Basel', zip: 1}",
            "MAP {'a': 1, 'b': NULL}",
        ),
        (
            "NULL",
            "[NULL, 'x']",
            "{city: 'Basel', zip: 1}",
            "MAP {'a': 1, 'b': NULL}",
        ),
        (
            "NULL",
            "NULL",
            "{city: 'Basel', zip: 1}",
            "MAP {'a': 1, 'b': NULL}",
        ),
        (
            "NULL",
            "NULL",
            "{city: 'Basel', zip: 2}",
            "MAP {'a': 1, 'b': NULL}",
        ),
        (
            "NULL",
            "NULL",
            "{city: 'Basel', zip: 2}",
            "MAP {'a': 1, 'b': 2}",
        ),
        ("NULL", "NULL", "{city: 'Basel', zip: 2}", "NULL"),
    ];
    for ((v, tags, place, m), day) in states.iter().zip(1..) {
        let row =
            format!("INSERT INTO t VALUES (1, {v}, {tags}, {place}, {m}, DATE '2026-01-{day:02}')");
        let report = query::write(&session, &row).await;
        assert_eq!(report.intervals_opened, 1, "{row}");
        let report = query::write(&session, &row).await;
        assert_eq!((report.version, report.rows_unchanged), (None, 1), "{row}");
    }
    let count = "SELECT count(*) FROM \"t$journal\"";
    assert_eq!(query::integers(&session, count).await, [9]);
    // The order of a map's keys says nothing.
    query::write(
        &session,
        "INSERT INTO t VALUES (2, 'a', NULL, NULL, MAP {'a': 1, 'b': 2}, DATE '2026-01-01')",
    )
    .await;
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (2, 'a', NULL, NULL, MAP {'b': 2, 'a': 1}, DATE '2026-01-02')",
    )
    .await;
    assert_eq!((report.version, report.rows_unchanged), (None, 1));
    checked(&session, "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j9_equal_numbers_are_no_change() {
    let session = session().await;
    query::run(
        &session,
        "CREATE TABLE t (k BIGINT, x DOUBLE, d DECIMAL(12,4), at DATE) JOURNAL KEYS (k) SEQUENCE BY at",
    )
    .await;
    let write =
        async |row: &str| query::write(&session, &format!("INSERT INTO t SELECT {row}")).await;
    write("1, CAST('NaN' AS DOUBLE), 7.5, DATE '2026-01-01'").await;
    write("2, CAST('-0.0' AS DOUBLE), 0, DATE '2026-01-01'").await;
    for row in [
        "1, CAST('NaN' AS DOUBLE), 7.5000, DATE '2026-01-02'",
        "1, CAST('-NaN' AS DOUBLE), CAST(7.50 AS DECIMAL(5,2)), DATE '2026-01-03'",
        "2, CAST('0.0' AS DOUBLE), CAST(0 AS DECIMAL(3,1)), DATE '2026-01-02'",
    ] {
        let report = write(row).await;
        assert_eq!((report.version, report.rows_unchanged), (None, 1), "{row}");
    }
    // No tolerance: the next number is another.
    for row in [
        "1, CAST('1.0' AS DOUBLE), 7.5, DATE '2026-01-04'",
        "1, CAST('1.0000000000000002' AS DOUBLE), 7.5, DATE '2026-01-05'",
        "1, CAST('1.0000000000000002' AS DOUBLE), 7.5001, DATE '2026-01-06'",
        "2, NULL, 0, DATE '2026-01-04'",
    ] {
        assert_eq!(write(row).await.intervals_opened, 1, "{row}");
    }
    checked(&session, "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j10_only_snapshots_read_absence_as_deletion() {
    let session = table("").await;
    let four = [1, 2, 3, 4].map(|key| (key, Some("a"), 1));
    write(&session, &four).await;
    // Keys that are not mentioned stay open.
    write(&session, &[(1, Some("b"), 2)]).await;
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 4);
    let overwrite = |events: &[Event<'_>]| format!("INSERT OVERWRITE t VALUES {}", values(events));
    let snapshot = [(1, Some("b"), 3), (2, Some("a"), 3), (3, Some("c"), 3)];
    let report = query::write(&session, &overwrite(&snapshot)).await;
    assert_eq!(
        (report.intervals_opened, report.intervals_closed),
        (1, 2),
        "{report:?}"
    );
    let expected = [
        "1 a 01 02",
        "1 b 02 NULL",
        "2 a 01 NULL",
        "3 a 01 03",
        "3 c 03 NULL",
        "4 a 01 03",
    ];
    assert_eq!(history(&session).await, expected);
    // Again: a key is closed once.
    let report = query::write(&session, &overwrite(&snapshot)).await;
    assert_eq!(report.version, None, "{report:?}");
    write(&session, &[(4, None, 4)]).await;
    assert_eq!(history(&session).await, expected);
    // A key that comes back opens after a gap.
    write(&session, &[(4, Some("a"), 5)]).await;
    assert_eq!(history(&session).await.last().unwrap(), "4 a 05 NULL");
    checked(&session, "t").await;

    // A snapshot of a source that broke is no snapshot.
    let before = history(&session).await;
    for sql in [
        overwrite(&[(1, Some("b"), 6)]),
        "INSERT OVERWRITE t SELECT * FROM t WHERE false".to_owned(),
    ] {
        let error = query::error(&session, &sql).await;
        assert!(
            error.contains("would close") && error.contains("public.t"),
            "{sql}: {error}"
        );
        assert_eq!(history(&session).await, before, "{sql}");
    }
    let two = [(1, Some("b"), 6), (2, Some("a"), 7)];
    let error = query::error(&session, &overwrite(&two)).await;
    assert!(error.contains("AS SNAPSHOTS"), "{error}");
    query::run(
        &session,
        "ALTER TABLE t SET TBLPROPERTIES ('selvedge.journal.maxDeleteFraction' = '1')",
    )
    .await;
    query::write(&session, &overwrite(&[(1, Some("b"), 6)])).await;
    assert_eq!(query::integers(&session, "SELECT k FROM t").await, [1]);
    checked(&session, "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j11_the_invariant_is_kept_and_checked() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    create(&session, "").await;
    // A day that both opens and closes leaves nothing of no length.
    write(
        &session,
        &[
            (1, Some("a"), 1),
            (1, None, 1),
            (2, Some("a"), 1),
            (2, Some("b"), 4),
        ],
    )
    .await;
    assert_eq!(history(&session).await, ["2 a 01 04", "2 b 04 NULL"]);
    write(&session, &[(2, None, 4)]).await;
    assert_eq!(history(&session).await, ["2 a 01 04"]);
    write(&session, &[(3, Some("a"), 1)]).await;
    checked(&session, "t").await;
    let columns = query::batches(
        &session,
        "SELECT * FROM \"t$journal\" WHERE valid_from >= valid_to",
    )
    .await;
    assert!(columns.iter().all(|batch| batch.num_rows() == 0));

    // Another writer adds a file once more: two rows are open for one key, and the check says which.
    let version = u64::try_from(newest(&session).await).unwrap();
    let folder = Folder {
        store: &*disk,
        path: FOLDER,
    };
    let mut add = folder.actions(version, "add").await.remove(0);
    let from = folder.file_path(add["path"].as_str().unwrap());
    let copied = "copied.parquet";
    let bytes = disk.get(&from).await.unwrap().bytes().await.unwrap();
    disk.put(&folder.file_path(copied), bytes.into())
        .await
        .unwrap();
    add["path"] = copied.into();
    let info = folder.actions(version, "commitInfo").await.remove(0);
    let at_ms = info["inCommitTimestamp"].as_i64().unwrap() + 1;
    folder
        .write(version + 1, at_ms, &[serde_json::json!({"add": add})])
        .await;
    let session = open(disk.clone()).await.session();
    let broken = lines(&session, "CHECK JOURNAL t").await;
    assert!(!broken.is_empty(), "nothing is found");
    assert!(
        broken
            .iter()
            .any(|row| row.starts_with("two_current") || row.starts_with("overlap")),
        "{broken:?}"
    );
    assert!(
        broken
            .iter()
            .all(|row| row.contains("k = 3") || row.contains(" 3 ")),
        "{broken:?}"
    );
    // The version before is whole.
    let before = format!("CHECK JOURNAL t VERSION AS OF {version}");
    assert!(lines(&session, &before).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn j12_the_open_end_is_null_or_far_but_never_both() {
    for (end, shown) in [("null", "NULL"), ("far_future", "9999-12-31T00:00:00Z")] {
        let session = session().await;
        create(
            &session,
            &format!("TBLPROPERTIES ('selvedge.journal.openEnd' = '{end}')"),
        )
        .await;
        write(
            &session,
            &[(1, Some("a"), 1), (1, Some("b"), 3), (2, Some("x"), 1)],
        )
        .await;
        write(&session, &[(2, Some("y"), 4)]).await;
        let ends = "SELECT k, v, valid_to, is_current FROM \"t$journal\" ORDER BY k, valid_from";
        let expected = [
            "1 a 2026-01-03T00:00:00Z false".to_owned(),
            format!("1 b {shown} true"),
            "2 x 2026-01-04T00:00:00Z false".to_owned(),
            format!("2 y {shown} true"),
        ];
        assert_eq!(lines(&session, ends).await, expected, "{end}");
        // What is open is true on any day to come, also one that nanoseconds cannot tell.
        for day in ["2026-01-05", "2262-05-01", "2500-01-01"] {
            let sql = format!("SELECT k, v FROM t FOR VALID_TIME AS OF DATE '{day}' ORDER BY k");
            assert_eq!(lines(&session, &sql).await, ["1 b", "2 y"], "{end}, {day}");
        }
        let changed = "ALTER TABLE t SET TBLPROPERTIES ('selvedge.journal.openEnd' = 'null')";
        let error = query::error(&session, changed).await;
        assert!(error.contains("selvedge.journal.openEnd"), "{error}");
        checked(&session, "t").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j13_a_new_column_opens_nothing_until_a_value_differs() {
    let session = table("").await;
    write(&session, &[(1, Some("a"), 1), (2, Some("a"), 1)]).await;
    query::run(&session, "ALTER TABLE t ADD COLUMN city TEXT").await;
    assert_eq!(history(&session).await, ["1 a 01 NULL", "2 a 01 NULL"]);
    // The same rows with NULL in it are the same rows.
    let report = query::write(
        &session,
        "INSERT INTO t (k, v, at, city) VALUES (1, 'a', DATE '2026-01-02', NULL), (2, 'a', DATE '2026-01-02', 'Basel')",
    )
    .await;
    assert_eq!((report.rows_unchanged, report.intervals_opened), (1, 1));
    assert_eq!(
        history(&session).await,
        ["1 a 01 NULL", "2 a 01 02", "2 a 02 NULL"]
    );
    // A change is a whole row; a column that does not exist is never passed over.
    let missing = query::error(
        &session,
        "INSERT INTO t (k, v, at) VALUES (2, 'b', DATE '2026-01-03')",
    )
    .await;
    assert!(missing.contains("city"), "{missing}");
    let unknown = query::error(
        &session,
        "INSERT INTO t (k, v, at, citi) VALUES (2, 'b', DATE '2026-01-03', 'Bern')",
    )
    .await;
    assert!(unknown.contains("citi"), "{unknown}");
    // What is left out by a rule of the table keeps its value.
    query::run(
        &session,
        "CREATE TABLE partial (k BIGINT, v TEXT, city TEXT, at DATE) JOURNAL KEYS (k) SEQUENCE BY at \
         IGNORE NULL UPDATES ON (city)",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO partial VALUES (1, 'a', 'Basel', DATE '2026-01-01')",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO partial (k, v, at) VALUES (1, 'b', DATE '2026-01-02')",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO partial VALUES (1, NULL, NULL, DATE '2026-01-03')",
    )
    .await;
    let all = "SELECT v, city FROM \"partial$journal\" ORDER BY valid_from";
    assert_eq!(
        lines(&session, all).await,
        ["a Basel", "b Basel", "NULL Basel"]
    );
    checked(&session, "partial").await;
    checked(&session, "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j14_untracked_values_change_in_place() {
    for horizon in ["", "LATE APPLY AFTER INTERVAL '30 days'"] {
        let session = session().await;
        query::run(
            &session,
            &format!(
                "CREATE TABLE t (k BIGINT, v TEXT, note TEXT, at DATE) JOURNAL KEYS (k) SEQUENCE BY at \
                 TRACK HISTORY ON * EXCEPT (note) {horizon}"
            ),
        )
        .await;
        let write = async |rows: &str| {
            query::write(&session, &format!("INSERT INTO t VALUES {rows}")).await
        };
        write("(1, 'a', 'first', DATE '2026-01-01')").await;
        let report = write("(1, 'a', 'second', DATE '2026-01-04')").await;
        assert_eq!(
            (report.intervals_opened, report.intervals_updated),
            (0, 1),
            "{horizon}: {report:?}"
        );
        write("(1, 'b', 'third', DATE '2026-01-08')").await;
        let all = "SELECT v, note, at, CAST(valid_from AS DATE) AS since, CAST(valid_to AS DATE) AS until FROM \"t$journal\" ORDER BY valid_from";
        assert_eq!(
            lines(&session, all).await,
            [
                "a second 2026-01-01 2026-01-01 2026-01-08",
                "b third 2026-01-08 2026-01-08 NULL"
            ]
        );
        // A late one belongs to the interval in which it falls.
        write("(1, 'a', 'late', DATE '2026-01-06')").await;
        let notes = "SELECT v, note FROM \"t$journal\" ORDER BY valid_from";
        assert_eq!(
            lines(&session, notes).await,
            ["a late", "b third"],
            "{horizon}"
        );
        checked(&session, "t").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j16_every_statement_goes_through_the_journal() {
    let session = session().await;
    // No sequence: each statement acts when it runs.
    query::run(
        &session,
        "CREATE TABLE t (k BIGINT, v TEXT) JOURNAL KEYS (k)",
    )
    .await;
    let all = "SELECT k, v, is_current FROM \"t$journal\" ORDER BY k, valid_from";
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'a'), (4, 'a'), (5, 'a')",
    )
    .await;
    query::write(&session, "UPDATE t SET v = 'b' WHERE k = 1").await;
    query::write(&session, "DELETE FROM t WHERE k = 2").await;
    query::write(
        &session,
        "MERGE INTO t USING (VALUES (3, 'm'), (4, NULL), (6, 'n')) AS s(k, v) ON t.k = s.k \
         WHEN MATCHED AND s.v IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v \
         WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v)",
    )
    .await;
    // A key that is changed is another thing.
    query::write(&session, "UPDATE t SET k = 7 WHERE k = 5").await;
    let expected = [
        "1 a false",
        "1 b true",
        "2 a false",
        "3 a false",
        "3 m true",
        "4 a false",
        "5 a false",
        "6 n true",
        "7 a true",
    ];
    assert_eq!(lines(&session, all).await, expected);
    checked(&session, "t").await;
    // Each key moves to where the next one was.
    query::write(&session, "UPDATE t SET k = k + 1").await;
    assert_eq!(
        lines(&session, "SELECT k, v FROM t ORDER BY k").await,
        ["2 b", "4 m", "7 n", "8 a"]
    );
    checked(&session, "t").await;
    query::write(
        &session,
        "INSERT OVERWRITE t VALUES (2, 'b'), (4, 'o'), (7, 'n')",
    )
    .await;
    assert_eq!(
        lines(&session, "SELECT k, v FROM t ORDER BY k").await,
        ["2 b", "4 o", "7 n"]
    );
    query::run(&session, "TRUNCATE TABLE t").await;
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 0);
    let open = "SELECT count(*) FROM \"t$journal\" WHERE is_current OR valid_to IS NULL";
    assert_eq!(query::integers(&session, open).await, [0]);
    assert!(query::rows(&session, "SELECT * FROM \"t$journal\"").await > expected.len());
    checked(&session, "t").await;
    // What would change the past in place is refused, but for the statement that says so.
    for sql in [
        "INSERT INTO \"t$journal\" SELECT * FROM \"t$journal\"",
        "UPDATE \"t$journal\" SET v = 'x'",
        "DELETE FROM \"t$journal\"",
        "INSERT INTO t REPLACE WHERE k = 1 VALUES (1, 'x')",
    ] {
        query::error(&session, sql).await;
    }
    query::write(
        &session,
        "CORRECT JOURNAL t SET v = 'corrected' WHERE k = 3 AND v = 'm'",
    )
    .await;
    let corrected = "SELECT count(*) FROM \"t$journal\" WHERE v = 'corrected'";
    assert_eq!(query::integers(&session, corrected).await, [1]);
    let told = "SELECT count(*) FROM \"t$history\" WHERE operation = 'CORRECT JOURNAL'";
    assert_eq!(query::integers(&session, told).await, [1]);
    checked(&session, "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j17_a_closed_row_is_marked_and_written_anew() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    create(
        &session,
        "TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    let many: Vec<Event<'_>> = (1..=100).map(|key| (key, Some("a"), 1)).collect();
    write(&session, &many).await;
    let table = Folder {
        store: &*disk,
        path: FOLDER,
    };
    let added = table.actions(1, "add").await;
    let [first] = added.as_slice() else {
        panic!("one file was expected");
    };
    assert_eq!(
        first["partitionValues"],
        serde_json::json!({"is_current": "true"})
    );
    let report = write(&session, &[(1, Some("b"), 2), (2, None, 2)]).await;
    assert_eq!(
        (
            report.intervals_opened,
            report.intervals_closed,
            report.files_removed
        ),
        (1, 2, 0),
        "{report:?}"
    );
    // The file of a hundred rows is there as it was, with a vector in the log itself; new are one row that is
    // current and two that are not.
    let adds = table.actions(2, "add").await;
    let old = adds
        .iter()
        .find(|add| add["path"] == first["path"])
        .unwrap();
    assert_eq!(old["deletionVector"]["storageType"], "i", "{old}");
    assert_eq!(old["deletionVector"]["cardinality"], 2, "{old}");
    let mut new: Vec<(String, i64)> = adds
        .iter()
        .filter(|add| add["path"] != first["path"])
        .map(|add| {
            let stats: serde_json::Value =
                serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            let flag = add["partitionValues"]["is_current"].as_str().unwrap();
            (flag.to_owned(), stats["numRecords"].as_i64().unwrap())
        })
        .collect();
    new.sort();
    assert_eq!(new, [("false".to_owned(), 2), ("true".to_owned(), 1)]);
    // At every version the flag and the rows agree.
    for (version, open) in [(1, 100), (2, 99)] {
        for sql in [
            format!("SELECT count(*) FROM t VERSION AS OF {version}"),
            format!("SELECT count(*) FROM \"t$journal\" VERSION AS OF {version} WHERE is_current"),
            format!(
                "SELECT count(*) FROM \"t$journal\" VERSION AS OF {version} WHERE valid_to IS NULL"
            ),
        ] {
            assert_eq!(query::integers(&session, &sql).await, [open], "{sql}");
        }
        checked(&session, &format!("t VERSION AS OF {version}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_the_clocks_are_apart_and_combine() {
    let session = table("").await;
    write(&session, &[(1, Some("a"), 1)]).await;
    write(&session, &[(1, Some("c"), 9)]).await;
    write(&session, &[(1, Some("b"), 5)]).await;
    // What was true on the sixth, as it was believed at each version, however the clauses stand.
    for (version, believed) in [(1, "a"), (2, "a"), (3, "b")] {
        for clauses in [
            format!("FOR VALID_TIME AS OF DATE '2026-01-06' FOR VERSION AS OF {version}"),
            format!("FOR VERSION AS OF {version} FOR VALID_TIME AS OF DATE '2026-01-06'"),
            format!("FOR VALID_TIME AS OF DATE '2026-01-06' VERSION AS OF {version}"),
        ] {
            let sql = format!("SELECT v FROM t {clauses}");
            assert_eq!(lines(&session, &sql).await, [believed], "{sql}");
        }
    }
    let sql = "SELECT v FROM t FOR VALID_TIME AS OF DATE '2026-01-06' FOR SYSTEM_TIME AS OF now()";
    assert_eq!(lines(&session, sql).await, ["b"]);
    query::run(&session, "CREATE TABLE plain (a BIGINT)").await;
    query::run(&session, "CREATE VIEW seen AS SELECT * FROM t").await;
    for sql in [
        "SELECT * FROM plain FOR VALID_TIME AS OF DATE '2026-01-06'",
        "SELECT * FROM plain FOR VALID_TIME ALL",
        "SELECT * FROM \"t$journal\" FOR VALID_TIME AS OF DATE '2026-01-06'",
        "SELECT * FROM seen FOR VALID_TIME AS OF DATE '2026-01-06'",
        "WITH c AS (SELECT * FROM t) SELECT * FROM c FOR VALID_TIME AS OF DATE '2026-01-06'",
    ] {
        query::error(&session, sql).await;
    }
    let error = query::error(
        &session,
        "SELECT * FROM plain FOR VALID_TIME AS OF DATE '2026-01-06'",
    )
    .await;
    assert!(
        error.contains("public.plain") && error.contains("journal"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_bounds_mean_what_the_standard_says() {
    let session = table("").await;
    write(
        &session,
        &[
            (1, Some("a"), 1),
            (1, Some("b"), 3),
            (1, Some("c"), 5),
            (1, None, 7),
        ],
    )
    .await;
    let day = |day: u8| format!("DATE '2026-01-{day:02}'");
    for (at, found) in [
        (1, "a"),
        (2, "a"),
        (3, "b"),
        (4, "b"),
        (5, "c"),
        (6, "c"),
        (7, ""),
    ] {
        let sql = format!("SELECT v FROM t FOR VALID_TIME AS OF {}", day(at));
        assert_eq!(lines(&session, &sql).await.concat(), found, "{sql}");
    }
    for (from, to, half_open, closed, inside) in [
        (1, 3, "a", "ab", "a"),
        (2, 5, "ab", "abc", "b"),
        (3, 7, "bc", "bc", "bc"),
        (3, 3, "", "b", ""),
        (7, 9, "", "", ""),
        (5, 2, "", "", ""),
    ] {
        let (from, to) = (day(from), day(to));
        for (clause, found) in [
            (format!("FROM {from} TO {to}"), half_open),
            (format!("BETWEEN {from} AND {to}"), closed),
            (format!("CONTAINED IN ({from}, {to})"), inside),
        ] {
            let sql = format!("SELECT v FROM t FOR VALID_TIME {clause} ORDER BY valid_from");
            assert_eq!(lines(&session, &sql).await.concat(), found, "{sql}");
        }
    }
    let all = "SELECT v, is_current FROM t FOR VALID_TIME ALL ORDER BY valid_from";
    assert_eq!(
        lines(&session, all).await,
        ["a false", "b false", "c false"]
    );
    for clause in [
        "AS OF NULL",
        "FROM NULL TO DATE '2026-01-01'",
        "BETWEEN DATE '2026-01-01' AND NULL",
    ] {
        let error = query::error(
            &session,
            &format!("SELECT * FROM t FOR VALID_TIME {clause}"),
        )
        .await;
        assert!(error.contains("NULL"), "{clause}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_an_instant_without_a_zone_is_of_the_session() {
    let session = zoned().await;
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 'a', '2026-03-01T10:00:00Z'), (1, 'b', '2026-03-01T12:00:00Z')",
    )
    .await;
    let at = async |instant: &str| {
        let sql = format!("SELECT v FROM t FOR VALID_TIME AS OF {instant}");
        lines(&session, &sql).await.concat()
    };
    assert_eq!(at("TIMESTAMP '2026-03-01 11:30:00'").await, "a");
    query::run(&session, "SET TIME ZONE 'America/New_York'").await;
    assert_eq!(at("TIMESTAMP '2026-03-01 06:30:00'").await, "a");
    assert_eq!(at("TIMESTAMP '2026-03-01 11:30:00'").await, "b");
    assert_eq!(
        at("TIMESTAMP WITH TIME ZONE '2026-03-01T11:30:00Z'").await,
        "a"
    );
    // An hour that did not happen, and one that happened twice.
    for instant in ["2026-03-08 02:30:00", "2026-11-01 01:30:00"] {
        let sql = format!("SELECT v FROM t FOR VALID_TIME AS OF TIMESTAMP '{instant}'");
        let error = query::error(&session, &sql).await;
        assert!(error.contains("New_York"), "{error}");
    }
}
