//! What each statement means.

use datafusion::sql::sqlparser::ast::Ident;

use super::super::*;
use super::{of, read};

#[test]
fn queries() {
    for sql in [
        "SELECT 1",
        "select 1;",
        ";;select 1;;",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
        "WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b",
        "VALUES (1), (2)",
        "FROM t SELECT a",
        "SELECT * FROM 's3://b/*.parquet' WHERE x = 1",
        "SELECT * FROM \"T\" AS x, UNNEST([1, 2]) AS u(v)",
        "SELECT a, count(*) FILTER (WHERE b) FROM t GROUP BY ROLLUP (a), CUBE (b) HAVING true",
        "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY b ORDER BY c)",
        "SELECT DISTINCT ON (a) * EXCLUDE (b) FROM t QUALIFY row_number() OVER () = 1",
        "SELECT at, before, changes FROM t AS at JOIN u changes ON true JOIN v before ON true",
        "SELECT ts AT TIME ZONE 'UTC', substring('a' FOR 1), {'a': 1}, [1][1], MAP {'a': 1}",
        "SELECT t.version, timestamp FROM t AS version",
        "SELECT * FROM t |> WHERE a > 1 |> LIMIT 3",
        "SELECT CASE WHEN a THEN INTERVAL '1 day' ELSE DATE '2020-01-01' - DATE '2020-01-01' END FROM t",
        "SELECT * FROM generate_series(1, 3) AS g",
    ] {
        assert!(matches!(of(sql), Statement::Query(_)), "{sql}");
    }
}

#[test]
fn standard_spellings_become_plain_ones() {
    for (sql, plain) in [
        (
            "SELECT a FROM t FETCH FIRST 3 ROWS ONLY",
            "SELECT a FROM t LIMIT 3",
        ),
        (
            "SELECT a FROM t OFFSET 2 ROWS FETCH NEXT ROW ONLY",
            "SELECT a FROM t LIMIT 1 OFFSET 2 ROWS",
        ),
        ("FROM t", "SELECT * FROM t"),
        ("SELECT * FROM (FROM t)", "SELECT * FROM (SELECT * FROM t)"),
    ] {
        let query = read!(sql, Query);
        assert_eq!(query.to_string(), plain);
    }
}

#[test]
fn inserts() {
    let insert = read!("INSERT INTO s.t (a, \"B\") VALUES (1, DEFAULT)", Insert);
    assert_eq!(insert.table.to_string(), "s.t");
    assert_eq!(
        insert.columns.iter().map(fold).collect::<Vec<_>>(),
        ["a", "B"]
    );
    assert_eq!(insert.mode, InsertMode::Append);
    assert!(!insert.by_name);

    for (sql, mode) in [
        ("INSERT INTO t SELECT 1", InsertMode::Append),
        ("INSERT INTO TABLE t SELECT 1", InsertMode::Append),
        ("INSERT OVERWRITE t SELECT 1", InsertMode::Overwrite),
        ("INSERT OVERWRITE TABLE t SELECT 1", InsertMode::Overwrite),
        ("INSERT OVERWRITE INTO t SELECT 1", InsertMode::Overwrite),
        (
            "INSERT OVERWRITE PARTITIONS OF t SELECT 1",
            InsertMode::OverwritePartitions,
        ),
        (
            "INSERT OVERWRITE PARTITIONS OF TABLE t SELECT 1",
            InsertMode::OverwritePartitions,
        ),
        ("INSERT INTO t (SELECT a)", InsertMode::Append),
        (
            "INSERT INTO t (WITH c AS (SELECT 1) SELECT * FROM c)",
            InsertMode::Append,
        ),
        ("INSERT INTO t ((SELECT 1))", InsertMode::Append),
    ] {
        let insert = read!(sql, Insert);
        assert_eq!(insert.mode, mode, "{sql}");
        assert_eq!(insert.table.to_string(), "t", "{sql}");
        assert!(insert.columns.is_empty(), "{sql}");
    }
    assert_eq!(
        read!("INSERT OVERWRITE partitions SELECT 1", Insert)
            .table
            .to_string(),
        "partitions"
    );
    assert!(read!("INSERT INTO t BY NAME SELECT 1 AS a", Insert).by_name);
    let defaults = read!("INSERT INTO t DEFAULT VALUES", Insert);
    assert!(matches!(defaults.source, InsertSource::DefaultValues));
}

