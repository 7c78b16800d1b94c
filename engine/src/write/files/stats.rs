//! Statistics of a data file as the log keeps them, made from the Parquet footer just written.
//!
//! The footer does not know how many lists and maps are null (it counts nulls of their elements),
//! which is watched while rows go by. It bounds no chunk that holds NaN; to Delta's statistics we
//! add `nanCount`, zero for each float column without NaN, because a reader of the log could not
//! tell otherwise whether bounds are of all values or only of those that are not NaN.

mod foreign;

use chrono::{DateTime, Datelike, Days, NaiveDate};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Fields, Schema};
use parquet::data_type::AsBytes;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::nan::NanLeaves;
use crate::error::{Error, Result};
use crate::table::actions::Metadata;
use crate::table::schema::personal;

/// Characters of a string bound, as in Delta.
const STRING_CHARACTERS: usize = 32;
/// Bytes of a string bound in the footer: as many as [`STRING_CHARACTERS`] can take.
pub(super) const STRING_BYTES: usize = 4 * STRING_CHARACTERS;

const NUM_INDEXED_KEY: &str = "delta.dataSkippingNumIndexedCols";
pub(crate) const STATS_COLUMNS_KEY: &str = "delta.dataSkippingStatsColumns";
const DEFAULT_NUM_INDEXED: usize = 32;

/// The columns of which statistics are kept.
#[derive(Debug)]
pub(super) struct StatsPlan {
    columns: Vec<Column>,
    /// Columns of the file that tell something of a person: bounds are values.
    discreet: Vec<String>,
}

#[derive(Debug)]
struct Column {
    /// Names in the file, from the top-level column down.
    path: Vec<String>,
    /// The same as positions in the schema of the file.
    position: Vec<usize>,
    /// Leaf of the Parquet schema.
    leaf: usize,
    kind: Kind,
    /// Whether no value of it is to be told.
    discreet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Integer,
    Decimal {
        scale: usize,
    },
    Date,
    Timestamp {
        zoned: bool,
    },
    Float,
    Text,
    /// Without an order that readers agree on: nulls only.
    Unordered,
    /// A list or map: nulls only, which the footer does not count.
    Repeated,
}

/// What the footer will not tell of each planned column.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    nulls: u64,
}

impl StatsPlan {
    /// Statistics of a file of `schema`, as the table's properties want them; these speak of the columns
    /// by the names of `named`, the same columns as queries call them.
    pub(super) fn new(schema: &Schema, named: &Fields, metadata: &Metadata) -> Result<Self> {
        let mut columns = Vec::new();
        let mut leaf = 0;
        collect(
            schema.fields(),
            &mut Vec::new(),
            &mut Vec::new(),
            &mut leaf,
            &mut columns,
        );
        if let Some(list) = metadata.configuration.get(STATS_COLUMNS_KEY) {
            let wanted = parse_columns(list)?;
            columns.retain(|c| {
                let path = path_at(named, &c.position);
                wanted.iter().any(|w| names(w, &path))
            });
        } else if let Some(count) = num_indexed(metadata)? {
            columns.truncate(count);
        }
        let told = |at: usize| named.get(at).is_some_and(|field| personal(field));
        for column in &mut columns {
            column.discreet = column.position.first().is_some_and(|at| told(*at));
        }
        let fields = schema.fields().iter().enumerate();
        let discreet = fields.filter(|(at, _)| told(*at));
        Ok(Self {
            columns,
            discreet: discreet.map(|(_, field)| field.name().clone()).collect(),
        })
    }

    /// Columns of the file, as it calls them, of whose values its footer is to tell nothing.
    pub(super) fn discreet(&self) -> &[String] {
        &self.discreet
    }

    /// Nothing seen yet.
    pub(super) fn unseen(&self) -> Vec<Seen> {
        vec![Seen::default(); self.columns.len()]
    }

    /// Looks at rows on their way into a file.
    pub(super) fn observe(&self, batch: &RecordBatch, seen: &mut [Seen]) {
        for (column, seen) in self.columns.iter().zip(seen) {
            if column.counts_nulls() {
                let nulls = nulls(batch, &column.position);
                seen.nulls += nulls.map_or(0, |n| n.null_count() as u64);
            }
        }
    }

