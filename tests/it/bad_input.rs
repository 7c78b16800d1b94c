//! Bad input, as people make it: what is wrong is named, with the nearest name that is right. What is broken on the
//! disk is in `broken`, a disk that is full or closed in `disk`.

use selvedge_engine::{ErrorKind, Session};

use crate::support::lake::in_memory;
use crate::support::query;

async fn session() -> Session {
    let session = in_memory().await.session();
    for sql in [
        "CREATE SCHEMA shop",
        "CREATE TABLE orders (order_id BIGINT, amount DECIMAL(12, 2), ds DATE, CONSTRAINT positive CHECK (amount > 0))",
        "CREATE TABLE shop.items (name TEXT)",
        "CREATE VIEW totals AS SELECT sum(amount) AS total FROM orders",
        "PREPARE find AS SELECT * FROM orders WHERE order_id = $1",
        "INSERT INTO orders VALUES (1, 2, '2026-01-01')",
    ] {
        query::run(&session, sql).await;
    }
    session
}

/// Each statement ends with an error of one of these kinds that says all of these words.
async fn refused(kinds: &[ErrorKind], statements: &[(&str, &[&str])]) {
    let session = session().await;
    for (sql, words) in statements {
        let error = match session.execute(sql).await {
            Err(error) => error,
            Ok(_) => panic!("{sql}: succeeded"),
        };
        assert!(
            kinds.contains(&error.kind()),
            "{sql}: {:?}: {error}",
            error.kind()
        );
        for word in *words {
            assert!(
                error.to_string().contains(word),
                "{sql}: should say {word}: {error}"
            );
        }
    }
    assert_eq!(query::rows(&session, "DESCRIBE HISTORY orders").await, 2);
    assert_eq!(session.tables().await.unwrap().len(), 3);
}

