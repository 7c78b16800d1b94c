//! Real history: eleven years of the media types registry, in twelve releases, each with every type.

use std::path::PathBuf;

use selvedge_engine::Session;

use super::{Dice, checked, lines};
use crate::support::{lake, query};

/// Releases in the order of their days.
const RELEASES: [(&str, &str); 12] = [
    ("1.0.0", "2014-08-30"),
    ("1.5.0", "2014-12-30"),
    ("1.10.0", "2015-05-19"),
    ("1.20.0", "2015-11-10"),
    ("1.25.0", "2016-11-11"),
    ("1.30.0", "2017-08-27"),
    ("1.35.0", "2018-07-15"),
    ("1.40.0", "2019-04-20"),
    ("1.45.0", "2020-09-22"),
    ("1.50.0", "2021-09-15"),
    ("1.52.0", "2022-02-21"),
    ("1.54.0", "2025-03-17"),
];

const COLUMNS: &str = "type TEXT, source TEXT, charset TEXT, compressible BOOLEAN, extensions TEXT[], released_on DATE";
const ROW: &str =
    "type, source, charset, compressible, extensions, CAST(released_on AS DATE) AS released_on";
const VALUES: &str = "type, source, charset, compressible, extensions";

fn folder() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shell/examples/media-types");
    path.canonicalize().unwrap()
}

fn file(release: &str) -> String {
    let path = folder().join(format!("mime-db-{release}.json.gz"));
    path.display().to_string()
}

/// A lake with all releases in `came`, from which tests take them as they like.
async fn lake() -> (tempfile::TempDir, Session) {
    let folder = tempfile::tempdir().unwrap();
    let session = lake::folder(folder.path()).await;
    query::run(&session, &format!("CREATE TABLE came ({COLUMNS})")).await;
    for (release, _) in RELEASES {
        let sql = format!("INSERT INTO came SELECT {ROW} FROM '{}'", file(release));
        query::write(&session, &sql).await;
    }
    (folder, session)
}

async fn every_interval(session: &Session, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT {VALUES}, valid_from, valid_to, is_current FROM \"{table}$journal\" ORDER BY type, valid_from"
    );
    lines(session, &sql).await
}

/// What is true on the day of each release is that release, row by row; a day before it, the one before.
async fn is_every_release(session: &Session, table: &str) {
    let mut before: Vec<String> = Vec::new();
    for (release, day) in RELEASES {
        let then = |day: &str| {
            format!("SELECT {VALUES} FROM {table} FOR VALID_TIME AS OF {day} ORDER BY type")
        };
        let sql =
            format!("SELECT {VALUES} FROM came WHERE released_on = DATE '{day}' ORDER BY type");
        let expected = lines(session, &sql).await;
        assert!(expected.len() > 1_500, "{release}");
        let found = lines(session, &then(&format!("DATE '{day}'"))).await;
        assert_same(&found, &expected, &format!("{table}, {release}"));
        let eve = format!("TIMESTAMP '{day} 00:00:00' - INTERVAL '1 second'");
        let found = lines(session, &then(&eve)).await;
        assert_same(&found, &before, &format!("{table}, before {release}"));
        before = expected;
    }
    let current = lines(
        session,
        &format!("SELECT {VALUES} FROM {table} ORDER BY type"),
    )
    .await;
    assert_same(&current, &before, table);
}

/// As `assert_eq`, but of thousands of lines only those that differ are shown.
fn assert_same(found: &[String], expected: &[String], context: &str) {
    if found != expected {
        let missing: Vec<_> = expected
            .iter()
            .filter(|line| !found.contains(line))
            .take(5)
            .collect();
        let strange: Vec<_> = found
            .iter()
            .filter(|line| !expected.contains(line))
            .take(5)
            .collect();
        panic!(
            "{context}: {} rows where {} belong; missing {missing:#?}, strange {strange:#?}",
            found.len(),
            expected.len()
        );
    }
}

