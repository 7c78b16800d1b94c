//! Text that is meant to break the room: it must be refused, without a panic and in time.

use super::super::limits::{MAX_OPERATORS, MAX_SET_OPERATIONS};
use super::super::{nearest, parse, parse_expr, split, take_versions};
use super::error;

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "LIMIT",
    "JOIN",
    "LEFT",
    "ON",
    "USING",
    "AS",
    "WITH",
    "RECURSIVE",
    "UNION",
    "ALL",
    "EXCEPT",
    "VALUES",
    "INSERT",
    "INTO",
    "OVERWRITE",
    "TABLE",
    "PARTITIONS",
    "OF",
    "PARTITION",
    "NAME",
    "DEFAULT",
    "CREATE",
    "OR",
    "REPLACE",
    "IF",
    "NOT",
    "EXISTS",
    "EXTERNAL",
    "STORED",
    "LOCATION",
    "OPTIONS",
    "TBLPROPERTIES",
    "COMMENT",
    "PARTITIONED",
    "CHECK",
    "CONSTRAINT",
    "PRIMARY",
    "KEY",
    "VIEW",
    "SCHEMA",
    "DROP",
    "CASCADE",
    "ALTER",
    "ADD",
    "COLUMN",
    "SET",
    "UNSET",
    "RENAME",
    "TO",
    "COPY",
    "FORMAT",
    "CSV",
    "SHOW",
    "TABLES",
    "LIKE",
    "DESCRIBE",
    "HISTORY",
    "EXPLAIN",
    "ANALYZE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "USE",
    "RESET",
    "FOR",
    "VERSION",
    "TIMESTAMP",
    "SYSTEM_TIME",
    "AT",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "INTERVAL",
    "ARRAY",
    "STRUCT",
    "MAP",
    "IN",
    "BETWEEN",
    "AND",
    "IS",
    "NULL",
    "OVER",
    "WINDOW",
    "FILTER",
    "LATERAL",
    "UNNEST",
    "TABLESAMPLE",
    "UPDATE",
    "t",
    "a",
    "b",
    "\"q\"",
    "`r`",
    "'s'",
    "'it''s'",
    "1",
    "2.5",
    "1e9",
    "99999999999999999999",
    "?",
    "$1",
    "$2",
    "(",
    ")",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    ".",
    "*",
    "+",
    "-",
    "/",
    "%",
    "=",
    "<",
    ">",
    "<=",
    "<>",
    "||",
    "::",
    ":",
    "=>",
    "->",
    "|>",
    "@",
    "#",
    "~",
    "!",
    "&",
    "^",
    "\\",
    "E'x'",
    "X'00'",
    "U&'\\0061'",
    "$$d$$",
    "/*c*/",
    "--c\n",
    "\n",
    "\t",
    "é",
    "🐎",
    "INT",
    "DECIMAL(12,2)",
];

/// A small generator of its own, so that a failure is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

fn read_everything(sql: &str) {
    for part in split(sql) {
        assert!(sql.contains(part.text));
        if let Ok(mut statement) = parse(part.text) {
            take_versions(&mut statement).unwrap();
        }
    }
    match parse(sql) {
        Ok(_) => {}
        Err(error) => {
            let _ = error.render(sql);
        }
    }
    let _ = parse_expr(sql);
    let _ = nearest(sql, WORDS);
}

#[test]
fn random_words_never_panic() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2000 {
        let words: Vec<&str> = (0..1 + dice.below(24))
            .map(|_| WORDS[dice.below(WORDS.len())])
            .collect();
        read_everything(&words.join(" "));
    }
}

#[test]
fn damaged_statements_never_panic() {
    let whole = [
        "INSERT OVERWRITE PARTITIONS OF shop.t (a, b) SELECT a, max(b) OVER (PARTITION BY a) FROM u AT (VERSION => 3) AS v WHERE a IN (?, ?) AND b LIKE 'x%'",
        "CREATE TABLE IF NOT EXISTS s.t (a INT NOT NULL DEFAULT 1, b DECIMAL(12,2) CHECK (b >= 0), c STRUCT<x INT, y ARRAY<TEXT>>) PARTITIONED BY (a) TBLPROPERTIES ('k' = 'v') COMMENT 'c'",
        "EXPLAIN ANALYZE VERBOSE FORMAT tree WITH RECURSIVE c AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT * FROM c JOIN t FOR TIMESTAMP AS OF now() - INTERVAL '1 day' AS o USING (x)",
        "COPY INTO t (a, b) FROM ('x.csv', 'y.csv') FORMAT CSV OPTIONS ('header' 'true')",
        "CREATE OR REPLACE VIEW v (a) AS SELECT CASE WHEN a > 1 THEN 'é' ELSE $$q$$ END FROM 'f.parquet'",
    ];
    let mut dice = Dice(42);
    for sql in whole {
        parse(sql).unwrap();
        let chars: Vec<char> = sql.chars().collect();
        for cut in 0..chars.len() {
            read_everything(&chars[..cut].iter().collect::<String>());
            read_everything(&chars[cut..].iter().collect::<String>());
            let mut damaged = chars.clone();
            damaged[cut] = ['(', '\'', '"', ' ', ')', '*', ';', '$'][dice.below(8)];
            read_everything(&damaged.iter().collect::<String>());
        }
    }
}