    /// The `stats` of an `add` line.
    pub(super) fn render(
        &self,
        footer: &ParquetMetaData,
        seen: &[Seen],
        nan: &NanLeaves,
    ) -> String {
        let mut min = Vec::new();
        let mut max = Vec::new();
        let mut nulls = Vec::new();
        let mut nans = Vec::new();
        for (column, seen) in self.columns.iter().zip(seen) {
            let count = match column.counts_nulls() {
                true => Some(seen.nulls),
                false => null_count(footer, column.leaf),
            };
            if let Some(count) = count {
                nulls.push((column.path.as_slice(), count.to_string()));
            }
            if column.kind == Kind::Float && !nan.contains(&column.leaf) {
                nans.push((column.path.as_slice(), "0".to_owned()));
            }
            if column.discreet {
                continue;
            }
            let [least, most] = bounds(footer, column.leaf);
            if let Some(text) = least.and_then(|b| b.json(column.kind, Side::Min)) {
                min.push((column.path.as_slice(), text));
            }
            if let Some(text) = most.and_then(|b| b.json(column.kind, Side::Max)) {
                max.push((column.path.as_slice(), text));
            }
        }
        let rows = footer.file_metadata().num_rows();
        let nans = match nans.as_slice() {
            [] => String::new(),
            nans => format!("\"nanCount\":{},", object(nans, 0)),
        };
        format!(
            "{{\"numRecords\":{rows},\"minValues\":{},\"maxValues\":{},\"nullCount\":{},{nans}\"tightBounds\":true}}",
            object(&min, 0),
            object(&max, 0),
            object(&nulls, 0)
        )
    }
}

impl Column {
    /// Whether the footer does not.
    fn counts_nulls(&self) -> bool {
        self.kind == Kind::Repeated || self.discreet
    }
}

/// How many leaf columns have statistics; `None` is all.
fn num_indexed(metadata: &Metadata) -> Result<Option<usize>> {
    let Some(text) = metadata.configuration.get(NUM_INDEXED_KEY) else {
        return Ok(Some(DEFAULT_NUM_INDEXED));
    };
    match text.trim().parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(count) if count >= 0 => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
        _ => Err(Error::invalid(format!(
            "table property {NUM_INDEXED_KEY} = {text}: must be a number of columns, or -1 for all"
        ))),
    }
}

/// Column names separated by commas; parts of a nested name by dots; backticks hold either.
fn parse_columns(list: &str) -> Result<Vec<Vec<String>>> {
    let mut columns = Vec::new();
    let mut path = Vec::new();
    let mut part = String::new();
    let mut quoted = false;
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '`' if quoted && chars.peek() == Some(&'`') => {
                chars.next();
                part.push('`');
            }
            '`' => quoted = !quoted,
            '.' if !quoted => path.push(std::mem::take(&mut part)),
            ',' if !quoted => {
                path.push(std::mem::take(&mut part));
                columns.push(std::mem::take(&mut path));
            }
            ' ' if !quoted => {}
            c => part.push(c),
        }
    }
    if quoted {
        return Err(Error::invalid(format!(
            "table property {STATS_COLUMNS_KEY} = {list}: a backtick is not closed"
        )));
    }
    path.push(part);
    columns.push(path);
    Ok(columns)
}

/// The names on the way to the field at `position`.
fn path_at<'a>(mut fields: &'a Fields, position: &[usize]) -> Vec<&'a str> {
    let mut path = Vec::with_capacity(position.len());
    for field in position {
        let field = &fields[*field];
        path.push(field.name().as_str());
        if let DataType::Struct(children) = field.data_type() {
            fields = children;
        }
    }
    path
}

/// Whether `list`, the value of the property [`STATS_COLUMNS_KEY`], names the column of `path` or a part
/// of it.
pub(crate) fn lists(list: &str, path: &[String]) -> Result<bool> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let listed = parse_columns(list)?;
    Ok(listed
        .iter()
        .any(|column| column.len() >= path.len() && names(&column[..path.len()], &path)))
}

