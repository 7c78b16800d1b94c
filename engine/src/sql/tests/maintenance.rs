//! What OPTIMIZE, VACUUM, RESTORE and ANALYZE mean, and what they may not say.

use super::super::*;
use super::{error, invalid, of, read, unsupported};

#[test]
fn optimize() {
    let optimize = read!(
        "OPTIMIZE TABLE s.t WHERE ds >= '2026-01-01' AND b IN (1, 2) ZORDER BY (a, \"B\")",
        Optimize
    );
    assert_eq!(optimize.table.to_string(), "s.t");
    assert_eq!(
        optimize.predicate.unwrap().to_string(),
        "ds >= '2026-01-01' AND b IN (1, 2)"
    );
    let columns: Vec<_> = optimize.zorder.iter().map(fold).collect();
    assert_eq!(columns, ["a", "B"]);
    let plain = read!("optimize t;", Optimize);
    assert!(plain.predicate.is_none() && plain.zorder.is_empty());
    assert_eq!(read!("OPTIMIZE table", Optimize).table.to_string(), "table");
}

#[test]
fn vacuum() {
    for (sql, retain_hours, dry_run) in [
        ("VACUUM t", None, false),
        ("VACUUM TABLE t", None, false),
        ("VACUUM t DRY RUN", None, true),
        ("VACUUM t RETAIN 168 HOURS", Some(168.0), false),
        ("VACUUM t RETAIN 0 HOURS DRY RUN", Some(0.0), true),
        ("vacuum t retain 0.5 hours", Some(0.5), false),
        ("VACUUM t RETAIN 1e2 HOURS", Some(100.0), false),
    ] {
        let vacuum = read!(sql, Vacuum);
        assert_eq!(vacuum.table.to_string(), "t", "{sql}");
        assert_eq!(
            (vacuum.retain_hours, vacuum.dry_run),
            (retain_hours, dry_run),
            "{sql}"
        );
    }
}

#[test]
fn restore_and_analyze() {
    for sql in [
        "RESTORE TABLE s.t TO VERSION AS OF 3",
        "RESTORE s.t TO VERSION AS OF 3",
    ] {
        let restore = read!(sql, Restore);
        assert_eq!(restore.table.to_string(), "s.t");
        assert_eq!(restore.to, At::Version(3));
    }
    let restore = read!(
        "RESTORE TABLE t TO TIMESTAMP AS OF now() - INTERVAL '1 day'",
        Restore
    );
    assert!(
        matches!(restore.to, At::Timestamp(instant) if instant.to_string() == "now() - INTERVAL '1 day'")
    );
    for sql in [
        "ANALYZE TABLE t",
        "ANALYZE TABLE t COMPUTE STATISTICS",
        "analyze table t compute statistics for all columns;",
    ] {
        assert!(
            matches!(of(sql), Statement::Analyze { table } if table.to_string() == "t"),
            "{sql}"
        );
    }
}

#[test]
fn clauses_of_other_systems() {
    for (sql, clause) in [
        ("OPTIMIZE t FULL", "OPTIMIZE .. FULL"),
        ("OPTIMIZE TABLE t FINAL", "OPTIMIZE .. FINAL"),
        ("OPTIMIZE TABLE t PARTITION p", "PARTITION"),
        (
            "OPTIMIZE t REWRITE DATA USING BIN_PACK",
            "OPTIMIZE .. REWRITE",
        ),
        ("OPTIMIZE IF EXISTS t", "IF EXISTS"),
        ("VACUUM t FULL", "VACUUM FULL"),
        ("VACUUM FULL t", "VACUUM FULL"),
        ("VACUUM t LITE RETAIN 1 HOURS", "VACUUM LITE"),
        ("VACUUM ANALYZE t", "VACUUM ANALYZE"),
        ("VACUUM t USING INVENTORY u", "VACUUM USING"),
        ("ANALYZE TABLE t COMPUTE STATISTICS NOSCAN", "NOSCAN"),
        (
            "ANALYZE TABLE t PARTITION (ds) COMPUTE STATISTICS",
            "PARTITION",
        ),
        (
            "ANALYZE TABLE t COMPUTE STATISTICS FOR COLUMNS a",
            "FOR COLUMNS",
        ),
        (
            "ANALYZE TABLE t COMPUTE DELTA STATISTICS",
            "DELTA STATISTICS",
        ),
    ] {
        unsupported(sql, clause);
        let error = error(sql);
        assert!(
            error.hint().is_some() && error.position().is_some(),
            "{error}"
        );
    }
}

