//! Candidates against a look at every row.

use arrow::array::{
    BinaryViewArray, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
};
use arrow::compute::sort;
use arrow::datatypes::{DataType, Fields, Schema, TimeUnit};
use bytes::Bytes;
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::logical_expr::lit;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{
    FileMetaData, PageIndexPolicy, ParquetMetaDataBuilder, ParquetMetaDataReader,
};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const GROUP_ROWS: usize = 64;
const PAGE_ROWS: usize = 16;

/// One of each type that a key may have.
fn types() -> Vec<DataType> {
    let utc = Some("UTC".into());
    vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Decimal128(5, 1),
        DataType::Decimal128(15, 2),
        DataType::Decimal128(30, 4),
        DataType::Utf8View,
        DataType::BinaryView,
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, utc),
        DataType::Timestamp(TimeUnit::Microsecond, None),
    ]
}

/// Numbers from -100 to 100 as values of a type.
fn values(of: &DataType, numbers: &[Option<i64>]) -> ArrayRef {
    let integers = Int64Array::from(numbers.to_vec());
    match of {
        DataType::Boolean => cast(
            &(integers.iter().map(|n| n.map(|n| n / 90))).collect::<Int64Array>(),
            of,
        ),
        DataType::Utf8View => {
            let texts = numbers.iter().map(|n| n.map(|n| format!("key {n}")));
            return Arc::new(texts.collect::<StringViewArray>());
        }
        DataType::BinaryView => {
            // Of several lengths, and with bytes beyond 127.
            let bytes = numbers
                .iter()
                .map(|n| n.map(|n| vec![n as u8; 1 + n.unsigned_abs() as usize % 3]));
            return Arc::new(bytes.collect::<BinaryViewArray>());
        }
        DataType::Decimal128(precision, scale) => {
            let decimals = numbers.iter().map(|n| n.map(i128::from));
            let decimals = decimals.collect::<Decimal128Array>();
            return Arc::new(
                decimals
                    .with_precision_and_scale(*precision, *scale)
                    .unwrap(),
            );
        }
        DataType::Date32 => {
            let days = numbers.iter().map(|n| n.map(|n| n as i32));
            cast(&days.collect::<Int32Array>(), of)
        }
        _ => cast(&integers, of),
    }
    .unwrap()
}

fn random(random: &mut StdRng, rows: usize, nulls: u32) -> Vec<Option<i64>> {
    let number = |_| {
        let number = random.random_range(-100..=100);
        (random.random_range(0..100) >= nulls).then_some(number)
    };
    (0..rows).map(number).collect()
}

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
}

/// A file of one column `k`, behind another one.
fn footer(keys: &ArrayRef, properties: WriterPropertiesBuilder) -> ParquetMetaData {
    let other: ArrayRef = Arc::new(Int64Array::from_value(7, keys.len()));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("other", other, true),
        ("k", Arc::clone(keys), true),
    ]);
    footer_of(&rows.unwrap(), properties)
}

fn footer_of(rows: &RecordBatch, properties: WriterPropertiesBuilder) -> ParquetMetaData {
    let mut bytes = Vec::new();
    let properties = properties.build();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .parse_and_finish(&Bytes::from(bytes))
        .unwrap()
}

/// The ranges of keys, so many in each, added in two parts.
fn ranges(keys: &ArrayRef, each: u64) -> Ranges {
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let mut ranges = Ranges::new(&column(keys.data_type()), each, &pool).unwrap();
    let middle = keys.len() / 3;
    ranges.add(&keys.slice(0, middle)).unwrap();
    ranges
        .add(&keys.slice(middle, keys.len() - middle))
        .unwrap();
    ranges.end().unwrap();
    ranges
}

fn scalars(values: &ArrayRef) -> Vec<ScalarValue> {
    (0..values.len())
        .map(|row| ScalarValue::try_from_array(values, row).unwrap())
        .collect()
}

fn column(of: &DataType) -> Field {
    Field::new("k", of.clone(), true)
}

/// The candidates, after a look whether a row was lost.
fn candidates(
    wanted: &ArrayRef,
    each: u64,
    footer: &ParquetMetaData,
    keys: &ArrayRef,
) -> RoaringTreemap {
    let of = wanted.data_type();
    let (shown, rows) = ranges(wanted, each).candidates(footer, &column(of), Mode::None);
    assert_eq!(rows, keys.len() as u64);
    assert!(shown.max().is_none_or(|last| last < rows));
    let wanted = scalars(wanted);
    // What an older file has in another type, scans cast.
    for (row, key) in scalars(&cast(keys, of).unwrap()).iter().enumerate() {
        let lost = wanted.contains(key) && !shown.contains(row as u64);
        assert!(!lost, "{key} in row {row} of {of}");
    }
    shown
}

