//! The account of a write, as short lines for a person.

use selvedge_engine::{HookReport, WriteReport};

use crate::figures::{bytes, count, duration, thousands};

/// One line for the write and one for each hook the rows met.
pub(crate) fn text(report: &WriteReport) -> String {
    let mut text = format!("{} {}: {}", verb(report), report.table, facts(report));
    for hook in &report.hooks {
        text.push_str("\n  ");
        text.push_str(&hook_line(hook));
    }
    text
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

/// What became of rows: of a statement that changes them each kind of change, else how many came and went.
fn rows(report: &WriteReport) -> Vec<String> {
    let changes = [
        (report.rows_inserted, "inserted"),
        (report.rows_updated, "updated"),
        (report.rows_deleted, "deleted"),
    ];
    if changes.iter().any(|(rows, _)| *rows > 0) {
        let changes = changes.iter().filter(|(rows, _)| *rows > 0);
        return changes
            .map(|(rows, what)| format!("{} {what}", count(*rows, "row")))
            .collect();
    }
    let mut facts = vec![if report.rows_written == report.rows_received {
        count(report.rows_written, "row")
    } else {
        let received = count(report.rows_received, "row");
        format!("{} of {received}", thousands(report.rows_written))
    }];
    if report.rows_removed > 0 {
        facts.push(format!("{} removed", count(report.rows_removed, "row")));
    }
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
