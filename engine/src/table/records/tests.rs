use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::object_store::ObjectStoreUrl;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::quarantine::rows_of;
use super::*;
use crate::clock::Ambient;
use crate::quality::record::{MetricValue, Origin};
use crate::quality::rule::Over;
use crate::table::actions::{CommitInfo, Marker, Metadata, Protocol};
use crate::table::handle::Table;
use crate::table::retention;
use crate::table::snapshot::Snapshot;

fn root() -> TableRoot {
    TableRoot {
        store_url: ObjectStoreUrl::parse("memory://").unwrap(),
        store: Arc::new(InMemory::new()),
        path: Path::from("lake/t"),
    }
}

fn table(root: &TableRoot) -> Table {
    Table::new(root.clone(), Ambient::machine(), TaskTracker::new())
}

fn snapshot(version: u64, properties: &[(&str, &str)]) -> Snapshot {
    let protocol = Protocol::plain(1, 2);
    let metadata = Metadata::of_files(properties.iter().copied());
    let columns = Arc::new(Schema::empty());
    Snapshot {
        version,
        ..Snapshot::draft(&protocol, &metadata, columns)
    }
}

/// The newest version of a table that asks for a profile.
fn profiled(version: u64) -> Snapshot {
    snapshot(version, &[("selvedge.profile", "true")])
}

fn measured(rows: u64) -> Marker {
    let metric = MetricValue {
        metric: "count(*)".into(),
        column: None,
        partition: None,
        over: Over::Written,
        value: Some(rows.to_string()),
        exact: true,
    };
    let report = WriteReport {
        operation: "WRITE".into(),
        rows_written: rows,
        metrics: vec![metric],
        ..WriteReport::default()
    };
    Marker {
        report: Some(report),
        ..Marker::default()
    }
}

fn silent() -> Marker {
    Marker {
        report: Some(WriteReport::default()),
        ..Marker::default()
    }
}

fn side(path: &str, rows: u64) -> SideFile {
    SideFile {
        path: format!("_selvedge/quarantine/{path}.parquet"),
        rows,
        bytes: 1,
        origin: None,
    }
}

fn taken(path: &str, rows: impl IntoIterator<Item = u64>) -> Replayed {
    let rows: RoaringTreemap = rows.into_iter().collect();
    replayed(&side(path, 0).path, &rows).unwrap()
}

/// Commits `marker` as this version, a second after the one before.
async fn commit(root: &TableRoot, version: u64, marker: Marker) {
    commit_as(root, version, CommitInfo::default(), marker).await;
}

async fn commit_as(root: &TableRoot, version: u64, info: CommitInfo, marker: Marker) {
    let info = CommitInfo {
        in_commit_timestamp: Some(at(version)),
        user_name: Some("ann".into()),
        ..info
    };
    let bytes = log::encode(info, marker, &[]).unwrap();
    let path = log::commit_path(root, version);
    root.store.put(&path, bytes.into()).await.unwrap();
}

fn at(version: u64) -> i64 {
    1000 * i64::try_from(version).unwrap()
}

/// Deletes all commits before `end`.
async fn forget(root: &TableRoot, end: u64) {
    for version in log::list(root, 0).await.unwrap().commits {
        if version < end {
            let path = log::commit_path(root, version);
            root.store.delete(&path).await.unwrap();
        }
    }
}

async fn all(root: &TableRoot, newest: u64) -> Vec<Record> {
    newest_first(root, newest).try_collect().await.unwrap()
}

async fn names(root: &TableRoot) -> Vec<String> {
    let objects = root.store.list(Some(&folder(root, "records")));
    let objects: Vec<_> = objects.try_collect().await.unwrap();
    let names = objects.iter().map(|object| object.location.filename());
    names.map(|name| name.unwrap().to_owned()).collect()
}

