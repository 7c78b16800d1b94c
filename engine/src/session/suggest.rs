//! SUGGEST CONSTRAINTS: rules that the writes of the past kept without being asked to, read from their profiles.
//! What they suggest is for people to judge: the past may have been lucky.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::TryStreamExt;

use super::scope::{Opened, Scope};
use super::{constraint, show};
use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::quality::compile::plainest;
use crate::quality::record::MetricValue;
use crate::quality::rule::{OnViolation, Over, PROFILE, Rule};
use crate::sql;
use crate::table::meta::Columns;
use crate::table::records;

/// Writes that are looked at, the newest ones.
const WRITES: usize = 50;

/// Records that are looked through for them: most may be of writes without a profile.
const RECORDS: usize = 1000;

/// Writes from which on something is said of how they differ.
const SEVERAL: usize = 3;

/// Rows from which on different values look like a key, and not like a coincidence.
const ROWS_OF_A_KEY: u64 = 100;

/// The most writes a suggested baseline is the mean of.
const BASELINE: usize = 10;

pub(super) struct Suggestion {
    name: String,
    statement: String,
    reason: String,
}

/// SUGGEST CONSTRAINTS FOR a table. One row per rule.
pub(super) async fn constraints(scope: &Arc<Scope>, table: &ObjectName) -> Result<Answer> {
    let opened = scope.open(table).await?;
    let writes = profiles(&opened).await?;
    if writes.is_empty() {
        let none = Error::invalid(format!(
            "no write of table {} has a profile to suggest constraints from",
            opened.name
        ));
        return Err(match opened.snapshot.property(PROFILE) {
            Some("true") => none.with_hint("each write from now on brings one"),
            _ => none.with_hint(format!(
                "ALTER TABLE {} SET TBLPROPERTIES ('{PROFILE}' = 'true') records one with each write from then on",
                opened.name
            )),
        });
    }
    let kept = constraint::rules(&opened)?;
    let mut taken: Vec<String> = constraint::names(&opened).map(str::to_owned).collect();
    let mut suggestions = Vec::new();
    for (mut rule, reason) in candidates(&opened, &writes) {
        rule.name = free(&taken, &rule.name);
        let columns = opened.columns();
        let partitioned = opened.snapshot.partition_columns();
        let rule = constraint::define(scope, &opened.name, &columns, partitioned, rule).await?;
        if kept.iter().any(|kept| kept.fingerprint == rule.fingerprint) {
            continue;
        }
        suggestions.push(Suggestion {
            statement: format!(
                "ALTER TABLE {}.{} ADD {}",
                sql::quoted(&opened.schema),
                sql::quoted(&opened.table),
                sql::rule_clause(&rule)
            ),
            name: rule.name.clone(),
            reason,
        });
        taken.push(rule.name);
    }
    show::answer(&columns(), &suggestions)
}

/// The columns of SUGGEST CONSTRAINTS.
pub(super) fn columns() -> Columns<Suggestion> {
    Columns::new()
        .text("constraint_name", |one: &Suggestion| Some(one.name.clone()))
        .text("statement", |one| Some(one.statement.clone()))
        .text("reason", |one| Some(one.reason.clone()))
}

/// `name`, or the first of `name_2`, `name_3`, .. that no constraint has.
fn free(taken: &[String], name: &str) -> String {
    let mut free = name.to_owned();
    let mut number = 1;
    while taken.contains(&free) {
        number += 1;
        free = format!("{name}_{number}");
    }
    free
}

/// What one write says of its rows.
#[derive(Debug, Default)]
struct Profile {
    rows: u64,
    columns: BTreeMap<String, Values>,
}

/// What it says of the values of a column.
#[derive(Debug, Default)]
struct Values {
    nulls: Option<u64>,
    distinct: Option<u64>,
    least: Option<String>,
    most: Option<String>,
}

impl Profile {
    /// None for a write without rows, or of which not enough was recorded.
    fn of(metrics: &[MetricValue]) -> Option<Self> {
        let mut profile = Self::default();
        for metric in metrics {
            let Some(value) = &metric.value else { continue };
            if metric.partition.is_some() || metric.over != Over::Written {
                continue;
            }
            let Some(column) = &metric.column else {
                if metric.metric == "count(*)" {
                    profile.rows = value.parse().ok()?;
                }
                continue;
            };
            let values = profile.columns.entry(column.clone()).or_default();
            let name = plainest(column);
            let is = |function: &str| metric.metric == format!("{function}({name})");
            if is("null_count") {
                values.nulls = value.parse().ok();
            } else if is("approx_distinct") {
                values.distinct = value.parse().ok();
            } else if is("min") {
                values.least = Some(value.clone());
            } else if is("max") {
                values.most = Some(value.clone());
            }
        }
        let told = profile
            .columns
            .values()
            .any(|values| values.nulls.is_some());
        (profile.rows > 0 && told).then_some(profile)
    }
}

