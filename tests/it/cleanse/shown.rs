//! What a table says of its policies and of columns that are tagged as personal, and what it does not say.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use selvedge_engine::Session;

use super::bytes::MARKER;
use super::{lines, of, open, session, with_checkpoints};
use crate::support::query;
use crate::support::traces::holding;

#[tokio::test(flavor = "multi_thread")]
async fn show_create_table_makes_the_policies_again() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT, name TEXT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, name TEXT, \"Odd\"\"one\" TEXT, n INT)",
    )
    .await;
    query::run(&session, "ALTER TABLE t ALTER COLUMN name SET TAG pii").await;
    query::run(&session, "ALTER TABLE t ALTER COLUMN name SET TAG contact").await;
    for policy in [
        "one ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (name, \"Odd\"\"one\")",
        "two ON t KEY (id, name) IN (SELECT id, name FROM asked WHERE id > 7) DELETE ROWS",
        "three ON t KEY (id) IN (SELECT id FROM asked) SET (name = 'it''s', n = -1)",
        "four ON t COLUMNS TAGGED pii NULLIFY",
        "\"Fi ve\" ON t COLUMNS (n) NULLIFY",
        "six ON t KEY (id) IN (SELECT id FROM asked) NULLIFY COLUMNS TAGGED contact",
    ] {
        query::run(&session, &format!("CREATE CLEANSE POLICY {policy}")).await;
    }
    query::run(&session, "ALTER CLEANSE POLICY four ON t DISABLE").await;
    let text = lines(&session, "SHOW CREATE TABLE t").await.join("\n");
    for part in ["CREATE CLEANSE POLICY", "SET TAG", "DISABLE"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let shown = query::batches(&session, "SHOW CREATE TABLE t").await;
    let at = shown[0].schema().index_of("create_statement").unwrap();
    let text =
        datafusion::arrow::util::display::array_value_to_string(shown[0].column(at), 0).unwrap();
    query::run(&session, "CREATE SCHEMA other").await;
    let again = text
        .replace("\"public\".t ", "other.t ")
        .replace("public.t ", "other.t ")
        .replace("public.t\n", "other.t\n");
    assert_ne!(text, again, "{text}");
    for statement in again.split(';').filter(|part| !part.trim().is_empty()) {
        query::run(&session, statement.trim()).await;
    }
    let kept = |table: &str| format!("SELECT policy, enabled FROM {table} ORDER BY policy");
    assert_eq!(
        lines(&session, &kept("\"t$policies\"")).await,
        lines(&session, &kept("other.\"t$policies\"")).await
    );
    // And mean the same.
    query::write(&session, "INSERT INTO asked VALUES (1, 'a'), (8, 'b')").await;
    let rows = "VALUES (1, 'a', 'x', 1), (2, 'b', 'y', 2), (8, 'b', 'z', 3)";
    query::write(&session, &format!("INSERT INTO t {rows}")).await;
    query::write(&session, &format!("INSERT INTO other.t {rows}")).await;
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 2);
    let all = |table: &str| format!("SELECT * FROM {table} ORDER BY id");
    assert_eq!(
        lines(&session, &all("t")).await,
        lines(&session, &all("other.t")).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_name_policies_and_never_keys() {
    let disk = Arc::new(InMemory::new());
    let session = open(disk.clone()).await.session();
    query::run(&session, "CREATE TABLE asked (name TEXT)").await;
    query::run(&session, "CREATE TABLE t (name TEXT, n BIGINT)").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (name) IN (SELECT name FROM asked) DELETE ROWS",
    )
    .await;
    query::write(
        &session,
        &format!("INSERT INTO asked VALUES ('{MARKER}'), (NULL), ('{MARKER}')"),
    )
    .await;
    let report = query::write(
        &session,
        &format!("INSERT INTO t SELECT CASE WHEN value % 2 = 0 THEN '{MARKER}' ELSE 'other' END, value FROM generate_series(1, 10)"),
    )
    .await;
    let gone = of(&report, "gone");
    assert_eq!((gone.keys, gone.rows_matched, gone.rows_erased), (1, 5, 5));
    assert_eq!(
        (
            report.rows_received,
            report.rows_written,
            report.rows_erased
        ),
        (10, 5, 5)
    );
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    let report = query::write(
        &session,
        &format!("INSERT INTO t VALUES ('{MARKER}', 1), ('x', 2)"),
    )
    .await;
    assert_eq!(report.rows_erased, 1);
    // The table never held it: not in its report, not in the statement that its log describes, in no sample.
    assert_eq!(holding(&*disk, "public/t", MARKER).await, [""; 0]);
    let told = "SELECT policy FROM \"t$policies\"";
    assert_eq!(lines(&session, told).await, ["gone"]);
    for table in [
        "t$history",
        "t$policies",
        "t$quality",
        "t$metrics",
        "t$files",
    ] {
        let text = lines(&session, &format!("SELECT * FROM \"{table}\""))
            .await
            .join("\n");
        assert!(!text.contains(MARKER), "{table}: {text}");
    }
}

