//! What MERGE means, and what it may not say.

use datafusion::sql::sqlparser::ast::TableFactor;

use super::super::*;
use super::{error, invalid, of, read, unsupported};

/// A MERGE with these WHEN clauses.
fn with(clauses: &str) -> String {
    format!("MERGE INTO t USING s ON t.k = s.k {clauses}")
}

fn actions(clauses: &str) -> Vec<(MergeWhen, Option<String>, MergeAction)> {
    let merge = read!(&with(clauses), Merge);
    let clauses = merge.clauses.into_iter().map(|clause| {
        let condition = clause.condition.map(|condition| condition.to_string());
        (clause.when, condition, clause.action)
    });
    clauses.collect()
}

#[test]
fn merges() {
    let merge = read!(
        "MERGE INTO shop.t AS o USING u VERSION AS OF 3 AS s ON o.k = s.k AND o.ds > ?
         WHEN MATCHED AND s.gone THEN DELETE
         WHEN MATCHED THEN UPDATE SET o.a = s.a, b = DEFAULT, t.c = o.c + 1
         WHEN NOT MATCHED BY TARGET AND s.a > 1 THEN INSERT (k, o.a, b) VALUES (s.k, s.a, DEFAULT)
         WHEN NOT MATCHED THEN INSERT *
         WHEN NOT MATCHED BY SOURCE AND o.a IS NULL THEN DELETE
         WHEN NOT MATCHED BY SOURCE THEN UPDATE SET a = NULL;",
        Merge
    );
    assert_eq!(merge.table.to_string(), "shop.t");
    assert_eq!(merge.alias.as_ref().map(fold).as_deref(), Some("o"));
    assert_eq!(merge.on.to_string(), "o.k = s.k AND o.ds > $1");
    assert_eq!(merge.source.to_string(), "u AS s VERSION AS OF 3");
    let whens: Vec<_> = merge.clauses.iter().map(|clause| clause.when).collect();
    use MergeWhen::{Matched, NotMatched, NotMatchedBySource};
    assert_eq!(
        whens,
        [
            Matched,
            Matched,
            NotMatched,
            NotMatched,
            NotMatchedBySource,
            NotMatchedBySource
        ]
    );
    let conditions: Vec<_> = merge
        .clauses
        .iter()
        .map(|clause| clause.condition.as_ref().map(ToString::to_string))
        .collect();
    let wanted = [
        Some("s.gone"),
        None,
        Some("s.a > 1"),
        None,
        Some("o.a IS NULL"),
        None,
    ];
    assert_eq!(conditions, wanted.map(|text| text.map(str::to_owned)));
    let MergeAction::Update(assignments) = &merge.clauses[1].action else {
        panic!("{merge:?}");
    };
    let columns: Vec<_> = assignments.iter().map(|a| fold(&a.column)).collect();
    assert_eq!(columns, ["a", "b", "c"]);
    assert!(assignments[1].value.is_none());
    let MergeAction::Insert { columns, values } = &merge.clauses[2].action else {
        panic!("{merge:?}");
    };
    assert_eq!(
        columns.iter().map(fold).collect::<Vec<_>>(),
        ["k", "a", "b"]
    );
    assert!(values[0].is_some() && values[2].is_none());
    assert!(matches!(merge.clauses[3].action, MergeAction::InsertAll));
}

#[test]
fn actions_of_each_kind() {
    let read = actions(
        "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT VALUES (s.k, CASE WHEN s.a THEN 1 ELSE 2 END)",
    );
    assert!(matches!(read[0].2, MergeAction::UpdateAll));
    assert!(
        matches!(&read[1].2, MergeAction::Insert { columns, values } if columns.is_empty() && values.len() == 2)
    );
    let read = actions(
        "WHEN MATCHED THEN UPDATE SET a = CASE WHEN x THEN 1 END WHEN NOT MATCHED THEN INSERT *",
    );
    assert_eq!(read.len(), 2);
    let read = actions("WHEN MATCHED AND CASE WHEN a THEN b END AND c THEN DELETE");
    assert_eq!(read[0].1.as_deref(), Some("CASE WHEN a THEN b END AND c"));
    // Conditions may follow one another.
    let many = "WHEN MATCHED AND s.a = 1 THEN DELETE ".repeat(1000);
    assert_eq!(actions(&many).len(), 1000);
}