#[test]
fn statements_that_are_wrong() {
    for (sql, words) in [
        ("OPTIMIZE", "expected a name"),
        ("OPTIMIZE 's3://b/t'", "found the file"),
        ("OPTIMIZE t WHERE", "found the end of the statement"),
        ("OPTIMIZE t WHERE a IN (SELECT 1)", "subquery"),
        ("OPTIMIZE t WHERE a = ?", "parameter"),
        ("OPTIMIZE t WHERE rank() OVER () > 1", "window function"),
        ("OPTIMIZE t ZORDER BY a", "expected (, found a"),
        ("OPTIMIZE t ZORDER BY ()", "expected a name"),
        ("OPTIMIZE t ZORDER BY (a, A)", "column A is named twice"),
        ("OPTIMIZE t ZORDER BY (a) WHERE b = 1", "found WHERE"),
        ("OPTIMIZE t VERSION AS OF 3", "version clause"),
        ("OPTIMIZE t, u", "found ,"),
        ("VACUUM", "expected a name"),
        ("VACUUM (FULL) t", "expected a name"),
        ("VACUUM t RETAIN HOURS", "HOURS is not a number of hours"),
        ("VACUUM t RETAIN 7 DAYS", "expected HOURS, found DAYS"),
        ("VACUUM t RETAIN -1 HOURS", "-1 is not a number of hours"),
        (
            "VACUUM t RETAIN 1e999 HOURS",
            "1e999 is not a number of hours",
        ),
        ("VACUUM t RETAIN nan HOURS", "nan is not a number of hours"),
        ("VACUUM t RETAIN ? HOURS", "expected a quoted string"),
        ("VACUUM t DRY", "found DRY"),
        ("VACUUM t DRY RUN RETAIN 3 HOURS", "found RETAIN"),
        ("VACUUM t AT (VERSION => 3)", "version clause"),
        ("RESTORE TABLE t", "expected TO"),
        (
            "RESTORE TABLE t TO 3",
            "expected VERSION AS OF or TIMESTAMP AS OF",
        ),
        ("RESTORE TABLE t VERSION AS OF 3", "expected TO"),
        ("RESTORE TABLE t TO VERSION AS OF -1", "-1 is not a version"),
        ("RESTORE TABLE t TO VERSION AS OF ?", "is not a version"),
        ("RESTORE TABLE t TO TIMESTAMP AS OF NULL", "cannot be NULL"),
        (
            "RESTORE TABLE t TO TIMESTAMP AS OF a",
            "cannot hold the column a",
        ),
        ("RESTORE TABLE t TO TIMESTAMP AS OF (SELECT 1)", "subquery"),
        ("RESTORE TABLE t TO TIMESTAMP AS OF ?", "parameter"),
        ("ANALYZE t", "expected TABLE, found t"),
        ("ANALYZE TABLE t COMPUTE", "expected STATISTICS"),
        (
            "ANALYZE TABLE t COMPUTE STATISTICS FOR a",
            "expected ALL COLUMNS",
        ),
        ("ANALYZE TABLE t VERSION AS OF 3", "version clause"),
    ] {
        invalid(sql, words);
    }
    assert_eq!(error("OPTIMISE t").hint(), Some("did you mean OPTIMIZE?"));
    assert_eq!(
        error("UPDTE t SET a = 1").hint(),
        Some("did you mean UPDATE?")
    );
}