/// Whether a key between the least and the greatest of these is wanted; `None` where all are NULL.
fn met(wanted: &[ScalarValue], each: u64, keys: &[ScalarValue]) -> Option<bool> {
    let known = || keys.iter().filter(|key| !key.is_null());
    let least = known().reduce(|a, b| if b < a { b } else { a })?;
    let greatest = known().reduce(|a, b| if b > a { b } else { a })?;
    let mut ranges = wanted.chunks(each as usize);
    Some(ranges.any(|range| range.last() >= Some(least) && range.first() <= Some(greatest)))
}

#[test]
fn pages_are_candidates_by_their_bounds() {
    let mut seed = StdRng::seed_from_u64(3);
    let (mut some, mut all) = (0, 0);
    for of in types() {
        for (sorted, nulls, many) in [
            (true, 0, 3),
            (true, 20, 12),
            (false, 0, 2),
            (true, 70, 1),
            (false, 95, 5),
            (true, 0, 60),
        ] {
            let mut numbers = random(&mut seed, 500, nulls);
            if sorted {
                numbers.sort();
            }
            let keys = values(&of, &numbers);
            let footer = footer(&keys, properties());
            let wanted = sort(&values(&of, &random(&mut seed, many, 0)), None).unwrap();
            for each in [1, 3] {
                let shown = candidates(&wanted, each, &footer, &keys);
                (some, all) = (some + shown.len(), all + keys.len() as u64);
                let (keys, wanted) = (scalars(&keys), scalars(&wanted));
                let pages = keys
                    .chunks(GROUP_ROWS)
                    .flat_map(|group| group.chunks(PAGE_ROWS));
                let mut begin = 0;
                for page in pages {
                    let end = begin + page.len() as u64;
                    let visible = shown.range_cardinality(begin..end);
                    if let Some(met) = met(&wanted, each, page) {
                        let expected = if met { end - begin } else { 0 };
                        assert_eq!(visible, expected, "{of}: {wanted:?} in {page:?}");
                    }
                    begin = end;
                }
            }
        }
    }
    assert!(some > 0 && some < all * 9 / 10, "{some} of {all}");
}

#[test]
fn without_an_index_row_groups_are_candidates() {
    let mut seed = StdRng::seed_from_u64(4);
    for of in types() {
        let mut numbers = random(&mut seed, 500, 10);
        numbers.sort();
        let keys = values(&of, &numbers);
        let chunks = properties().set_statistics_enabled(EnabledStatistics::Chunk);
        let footer = footer(&keys, chunks);
        let wanted = sort(&values(&of, &random(&mut seed, 3, 0)), None).unwrap();
        let shown = candidates(&wanted, 1, &footer, &keys);
        let (keys, wanted) = (scalars(&keys), scalars(&wanted));
        for (at, group) in keys.chunks(GROUP_ROWS).enumerate() {
            let begin = (at * GROUP_ROWS) as u64;
            let visible = shown.range_cardinality(begin..begin + group.len() as u64);
            // One of NULLs alone has no bounds.
            let met = met(&wanted, 1, group).unwrap_or(true);
            let expected = if met { group.len() as u64 } else { 0 };
            assert_eq!(visible, expected, "{of}: {wanted:?} in {group:?}");
        }
    }
}

#[test]
fn what_has_no_bounds_may_have_any_key() {
    let keys = values(
        &DataType::Int64,
        &(0..200).map(|n| Some(n % 100)).collect::<Vec<_>>(),
    );
    let wanted = values(&DataType::Int64, &[Some(-5)]);
    let all = |footer: &ParquetMetaData| candidates(&wanted, 1, footer, &keys).len() == 200;
    let bounded = footer(&keys, properties());
    assert_eq!(candidates(&wanted, 1, &bounded, &keys).len(), 0);
    // Of a discreet column.
    let none = properties().set_statistics_enabled(EnabledStatistics::None);
    assert!(all(&footer(&keys, none)));

    // By nobody knows which order.
    let file = bounded.file_metadata();
    let unordered = FileMetaData::new(
        file.version(),
        file.num_rows(),
        None,
        None,
        file.schema_descr_ptr(),
        None,
    );
    let with = |file: FileMetaData| {
        ParquetMetaDataBuilder::new(file)
            .set_row_groups(bounded.row_groups().to_vec())
            .set_column_index(bounded.column_index().cloned())
            .set_offset_index(bounded.offset_index().cloned())
            .build()
    };
    assert_eq!(candidates(&wanted, 1, &with(file.clone()), &keys).len(), 0);
    assert!(all(&with(unordered)));

    // Of a column that the file lacks.
    let lacking = Field::new("l", DataType::Int64, true);
    let (shown, _) = ranges(&wanted, 1).candidates(&bounded, &lacking, Mode::None);
    assert_eq!(shown.len(), 200);
}