#[test]
fn create_table() {
    let table = read!(
        "CREATE TABLE IF NOT EXISTS shop.orders (
           order_id BIGINT NOT NULL COMMENT 'the key',
           amount DECIMAL(12,2) DEFAULT 0 CHECK (amount >= 0),
           key TEXT, index INT, check INT, \"Ds\" DATE,
           CONSTRAINT positive CHECK (amount < 1e9),
           CHECK (order_id > 0)
         ) USING DELTA PARTITIONED BY (\"Ds\") COMMENT 'orders'
         TBLPROPERTIES ('delta.appendOnly' = 'true', delta.x = 3, y = false)",
        CreateTable
    );
    assert!(table.if_not_exists && !table.or_replace && table.query.is_none());
    let names: Vec<_> = table
        .columns
        .iter()
        .map(|column| fold(&column.name))
        .collect();
    assert_eq!(names, ["order_id", "amount", "key", "index", "check", "Ds"]);
    assert!(!table.columns[0].nullable && table.columns[1].nullable);
    assert_eq!(table.columns[0].comment.as_deref(), Some("the key"));
    assert_eq!(table.columns[1].default.as_ref().unwrap().to_string(), "0");
    assert_eq!(table.columns[1].data_type.to_string(), "DECIMAL(12,2)");
    let checks: Vec<_> = table
        .checks
        .iter()
        .map(|check| (check.name.as_ref().map(fold), check.expr.to_string()))
        .collect();
    assert_eq!(
        checks,
        [
            (None, "amount >= 0".to_owned()),
            (Some("positive".to_owned()), "amount < 1e9".to_owned()),
            (None, "order_id > 0".to_owned()),
        ]
    );
    assert_eq!(
        table.partitioned_by.iter().map(fold).collect::<Vec<_>>(),
        ["Ds"]
    );
    let property = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        table.properties,
        [
            property("delta.appendOnly", "true"),
            property("delta.x", "3"),
            property("y", "false")
        ]
    );
    assert_eq!(table.comment.as_deref(), Some("orders"));

    let table = read!(
        "CREATE OR REPLACE TABLE t PARTITIONED BY (a) WITH (k = 'v') AS WITH c AS (SELECT 1 AS a) SELECT * FROM c",
        CreateTable
    );
    assert!(table.or_replace && table.columns.is_empty());
    assert_eq!(table.properties, [property("k", "v")]);
    assert_eq!(
        table.query.unwrap().to_string(),
        "WITH c AS (SELECT 1 AS a) SELECT * FROM c"
    );
    let table = read!(
        "CREATE TABLE t (a BIGINT NOT NULL) AS SELECT 1",
        CreateTable
    );
    assert!(table.query.is_some() && table.columns.len() == 1);
    let nested = read!(
        "CREATE TABLE t (a STRUCT<x INT, y ARRAY<TEXT>>, b INT[], c TIMESTAMP WITH TIME ZONE)",
        CreateTable
    );
    assert_eq!(nested.columns.len(), 3);
}

