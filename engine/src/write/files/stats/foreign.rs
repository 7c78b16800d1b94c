//! Statistics of a file that another writer made, from its footer alone.
//!
//! Its columns are found by their names. What a footer does not tell for sure is left out: floats have no
//! bounds, because NaN is in none, and lists have no null count, because a footer counts their elements.

use parquet::basic::{LogicalType, TimeUnit, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::schema::types::ColumnDescriptor;

use super::{Bound, Column, Kind, Side, StatsPlan, object};

impl StatsPlan {
    /// The `stats` of the `add` line of a file with this footer.
    pub(in crate::write::files) fn of_foreign(
        &self,
        footer: &ParquetMetaData,
        tight: bool,
    ) -> String {
        let rows = footer.file_metadata().num_rows();
        let leaves = footer.file_metadata().schema_descr().columns();
        let (mut min, mut max, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
        for column in &self.columns {
            let path = column.path.as_slice();
            if column.kind == Kind::Repeated {
                continue;
            }
            let Some(leaf) = leaves.iter().position(|leaf| leaf.path().parts() == path) else {
                // A column that came after the file is null in all of its rows.
                if path.len() == 1 && !leaves.iter().any(|leaf| leaf.path().parts()[0] == path[0]) {
                    nulls.push((path, rows.to_string()));
                }
                continue;
            };
            let chunks = || footer.row_groups().iter().map(|group| group.column(leaf));
            let counts: Option<u64> = chunks()
                .map(|chunk| chunk.statistics()?.null_count_opt())
                .sum();
            if let Some(count) = counts {
                nulls.push((path, count.to_string()));
            }
            if column.discreet {
                continue;
            }
            for (side, found) in [(Side::Min, &mut min), (Side::Max, &mut max)] {
                if let Some(text) = bound(column, &leaves[leaf], chunks(), side) {
                    found.push((path, text));
                }
            }
        }
        format!(
            "{{\"numRecords\":{rows},\"minValues\":{},\"maxValues\":{},\"nullCount\":{},\"tightBounds\":{tight}}}",
            object(&min, 0),
            object(&max, 0),
            object(&nulls, 0)
        )
    }
}

/// The bound of a column over its chunks. A chunk of nulls bounds nothing; one that has values but no
/// bound leaves the file without.
fn bound<'a>(
    column: &Column,
    leaf: &ColumnDescriptor,
    chunks: impl Iterator<Item = &'a ColumnChunkMetaData>,
    side: Side,
) -> Option<String> {
    let units = units(column.kind, leaf)?;
    let mut found: Option<Bound> = None;
    for chunk in chunks {
        let statistics = chunk.statistics()?;
        if statistics.null_count_opt() == Some(chunk.num_values().unsigned_abs()) {
            continue;
        }
        // The first versions of the format left the order of texts and decimals to each writer.
        if statistics.is_min_max_deprecated() {
            return None;
        }
        let bound = units.convert(Bound::of(statistics, side)?, side);
        if found.as_ref().is_none_or(|found| bound.beyond(found, side)) {
            found = Some(bound);
        }
    }
    found?.json(column.kind, side)
}

/// How the numbers of a file become those of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Units {
    Same,
    /// So many of the table's in one of the file's.
    Coarser(i128),
    /// So many of the file's in one of the table's.
    Finer(i128),
}

impl Units {
    fn convert(self, bound: Bound, side: Side) -> Bound {
        match (self, bound) {
            (Self::Coarser(factor), Bound::Integer(value)) => Bound::Integer(value * factor),
            (Self::Finer(factor), Bound::Integer(value)) => Bound::Integer(match side {
                Side::Min => value.div_euclid(factor),
                Side::Max => -(-value).div_euclid(factor),
            }),
            (_, bound) => bound,
        }
    }
}

/// `None` where the values of the file are not in the order of the table's.
fn units(kind: Kind, leaf: &ColumnDescriptor) -> Option<Units> {
    let logical = leaf.logical_type_ref();
    match (kind, leaf.physical_type()) {
        (Kind::Integer, Type::INT32 | Type::INT64) => match logical {
            None => Some(Units::Same),
            Some(LogicalType::Integer(integer)) if integer.is_signed => Some(Units::Same),
            Some(_) => None,
        },
        (Kind::Decimal { scale }, Type::INT32 | Type::INT64 | Type::FIXED_LEN_BYTE_ARRAY) => {
            (usize::try_from(leaf.type_scale()) == Ok(scale)).then_some(Units::Same)
        }
        (Kind::Date, Type::INT32) => Some(Units::Same),
        (Kind::Timestamp { .. }, Type::INT64) => match logical {
            Some(LogicalType::Timestamp(timestamp)) => Some(match timestamp.unit {
                TimeUnit::MILLIS => Units::Coarser(1000),
                TimeUnit::MICROS => Units::Same,
                TimeUnit::NANOS => Units::Finer(1000),
            }),
            _ => None,
        },
        (Kind::Text, Type::BYTE_ARRAY) => Some(Units::Same),
        _ => None,
    }
}
