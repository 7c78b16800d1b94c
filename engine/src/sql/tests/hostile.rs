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
    "DELETE",
    "MERGE",
    "TRUNCATE",
    "MATCHED",
    "SOURCE",
    "TARGET",
    "DO",
    "NOTHING",
    "RETURNING",
    "ONLY",
    "OPTIMIZE",
    "ZORDER",
    "VACUUM",
    "RETAIN",
    "HOURS",
    "DRY",
    "RUN",
    "RESTORE",
    "COMPUTE",
    "STATISTICS",
    "COLUMNS",
    "EXPECT",
    "REFERENCES",
    "PER",
    "VIOLATION",
    "QUARANTINE",
    "ROW",
    "QUALITY",
    "REPLAY",
    "SUGGEST",
    "CONSTRAINTS",
    "CLEANSE",
    "POLICY",
    "POLICIES",
    "NULLIFY",
    "TAGGED",
    "TAG",
    "ROWS",
    "ERASE",
    "VERIFY",
    "ERASURE",
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
        // Only a join can take an instant from a row, so a clause that is read may still be out of place.
        if let Ok(mut statement) = parse(part.text)
            && let Err(error) = take_versions(&mut statement)
        {
            let _ = error.render(part.text);
        }
    }
    match parse(sql) {
        Ok(_) => {}
        Err(error) => {
            let _ = error.render(sql);
        }
    }
    let _ = parse_expr(sql);
}

#[test]
fn random_words_never_panic() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2000 {
        let words: Vec<&str> = (0..1 + dice.below(24))
            .map(|_| WORDS[dice.below(WORDS.len())])
            .collect();
        read_everything(&words.join(" "));
        let _ = nearest(&words.join(""), words);
    }
}

