//! Every clause that nobody honours is an error that names it, wherever the clause hides.

use super::super::parse;
use super::{error, invalid, unsupported};

/// Clauses inside a query, and the words by which they are refused.
const QUERIES: &[(&str, &str)] = &[
    ("SELECT * FROM t TABLESAMPLE (10 PERCENT)", "TABLESAMPLE"),
    (
        "SELECT * FROM t AS x TABLESAMPLE BERNOULLI (10)",
        "TABLESAMPLE",
    ),
    ("SELECT * FROM t SAMPLE (10)", "TABLESAMPLE"),
    (
        "SELECT * FROM (SELECT 1) AS x TABLESAMPLE (10)",
        "TABLESAMPLE",
    ),
    ("SELECT * FROM t PARTITION (p0)", "PARTITION (..)"),
    ("SELECT * FROM t WITH (NOLOCK)", "WITH (hints)"),
    ("SELECT * FROM f(1) WITH ORDINALITY", "WITH ORDINALITY"),
    (
        "SELECT * FROM UNNEST([1]) WITH ORDINALITY",
        "WITH ORDINALITY",
    ),
    ("SELECT * FROM UNNEST([1]) WITH OFFSET", "WITH OFFSET"),
    (
        "SELECT * FROM t, LATERAL f(1) WITH ORDINALITY",
        "WITH ORDINALITY",
    ),
    (
        "SELECT * FROM t, LATERAL s.f(1)",
        "qualified name of a table function",
    ),
    ("SELECT * FROM f(1, SETTINGS a = 1)", "SETTINGS"),
    ("SELECT * FROM t FOR UPDATE", "FOR UPDATE"),
    ("SELECT * FROM t FOR SHARE NOWAIT", "FOR SHARE"),
    ("SELECT * FROM t FOR XML AUTO", "FOR XML"),
    ("SELECT * FROM t FOR JSON AUTO", "FOR JSON"),
    ("SELECT * FROM t SETTINGS a = 1", "SETTINGS"),
    ("SELECT * FROM t FORMAT JSON", "FORMAT"),
    (
        "SELECT * FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES",
        "WITH TIES",
    ),
    ("SELECT * FROM t FETCH FIRST 3 PERCENT ROWS ONLY", "PERCENT"),
    (
        "SELECT * FROM t LIMIT 1 FETCH FIRST 3 ROWS ONLY",
        "FETCH beside LIMIT",
    ),
    ("SELECT * FROM t LIMIT 1 BY a", "LIMIT .. BY"),
    ("SELECT * FROM t ORDER BY a WITH FILL", "WITH FILL"),
    ("SELECT * FROM t ORDER BY a INTERPOLATE", "INTERPOLATE"),
    ("SELECT TOP 3 * FROM t", "TOP"),
    ("SELECT * INTO u FROM t", "SELECT INTO"),
    (
        "SELECT * FROM t LATERAL VIEW explode(a) x AS y",
        "LATERAL VIEW",
    ),
    ("SELECT * FROM t PREWHERE a > 1", "PREWHERE"),
    (
        "SELECT * FROM t START WITH a = 1 CONNECT BY PRIOR a = b",
        "CONNECT BY",
    ),
    ("SELECT * FROM t CLUSTER BY a", "CLUSTER BY"),
    ("SELECT * FROM t DISTRIBUTE BY a", "DISTRIBUTE BY"),
    ("SELECT * FROM t SORT BY a", "SORT BY"),
    ("SELECT a FROM t GROUP BY a WITH ROLLUP", "WITH ROLLUP"),
    ("SELECT a FROM t GROUP BY a WITH CUBE", "WITH CUBE"),
    ("SELECT a FROM t GROUP BY a WITH TOTALS", "WITH TOTALS"),
    (
        "SELECT * FROM t AS x (a INT)",
        "type in a list of column aliases",
    ),
    ("SELECT * FROM t GLOBAL JOIN u ON true", "GLOBAL JOIN"),
    ("SELECT * FROM (t GLOBAL JOIN u ON true)", "GLOBAL JOIN"),
    ("SELECT * FROM TABLE(f(1))", "TABLE (..)"),
    (
        "SELECT * FROM JSON_TABLE('[]', '$' COLUMNS (a INT PATH '$')) AS j",
        "JSON_TABLE",
    ),
    ("SELECT * FROM t PIVOT (max(a) FOR b IN (1))", "PIVOT"),
    ("SELECT * FROM t UNPIVOT (a FOR b IN (c))", "UNPIVOT"),
    ("SELECT ARRAY(SELECT 1)", "query as the argument"),
    ("SELECT quantile(0.5)(a) FROM t", "second list of arguments"),
    (
        "SELECT sum(a) OVER (w ORDER BY b) FROM t WINDOW w AS (PARTITION BY c)",
        "window built on a named one",
    ),
    (
        "SELECT sum(a) OVER v FROM t WINDOW w AS (PARTITION BY c), v AS (w ORDER BY b)",
        "window built on a named one",
    ),
    ("SELECT * FROM t |> TABLESAMPLE (10 PERCENT)", "TABLESAMPLE"),
    ("SELECT /*+ BROADCAST(t) */ * FROM t", "hint"),
    ("TABLE t", "TABLE"),
];