#[test]
fn bounds_of_a_widened_column_are_cast() {
    let numbers: Vec<Option<i64>> = (0..200).map(|n| Some(n / 2)).collect();
    let instant = DataType::Timestamp(TimeUnit::Microsecond, None);
    for (file, table) in [
        (DataType::Int8, DataType::Int64),
        (DataType::Int32, DataType::Int64),
        (DataType::Int32, DataType::Decimal128(15, 2)),
        (DataType::Decimal128(5, 1), DataType::Decimal128(12, 4)),
        (DataType::Date32, instant),
    ] {
        let keys = values(&file, &numbers);
        let footer = footer(&keys, properties());
        let wanted = cast(&values(&file, &[Some(33), Some(70)]), &table).unwrap();
        let shown = candidates(&wanted, 1, &footer, &keys);
        assert_eq!(shown.len(), 2 * PAGE_ROWS as u64, "{file} to {table}");
    }
    // A type that has nothing to do with the table's tells nothing.
    let keys = values(&DataType::Boolean, &numbers);
    let wanted = values(&DataType::Date32, &[Some(3)]);
    let (shown, _) = ranges(&wanted, 1).candidates(
        &footer(&keys, properties()),
        &column(&DataType::Date32),
        Mode::None,
    );
    assert_eq!(shown.len(), 200);
}

#[test]
fn cut_bounds_lose_no_key() {
    let text = |n: i64| format!("{}{n:03}", "ä long beginning ".repeat(n as usize / 40));
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..200).map(text)));
    let keys = sort(&keys, None).unwrap();
    let cut = properties()
        .set_column_index_truncate_length(Some(8))
        .set_statistics_truncate_length(Some(8));
    let footer = footer(&keys, cut);
    let mut shown = Vec::new();
    for n in [0, 41, 99, 130, 199] {
        let wanted: ArrayRef = Arc::new(StringViewArray::from_iter_values([text(n)]));
        shown.push(candidates(&wanted, 1, &footer, &keys).len());
    }
    assert!(shown.iter().any(|rows| *rows < 100), "{shown:?}");
}

#[test]
fn columns_are_found_as_files_call_them() {
    let keys = values(&DataType::Int64, &[Some(1), Some(2)]);
    let fields = Fields::from(vec![
        Field::new("other", DataType::Int64, true),
        Field::new("k", DataType::Int64, true),
    ]);
    let mut max_id = 0;
    let mapped = mapping::assign(&fields, &mut max_id, &mut |name| format!("col-{name}"));
    let wanted = ranges(&values(&DataType::Int64, &[Some(9)]), 1);
    let none = |file: Vec<Field>, mode: Mode| {
        let columns = vec![Arc::clone(&keys), Arc::clone(&keys)];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(file)), columns).unwrap();
        let footer = footer_of(&rows, properties());
        let (shown, _) = wanted.candidates(&footer, &mapped[1], mode);
        shown.is_empty()
    };
    let called = |name: &str, id: Option<&str>| {
        let field = Field::new(name, DataType::Int64, true);
        let id = id.map(|id| ("PARQUET:field_id".to_owned(), id.to_owned()));
        field.with_metadata(id.into_iter().collect())
    };
    let others = || called("x", None);
    assert!(none(vec![others(), called("col-k", None)], Mode::Name));
    assert!(!none(vec![others(), called("k", None)], Mode::Name));
    assert!(none(
        vec![called("y", Some("2")), called("x", Some("1"))],
        Mode::Id
    ));
    assert!(!none(vec![called("col-k", Some("3")), others()], Mode::Id));
    assert!(none(vec![others(), called("col-k", None)], Mode::Id));
}

#[test]
fn few_keys_are_told_one_by_one() {
    let numbers: Vec<Option<i64>> = (0..60).map(|n| Some(n / 3)).collect();
    let listed = ranges(&values(&DataType::Int64, &numbers), 1)
        .listed()
        .unwrap();
    let expected = (0_i64..20).map(lit).collect();
    assert_eq!(listed, Some(ident("k").in_list(expected, false)));
    let more: Vec<Option<i64>> = (0..21).map(Some).collect();
    let more = values(&DataType::Int64, &more);
    assert_eq!(ranges(&more, 1).listed().unwrap(), None);
    assert_eq!(ranges(&more.slice(0, 4), 2).listed().unwrap(), None);
}
