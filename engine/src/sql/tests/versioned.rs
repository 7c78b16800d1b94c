//! Version clauses in every spelling and every place.

use super::super::versions::VersionedTable;
use super::super::*;
use super::{invalid, unsupported};

fn take(sql: &str) -> (Statement, Vec<VersionedTable>) {
    let mut statement = parse(sql).unwrap_or_else(|error| panic!("{sql}\n{}", error.render(sql)));
    let tables = take_versions(&mut statement).unwrap();
    (statement, tables)
}

fn query(sql: &str) -> String {
    match take(sql).0 {
        Statement::Query(query) => query.to_string(),
        other => panic!("{other:?}"),
    }
}

const SPELLINGS: &[&str] = &[
    "VERSION AS OF 3",
    "version as of 3",
    "FOR VERSION AS OF 3",
    "AT (VERSION => 3)",
    "at(version => 3)",
    "TIMESTAMP AS OF '2026-01-02'",
    "FOR TIMESTAMP AS OF '2026-01-02'",
    "FOR SYSTEM_TIME AS OF '2026-01-02'",
    "AT (TIMESTAMP => '2026-01-02')",
];

/// `$T` is the place of a table and its version.
pub(super) const PLACES: &[&str] = &[
    "SELECT * FROM $T",
    "SELECT * FROM $T AS o",
    "SELECT * FROM $T o WHERE o.a = 1",
    "SELECT * FROM u, $T",
    "SELECT * FROM ($T)",
    "SELECT * FROM u JOIN $T ON true",
    "SELECT * FROM $T o LEFT JOIN u USING (a)",
    "SELECT * FROM (u JOIN $T ON true)",
    "SELECT * FROM (SELECT * FROM $T) AS d",
    "SELECT * FROM u, LATERAL (SELECT * FROM $T) AS d",
    "SELECT (SELECT max(a) FROM $T)",
    "SELECT * FROM u WHERE a IN (SELECT a FROM $T)",
    "SELECT * FROM u WHERE EXISTS (SELECT 1 FROM $T WHERE true)",
    "SELECT * FROM u JOIN v ON u.a = (SELECT max(a) FROM $T)",
    "SELECT * FROM u ORDER BY (SELECT max(a) FROM $T)",
    "WITH c AS (SELECT * FROM $T) SELECT * FROM c",
    "WITH c AS (SELECT 1) SELECT * FROM c, $T",
    "SELECT 1 UNION ALL SELECT a FROM $T",
    "SELECT a FROM $T UNION ALL SELECT 1",
    "FROM $T SELECT a",
    "SELECT 1 |> JOIN $T ON true",
    "EXPLAIN SELECT * FROM $T",
    "EXPLAIN ANALYZE INSERT INTO u SELECT * FROM $T",
    "INSERT INTO u SELECT * FROM $T",
    "INSERT INTO u VALUES ((SELECT max(a) FROM $T))",
    "INSERT OVERWRITE u SELECT * FROM $T",
    "CREATE TABLE u AS SELECT * FROM $T",
    "CREATE VIEW u AS SELECT * FROM $T",
    "COPY (SELECT * FROM $T) TO 'f'",
    "PREPARE p AS SELECT * FROM $T",
    "DESCRIBE SELECT * FROM $T",
    "INSERT INTO u REPLACE WHERE a IN (SELECT a FROM $T) SELECT 1",
    "UPDATE u SET a = (SELECT max(a) FROM $T)",
    "UPDATE u SET a = o.a FROM $T AS o WHERE u.b = o.b",
    "UPDATE u SET a = 1 FROM v JOIN $T ON true",
    "UPDATE u SET a = 1 WHERE a IN (SELECT a FROM $T)",
    "DELETE FROM u USING $T AS o WHERE u.b = o.b",
    "DELETE FROM u WHERE EXISTS (SELECT 1 FROM $T)",
    "EXPLAIN DELETE FROM u USING $T",
    "PREPARE p AS UPDATE u SET a = 1 FROM $T",
    "MERGE INTO u USING $T ON true WHEN MATCHED THEN DELETE",
    "MERGE INTO u USING $T AS o ON true WHEN MATCHED THEN DELETE",
    "MERGE INTO u USING (SELECT * FROM $T) AS o ON true WHEN MATCHED THEN DELETE",
    "MERGE INTO u USING s ON s.a = (SELECT max(a) FROM $T) WHEN MATCHED THEN DELETE",
    "MERGE INTO u USING s ON true WHEN MATCHED AND EXISTS (SELECT 1 FROM $T) THEN DELETE",
    "MERGE INTO u USING s ON true WHEN MATCHED THEN UPDATE SET a = (SELECT max(a) FROM $T)",
    "MERGE INTO u USING s ON true WHEN NOT MATCHED THEN INSERT VALUES (1, (SELECT 1 FROM $T))",
];