#[tokio::test]
async fn unknown_tables() {
    let near: &[&str] = &["ordrs", "did you mean orders?"];
    refused(
        &[ErrorKind::NotFound],
        &[
            ("SELECT * FROM ordrs", near),
            ("SELECT * FROM ordrs VERSION AS OF 0", near),
            ("SELECT 1 WHERE EXISTS (SELECT 1 FROM ordrs)", near),
            ("WITH c AS (SELECT * FROM ordrs) SELECT * FROM c", near),
            ("INSERT INTO ordrs VALUES (1)", near),
            ("INSERT OVERWRITE ordrs VALUES (1)", near),
            ("INSERT INTO orders SELECT * FROM ordrs", near),
            ("CREATE TABLE u AS SELECT * FROM ordrs", near),
            ("CREATE VIEW u AS SELECT * FROM ordrs", near),
            ("ALTER TABLE ordrs ADD COLUMN a INT", near),
            ("DROP TABLE ordrs", near),
            ("DESCRIBE ordrs", near),
            ("DESCRIBE HISTORY ordrs", near),
            ("SHOW CREATE TABLE ordrs", near),
            ("EXPLAIN SELECT * FROM ordrs", near),
            ("COPY INTO ordrs FROM 'x.csv'", near),
            ("COPY ordrs TO 'x.csv'", near),
            ("PREPARE p AS SELECT * FROM ordrs", near),
            ("DROP VIEW totl", &["totl", "did you mean", "totals"]),
            (
                "SELECT * FROM items",
                &["items", "did you mean shop.items?"],
            ),
            (
                "SELECT * FROM shop.item",
                &["shop.item ", "did you mean", "items"],
            ),
            (
                "SELECT * FROM shp.items",
                &["schema shp does not exist", "did you mean shop?"],
            ),
            ("SELECT * FROM lak.shop.items", &["lak.shop.items"]),
            (
                "SELECT * FROM entirely_else",
                &["entirely_else", "SHOW TABLES"],
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn unknown_columns() {
    let near: &[&str] = &["ammount", "did you mean amount?"];
    refused(
        &[ErrorKind::NotFound, ErrorKind::Invalid],
        &[
            ("SELECT ammount FROM orders", near),
            ("SELECT o.ammount FROM orders o", near),
            ("SELECT order_id FROM orders WHERE ammount > 1", near),
            ("SELECT count(*) FROM orders GROUP BY ammount", near),
            ("SELECT order_id FROM orders ORDER BY ammount", near),
            (
                "SELECT x.order_id FROM orders x JOIN orders y ON x.amount = y.ammount",
                near,
            ),
            ("INSERT INTO orders (order_id, ammount) VALUES (1, 2)", near),
            (
                "INSERT INTO orders BY NAME SELECT 1 AS ammount",
                &["ammount"],
            ),
            ("CREATE TABLE u (amount INT, CHECK (ammount > 0))", near),
            ("CREATE TABLE u (amount INT) PARTITIONED BY (ammount)", near),
            (
                "ALTER TABLE orders ADD CONSTRAINT c CHECK (ammount > 0)",
                near,
            ),
            ("CREATE VIEW u AS SELECT ammount FROM orders", near),
            ("SELECT totl FROM totals", &["totl", "did you mean total?"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn unknown_functions_and_types() {
    refused(
        &[
            ErrorKind::NotFound,
            ErrorKind::Invalid,
            ErrorKind::Unsupported,
        ],
        &[
            ("SELECT uper('a')", &["uper", "did you mean upper?"]),
            (
                "SELECT summ(amount) FROM orders",
                &["summ", "did you mean sum?"],
            ),
            (
                "SELECT * FROM generate_serie(1, 2)",
                &["generate_serie", "did you mean generate_series?"],
            ),
            (
                "CREATE TABLE u (a INT, CHECK (absolut(a) > 0))",
                &["absolut"],
            ),
            ("CREATE TABLE u (a INT DEFAULT absolut(1))", &["absolut"]),
            ("CREATE TABLE u (a BIGINTT)", &["column a", "BIGINTT"]),
            ("SELECT CAST(1 AS BIGINTT)", &["BIGINTT"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn unknown_properties_options_and_variables() {
    let near: &[&str] = &["delta.apendOnly", "did you mean delta.appendOnly?"];
    refused(
        &[ErrorKind::NotFound, ErrorKind::Invalid],
        &[
            (
                "CREATE TABLE u (a INT) TBLPROPERTIES ('delta.apendOnly' = 'true')",
                near,
            ),
            (
                "ALTER TABLE orders SET TBLPROPERTIES ('delta.apendOnly' = 'true')",
                near,
            ),
            (
                "ALTER TABLE orders DROP CONSTRAINT positve",
                &["positve", "positive"],
            ),
            (
                "COPY orders TO 'x.csv' OPTIONS ('delimitr' ';')",
                &["delimitr", "did you mean delimiter?"],
            ),
            (
                "SET datafusion.execution.batch_sise = 1",
                &[
                    "datafusion.execution.batch_sise",
                    "did you mean datafusion.execution.batch_size?",
                ],
            ),
            (
                "SHOW datafusion.execution.batch_sise",
                &["did you mean datafusion.execution.batch_size?"],
            ),
            (
                "SET datafusion.execution.batch_size = many",
                &["batch_size", "many"],
            ),
            ("EXECUTE fnd(1)", &["fnd", "did you mean find?"]),
            ("USE shp", &["shp", "did you mean shop?"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn unknown_clauses_and_words() {
    refused(
        &[ErrorKind::Invalid, ErrorKind::Unsupported],
        &[
            ("SELCT 1", &["SELCT", "did you mean SELECT?"]),
            ("SELECT * FORM orders", &["FORM"]),
            ("INSERT INTOO orders VALUES (1)", &["INTOO"]),
            ("CREATE TABEL u (a INT)", &["TABEL", "did you mean TABLE?"]),
            ("CREATE TABLE u (a INT) PARTITIOND BY (a)", &["PARTITIOND"]),
            (
                "CREATE TABLE u (a INT) TBLPROPERTES ('a' = 'b')",
                &["TBLPROPERTES"],
            ),
            ("ALTER TABLE orders ADD COLUM a INT", &["INT"]),
            (
                "EXPLAIN FORMAT tre SELECT 1",
                &["tre", "did you mean tree?"],
            ),
            (
                "CREATE EXTERNAL TABLE u STORED AS PARQET LOCATION 'x'",
                &["PARQET", "did you mean PARQUET?"],
            ),
            ("SELECT * FROM orders VERSION AS OFF 1", &["found AS"]),
        ],
    )
    .await;
}

/// A statement of a remote or careless user may not take what belongs to all.
#[tokio::test]
async fn limits_of_the_engine_are_not_for_statements() {
    refused(
        &[ErrorKind::Denied, ErrorKind::NotFound],
        &[
            (
                "SET datafusion.runtime.memory_limit = '100G'",
                &["datafusion.runtime.memory_limit"],
            ),
            (
                "SET datafusion.runtime.temp_directory = '/'",
                &["datafusion.runtime.temp_directory"],
            ),
            (
                "SET datafusion.catalog.information_schema = false",
                &["datafusion.catalog.information_schema"],
            ),
            (
                "SET datafusion.sql_parser.dialect = 'mysql'",
                &["datafusion.sql_parser.dialect"],
            ),
        ],
    )
    .await;
}