/// Runs with the stack that a worker thread of the runtime has.
fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(2 * 1024 * 1024)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn deep_nesting_is_refused() {
    on_small_stack(|| {
        for depth in [60, 1000, 20_000] {
            for (open, inner, close) in [
                ("(", "1", ")"),
                ("(SELECT ", "1", ")"),
                ("[", "1", "]"),
                ("f(", "1", ")"),
                ("CASE WHEN ", "true", " THEN 1 END"),
                ("CAST(", "1", " AS INT)"),
                ("NOT ", "true", ""),
                ("- ", "1", ""),
                ("struct(", "1", ")"),
                ("EXISTS (SELECT ", "1", ")"),
                ("a[", "1", "]"),
            ] {
                let nested = format!(
                    "SELECT {}{inner}{}",
                    open.repeat(depth),
                    close.repeat(depth)
                );
                let error = error(&nested);
                assert!(!error.message().is_empty(), "{open}");
            }
            for (open, inner, close) in [
                ("SELECT * FROM (", "SELECT 1", ")"),
                ("SELECT * FROM ", "t", " JOIN (u"),
                ("EXPLAIN ", "SELECT 1", ""),
                ("PREPARE p AS ", "SELECT 1", ""),
                ("(", "SELECT 1", ")"),
                ("WITH a AS (", "SELECT 1", ") SELECT 1"),
                ("CREATE TABLE t (a ARRAY<", "INT", ">)"),
                ("CREATE TABLE t (a STRUCT<x ", "INT", ">)"),
                ("SELECT CAST(a AS ARRAY<", "INT", ">)"),
            ] {
                error(&format!(
                    "{}{inner}{}",
                    open.repeat(depth),
                    close.repeat(depth)
                ));
            }
            let types = format!("{}INT{}", "ARRAY<".repeat(depth), ">".repeat(depth));
            error(&format!("CREATE TABLE t (a {types})"));
            let parens = format!("{}t{}", "(".repeat(depth), ")".repeat(depth));
            error(&format!("SELECT * FROM {parens}"));
            let joins = "(t JOIN ".repeat(depth);
            error(&format!("SELECT * FROM {joins}"));
        }
    });
}

#[test]
fn long_chains_are_read_or_refused() {
    on_small_stack(|| {
        for operator in ["+", "AND", "OR", "||", "="] {
            let chain = vec!["1"; MAX_OPERATORS].join(&format!(" {operator} "));
            let mut statement = parse(&format!("SELECT {chain}")).unwrap();
            take_versions(&mut statement).unwrap();
            drop(statement.clone());
            let chain = vec!["1"; 100_000].join(&format!(" {operator} "));
            error(&format!("SELECT {chain}"));
        }
        for operator in ["UNION ALL", "EXCEPT", "INTERSECT"] {
            let chain = vec!["SELECT 1"; MAX_SET_OPERATIONS].join(&format!(" {operator} "));
            drop(parse(&chain).unwrap().clone());
            error(&vec!["SELECT 1"; 100_000].join(&format!(" {operator} ")));
        }
        for link in [
            " IS NULL",
            "::INT",
            "[1]",
            ".a",
            " COLLATE c",
            " NOT NULL",
            " AT TIME ZONE 'x'",
            "(1)",
        ] {
            let _ = parse(&format!("SELECT a{}", link.repeat(100_000)));
        }
        let _ = parse(&format!(
            "SELECT 1 FROM t{}",
            " CROSS JOIN u".repeat(100_000)
        ));
        let _ = parse(&format!(
            "SELECT 1 FROM t{}",
            " PIVOT (max(a) FOR b IN (1))".repeat(10_000)
        ));
        let _ = parse(&format!("SELECT 1{}", " |> WHERE true".repeat(10_000)));
        let rows = vec!["(1, 'a', NULL)"; 50_000].join(", ");
        parse(&format!("INSERT INTO t VALUES {rows}")).unwrap();
        let list = vec!["1"; 50_000].join(", ");
        parse(&format!("SELECT 1 WHERE a IN ({list})")).unwrap();
    });
}
