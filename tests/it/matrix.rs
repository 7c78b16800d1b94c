//! Any two statements at once: their end is that of one after the other, in one of the two orders.
//!
//! ```text
//! first:   plans .. held ........................ let go .. commits, alone or run again
//! second:                 runs from end to end
//! ```
//!
//! What the two answer, the rows, the definition and the history of the table must all be those of one serial
//! order, which two fresh tables show. So an error is right exactly where that order has it as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use futures::{StreamExt, stream};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use selvedge_engine::{
    Answer, Engine, Error, Session, Settings, WriteContext, WriteHook, WriteHookSupplier,
};

use crate::support::gate::{Access, Gate};
use crate::support::query;

/// Nothing here takes long, unless one waits for the other for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two files of four rows each, one of which is gone in the end: then the table has deletion vectors, and each file
/// has one that can grow.
const TABLE: [&str; 4] = [
    "CREATE TABLE t (k BIGINT, v BIGINT)",
    "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
    "INSERT INTO t VALUES (11, 11), (12, 12), (13, 13), (14, 14)",
    "DELETE FROM t WHERE k IN (4, 14)",
];

/// A kind of statement. In its text `$k` is the key of a row that is there, `$n` a new one, and `$s` the side: 1
/// for the statement that is held, 2 for the other.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    sql: &'static str,
    /// What the object is called that is written last.
    last: &'static str,
    /// Whether it looks at no other rows than those it changes, as far as the log can tell.
    minds_its_rows: bool,
}

const fn kind(name: &'static str, sql: &'static str) -> Kind {
    Kind {
        name,
        sql,
        last: ".json",
        minds_its_rows: false,
    }
}

static KINDS: [Kind; 13] = [
    Kind {
        minds_its_rows: true,
        ..kind("append", "INSERT INTO t (k, v) VALUES ($n, $s)")
    },
    kind(
        "append from itself",
        "INSERT INTO t (k, v) SELECT k + 100 * $s, v FROM t WHERE k = $k",
    ),
    kind("overwrite", "INSERT OVERWRITE t (k, v) VALUES ($n, $s)"),
    kind(
        "replace where",
        "INSERT INTO t (k, v) REPLACE WHERE k = $k VALUES ($k, 15 + $s)",
    ),
    Kind {
        minds_its_rows: true,
        ..kind("delete", "DELETE FROM t WHERE k = $k")
    },
    Kind {
        minds_its_rows: true,
        ..kind("update", "UPDATE t SET v = v * 10 + $s WHERE k = $k")
    },
    kind(
        "merge",
        "MERGE INTO t USING (VALUES ($k, $s), ($n, $s)) AS s (k, v) ON t.k = s.k \
         WHEN MATCHED THEN UPDATE SET v = t.v * 10 + s.v \
         WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v)",
    ),
    // Rows that another statement writes break it.
    kind(
        "add check",
        "ALTER TABLE t ADD CONSTRAINT c$s CHECK (v < 15 AND k < 20)",
    ),
    kind(
        "set property",
        "ALTER TABLE t SET TBLPROPERTIES ('delta.dataSkippingNumIndexedCols' = '$s')",
    ),
    kind("add column", "ALTER TABLE t ADD COLUMN c$s BIGINT"),
    // Each commit from this one on is followed by a checkpoint, of which one is held while the other overtakes it.
    Kind {
        last: "_last_checkpoint",
        ..kind(
            "checkpoint",
            "ALTER TABLE t SET TBLPROPERTIES ('delta.checkpointInterval' = '1')",
        )
    },
    kind("optimize", "OPTIMIZE t"),
    kind("restore", "RESTORE TABLE t TO VERSION AS OF 2"),
];

/// Which rows the two statements have to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The same, and the new ones have the same key.
    SameRow,
    SameFile,
    Disjoint,
}

impl Place {
    const ALL: [Self; 3] = [Self::SameRow, Self::SameFile, Self::Disjoint];

    fn text(self, kind: Kind, side: usize) -> String {
        let (k, n) = match (self, side) {
            (_, 1) | (Self::SameRow, _) => ("1", "21"),
            (Self::SameFile, _) => ("2", "22"),
            (Self::Disjoint, _) => ("12", "22"),
        };
        kind.sql
            .replace("$k", k)
            .replace("$n", n)
            .replace("$s", &side.to_string())
    }
}

