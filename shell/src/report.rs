//! The account of a write, as short lines for a person.

use selvedge_engine::{HookReport, OnViolation, RuleKind, RuleOutcome, RuleResult, WriteReport};

use crate::figures::{bytes, count, duration, thousands};

/// One line for the write, one for each hook the rows met, and one for each rule that did not simply hold.
pub(crate) fn text(report: &WriteReport) -> String {
    let mut text = format!("{} {}: {}", verb(report), report.table, facts(report));
    for hook in &report.hooks {
        text.push_str("\n  ");
        text.push_str(&hook_line(hook));
    }
    for line in rule_lines(&report.rules) {
        text.push_str("\n  ");
        text.push_str(line.trim_end());
    }
    text
}

/// What rules say, in columns: the rule, what it does, how much, and what it met.
fn rule_lines(results: &[RuleResult]) -> Vec<String> {
    let told: Vec<_> = results
        .iter()
        .filter(|result| result.outcome != RuleOutcome::Passed)
        .map(|result| {
            let how_much = match (result.outcome, result.kind) {
                (RuleOutcome::Unknown, _) => "unknown".to_owned(),
                (_, RuleKind::Metric) => "violated".to_owned(),
                _ => count(result.violations, "row"),
            };
            (result, action(result.action), how_much, met(result))
        })
        .collect();
    let widest = |width: &dyn Fn(usize) -> usize| (0..told.len()).map(width).max().unwrap_or(0);
    let name = widest(&|at| told[at].0.rule.chars().count());
    let action = widest(&|at| told[at].1.len());
    let how_much = widest(&|at| told[at].2.chars().count());
    told.iter()
        .map(|(result, does, amount, met)| {
            let rule = &result.rule;
            format!("{rule:name$}  {does:action$}  {amount:>how_much$}  {met}")
        })
        .collect()
}

fn action(action: OnViolation) -> &'static str {
    match action {
        OnViolation::Warn => "warns",
        OnViolation::DropRow => "drops",
        OnViolation::QuarantineRow => "quarantines",
        OnViolation::Fail => "fails",
    }
}

/// The partition, the numbers or the first row that a rule met.
fn met(result: &RuleResult) -> String {
    let partition = result.partition.iter().flatten();
    let partition = partition.map(|(column, value)| match value {
        Some(value) => format!("{column} = {value}"),
        None => format!("{column} = NULL"),
    });
    let numbers = result.observed.iter().chain(&result.threshold).cloned();
    let sample = result.sample.first().cloned();
    let met: Vec<String> = partition.chain(numbers).chain(sample).collect();
    met.join(", ")
}

/// The Delta log calls every plain insert WRITE; the user has typed INSERT.
fn verb(report: &WriteReport) -> &str {
    match report.operation.as_str() {
        "WRITE" => "INSERT",
        other => other,
    }
}

fn facts(report: &WriteReport) -> String {
    let mut facts = rows(report);
    match report.version {
        Some(version) => facts.push(format!("version {version}")),
        None => facts.push("no new version".into()),
    }
    if report.files_added > 0 {
        facts.push(count(report.files_added, "file"));
        facts.push(bytes(report.bytes_written));
    }
    facts.push(duration(std::time::Duration::from_millis(
        report.duration_ms,
    )));
    facts.join(", ")
}

/// What became of rows: of a statement that changes them each kind of change, else how many came and went; then
/// those that rules left out.
fn rows(report: &WriteReport) -> Vec<String> {
    let told = |of: &[(u64, &str)]| -> Vec<String> {
        of.iter()
            .filter(|(rows, _)| *rows > 0)
            .map(|(rows, what)| format!("{} {what}", count(*rows, "row")))
            .collect()
    };
    let mut facts = told(&[
        (report.rows_inserted, "inserted"),
        (report.rows_updated, "updated"),
        (report.rows_deleted, "deleted"),
    ]);
    // Of a journal, how many rows it has is not how many were taken.
    let journal = report.rows_accepted > 0;
    if facts.is_empty() {
        let taken = match journal {
            true => report.rows_accepted,
            false => report.rows_written,
        };
        facts.push(if taken == report.rows_received {
            count(taken, "row")
        } else {
            let received = count(report.rows_received, "row");
            format!("{} of {received}", thousands(taken))
        });
        if !journal {
            facts.extend(told(&[(report.rows_removed, "removed")]));
        }
    }
    facts.extend(
        [
            (report.intervals_opened, "opened"),
            (report.intervals_closed, "closed"),
            (report.intervals_updated, "changed"),
            (report.rows_unchanged, "unchanged"),
            (report.rows_late, "late"),
        ]
        .into_iter()
        .filter(|(many, _)| *many > 0)
        .map(|(many, what)| format!("{} {what}", thousands(many))),
    );
    facts.extend(told(&[
        (report.rows_dropped, "dropped"),
        (report.rows_erased, "erased"),
        (report.rows_quarantined, "quarantined"),
    ]));
    facts
}