/// Whether a Parquet file's footer or its pages tell a bound of any column named so.
fn bounds(bytes: Bytes, column: &str) -> bool {
    let file = SerializedFileReader::new(bytes).unwrap();
    let groups = file.metadata().row_groups();
    groups
        .iter()
        .flat_map(|group| group.columns())
        .any(|chunk| {
            let named = chunk
                .column_path()
                .parts()
                .first()
                .is_some_and(|part| part == column);
            let statistics = chunk.statistics();
            let told = statistics
                .is_some_and(|all| all.min_bytes_opt().is_some() || all.max_bytes_opt().is_some());
            named
                && (told
                    || chunk.bloom_filter_offset().is_some()
                    || chunk.column_index_offset().is_some())
        })
}

async fn tagged(session: &Session) {
    query::run(
        session,
        "CREATE TABLE t (id BIGINT, mail TEXT, age INT, \
         CONSTRAINT mailed EXPECT (mail LIKE '%@%') ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT both EXPECT (mail <> 'x' AND age > 0) ON VIOLATION WARN, \
         CONSTRAINT young EXPECT (age < 150)) \
         TBLPROPERTIES ('selvedge.quarantineInvalid' = 'true')",
    )
    .await;
    query::run(session, "ALTER TABLE t ALTER COLUMN mail SET TAG pii").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_personal_is_in_no_statistics() {
    let disk = Arc::new(InMemory::new());
    let engine = with_checkpoints(disk.clone()).await;
    let session = engine.session();
    tagged(&session).await;
    for n in 0..4 {
        query::write(
            &session,
            &format!("INSERT INTO t VALUES ({n}, '{MARKER}@{n}', 20), (9, 'a@b', 30)"),
        )
        .await;
    }
    query::run(&session, "OPTIMIZE t").await;
    query::write(&session, "UPDATE t SET age = 40 WHERE id = 9").await;
    engine.settle().await;
    let told = "SELECT count(min_values['mail']), count(max_values['mail']), count(min_values['id']) > 0, \
                count(null_counts['mail']) > 0 FROM \"t$files\"";
    assert_eq!(lines(&session, told).await, ["0 0 true true"]);
    let objects: Vec<_> = disk
        .list(Some(&Path::from("public/t")))
        .try_collect()
        .await
        .unwrap();
    let (mut logged, mut files) = (0, 0);
    for meta in objects {
        let bytes = disk
            .get(&meta.location)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let path = meta.location.as_ref();
        if path.contains("_delta_log/") && path.ends_with(".json") {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(MARKER), "{path}: {text}");
            logged += 1;
        } else if path.ends_with(".parquet") && !path.contains("_delta_log") {
            assert!(!bounds(bytes, "mail"), "{path} tells bounds of mail");
            files += 1;
        }
    }
    assert!(logged > 4 && files > 4, "{logged} commits, {files} files");
    // Queries do not need them.
    let found = format!("SELECT id FROM t WHERE mail = '{MARKER}@2'");
    assert_eq!(query::integers(&session, &found).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_personal_is_in_no_message_and_no_sample() {
    let session = session().await;
    tagged(&session).await;
    // Samples of results, failures of quarantined rows.
    let report = query::write(
        &session,
        &format!("INSERT INTO t VALUES (1, '{MARKER}', 20), (2, 'x', 0), (3, '{MARKER}@', -5)"),
    )
    .await;
    let told = format!("{:?}", report.rules);
    assert!(!told.contains(MARKER), "{told}");
    // What is not personal is shown as ever.
    assert!(told.contains("-5") && told.contains("***"), "{told}");
    let failures = "SELECT f['message'], f['value'] FROM (SELECT unnest(_failures) AS f FROM \"t$quarantine\")";
    let failures = lines(&session, failures).await.join("\n");
    assert!(!failures.contains(MARKER), "{failures}");
    let recorded = lines(&session, "SELECT * FROM \"t$quality\"")
        .await
        .join("\n");
    assert!(!recorded.contains(MARKER), "{recorded}");
    // A write that is refused says why without them.
    let error = query::error(
        &session,
        &format!("INSERT INTO t VALUES (4, '{MARKER}@', 200)"),
    )
    .await;
    assert!(
        error.contains("young") && !error.contains(MARKER),
        "{error}"
    );
    query::run(
        &session,
        "ALTER TABLE t ADD CONSTRAINT short EXPECT (length(mail) < 30)",
    )
    .await;
    let long = "@".repeat(40);
    let error = query::error(
        &session,
        &format!("INSERT INTO t VALUES (4, '{MARKER}{long}', 20)"),
    )
    .await;
    assert!(
        error.contains("short") && !error.contains(MARKER),
        "{error}"
    );
    // Nor does one of a row that does not fit.
    query::run(&session, "ALTER TABLE t ALTER COLUMN age SET TAG pii").await;
    query::run(
        &session,
        "ALTER TABLE t SET TBLPROPERTIES ('selvedge.quarantineInvalid' = 'false')",
    )
    .await;
    let sql = format!("INSERT INTO t SELECT 1, 'a@b', column1 FROM (VALUES ('{MARKER}')) AS v");
    let error = query::error(&session, &sql).await;
    assert!(error.contains("age") && !error.contains(MARKER), "{error}");
    query::run(
        &session,
        "CREATE TABLE checked (id BIGINT, name TEXT, CONSTRAINT c CHECK (length(name) < 3))",
    )
    .await;
    query::run(
        &session,
        "ALTER TABLE checked ALTER COLUMN name SET TAG pii",
    )
    .await;
    let error = query::error(
        &session,
        &format!("INSERT INTO checked VALUES (1, '{MARKER}')"),
    )
    .await;
    assert!(error.contains("c") && !error.contains(MARKER), "{error}");
    // A dry run, which shows rows that would be put aside.
    let dry = format!("EXPLAIN QUALITY INSERT INTO t VALUES (5, '{MARKER}', 20)");
    let shown = lines(&session, &dry).await.join("\n");
    assert!(!shown.contains(MARKER), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_kept_with_the_column() {
    let disk = Arc::new(InMemory::new());
    let session = open(disk.clone()).await.session();
    tagged(&session).await;
    query::run(&session, "ALTER TABLE t ALTER COLUMN mail SET TAG contact").await;
    query::run(&session, "ALTER TABLE t ALTER COLUMN mail SET TAG contact").await;
    query::run(&session, "ALTER TABLE t DROP CONSTRAINT mailed").await;
    query::run(&session, "ALTER TABLE t DROP CONSTRAINT both").await;
    query::run(&session, "ALTER TABLE t RENAME COLUMN mail TO address").await;
    query::run(&session, "ALTER TABLE t RENAME TO people").await;
    query::run(&session, "ALTER TABLE people ADD COLUMN city TEXT").await;
    let listed = "SELECT table_name, column_name, tag_name FROM information_schema.column_tags ORDER BY 2, 3";
    for session in [session, open(disk).await.session()] {
        assert_eq!(
            lines(&session, listed).await,
            ["people address contact", "people address pii"]
        );
    }
}