#[test]
fn sources() {
    for source in [
        "s",
        "s x",
        "a.s AS x",
        "s FOR VERSION AS OF 3",
        "s TIMESTAMP AS OF now() - INTERVAL '1 day' AS x",
        "s AT (VERSION => 3)",
        "(SELECT * FROM a JOIN b USING (k)) AS x",
        "(WITH c AS (SELECT 1) SELECT * FROM c) x (a)",
        "(VALUES (1, 'a'), (2, 'b')) AS x (k, v)",
        "VALUES (1, 'a') AS x (k, v)",
        "generate_series(1, 3)",
        "generate_series(1, 3) AS x (k)",
        "'new/*.parquet' AS x",
    ] {
        let sql = format!("MERGE INTO t USING {source} ON true WHEN MATCHED THEN DELETE");
        let merge = read!(&sql, Merge);
        assert!(
            matches!(
                merge.source,
                TableFactor::Table { .. } | TableFactor::Derived { .. }
            ),
            "{sql}"
        );
    }
    for source in ["(SELECT 1)", "(VALUES (1))"] {
        let sql = format!("MERGE INTO t USING {source} ON true WHEN MATCHED THEN DELETE");
        invalid(&sql, "needs an alias");
        assert_eq!(error(&sql).position().unwrap().column, 20, "{sql}");
    }
    for (source, clause) in [
        ("a JOIN b ON true", "a join as the source"),
        ("(a JOIN b ON true)", "a join as the source"),
        ("a, b", "a join as the source"),
        ("LATERAL (SELECT 1) AS x", "LATERAL"),
        ("LATERAL f(1) AS x", "LATERAL"),
        ("s TABLESAMPLE (10)", "TABLESAMPLE"),
        ("s PIVOT (max(a) FOR b IN (1))", "PIVOT"),
        ("TABLE(f(1))", "TABLE (..)"),
        ("s WITH (NOLOCK)", "WITH (hints)"),
        ("s AS x (a INT)", "type in a list of column aliases"),
    ] {
        unsupported(
            &format!("MERGE INTO t USING {source} ON true WHEN MATCHED THEN DELETE"),
            clause,
        );
    }
}

#[test]
fn clauses_of_other_systems() {
    for (sql, clause) in [
        (
            "MERGE WITH SCHEMA EVOLUTION INTO t USING s ON true WHEN MATCHED THEN DELETE",
            "WITH SCHEMA EVOLUTION",
        ),
        ("MERGE TOP (3) INTO t USING s ON true", "MERGE TOP"),
        ("MERGE INTO ONLY t USING s ON true", "ONLY"),
        ("MERGE INTO t PARTITION (p) USING s ON true", "PARTITION"),
    ] {
        unsupported(sql, clause);
        assert!(error(sql).hint().is_some(), "{sql}");
    }
    for (clauses, clause) in [
        ("WHEN MATCHED THEN DO NOTHING", "DO NOTHING"),
        ("WHEN NOT MATCHED THEN DO NOTHING", "DO NOTHING"),
        (
            "WHEN MATCHED THEN DELETE OUTPUT deleted.a",
            "MERGE .. OUTPUT",
        ),
        (
            "WHEN MATCHED THEN DELETE RETURNING t.a",
            "MERGE .. RETURNING",
        ),
        (
            "WHEN MATCHED THEN UPDATE SET a = 1 WHERE s.b",
            "WHERE after an action",
        ),
        (
            "WHEN MATCHED THEN UPDATE SET a = 1 DELETE WHERE s.b",
            "WHERE after an action",
        ),
        (
            "WHEN NOT MATCHED THEN INSERT (a) VALUES (1) WHERE s.b",
            "WHERE after an action",
        ),
        ("WHEN MATCHED THEN UPDATE SET * EXCEPT (a)", "* EXCEPT"),
        ("WHEN NOT MATCHED THEN INSERT * EXCEPT (a)", "* EXCEPT"),
        ("WHEN NOT MATCHED THEN INSERT ROW", "INSERT ROW"),
        (
            "WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
            "INSERT DEFAULT VALUES",
        ),
        (
            "WHEN NOT MATCHED THEN INSERT VALUES (1), (2)",
            "more than one row",
        ),
        (
            "WHEN MATCHED THEN UPDATE SET (a, b) = (1, 2)",
            "list of columns",
        ),
        ("WHEN MATCHED THEN UPDATE SET a.b = 1", "nested field a.b"),
        ("WHEN MATCHED THEN UPDATE SET s.b = 1", "nested field s.b"),
        (
            "WHEN NOT MATCHED THEN INSERT (a.b) VALUES (1)",
            "nested field a.b",
        ),
    ] {
        let sql = with(clauses);
        unsupported(&sql, clause);
        let error = error(&sql);
        assert!(
            error.hint().is_some() && error.position().is_some(),
            "{error}"
        );
    }
}

