//! What rules and the statements about them mean, and what they may not say.

use super::super::*;
use super::{error, invalid, message, of, read, unsupported};
use crate::error::ErrorKind;
use crate::quality::rule::{OnNull, OnViolation, Over, Rule, RuleKind};

fn action(sql: &str) -> AlterAction {
    match of(sql) {
        Statement::AlterTable { action, .. } => action,
        other => panic!("{sql}\n{other:?}"),
    }
}

fn added(clause: &str) -> (Rule, bool) {
    match action(&format!("ALTER TABLE s.t ADD {clause}")) {
        AlterAction::AddRule { rule, not_valid } => (rule, not_valid),
        other => panic!("{clause}\n{other:?}"),
    }
}

fn expects(name: &str, condition: &str) -> Rule {
    Rule::new(name, condition)
}

#[test]
fn a_rule_is_a_name_a_condition_and_what_follows_from_it() {
    let (rule, not_valid) = added("CONSTRAINT Positive EXPECT (amount >= 0)");
    assert_eq!(rule, expects("positive", "amount >= 0"));
    assert!(!not_valid);
    let (rule, not_valid) = added(
        "constraint \"Big One\" expect (A > 0 and /* why */ b is not null) on null violate on violation quarantine row not valid",
    );
    assert!(not_valid);
    assert_eq!(
        rule,
        Rule {
            on_null: OnNull::Violate,
            on_violation: OnViolation::QuarantineRow,
            ..expects("Big One", "A > 0 AND b IS NOT NULL")
        }
    );
    let (rule, _) = added(
        "CONSTRAINT m EXPECT (count(*) FILTER (WHERE a) BETWEEN 0.5 * previous(count(*)) AND 2) PER PARTITION OVER INPUT ON VIOLATION WARN",
    );
    assert_eq!(
        rule,
        Rule {
            per_partition: true,
            over: Over::Input,
            on_violation: OnViolation::Warn,
            ..expects(
                "m",
                "count(*) FILTER (WHERE a) BETWEEN 0.5 * previous(count(*)) AND 2"
            )
        }
    );
}

#[test]
fn clauses_stand_in_any_order_and_defaults_may_be_said() {
    let clauses = [
        "PER PARTITION",
        "OVER INPUT",
        "ON NULL VIOLATE",
        "ON VIOLATION DROP ROW",
    ];
    let (whole, _) = added(&format!(
        "CONSTRAINT c EXPECT (avg(a) > 0) {}",
        clauses.join(" ")
    ));
    for turn in 1..clauses.len() {
        let mut turned = clauses;
        turned.rotate_left(turn);
        let (rule, _) = added(&format!(
            "CONSTRAINT c EXPECT (avg(a) > 0) {}",
            turned.join(" ")
        ));
        assert_eq!(rule, whole, "{turned:?}");
    }
    let (said, _) =
        added("CONSTRAINT c EXPECT (a) ON VIOLATION FAIL ON NULL PASS OVER WRITTEN NOT VALID");
    assert_eq!(said, expects("c", "a"));
}

#[test]
fn rules_of_a_new_table() {
    let table = read!(
        "CREATE TABLE t (a INT, CONSTRAINT p EXPECT (a > 0) ON VIOLATION WARN, CHECK (a < 9), b INT, CONSTRAINT expect EXPECT (b REFERENCES u (k)))",
        CreateTable
    );
    let names: Vec<_> = table.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["p", "expect"]);
    assert_eq!(table.rules[0].on_violation, OnViolation::Warn);
    assert_eq!(table.rules[1].kind, RuleKind::Reference);
    assert_eq!((table.columns.len(), table.checks.len()), (2, 1));
    // With a query, its columns may be all there are.
    let table = read!(
        "CREATE TABLE t (CONSTRAINT p EXPECT (a > 0)) AS SELECT 1 AS a",
        CreateTable
    );
    assert!(table.columns.is_empty() && table.query.is_some());
    assert_eq!(table.rules, [expects("p", "a > 0")]);
    let table = read!(
        "CREATE TABLE t (a INT, CONSTRAINT p EXPECT (a > 0)) AS SELECT 1",
        CreateTable
    );
    assert_eq!((table.columns.len(), table.rules.len()), (1, 1));
}

