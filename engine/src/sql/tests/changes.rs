//! What UPDATE, DELETE, TRUNCATE and INSERT .. REPLACE WHERE mean, and which of their clauses are refused.

use super::super::*;
use super::{error, invalid, of, read, unsupported};

fn set(update: &Update) -> Vec<(String, String)> {
    let pairs = update.assignments.iter().map(|assignment| {
        let value = assignment.value.as_ref();
        (
            fold(&assignment.column),
            value.map_or("DEFAULT".to_owned(), ToString::to_string),
        )
    });
    pairs.collect()
}

fn text<T: ToString>(part: Option<&T>) -> String {
    part.map(ToString::to_string).unwrap_or_default()
}

#[test]
fn updates() {
    let update = read!(
        "UPDATE shop.Orders AS o SET a = o.a + 1, \"B\" = DEFAULT, o.c = (SELECT 1), Orders.d = CASE WHEN x THEN 1 END
         FROM u, v JOIN w USING (k) WHERE o.a = u.a AND v.b > ?;",
        Update
    );
    assert_eq!(update.table.to_string(), "shop.Orders");
    assert_eq!(text(update.alias.as_ref()), "o");
    let wanted = [
        ("a", "o.a + 1"),
        ("B", "DEFAULT"),
        ("c", "(SELECT 1)"),
        ("d", "CASE WHEN x THEN 1 END"),
    ];
    assert_eq!(
        set(&update),
        wanted.map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    assert_eq!(update.from.len(), 2);
    assert_eq!(update.from[1].joins.len(), 1);
    assert_eq!(text(update.predicate.as_ref()), "o.a = u.a AND v.b > $1");

    let update = read!("update t set a = 1", Update);
    assert!(update.alias.is_none() && update.from.is_empty() && update.predicate.is_none());

    for (sql, alias) in [
        ("UPDATE t o SET a = 1", "o"),
        ("UPDATE t AS set SET a = 1", "set"),
        ("UPDATE t \"O\" SET \"O\".a = 1", "\"O\""),
        ("UPDATE t at SET at.a = 1", "at"),
        ("UPDATE only SET a = 1", ""),
        ("UPDATE only AS o SET a = 1", "o"),
        ("UPDATE ignore SET a = 1", ""),
        ("UPDATE \"T\" SET \"T\".a = 1", ""),
        ("UPDATE S.T SET t.a = 1", ""),
        ("UPDATE s.t SET s.t.a = 1", ""),
        ("UPDATE lake.s.t SET s.t.a = 1", ""),
    ] {
        let update = read!(sql, Update);
        assert_eq!(text(update.alias.as_ref()), alias, "{sql}");
        assert_eq!(set(&update)[0].0, "a", "{sql}");
    }
    // An equality is a value.
    assert_eq!(set(&read!("UPDATE t SET a = b = 1", Update))[0].1, "b = 1");
}

#[test]
fn deletes() {
    let delete = read!(
        "DELETE FROM s.t AS d USING u x, (SELECT 1) AS v (a) WHERE d.a = x.a AND b IN (SELECT b FROM w)",
        Delete
    );
    assert_eq!(delete.table.to_string(), "s.t");
    assert_eq!(text(delete.alias.as_ref()), "d");
    assert_eq!(delete.using.len(), 2);
    assert_eq!(
        text(delete.predicate.as_ref()),
        "d.a = x.a AND b IN (SELECT b FROM w)"
    );
    let delete = read!("DELETE FROM t", Delete);
    assert!(delete.alias.is_none() && delete.using.is_empty() && delete.predicate.is_none());
    assert_eq!(
        text(read!("DELETE FROM t d WHERE true", Delete).alias.as_ref()),
        "d"
    );
    for sql in ["TRUNCATE TABLE s.t", "TRUNCATE s.t"] {
        assert!(
            matches!(of(sql), Statement::Truncate { table } if table.to_string() == "s.t"),
            "{sql}"
        );
    }
    assert!(
        matches!(of("TRUNCATE table"), Statement::Truncate { table } if table.to_string() == "table")
    );
}

#[test]
fn inserts_that_replace() {
    for (sql, mode, columns, by_name) in [
        (
            "INSERT INTO t REPLACE WHERE ds = '1' AND k > ? SELECT * FROM u",
            InsertMode::Append,
            0,
            false,
        ),
        (
            "INSERT INTO TABLE t (a, b) REPLACE WHERE ds = '1' AND k > ? VALUES (1, DEFAULT)",
            InsertMode::Append,
            2,
            false,
        ),
        (
            "INSERT OVERWRITE t BY NAME REPLACE WHERE ds = '1' AND k > ? WITH c AS (SELECT 1) SELECT * FROM c",
            InsertMode::Overwrite,
            0,
            true,
        ),
        (
            "INSERT INTO t REPLACE WHERE ds = '1' AND k > ? FROM u",
            InsertMode::Append,
            0,
            false,
        ),
    ] {
        let insert = read!(sql, Insert);
        assert_eq!(
            text(insert.replace.as_ref()),
            "ds = '1' AND k > $1",
            "{sql}"
        );
        assert_eq!(insert.mode, mode, "{sql}");
        assert_eq!((insert.columns.len(), insert.by_name), (columns, by_name));
        assert!(matches!(insert.source, InsertSource::Query(_)), "{sql}");
    }
    let insert = read!("INSERT INTO replace SELECT 1", Insert);
    assert!(insert.replace.is_none() && insert.table.to_string() == "replace");
}

#[test]
fn clauses_of_other_systems() {
    for (sql, clause) in [
        ("UPDATE t SET a = 1 RETURNING a", "UPDATE .. RETURNING"),
        (
            "UPDATE t SET a = 1 WHERE b RETURNING *",
            "UPDATE .. RETURNING",
        ),
        (
            "UPDATE t SET a = 1 OUTPUT inserted.a WHERE b",
            "UPDATE .. OUTPUT",
        ),
        ("UPDATE t SET a = 1 WHERE b LIMIT 3", "UPDATE .. LIMIT"),
        (
            "UPDATE t SET a = 1 ORDER BY b LIMIT 3",
            "UPDATE .. ORDER BY",
        ),
        ("UPDATE t SET a = 1 FROM u LIMIT 3", "UPDATE .. LIMIT"),
        ("UPDATE ONLY t SET a = 1", "ONLY"),
        ("UPDATE ONLY (t) SET a = 1", "ONLY"),
        ("UPDATE OR IGNORE t SET a = 1", "UPDATE OR"),
        ("UPDATE IGNORE t SET a = 1", "UPDATE IGNORE"),
        ("UPDATE TOP (3) t SET a = 1", "UPDATE TOP"),
        ("UPDATE t PARTITION (p) SET a = 1", "PARTITION"),
        (
            "UPDATE t FOR PORTION OF p FROM a TO b SET c = 1",
            "FOR PORTION OF",
        ),
        ("UPDATE t JOIN u ON true SET a = 1", "UPDATE of a join"),
        ("UPDATE t, u SET a = 1", "UPDATE of a join"),
        ("UPDATE t FROM u SET a = 1", "UPDATE of a join"),
        ("UPDATE t SET (a, b) = (1, 2)", "list of columns"),
        (
            "UPDATE t SET c = 1, (a, b) = (SELECT 1, 2)",
            "list of columns",
        ),
        ("UPDATE t SET a.b = 1", "nested field a.b"),
        ("UPDATE t SET t.a.b = 1", "nested field t.a.b"),
        ("UPDATE s.t SET u.t.a = 1", "nested field u.t.a"),
        ("UPDATE t SET \"T\".a = 1", "nested field \"T\".a"),
        ("UPDATE t SET a[1] = 1", "a place inside a column's value"),
        ("UPDATE t SET a = 1 WHERE CURRENT OF c", "WHERE CURRENT OF"),
        (
            "UPDATE t SET a = 1 FROM u GLOBAL JOIN v ON true",
            "GLOBAL JOIN",
        ),
        ("UPDATE t SET a = 1 FROM u TABLESAMPLE (10)", "TABLESAMPLE"),
        ("UPDATE t SET a = f(1)(2)", "second list of arguments"),
        ("DELETE FROM t RETURNING a", "DELETE .. RETURNING"),
        ("DELETE FROM t OUTPUT deleted.a WHERE b", "DELETE .. OUTPUT"),
        (
            "DELETE FROM t WHERE a ORDER BY b LIMIT 1",
            "DELETE .. ORDER BY",
        ),
        ("DELETE FROM t LIMIT 1", "DELETE .. LIMIT"),
        ("DELETE FROM t USING u LIMIT 1", "DELETE .. LIMIT"),
        ("DELETE FROM ONLY t", "ONLY"),
        ("DELETE TOP (3) FROM t", "DELETE TOP"),
        ("DELETE LOW_PRIORITY FROM t", "DELETE LOW_PRIORITY"),
        ("DELETE FROM t PARTITION (p) WHERE a", "PARTITION"),
        ("DELETE FROM t JOIN u ON true", "DELETE from a join"),
        ("DELETE FROM t FROM u", "DELETE from a join"),
        ("DELETE FROM t, u", "DELETE from a join"),
        ("DELETE FROM t USING u GLOBAL JOIN v ON true", "GLOBAL JOIN"),
        ("TRUNCATE TABLE t CASCADE", "TRUNCATE .. CASCADE"),
        ("TRUNCATE t RESTART IDENTITY", "TRUNCATE .. RESTART"),
        ("TRUNCATE TABLE t PARTITION (ds = '1')", "PARTITION"),
        ("TRUNCATE TABLE t, u", "several tables"),
        ("TRUNCATE TABLE ONLY t", "ONLY"),
        ("TRUNCATE TABLE IF EXISTS t", "IF EXISTS"),
        ("INSERT INTO t REPLACE USING (a) SELECT 1", "REPLACE USING"),
        ("INSERT INTO t REPLACE ON t.a = s.a SELECT 1", "REPLACE ON"),
        (
            "INSERT INTO t REPLACE WHERE a = 1 SELECT 1 FROM u RETURNING a",
            "RETURNING",
        ),
    ] {
        unsupported(sql, clause);
        let error = error(sql);
        assert!(error.position().is_some(), "{sql}\n{error}");
    }
}

#[test]
fn every_clause_refused_here_says_what_to_do() {
    for sql in [
        "UPDATE t SET a = 1 RETURNING a",
        "DELETE FROM t LIMIT 1",
        "UPDATE ONLY t SET a = 1",
        "UPDATE t, u SET a = 1",
        "UPDATE t SET (a, b) = (1, 2)",
        "UPDATE t SET a.b = 1",
        "UPDATE t PARTITION (p) SET a = 1",
        "UPDATE t VERSION AS OF 3 SET a = 1",
        "DELETE t WHERE a = 1",
        "TRUNCATE TABLE t, u",
        "INSERT INTO t REPLACE USING (a) SELECT 1",
        "WITH c AS (SELECT 1) UPDATE t SET a = 1",
        "UPDATE t SET a = rank() OVER (ORDER BY b)",
    ] {
        assert!(error(sql).hint().is_some(), "{sql}");
    }
    let hint = error("UPDATE shop.t AS o SET x.a = 1");
    assert!(hint.hint().unwrap().ends_with("after o"), "{hint}");
}

#[test]
fn changes_that_are_wrong() {
    for (sql, words) in [
        ("UPDATE t", "expected SET, found the end of the statement"),
        ("UPDATE t SET", "expected a name"),
        ("UPDATE t SET a", "expected =, found the end"),
        ("UPDATE t SET a == 1", "expected =, found =="),
        ("UPDATE t SET a = 1,", "expected a name"),
        ("UPDATE t SET a = DEFAULT + 1", "found +"),
        ("UPDATE t SET a = 1 b = 2", "found b"),
        ("UPDATE t SET t.* = 1", "expected a name, found *"),
        ("UPDATE t SET a = *", "expected"),
        ("UPDATE t SET a = u.*", "found ."),
        ("UPDATE t SET a = 1, A = 2", "column A is assigned twice"),
        (
            "UPDATE t AS o SET a = 1, o.a = 2",
            "column a is assigned twice",
        ),
        ("UPDATE t SET a = sum(b) OVER ()", "window function"),
        (
            "UPDATE t SET a = 1 WHERE 1 < rank() OVER (ORDER BY b)",
            "window function",
        ),
        ("UPDATE t (a) SET a = 1", "expected SET, found ("),
        ("UPDATE 't.parquet' SET a = 1", "found the file 't.parquet'"),
        ("UPDATE a.b.c.d SET a = 1", "more than three parts"),
        ("UPDATE t VERSION AS OF 3 SET a = 1", "version clause"),
        (
            "UPDATE t AS o FOR VERSION AS OF 3 SET a = 1",
            "version clause",
        ),
        ("UPDATE t AT (VERSION => 3) SET a = 1", "version clause"),
        ("UPDATE t BEFORE (VERSION => 3) SET a = 1", "version clause"),
        (
            "UPDATE t FOR SYSTEM_TIME AS OF now() SET a = 1",
            "version clause",
        ),
        ("DELETE t WHERE a = 1", "expected FROM, found t"),
        ("DELETE", "expected FROM"),
        ("DELETE FROM t VERSION AS OF 3", "version clause"),
        (
            "DELETE FROM t TIMESTAMP AS OF now() WHERE a",
            "version clause",
        ),
        ("DELETE FROM t WHERE", "found the end of the statement"),
        ("DELETE FROM t WHERE a = 1 USING u", "found USING"),
        ("DELETE FROM t WHERE sum(a) OVER () > 1", "window function"),
        ("TRUNCATE", "expected a name"),
        ("TRUNCATE TABLE t VERSION AS OF 3", "version clause"),
        ("TRUNCATE TABLE t WHERE a", "found WHERE"),
        (
            "INSERT INTO t REPLACE WHERE a = 1",
            "found the end of the statement",
        ),
        ("INSERT INTO t REPLACE WHERE SELECT 1", "expected"),
        (
            "INSERT OVERWRITE PARTITIONS OF t REPLACE WHERE a SELECT 1",
            "exclude each other",
        ),
        (
            "INSERT INTO t REPLACE WHERE rank() OVER () > 1 SELECT 1",
            "window function",
        ),
        (
            "UPDATE t SET a = $1 WHERE b = $3",
            "uses parameter $3 but not $2",
        ),
    ] {
        invalid(sql, words);
    }
    // A window function is at home in a subquery.
    of("UPDATE t SET a = (SELECT max(r) FROM (SELECT rank() OVER (ORDER BY b) AS r FROM u))");
    of("DELETE FROM t WHERE k IN (SELECT k FROM u QUALIFY row_number() OVER (ORDER BY b) > 1)");
}