#[test]
fn clauses_that_the_planner_would_drop() {
    for (query, clause) in QUERIES {
        unsupported(query, clause);
    }
}

/// `QUERY` is the place of a whole query.
const PLACES: &[&str] = &[
    "WITH x AS (QUERY) SELECT 1",
    "WITH RECURSIVE x AS (SELECT 1 UNION ALL (QUERY)) SELECT 1",
    "SELECT * FROM (QUERY) AS d",
    "SELECT * FROM a JOIN (QUERY) AS d ON true",
    "SELECT * FROM (a JOIN (QUERY) AS d ON true)",
    "SELECT * FROM a, LATERAL (QUERY) AS d",
    "SELECT * FROM a JOIN b ON a.x = (QUERY)",
    "SELECT (QUERY)",
    "SELECT CASE WHEN true THEN coalesce(1, (QUERY)) END",
    "SELECT 1 WHERE EXISTS (QUERY)",
    "SELECT 1 WHERE a IN (QUERY)",
    "SELECT 1 WHERE a > ALL (QUERY)",
    "SELECT 1 GROUP BY (QUERY)",
    "SELECT 1 HAVING (QUERY) > 1",
    "SELECT 1 ORDER BY (QUERY)",
    "SELECT 1 LIMIT (QUERY)",
    "SELECT sum(a) OVER (ORDER BY (QUERY)) FROM x",
    "SELECT sum(a) FILTER (WHERE (QUERY)) FROM x",
    "SELECT * FROM f((QUERY))",
    "VALUES ((QUERY))",
    "SELECT 1 UNION ALL (QUERY)",
    "(QUERY)",
    "SELECT 1 |> WHERE (QUERY)",
    "EXPLAIN SELECT (QUERY)",
    "EXPLAIN ANALYZE INSERT INTO x (QUERY)",
    "INSERT INTO x SELECT (QUERY)",
    "INSERT INTO x VALUES (1, (QUERY))",
    "INSERT OVERWRITE x (QUERY)",
    "CREATE TABLE x AS (QUERY)",
    "CREATE VIEW x AS (QUERY)",
    "COPY (QUERY) TO 'f'",
    "PREPARE p AS SELECT (QUERY)",
    "DESCRIBE SELECT (QUERY)",
    "INSERT INTO x REPLACE WHERE a IN (QUERY) SELECT 1",
    "UPDATE x SET a = (QUERY)",
    "UPDATE x SET a = 1 FROM (QUERY) AS d",
    "UPDATE x SET a = 1 FROM u JOIN (QUERY) AS d ON true WHERE b = 1",
    "UPDATE x SET a = 1 FROM u JOIN v ON v.a = (QUERY)",
    "UPDATE x SET a = 1 WHERE b = (QUERY)",
    "DELETE FROM x WHERE EXISTS (QUERY)",
    "DELETE FROM x USING (QUERY) AS d",
    "EXPLAIN DELETE FROM x WHERE a IN (QUERY)",
    "PREPARE p AS UPDATE x SET a = (QUERY)",
    "MERGE INTO x USING (QUERY) AS s ON true WHEN MATCHED THEN DELETE",
    "MERGE INTO x USING s ON a = (QUERY) WHEN MATCHED THEN DELETE",
    "MERGE INTO x USING s ON true WHEN MATCHED AND (QUERY) THEN DELETE",
    "MERGE INTO x USING s ON true WHEN MATCHED THEN UPDATE SET a = (QUERY)",
    "MERGE INTO x USING s ON true WHEN NOT MATCHED THEN INSERT (a) VALUES ((QUERY))",
];