#[test]
fn references_have_one_text() {
    for (typed, text) in [
        ("C references S.T (K)", "c REFERENCES s.t (k)"),
        ("(c) REFERENCES t (k)", "c REFERENCES t (k)"),
        (
            "(a, \"B\") REFERENCES lake.s.\"T t\" (x, \"select\")",
            "(a, \"B\") REFERENCES lake.s.\"T t\" (x, \"select\")",
        ),
        ("\"a\"\"b\" REFERENCES t (k)", "\"a\"\"b\" REFERENCES t (k)"),
    ] {
        let (rule, _) = added(&format!(
            "CONSTRAINT r EXPECT ({typed}) ON VIOLATION DROP ROW"
        ));
        assert_eq!(rule.expect, text);
        assert_eq!(rule.kind, RuleKind::Reference, "{typed}");
        let kept = parse_reference(text).unwrap();
        assert_eq!(reference_text(&kept), text);
        assert_eq!(kept.columns.len(), kept.keys.len());
    }
    let kept = parse_reference("(a, b) REFERENCES s.t (x, y)").unwrap();
    let names = |names: &[datafusion::sql::sqlparser::ast::Ident]| {
        names.iter().map(fold).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&kept.columns), "a b");
    assert_eq!(names(&kept.keys), "x y");
    assert_eq!(folded(&kept.table), ["s", "t"]);
}

#[test]
fn kept_conditions_are_read_back() {
    assert!(matches!(
        parse_condition("sum(a) > 0 AND is_unique(b, c)").unwrap(),
        Condition::Expr(expr) if expr.to_string() == "sum(a) > 0 AND is_unique(b, c)"
    ));
    assert!(matches!(
        parse_condition("a REFERENCES t (k)").unwrap(),
        Condition::Reference(_)
    ));
    for (text, words) in [
        ("a > 0", "a > 0 is not a reference"),
        (
            "a REFERENCES t (k) b",
            "expected the end of the condition, found b",
        ),
        ("", "expected an expression, found the end of the statement"),
    ] {
        assert_eq!(parse_reference(text).unwrap_err().message(), words);
    }
    // As in every statement: the planner does not know this spelling.
    let (rule, _) = added("CONSTRAINT c EXPECT (items[1].price > 0)");
    assert_eq!(rule.expect, "items[1]['price'] > 0");
}

#[test]
fn the_clause_of_a_rule_makes_it_again() {
    let conditions = [
        "a > 0",
        "NOT (a IS NULL) OR b LIKE 'it''s%'",
        "c IS DISTINCT FROM d AND e",
        "count(DISTINCT a) > 0.5 * baseline(count(DISTINCT a), 7)",
        "CASE WHEN \"A\" THEN b::BIGINT ELSE CAST(c AS DECIMAL(12,2)) END IN (1, 2)",
        "approx_percentile(c, 0.99) < INTERVAL '1 day'",
        "items[1]['price'] BETWEEN -1 AND 1e9",
    ];
    let names = ["c", "Über", "two words", "select", "quo\"te", "expect"];
    for (name, condition) in names.into_iter().cycle().zip(conditions) {
        for on_violation in [
            OnViolation::Warn,
            OnViolation::DropRow,
            OnViolation::QuarantineRow,
            OnViolation::Fail,
        ] {
            for on_null in [OnNull::Pass, OnNull::Violate] {
                for (per_partition, over) in [(false, Over::Written), (true, Over::Input)] {
                    let (read_once, _) = added(&format!("CONSTRAINT c EXPECT ({condition})"));
                    let rule = Rule {
                        per_partition,
                        over,
                        on_null,
                        on_violation,
                        ..expects(name, &read_once.expect)
                    };
                    assert_eq!(added(&rule_clause(&rule)).0, rule);
                }
            }
        }
    }
    assert_eq!(
        rule_clause(&expects("c", "a > 0")),
        "CONSTRAINT c EXPECT (a > 0)"
    );
    let all = Rule {
        per_partition: true,
        over: Over::Input,
        on_null: OnNull::Violate,
        on_violation: OnViolation::DropRow,
        ..expects("Select", "avg(a) > 0")
    };
    assert_eq!(
        rule_clause(&all),
        "CONSTRAINT \"Select\" EXPECT (avg(a) > 0) PER PARTITION OVER INPUT ON NULL VIOLATE ON VIOLATION DROP ROW"
    );
    let reference = Rule {
        kind: RuleKind::Reference,
        ..expects("r", "(a, b) REFERENCES s.t (x, y)")
    };
    assert_eq!(added(&rule_clause(&reference)).0, reference);
}