/// Profiles of the newest writes.
async fn profiles(opened: &Opened) -> Result<Vec<Profile>> {
    let mut records = records::newest_first(&opened.handle.root, opened.snapshot.version);
    let mut profiles = Vec::new();
    for _ in 0..RECORDS {
        match records.try_next().await? {
            Some(record) => profiles.extend(Profile::of(&record.report.metrics)),
            None => break,
        }
        if profiles.len() == WRITES {
            break;
        }
    }
    Ok(profiles)
}

/// Rules that all the writes kept, each with what speaks for it.
fn candidates(opened: &Opened, writes: &[Profile]) -> Vec<(Rule, String)> {
    let mut found = Vec::new();
    for field in opened.columns().fields() {
        let seen = writes.iter();
        let seen = seen.filter_map(|write| Some((write.rows, write.columns.get(field.name())?)));
        let seen: Vec<(u64, &Values)> = seen.collect();
        found.extend(complete(field, &seen));
        found.extend(bounded(field, &seen));
        found.extend(unique(field, &seen));
    }
    found.extend(steady(writes));
    found
}

/// A column in which no value was missing.
fn complete(field: &Field, seen: &[(u64, &Values)]) -> Option<(Rule, String)> {
    if !field.is_nullable() || seen.is_empty() || !full(seen) {
        return None;
    }
    let rows: u64 = seen.iter().map(|(rows, _)| rows).sum();
    Some((
        Rule::new(
            format!("{}_complete", field.name()),
            format!("{} IS NOT NULL", plainest(field.name())),
        ),
        format!("no NULL in {}", told(rows, seen.len())),
    ))
}

fn full(seen: &[(u64, &Values)]) -> bool {
    seen.iter().all(|(_, values)| values.nulls == Some(0))
}

/// Numbers that stayed within bounds.
fn bounded(field: &Field, seen: &[(u64, &Values)]) -> Option<(Rule, String)> {
    if !field.data_type().is_numeric() {
        return None;
    }
    let ranges = seen.iter().filter_map(|(rows, values)| {
        Some((*rows, values.least.as_deref()?, values.most.as_deref()?))
    });
    let ranges: Vec<(u64, &str, &str)> = ranges.collect();
    if ranges.len() < SEVERAL {
        return None;
    }
    let data_type = field.data_type();
    let least = outermost(
        ranges.iter().map(|range| range.1),
        data_type,
        Ordering::Less,
    )?;
    let most = outermost(
        ranges.iter().map(|range| range.2),
        data_type,
        Ordering::Greater,
    )?;
    let rows: u64 = ranges.iter().map(|range| range.0).sum();
    let mut rule = Rule::new(
        format!("{}_bounds", field.name()),
        format!("{} BETWEEN {least} AND {most}", plainest(field.name())),
    );
    rule.on_violation = OnViolation::Warn;
    Some((
        rule,
        format!("from {least} to {most} in {}", told(rows, ranges.len())),
    ))
}

/// The least or the greatest of these numbers, as it was told; None when one is no number.
fn outermost<'a>(
    texts: impl Iterator<Item = &'a str>,
    data_type: &DataType,
    side: Ordering,
) -> Option<&'a str> {
    let mut best: Option<(ScalarValue, &str)> = None;
    for text in texts {
        if !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return None;
        }
        let value = ScalarValue::try_from_string(text.to_owned(), data_type).ok()?;
        let further = match &best {
            Some((known, _)) => value.partial_cmp(known)? == side,
            None => true,
        };
        if further {
            best = Some((value, text));
        }
    }
    best.map(|(_, text)| text)
}

/// A column with about as many values as rows. The values were estimated, hence only a warning.
fn unique(field: &Field, seen: &[(u64, &Values)]) -> Option<(Rule, String)> {
    if field.data_type().is_floating() || !full(seen) {
        return None;
    }
    let rows: u64 = seen.iter().map(|(rows, _)| rows).sum();
    let differ = seen.iter().all(|(rows, values)| {
        // The estimate is within two or three percent.
        let distinct = values.distinct.unwrap_or(0);
        distinct.saturating_mul(100) >= rows.saturating_mul(97)
    });
    if rows < ROWS_OF_A_KEY || !differ {
        return None;
    }
    let mut rule = Rule::new(
        format!("{}_unique", field.name()),
        format!("is_unique({})", plainest(field.name())),
    );
    rule.on_violation = OnViolation::Warn;
    Some((
        rule,
        format!(
            "about as many values as rows in each write of {}",
            told(rows, seen.len())
        ),
    ))
}

