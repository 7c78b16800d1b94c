//! `t$metrics`: the numbers about the rows of each write that its rules asked for, or its profile.

use std::sync::Arc;

use super::super::records::Record;
use super::column::Columns;
use super::quality::{Write, of_the_write};
use crate::quality::record::MetricValue;
use crate::quality::rule::Over;

/// One metric of one write.
type Row = (Arc<Write>, MetricValue);

pub(super) fn columns() -> Columns<Row> {
    of_the_write(|(write, _): &Row| write)
        .texts("partition", |(_, of)| of.partition.clone())
        .text("column_name", |(_, of)| of.column.clone())
        .text("metric", |(_, of)| Some(of.metric.clone()))
        .text("over", |(_, of)| Some(over(of.over).to_owned()))
        .float("value", |(_, of)| number(of.value.as_deref()?))
        .text("text", |(_, of)| of.value.clone())
        .truth("exact", |(_, of)| Some(of.exact))
}

/// The number that is meant. NaN is none, nor is a word that only looks like one.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The word for the rows a metric is about.
pub(super) fn over(over: Over) -> &'static str {
    match over {
        Over::Written => "written",
        Over::Input => "input",
    }
}

pub(super) fn split(mut record: Record) -> Vec<Row> {
    let metrics = std::mem::take(&mut record.report.metrics);
    let write = Write::of(&mut record);
    let rows = metrics.into_iter();
    rows.map(|metric| (Arc::clone(&write), metric)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_numbers_only_where_they_are_one() {
        for (text, value) in [
            ("12", Some(12.0)),
            ("-0.25", Some(-0.25)),
            ("1e3", Some(1000.0)),
            ("NaN", None),
            ("inf", None),
            ("2024-01-01", None),
            ("true", None),
            ("", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }
}