/// Release by release, as they came out: what a release does not have any more ends there.
async fn one_by_one(session: &Session) {
    query::run(
        session,
        &format!(
            "CREATE TABLE types ({COLUMNS}) JOURNAL KEYS (type) SEQUENCE BY released_on \
             TBLPROPERTIES ('selvedge.autoOptimize' = 'false')"
        ),
    )
    .await;
    for (release, _) in RELEASES {
        let sql = format!(
            "INSERT OVERWRITE types SELECT {ROW} FROM '{}'",
            file(release)
        );
        let report = query::write(session, &sql).await;
        assert_eq!(report.rows_accepted, report.rows_received, "{release}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_one_by_one_are_what_they_were() {
    let (_folder, session) = lake().await;
    one_by_one(&session).await;
    checked(&session, "types").await;
    is_every_release(&session, "types").await;
    // Far fewer rows than came: most of a release is the release before.
    let rows = query::integers(
        &session,
        "SELECT count(*) FROM \"types$journal\" UNION ALL SELECT count(*) FROM came",
    )
    .await;
    let (least, most) = (rows.iter().min().unwrap(), rows.iter().max().unwrap());
    assert!(least * 4 < *most, "{rows:?}");
    // The other clock: what was believed after each load.
    for ((release, day), version) in RELEASES.into_iter().zip(1..) {
        let sql = format!("SELECT count(*) FROM types VERSION AS OF {version}");
        let expected = format!("SELECT count(*) FROM came WHERE released_on = DATE '{day}'");
        assert_eq!(
            query::integers(&session, &sql).await,
            query::integers(&session, &expected).await,
            "{release}"
        );
    }
    // Upkeep leaves every interval as it was.
    let before = every_interval(&session, "types").await;
    query::run(&session, "OPTIMIZE types").await;
    assert_same(
        &every_interval(&session, "types").await,
        &before,
        "OPTIMIZE",
    );
    is_every_release(&session, "types").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pass_over_all_releases_is_the_same_journal() {
    let (_folder, session) = lake().await;
    one_by_one(&session).await;
    let expected = every_interval(&session, "types").await;
    let clause = "JOURNAL KEYS (type) SEQUENCE BY released_on";
    for (table, statements) in [
        (
            "made",
            vec![format!("CREATE TABLE made ({COLUMNS}) {clause} AS SNAPSHOTS SELECT * FROM came")],
        ),
        (
            "filled",
            vec![
                format!("CREATE TABLE filled ({COLUMNS}) {clause}"),
                "INSERT INTO filled AS SNAPSHOTS SELECT * FROM came".to_owned(),
            ],
        ),
        (
            "twice",
            vec![
                format!("CREATE TABLE twice ({COLUMNS}) {clause}"),
                "INSERT INTO twice AS SNAPSHOTS SELECT * FROM came WHERE released_on < DATE '2018-01-01'".to_owned(),
                "INSERT INTO twice AS SNAPSHOTS SELECT * FROM came WHERE released_on >= DATE '2018-01-01'".to_owned(),
            ],
        ),
    ] {
        for sql in &statements {
            query::run(&session, sql).await;
        }
        checked(&session, table).await;
        assert_same(&every_interval(&session, table).await, &expected, table);
        is_every_release(&session, table).await;
    }
}

/// Changes as a source that knows of deletions would send them: each release's rows, and what it left out.
async fn changes(session: &Session) {
    query::run(
        session,
        &format!("CREATE TABLE changes (op TEXT, {COLUMNS}, lot BIGINT)"),
    )
    .await;
    let mut dice = Dice(7);
    let mut lots: Vec<usize> = (0..RELEASES.len()).collect();
    dice.shuffle(&mut lots);
    for (number, ((_, day), lot)) in RELEASES.iter().zip(&lots).enumerate() {
        let all = format!("SELECT 'U', *, {lot} FROM came WHERE released_on = DATE '{day}'");
        query::write(session, &format!("INSERT INTO changes {all}")).await;
        let Some((_, before)) = number.checked_sub(1).map(|number| RELEASES[number]) else {
            continue;
        };
        let gone = format!(
            "SELECT 'D', type, NULL, NULL, NULL, NULL, DATE '{day}', {lot} FROM came WHERE released_on = DATE '{before}' \
             AND type NOT IN (SELECT type FROM came WHERE released_on = DATE '{day}')"
        );
        query::run(session, &format!("INSERT INTO changes {gone}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_in_any_order_are_the_same_journal() {
    let (_folder, session) = lake().await;
    one_by_one(&session).await;
    changes(&session).await;
    let expected = every_interval(&session, "types").await;
    let clause = "JOURNAL KEYS (type) SEQUENCE BY released_on APPLY AS DELETE WHEN op = 'D' \
                  TRACK HISTORY ON * EXCEPT (op) LATE APPLY AFTER INTERVAL '10000 days'";
    let all = format!("op, {VALUES}, released_on");
    // Whole releases shuffled; then every type by itself, so that each batch has some of every release.
    for (table, batches, lot) in [
        ("shuffled", RELEASES.len() as i64, "lot"),
        (
            "mixed",
            7,
            "length(type) * 13 + date_part('day', released_on)",
        ),
    ] {
        query::run(
            &session,
            &format!("CREATE TABLE {table} (op TEXT, {COLUMNS}) {clause}"),
        )
        .await;
        for batch in 0..batches {
            let sql = format!(
                "INSERT INTO {table} SELECT {all} FROM changes WHERE CAST({lot} AS BIGINT) % {batches} = {batch}"
            );
            query::write(&session, &sql).await;
            checked(&session, table).await;
        }
        assert_same(&every_interval(&session, table).await, &expected, table);
        is_every_release(&session, table).await;
    }
    // In order, and at once, nothing need be kept.
    query::run(
        &session,
        &format!(
            "CREATE TABLE at_once (op TEXT, {COLUMNS}) {} AS SELECT {all} FROM changes",
            clause.replace("AFTER INTERVAL '10000 days'", "")
        ),
    )
    .await;
    assert_same(
        &every_interval(&session, "at_once").await,
        &expected,
        "at_once",
    );
}
