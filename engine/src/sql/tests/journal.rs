//! Journals: the clause that makes one, the statements on one, and every way to read it through time.

use super::super::versions::VersionedTable;
use super::super::*;
use super::{invalid, message, of, read};
use crate::journal::definition::{Definition, Late, LatePolicy, Track};

fn clause(text: &str) -> JournalClause {
    let sql = format!("CREATE TABLE t (k BIGINT, a TEXT, at TIMESTAMP, op TEXT) {text}");
    read!(&sql, CreateTable).journal.unwrap()
}

fn definition(text: &str) -> Definition {
    clause(text).definition()
}

#[test]
fn the_clause_of_a_journal_is_told_back_as_it_was() {
    for text in [
        "JOURNAL KEYS (client_id)",
        "JOURNAL KEYS (client_id, \"A b\") SEQUENCE BY updated_at",
        "JOURNAL KEYS (client_id) SEQUENCE BY updated_at APPLY AS DELETE WHEN gone = 'd'",
        "JOURNAL KEYS (client_id) TRACK HISTORY ON (city)",
        "JOURNAL KEYS (client_id) TRACK HISTORY ON * EXCEPT (city, gone)",
        "JOURNAL KEYS (client_id) IGNORE NULL UPDATES",
        "JOURNAL KEYS (client_id) APPLY AS DELETE WHEN gone IS NULL IGNORE NULL UPDATES ON (city)",
        "JOURNAL KEYS (client_id) SEQUENCE BY updated_at LATE FAIL",
        "JOURNAL KEYS (client_id) SEQUENCE BY updated_at LATE APPLY AFTER INTERVAL '7 days'",
        "JOURNAL KEYS (client_id) SEQUENCE BY updated_at LATE QUARANTINE AFTER INTERVAL '90 minutes'",
        "JOURNAL KEYS (client_id) SEQUENCE BY updated_at APPLY AS DELETE WHEN gone = 'd' AND city > 'x' TRACK HISTORY ON (city) IGNORE NULL UPDATES ON (city) LATE QUARANTINE AFTER INTERVAL '36 hours'",
    ] {
        assert_eq!(journal_clause(&definition(text)), text);
    }
}

#[test]
fn clauses_come_in_any_order_and_places() {
    let said = definition(
        "COMMENT 'x' JOURNAL KEYS (k) LATE APPLY AFTER INTERVAL 1 DAY TRACK HISTORY ON * SEQUENCE BY at TBLPROPERTIES ('a' = 'b')",
    );
    assert_eq!(said.sequence.as_deref(), Some("at"));
    assert_eq!(said.track, Track::All);
    let late = Late {
        policy: LatePolicy::Apply,
        after_micros: Some(86_400_000_000),
    };
    assert_eq!(said.late, late);
    // A word that follows a predicate ends it.
    for next in [
        "TRACK HISTORY ON (a)",
        "IGNORE NULL UPDATES",
        "LATE FAIL",
        "COMMENT 'x'",
        "AS SELECT 1",
    ] {
        let text =
            format!("JOURNAL KEYS (k) SEQUENCE BY at APPLY AS DELETE WHEN lower(op) = 'd' {next}");
        assert_eq!(
            definition(&text).delete_when.as_deref(),
            Some("lower(op) = 'd'"),
            "{next}"
        );
    }
    for made in [
        "CREATE JOURNAL TABLE t (k INT) JOURNAL KEYS (k)",
        "CREATE JOURNAL t (k INT) JOURNAL KEYS (k)",
        "CREATE OR REPLACE JOURNAL TABLE t JOURNAL KEYS (k) AS SELECT 1 AS k",
        "CREATE JOURNAL TABLE IF NOT EXISTS t (k INT) JOURNAL KEYS (k)",
    ] {
        assert!(read!(made, CreateTable).journal.is_some(), "{made}");
    }
    assert!(
        read!("CREATE TABLE journal (k INT)", CreateTable)
            .journal
            .is_none()
    );
}

