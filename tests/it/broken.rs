//! What a power loss, a lost object or a newer writer leaves behind: an error that says which object, never
//! partial rows, and nothing built on top.

use std::path::{Path, PathBuf};

use selvedge_engine::{Engine, Error, ErrorKind, Settings};

use crate::support::lake::folder;
use crate::support::query;

/// A lake with a table `t` of two rows in two commits after the one that made it.
async fn lake() -> tempfile::TempDir {
    let lake = tempfile::tempdir().unwrap();
    let session = folder(lake.path()).await;
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    query::run(&session, "INSERT INTO t VALUES (1)").await;
    query::run(&session, "INSERT INTO t VALUES (2)").await;
    lake
}

fn table(lake: &Path) -> PathBuf {
    lake.join("public").join("t")
}

fn commit(lake: &Path, version: u64) -> PathBuf {
    table(lake)
        .join("_delta_log")
        .join(format!("{version:020}.json"))
}

/// The error of a statement by an engine that has seen nothing yet.
async fn refused(lake: &Path, sql: &str) -> Error {
    use futures::TryStreamExt;
    match folder(lake).await.execute(sql).await {
        Err(error) => error,
        Ok(selvedge_engine::Answer::Rows(rows)) => {
            let rows: Result<Vec<_>, _> = rows.try_collect().await;
            Error::from(rows.unwrap_err())
        }
        Ok(_) => panic!("{sql}: succeeded"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_cut_at_a_line_end_is_not_taken_for_a_shorter_one() {
    let lake = lake().await;
    let path = commit(lake.path(), 2);
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = text.trim_end().rfind('\n').unwrap() + 1;
    let zeroed = "\0".repeat(text.len());
    for torn in [&text[..cut], &text[..cut - 10], "", &zeroed] {
        std::fs::write(&path, torn).unwrap();
        for sql in ["SELECT * FROM t", "INSERT INTO t VALUES (3)"] {
            let error = refused(lake.path(), sql).await;
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{sql}: {error}");
            assert!(
                error.to_string().contains("00000000000000000002.json"),
                "{error}"
            );
        }
        assert!(
            !commit(lake.path(), 3).exists(),
            "a commit was built on a torn one"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_log_is_not_an_older_table() {
    let lake = lake().await;
    std::fs::remove_file(commit(lake.path(), 1)).unwrap();
    let error = refused(lake.path(), "SELECT * FROM t").await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(
        error.to_string().contains("00000000000000000001.json"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_data_file_is_an_error_that_names_it() {
    let lake = lake().await;
    let file = std::fs::read_dir(table(lake.path()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "parquet"))
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = refused(lake.path(), "SELECT sum(a + 0) FROM t").await;
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_of_newer_writers_are_refused_by_name() {
    let lake = lake().await;
    let protocol = |features: &str| {
        let line =
            format!(r#"{{"protocol":{{"minReaderVersion":3,"minWriterVersion":7,{features}}}}}"#);
        std::fs::write(commit(lake.path(), 3), line + "\n").unwrap();
    };
    protocol(r#""readerFeatures":[],"writerFeatures":["rowsThatSing"]"#);
    assert_eq!(
        query::rows(&folder(lake.path()).await, "SELECT * FROM t").await,
        2
    );
    let error = refused(lake.path(), "INSERT INTO t VALUES (3)").await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("rowsThatSing"), "{error}");

    protocol(r#""readerFeatures":["rowsThatSing"],"writerFeatures":["rowsThatSing"]"#);
    let error = refused(lake.path(), "SELECT * FROM t").await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("rowsThatSing"), "{error}");
}

/// An engine that writes a checkpoint every five commits.
async fn checkpointing(lake: &Path) -> Engine {
    let mut settings = Settings::default();
    settings.checkpoint_interval = 5;
    let builder = Engine::builder(lake.to_str().unwrap()).settings(settings);
    builder.open().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_checkpoint_costs_time_and_no_rows() {
    let lake = tempfile::tempdir().unwrap();
    let engine = checkpointing(lake.path()).await;
    let session = engine.session();
    // A constraint, because the kernel's own checkpoint writer would refuse this table.
    query::run(&session, "CREATE TABLE t (a BIGINT, CHECK (a > 0))").await;
    for a in 1..=12 {
        query::run(&session, &format!("INSERT INTO t VALUES ({a})")).await;
        engine.settle().await;
    }
    let log = table(lake.path()).join("_delta_log");
    let checkpoints: Vec<PathBuf> = std::fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".checkpoint.parquet"))
        .collect();
    assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
    let count = "SELECT count(*) FROM t";
    let fresh = || async { query::integers(&folder(lake.path()).await, count).await };
    assert_eq!(fresh().await, [12]);
    std::fs::write(log.join("_last_checkpoint"), "{\"vers").unwrap();
    assert_eq!(fresh().await, [12]);
    for checkpoint in checkpoints {
        std::fs::write(checkpoint, "PAR1").unwrap();
        assert_eq!(fresh().await, [12]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_before_a_checkpoint_are_not_needed() {
    let lake = tempfile::tempdir().unwrap();
    let engine = checkpointing(lake.path()).await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, p TEXT) PARTITIONED BY (p)",
    )
    .await;
    for a in 1..=6 {
        query::run(&session, &format!("INSERT INTO t VALUES ({a}, 'p {a}')")).await;
    }
    query::run(
        &session,
        "INSERT OVERWRITE PARTITIONS OF t VALUES (10, 'p 1'), (20, NULL)",
    )
    .await;
    engine.settle().await;
    for version in 0..5 {
        std::fs::remove_file(commit(lake.path(), version)).unwrap();
    }
    let session = folder(lake.path()).await;
    let rows = query::integers(&session, "SELECT a FROM t ORDER BY a").await;
    assert_eq!(rows, [2, 3, 4, 5, 6, 10, 20]);
    query::run(&session, "INSERT INTO t VALUES (30, 'p 2')").await;
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM t").await,
        [8]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lake");
    std::fs::write(&file, "not a folder").unwrap();
    let error = Engine::builder(file.to_str().unwrap())
        .open()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not a folder"), "{error}");
}

/// A log that is not what it should be, each time by its newest commit: a word on which object, and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_log_names_its_object() {
    let lake = lake().await;
    let path = commit(lake.path(), 2);
    let whole = std::fs::read_to_string(&path).unwrap();
    let foreign = |lines: &str| {
        // Without our checksum: what another writer may have left.
        format!("{{\"commitInfo\":{{\"timestamp\":1}}}}\n{lines}\n")
    };
    for broken in [
        "not JSON\n".to_owned(),
        whole.replace("\"add\"", "\"ad\""),
        whole.replace("\"size\":", "\"sise\":"),
        foreign(r#"{"add":{"path":"x.parquet"}}"#),
        foreign(r#"{"add":7}"#),
        foreign(r#"{"metaData":{"id":"x"}}"#),
        foreign(r#"{"remove":{}}"#),
    ] {
        std::fs::write(&path, &broken).unwrap();
        for sql in [
            "SELECT * FROM t",
            "INSERT INTO t VALUES (3)",
            "DESCRIBE HISTORY t",
        ] {
            let error = refused(lake.path(), sql).await;
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{sql}: {broken}: {error}");
            let text = error.to_string();
            assert!(text.contains("00000000000000000002.json"), "{text}");
            assert!(text.contains("hint: restore this object"), "{text}");
        }
    }
    std::fs::write(&path, whole).unwrap();
    let session = folder(lake.path()).await;
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_says_nonsense_is_not_believed() {
    let lake = lake().await;
    let next = commit(lake.path(), 3);
    let add = |fields: &str| {
        format!(
            r#"{{"add":{{"path":"p.parquet","partitionValues":{{}},"modificationTime":1,"dataChange":true,{fields}}}}}"#
        )
    };
    for (line, kind, words) in [
        (add(r#""size":-5"#), ErrorKind::Corrupt, "size -5"),
        (
            add(r#""size":5"#).replace("p.parquet", "../../secret.parquet"),
            ErrorKind::Corrupt,
            "secret.parquet",
        ),
        // Other writers may share files between tables.
        (
            add(r#""size":5"#).replace("p.parquet", "/etc/passwd"),
            ErrorKind::Unsupported,
            "passwd",
        ),
        (
            add(
                r#""size":5,"deletionVector":{"storageType":"i","pathOrInlineDv":"!","sizeInBytes":9,"cardinality":1}"#,
            ),
            ErrorKind::Corrupt,
            "deletion vector",
        ),
    ] {
        std::fs::write(&next, line + "\n").unwrap();
        let error = refused(lake.path(), "SELECT a + 0 FROM t").await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

/// With its old commits gone a table stands on its checkpoint alone. The kernel, which reads it, adds a backtrace to
/// its errors when the environment asks for one: no person is to see that.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_checkpoint_without_its_commits_names_it() {
    let lake = tempfile::tempdir().unwrap();
    let engine = checkpointing(lake.path()).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    for a in 1..=6 {
        query::run(&session, &format!("INSERT INTO t VALUES ({a})")).await;
    }
    engine.settle().await;
    std::fs::remove_file(commit(lake.path(), 0)).unwrap();
    let log = std::fs::read_dir(commit(lake.path(), 0).parent().unwrap()).unwrap();
    let mut checkpoints: Vec<_> = log.map(|entry| entry.unwrap().path()).collect();
    checkpoints.retain(|path| path.to_str().unwrap().ends_with(".checkpoint.parquet"));
    assert!(!checkpoints.is_empty());
    for torn in [&b"PAR1"[..], &[0; 500], b""] {
        for checkpoint in &checkpoints {
            std::fs::write(checkpoint, torn).unwrap();
        }
        let error = refused(lake.path(), "SELECT * FROM t").await;
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
        assert!(text.contains("cannot read checkpoint 6 of"), "{text}");
        assert!(text.contains("public/t"), "{text}");
        assert!(!text.to_lowercase().contains("backtrace"), "{text}");
    }
}

/// The catalog is a log too.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_catalog_names_its_object() {
    let lake = lake().await;
    let step = lake
        .path()
        .join("_selvedge/catalog/00000000000000000001.json");
    let whole = std::fs::read(&step).unwrap();
    let zeroed = vec![0; whole.len()];
    for torn in [&b""[..], &whole[..whole.len() / 2], &zeroed, b"{}"] {
        std::fs::write(&step, torn).unwrap();
        for sql in [
            "SELECT * FROM t",
            "SHOW TABLES",
            "CREATE TABLE u (a BIGINT)",
        ] {
            let error = refused(lake.path(), sql).await;
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{sql}: {error}");
            let text = error.to_string();
            assert!(
                text.contains("00000000000000000001.json") && text.contains("hint:"),
                "{text}"
            );
        }
    }
    std::fs::write(&step, whole).unwrap();
    assert_eq!(
        query::rows(&folder(lake.path()).await, "SELECT * FROM t").await,
        2
    );
}