#[test]
fn create_others() {
    let table = read!(
        "CREATE EXTERNAL TABLE IF NOT EXISTS x (a INT NOT NULL, b TEXT) STORED AS CSV
         OPTIONS ('format.has_header' 'true', format.delimiter ';') LOCATION 's3://b/x/'",
        CreateExternalTable
    );
    assert!(table.if_not_exists);
    assert_eq!(table.format, FileFormat::Csv);
    assert_eq!(table.location, "s3://b/x/");
    assert_eq!(table.columns.len(), 2);
    assert_eq!(
        table.options[1],
        ("format.delimiter".to_owned(), ";".to_owned())
    );
    for (name, format) in [
        ("DELTA", FileFormat::Delta),
        ("parquet", FileFormat::Parquet),
        ("ndjson", FileFormat::Json),
        ("'AVRO'", FileFormat::Avro),
    ] {
        let sql = format!("CREATE EXTERNAL TABLE x LOCATION 'f' STORED AS {name}");
        assert_eq!(read!(&sql, CreateExternalTable).format, format);
    }

    assert!(matches!(
        of("CREATE SCHEMA IF NOT EXISTS shop"),
        Statement::CreateSchema {
            if_not_exists: true,
            ..
        }
    ));

    let text =
        "SELECT 'é' AS \"x y\", /* kept */ a\n FROM t FOR VERSION AS OF 3 -- last\n WHERE b = 'AS'";
    let view = read!(
        &format!("CREATE OR REPLACE VIEW s.v (p, q) AS\n  {text} ; "),
        CreateView
    );
    assert_eq!(view.text, text);
    assert!(view.or_replace);
    assert_eq!(view.columns.len(), 2);
    assert_eq!(
        read!("CREATE VIEW as AS SELECT 1", CreateView).text,
        "SELECT 1"
    );
    assert_eq!(
        read!("CREATE VIEW v AS (SELECT 1)", CreateView).text,
        "(SELECT 1)"
    );
    // The text of a view is a query that reads the same again.
    assert!(matches!(of(&view.text), Statement::Query(_)));
}

#[test]
fn functions_keep_their_text() {
    let function = read!(
        "CREATE OR REPLACE FUNCTION s.f(a INT, \"B\" DECIMAL(12,2)) RETURNS DOUBLE COMMENT 'c' LANGUAGE SQL RETURN a *  \"B\" -- end",
        CreateFunction
    );
    assert!(function.or_replace);
    assert_eq!(function.parameters.len(), 2);
    assert_eq!(function.comment.as_deref(), Some("c"));
    assert_eq!(function.text, "a *  \"B\"");
    assert!(matches!(function.returns, Returns::Value(_)));
    let rows = read!(
        "CREATE FUNCTION IF NOT EXISTS f() RETURNS TABLE (a INT) RETURN WITH c AS (SELECT 1 AS a) SELECT a FROM c",
        CreateFunction
    );
    assert!(rows.if_not_exists && rows.parameters.is_empty());
    assert!(matches!(rows.returns, Returns::Rows(columns) if columns.len() == 1));
    assert!(matches!(of(&rows.text), Statement::Query(_)));
    let inferred = read!(
        "CREATE FUNCTION f() RETURNS TABLE RETURN SELECT 1",
        CreateFunction
    );
    assert!(matches!(inferred.returns, Returns::Rows(columns) if columns.is_empty()));
    let dropped = read!("DROP FUNCTION IF EXISTS s.f CASCADE", Drop);
    assert!(dropped.kind == DropKind::Function && dropped.if_exists && dropped.cascade);
}