fn hook_line(hook: &HookReport) -> String {
    let mut line = format!("{}: {}", hook.hook, count(hook.rows_in, "row"));
    if hook.rows_out != hook.rows_in {
        line.push_str(&format!(", {} passed", thousands(hook.rows_out)));
    }
    for (name, value) in &hook.counters {
        line.push_str(&format!(", {name} {}", thousands(*value)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> WriteReport {
        let mut report = WriteReport::default();
        report.table = "shop.orders".into();
        report.operation = "WRITE".into();
        report.version = Some(7);
        report.rows_received = 1234;
        report.rows_written = 1234;
        report.files_added = 2;
        report.bytes_written = 35_140;
        report.duration_ms = 12;
        report
    }

    #[test]
    fn a_plain_insert_is_one_line() {
        assert_eq!(
            text(&report()),
            "INSERT shop.orders: 1,234 rows, version 7, 2 files, 35.1 KB, 12 ms"
        );
    }

    #[test]
    fn rows_that_a_hook_dropped_and_an_overwrite_removed_are_named() {
        let mut report = report();
        report.rows_written = 1200;
        report.rows_removed = 1;
        report.hooks = vec![HookReport {
            hook: "validate".into(),
            rows_in: 1234,
            rows_out: 1200,
            counters: vec![("casts".into(), 5000)],
        }];
        assert_eq!(
            text(&report),
            "INSERT shop.orders: 1,200 of 1,234 rows, 1 row removed, version 7, 2 files, 35.1 KB, 12 ms\n  \
             validate: 1,234 rows, 1,200 passed, casts 5,000"
        );
    }

    #[test]
    fn a_journal_tells_its_intervals() {
        let mut report = report();
        report.rows_accepted = 1230;
        report.rows_erased = 4;
        report.intervals_opened = 1000;
        report.intervals_closed = 900;
        report.rows_unchanged = 100;
        report.rows_removed = 900;
        assert_eq!(
            text(&report),
            "INSERT shop.orders: 1,230 of 1,234 rows, 1,000 opened, 900 closed, 100 unchanged, 4 rows erased, \
             version 7, 2 files, 35.1 KB, 12 ms"
        );
    }

    #[test]
    fn rules_that_do_not_hold_are_a_short_table() {
        let mut report = report();
        report.rows_written = 1232;
        report.rows_quarantined = 2;
        let result = |json: &str| serde_json::from_str(json).unwrap();
        report.rules = vec![
            result(
                r#"{"rule": "positive", "fingerprint": "", "kind": "row", "action": "quarantine_row",
                    "outcome": "violated", "rowsChecked": 1234, "violations": 2, "nulls": 0,
                    "sample": ["id = 17, amount = -5.00"]}"#,
            ),
            result(
                r#"{"rule": "known", "fingerprint": "", "kind": "row", "action": "fail",
                    "outcome": "passed", "rowsChecked": 1234, "violations": 0, "nulls": 0}"#,
            ),
            result(
                r#"{"rule": "steady", "fingerprint": "", "kind": "metric", "action": "warn",
                    "outcome": "unknown", "rowsChecked": 1234, "violations": 0, "nulls": 1,
                    "observed": ["count(*) = 1234"], "threshold": ["previous(count(*)) = NULL"]}"#,
            ),
        ];
        assert_eq!(
            text(&report),
            "INSERT shop.orders: 1,232 of 1,234 rows, 2 rows quarantined, version 7, 2 files, 35.1 KB, 12 ms\n  \
             positive  quarantines   2 rows  id = 17, amount = -5.00\n  \
             steady    warns        unknown  count(*) = 1234, previous(count(*)) = NULL"
        );
    }

    #[test]
    fn a_write_of_nothing_says_so() {
        let mut report = WriteReport::default();
        report.table = "shop.orders".into();
        report.operation = "CREATE TABLE AS SELECT".into();
        assert_eq!(
            text(&report),
            "CREATE TABLE AS SELECT shop.orders: 0 rows, no new version, 0 ms"
        );
    }
}