/// Writes of about the same size.
fn steady(writes: &[Profile]) -> Option<(Rule, String)> {
    let counts: Vec<u128> = writes.iter().map(|write| write.rows.into()).collect();
    let (least, most) = (counts.iter().min()?, counts.iter().max()?);
    let (sum, many) = (counts.iter().sum::<u128>(), counts.len());
    let near = 2 * least * many as u128 >= sum && most * many as u128 <= 2 * sum;
    if many < SEVERAL || !near {
        return None;
    }
    let baseline = format!("baseline(count(*), {})", many.min(BASELINE));
    let mut rule = Rule::new(
        "steady_rows",
        format!("count(*) BETWEEN 0.5 * {baseline} AND 2 * {baseline}"),
    );
    rule.on_violation = OnViolation::Warn;
    Some((
        rule,
        format!("from {least} to {most} rows in each of {many} writes"),
    ))
}

fn told(rows: u64, writes: usize) -> String {
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    format!(
        "{rows} row{} of {writes} write{}",
        plural(rows),
        plural(writes as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(text: &str, column: Option<&str>, value: &str) -> MetricValue {
        MetricValue {
            metric: text.to_owned(),
            column: column.map(str::to_owned),
            partition: None,
            over: Over::Written,
            value: Some(value.to_owned()),
            exact: true,
        }
    }

    fn write(rows: &str, nulls: &str, distinct: &str, least: &str, most: &str) -> Profile {
        let column = Some("Amount");
        Profile::of(&[
            metric("count(*)", None, rows),
            metric("null_count(\"Amount\")", column, nulls),
            metric("approx_distinct(\"Amount\")", column, distinct),
            metric("min(\"Amount\")", column, least),
            metric("max(\"Amount\")", column, most),
        ])
        .unwrap()
    }

    fn seen(writes: &[Profile]) -> Vec<(u64, &Values)> {
        let seen = writes.iter();
        seen.map(|write| (write.rows, &write.columns["Amount"]))
            .collect()
    }

    #[test]
    fn a_rule_is_suggested_when_all_writes_kept_it() {
        let amount = Field::new("Amount", DataType::Int64, true);
        let writes = [
            write("100", "0", "99", "9", "120"),
            write("90", "0", "91", "-10", "70"),
            write("60", "0", "60", "8", "80"),
        ];
        let (rule, reason) = complete(&amount, &seen(&writes)).unwrap();
        assert_eq!(rule.expect, "\"Amount\" IS NOT NULL");
        assert_eq!(reason, "no NULL in 250 rows of 3 writes");
        let (rule, _) = bounded(&amount, &seen(&writes)).unwrap();
        assert_eq!(rule.expect, "\"Amount\" BETWEEN -10 AND 120");
        let (rule, _) = unique(&amount, &seen(&writes)).unwrap();
        assert_eq!(rule.expect, "is_unique(\"Amount\")");
        let (rule, _) = steady(&writes).unwrap();
        assert!(rule.expect.contains("baseline(count(*), 3)"), "{rule:?}");
    }

    #[test]
    fn nothing_is_suggested_that_a_write_broke_or_too_few_say() {
        let amount = Field::new("Amount", DataType::Int64, true);
        let writes = [
            write("100", "0", "99", "9", "120"),
            write("90", "1", "50", "-10", "70"),
        ];
        assert!(complete(&amount, &seen(&writes)).is_none());
        assert!(bounded(&amount, &seen(&writes)).is_none());
        assert!(unique(&amount, &seen(&writes)).is_none());
        assert!(steady(&writes).is_none());
        let uneven = [
            write("10", "0", "10", "1", "1"),
            write("1000", "0", "1000", "1", "1"),
            write("1000", "0", "1000", "1", "1"),
        ];
        assert!(steady(&uneven).is_none());
        assert!(
            complete(
                &Field::new("Amount", DataType::Int64, false),
                &seen(&uneven)
            )
            .is_none()
        );
        assert!(Profile::of(&[metric("count(*)", None, "7")]).is_none());
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let numbers = ["9", "10", "-3"];
        let most = |side| outermost(numbers.into_iter(), &DataType::Int64, side);
        assert_eq!(most(Ordering::Greater), Some("10"));
        assert_eq!(most(Ordering::Less), Some("-3"));
        let float = ["1.5", "NaN"].into_iter();
        assert_eq!(outermost(float, &DataType::Float64, Ordering::Less), None);
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let taken = ["a".to_owned(), "a_2".to_owned()];
        assert_eq!(free(&taken, "a"), "a_3");
        assert_eq!(free(&taken, "b"), "b");
    }
}