const WHOLE: &[&str] = &[
    "INSERT OVERWRITE PARTITIONS OF shop.t (a, b) SELECT a, max(b) OVER (PARTITION BY a) FROM u AT (VERSION => 3) AS v WHERE a IN (?, ?) AND b LIKE 'x%'",
    "CREATE TABLE IF NOT EXISTS s.t (a INT NOT NULL DEFAULT 1, b DECIMAL(12,2) CHECK (b >= 0), c STRUCT<x INT, y ARRAY<TEXT>>) PARTITIONED BY (a) TBLPROPERTIES ('k' = 'v') COMMENT 'c'",
    "EXPLAIN ANALYZE VERBOSE FORMAT tree WITH RECURSIVE c AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT * FROM c JOIN t FOR TIMESTAMP AS OF now() - INTERVAL '1 day' AS o USING (x)",
    "COPY INTO t (a, b) FROM ('x.csv', 'y.csv') FORMAT CSV OPTIONS ('header' 'true')",
    "CREATE OR REPLACE VIEW v (a) AS SELECT CASE WHEN a > 1 THEN 'é' ELSE $$q$$ END FROM 'f.parquet'",
    "UPDATE s.t AS o SET o.a = DEFAULT, b = (SELECT max(x) FROM u VERSION AS OF 3) FROM v JOIN w USING (k) WHERE o.c = ? AND v.d IN (1, 2)",
    "DELETE FROM s.t d USING u FOR SYSTEM_TIME AS OF now() AS x, (VALUES (1)) AS y (a) WHERE d.a = x.a OR EXISTS (SELECT 1 FROM w WHERE w.b = d.b)",
    "MERGE INTO t AS o USING (SELECT * FROM u AT (VERSION => 3)) AS s ON o.k = s.k WHEN MATCHED AND s.x THEN DELETE WHEN MATCHED THEN UPDATE SET a = s.a, o.b = DEFAULT WHEN NOT MATCHED BY TARGET THEN INSERT (k, a) VALUES (s.k, DEFAULT) WHEN NOT MATCHED BY SOURCE THEN UPDATE SET a = CASE WHEN o.b THEN 1 END",
    "MERGE INTO t USING f(1) ON true WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
    "INSERT INTO TABLE t (a, b) REPLACE WHERE a = 1 AND b IN (SELECT x FROM u) VALUES (1, DEFAULT)",
    "TRUNCATE TABLE s.t",
    "OPTIMIZE TABLE s.t WHERE ds = '2026-01-01' ZORDER BY (a, \"b\")",
    "VACUUM TABLE t RETAIN 1.5 HOURS DRY RUN",
    "RESTORE TABLE t TO TIMESTAMP AS OF now() - INTERVAL '1 day'",
    "ANALYZE TABLE t COMPUTE STATISTICS FOR ALL COLUMNS",
    "CREATE TABLE t (a INT, CONSTRAINT p EXPECT (a >= 0 OR a IS NULL) ON NULL VIOLATE ON VIOLATION QUARANTINE ROW, CONSTRAINT r EXPECT ((a, \"b\") REFERENCES s.u (x, y)) ON VIOLATION DROP ROW)",
    "ALTER TABLE t ADD CONSTRAINT m EXPECT (count(*) FILTER (WHERE a) BETWEEN 0.5 * previous(count(*)) AND 2) PER PARTITION OVER INPUT ON VIOLATION WARN NOT VALID",
    "CHECK TABLE s.t FOR TIMESTAMP AS OF now() - INTERVAL '1 day' CONSTRAINT \"p\"",
    "EXPLAIN QUALITY INSERT INTO t SELECT * FROM u VERSION AS OF 3",
    "REPLAY QUARANTINE s.t SET a = abs(a), b = DEFAULT WHERE _id IN (SELECT x FROM u) AND a < 0",
    "SUGGEST CONSTRAINTS FOR TABLE s.t",
    "CREATE OR REPLACE CLEANSE POLICY p ON s.t KEY (a, \"b\") IN (WITH c AS (SELECT x, y FROM u) SELECT x, y FROM c WHERE y > now() - INTERVAL '1 day') SET (d = '', e = -1, f = DATE '1970-01-01')",
    "CREATE CLEANSE POLICY p ON t COLUMNS TAGGED pii NULLIFY",
    "CLEANSE TABLE s.t POLICY \"p\" ERASE DRY RUN",
    "ALTER TABLE t ALTER COLUMN a SET TAG pii",
    "CREATE JOURNAL TABLE t (k INT, a TEXT, ts TIMESTAMP) JOURNAL KEYS (k, \"b\") SEQUENCE BY ts APPLY AS DELETE WHEN a = 'd' OR k < 0 TRACK HISTORY ON * EXCEPT (a) IGNORE NULL UPDATES ON (a) LATE QUARANTINE AFTER INTERVAL '7 days' AS SNAPSHOTS SELECT * FROM u",
    "INSERT INTO t (a, b) AS SNAPSHOTS SELECT a, b FROM u FOR VALID_TIME FROM '2026-01-01' TO now() FOR VERSION AS OF 3",
    "SELECT * FROM f JOIN t FOR VALID_TIME AS OF f.ts - INTERVAL '1 day' AS t ON f.k = t.k, u FOR VALID_TIME BETWEEN 'a' AND 'b' AT (VERSION => 3) AS v, w FOR VALID_TIME CONTAINED IN ('a', now())",
    "HISTORY OF (SELECT city, count(*), sum(a + 1) FROM s.t WHERE b IN (1, 2) GROUP BY city)",
    "SELECT * FROM valid_time_changes('s.t', '2026-01-01', now()) AS c, HISTORY OF (SELECT count(*) FROM t) h",
    "CHECK JOURNAL s.t FOR TIMESTAMP AS OF now() - INTERVAL '1 day'",
    "CORRECT JOURNAL s.t SET a = abs(a), valid_to = DEFAULT WHERE k = 7 AND valid_from < now()",
    "COPY INTO t FROM 'x.json' FORMAT DEBEZIUM OPTIONS (sequence = 'source.ts_ms')",
];