#[test]
fn what_is_wrong_with_the_clause_is_said_at_its_place() {
    let table = |text: &str| format!("CREATE TABLE t (k INT, a INT) {text}");
    for (text, words) in [
        ("JOURNAL (k)", "expected KEYS, found ("),
        ("JOURNAL KEYS (k, k)", "column k is named twice"),
        ("JOURNAL KEYS ()", "expected a name, found )"),
        (
            "JOURNAL KEYS (k) JOURNAL KEYS (k)",
            "JOURNAL KEYS is given twice",
        ),
        (
            "JOURNAL KEYS (k) TRACK HISTORY ON * TRACK HISTORY ON *",
            "TRACK HISTORY is given twice",
        ),
        ("JOURNAL KEYS (k) LATE FAIL", "LATE without SEQUENCE BY"),
        (
            "JOURNAL KEYS (k) LATE DROP",
            "expected APPLY, QUARANTINE or FAIL, found DROP",
        ),
        (
            "JOURNAL KEYS (k) SEQUENCE BY a LATE APPLY AFTER INTERVAL '1 month'",
            "'1 month' is not a length of time",
        ),
        (
            "JOURNAL KEYS (k) SEQUENCE BY a LATE APPLY AFTER INTERVAL '0 days'",
            "'0 days' is not a length of time",
        ),
        (
            "JOURNAL KEYS (k) APPLY AS DELETE WHEN a IN (SELECT 1)",
            "APPLY AS DELETE WHEN cannot hold a subquery",
        ),
        (
            "JOURNAL KEYS (k) APPLY AS DELETE WHEN a = ?",
            "APPLY AS DELETE WHEN cannot hold a parameter",
        ),
        ("AS SNAPSHOTS SELECT 1", "AS SNAPSHOTS without JOURNAL KEYS"),
        (
            "JOURNAL KEYS (k) AS SNAPSHOTS SELECT 1",
            "AS SNAPSHOTS without SEQUENCE BY",
        ),
    ] {
        message(&table(text), words);
    }
    message(
        "CREATE JOURNAL TABLE t (k INT)",
        "expected JOURNAL KEYS, found the end of the statement",
    );
    super::unsupported(
        "CREATE EXTERNAL TABLE t STORED AS PARQUET JOURNAL KEYS (k) LOCATION 'x'",
        "JOURNAL KEYS of an external table",
    );
    for alter in ["JOURNAL KEYS (k)", "ADD JOURNAL KEYS (k)", "DROP JOURNAL"] {
        super::unsupported(&format!("ALTER TABLE t {alter}"), "ALTER TABLE .. JOURNAL");
    }
    assert!(matches!(
        of("ALTER TABLE t ADD COLUMN journal TEXT"),
        Statement::AlterTable { .. }
    ));
    super::unsupported(
        "CREATE TABLE t (k INT) JOURNAL KEYS (k) APPLY AS TRUNCATE WHEN k = 1",
        "APPLY AS TRUNCATE",
    );
}

#[test]
fn snapshots_are_inserted_or_make_a_table() {
    let insert = read!("INSERT INTO t (a, b) AS SNAPSHOTS SELECT 1, 2", Insert);
    assert!(insert.snapshots && insert.mode == InsertMode::Append && insert.columns.len() == 2);
    assert!(read!("INSERT INTO t BY NAME AS SNAPSHOTS FROM s", Insert).snapshots);
    assert!(!read!("INSERT INTO t SELECT 1", Insert).snapshots);
    let sql =
        "CREATE TABLE t JOURNAL KEYS (k) SEQUENCE BY at AS SNAPSHOTS SELECT 1 AS k, now() AS at";
    assert!(read!(sql, CreateTable).snapshots);
    message(
        "INSERT OVERWRITE t AS SNAPSHOTS SELECT 1",
        "INSERT OVERWRITE and AS SNAPSHOTS exclude each other",
    );
    message(
        "INSERT INTO t REPLACE WHERE a = 1 AS SNAPSHOTS SELECT 1",
        "REPLACE WHERE and AS SNAPSHOTS exclude each other",
    );
    message(
        "INSERT INTO t AS SNAPSHOTS DEFAULT VALUES",
        "DEFAULT VALUES and AS SNAPSHOTS exclude each other",
    );
}