#[test]
fn constraints_are_switched_and_checks_are_trusted_on_demand() {
    for (sql, on) in [
        ("ALTER TABLE t ENABLE CONSTRAINT C", true),
        ("ALTER TABLE t disable constraint \"c\";", false),
    ] {
        assert!(
            matches!(action(sql), AlterAction::SwitchConstraint { name, enabled } if fold(&name) == "c" && enabled == on),
            "{sql}"
        );
    }
    for (tail, trusted) in [("", false), (" NOT VALID", true)] {
        let sql = format!("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0){tail}");
        assert!(
            matches!(action(&sql), AlterAction::AddCheck { not_valid, .. } if not_valid == trusted),
            "{sql}"
        );
    }
}

#[test]
fn tables_are_checked() {
    let check = read!("CHECK TABLE s.t", CheckTable);
    assert_eq!(check.table.to_string(), "s.t");
    assert!(check.at.is_none() && check.constraint.is_none());
    for sql in [
        "CHECK TABLE t VERSION AS OF 3 CONSTRAINT C",
        "CHECK TABLE t FOR VERSION AS OF 3 CONSTRAINT c",
        "check table t at (version => 3) constraint \"c\";",
    ] {
        let check = read!(sql, CheckTable);
        assert_eq!(check.at, Some(At::Version(3)), "{sql}");
        assert_eq!(check.constraint.as_ref().map(fold).as_deref(), Some("c"));
    }
    for sql in [
        "CHECK TABLE t TIMESTAMP AS OF now()",
        "CHECK TABLE t FOR TIMESTAMP AS OF now()",
        "CHECK TABLE t FOR SYSTEM_TIME AS OF now()",
        "CHECK TABLE t AT (TIMESTAMP => now())",
    ] {
        let check = read!(sql, CheckTable);
        assert!(
            matches!(&check.at, Some(At::Timestamp(instant)) if instant.to_string() == "now()"),
            "{sql}"
        );
        assert!(check.constraint.is_none());
    }
    assert_eq!(
        read!("CHECK TABLE table", CheckTable).table.to_string(),
        "table"
    );
}

#[test]
fn quarantine_is_replayed() {
    let replay = read!("REPLAY QUARANTINE s.t", Replay);
    assert_eq!(replay.table.to_string(), "s.t");
    assert!(replay.predicate.is_none() && replay.assignments.is_empty());
    for sql in [
        "REPLAY QUARANTINE t SET a = abs(a), t.b = DEFAULT WHERE _id IN ('x', 'y')",
        "REPLAY QUARANTINE t WHERE _id IN ('x', 'y') SET a = abs(a), t.b = DEFAULT;",
    ] {
        let replay = read!(sql, Replay);
        let columns: Vec<_> = replay
            .assignments
            .iter()
            .map(|set| fold(&set.column))
            .collect();
        assert_eq!(columns, ["a", "b"], "{sql}");
        let values: Vec<_> = replay
            .assignments
            .iter()
            .map(|set| set.value.as_ref().map(ToString::to_string))
            .collect();
        assert_eq!(values, [Some("abs(a)".to_owned()), None], "{sql}");
        assert_eq!(replay.predicate.unwrap().to_string(), "_id IN ('x', 'y')");
    }
    let mut statement = of("REPLAY QUARANTINE t WHERE a IN (SELECT b FROM u VERSION AS OF 3)");
    assert_eq!(statement.changed_table().unwrap().to_string(), "t");
    assert_eq!(take_versions(&mut statement).unwrap().len(), 1);
}