/// Whether `wanted` is the column of `path` or a struct around it.
fn names(wanted: &[String], path: &[&str]) -> bool {
    wanted.len() <= path.len()
        && wanted
            .iter()
            .zip(path)
            .all(|(w, p)| w.to_lowercase() == p.to_lowercase())
}

fn collect(
    fields: &Fields,
    path: &mut Vec<String>,
    position: &mut Vec<usize>,
    leaf: &mut usize,
    columns: &mut Vec<Column>,
) {
    for (index, field) in fields.iter().enumerate() {
        path.push(field.name().clone());
        position.push(index);
        if let DataType::Struct(children) = field.data_type() {
            collect(children, path, position, leaf, columns);
        } else {
            columns.push(Column {
                path: path.clone(),
                position: position.clone(),
                leaf: *leaf,
                kind: kind(field.data_type()),
                discreet: false,
            });
            *leaf += leaves(field.data_type());
        }
        path.pop();
        position.pop();
    }
}

/// Leaves of the Parquet schema a type takes.
fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        DataType::List(f) | DataType::Map(f, _) => leaves(f.data_type()),
        _ => 1,
    }
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Integer,
        DataType::Decimal128(_, scale) => Kind::Decimal {
            scale: usize::from(scale.unsigned_abs()),
        },
        DataType::Date32 => Kind::Date,
        DataType::Timestamp(_, zone) => Kind::Timestamp {
            zoned: zone.is_some(),
        },
        DataType::Float32 | DataType::Float64 => Kind::Float,
        DataType::Utf8View => Kind::Text,
        DataType::List(_) | DataType::Map(..) => Kind::Repeated,
        _ => Kind::Unordered,
    }
}

/// Nulls of the array at `position`, joined with those of the structs around it.
fn nulls(batch: &RecordBatch, position: &[usize]) -> Option<NullBuffer> {
    let mut array = batch.column(position[0]);
    let mut nulls = array.logical_nulls();
    for &index in &position[1..] {
        array = array.as_struct().column(index);
        nulls = NullBuffer::union(nulls.as_ref(), array.logical_nulls().as_ref());
    }
    nulls
}

fn null_count(footer: &ParquetMetaData, leaf: usize) -> Option<u64> {
    footer
        .row_groups()
        .iter()
        .map(|group| group.column(leaf).statistics()?.null_count_opt())
        .sum()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Min,
    Max,
}

/// A bound in the terms of Parquet's physical types.
#[derive(Debug, Clone, PartialEq)]
enum Bound {
    Integer(i128),
    Float(f32),
    Double(f64),
    Bytes(Vec<u8>),
}

/// Least and greatest value over all row groups. A row group of nulls has none and bounds nothing;
/// one that has values but no bounds leaves the file without.
fn bounds(footer: &ParquetMetaData, leaf: usize) -> [Option<Bound>; 2] {
    let mut found: [Option<Bound>; 2] = [None, None];
    for group in footer.row_groups() {
        let chunk = group.column(leaf);
        let Some(statistics) = chunk.statistics() else {
            return [None, None];
        };
        if statistics.null_count_opt() == Some(chunk.num_values().unsigned_abs()) {
            continue;
        }
        for (side, found) in [Side::Min, Side::Max].into_iter().zip(&mut found) {
            let Some(bound) = Bound::of(statistics, side) else {
                return [None, None];
            };
            let better = found.as_ref().is_none_or(|f| bound.beyond(f, side));
            if better {
                *found = Some(bound);
            }
        }
    }
    found
}

impl Bound {
    fn of(statistics: &Statistics, side: Side) -> Option<Self> {
        fn pick<'a, T>(side: Side, min: Option<&'a T>, max: Option<&'a T>) -> Option<&'a T> {
            match side {
                Side::Min => min,
                Side::Max => max,
            }
        }
        Some(match statistics {
            Statistics::Int32(s) => Self::Integer((*pick(side, s.min_opt(), s.max_opt())?).into()),
            Statistics::Int64(s) => Self::Integer((*pick(side, s.min_opt(), s.max_opt())?).into()),
            Statistics::Float(s) => Self::Float(*pick(side, s.min_opt(), s.max_opt())?),
            Statistics::Double(s) => Self::Double(*pick(side, s.min_opt(), s.max_opt())?),
            Statistics::ByteArray(s) => {
                Self::Bytes(pick(side, s.min_opt(), s.max_opt())?.as_bytes().to_vec())
            }
            // Only decimals are stored this way: two's complement, most significant byte first.
            Statistics::FixedLenByteArray(s) => {
                let bytes = pick(side, s.min_opt(), s.max_opt())?.as_bytes();
                let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
                let mut wide = [sign; 16];
                wide.get_mut(16usize.checked_sub(bytes.len())?..)?
                    .copy_from_slice(bytes);
                Self::Integer(i128::from_be_bytes(wide))
            }
            Statistics::Boolean(_) | Statistics::Int96(_) => return None,
        })
    }