#[test]
fn clauses_hide_nowhere() {
    for place in PLACES {
        let clean = place.replace("QUERY", "SELECT a FROM t");
        parse(&clean).unwrap_or_else(|e| panic!("{clean}\n{e}"));
        for (query, clause) in [
            ("SELECT a FROM t TABLESAMPLE (10)", "TABLESAMPLE"),
            ("SELECT a FROM t FOR UPDATE", "FOR UPDATE"),
            ("SELECT a FROM t SORT BY a", "SORT BY"),
            ("SELECT quantile(1)(a) FROM t", "second list"),
        ] {
            unsupported(&place.replace("QUERY", query), clause);
        }
    }
}

#[test]
fn whole_statements_inside_a_query() {
    for (sql, verb) in [
        (
            "WITH c AS (SELECT 1) INSERT INTO t SELECT * FROM c",
            "INSERT",
        ),
        ("WITH c AS (SELECT 1) UPDATE t SET a = 1", "UPDATE"),
        ("WITH c AS (SELECT 1) DELETE FROM t", "DELETE"),
        ("WITH c AS (DELETE FROM t) SELECT * FROM c", "DELETE"),
        ("WITH c AS (INSERT INTO t VALUES (1)) SELECT 1", "INSERT"),
    ] {
        unsupported(sql, verb);
    }
}

#[test]
fn inserts() {
    for (sql, clause) in [
        ("INSERT INTO t VALUES (1) RETURNING a", "RETURNING"),
        ("INSERT INTO t SELECT 1 FROM u RETURNING a", "RETURNING"),
        (
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "CONFLICT",
        ),
        (
            "INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1",
            "DUPLICATE",
        ),
        ("INSERT OR REPLACE INTO t VALUES (1)", "INSERT OR REPLACE"),
        ("INSERT OR IGNORE INTO t VALUES (1)", "INSERT OR IGNORE"),
        ("INSERT IGNORE INTO t VALUES (1)", "INSERT IGNORE"),
        ("INSERT LOW_PRIORITY INTO t VALUES (1)", "LOW_PRIORITY"),
        ("INSERT ALL INTO t VALUES (1) SELECT 1", "INSERT ALL"),
        ("REPLACE INTO t VALUES (1)", "REPLACE"),
        ("INSERT INTO t PARTITION (ds = '1') SELECT 1", "PARTITION"),
        ("INSERT INTO t (a) PARTITION (ds) SELECT 1", "PARTITION"),
        ("INSERT INTO t AS x VALUES (1)", "alias"),
        (
            "INSERT INTO t (a) OVERRIDING SYSTEM VALUE VALUES (1)",
            "OVERRIDING",
        ),
        ("INSERT INTO t VALUES (1) SETTINGS a = 1", "SETTINGS"),
        ("INSERT /*+ APPEND */ INTO t VALUES (1)", "hint"),
    ] {
        unsupported(sql, clause);
    }
    for (sql, words) in [
        ("INSERT t VALUES (1)", "expected INTO or OVERWRITE"),
        ("INSERT INTO t", "found the end of the statement"),
        ("INSERT INTO t SET a = 1", "found SET"),
        (
            "INSERT INTO t (a, A) VALUES (1, 2)",
            "column A is named twice",
        ),
        ("INSERT INTO t (a) BY NAME SELECT 1 AS a", "BY NAME"),
        ("INSERT INTO t (a) DEFAULT VALUES", "DEFAULT VALUES"),
        (
            "INSERT INTO 't.parquet' VALUES (1)",
            "found the file 't.parquet'",
        ),
        ("INSERT INTO a.b.c.d VALUES (1)", "more than three parts"),
        ("INSERT INTO t VERSION AS OF 3 SELECT 1", "version clause"),
        (
            "INSERT INTO t FOR SYSTEM_TIME AS OF now() SELECT 1",
            "version clause",
        ),
        ("INSERT INTO t AT (VERSION => 3) SELECT 1", "version clause"),
        (
            "INSERT INTO t (a) VERSION AS OF 3 SELECT 1",
            "version clause",
        ),
    ] {
        invalid(sql, words);
    }
}