#[test]
fn constraints_are_suggested() {
    for sql in [
        "SUGGEST CONSTRAINTS FOR s.t",
        "suggest constraints for table s.t;",
    ] {
        assert!(
            matches!(of(sql), Statement::SuggestConstraints { table } if table.to_string() == "s.t"),
            "{sql}"
        );
    }
}

#[test]
fn the_quality_of_a_write_is_explained() {
    for (sql, table) in [
        ("INSERT INTO t VALUES (1)", Some("t")),
        ("INSERT OVERWRITE s.t SELECT * FROM u", Some("s.t")),
        ("UPDATE t SET a = 1", Some("t")),
        ("DELETE FROM t", Some("t")),
        ("TRUNCATE TABLE t", Some("t")),
        (
            "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
            Some("t"),
        ),
        ("REPLAY QUARANTINE t", Some("t")),
        ("COPY INTO t FROM 'f.csv'", None),
        ("CREATE TABLE t AS SELECT 1 AS a", None),
    ] {
        let statement = of(&format!("EXPLAIN QUALITY {sql}"));
        assert_eq!(
            statement
                .changed_table()
                .map(ToString::to_string)
                .as_deref(),
            table,
            "{sql}"
        );
        assert!(matches!(statement, Statement::ExplainQuality(_)), "{sql}");
    }
    let mut statement = of("EXPLAIN QUALITY INSERT INTO t SELECT * FROM u VERSION AS OF 3");
    assert_eq!(take_versions(&mut statement).unwrap().len(), 1);
    for wrong in [
        "SELECT 1",
        "EXPLAIN INSERT INTO t SELECT 1",
        "EXPLAIN QUALITY DELETE FROM t",
        "PREPARE p AS DELETE FROM t",
        "ANALYZE INSERT INTO t SELECT 1",
        "COPY t TO 'f.csv'",
        "CREATE TABLE t (a INT)",
        "VACUUM t",
    ] {
        message(
            &format!("EXPLAIN QUALITY {wrong}"),
            "EXPLAIN QUALITY takes a statement that writes rows",
        );
    }
    for (sql, words) in [
        ("EXPLAIN QUALITY", "expected a statement, found QUALITY"),
        ("EXPLAIN QUALITY t", "expected a statement, found QUALITY"),
        (
            "EXPLAIN ANALYZE QUALITY DELETE FROM t",
            "expected a statement, found QUALITY",
        ),
        (
            "EXPLAIN QUALITY INSERT INTO t VALUES (?)",
            "EXPLAIN QUALITY cannot hold a parameter",
        ),
        (
            "EXPLAIN REPLAY QUARANTINE t",
            "EXPLAIN REPLAY is not supported",
        ),
    ] {
        message(sql, words);
    }
}

#[test]
fn words_of_rules_name_other_things_too() {
    for sql in [
        "SELECT quality, replay, suggest, expect, quarantine, violation FROM quality AS replay",
        "SELECT t.check FROM t",
        "SELECT suggest(quality) FROM suggest JOIN replay ON expect = violation",
        "DESCRIBE quality",
        "DESCRIBE \"t$quality\"",
        "EXPLAIN SELECT quality FROM quality",
        "EXPLAIN INSERT INTO quality VALUES (1)",
        "CREATE TABLE quality (expect INT, replay TEXT, suggest INT, quarantine INT, quality INT)",
        "CREATE TABLE replay AS SELECT 1 AS quality",
        "ALTER TABLE replay ADD COLUMN expect INT",
        "ALTER TABLE replay ADD expect INT",
        "ALTER TABLE t ADD CONSTRAINT expect CHECK (a > 0)",
        "UPDATE suggest SET quality = 1 WHERE expect",
        "CHECK TABLE quality CONSTRAINT check",
        "REPLAY QUARANTINE quarantine",
        "SUGGEST CONSTRAINTS FOR suggest",
    ] {
        of(sql);
    }
}