    fn beyond(&self, other: &Self, side: Side) -> bool {
        let (low, high) = match side {
            Side::Min => (self, other),
            Side::Max => (other, self),
        };
        match (low, high) {
            (Self::Integer(a), Self::Integer(b)) => a < b,
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b).is_lt(),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(b).is_lt(),
            (Self::Bytes(a), Self::Bytes(b)) => a < b,
            _ => false,
        }
    }

    /// The bound as JSON; `None` where JSON or the readers cannot hold it.
    fn json(&self, kind: Kind, side: Side) -> Option<String> {
        match (kind, self) {
            (Kind::Integer, Self::Integer(v)) => Some(v.to_string()),
            (Kind::Decimal { scale }, Self::Integer(v)) => Some(decimal(*v, scale)),
            (Kind::Date, Self::Integer(days)) => Some(format!("\"{}\"", date(*days)?)),
            (Kind::Timestamp { zoned }, Self::Integer(micros)) => {
                let time = DateTime::from_timestamp_micros(i64::try_from(*micros).ok()?)?;
                let format = match zoned {
                    true => "\"%Y-%m-%dT%H:%M:%S%.6fZ\"",
                    false => "\"%Y-%m-%dT%H:%M:%S%.6f\"",
                };
                four_digits(time.year()).then(|| time.format(format).to_string())
            }
            (Kind::Float, Self::Float(v)) if v.is_finite() => serde_json::to_string(v).ok(),
            (Kind::Float, Self::Double(v)) if v.is_finite() => serde_json::to_string(v).ok(),
            (Kind::Text, Self::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).ok()?;
                serde_json::to_string(&shorten(text, side)?).ok()
            }
            _ => None,
        }
    }
}

/// `unscaled` with its point set, digit for digit: a float in between would round it.
fn decimal(unscaled: i128, scale: usize) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    match fraction {
        "" => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

fn date(days: i128) -> Option<NaiveDate> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let distance = Days::new(u64::try_from(days.unsigned_abs()).ok()?);
    let date = if days < 0 {
        epoch.checked_sub_days(distance)
    } else {
        epoch.checked_add_days(distance)
    }?;
    four_digits(date.year()).then_some(date)
}

/// Readers parse years of four digits only.
fn four_digits(year: i32) -> bool {
    (0..=9999).contains(&year)
}

/// A bound of at most [`STRING_CHARACTERS`]: for the maximum the next greater text of that length,
/// `None` if there is no greater one.
fn shorten(text: &str, side: Side) -> Option<String> {
    let Some((end, _)) = text.char_indices().nth(STRING_CHARACTERS) else {
        return Some(text.to_owned());
    };
    let mut short = text[..end].to_owned();
    if side == Side::Min {
        return Some(short);
    }
    while let Some(last) = short.pop() {
        // The range of `char` steps over the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            short.push(next);
            return Some(short);
        }
    }
    None
}

/// A JSON object of values whose paths share their first `depth` names. Siblings are neighbours,
/// because columns come in the order of the schema.
fn object(entries: &[(&[String], String)], depth: usize) -> String {
    let mut text = String::from("{");
    for group in entries.chunk_by(|a, b| a.0[depth] == b.0[depth]) {
        if text.len() > 1 {
            text.push(',');
        }
        let (path, value) = &group[0];
        text.push_str(&serde_json::Value::from(path[depth].as_str()).to_string());
        text.push(':');
        if path.len() == depth + 1 {
            text.push_str(value);
        } else {
            text.push_str(&object(group, depth + 1));
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests;
