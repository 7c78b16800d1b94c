//! Records without what they say of values: samples, thresholds and metrics of columns that are to be forgotten.
//!
//! What is left are counts, and which files of quarantine there are: without those, rows would be lost that
//! nobody asked to forget.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::condense::secure;
use super::segments;
use super::{Record, of_log};
use crate::error::{Error, ErrorKind, Result};
use crate::quality::record::{PartitionValues, RuleResult};
use crate::table::handle::Table;

/// Metrics that tell how many rows there are, and nothing of what is in them.
const COUNTS: [&str; 5] = [
    "count",
    "null_count",
    "nan_count",
    "cleansed_count",
    "completeness",
];

/// Words of expressions that are no columns: one of that name is written in quotes.
const WORDS: [&str; 21] = [
    "and", "as", "asc", "between", "by", "case", "desc", "distinct", "else", "end", "false",
    "filter", "in", "is", "like", "not", "null", "or", "then", "true", "when",
];

/// Columns of which nothing is to be told any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Forget {
    /// Whatever a row held.
    Everything,
    /// What is in these.
    Columns(BTreeSet<String>),
    /// What is in any but these. What was forgotten may have had another name when it was told of.
    AllBut(BTreeSet<String>),
}

impl Forget {
    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Columns(mut one), Self::Columns(other)) => {
                one.extend(other);
                Self::Columns(one)
            }
            (Self::AllBut(mut kept), Self::AllBut(other)) => {
                kept.retain(|column| other.contains(column));
                Self::AllBut(kept)
            }
            (Self::AllBut(mut kept), Self::Columns(columns))
            | (Self::Columns(columns), Self::AllBut(mut kept)) => {
                kept.retain(|column| !columns.contains(column));
                Self::AllBut(kept)
            }
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
        }
    }

    fn column(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Columns(columns) => columns.contains(name),
            Self::AllBut(kept) => !kept.contains(name),
        }
    }

    /// Whether a text about columns may speak of one of them, as `max(email) = a@b`. A word that may be a name is
    /// taken for one: to forget too much costs a number, to forget too little what nobody may know.
    pub(crate) fn told(&self, text: &str) -> bool {
        let function = text.split('(').next().unwrap_or_default();
        let counts = COUNTS.contains(&function.trim().to_ascii_lowercase().as_str());
        !counts
            && match self {
                Self::Everything => true,
                Self::Columns(columns) => names(text).iter().any(|name| columns.contains(name)),
                Self::AllBut(kept) => names(text).iter().any(|name| !kept.contains(name)),
            }
    }

    fn partition(&self, values: Option<&PartitionValues>) -> bool {
        values.is_some_and(|values| values.keys().any(|column| self.column(column)))
    }

    fn result(&self, result: &mut RuleResult) {
        result.sample.clear();
        result.observed.retain(|text| !self.told(text));
        result.threshold.retain(|text| !self.told(text));
    }

    /// Takes out of a record what it says of the values of these columns.
    fn record(&self, record: &mut Record) {
        let report = &mut record.report;
        report
            .rules
            .retain(|result| !self.partition(result.partition.as_ref()));
        for result in &mut report.rules {
            self.result(result);
        }
        report.metrics.retain(|metric| {
            !self.told(&metric.metric) && !self.partition(metric.partition.as_ref())
        });
        // What was put right by hand is told with the values.
        let corrected = report.corrected.take();
        report.corrected = corrected.filter(|text| !self.told(text));
        // Why a write was refused is told with the values.
        record.refused = None;
    }
}

/// The columns that a metric may be about, by the names that tables have for them; the value that is told of it may
/// follow.
fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut rest, mut depth) = (text, 0_usize);
    while let Some(first) = rest.chars().next() {
        if depth == 0 && rest.starts_with(" = ") {
            break;
        }
        let (token, after) = rest.split_at(match first {
            '"' | '\'' => quoted(rest, first),
            first if of_word(first) => rest.find(|c: char| !of_word(c)).unwrap_or(rest.len()),
            other => other.len_utf8(),
        });
        rest = after;
        match first {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '"' => {
                let name = token.strip_prefix('"').unwrap_or(token);
                let name = name.strip_suffix('"').unwrap_or(name);
                names.insert(name.replace("\"\"", "\""));
            }
            first if of_word(first) && !first.is_numeric() => {
                let name = token.to_lowercase();
                let calls = after.trim_start().starts_with('(');
                if !calls && !WORDS.contains(&name.as_str()) {
                    names.insert(name);
                }
            }
            _ => {}
        }
    }
    names
}