#[test]
fn rules_that_are_wrong() {
    for (clause, words) in [
        ("EXPECT (a > 0)", "an EXPECT needs a name"),
        ("CONSTRAINT EXPECT (a > 0)", "an EXPECT needs a name"),
        ("CONSTRAINT c EXPECT a > 0", "expected (, found a"),
        ("CONSTRAINT c EXPECT ()", "expected an expression, found )"),
        ("CONSTRAINT c EXPECT (a, b)", "expected ), found ,"),
        (
            "CONSTRAINT c EXPECT (a",
            "expected ), found the end of the statement",
        ),
        (
            "CONSTRAINT c EXPECT (a IN (SELECT 1))",
            "an EXPECT cannot hold a subquery",
        ),
        (
            "CONSTRAINT c EXPECT (sum(a) OVER () > 0)",
            "an EXPECT cannot hold a window function",
        ),
        (
            "CONSTRAINT c EXPECT (a > ?)",
            "an EXPECT cannot hold a parameter",
        ),
        (
            "CONSTRAINT c EXPECT (a) PER GROUP",
            "expected PARTITION, found GROUP",
        ),
        (
            "CONSTRAINT c EXPECT (a) OVER ALL",
            "expected WRITTEN or INPUT, found ALL",
        ),
        (
            "CONSTRAINT c EXPECT (a) ON NULL FAIL",
            "expected PASS or VIOLATE, found FAIL",
        ),
        (
            "CONSTRAINT c EXPECT (a) ON VIOLATION",
            "expected an action (WARN, DROP ROW, QUARANTINE ROW, FAIL), found the end of the statement",
        ),
        (
            "CONSTRAINT c EXPECT (a) ON VIOLATION 'FAIL'",
            "expected an action (WARN, DROP ROW, QUARANTINE ROW, FAIL), found 'FAIL'",
        ),
        (
            "CONSTRAINT c EXPECT (a) ON DELETE",
            "expected NULL or VIOLATION, found DELETE",
        ),
        (
            "CONSTRAINT c EXPECT (a) ON NULL PASS ON NULL PASS",
            "ON NULL is given twice",
        ),
        (
            "CONSTRAINT c EXPECT (a) ON VIOLATION WARN ON NULL PASS ON VIOLATION FAIL",
            "ON VIOLATION is given twice",
        ),
        (
            "CONSTRAINT c EXPECT (a) OVER INPUT OVER WRITTEN",
            "OVER is given twice",
        ),
        (
            "CONSTRAINT c EXPECT (a) PER PARTITION PER PARTITION",
            "PER PARTITION is given twice",
        ),
        (
            "CONSTRAINT c EXPECT (a) ON VIOLATION FAIL UPDATE",
            "expected the end of the statement, found UPDATE",
        ),
        (
            "CONSTRAINT c EXPECT (a) NOT VALID ON VIOLATION WARN",
            "expected the end of the statement, found ON",
        ),
        (
            "CONSTRAINT c EXPECT (a) NOT ENFORCED",
            "EXPECT .. NOT ENFORCED is not supported",
        ),
    ] {
        message(&format!("ALTER TABLE t ADD {clause}"), words);
    }
    let subquery = error("ALTER TABLE t ADD CONSTRAINT c EXPECT (a IN (SELECT k FROM u))");
    assert!(subquery.hint().unwrap().contains("c REFERENCES t (k)"));
}