#[test]
fn every_spelling_in_every_place() {
    for place in PLACES {
        for spelling in SPELLINGS {
            let sql = place.replace("$T", &format!("shop.orders {spelling}"));
            let (mut statement, tables) = take(&sql);
            let [table] = tables.as_slice() else {
                panic!("{sql}\n{tables:?}");
            };
            assert_eq!(table.original.to_string(), "shop.orders", "{sql}");
            let Reading::At(at) = &table.reading else {
                panic!("{sql}\n{table:?}");
            };
            match at {
                At::Version(version) => assert_eq!(*version, 3, "{sql}"),
                At::Timestamp(instant) => assert_eq!(instant.to_string(), "'2026-01-02'", "{sql}"),
            }
            assert_eq!(
                spelling.to_uppercase().contains("VERSION"),
                matches!(at, At::Version(_))
            );
            let at = table.position.unwrap();
            let column = sql
                .chars()
                .take((at.column - 1) as usize)
                .collect::<String>();
            assert!(
                sql[column.len()..].starts_with("shop.orders"),
                "{sql} {at:?}"
            );
            // Nothing is left to take.
            assert!(take_versions(&mut statement).unwrap().is_empty(), "{sql}");
        }
    }
}

#[test]
fn the_name_is_replaced_and_kept_as_alias() {
    for (sql, rewritten) in [
        (
            "SELECT orders.a FROM orders VERSION AS OF 3",
            "SELECT orders.a FROM \"orders@v3\" AS orders",
        ),
        (
            "SELECT o.a FROM Shop.\"Orders\" VERSION AS OF 3 AS o (x, y)",
            "SELECT o.a FROM \"shop.Orders@v3\" AS o (x, y)",
        ),
        (
            "SELECT * FROM shop.\"Orders\" TIMESTAMP AS OF now() - INTERVAL '1' DAY",
            "SELECT * FROM \"shop.Orders@t\" AS \"Orders\"",
        ),
        (
            "SELECT * FROM t VERSION AS OF 1 x, t VERSION AS OF 2 y, t VERSION AS OF 1 z, t",
            "SELECT * FROM \"t@v1\" x, \"t@v2\" y, \"t@v1\" z, t",
        ),
        (
            "SELECT * FROM t TIMESTAMP AS OF 'a' x, t FOR SYSTEM_TIME AS OF 'b' y, T AT (TIMESTAMP => 'a') z",
            "SELECT * FROM \"t@t\" x, \"t@t#2\" y, \"t@t\" z",
        ),
    ] {
        assert_eq!(query(sql), rewritten);
    }
}