fn of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The length of what is in quotes at the beginning of a text; a quote that stands twice is one of it.
fn quoted(text: &str, quote: char) -> usize {
    let mut quotes = text
        .match_indices(quote)
        .map(|(at, _)| at)
        .skip(1)
        .peekable();
    while let Some(at) = quotes.next() {
        if quotes.next_if_eq(&(at + 1)).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// Has the records of all versions before `end` in segments, and takes out of every segment what is to be forgotten.
/// Done twice, it is as done once.
pub(crate) async fn redact(table: &Table, end: u64, forget: &Forget) -> Result<()> {
    secure(table, end).await?;
    let root = &table.root;
    let _one_at_a_time = table.checkpointing.lock().await;
    // Those that others speak of too are read by nobody, but they are there.
    for segment in segments::list(root).await? {
        let versions = segment.from..=segment.to;
        let mut records = match segments::read(root, &segment).await {
            Ok(Some(records)) => records,
            Ok(None) => continue,
            Err(damage) if damage.kind() == ErrorKind::Corrupt => {
                of_log(root, versions, damage).await.map_err(|damage| {
                    Error::corrupt(format!(
                        "table {}: what its writes said of their rules cannot be redacted",
                        root.url()
                    ))
                    .with_detail(damage.message().to_owned())
                    .with_source(damage)
                })?
            }
            Err(error) => return Err(error),
        };
        for record in &mut records {
            forget.record(record);
        }
        let lines = segments::lines(&records)?;
        segments::put(root, segment.from, segment.to, &lines).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Forget {
        Forget::Columns(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn counts_are_kept_and_values_are_not() {
        let email = columns(&["email"]);
        for told in [
            "max(email)",
            "min(lower(email)) = a@b",
            "previous(max(email)) = x",
        ] {
            assert!(email.told(told), "{told}");
        }
        for kept in [
            "count(*) = 12",
            "null_count(email)",
            "max(amount) = 3",
            "max(amount) = email",
            "max(email_count)",
            "COUNT(email)",
        ] {
            assert!(!email.told(kept), "{kept}");
        }
        assert!(email.told("MAX(Email)"));
        assert!(Forget::Everything.told("max(amount) = 3"));
        assert!(!Forget::Everything.told("count(*) = 3"));
    }

    #[test]
    fn names_are_read_as_they_are_spelled() {
        let read = |text: &str| names(text).into_iter().collect::<Vec<_>>().join("|");
        assert_eq!(read("max(email) = amount"), "email");
        assert_eq!(read(r#"max("a""b")"#), r#"a"b"#);
        assert_eq!(read(r#"max("") = 1"#), "");
        assert_eq!(read(r#"min("A b" || 'it''s c' || x1) = 7"#), "A b|x1");
        assert_eq!(read("sum(CASE WHEN n = 1 THEN 2.5 END)"), "n");
        assert_eq!(read("previous(count(*)) = 3"), "");
        assert_eq!(read(r#"max("open"#), "open");
        let odd = columns(&[r#"a"b"#]);
        assert!(odd.told(r#"max("a""b") = x"#) && !odd.told("max(a) = x"));
    }

    #[test]
    fn a_column_by_another_name_is_forgotten_too() {
        let kept =
            |names: &[&str]| Forget::AllBut(names.iter().map(|name| (*name).to_owned()).collect());
        let amount = kept(&["amount"]);
        assert!(amount.told("max(mail) = a@b") && amount.told("baseline(max(email), 7) = x"));
        assert!(!amount.told("max(amount) = 3") && !amount.told("null_count(mail)"));
        assert_eq!(kept(&["a", "b"]).and(kept(&["b", "c"])), kept(&["b"]));
        assert_eq!(columns(&["a"]).and(kept(&["a", "b"])), kept(&["b"]));
        assert_eq!(kept(&["a"]).and(Forget::Everything), Forget::Everything);
    }

    #[test]
    fn everything_takes_in_all_columns() {
        assert_eq!(columns(&["a"]).and(columns(&["b"])), columns(&["a", "b"]));
        assert_eq!(columns(&["a"]).and(Forget::Everything), Forget::Everything);
    }
}