#[test]
fn changes_are_copied_as_debezium_tells_them() {
    let copy = read!(
        "COPY INTO t FROM 'x.json' FORMAT DEBEZIUM OPTIONS (sequence = 'source.ts_ms')",
        CopyInto
    );
    assert!(copy.debezium && copy.format.is_none() && copy.options.len() == 1);
    assert!(!read!("COPY INTO t FROM 'x.json'", CopyInto).debezium);
    invalid(
        "COPY INTO t (a) FROM 'x.json' FORMAT DEBEZIUM",
        "FORMAT DEBEZIUM and a list of columns",
    );
    super::unsupported("COPY t TO 'x.json' FORMAT DEBEZIUM", "as DEBEZIUM");
    invalid(
        "COPY INTO t FROM 'x.json' FORMAT DEBEZIUM FORMAT JSON",
        "the file format is given twice",
    );
}

#[test]
fn a_journal_is_checked_and_corrected() {
    match of("CHECK JOURNAL s.t FOR VERSION AS OF 3") {
        Statement::CheckJournal { table, at } => {
            assert_eq!(
                (table.to_string().as_str(), at),
                ("s.t", Some(At::Version(3)))
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        of("CHECK JOURNAL t"),
        Statement::CheckJournal { at: None, .. }
    ));
    invalid(
        "CHECK JOURNAL t FOR VALID_TIME AS OF now()",
        "FOR VALID_TIME cannot stand here",
    );
    invalid(
        "CHECK JOURNAL t TIMESTAMP AS OF ?",
        "cannot hold a parameter",
    );
    let set = read!(
        "CORRECT JOURNAL t SET city = 'x', valid_to = NULL WHERE k = 7",
        CorrectJournal
    );
    assert!(matches!(&set.change, Correction::Set(columns) if columns.len() == 2));
    assert!(set.predicate.is_some());
    let delete = "CORRECT JOURNAL t DELETE WHERE k = 7";
    assert!(matches!(
        read!(delete, CorrectJournal).change,
        Correction::Delete
    ));
    assert_eq!(of(delete).changed_table().unwrap().to_string(), "t");
    message("CORRECT JOURNAL t DELETE", "CORRECT JOURNAL needs WHERE");
    message(
        "CORRECT JOURNAL t WHERE true",
        "expected SET or DELETE, found WHERE",
    );
    invalid(
        "CORRECT JOURNAL t DELETE WHERE k = ?",
        "CORRECT JOURNAL cannot hold a parameter",
    );
}

fn take(sql: &str) -> (String, Vec<VersionedTable>) {
    let mut statement = of(sql);
    let tables = take_versions(&mut statement).unwrap_or_else(|error| panic!("{sql}\n{error}"));
    match statement {
        Statement::Query(query) => (query.to_string(), tables),
        other => panic!("{other:?}"),
    }
}

fn untaken(sql: &str) -> crate::Error {
    take_versions(&mut of(sql)).unwrap_err()
}

#[test]
fn valid_time_is_taken_out_with_the_version_beside_it() {
    for (clause, said) in [
        (
            "FOR VALID_TIME AS OF '2026-01-01'",
            "valid AS OF '2026-01-01'",
        ),
        (
            "FOR VALID_TIME AS OF now() - INTERVAL '1 day'",
            "valid AS OF now() - INTERVAL '1 day'",
        ),
        ("for valid_time from 'a' to 'b'", "valid FROM 'a' TO 'b'"),
        (
            "FOR VALID_TIME BETWEEN 'a' AND 'b'",
            "valid BETWEEN 'a' AND 'b'",
        ),
        (
            "FOR VALID_TIME CONTAINED IN ('a', 'b')",
            "valid CONTAINED IN ('a', 'b')",
        ),
        ("FOR VALID_TIME ALL", "valid ALL"),
        (
            "FOR VALID_TIME AS OF 'a' FOR VERSION AS OF 3",
            "valid AS OF 'a' at 3",
        ),
        ("VERSION AS OF 3 FOR VALID_TIME ALL", "valid ALL at 3"),
        (
            "FOR VALID_TIME AS OF 'a' AT (TIMESTAMP => 'b')",
            "valid AS OF 'a' at 'b'",
        ),
    ] {
        for place in [
            "SELECT * FROM s.t $V x WHERE x.a = 1",
            "SELECT * FROM u JOIN t $V ON true",
            "WITH c AS (SELECT * FROM t $V) SELECT * FROM c",
            "SELECT (SELECT max(a) FROM t $V)",
            "SELECT 1 UNION ALL SELECT a FROM t $V",
        ] {
            let (text, tables) = take(&place.replace("$V", clause));
            let [table] = tables.as_slice() else {
                panic!("{clause}: {tables:?}");
            };
            assert_eq!(table.reading.to_string(), said, "{place}");
            assert!(text.contains(&table.internal), "{text}");
            assert!(table.internal.contains("t@valid"), "{}", table.internal);
        }
    }
}

#[test]
fn no_place_reads_past_valid_time() {
    for place in super::versioned::PLACES {
        for (clause, said) in [
            (
                "FOR VALID_TIME AS OF 'a' FOR VERSION AS OF 3",
                "valid AS OF 'a' at 3",
            ),
            ("FOR VALID_TIME FROM 'a' TO 'b'", "valid FROM 'a' TO 'b'"),
        ] {
            let sql = place.replace("$T", &format!("shop.orders {clause}"));
            let tables = take_versions(&mut of(&sql)).unwrap();
            let [table] = tables.as_slice() else {
                panic!("{sql}: {tables:?}");
            };
            assert_eq!(table.reading.to_string(), said, "{sql}");
            assert_eq!(table.original.to_string(), "shop.orders", "{sql}");
        }
    }
}

#[test]
fn an_instant_may_be_told_by_the_row_it_is_joined_to() {
    let (text, tables) = take(
        "SELECT * FROM f LEFT JOIN t FOR VALID_TIME AS OF f.ts ON t.k = f.k JOIN t FOR VALID_TIME AS OF f.other FOR VERSION AS OF 3 u ON u.k = f.k OR f.k IS NULL",
    );
    assert_eq!(
        text,
        "SELECT * FROM f LEFT JOIN \"t@valid\" AS t ON (t.k = f.k) AND __selvedge_as_of_row('t@valid', f.ts) JOIN \"t@valid#2\" u ON (u.k = f.k OR f.k IS NULL) AND __selvedge_as_of_row('t@valid#2', f.other)"
    );
    assert_eq!(tables.len(), 2);
    assert!(tables.iter().all(|table| matches!(
        &table.reading,
        Reading::Valid(Valid {
            time: ValidTime::OfRow,
            ..
        })
    )));
    for join in [
        "f JOIN t FOR VALID_TIME AS OF f.ts USING (k)",
        "f NATURAL JOIN t FOR VALID_TIME AS OF f.ts",
        "f CROSS JOIN t FOR VALID_TIME AS OF f.ts",
        "f RIGHT JOIN t FOR VALID_TIME AS OF f.ts ON true",
        "f FULL JOIN t FOR VALID_TIME AS OF f.ts ON true",
    ] {
        let error = untaken(&format!("SELECT * FROM {join}"));
        assert_eq!(
            error.message(),
            "AS OF a column of another table needs JOIN .. ON",
            "{join}"
        );
    }
    for from in [
        "t FOR VALID_TIME AS OF ts",
        "f, t FOR VALID_TIME AS OF f.ts",
        "t FOR VALID_TIME AS OF f.ts JOIN f ON true",
    ] {
        let error = untaken(&format!("SELECT * FROM {from}"));
        assert_eq!(
            error.message(),
            "instant of FOR VALID_TIME: a column cannot stand here",
            "{from}"
        );
    }
}

#[test]
fn valid_time_stands_on_tables_and_takes_instants() {
    for (sql, words) in [
        (
            "SELECT * FROM t FOR VALID_TIME AS OF NULL",
            "the instant of FOR VALID_TIME cannot be NULL",
        ),
        (
            "SELECT * FROM t FOR VALID_TIME FROM a TO b",
            "the instant of FOR VALID_TIME cannot hold the column a",
        ),
        (
            "SELECT * FROM t FOR VALID_TIME AS OF (SELECT max(a) FROM u)",
            "the instant of FOR VALID_TIME cannot hold a subquery",
        ),
        (
            "SELECT * FROM generate_series(1, 2) FOR VALID_TIME ALL",
            "FOR VALID_TIME cannot stand on the table function or query before it",
        ),
        (
            "WITH c AS (SELECT 1) SELECT * FROM c FOR VALID_TIME ALL",
            "FOR VALID_TIME cannot stand on the common table expression c",
        ),
        (
            "SELECT * FROM 'x.parquet' FOR VALID_TIME ALL",
            "FOR VALID_TIME cannot stand on the file 'x.parquet'",
        ),
        (
            "INSERT INTO t FOR VALID_TIME ALL SELECT 1",
            "a version clause cannot stand on the table that is written",
        ),
        (
            "SELECT * FROM t FOR VERSION AS OF 1 FOR VALID_TIME ALL VERSION AS OF 2",
            "expected",
        ),
    ] {
        invalid(sql, words);
    }
}

#[test]
fn changes_in_valid_time_name_a_table_and_two_instants() {
    let (text, tables) = take("SELECT * FROM valid_time_changes('s.t', 'a', now())");
    assert_eq!(
        text,
        "SELECT * FROM \"s.t@valid_changes\" AS valid_time_changes"
    );
    assert!(matches!(tables[0].reading, Reading::ValidChanges { .. }));
    for (arguments, words) in [
        ("'t', 'a'", "but 2 arguments are given"),
        ("'t', 'a', 'b', 'c'", "but 4 arguments are given"),
        ("t, 'a', 'b'", "the name of a table as a text, not t"),
        ("'t', a, 'b'", "cannot hold the column a"),
        ("'t', NULL, 'b'", "cannot be NULL"),
    ] {
        invalid(
            &format!("SELECT * FROM valid_time_changes({arguments})"),
            words,
        );
    }
}

#[test]
fn the_history_of_a_query_is_a_relation_and_a_statement() {
    let query = "SELECT city, count(*) FROM s.t WHERE a = 1 GROUP BY city";
    for sql in [
        format!("HISTORY OF ({query})"),
        format!("SELECT * FROM HISTORY OF ({query})"),
        format!("SELECT h.* FROM history of ({query}) AS h JOIN u ON true"),
    ] {
        let (text, tables) = take(&sql);
        let [table] = tables.as_slice() else {
            panic!("{sql}: {tables:?}");
        };
        assert_eq!(table.original.to_string(), "s.t");
        let Reading::History(kept) = &table.reading else {
            panic!("{table:?}");
        };
        assert_eq!(kept.to_string(), query);
        assert!(text.contains("\"s.t@history\" AS h"), "{text}");
    }
    for (query, words) in [
        ("SELECT a FROM t, u", "reads one table, and no join"),
        ("SELECT a FROM t JOIN u ON true", "reads one table"),
        ("SELECT a FROM (SELECT 1)", "cannot hold a subquery"),
        ("SELECT count(*) FROM t HAVING true", "cannot hold HAVING"),
        ("SELECT DISTINCT a FROM t", "cannot hold DISTINCT"),
        ("SELECT a FROM t LIMIT 1", "cannot hold LIMIT"),
        ("SELECT a FROM t ORDER BY a", "cannot hold ORDER BY"),
        ("SELECT a FROM t UNION SELECT a FROM t", "no set operation"),
        (
            "SELECT sum(a) OVER () FROM t",
            "cannot hold a window function",
        ),
        ("SELECT a FROM t WHERE a = ?", "cannot hold a parameter"),
        (
            "SELECT a FROM t VERSION AS OF 3",
            "cannot hold a version clause",
        ),
    ] {
        let error = super::error(&format!("SELECT * FROM HISTORY OF ({query})"));
        let told = error.message();
        assert!(
            told.starts_with("HISTORY OF ") && told.contains(words),
            "{query}: {told}"
        );
    }
    invalid("HISTORY t", "expected HISTORY OF (SELECT ..)");
    super::unsupported(
        "WITH c AS (SELECT 1) SELECT * FROM HISTORY OF (SELECT count(*) FROM c)",
        "common table expression c",
    );
}