#[test]
fn merges_that_are_wrong() {
    for (clauses, words) in [
        ("", "expected WHEN, found the end of the statement"),
        ("WHEN", "expected MATCHED or NOT MATCHED"),
        ("WHEN MATCHED", "expected THEN"),
        ("WHEN MATCHED THEN", "expected UPDATE SET or DELETE"),
        ("WHEN NOT MATCHED THEN", "expected INSERT"),
        ("WHEN MATCHED OR a THEN DELETE", "expected THEN, found OR"),
        (
            "WHEN MATCHED BY SOURCE THEN DELETE",
            "expected THEN, found BY",
        ),
        (
            "WHEN NOT MATCHED BY u THEN DELETE",
            "expected BY TARGET or BY SOURCE",
        ),
        ("WHEN MATCHED THEN INSERT *", "it cannot INSERT"),
        (
            "WHEN NOT MATCHED BY SOURCE THEN INSERT *",
            "no row of the source to INSERT",
        ),
        (
            "WHEN NOT MATCHED BY SOURCE THEN UPDATE SET *",
            "no row of the source for SET *",
        ),
        (
            "WHEN NOT MATCHED THEN DELETE",
            "no row of the table to DELETE",
        ),
        (
            "WHEN NOT MATCHED BY TARGET THEN UPDATE SET *",
            "no row of the table to UPDATE",
        ),
        ("WHEN MATCHED THEN UPDATE a = 1", "expected SET"),
        (
            "WHEN MATCHED THEN UPDATE SET a = 1, t.A = 2",
            "column A is assigned twice",
        ),
        (
            "WHEN NOT MATCHED THEN INSERT (a, \"a\") VALUES (1, 2)",
            "is named twice",
        ),
        (
            "WHEN NOT MATCHED THEN INSERT (a, b) VALUES (1)",
            "names 2 columns, but 1 values",
        ),
        ("WHEN NOT MATCHED THEN INSERT (a)", "expected VALUES"),
        ("WHEN NOT MATCHED THEN INSERT VALUES ()", "expected"),
        (
            "WHEN NOT MATCHED THEN INSERT VALUES (s.*)",
            "expected ), found .",
        ),
        ("WHEN NOT MATCHED THEN INSERT SELECT 1", "expected VALUES"),
        (
            "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT * WHEN MATCHED AND a THEN UPDATE SET *",
            "this WHEN MATCHED is never reached",
        ),
        (
            "WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY TARGET THEN INSERT *",
            "this WHEN NOT MATCHED is never reached",
        ),
        (
            "WHEN NOT MATCHED BY SOURCE THEN DELETE WHEN NOT MATCHED BY SOURCE AND a THEN DELETE",
            "this WHEN NOT MATCHED BY SOURCE is never reached",
        ),
        (
            "WHEN MATCHED AND rank() OVER () > 1 THEN DELETE",
            "window function",
        ),
        (
            "WHEN MATCHED THEN UPDATE SET a = sum(b) OVER ()",
            "window function",
        ),
        (
            "WHEN MATCHED THEN DELETE, WHEN NOT MATCHED THEN INSERT *",
            "found ,",
        ),
    ] {
        invalid(&with(clauses), words);
    }
    for (sql, words) in [
        (
            "MERGE t USING s ON true WHEN MATCHED THEN DELETE",
            "expected INTO",
        ),
        (
            "MERGE INTO t ON true WHEN MATCHED THEN DELETE",
            "expected USING",
        ),
        (
            "MERGE INTO t USING s WHEN MATCHED THEN DELETE",
            "expected ON",
        ),
        (
            "MERGE INTO t VERSION AS OF 3 USING s ON true WHEN MATCHED THEN DELETE",
            "version clause",
        ),
        (
            "MERGE INTO t USING s ON rank() OVER () > 1 WHEN MATCHED THEN DELETE",
            "window function",
        ),
        (
            "WITH c AS (SELECT 1) SELECT * FROM c; MERGE INTO t USING c ON true",
            "more than one statement",
        ),
    ] {
        invalid(sql, words);
    }
    of(&with(
        "WHEN MATCHED THEN DELETE WHEN NOT MATCHED BY SOURCE THEN DELETE",
    ));
}