#[test]
fn unknown_actions_come_with_the_known_ones() {
    for (action, typed, near) in [
        ("DROP", "DROP", Some("DROP ROW")),
        ("DROP ROWS", "DROP ROWS", Some("DROP ROW")),
        ("QUARANTINE", "QUARANTINE", Some("QUARANTINE ROW")),
        ("QARANTINE ROW", "QARANTINE ROW", Some("QUARANTINE ROW")),
        ("FIAL", "FIAL", Some("FAIL")),
        ("warm", "WARM", Some("WARN")),
        ("ABORT", "ABORT", None),
        ("DELETE ROW", "DELETE ROW", None),
    ] {
        let error = message(
            &format!("ALTER TABLE t ADD CONSTRAINT c EXPECT (a) ON VIOLATION {action}"),
            &format!("unknown action {typed} of ON VIOLATION"),
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(
            error.detail(),
            Some("the actions are WARN, DROP ROW, QUARANTINE ROW, FAIL")
        );
        let hint = near.map(|near| format!("did you mean {near}?"));
        assert_eq!(error.hint(), hint.as_deref(), "{action}");
    }
    let error = error("ALTER TABLE t ADD CONSTRAINT c EXPECT (a) ON NULL VIOLATES");
    assert_eq!(error.hint(), Some("did you mean VIOLATE?"));
    let error = super::error("ALTER TABLE t ADD CONSTRAINT c EXPECT (a) OVER INPUTS");
    assert_eq!(error.hint(), Some("did you mean INPUT?"));
}

#[test]
fn references_that_are_wrong() {
    for (condition, words) in [
        (
            "lower(a) REFERENCES t (k)",
            "lower(a) before REFERENCES is not a column",
        ),
        (
            "u.a REFERENCES t (k)",
            "u.a before REFERENCES is not a column",
        ),
        (
            "(a, 1) REFERENCES t (k, l)",
            "1 before REFERENCES is not a column",
        ),
        (
            "a > 0 REFERENCES t (k)",
            "a > 0 before REFERENCES is not a column",
        ),
        (
            "a REFERENCES t",
            "expected ( and the columns of t that hold the key, found )",
        ),
        (
            "a REFERENCES t VERSION AS OF 3 (k)",
            "expected ( and the columns of t that hold the key, found VERSION",
        ),
        ("a REFERENCES (k)", "expected a name, found ("),
        ("a REFERENCES t ()", "expected a name, found )"),
        ("a REFERENCES t (lower(k))", "expected ), found ("),
        (
            "(a, b) REFERENCES t (k)",
            "REFERENCES compares 2 and 1 columns: as many must stand before it as after t",
        ),
        ("(a, A) REFERENCES t (k, l)", "column A is named twice"),
        ("(a, b) REFERENCES t (k, k)", "column k is named twice"),
        (
            "a REFERENCES t (k) ON DELETE CASCADE",
            "REFERENCES .. ON is not supported",
        ),
        (
            "a REFERENCES t (k) MATCH FULL",
            "REFERENCES .. MATCH is not supported",
        ),
        ("a REFERENCES t (k) AND a > 0", "expected ), found AND"),
        (
            "a REFERENCES a.b.c.d (k)",
            "the name a.b.c.d has more than three parts",
        ),
    ] {
        let sql = format!("ALTER TABLE t ADD CONSTRAINT c EXPECT ({condition})");
        message(&sql, words);
    }
}

#[test]
fn rules_where_none_can_be() {
    for (sql, words) in [
        (
            "CREATE TABLE t (a INT EXPECT (a > 0))",
            "EXPECT as part of a column is not supported",
        ),
        (
            "CREATE TABLE t (a INT CONSTRAINT c EXPECT (a > 0), b INT)",
            "EXPECT as part of a column is not supported",
        ),
        (
            "ALTER TABLE t ADD COLUMN a INT NOT NULL CONSTRAINT c EXPECT (a > 0)",
            "EXPECT as part of a column is not supported",
        ),
        (
            "CREATE TABLE t (a INT, CONSTRAINT c EXPECT (a > 0) NOT VALID)",
            "NOT VALID in CREATE TABLE is not supported",
        ),
        (
            "CREATE TABLE t (a INT, CONSTRAINT c CHECK (a > 0) NOT VALID)",
            "NOT VALID in CREATE TABLE is not supported",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INT, CONSTRAINT c EXPECT (a > 0)) STORED AS CSV LOCATION 'x'",
            "EXPECT on an external table is not supported",
        ),
        (
            "ALTER TABLE t ENABLE TRIGGER c",
            "ALTER TABLE .. ENABLE TRIGGER is not supported",
        ),
        (
            "CHECK TABLE t EXTENDED",
            "CHECK TABLE .. EXTENDED is not supported",
        ),
        (
            "REPLAY QUARANTINE t RETURNING a",
            "REPLAY QUARANTINE .. RETURNING is not supported",
        ),
        (
            "REPLAY QUARANTINE t WHERE a LIMIT 3",
            "REPLAY QUARANTINE .. LIMIT is not supported",
        ),
    ] {
        let error = message(sql, words);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}");
    }
    message(
        "CREATE TABLE t (CONSTRAINT c EXPECT (a > 0))",
        "expected a list of columns or AS and a query, found the end of the statement",
    );
}