/// Where the first statement is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It is planned, and about to read or write its first data file. Both statements are of one engine, so that
    /// it finds the other's commit in memory when it comes to its own.
    Planned,
    /// Its files are there, and its last object is about to be put. Each statement has an engine of its own, so
    /// that it learns of the other's commit from the store.
    Written,
}

impl Held {
    const ALL: [Self; 2] = [Self::Planned, Self::Written];

    fn stops(self, first: Kind) -> impl Fn(Access, &Path) -> bool + Send + Sync + 'static {
        move |access, path| {
            let path = path.as_ref();
            let in_log = path.contains("/_delta_log/");
            match self {
                Self::Planned => !in_log && path.ends_with(".parquet"),
                Self::Written => in_log && access == Access::Write && path.ends_with(first.last),
            }
        }
    }
}

/// Counts how often writes are planned.
#[derive(Debug, Default)]
struct Plans(AtomicUsize);

impl WriteHookSupplier for Plans {
    fn name(&self) -> &str {
        "plans"
    }

    fn create(&self, _context: &WriteContext) -> Result<Option<Arc<dyn WriteHook>>, Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }
}

/// How two statements ended: the answer to each, and the table.
#[derive(Debug, PartialEq, Eq)]
struct End {
    answers: [String; 2],
    table: Table,
}

#[derive(Debug, PartialEq, Eq)]
struct Table {
    rows: Vec<String>,
    definition: Vec<String>,
    /// In no order: a commit may be explained as one before another that has a lower number.
    operations: Vec<String>,
}

async fn open(store: Arc<dyn ObjectStore>, plans: &Arc<Plans>) -> Engine {
    // One lane of writing is one file.
    let mut settings = Settings::default();
    settings.target_partitions = 1;
    let builder = Engine::builder("memory:///")
        .store(store)
        .settings(settings);
    builder.hook(Arc::clone(plans) as _).open().await.unwrap()
}

/// The answer as far as it may be compared: what counts, but neither versions nor times.
async fn answer(engine: &Engine, sql: &str) -> String {
    let answer = match engine.session().execute(sql).await {
        Ok(Answer::Written(report)) => format!(
            "{} inserted, {} updated, {} deleted, {} written",
            report.rows_inserted, report.rows_updated, report.rows_deleted, report.rows_written
        ),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    };
    engine.settle().await;
    answer
}

/// The lines of an answer, without its head: that is missing where there are no rows.
async fn lines(session: &Session, sql: &str) -> Vec<String> {
    let batches = query::batches(session, sql).await;
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let lines = text.lines().filter(|line| line.starts_with('|'));
    lines.skip(1).map(str::to_owned).collect()
}

async fn rows(session: &Session) -> Vec<String> {
    let mut rows = lines(session, "SELECT * FROM t").await;
    rows.sort();
    rows
}