#[test]
fn internal_names_never_meet_others() {
    let (_, tables) = take("WITH \"t@v3\" AS (SELECT 1) SELECT * FROM t VERSION AS OF 3");
    assert_eq!(tables[0].internal, "t@v3#2");
    let (_, tables) = take("SELECT * FROM \"t@v3\", t VERSION AS OF 3 u");
    assert_eq!(tables[0].internal, "t@v3#2");
    let (_, tables) = take("SELECT * FROM a.b VERSION AS OF 3 x, \"a.b\" VERSION AS OF 3 y");
    assert_eq!(tables.len(), 2);
    assert_ne!(tables[0].internal, tables[1].internal);
    // The table that is written, and one with its schema before it.
    for sql in [
        "UPDATE \"t@v3\" SET a = u.a FROM t VERSION AS OF 3 AS u",
        "DELETE FROM public.\"t@v3\" USING t VERSION AS OF 3 AS u",
        "EXPLAIN MERGE INTO \"t@v3\" USING t VERSION AS OF 3 AS u ON true WHEN MATCHED THEN DELETE",
        "SELECT * FROM public.\"t@v3\", t VERSION AS OF 3 AS u",
    ] {
        assert_eq!(take(sql).1[0].internal, "t@v3#2", "{sql}");
    }
}

#[test]
fn statements_without_versions_stay_as_they_are() {
    let sql = "SELECT version, timestamp FROM t AS version WHERE version.a = 1";
    assert_eq!(query(sql), sql);
    assert!(take("SELECT 1").1.is_empty());
    assert!(take("DROP TABLE t").1.is_empty());
}

#[test]
fn changes_are_taken_in_every_place() {
    for place in PLACES {
        let sql = place.replace("$T", "table_changes('shop.\"Orders\"', 3, '2026-01-02')");
        let (mut statement, tables) = take(&sql);
        let [table] = tables.as_slice() else {
            panic!("{sql}\n{tables:?}");
        };
        assert_eq!(table.original.to_string(), "shop.\"Orders\"", "{sql}");
        let Reading::Changes(changes) = &table.reading else {
            panic!("{sql}\n{table:?}");
        };
        assert_eq!(changes.from, At::Version(3), "{sql}");
        assert!(matches!(changes.to, Some(At::Timestamp(_))), "{sql}");
        assert!(take_versions(&mut statement).unwrap().is_empty(), "{sql}");
    }
    assert_eq!(
        query("SELECT table_changes.a FROM Table_Changes('t', 1), table_changes('t', 1, 2) c"),
        "SELECT table_changes.a FROM \"t@changes\" AS Table_Changes, \"t@changes#2\" c"
    );
    let (_, tables) = take("SELECT * FROM table_changes('t', 1) a, table_changes('T', 1) b");
    assert_eq!(tables.len(), 1);
}

#[test]
fn changes_name_a_table_and_versions() {
    for (sql, words) in [
        (
            "SELECT * FROM table_changes('t')",
            "but 1 arguments are given",
        ),
        (
            "SELECT * FROM table_changes('t', 1, 2, 3)",
            "but 4 arguments are given",
        ),
        (
            "SELECT * FROM table_changes(t, 1)",
            "the name of a table as a text, not t",
        ),
        (
            "SELECT * FROM table_changes('a b', 1)",
            "'a b' in table_changes is not the name",
        ),
        (
            "SELECT * FROM table_changes('', 1)",
            "'' in table_changes is not the name",
        ),
        (
            "SELECT * FROM table_changes('t', 1.5)",
            "1.5 is not a version",
        ),
        ("SELECT * FROM table_changes('t', NULL)", "cannot be NULL"),
        (
            "SELECT * FROM table_changes('t', a)",
            "cannot hold the column a",
        ),
        ("SELECT * FROM table_changes('t', (SELECT 1))", "subquery"),
        (
            "SELECT * FROM table_changes('t', since => 1)",
            "does not know the argument",
        ),
        (
            "SELECT * FROM table_changes('t', 1) VERSION AS OF 3",
            "expected",
        ),
    ] {
        invalid(sql, words);
    }
}