#[test]
fn statements_about_rules_that_are_wrong() {
    for (sql, words) in [
        ("CHECK t", "expected TABLE, found t"),
        ("CHECK (a > 0)", "expected TABLE, found ("),
        (
            "CHECK TABLE",
            "expected a name, found the end of the statement",
        ),
        (
            "CHECK TABLE t CONSTRAINT",
            "expected a name, found the end of the statement",
        ),
        (
            "CHECK TABLE t CONSTRAINT c, d",
            "expected the end of the statement, found ,",
        ),
        (
            "CHECK TABLE t CONSTRAINT c VERSION AS OF 3",
            "expected the end of the statement, found VERSION",
        ),
        (
            "CHECK TABLE t, u",
            "expected the end of the statement, found ,",
        ),
        ("CHECK TABLE t VERSION AS OF 1.5", "1.5 is not a version"),
        ("CHECK TABLE t VERSION AS OF ?", "$1 is not a version"),
        (
            "CHECK TABLE t TIMESTAMP AS OF NULL",
            "the instant of a version cannot be NULL",
        ),
        (
            "CHECK TABLE t TIMESTAMP AS OF a",
            "the instant of a version cannot hold the column a",
        ),
        (
            "CHECK TABLE t TIMESTAMP AS OF (SELECT 1)",
            "the instant of a version cannot hold a subquery",
        ),
        (
            "CHECK TABLE t TIMESTAMP AS OF ?",
            "the instant of CHECK TABLE cannot hold a parameter",
        ),
        ("REPLAY t", "expected QUARANTINE, found t"),
        (
            "REPLAY QUARANTINE",
            "expected a name, found the end of the statement",
        ),
        (
            "REPLAY QUARANTINE t SET a = 1 WHERE b SET c = 2",
            "SET is given twice",
        ),
        (
            "REPLAY QUARANTINE t WHERE a WHERE b",
            "WHERE is given twice",
        ),
        (
            "REPLAY QUARANTINE t SET a = 1, A = 2",
            "column A is assigned twice",
        ),
        (
            "REPLAY QUARANTINE t SET a = rank() OVER ()",
            "a value of SET cannot hold a window function",
        ),
        (
            "REPLAY QUARANTINE t WHERE rank() OVER () = 1",
            "the predicate of REPLAY QUARANTINE cannot hold a window function",
        ),
        (
            "REPLAY QUARANTINE t WHERE a = ?",
            "REPLAY QUARANTINE cannot hold a parameter",
        ),
        (
            "REPLAY QUARANTINE t VERSION AS OF 3",
            "a version clause cannot stand on the table that is written",
        ),
        (
            "PREPARE p AS REPLAY QUARANTINE t",
            "PREPARE takes a query, INSERT, UPDATE, DELETE, MERGE or TRUNCATE",
        ),
        ("SUGGEST t", "expected CONSTRAINTS, found t"),
        ("SUGGEST CONSTRAINTS t", "expected FOR, found t"),
        (
            "SUGGEST CONSTRAINTS FOR t VERSION AS OF 3",
            "expected the end of the statement, found VERSION",
        ),
        (
            "ALTER TABLE t ENABLE CONSTRAINT",
            "expected a name, found the end of the statement",
        ),
    ] {
        message(sql, words);
    }
    unsupported("CHECK TABLE IF EXISTS t", "IF EXISTS");
    unsupported("REPLAY QUARANTINE ONLY t", "ONLY");
    invalid("CHECK TABLE t VERSION AS OF -1", "found -");
    assert_eq!(
        error("SUGEST CONSTRAINTS FOR t").hint(),
        Some("did you mean SUGGEST?")
    );
    assert_eq!(error("CHEK TABLE t").hint(), Some("did you mean CHECK?"));
}