#[test]
fn alter_and_drop() {
    let action = |sql: &str| match of(sql) {
        Statement::AlterTable { action, .. } => action,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        action("ALTER TABLE t ADD COLUMN a INT DEFAULT 1"),
        AlterAction::AddColumn(AddColumn {
            column: Column {
                default: Some(_),
                ..
            },
            place: None,
            if_not_exists: false,
            ..
        })
    ));
    assert!(matches!(
        action("ALTER TABLE t ADD a INT"),
        AlterAction::AddColumn(_)
    ));
    let dotted = |path: &[Ident]| {
        let names: Vec<_> = path.iter().map(|name| name.value.as_str()).collect();
        names.join(".")
    };
    assert!(matches!(
        action("ALTER TABLE t ADD COLUMN IF NOT EXISTS s.inner.a INT AFTER b"),
        AlterAction::AddColumn(AddColumn { parent, place: Some(ColumnPlace::After(b)), if_not_exists: true, .. })
            if dotted(&parent) == "s.inner" && b.value == "b"
    ));
    assert!(matches!(
        action("ALTER TABLE t DROP COLUMN IF EXISTS s.\"A b\""),
        AlterAction::DropColumn { column, if_exists: true } if dotted(&column) == "s.A b"
    ));
    assert!(matches!(
        action("ALTER TABLE t RENAME COLUMN s.a TO b"),
        AlterAction::RenameColumn { column, to } if dotted(&column) == "s.a" && to.value == "b"
    ));
    let change = |clause: &str| match action(&format!("ALTER TABLE t ALTER COLUMN a {clause}")) {
        AlterAction::AlterColumn { change, .. } => change,
        other => panic!("{other:?}"),
    };
    for clause in ["TYPE DECIMAL(12, 2)", "SET DATA TYPE DECIMAL(12, 2)"] {
        assert!(matches!(change(clause), ColumnChange::Type(_)));
    }
    assert!(matches!(
        change("SET NOT NULL"),
        ColumnChange::Nullable(false)
    ));
    assert!(matches!(
        change("DROP NOT NULL"),
        ColumnChange::Nullable(true)
    ));
    assert!(matches!(
        change("SET DEFAULT 1 + 1"),
        ColumnChange::Default(Some(_))
    ));
    assert!(matches!(
        change("DROP DEFAULT"),
        ColumnChange::Default(None)
    ));
    assert!(matches!(change("COMMENT 'x'"), ColumnChange::Comment(text) if text == "x"));
    assert!(matches!(
        change("FIRST"),
        ColumnChange::Place(ColumnPlace::First)
    ));
    assert!(matches!(
        change("AFTER b"),
        ColumnChange::Place(ColumnPlace::After(_))
    ));
    assert!(matches!(
        action("ALTER TABLE t SET TBLPROPERTIES ('k' = 'v')"),
        AlterAction::SetProperties(p) if p == [("k".to_owned(), "v".to_owned())]
    ));
    assert!(matches!(
        action("ALTER TABLE t UNSET TBLPROPERTIES IF EXISTS ('k', a.b)"),
        AlterAction::UnsetProperties { keys, if_exists: true } if keys == ["k", "a.b"]
    ));
    assert!(matches!(
        action("ALTER TABLE s.t RENAME TO s.u"),
        AlterAction::RenameTo(name) if name.to_string() == "s.u"
    ));
    assert!(matches!(
        action("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)"),
        AlterAction::AddCheck { name, .. } if name.value == "c"
    ));
    assert!(matches!(
        action("ALTER TABLE t DROP CONSTRAINT IF EXISTS c"),
        AlterAction::DropConstraint {
            if_exists: true,
            ..
        }
    ));
    for (sql, kind, if_exists, cascade) in [
        ("DROP TABLE t", DropKind::Table, false, false),
        (
            "DROP VIEW IF EXISTS v RESTRICT",
            DropKind::View,
            true,
            false,
        ),
        ("DROP SCHEMA s CASCADE", DropKind::Schema, false, true),
    ] {
        let drop = read!(sql, Drop);
        assert_eq!(
            (drop.kind, drop.if_exists, drop.cascade),
            (kind, if_exists, cascade)
        );
    }
}

#[test]
fn copies() {
    let copy = read!(
        "COPY (SELECT 1) TO 'f.csv' OPTIONS ('a' 'b') STORED AS CSV",
        CopyTo
    );
    assert!(matches!(copy.source, CopySource::Query(_)));
    assert_eq!(
        (copy.target.as_str(), copy.format),
        ("f.csv", Some(FileFormat::Csv))
    );
    let copy = read!("COPY s.t TO 'f'", CopyTo);
    assert!(matches!(copy.source, CopySource::Table(_)) && copy.format.is_none());
    let copy = read!(
        "COPY INTO t (a) FROM ('x', 'y') FILEFORMAT = JSON OPTIONS (k = 'v')",
        CopyInto
    );
    assert_eq!(copy.files, ["x", "y"]);
    assert_eq!(copy.format, Some(FileFormat::Json));
    assert_eq!((copy.columns.len(), copy.options.len()), (1, 1));
    assert_eq!(read!("COPY INTO t FROM 'x'", CopyInto).files, ["x"]);
}

