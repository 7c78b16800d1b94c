//! Statistics of data files: read from the log, told to the planner.
//!
//! Bounds of the log are bounds, not always values of the file: strings are cut, timestamps lose
//! their microseconds, doubles leave out NaN. Each is widened here as far as its writer may have cut,
//! and says whether it is still a value of the file, so that nothing later has to guess.

use std::cmp::Ordering;
use std::collections::HashMap;

use datafusion::arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::snapshot::DataFile;
use super::{mapping, partition, widening};

/// Parsed `stats` of an `add` line, for the top-level columns that have a bound or a null count.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FileStats {
    /// Rows in the file, deleted ones included.
    pub num_records: Option<u64>,
    /// False once a deletion vector made min and max mere bounds.
    pub tight_bounds: bool,
    pub columns: HashMap<String, ColumnStats>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColumnStats {
    /// Lower bound and whether it is a value of the file.
    pub min: Option<(ScalarValue, bool)>,
    /// Upper bound and whether it is a value of the file.
    pub max: Option<(ScalarValue, bool)>,
    /// Nulls in the file, deleted rows included.
    pub null_count: Option<u64>,
    /// Whether NaN may lie outside the bounds: in a float column whose writer does not deny it.
    pub nan: bool,
}

impl FileStats {
    /// The statistics in `json` for the columns of `schema`, the snapshot's; `None` where they do not
    /// parse. There they have physical names, here those of queries.
    ///
    /// A value that is not of its column's type, or of a nested column, is left out.
    pub(crate) fn parse(json: &str, schema: &SchemaRef) -> Option<Self> {
        let raw: RawStats = serde_json::from_str(json).ok()?;
        let tight_bounds = raw.tight_bounds.unwrap_or(true);
        let column = |field: &FieldRef| {
            let name = mapping::physical_name(field);
            let was_float = widening::was_float(field);
            let bound = |values: &Option<Map<String, Value>>, side: Side| {
                let value = values.as_ref()?.get(name)?;
                let (mut value, exact) = bound(value, field.data_type(), side)?;
                if let (true, ScalarValue::Float64(Some(v))) = (was_float, &mut value) {
                    *v = side.beyond_float(*v);
                }
                Some((value, exact && tight_bounds))
            };
            let count = |counts: &Option<Map<String, Value>>| counts.as_ref()?.get(name)?.as_u64();
            let column = ColumnStats {
                min: bound(&raw.min_values, Side::Lower),
                max: bound(&raw.max_values, Side::Upper),
                null_count: count(&raw.null_count),
                nan: field.data_type().is_floating() && count(&raw.nan_count) != Some(0),
            };
            let known = column.min.is_some() || column.max.is_some() || column.null_count.is_some();
            known.then(|| (field.name().clone(), column))
        };
        Some(Self {
            num_records: raw.num_records,
            tight_bounds,
            columns: schema.fields().iter().filter_map(column).collect(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStats {
    num_records: Option<u64>,
    tight_bounds: Option<bool>,
    min_values: Option<Map<String, Value>>,
    max_values: Option<Map<String, Value>>,
    null_count: Option<Map<String, Value>>,
    /// Of our own files only.
    nan_count: Option<Map<String, Value>>,
}

#[derive(Clone, Copy)]
enum Side {
    Lower,
    Upper,
}

impl Side {
    fn widen<T>(self, value: T, down: impl Fn(T) -> T, up: impl Fn(T) -> T) -> T {
        match self {
            Self::Lower => down(value),
            Self::Upper => up(value),
        }
    }

    /// A bound of a column of doubles that were floats in older files: there `0.1` stands for the float
    /// next to it, which as a double lies beside `0.1`.
    fn beyond_float(self, v: f64) -> f64 {
        f64::from(self.widen(
            v as f32,
            |v| v.next_down().next_down(),
            |v| v.next_up().next_up(),
        ))
    }
}

/// A safe bound of type `data_type`, and whether it is a value of the file.
fn bound(json: &Value, data_type: &DataType, side: Side) -> Option<(ScalarValue, bool)> {
    use DataType as D;
    let text = match json {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => return None,
    };
    let value = partition::parse(&text, data_type)?;
    match (data_type, value) {
        // Cut to a prefix, whose length only the writer knows.
        (D::Utf8 | D::LargeUtf8 | D::Utf8View, value) => json.is_string().then_some((value, false)),
        (D::Float32, ScalarValue::Float32(Some(v))) => {
            let v = side.widen(v, f32::next_down, f32::next_up);
            (!v.is_nan()).then_some((ScalarValue::Float32(Some(v)), false))
        }
        // The JSON reader may be off by a unit.
        (D::Float64, ScalarValue::Float64(Some(v))) => {
            let v = side.widen(v, |v| v.next_down().next_down(), |v| v.next_up().next_up());
            (!v.is_nan()).then_some((ScalarValue::Float64(Some(v)), false))
        }
        // Some writers compute decimals as doubles, which are exact up to fifteen digits.
        (D::Decimal128(..), ScalarValue::Decimal128(Some(v), precision, scale)) => {
            let exact = v.unsigned_abs() < 10_u128.pow(15);
            let slack = if exact { 0 } else { (v.abs() >> 50) + 1 };
            let v = side.widen(v, |v| v.saturating_sub(slack), |v| v.saturating_add(slack));
            Some((ScalarValue::Decimal128(Some(v), precision, scale), exact))
        }
        // Milliseconds are all that the protocol asks for; more digits were not cut.
        (
            D::Timestamp(TimeUnit::Microsecond, _),
            ScalarValue::TimestampMicrosecond(Some(v), zone),
        ) => {
            let digits = text.split_once('.').map_or(0, |(_, fraction)| {
                fraction.bytes().take_while(u8::is_ascii_digit).count()
            });
            let exact = digits > 3;
            let slack = if exact { 0 } else { 999 };
            let v = side.widen(v, |v| v.saturating_sub(slack), |v| v.saturating_add(slack));
            Some((ScalarValue::TimestampMicrosecond(Some(v), zone), exact))
        }
        (D::Binary | D::LargeBinary | D::BinaryView, _) => None,
        (_, value) => Some((value, true)),
    }
}

/// What is known of the rows a scan sees of one file: columns of the file, then partition columns.
#[derive(Debug)]
pub(super) struct VisibleStats {
    rows: Precision<usize>,
    columns: Vec<ColumnStatistics>,
}

impl VisibleStats {
    pub(super) fn new(
        file: &DataFile,
        schema: &SchemaRef,
        file_columns: &[FieldRef],
        partition_values: &[ScalarValue],
    ) -> Self {
        let stats = file.stats(schema);
        let rows = match file.rows(schema) {
            Some(rows) => Precision::Exact(rows as usize),
            None => Precision::Absent,
        };
        let physical_rows = stats.and_then(|stats| stats.num_records);
        let reduced = file.add.deletion_vector.is_some() || stats.is_some_and(|s| !s.tight_bounds);
        let file_column = |field: &FieldRef| {
            let Some(column) = stats.and_then(|stats| stats.columns.get(field.name())) else {
                return ColumnStatistics::new_unknown();
            };
            let bound = |bound: &Option<(ScalarValue, bool)>| match bound {
                // The type differs where the column was widened after the statistics were parsed.
                Some((value, _)) if value.data_type() != *field.data_type() => Precision::Absent,
                Some((value, true)) if !reduced => Precision::Exact(value.clone()),
                Some((value, _)) => Precision::Inexact(value.clone()),
                None => Precision::Absent,
            };
            let null_count = match column.null_count {
                None => Precision::Absent,
                // Deleted rows cannot add a null, nor a value where all are null.
                Some(0) => Precision::Exact(0),
                Some(_) if reduced && column.null_count == physical_rows => rows,
                Some(nulls) if reduced => Precision::Inexact(nulls as usize),
                Some(nulls) => Precision::Exact(nulls as usize),
            };
            ColumnStatistics {
                null_count,
                min_value: bound(&column.min),
                max_value: bound(&column.max),
                ..ColumnStatistics::new_unknown()
            }
        };
        let partition_column = |value: &ScalarValue| {
            if value.is_null() {
                return ColumnStatistics::new_unknown().with_null_count(rows);
            }
            ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: Precision::Exact(value.clone()),
                max_value: Precision::Exact(value.clone()),
                ..ColumnStatistics::new_unknown()
            }
        };
        let columns = file_columns.iter().map(file_column);
        let columns = columns.chain(partition_values.iter().map(partition_column));
        Self {
            columns: columns.collect(),
            rows,
        }
    }

    /// For `PartitionedFile`, where DataFusion skips files by filters that come to be while it
    /// runs: it looks at exact values only, but needs them as bounds only, and bounds these are.
    /// (Equal bounds do mean a constant column.) Doubles stay inexact: a NaN may lie outside.
    pub(super) fn into_bounds(self) -> Statistics {
        let sharpen = |value| match value {
            Precision::Inexact(ScalarValue::Float32(_) | ScalarValue::Float64(_)) => value,
            Precision::Inexact(value) => Precision::Exact(value),
            value => value,
        };
        let columns = self.columns.into_iter().map(|column| ColumnStatistics {
            min_value: sharpen(column.min_value),
            max_value: sharpen(column.max_value),
            ..column
        });
        Statistics {
            num_rows: self.rows,
            total_byte_size: Precision::Absent,
            column_statistics: columns.collect(),
        }
    }
}

/// What is known of all files of a scan, gathered file by file.
#[derive(Debug)]
pub(super) struct Summary {
    rows: usize,
    file_bytes: usize,
    /// Whether a file without row count was seen, and one with.
    some_unknown: bool,
    some_known: bool,
    /// `None` until a file with a value was seen.
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Column {
    nulls: Precision<usize>,
    min: Option<Precision<ScalarValue>>,
    max: Option<Precision<ScalarValue>>,
}

impl Summary {
    pub(super) fn new(columns: usize) -> Self {
        let column = Column {
            nulls: Precision::Exact(0),
            min: None,
            max: None,
        };
        Self {
            rows: 0,
            file_bytes: 0,
            some_unknown: false,
            some_known: false,
            columns: vec![column; columns],
        }
    }

    pub(super) fn add(&mut self, file: &VisibleStats, file_bytes: usize) {
        self.file_bytes = self.file_bytes.saturating_add(file_bytes);
        match file.rows {
            // No row, so no bound and no null.
            Precision::Exact(0) => {
                self.some_known = true;
                return;
            }
            Precision::Exact(rows) => {
                self.some_known = true;
                self.rows = self.rows.saturating_add(rows);
            }
            _ => self.some_unknown = true,
        }
        for (all, one) in self.columns.iter_mut().zip(&file.columns) {
            all.nulls = all.nulls.add(&one.null_count);
            let only_nulls =
                matches!(one.null_count, Precision::Exact(n) if file.rows == Precision::Exact(n));
            if !only_nulls {
                merge(&mut all.min, &one.min_value, Ordering::Less);
                merge(&mut all.max, &one.max_value, Ordering::Greater);
            }
        }
    }

    /// Statistics of a scan that returns `fields` (file columns, then partition columns).
    pub(super) fn finish(self, fields: &[FieldRef]) -> Statistics {
        let num_rows = match (self.some_unknown, self.some_known) {
            (false, _) => Precision::Exact(self.rows),
            (true, true) => Precision::Inexact(self.rows),
            (true, false) => Precision::Absent,
        };
        // Bytes of the rows in memory, which joins compare: the files hold other columns too, and
        // are compressed. Columns of variable width count as a view with a short value behind it.
        let row_width = fields
            .iter()
            .map(|f| f.data_type().primitive_width().unwrap_or(32));
        let total_byte_size = match num_rows {
            Precision::Absent => Precision::Inexact(self.file_bytes),
            rows => rows
                .multiply(&Precision::Exact(row_width.sum()))
                .to_inexact(),
        };
        let columns = self.columns.into_iter().map(|column| ColumnStatistics {
            null_count: column.nulls,
            min_value: column.min.unwrap_or(Precision::Absent),
            max_value: column.max.unwrap_or(Precision::Absent),
            ..ColumnStatistics::new_unknown()
        });
        Statistics {
            num_rows,
            total_byte_size,
            column_statistics: columns.collect(),
        }
    }
}

/// Takes `one` into `all` if it lies on the side `wanted` of it; once unknown, always unknown.
fn merge(all: &mut Option<Precision<ScalarValue>>, one: &Precision<ScalarValue>, wanted: Ordering) {
    let Some(bound) = all else {
        *all = Some(one.clone());
        return;
    };
    let order = match (bound.get_value(), one.get_value()) {
        (Some(all), Some(one)) => one.partial_cmp(all),
        _ => None,
    };
    let exact = bound.is_exact() == Some(true) && one.is_exact() == Some(true);
    match order {
        Some(order) if order == wanted => *bound = one.clone(),
        Some(_) => {}
        None => *bound = Precision::Absent,
    }
    if !exact && bound.is_exact() == Some(true) {
        let value = std::mem::replace(bound, Precision::Absent);
        *bound = value.to_inexact();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    fn parse(data_type: DataType, min: &str, max: &str) -> Option<ColumnStats> {
        let json = format!(
            r#"{{"numRecords":3,"minValues":{{"c":{min}}},"maxValues":{{"c":{max}}},"nullCount":{{"c":1}}}}"#
        );
        let schema = Arc::new(Schema::new(vec![Field::new("c", data_type, true)]));
        let stats = FileStats::parse(&json, &schema)?;
        assert_eq!(stats.num_records, Some(3));
        let column = stats.columns.get("c").cloned();
        assert_eq!(column.as_ref().and_then(|c| c.null_count), Some(1));
        column
    }

    fn timestamp(zone: Option<&str>) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
    }

    #[test]
    fn whole_numbers_and_dates_are_values_of_the_file() {
        let column = parse(DataType::Int64, "-5", "9223372036854775807").unwrap();
        assert_eq!(column.min, Some((ScalarValue::Int64(Some(-5)), true)));
        assert_eq!(column.max, Some((ScalarValue::Int64(Some(i64::MAX)), true)));
        let column = parse(DataType::Date32, "\"1970-01-02\"", "\"2024-02-29\"").unwrap();
        assert_eq!(column.min, Some((ScalarValue::Date32(Some(1)), true)));
    }

    #[test]
    fn strings_are_bounds_only() {
        let column = parse(DataType::Utf8View, "\"\"", "\"ab\u{10ffff}\"").unwrap();
        assert_eq!(
            column.min,
            Some((ScalarValue::Utf8View(Some(String::new())), false))
        );
        assert!(!column.max.unwrap().1);
    }

    #[test]
    fn milliseconds_are_widened_and_microseconds_are_not() {
        for zone in [None, Some("UTC")] {
            let (min, max) = (
                "\"1970-01-01T00:00:01.000Z\"",
                "\"1970-01-01T00:00:02.500Z\"",
            );
            let column = parse(timestamp(zone), min, max).unwrap();
            let at = |micros| ScalarValue::TimestampMicrosecond(Some(micros), zone.map(Into::into));
            assert_eq!(column.min, Some((at(1_000_000 - 999), false)));
            assert_eq!(column.max, Some((at(2_500_000 + 999), false)));
            let (min, max) = ("\"1970-01-01 00:00:01\"", "\"1970-01-01T00:00:02.500000\"");
            let column = parse(timestamp(zone), min, max).unwrap();
            assert_eq!(column.min, Some((at(1_000_000 - 999), false)));
            assert_eq!(column.max, Some((at(2_500_000), true)));
        }
    }

    #[test]
    fn doubles_are_widened_and_never_exact() {
        let column = parse(DataType::Float64, "0.0", "0.1").unwrap();
        let (ScalarValue::Float64(Some(min)), false) = column.min.unwrap() else {
            panic!()
        };
        assert!(min < 0.0 && min > -1e-300);
        let (ScalarValue::Float64(Some(max)), false) = column.max.unwrap() else {
            panic!()
        };
        assert!(max > 0.1 && max < 0.100_000_1);
        let column = parse(DataType::Float64, "\"NaN\"", "\"NaN\"").unwrap();
        assert_eq!((column.min, column.max), (None, None));
        assert!(parse(DataType::Float32, "-1.5", "3").unwrap().min.is_some());
    }

    #[test]
    fn decimals_are_exact_up_to_fifteen_digits() {
        let of = |v| ScalarValue::Decimal128(Some(v), 38, 2);
        let column = parse(DataType::Decimal128(38, 2), "-12.34", "9999999999999.99").unwrap();
        assert_eq!(column.min, Some((of(-1234), true)));
        assert_eq!(column.max, Some((of(999_999_999_999_999), true)));
        // As a double this is 123456789012345680: less than it was.
        let column = parse(DataType::Decimal128(38, 2), "0", "123456789012345687.99").unwrap();
        let (ScalarValue::Decimal128(Some(max), ..), false) = column.max.unwrap() else {
            panic!()
        };
        assert!(max >= 12_345_678_901_234_568_799);
        assert!(max < 12_345_678_901_234_668_799);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let column = parse(DataType::Int32, "\"x\"", "99999999999").unwrap();
        assert_eq!((column.min, column.max), (None, None));
        let column = parse(DataType::Utf8View, "5", "{\"nested\":1}").unwrap();
        assert_eq!((column.min, column.max), (None, None));
        let schema = Arc::new(Schema::new(vec![Field::new("c", DataType::Int32, true)]));
        for json in [
            "",
            "null",
            "[]",
            "{\"numRecords\":\"x\"}",
            "{\"minValues\":5}",
        ] {
            assert_eq!(FileStats::parse(json, &schema), None, "{json}");
        }
        let json = r#"{"numRecords":1,"nullCount":{"c":{"d":1}},"minValues":{"c":{"d":1}}}"#;
        assert!(FileStats::parse(json, &schema).unwrap().columns.is_empty());
    }
}