#[test]
fn tables() {
    for (sql, clause) in [
        ("CREATE TABLE t (a INT PRIMARY KEY)", "PRIMARY KEY"),
        ("CREATE TABLE t (a INT, PRIMARY KEY (a))", "PRIMARY KEY"),
        (
            "CREATE TABLE t (a INT, CONSTRAINT k PRIMARY KEY (a))",
            "PRIMARY KEY",
        ),
        ("CREATE TABLE t (a INT UNIQUE)", "UNIQUE"),
        ("CREATE TABLE t (a INT, UNIQUE (a))", "UNIQUE"),
        ("CREATE TABLE t (a INT, UNIQUE KEY k (a))", "UNIQUE"),
        ("CREATE TABLE t (a INT REFERENCES u (a))", "REFERENCES"),
        (
            "CREATE TABLE t (a INT, FOREIGN KEY (a) REFERENCES u (a))",
            "FOREIGN KEY",
        ),
        (
            "CREATE TABLE t (a INT GENERATED ALWAYS AS (b + 1))",
            "GENERATED",
        ),
        (
            "CREATE TABLE t (a INT GENERATED ALWAYS AS IDENTITY)",
            "GENERATED",
        ),
        (
            "CREATE TABLE t (a INT GENERATED BY DEFAULT AS IDENTITY)",
            "GENERATED",
        ),
        ("CREATE TABLE t (a INT AS (b + 1))", "GENERATED"),
        ("CREATE TABLE t (a INT AUTO_INCREMENT)", "AUTO_INCREMENT"),
        ("CREATE TABLE t (a TEXT COLLATE c)", "COLLATE"),
        (
            "CREATE TABLE t (a TEXT CHARACTER SET utf8)",
            "CHARACTER SET",
        ),
        (
            "CREATE TABLE t (a INT CHECK (a > 0) NOT ENFORCED)",
            "NOT ENFORCED",
        ),
        (
            "CREATE TABLE t (a INT, CHECK (a > 0) NOT ENFORCED)",
            "NOT ENFORCED",
        ),
        (
            "CREATE TABLE t (a INT CONSTRAINT n NOT NULL)",
            "constraint name",
        ),
        ("CREATE TABLE t (LIKE u)", "LIKE"),
        ("CREATE TABLE t (a INT) CLUSTER BY (a)", "CLUSTER BY"),
        (
            "CREATE TABLE t (a INT) CLUSTERED BY (a) INTO 4 BUCKETS",
            "CLUSTERED BY",
        ),
        ("CREATE TABLE t (a INT) LOCATION 's3://b/t'", "LOCATION"),
        ("CREATE TABLE t (a INT) STORED AS PARQUET", "STORED AS"),
        ("CREATE TABLE t (a INT) USING parquet", "DELTA"),
        ("CREATE TABLE t (a INT) INHERITS (u)", "INHERITS"),
        ("CREATE TABLE t (a INT) ENGINE = InnoDB", "ENGINE"),
        ("CREATE TABLE t (a INT) ON COMMIT DROP", "ON clause"),
        ("CREATE TABLE t (a INT) STRICT", "STRICT"),
        ("CREATE TEMPORARY TABLE t (a INT)", "CREATE TEMPORARY TABLE"),
        ("CREATE TEMP VIEW v AS SELECT 1", "CREATE TEMP VIEW"),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            "CREATE MATERIALIZED VIEW",
        ),
        ("CREATE DATABASE d", "CREATE DATABASE"),
        ("CREATE INDEX i ON t (a)", "CREATE INDEX"),
        ("CREATE UNIQUE INDEX i ON t (a)", "CREATE UNIQUE INDEX"),
        (
            "CREATE TEMPORARY FUNCTION f() RETURNS INT RETURN 1",
            "CREATE TEMPORARY FUNCTION",
        ),
        (
            "CREATE FUNCTION f() RETURNS INT LANGUAGE python RETURN 1",
            "another language than SQL",
        ),
        (
            "CREATE FUNCTION f(a INT DEFAULT 1) RETURNS INT RETURN a",
            "DEFAULT on a parameter",
        ),
        ("DROP FUNCTION f(INT)", "a list of types"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV PARTITIONED BY (a) LOCATION 'x'",
            "PARTITIONED BY",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INT) STORED AS CSV WITH ORDER (a) LOCATION 'x'",
            "WITH ORDER",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INT DEFAULT 1) STORED AS CSV LOCATION 'x'",
            "DEFAULT",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INT CHECK (a > 0)) STORED AS CSV LOCATION 'x'",
            "CHECK",
        ),
        (
            "CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'",
            "OR REPLACE",
        ),
        ("CREATE OR REPLACE SCHEMA s", "OR REPLACE"),
    ] {
        unsupported(sql, clause);
    }
    for (sql, words) in [
        ("CREATE TABLE t LIKE u", "expected a list of columns"),
        ("CREATE TABLE t", "found the end of the statement"),
        ("CREATE TABLE t ()", "expected a column's name"),
        ("CREATE TABLE t (a)", "column a has no type"),
        (
            "CREATE TABLE t (a, b) AS SELECT 1, 2",
            "column a has no type",
        ),
        ("CREATE TABLE t (a INT, \"a\" INT)", "declared twice"),
        ("CREATE TABLE t (a INT NOT NULL NULL)", "twice"),
        (
            "CREATE TABLE t (a INT DEFAULT 1 DEFAULT 2)",
            "DEFAULT twice",
        ),
        ("CREATE TABLE t (a INT DEFAULT (SELECT 1))", "subquery"),
        ("CREATE TABLE t (a INT CHECK (a IN (SELECT 1)))", "subquery"),
        (
            "CREATE TABLE t (a INT, CHECK (sum(a) OVER () > 1))",
            "window function",
        ),
        ("CREATE TABLE t (a INT, CHECK (a > $1))", "parameter"),
        ("CREATE TABLE t (a INT DEFAULT ?) AS SELECT 1", "parameter"),
        ("CREATE TABLE t (a INT) PARTITIONED BY (b)", "does not have"),
        ("CREATE TABLE t (a INT) PARTITIONED BY (a, A)", "twice"),
        ("CREATE TABLE t (a INT) PARTITIONED BY (a INT)", "found INT"),
        (
            "CREATE TABLE t (a INT) COMMENT 'x' COMMENT 'y'",
            "COMMENT is given twice",
        ),
        (
            "CREATE TABLE t (a INT) TBLPROPERTIES ('k' = 'a', 'k' = 'b')",
            "'k' is given twice",
        ),
        ("CREATE TABLE t (a INT) TBLPROPERTIES ()", "found )"),
        (
            "CREATE OR REPLACE TABLE IF NOT EXISTS t (a INT)",
            "exclude each other",
        ),
        ("CREATE EXTERNAL TABLE t STORED AS CSV", "LOCATION"),
        (
            "CREATE EXTERNAL TABLE t STORED AS ORC LOCATION 'x'",
            "unknown file format ORC",
        ),
        (
            "CREATE VIEW v AS SELECT $1",
            "a view cannot hold a parameter",
        ),
        ("CREATE VIEW v (a INT) AS SELECT 1", "found INT"),
        ("CREATE TABEL t (a INT)", "found TABEL"),
    ] {
        invalid(sql, words);
    }
    let hint = error("CREATE EXTERNAL TABLE t STORED AS PARQET LOCATION 'x'");
    assert_eq!(hint.hint(), Some("did you mean PARQUET?"));
    let hint = error("CREATE TABLE t (ds DATE) PARTITIONED BY (dss)");
    assert_eq!(hint.hint(), Some("did you mean ds?"));
}