#[test]
fn show_and_describe() {
    for sql in [
        "SHOW TABLES",
        "SHOW TABLES IN s",
        "SHOW TABLES FROM s LIKE 'x%'",
    ] {
        assert!(matches!(read!(sql, Show), Show::Tables { .. }));
    }
    assert!(matches!(
        read!("SHOW SCHEMAS LIKE 'a'", Show),
        Show::Schemas { like: Some(_) }
    ));
    assert!(matches!(
        read!("SHOW COLUMNS IN t", Show),
        Show::Columns { .. }
    ));
    assert!(matches!(
        read!("SHOW CREATE TABLE t", Show),
        Show::Create { .. }
    ));
    assert!(matches!(
        read!("SHOW CREATE VIEW v", Show),
        Show::Create { .. }
    ));
    assert!(matches!(
        read!("SHOW FUNCTIONS LIKE 'a%'", Show),
        Show::Functions { .. }
    ));
    assert!(matches!(
        read!("SHOW CREATE FUNCTION f", Show),
        Show::CreateFunction { .. }
    ));
    assert!(matches!(read!("SHOW ALL", Show), Show::AllVariables));
    assert!(matches!(
        read!("SHOW DataFusion.execution.batch_size", Show),
        Show::Variable(name) if name == "datafusion.execution.batch_size"
    ));
    assert!(matches!(read!("SHOW TIME ZONE", Show), Show::Variable(name) if name == "timezone"));
    for sql in [
        "DESCRIBE t",
        "DESC t",
        "DESCRIBE TABLE t",
        "DESCRIBE history",
        "DESC \"t$history\"",
        "DESCRIBE s.table",
    ] {
        assert!(matches!(of(sql), Statement::Describe(_)), "{sql}");
    }
    for sql in ["DESCRIBE HISTORY t", "DESC HISTORY \"T\""] {
        assert!(matches!(of(sql), Statement::DescribeHistory(_)), "{sql}");
    }
    assert!(matches!(
        of("DESCRIBE SELECT 1"),
        Statement::DescribeQuery(_)
    ));
}

#[test]
fn session() {
    for (sql, name, value) in [
        ("SET a.B = 'x'", "a.b", "x"),
        ("SET a TO -1.5", "a", "-1.5"),
        ("SET a = true", "a", "true"),
        ("SET SESSION a = 1", "a", "1"),
        ("SET session = 1", "session", "1"),
        ("SET TIME ZONE 'UTC'", "timezone", "UTC"),
        ("SET TIME ZONE = '+01:00'", "timezone", "+01:00"),
        ("SET role = 'x'", "role", "x"),
    ] {
        assert!(
            matches!(of(sql), Statement::Set { name: n, value: v } if n == name && v == value),
            "{sql}"
        );
    }
    assert!(matches!(of("SET a = DEFAULT"), Statement::Reset { name } if name == "a"));
    assert!(matches!(of("RESET a.b"), Statement::Reset { name } if name == "a.b"));
    assert!(matches!(of("USE shop"), Statement::Use { .. }));
    assert!(
        matches!(of("USE SCHEMA lake.shop"), Statement::Use { schema } if schema.to_string() == "lake.shop")
    );
    assert!(
        matches!(of("USE schema"), Statement::Use { schema } if schema.to_string() == "schema")
    );
    let prepare = read!("PREPARE p (INT, TEXT) AS SELECT $1, $2", Prepare);
    assert_eq!(prepare.types.len(), 2);
    for sql in [
        "PREPARE p AS UPDATE t SET a = ?",
        "PREPARE p (INT) AS DELETE FROM t WHERE a = $1",
        "PREPARE p AS MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "PREPARE p AS TRUNCATE t",
    ] {
        assert!(
            read!(sql, Prepare).statement.changed_table().is_some(),
            "{sql}"
        );
    }
    assert!(
        matches!(of("EXECUTE p(1, 'a', -2, now())"), Statement::Execute { arguments, .. } if arguments.len() == 4)
    );
    assert!(
        matches!(of("EXECUTE p"), Statement::Execute { arguments, .. } if arguments.is_empty())
    );
    assert!(
        matches!(of("EXECUTE p()"), Statement::Execute { arguments, .. } if arguments.is_empty())
    );
    assert!(matches!(
        of("DEALLOCATE PREPARE p"),
        Statement::Deallocate { name: Some(_) }
    ));
    assert!(matches!(
        of("DEALLOCATE prepare"),
        Statement::Deallocate { name: Some(_) }
    ));
    assert!(matches!(
        of("DEALLOCATE ALL"),
        Statement::Deallocate { name: None }
    ));
    for (sql, transaction) in [
        ("BEGIN", Transaction::Begin),
        ("BEGIN TRANSACTION", Transaction::Begin),
        ("START TRANSACTION", Transaction::Begin),
        ("COMMIT WORK", Transaction::Commit),
        ("ROLLBACK", Transaction::Rollback),
    ] {
        assert_eq!(read!(sql, Transaction), transaction);
    }
}

