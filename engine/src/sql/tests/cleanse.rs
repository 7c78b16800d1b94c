//! What cleanse policies and the statements about them mean, and what they may not say.

use super::super::*;
use super::{error, message, of, read, unsupported};
use crate::cleanse::policy::{Columns, Policy, PolicyAction, PolicyScope};
use crate::error::{Error, ErrorKind};

fn created(definition: &str) -> Policy {
    let create = read!(
        &format!("CREATE CLEANSE POLICY p ON s.t {definition}"),
        CreatePolicy
    );
    assert_eq!(create.table.to_string(), "s.t", "{definition}");
    create.policy
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn keys(columns: &[&str], query: &str) -> PolicyScope {
    PolicyScope::Keys {
        columns: names(columns),
        query: query.to_owned(),
    }
}

fn nullify(columns: &[&str]) -> PolicyAction {
    PolicyAction::Nullify {
        columns: Columns::Named(names(columns)),
    }
}

fn nullify_tagged(tag: &str) -> PolicyAction {
    PolicyAction::Nullify {
        columns: Columns::Tagged(tag.to_owned()),
    }
}

fn set(values: &[(&str, &str)]) -> PolicyAction {
    let values = values.iter();
    PolicyAction::Set {
        values: values
            .map(|(column, value)| ((*column).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

#[test]
fn a_policy_says_which_rows_and_what_is_done_to_them() {
    let asked = "SELECT client_id FROM privacy.requests";
    let key = keys(&["client_id"], asked);
    for (definition, scope, action) in [
        (
            "KEY (client_id) IN (SELECT client_id FROM privacy.requests) NULLIFY (email, Phone)",
            key.clone(),
            nullify(&["email", "phone"]),
        ),
        (
            "key (Client_Id) in (select client_id from privacy.requests /* open */) nullify columns tagged PII",
            key.clone(),
            nullify_tagged("pii"),
        ),
        (
            "KEY (client_id) IN (SELECT client_id FROM privacy.requests) DELETE ROWS",
            key,
            PolicyAction::DeleteRows,
        ),
        (
            "KEY (a, \"B\") IN (FROM requests) SET (email = '', born = DATE '1970-01-01', n = -1, x = +2.5, ok = false)",
            keys(&["a", "B"], "SELECT * FROM requests"),
            set(&[
                ("email", "''"),
                ("born", "DATE '1970-01-01'"),
                ("n", "-1"),
                ("x", "+2.5"),
                ("ok", "false"),
            ]),
        ),
        (
            "COLUMNS (email, \"Phone\") NULLIFY",
            PolicyScope::Every,
            nullify(&["email", "Phone"]),
        ),
        (
            "COLUMNS TAGGED \"pii-direct\" NULLIFY;",
            PolicyScope::Every,
            nullify_tagged("pii-direct"),
        ),
    ] {
        assert_eq!(created(definition), Policy::new("p", scope, action));
    }
}

#[test]
fn policies_are_replaced_dropped_and_switched() {
    for (sql, replaced, name) in [
        (
            "CREATE CLEANSE POLICY Forget ON t COLUMNS (a) NULLIFY",
            false,
            "forget",
        ),
        (
            "create or replace cleanse policy \"For Get\" on t columns (a) nullify",
            true,
            "For Get",
        ),
        (
            "CREATE CLEANSE POLICY on ON t COLUMNS (a) NULLIFY",
            false,
            "on",
        ),
    ] {
        let create = read!(sql, CreatePolicy);
        assert_eq!(create.or_replace, replaced, "{sql}");
        assert_eq!(create.policy.name, name);
        assert!(create.policy.enabled);
    }
    for (sql, missing) in [
        ("DROP CLEANSE POLICY P ON s.t", false),
        ("drop cleanse policy if exists p on s.t;", true),
    ] {
        assert!(
            matches!(of(sql), Statement::DropPolicy { name, table, if_exists }
                if fold(&name) == "p" && table.to_string() == "s.t" && if_exists == missing),
            "{sql}"
        );
    }
    for (sql, on) in [
        ("ALTER CLEANSE POLICY P ON s.t ENABLE", true),
        ("alter cleanse policy p on s.t disable;", false),
    ] {
        assert!(
            matches!(of(sql), Statement::SwitchPolicy { name, table, enabled }
                if fold(&name) == "p" && table.to_string() == "s.t" && enabled == on),
            "{sql}"
        );
    }
}

#[test]
fn policies_are_shown() {
    for (sql, about) in [
        ("SHOW CLEANSE POLICIES", None),
        ("show cleanse policies on s.t;", Some("s.t")),
    ] {
        let Show::Policies { table } = read!(sql, Show) else {
            panic!("{sql}");
        };
        assert_eq!(table.map(|table| table.to_string()).as_deref(), about);
    }
}

#[test]
fn tables_are_cleansed() {
    for (sql, policy, erase, dry_run) in [
        ("CLEANSE TABLE s.t", None, false, false),
        ("cleanse table s.t policy P", Some("p"), false, false),
        ("CLEANSE TABLE s.t ERASE", None, true, false),
        ("CLEANSE TABLE s.t DRY RUN;", None, false, true),
        (
            "CLEANSE TABLE s.t POLICY p ERASE DRY RUN",
            Some("p"),
            true,
            true,
        ),
        (
            "CLEANSE TABLE s.t POLICY p DRY RUN ERASE",
            Some("p"),
            true,
            true,
        ),
        (
            "CLEANSE TABLE s.t ERASE POLICY \"erase\"",
            Some("erase"),
            true,
            false,
        ),
    ] {
        let cleanse = read!(sql, Cleanse);
        assert_eq!(cleanse.table.to_string(), "s.t", "{sql}");
        assert_eq!(cleanse.policy.as_ref().map(fold).as_deref(), policy);
        assert_eq!((cleanse.erase, cleanse.dry_run), (erase, dry_run), "{sql}");
    }
    // It is no change of rows that could be explained or prepared.
    assert!(of("CLEANSE TABLE t").changed_table().is_none());
    for (sql, words) in [
        (
            "EXPLAIN CLEANSE TABLE t",
            "EXPLAIN takes a query or a write",
        ),
        (
            "EXPLAIN QUALITY CLEANSE TABLE t",
            "EXPLAIN QUALITY takes a statement that writes rows",
        ),
        (
            "PREPARE c AS CLEANSE TABLE t",
            "PREPARE takes a query, INSERT, UPDATE, DELETE, MERGE or TRUNCATE",
        ),
    ] {
        message(sql, words);
    }
}

#[test]
fn erasure_is_verified() {
    for (sql, of_policy) in [
        ("VERIFY ERASURE OF s.t", None),
        ("verify erasure of table s.t policy P;", Some("p")),
    ] {
        let Statement::VerifyErasure { table, policy } = of(sql) else {
            panic!("{sql}");
        };
        assert_eq!(table.to_string(), "s.t");
        assert_eq!(policy.as_ref().map(fold).as_deref(), of_policy, "{sql}");
    }
}

#[test]
fn columns_are_tagged() {
    let change = |clause: &str| match of(&format!("ALTER TABLE t ALTER COLUMN c {clause}")) {
        Statement::AlterTable {
            action: AlterAction::AlterColumn { change, .. },
            ..
        } => change,
        other => panic!("{clause}\n{other:?}"),
    };
    assert!(matches!(change("SET TAG pii"), ColumnChange::SetTag(tag) if tag == "pii"));
    // A tag in capitals must not hide a column from what looks for the other.
    assert!(matches!(change("set tag \"PII\""), ColumnChange::SetTag(tag) if tag == "pii"));
    assert!(matches!(change("UNSET TAG Tag"), ColumnChange::UnsetTag(tag) if tag == "tag"));
    let sql = |clause: &str| format!("ALTER TABLE t ALTER COLUMN c {clause}");
    message(
        &sql("SET TAG"),
        "expected a name, found the end of the statement",
    );
    message(&sql("SET TAG \"a, b\""), "'a, b' is not a tag");
    message(&sql("UNSET TAG \"\""), "'' is not a tag");
    message(
        &sql("SET TAG pii = 'x'"),
        "expected the end of the statement, found =",
    );
    unsupported(&sql("SET TAGS ('a' = 'b')"), "ALTER COLUMN .. TAGS");
}

#[test]
fn the_clause_of_a_policy_makes_it_again() {
    for clause in [
        "KEY (client_id) IN (SELECT client_id FROM privacy.requests) NULLIFY (email, \"name\", \"E Mail\")",
        "KEY (a, \"B\") IN (SELECT x, y FROM privacy.\"Requests\" AS r WHERE r.due < now() UNION ALL SELECT x, y FROM old) DELETE ROWS",
        "KEY (a) IN (WITH r AS (SELECT x FROM asked) SELECT x FROM r) SET (\"name\" = 'it''s', born = DATE '1970-01-01', n = -1)",
        "KEY (a) IN (SELECT x FROM asked LIMIT 3) NULLIFY COLUMNS TAGGED pii",
        "COLUMNS (email, phone) NULLIFY",
        "COLUMNS TAGGED \"pii-direct\" NULLIFY",
    ] {
        let policy = created(clause);
        assert_eq!(created(&policy_clause(&policy)), policy);
    }
    // Nothing but spelling is lost on the way.
    for (typed, clause) in [
        (
            "KEY (A) IN (SELECT x FROM asked FETCH FIRST 3 ROWS ONLY) SET (c = 'x', b = 1)",
            "KEY (a) IN (SELECT x FROM asked LIMIT 3) SET (b = 1, c = 'x')",
        ),
        (
            "KEY (a) IN (FROM asked) NULLIFY COLUMNS TAGGED Pii",
            "KEY (a) IN (SELECT * FROM asked) NULLIFY COLUMNS TAGGED pii",
        ),
        ("COLUMNS (\"a\", B) NULLIFY", "COLUMNS (a, b) NULLIFY"),
    ] {
        assert_eq!(policy_clause(&created(typed)), clause);
    }
}

#[test]
fn tables_of_keys_are_named_in_full() {
    let mut query = parse_keys(
        "WITH fresh AS (SELECT * FROM asked) SELECT asked.k FROM asked JOIN fresh ON asked.k = fresh.k WHERE asked.k NOT IN (SELECT k FROM lake.Kept.fresh)",
    )
    .unwrap();
    let mut found = vec![];
    name_tables(&mut query, |name| {
        found.push(name.to_string());
        let table = folded(name).pop().unwrap_or_default();
        Ok(("Privacy".to_owned(), table))
    })
    .unwrap();
    assert_eq!(found, ["asked", "asked", "lake.Kept.fresh"]);
    assert_eq!(
        query.to_string(),
        "WITH fresh AS (SELECT * FROM \"Privacy\".asked) SELECT asked.k FROM \"Privacy\".asked JOIN fresh ON asked.k = fresh.k WHERE asked.k NOT IN (SELECT k FROM \"Privacy\".fresh)"
    );
    let refused = name_tables(&mut query, |name| {
        Err(Error::invalid(format!("no table {name}")))
    });
    assert_eq!(refused.unwrap_err().message(), "no table \"Privacy\".asked");
    for (text, words) in [
        ("", "expected SELECT, found the end of the statement"),
        (
            "SELECT a FROM t; SELECT b FROM t",
            "expected the end of the query, found ;",
        ),
        (
            "SELECT a FROM t WHERE b = $1",
            "a policy cannot hold a parameter",
        ),
    ] {
        assert_eq!(parse_keys(text).unwrap_err().message(), words, "{text}");
    }
}

#[test]
fn words_of_policies_name_other_things_too() {
    for sql in [
        "SELECT cleanse, verify, policy, tag, erase, nullify FROM cleanse AS verify",
        "SELECT cleanse(policy) FROM verify JOIN policies ON erase = tagged",
        "CREATE TABLE cleanse (policy INT, tag TEXT, erase INT, nullify INT, tagged INT)",
        "ALTER TABLE cleanse ADD COLUMN tag TEXT",
        "CLEANSE TABLE policy POLICY policy",
        "CLEANSE TABLE erase",
        "VERIFY ERASURE OF erasure POLICY erase",
        "CREATE CLEANSE POLICY policy ON policy COLUMNS (columns, tagged, nullify) NULLIFY",
        "SHOW cleanse",
        "DESCRIBE \"t$policies\"",
    ] {
        of(sql);
    }
}

#[test]
fn policies_that_are_wrong() {
    const KEY: &str = "KEY (a) IN (SELECT k FROM r)";
    for (definition, words) in [
        (
            String::new(),
            "expected KEY or COLUMNS, found the end of the statement",
        ),
        (
            "NULLIFY (a)".to_owned(),
            "expected KEY or COLUMNS, found NULLIFY",
        ),
        (
            "KEY a IN (SELECT k FROM r)".to_owned(),
            "expected (, found a",
        ),
        (
            "KEY () IN (SELECT k FROM r)".to_owned(),
            "expected a name, found )",
        ),
        (
            "KEY (a, A) IN (SELECT k, l FROM r)".to_owned(),
            "column A is named twice",
        ),
        (
            "KEY (a) NOT IN (SELECT k FROM r) DELETE ROWS".to_owned(),
            "expected IN, found NOT",
        ),
        ("KEY (a) IN r DELETE ROWS".to_owned(), "expected (, found r"),
        (
            "KEY (a) IN (1, 2) DELETE ROWS".to_owned(),
            "expected SELECT, found 1",
        ),
        (
            "KEY (a) IN (VALUES (1)) DELETE ROWS".to_owned(),
            "expected SELECT, found VALUES",
        ),
        (
            "KEY (a) IN (SELECT 1) DELETE ROWS".to_owned(),
            "the keys of a policy come from no table",
        ),
        (
            "KEY (a) IN (WITH r AS (SELECT 1 AS k) SELECT k FROM r) DELETE ROWS".to_owned(),
            "the keys of a policy come from no table",
        ),
        (
            "KEY (a) IN (SELECT k FROM r VERSION AS OF 3) DELETE ROWS".to_owned(),
            "the keys of a policy cannot have a version",
        ),
        (
            "KEY (a) IN (SELECT k FROM r WHERE l = ?) DELETE ROWS".to_owned(),
            "a policy cannot hold a parameter",
        ),
        (
            "KEY (a) IN (SELECT k FROM r".to_owned(),
            "expected ), found the end of the statement",
        ),
        (
            KEY.to_owned(),
            "expected NULLIFY, SET or DELETE ROWS, found the end of the statement",
        ),
        (format!("{KEY} NULLIFY a"), "expected (, found a"),
        (format!("{KEY} NULLIFY (a, a)"), "column a is named twice"),
        (
            format!("{KEY} NULLIFY COLUMNS (a)"),
            "expected TAGGED, found (",
        ),
        (format!("{KEY} SET a = 1"), "expected (, found a"),
        (format!("{KEY} SET (a = 1, A = 2)"), "column A is set twice"),
        (
            format!("{KEY} SET (a = NULL)"),
            "SET takes no NULL for column a",
        ),
        (
            format!("{KEY} SET (a = lower(b))"),
            "lower(b) is not a literal",
        ),
        (format!("{KEY} SET (a = b)"), "b is not a literal"),
        (format!("{KEY} SET (a = -b)"), "-b is not a literal"),
        (
            format!("{KEY} SET (a = ?)"),
            "a policy cannot hold a parameter",
        ),
        (
            format!("{KEY} NULLIFY (a) SET (b = 1)"),
            "a policy does one thing to its rows",
        ),
        (
            format!("{KEY} DELETE ROWS WHERE a > 0"),
            "expected the end of the statement, found WHERE",
        ),
        (
            "COLUMNS (a) SET (a = 1)".to_owned(),
            "expected NULLIFY, found SET",
        ),
        (
            "COLUMNS (a) DELETE ROWS".to_owned(),
            "expected NULLIFY, found DELETE",
        ),
        ("COLUMNS a NULLIFY".to_owned(), "expected (, found a"),
        (
            "COLUMNS TAGGED (pii) NULLIFY".to_owned(),
            "expected a name, found (",
        ),
        (
            "COLUMNS (a) NULLIFY (a)".to_owned(),
            "expected the end of the statement, found (",
        ),
    ] {
        let error = message(&format!("CREATE CLEANSE POLICY p ON t {definition}"), words);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{definition}");
    }
}

#[test]
fn policies_that_are_not_kept() {
    for (definition, words) in [
        (
            "KEY (t.a) IN (SELECT k FROM r) DELETE ROWS",
            "a field of a column in a policy is not supported",
        ),
        (
            "COLUMNS (s.a) NULLIFY",
            "a field of a column in a policy is not supported",
        ),
        (
            "KEY (a) IN (SELECT k FROM range(1, 3) AS r (k)) DELETE ROWS",
            "the table function range in the keys of a policy is not supported",
        ),
        (
            "KEY (a) IN (SELECT k FROM table_changes('r', 3)) DELETE ROWS",
            "the table function table_changes in the keys of a policy is not supported",
        ),
        (
            "KEY (a) IN (SELECT k FROM 'r.csv') DELETE ROWS",
            "the file 'r.csv' in the keys of a policy is not supported",
        ),
        // Clauses of a query are refused here as everywhere.
        (
            "KEY (a) IN (SELECT TOP 3 k FROM r) DELETE ROWS",
            "TOP is not supported",
        ),
    ] {
        let error = message(&format!("CREATE CLEANSE POLICY p ON t {definition}"), words);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{definition}");
    }
}

#[test]
fn near_actions_are_suggested() {
    for (action, near) in [
        ("NULIFY (b)", Some("NULLIFY")),
        ("DELETE", Some("DELETE ROWS")),
        ("DELETE ROW", Some("DELETE ROWS")),
        ("ERASE", None),
    ] {
        let sql = format!("CREATE CLEANSE POLICY p ON t KEY (a) IN (SELECT k FROM r) {action}");
        let error = error(&sql);
        let hint = near.map(|near| format!("did you mean {near}?"));
        assert_eq!(error.hint(), hint.as_deref(), "{action}");
    }
    for (sql, hint) in [
        ("CLENSE TABLE t", "did you mean CLEANSE?"),
        ("VERFY ERASURE OF t", "did you mean VERIFY?"),
        (
            "CREATE CLENSE POLICY p ON t COLUMNS (a) NULLIFY",
            "did you mean CLEANSE?",
        ),
        (
            "CREATE POLICY p ON t",
            "CREATE CLEANSE POLICY name ON t says what t must forget",
        ),
        (
            "CREATE CLEANSE POLICY p ON t KEY (a) IN (SELECT k FROM r) SET (b = NULL)",
            "NULLIFY (b) makes it NULL",
        ),
    ] {
        assert_eq!(error(sql).hint(), Some(hint), "{sql}");
    }
}

#[test]
fn statements_about_policies_that_are_wrong() {
    for (sql, words) in [
        ("CREATE CLEANSE p ON t", "expected POLICY, found p"),
        (
            "CREATE CLEANSE POLICY ON t COLUMNS (a) NULLIFY",
            "the policy has no name",
        ),
        (
            "CREATE CLEANSE POLICY p COLUMNS (a) NULLIFY",
            "expected ON and a table, found COLUMNS",
        ),
        (
            "CREATE CLEANSE POLICY p ON t VERSION AS OF 3 COLUMNS (a) NULLIFY",
            "a version clause cannot stand on the table that is written",
        ),
        (
            "CREATE CLEANSE POLICY p ON a.b.c.d COLUMNS (a) NULLIFY",
            "the name a.b.c.d has more than three parts",
        ),
        (
            "DROP CLEANSE POLICY p",
            "expected ON and a table, found the end of the statement",
        ),
        ("DROP CLEANSE POLICY ON t", "the policy has no name"),
        (
            "DROP CLEANSE POLICY p ON t CASCADE",
            "expected the end of the statement, found CASCADE",
        ),
        ("ALTER CLEANSE TABLE t", "expected POLICY, found TABLE"),
        (
            "ALTER CLEANSE POLICY p ON t",
            "expected ENABLE or DISABLE, found the end of the statement",
        ),
        (
            "ALTER CLEANSE POLICY p ON t RENAME TO q",
            "expected ENABLE or DISABLE, found RENAME",
        ),
        ("SHOW CLEANSE POLICY", "expected POLICIES, found POLICY"),
        (
            "SHOW CLEANSE POLICIES FROM t",
            "expected ON and a table, found FROM",
        ),
        (
            "SHOW CLEANSE POLICIES ON",
            "expected a name, found the end of the statement",
        ),
        ("CLEANSE t", "expected TABLE, found t"),
        (
            "CLEANSE TABLE",
            "expected a name, found the end of the statement",
        ),
        (
            "CLEANSE TABLE t POLICY",
            "expected a name, found the end of the statement",
        ),
        ("CLEANSE TABLE t POLICY p POLICY q", "POLICY is given twice"),
        (
            "CLEANSE TABLE t POLICY p, q",
            "expected the end of the statement, found ,",
        ),
        (
            "CLEANSE TABLE t ERASE DRY RUN ERASE",
            "ERASE is given twice",
        ),
        (
            "CLEANSE TABLE t DRY",
            "expected the end of the statement, found DRY",
        ),
        ("CLEANSE TABLE t DRY RUN DRY RUN", "DRY RUN is given twice"),
        (
            "CLEANSE TABLE t VERSION AS OF 3",
            "a version clause cannot stand on the table that is written",
        ),
        ("VERIFY TABLE t", "expected ERASURE, found TABLE"),
        ("VERIFY ERASURE t", "expected OF, found t"),
        (
            "VERIFY ERASURE OF t p",
            "expected the end of the statement, found p",
        ),
        (
            "VERIFY ERASURE OF t VERSION AS OF 3",
            "expected the end of the statement, found VERSION",
        ),
    ] {
        let error = message(sql, words);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}");
    }
    unsupported(
        "CREATE CLEANSE POLICY IF NOT EXISTS p ON t COLUMNS (a) NULLIFY",
        "CREATE CLEANSE POLICY IF NOT EXISTS",
    );
    unsupported("CLEANSE TABLE IF EXISTS t", "IF EXISTS");
    unsupported("CLEANSE TABLE t WHERE a > 0", "CLEANSE TABLE .. WHERE");
    unsupported("CREATE POLICY p ON t", "CREATE POLICY");
}