#[test]
fn other_statements() {
    for verb in [
        "GRANT SELECT ON t TO u",
        "CALL p()",
        "SAVEPOINT s",
        "COMMENT ON TABLE t IS 'x'",
        "KILL 1",
        "LOAD DATA INPATH 'x' INTO TABLE t",
        "PRAGMA x",
    ] {
        unsupported(verb, verb.split(' ').next().unwrap());
    }
    for (sql, clause) in [
        (
            "ALTER TABLE t DROP PARTITION (a = 1)",
            "ALTER TABLE .. DROP PARTITION",
        ),
        (
            "ALTER TABLE t ALTER COLUMN a TYPE BIGINT USING a + 1",
            "ALTER COLUMN .. TYPE .. USING",
        ),
        ("ALTER TABLE IF EXISTS t ADD COLUMN a INT", "IF EXISTS"),
        ("ALTER TABLE t ADD COLUMNS (a INT)", "ADD COLUMNS"),
        ("ALTER TABLE t ADD COLUMN a INT CHECK (a > 0)", "CHECK"),
        ("ALTER TABLE t ADD PRIMARY KEY (a)", "PRIMARY KEY"),
        (
            "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (a)",
            "FOREIGN KEY",
        ),
        ("ALTER VIEW v AS SELECT 1", "ALTER VIEW"),
        ("DROP INDEX i", "DROP INDEX"),
        ("DROP TABLE t PURGE", "PURGE"),
        ("COPY t FROM 'x'", "COPY t FROM"),
        ("COPY t TO 'x' PARTITIONED BY (a)", "PARTITIONED BY"),
        ("COPY t TO 'x' STORED AS DELTA", "DELTA"),
        ("COPY INTO t FROM (SELECT 1)", "query"),
        ("SHOW FULL TABLES", "SHOW FULL"),
        ("SHOW TABLES WHERE a = 1", "WHERE"),
        ("SHOW GRANTS", "SHOW GRANTS"),
        ("DESCRIBE EXTENDED t", "EXTENDED"),
        ("DESCRIBE FORMATTED t", "FORMATTED"),
        ("SET LOCAL a = 1", "SET LOCAL"),
        ("SET TRANSACTION READ ONLY", "SET TRANSACTION"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "CHARACTERISTICS",
        ),
        ("RESET ALL", "RESET ALL"),
        ("EXECUTE p USING 1", "USING"),
    ] {
        unsupported(sql, clause);
    }
    for (sql, words) in [
        ("", "no statement"),
        (" ; -- nothing", "no statement"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        (
            "WITH c AS MATERIALIZED (SELECT 1) SELECT * FROM c",
            "found MATERIALIZED",
        ),
        ("SELECT 1 1", "expected the end of the statement, found 1"),
        ("t", "expected a statement, found t"),
        ("1", "expected a statement, found 1"),
        ("BEGIN READ ONLY", "found READ"),
        ("ROLLBACK TO SAVEPOINT s", "found TO"),
        ("ALTER TABLE t ADD CHECK (a > 0)", "needs a name"),
        ("ALTER TABLE t RENAME TO u, ADD COLUMN b INT", "found ,"),
        ("DROP TABLE a, b", "found ,"),
        ("EXPLAIN DROP TABLE t", "a query or a write"),
        ("EXPLAIN EXPLAIN SELECT 1", "a query or a write"),
        ("EXPLAIN CREATE TABLE t (a INT)", "a query or a write"),
        (
            "EXPLAIN (COSTS ON) SELECT 1",
            "expected ANALYZE, VERBOSE or FORMAT",
        ),
        ("EXPLAIN FORMAT yaml SELECT 1", "unknown format yaml"),
        ("PREPARE p AS DROP TABLE t", "PREPARE takes a query, INSERT"),
        ("PREPARE p AS OPTIMIZE t", "PREPARE takes a query, INSERT"),
        (
            "PREPARE p AS PREPARE q AS SELECT 1",
            "PREPARE takes a query",
        ),
        ("EXPLAIN VACUUM t", "a query or a write"),
        ("EXECUTE p(a)", "cannot hold the column a"),
        ("EXECUTE p((SELECT 1))", "subquery"),
        ("EXECUTE p(?)", "parameter"),
        ("SELECT $1, $3", "uses parameter $3 but not $2"),
        ("SELECT :name", "not a parameter"),
        ("SHOW COLUMNS", "expected FROM and a table"),
    ] {
        invalid(sql, words);
    }
    assert_eq!(error("SELCT 1").hint(), Some("did you mean SELECT?"));
    assert_eq!(
        error("EXPLAIN FORMAT tre SELECT 1").hint(),
        Some("did you mean tree?")
    );
}

#[test]
fn errors_point_at_their_place() {
    for (sql, line, column) in [
        ("SELECT 1 FROM t WHERE\n  a ==", 2, 7),
        ("SELECT 1\nFROM t AS x,\n  u TABLESAMPLE (1)", 3, 3),
        ("SELECT 1,\n (SELECT 2 SORT BY a)", 2, 3),
        ("SELECT 'é', x\n  FROM t,, u", 2, 10),
        ("CREATE TABLE t (\n  a INT,\n  b INT PRIMARY KEY)", 3, 3),
        ("INSERT INTO t VALUES (1) RETURNING a", 1, 26),
        ("SELECT * FROM t VERSION AS OF 1.5", 1, 31),
        ("SELECT (1", 1, 10),
        ("  GRANT SELECT ON t TO u", 1, 3),
        ("UPDATE t\nSET a = 1,\n  a = 2", 3, 3),
        ("UPDATE t SET b = 1,\n a.b = 2", 2, 2),
        ("DELETE FROM t\n WHERE a = 1\n LIMIT 3", 3, 2),
        (
            "DELETE FROM t WHERE\n a IN (SELECT 1 FROM u TABLESAMPLE (1))",
            2,
            22,
        ),
        (
            "UPDATE t SET a = 1\n FROM u, v GLOBAL JOIN w ON true",
            2,
            24,
        ),
        ("UPDATE t SET a =\n sum(b) OVER ()", 2, 2),
        (
            "MERGE INTO t USING s ON true\n WHEN MATCHED THEN DELETE\n WHEN MATCHED THEN DELETE",
            3,
            2,
        ),
        (
            "MERGE INTO t USING s ON true\n WHEN NOT MATCHED THEN INSERT (a,\n b, t.a) VALUES (1, 2, 3)",
            3,
            5,
        ),
        ("RESTORE TABLE t TO VERSION AS OF\n 1.5", 2, 2),
        ("VACUUM t\n RETAIN -1 HOURS", 2, 9),
        ("OPTIMIZE t ZORDER BY (a,\n b, A)", 2, 5),
        ("SELECT 1;\n SELECT 2", 2, 2),
        ("WITH c AS (SELECT 1) DELETE FROM t", 1, 22),
    ] {
        let error = error(sql);
        let position = error.position().unwrap_or_else(|| panic!("{sql}\n{error}"));
        assert_eq!(
            (position.line, position.column),
            (line, column),
            "{sql}\n{error}"
        );
    }
    let text = error("SELECT a,\n  FROM t WHERE b = 'x").to_string();
    assert!(!text.contains("Line:"), "{text}");
    let rendered =
        error("SELECT 1\nFROM t FOR UPDATE OF x y").render("SELECT 1\nFROM t FOR UPDATE OF x y");
    assert!(rendered.contains('^'), "{rendered}");
}