/// Words, numbers, quoted text and signs, each with the white space before it.
fn pieces(sql: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut from, mut before) = (0, ' ');
    for (at, c) in sql.char_indices() {
        let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
        let joined = part_of_word(before) && part_of_word(c) || before.is_whitespace();
        if at > 0 && !joined {
            pieces.push(&sql[from..at]);
            from = at;
        }
        before = c;
    }
    pieces.push(&sql[from..]);
    pieces
}

#[test]
fn statements_with_pieces_missing_or_moved_never_panic() {
    let mut dice = Dice(7);
    for sql in WHOLE {
        let pieces = pieces(sql);
        assert_eq!(pieces.concat(), *sql);
        for at in 0..pieces.len() {
            let without: Vec<&str> = [&pieces[..at], &pieces[at + 1..]].concat();
            read_everything(&without.concat());
            let mut twice = pieces.clone();
            twice.insert(at, pieces[at]);
            read_everything(&twice.concat());
            let mut swapped = pieces.clone();
            swapped.swap(at, dice.below(pieces.len()));
            read_everything(&swapped.concat());
            let mut word = pieces.clone();
            let other = format!(" {}", WORDS[dice.below(WORDS.len())]);
            word[at] = &other;
            read_everything(&word.concat());
        }
    }
}

#[test]
fn damaged_statements_never_panic() {
    let mut dice = Dice(42);
    for sql in WHOLE {
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
                ("UPDATE t SET a = ", "(1", ")"),
                ("EXPLAIN ANALYZE ", "DELETE FROM t", ""),
                ("EXPLAIN QUALITY ", "DELETE FROM t", ""),
                ("PREPARE p AS ", "TRUNCATE t", ""),
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
            for place in [
                "UPDATE t SET a = NEST",
                "UPDATE t SET a = 1 FROM u WHERE NEST",
                "UPDATE t SET a = 1 FROM RELATION",
                "DELETE FROM t USING RELATION WHERE a",
                "MERGE INTO t USING RELATION ON true WHEN MATCHED THEN DELETE",
                "MERGE INTO t USING s ON NEST WHEN MATCHED THEN DELETE",
                "MERGE INTO t USING s ON true WHEN MATCHED AND NEST THEN DELETE",
                "MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT VALUES (NEST)",
                "INSERT INTO t REPLACE WHERE NEST SELECT 1",
                "OPTIMIZE t WHERE NEST",
                "ALTER TABLE t ADD CONSTRAINT c EXPECT (NEST)",
                "CHECK TABLE t TIMESTAMP AS OF NEST",
                "REPLAY QUARANTINE t SET a = NEST WHERE b",
                "RESTORE t TO TIMESTAMP AS OF NEST",
            ] {
                let nest = format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
                let relation = format!("{}u{}", "(".repeat(depth), ")".repeat(depth));
                error(&place.replace("NEST", &nest).replace("RELATION", &relation));
            }
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
        for start in [
            "UPDATE t SET a = ",
            "DELETE FROM t WHERE ",
            "OPTIMIZE t WHERE ",
        ] {
            let chain = vec!["1"; MAX_OPERATORS].join(" + ");
            let mut statement = parse(&format!("{start}{chain}")).unwrap();
            take_versions(&mut statement).unwrap();
            drop(statement.clone());
            error(&format!("{start}{}", vec!["1"; 100_000].join(" + ")));
        }
        let mut many = "MERGE INTO t USING s ON true".to_owned();
        many.push_str(&" WHEN MATCHED AND s.a = 1 THEN DELETE".repeat(20_000));
        drop(parse(&many).unwrap().clone());
        let rows = vec!["(1, 'a', NULL)"; 50_000].join(", ");
        parse(&format!("INSERT INTO t VALUES {rows}")).unwrap();
        let list = vec!["1"; 50_000].join(", ");
        parse(&format!("SELECT 1 WHERE a IN ({list})")).unwrap();
    });
}