#[test]
fn versions_stand_on_tables_only() {
    for (sql, words) in [
        (
            "WITH c AS (SELECT 1) SELECT * FROM c VERSION AS OF 3",
            "common table expression c",
        ),
        (
            "WITH C AS (SELECT 1) SELECT (SELECT max(a) FROM c AT (VERSION => 3))",
            "common table expression",
        ),
        (
            "WITH a AS (SELECT 1), b AS (SELECT * FROM a VERSION AS OF 3) SELECT 1",
            "common table expression a",
        ),
        (
            "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT * FROM r VERSION AS OF 3) SELECT 1",
            "common table expression r",
        ),
        (
            "WITH c AS (SELECT 1) SELECT * FROM (SELECT * FROM c FOR SYSTEM_TIME AS OF now()) AS d",
            "common table expression",
        ),
        ("SELECT * FROM f VERSION AS OF 3 (1)", "table function f"),
        (
            "SELECT * FROM 'x.parquet' VERSION AS OF 3",
            "the file 'x.parquet'",
        ),
        ("SELECT * FROM t VERSION AS OF $1", "$1 is not a version"),
        ("SELECT * FROM t VERSION AS OF 1.5", "1.5 is not a version"),
        (
            "SELECT * FROM t VERSION AS OF 99999999999999999999",
            "is not a version",
        ),
        ("SELECT * FROM t AT (VERSION => a)", "a is not a version"),
        (
            "SELECT * FROM t AT (OFFSET => 3)",
            "is not a version clause",
        ),
        ("SELECT * FROM t AT (3)", "is not a version clause"),
        (
            "SELECT * FROM t AT (VERSION => 3, TIMESTAMP => 'x')",
            "is not a version clause",
        ),
        (
            "SELECT * FROM t BEFORE (VERSION => 3)",
            "is not a version clause",
        ),
        ("SELECT * FROM t TIMESTAMP AS OF NULL", "cannot be NULL"),
        (
            "SELECT * FROM t TIMESTAMP AS OF a",
            "cannot hold the column a",
        ),
        (
            "SELECT * FROM t TIMESTAMP AS OF (SELECT max(a) FROM u)",
            "subquery",
        ),
        ("SELECT * FROM t AS x VERSION AS OF 3", "found VERSION"),
        ("SELECT * FROM t x FOR VERSION AS OF 3", "found VERSION"),
        (
            "SELECT * FROM t x FOR SYSTEM_TIME AS OF now()",
            "found SYSTEM_TIME",
        ),
        ("SELECT * FROM (SELECT 1) VERSION AS OF 3", "found AS"),
        (
            "SELECT * FROM t VERSION AS OF 3 VERSION AS OF 4",
            "expected",
        ),
        (
            "SELECT * FROM t VERSION AS OF",
            "found the end of the statement",
        ),
    ] {
        invalid(sql, words);
    }
    for (sql, clause) in [
        (
            "SELECT * FROM t FOR SYSTEM_TIME FROM a TO b",
            "FOR SYSTEM_TIME over a period",
        ),
        (
            "SELECT * FROM t CHANGES (INFORMATION => DEFAULT) AT (VERSION => 1)",
            "CHANGES",
        ),
    ] {
        unsupported(sql, clause);
    }
}

#[test]
fn a_table_behind_a_common_table_expression_of_its_name_has_versions() {
    let (_, tables) = take("WITH t AS (SELECT * FROM t VERSION AS OF 3) SELECT * FROM t");
    assert_eq!(tables.len(), 1);
    let (_, tables) = take("SELECT (WITH t AS (SELECT 1) SELECT 1 FROM t) FROM t VERSION AS OF 3");
    assert_eq!(tables.len(), 1);
    let (_, tables) = take("WITH t AS (SELECT 1) SELECT * FROM s.t VERSION AS OF 3");
    assert_eq!(tables.len(), 1);
}

#[test]
fn a_view_keeps_its_versions_in_its_text() {
    let (statement, tables) = take("CREATE VIEW v AS SELECT * FROM t FOR VERSION AS OF 3");
    assert_eq!(tables.len(), 1);
    match statement {
        Statement::CreateView(view) => assert_eq!(view.text, "SELECT * FROM t FOR VERSION AS OF 3"),
        other => panic!("{other:?}"),
    }
}