#[tokio::test]
async fn only_commits_that_asked_something_of_their_rows_have_records() {
    let root = root();
    commit(&root, 0, silent()).await;
    commit(&root, 1, measured(7)).await;
    let replays = Marker {
        replayed: vec![taken("a", [3])],
        ..silent()
    };
    commit(&root, 2, replays).await;
    let foreign = br#"{"commitInfo":{"operation":"WRITE"}}"#.as_slice();
    let path = log::commit_path(&root, 3);
    root.store.put(&path, foreign.into()).await.unwrap();

    let records = all(&root, 3).await;
    let versions: Vec<_> = records.iter().map(|record| record.version).collect();
    assert_eq!(versions, [Some(2), Some(1)]);
    let first = &records[1];
    assert_eq!((first.at_ms, first.user.as_deref()), (1000, Some("ann")));
    assert_eq!(first.report.rows_written, 7);

    let text = serde_json::to_string(first).unwrap();
    assert!(
        text.starts_with(r#"{"version":1,"atMs":1000,"user":"ann","report":{"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), *first);
    assert_eq!(all(&root, 1).await, records[1..]);
    assert!(all(&root, 0).await.is_empty());
}

#[tokio::test]
async fn records_outlive_commits() {
    let (root, kept) = (root(), root());
    let table = table(&root);
    for version in 0..100 {
        let marker = || match version % 7 {
            0 => silent(),
            _ => measured(version),
        };
        commit(&root, version, marker()).await;
        commit(&kept, version, marker()).await;
        if version % 3 == 2 {
            condense(&table, &profiled(version)).await.unwrap();
            secure(&table, version).await.unwrap();
            forget(&root, version).await;
        }
        for newest in [version, version / 2, 0] {
            assert_eq!(
                all(&root, newest).await,
                all(&kept, newest).await,
                "{newest}"
            );
        }
    }
    let names = names(&root).await;
    assert!(names.len() <= 8, "{names:?}");
}

#[tokio::test]
async fn a_table_without_rules_gets_no_objects() {
    let root = root();
    let table = table(&root);
    for version in 0..4 {
        commit(&root, version, silent()).await;
    }
    condense(&table, &snapshot(3, &[])).await.unwrap();
    secure(&table, 3).await.unwrap();
    assert_eq!(names(&root).await, [""; 0]);
}

#[tokio::test]
async fn rules_that_were_dropped_leave_their_records() {
    let root = root();
    let table = table(&root);
    commit(&root, 0, measured(1)).await;
    for version in 1..4 {
        commit(&root, version, silent()).await;
    }
    let before = all(&root, 3).await;
    condense(&table, &snapshot(3, &[])).await.unwrap();
    assert_eq!(names(&root).await, [""; 0]);
    secure(&table, 3).await.unwrap();
    forget(&root, 3).await;
    assert_eq!(all(&root, 3).await, before);
}

#[tokio::test]
async fn two_engines_may_condense_at_once() {
    let root = root();
    let (one, other) = (table(&root), table(&root));
    for version in 0..12 {
        commit(&root, version, measured(version)).await;
    }
    let before = all(&root, 11).await;
    let (low, high) = (profiled(8), profiled(11));
    let (a, b) = tokio::join!(condense(&one, &low), condense(&other, &high));
    a.and(b).unwrap();
    forget(&root, 12).await;
    assert_eq!(all(&root, 11).await, before);

    // Segments that overlap say everything once.
    let lines = segments::lines(&before[..8].iter().rev().cloned().collect::<Vec<_>>()).unwrap();
    segments::put(&root, 4, 11, &lines).await.unwrap();
    assert_eq!(all(&root, 11).await, before);
    assert_eq!(all(&root, 5).await, before[6..]);
}

#[tokio::test]
async fn readers_find_what_was_condensed_and_merged_under_them() {
    let root = root();
    let table = table(&root);
    for version in 0..9 {
        commit(&root, version, measured(version)).await;
    }
    let before = all(&root, 8).await;
    condense(&table, &profiled(3)).await.unwrap();
    let old = lay_out(&root, 8).await.unwrap();
    condense(&table, &profiled(8)).await.unwrap();
    forget(&root, 9).await;
    assert_eq!(names(&root).await.len(), 1);
    let mut found = Vec::new();
    for piece in old {
        let records = piece.records(root.clone());
        found.extend(records.try_collect::<Vec<_>>().await.unwrap());
    }
    assert_eq!(found, before);
}

#[tokio::test]
async fn a_damaged_segment_is_replaced_by_its_commits_or_told() {
    let root = root();
    let table = table(&root);
    for version in 0..5 {
        commit(&root, version, measured(version)).await;
    }
    let before = all(&root, 4).await;
    condense(&table, &profiled(4)).await.unwrap();
    let path = folder(&root, "records").join(names(&root).await[0].as_str());
    let whole = root.store.get(&path).await.unwrap().bytes().await.unwrap();
    let torn = whole.slice(..whole.len() - 30);
    root.store.put(&path, torn.clone().into()).await.unwrap();
    assert_eq!(all(&root, 4).await, before);

    // Whoever deletes the commits writes it anew first.
    secure(&table, 5).await.unwrap();
    forget(&root, 5).await;
    assert_eq!(all(&root, 4).await, before);

    root.store.put(&path, torn.into()).await.unwrap();
    let error = newest_first(&root, 4)
        .try_collect::<Vec<_>>()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.message().contains("00000000000000000004.json"),
        "{error}"
    );

    // A name that says other versions is damage as well; a name of nobody's is passed over.
    let other = folder(&root, "records").join("00000000000000000000-00000000000000000009.json");
    root.store.put(&path, whole.clone().into()).await.unwrap();
    root.store.put(&other, whole.into()).await.unwrap();
    assert!(newest_first(&root, 9).try_next().await.is_err());
    root.store.delete(&other).await.unwrap();
    for name in ["notes.txt", "4-9.json", "0-00000000000000000009.json"] {
        let path = folder(&root, "records").join(name);
        root.store.put(&path, "?".into()).await.unwrap();
    }
    assert_eq!(all(&root, 4).await, before);
}

#[tokio::test]
async fn refused_writes_are_told_the_newest_first() {
    let root = root();
    let table = table(&root);
    let record = |at_ms| Record {
        version: None,
        at_ms,
        user: None,
        report: measured(1).report.unwrap(),
        refused: Some("rule positive: 3 rows".into()),
        quarantine: vec![],
        replayed: vec![],
        restored: None,
    };
    for at_ms in [20, 9, 100] {
        refuse(&table, &record(at_ms)).await.unwrap();
    }
    for name in [
        "000000000000050-00000000-0000-0000-0000-000000000000.json",
        "x.json",
    ] {
        let path = folder(&root, "blocked").join(name);
        root.store.put(&path, "{".into()).await.unwrap();
    }
    let found = refused(&root, 0..=1000).await.unwrap();
    assert_eq!(found, [record(100), record(20), record(9)]);
    assert_eq!(refused(&root, 10..=99).await.unwrap(), [record(20)]);
    assert_eq!(refused_until(&root, 20).await.unwrap().len(), 2);
}

#[tokio::test]
async fn quarantine_has_the_rows_that_nobody_took_up() {
    let root = root();
    let quarantined = |files: &[(&str, u64)], taken: Vec<Replayed>| Marker {
        quarantine: files.iter().map(|(path, rows)| side(path, *rows)).collect(),
        replayed: taken,
        ..silent()
    };
    commit(&root, 1, quarantined(&[("a", 3), ("b", 1)], vec![])).await;
    commit(&root, 2, quarantined(&[], vec![taken("a", [1])])).await;
    // Of what is taken up, some is quarantined again.
    commit(
        &root,
        3,
        quarantined(&[("c", 1)], vec![taken("a", [0]), taken("b", [0])]),
    )
    .await;
    commit(&root, 4, quarantined(&[], vec![taken("a", [2])])).await;
    let at_version = async |newest, past_ms| {
        let files = quarantine(&root, newest, past_ms).await.unwrap();
        let files = files.into_iter().map(|found| {
            let name = found.file.path.trim_end_matches(".parquet");
            let name = name.rsplit('/').next().unwrap().to_owned();
            (name, found.version, found.gone.iter().collect::<Vec<_>>())
        });
        files.collect::<Vec<_>>()
    };
    let file = |name: &str, version, gone: &[u64]| (name.to_owned(), version, gone.to_vec());
    assert_eq!(
        at_version(1, 0).await,
        [file("a", 1, &[]), file("b", 1, &[])]
    );
    assert_eq!(
        at_version(2, 0).await,
        [file("a", 1, &[1]), file("b", 1, &[])]
    );
    assert_eq!(
        at_version(3, 0).await,
        [file("a", 1, &[0, 1]), file("c", 3, &[])]
    );
    assert_eq!(at_version(4, 0).await, [file("c", 3, &[])]);

    // What is past its retention is not there, and stays away when the retention grows after a vacuum.
    assert_eq!(at_version(3, at(1)).await, [file("c", 3, &[])]);
    purge(&root, at(1)).await.unwrap();
    assert_eq!(at_version(3, 0).await, [file("c", 3, &[])]);
    purge(&root, 1).await.unwrap();
    assert!(at_version(2, 0).await.is_empty());

    let (past, kept) = named(&root, 4, at(1)).await.unwrap();
    assert_eq!((past.len(), kept.len()), (2, 1));

    commit(&root, 5, quarantined(&[], vec![taken("c", [1])])).await;
    let error = quarantine(&root, 5, 0).await.unwrap_err();
    assert!(
        error
            .message()
            .contains("row 1 of '_selvedge/quarantine/c.parquet'"),
        "{error}"
    );
}

/// What the first line says of an operation, and the marker that repeats its name.
fn operation(name: &str, parameters: &[(&str, Value)]) -> (CommitInfo, Marker) {
    let parameters = parameters.iter();
    let parameters = parameters.map(|(key, value)| ((*key).to_owned(), value.clone()));
    let info = CommitInfo {
        operation: Some(name.to_owned()),
        operation_parameters: Some(parameters.collect()),
        ..CommitInfo::default()
    };
    let report = WriteReport {
        operation: name.to_owned(),
        ..WriteReport::default()
    };
    let marker = Marker {
        report: Some(report),
        ..Marker::default()
    };
    (info, marker)
}

#[tokio::test]
async fn what_is_taken_back_is_there_again_and_what_began_anew_has_no_past() {
    let root = root();
    let table = table(&root);
    let aside = |path: &str, taken: Vec<Replayed>| Marker {
        quarantine: vec![side(path, 2)],
        replayed: taken,
        ..silent()
    };
    let restore = async |version, to: Value| {
        let (info, marker) = operation("RESTORE", &[("version", to)]);
        commit_as(&root, version, info, marker).await;
    };
    commit(&root, 0, measured(1)).await;
    commit(&root, 1, aside("a", vec![])).await;
    commit(&root, 2, aside("b", vec![taken("a", [0])])).await;
    commit(&root, 3, aside("c", vec![])).await;
    restore(4, Value::from(1)).await;
    // Other engines write the version as text.
    restore(5, Value::from("2")).await;
    let (info, marker) = operation("CREATE OR REPLACE TABLE AS SELECT", &[]);
    let marker = Marker {
        quarantine: aside("d", vec![]).quarantine,
        ..marker
    };
    commit_as(&root, 6, info, marker).await;
    commit(&root, 7, measured(7)).await;
    restore(8, Value::from(5)).await;

    let files = async |newest| {
        let files = quarantine(&root, newest, 0).await.unwrap();
        let files = files.into_iter().map(|found| {
            let name = found.file.path.trim_end_matches(".parquet");
            let name = name.rsplit('/').next().unwrap().to_owned();
            (name, found.gone.iter().collect::<Vec<_>>())
        });
        files.collect::<Vec<_>>()
    };
    let file = |name: &str, gone: &[u64]| (name.to_owned(), gone.to_vec());
    let versions = async |newest| {
        let records = all(&root, newest).await;
        let versions = records.iter().filter_map(|record| record.version);
        versions.collect::<Vec<_>>()
    };
    // From commits, then from segments.
    for condensed in [false, true] {
        if condensed {
            condense(&table, &profiled(8)).await.unwrap();
            forget(&root, 9).await;
        }
        let (a, b, c) = (file("a", &[]), file("b", &[]), file("c", &[]));
        let (taken, d) = (file("a", &[0]), file("d", &[]));
        assert_eq!(
            files(3).await,
            [taken.clone(), b.clone(), c.clone()],
            "{condensed}"
        );
        assert_eq!(files(4).await, [a, c.clone()]);
        assert_eq!(files(5).await, [taken.clone(), b.clone(), c.clone()]);
        assert_eq!(files(6).await, std::slice::from_ref(&d));
        assert_eq!(files(7).await, std::slice::from_ref(&d));
        assert_eq!(files(8).await, [taken, b, c, d]);
        assert_eq!(versions(5).await, [3, 2, 1, 0]);
        assert_eq!(versions(7).await, [7, 6]);
        assert_eq!(versions(8).await, [7, 6, 3, 2, 1, 0]);
        let (_, kept) = named(&root, 7, 0).await.unwrap();
        assert_eq!(kept.len(), 4);
    }
}

#[tokio::test]
async fn versions_that_nothing_was_asked_in_end_nothing() {
    let root = root();
    let table = table(&root);
    for (version, name) in ["CREATE TABLE", "RESTORE", "CREATE OR REPLACE TABLE"]
        .into_iter()
        .enumerate()
    {
        let (info, marker) = operation(name, &[("version", Value::from(0))]);
        commit_as(&root, version as u64, info, marker).await;
    }
    assert!(all(&root, 2).await.is_empty());
    secure(&table, 3).await.unwrap();
    assert_eq!(names(&root).await, [""; 0]);
}

#[test]
fn rows_are_read_back_as_they_were_written() {
    let rows: RoaringTreemap = [0, 7, 1 << 40].into_iter().collect();
    let mut written = replayed("p", &rows).unwrap();
    assert_eq!(rows_of(&written).unwrap(), rows);
    written.rows.truncate(4);
    assert_eq!(rows_of(&written).unwrap_err().kind(), ErrorKind::Corrupt);
    written.rows = "!".into();
    assert!(rows_of(&written).is_err());
}

#[test]
fn retention_of_quarantine_is_ninety_days_unless_the_table_says() {
    let now_ms = 100 * 24 * retention::HOUR_MS;
    let past = |properties: &[(&str, &str)]| {
        retention::quarantine_past_ms(&snapshot(0, properties), now_ms)
    };
    assert_eq!(past(&[]).unwrap(), 10 * 24 * retention::HOUR_MS);
    let shorter = [(retention::QUARANTINE, "interval 1 hour")];
    assert_eq!(past(&shorter).unwrap(), now_ms - retention::HOUR_MS);
    assert!(past(&[(retention::QUARANTINE, "soon")]).is_err());
}

#[tokio::test]
async fn rows_in_another_file_are_those_of_the_write_they_came_from() {
    let root = root();
    let quarantined = |quarantine: Vec<SideFile>, replayed: Vec<Replayed>| Marker {
        quarantine,
        replayed,
        ..silent()
    };
    commit(&root, 0, quarantined(vec![side("a", 3)], vec![])).await;
    let origin = Origin {
        version: 0,
        at_ms: at(0),
    };
    let moved = SideFile {
        origin: Some(origin),
        ..side("b", 2)
    };
    let taken = taken("a", 0..3);
    commit(&root, 1, quarantined(vec![moved.clone()], vec![taken])).await;
    let found = quarantine(&root, 1, i64::MIN).await.unwrap();
    let expected = Quarantined {
        file: moved,
        version: 0,
        at_ms: at(0),
        gone: RoaringTreemap::new(),
    };
    assert_eq!(found, [expected]);
    // They are as old as they were.
    assert!(quarantine(&root, 1, at(0)).await.unwrap().is_empty());
    let (past, kept) = named(&root, 1, at(0)).await.unwrap();
    assert_eq!((past.len(), kept.len()), (2, 0));
}

#[tokio::test]
async fn redacted_records_say_nothing_of_values_and_still_name_files() {
    let root = root();
    let table = table(&root);
    let mut marker = measured(3);
    let report = marker.report.as_mut().unwrap();
    let greatest = MetricValue {
        metric: "max(email)".into(),
        column: Some("email".into()),
        value: Some("a@b".into()),
        ..report.metrics[0].clone()
    };
    report.metrics.push(greatest);
    marker.quarantine = vec![side("a", 1)];
    commit(&root, 0, marker).await;
    commit(&root, 1, silent()).await;
    let email = Forget::Columns(["email".to_owned()].into());
    for _ in 0..2 {
        redact(&table, 2, &email).await.unwrap();
        let records: Vec<Record> = newest_first(&root, 1).try_collect().await.unwrap();
        let [record] = records.as_slice() else {
            panic!("{records:?}")
        };
        let metrics = record.report.metrics.iter();
        let metrics: Vec<&str> = metrics.map(|of| of.metric.as_str()).collect();
        assert_eq!(metrics, ["count(*)"]);
        assert_eq!(record.quarantine, [side("a", 1)]);
        // The commits go; what they said is in the segment.
        for version in 0..2 {
            let read = log::read(&root, version).await.unwrap().unwrap();
            let path = log::commit_path(&root, version);
            let hollow = log::hollow(&read).unwrap();
            root.store.put(&path, hollow.into()).await.unwrap();
        }
    }
    assert_eq!(quarantine(&root, 1, i64::MIN).await.unwrap().len(), 1);
}