async fn table(session: &Session) -> Table {
    let history = query::batches(session, "DESCRIBE HISTORY t").await;
    let mut operations: Vec<String> = history
        .iter()
        .flat_map(|batch| {
            let column = cast(batch.column_by_name("operation").unwrap(), &DataType::Utf8).unwrap();
            let names = column.as_string::<i32>().iter();
            names
                .map(|name| name.unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    operations.sort();
    Table {
        rows: rows(session).await,
        definition: lines(session, "SHOW CREATE TABLE t").await,
        operations,
    }
}

/// One after the other; `order` holds the places of the two in `statements`.
async fn serial(base: &InMemory, statements: &[String; 2], order: [usize; 2]) -> End {
    let disk = Arc::new(base.fork());
    let engine = open(disk, &Arc::default()).await;
    let mut answers: [String; 2] = Default::default();
    for which in order {
        answers[which] = answer(&engine, &statements[which]).await;
    }
    End {
        answers,
        table: table(&engine.session()).await,
    }
}

/// The second while the first is held. Also returns how often the two were planned.
async fn at_once(
    base: &InMemory,
    statements: &[String; 2],
    held: Held,
    first: Kind,
) -> (End, usize) {
    let disk = Arc::new(base.fork());
    let (gate, store) = Gate::before(disk.clone());
    let plans = Arc::new(Plans::default());
    let one = open(store, &plans).await;
    let other = match held {
        Held::Planned => one.clone(),
        Held::Written => open(disk.clone(), &plans).await,
    };
    gate.close(held.stops(first));
    let running = tokio::spawn({
        let (gate, one, sql) = (Arc::clone(&gate), one.clone(), statements[0].clone());
        async move {
            let answer = answer(&one, &sql).await;
            // A statement that looks at no data file has nothing to be held at.
            gate.none_will_come();
            answer
        }
    });
    let waits = gate.came().await;
    // All of them put a last object; some look at no data file before that.
    assert!(
        waits || held == Held::Planned,
        "{statements:?}: the first was not held"
    );
    let second = answer(&other, &statements[1]).await;
    gate.open();
    // What is in the store, not what an engine remembers.
    let cold = open(disk, &plans).await;
    let end = End {
        answers: [running.await.unwrap(), second],
        table: table(&cold.session()).await,
    };
    let engines = match held {
        Held::Planned => vec![one],
        Held::Written => vec![one, other],
    };
    for engine in engines {
        let known = rows(&engine.session()).await;
        assert_eq!(
            known, end.table.rows,
            "{statements:?} {held:?}: an engine knows other rows"
        );
    }
    (end, plans.0.load(Ordering::Relaxed))
}

/// A table after some statements, for others to fork.
async fn made(statements: &[&str]) -> Arc<InMemory> {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone(), &Arc::default()).await;
    for sql in statements {
        query::run(&engine.session(), sql).await;
    }
    engine.settle().await;
    disk
}

/// What is wrong with one pair at one place.
async fn check(base: Arc<InMemory>, kinds: [Kind; 2], place: Place) -> Vec<String> {
    let [first, second] = kinds;
    let statements = [place.text(first, 1), place.text(second, 2)];
    let orders = [
        serial(&base, &statements, [0, 1]).await,
        serial(&base, &statements, [1, 0]).await,
    ];
    let mut wrong = Vec::new();
    for held in Held::ALL {
        // An engine does such work for one statement at a time: the second would wait for the one that is held.
        let turns = first.name == second.name && ["optimize", "restore"].contains(&first.name);
        if turns && held == Held::Planned {
            continue;
        }
        let what = format!("{} | {} | {place:?} | {held:?}", first.name, second.name);
        let run = at_once(&base, &statements, held, first);
        let Ok((end, plans)) = tokio::time::timeout(PATIENCE, run).await else {
            wrong.push(format!("{what}: one waits for the other for ever"));
            continue;
        };
        if !orders.contains(&end) {
            let [one, other] = &orders;
            wrong.push(format!(
                "{what}: {statements:#?}\nends as {end:#?}\nneither as first, then second: {one:#?}\nnor as \
                 second, then first: {other:#?}"
            ));
        }
        // Different rows are no reason to run again, even if one file holds them.
        let apart = place != Place::SameRow && kinds.iter().all(|kind| kind.minds_its_rows);
        if apart && plans != 2 {
            wrong.push(format!("{what}: planned {plans} times in all"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn any_two_statements_have_a_serial_order() {
    let base = made(&TABLE).await;
    let pairs = KINDS.iter().flat_map(|first| {
        let with = KINDS.iter().map(move |second| [*first, *second]);
        with.flat_map(|kinds| Place::ALL.map(|place| (kinds, place)))
    });
    // Whether rows are in one file matters only to statements that both look for theirs.
    let pairs: Vec<_> = pairs
        .filter(|(kinds, place)| {
            let looks = |kind: &Kind| kind.minds_its_rows || kind.sql.contains("$k");
            *place == Place::SameRow || kinds.iter().all(looks)
        })
        .collect();
    let tried = pairs.len();
    let wrong: Vec<String> = stream::iter(pairs)
        .map(|(kinds, place)| tokio::spawn(check(Arc::clone(&base), kinds, place)))
        .buffer_unordered(4)
        .flat_map(|wrong| stream::iter(wrong.unwrap()))
        .collect()
        .await;
    let count = wrong.len();
    assert!(
        wrong.is_empty(),
        "{count} wrong ends of {tried} pairs:\n{}",
        wrong.join("\n\n")
    );
}

/// Each of the two finds a table without deletion vectors, and is about to allow them.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_two_removals_of_a_table_have_a_serial_order() {
    let [create, insert, ..] = TABLE;
    let base = made(&[create, insert]).await;
    let removals = || {
        KINDS
            .iter()
            .filter(|kind| ["delete", "update"].contains(&kind.name))
    };
    for (first, second) in removals().flat_map(|first| removals().map(move |other| (first, other)))
    {
        for place in [Place::SameRow, Place::SameFile] {
            let kinds = [first, second].map(|kind| Kind {
                minds_its_rows: false,
                ..*kind
            });
            let wrong = check(Arc::clone(&base), kinds, place).await;
            assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        }
    }
}