#[test]
fn explains() {
    let explain = read!("EXPLAIN ANALYZE VERBOSE FORMAT tree SELECT 1", Explain);
    assert!(explain.analyze && explain.verbose && explain.format.is_some());
    let explain = read!("EXPLAIN (ANALYZE, FORMAT 'tree') SELECT 1", Explain);
    assert!(explain.analyze && !explain.verbose && explain.format.is_some());
    for sql in [
        "EXPLAIN (SELECT 1)",
        "EXPLAIN ((SELECT 1))",
        "EXPLAIN INSERT INTO t VALUES (1)",
        "EXPLAIN CREATE TABLE t AS SELECT 1",
        "EXPLAIN COPY t TO 'f'",
        "EXPLAIN COPY INTO t FROM 'f'",
        "EXPLAIN ANALYZE UPDATE t SET a = 1",
        "EXPLAIN DELETE FROM t",
        "EXPLAIN MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "EXPLAIN TRUNCATE t",
    ] {
        read!(sql, Explain);
    }
}

#[test]
fn parameters() {
    for (sql, count) in [
        ("SELECT 1", 0),
        ("SELECT ?, ? WHERE a = ?", 3),
        ("SELECT $2, $1, $2", 2),
        ("SELECT '?', \"?\" -- ?", 0),
        ("INSERT INTO t VALUES (?, ?), (?, ?)", 4),
        ("EXPLAIN SELECT ?", 1),
        (
            "SELECT * FROM (SELECT * FROM t WHERE a IN (SELECT ?)) LIMIT ?",
            2,
        ),
        ("SELECT * FROM t TIMESTAMP AS OF ?", 1),
        ("COPY (SELECT ?) TO 'f'", 1),
        ("CREATE TABLE t AS SELECT ?", 1),
        ("PREPARE p AS SELECT ?, ?", 0),
        ("SET a = 1", 0),
        (
            "UPDATE t SET a = ?, b = DEFAULT FROM (SELECT ?) AS s (x) WHERE c = ?",
            3,
        ),
        (
            "DELETE FROM t USING u JOIN v ON v.a = ? WHERE b IN (SELECT ?)",
            2,
        ),
        ("DELETE FROM t USING u TIMESTAMP AS OF ?", 1),
        (
            "MERGE INTO t USING (SELECT ?) AS s ON t.a = ? WHEN MATCHED AND ? THEN UPDATE SET a = ? WHEN NOT MATCHED THEN INSERT VALUES (?, DEFAULT)",
            5,
        ),
        ("INSERT INTO t REPLACE WHERE a = ? VALUES (?)", 2),
        ("PREPARE p AS DELETE FROM t WHERE a = ?", 0),
    ] {
        assert_eq!(parameter_count(&of(sql)), count, "{sql}");
    }
    let query = read!("SELECT ?, ?", Query);
    assert_eq!(query.to_string(), "SELECT $1, $2");
}

#[test]
fn row_expressions() {
    assert_eq!(
        parse_expr("a > 0 AND b IS NOT NULL").unwrap().to_string(),
        "a > 0 AND b IS NOT NULL"
    );
    for wrong in [
        "",
        "a >",
        "a > 0 b",
        "a; b",
        "a IN (SELECT 1)",
        "sum(a) OVER () > 1",
    ] {
        assert!(parse_expr(wrong).is_err(), "{wrong}");
    }
    assert!(parse_expr("a > $1").is_err());
}

#[test]
fn names_fold_unless_quoted() {
    let table = read!("CREATE TABLE t (Ab INT, \"Cd\" INT, `Ef` INT)", CreateTable);
    let names: Vec<_> = table
        .columns
        .iter()
        .map(|column| fold(&column.name))
        .collect();
    assert_eq!(names, ["ab", "Cd", "Ef"]);
}
