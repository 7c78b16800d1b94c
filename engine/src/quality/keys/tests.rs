//! Keys of all types, what they take of memory, and what becomes of those that do not fit.

use super::*;
use arrow::array::{
    BinaryArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array,
    Int64Array, StringArray, StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool,
};

fn keys(types: &[DataType], columns: &[ArrayRef]) -> Keys {
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let keys = Keys::new(types, MemoryConsumer::new("keys").register(&pool)).unwrap();
    keys.add(columns).unwrap();
    keys
}

fn found(keys: &Keys, columns: &[ArrayRef]) -> Vec<Option<bool>> {
    keys.find(columns).unwrap().iter().collect()
}

/// What every key column must do, whatever its type: `values` holds a key, a NULL and another value.
fn one_column(values: ArrayRef) {
    let data_type = values.data_type().clone();
    let keys = keys(std::slice::from_ref(&data_type), &[values.slice(0, 2)]);
    let expected = [Some(true), None, Some(false)];
    assert_eq!(
        found(&keys, &[Arc::clone(&values)]),
        expected,
        "{data_type}"
    );
    // An array that begins within another.
    assert_eq!(
        found(&keys, &[values.slice(1, 2)]),
        expected[1..],
        "{data_type}"
    );
}

#[test]
fn every_type_is_found_again() {
    one_column(Arc::new(BooleanArray::from(vec![
        Some(true),
        None,
        Some(false),
    ])));
    one_column(Arc::new(Int8Array::from(vec![Some(-1), None, Some(0)])));
    one_column(Arc::new(Int32Array::from(vec![
        Some(i32::MIN),
        None,
        Some(0),
    ])));
    one_column(Arc::new(Int64Array::from(vec![
        Some(i64::MIN),
        None,
        Some(0),
    ])));
    one_column(Arc::new(UInt64Array::from(vec![
        Some(u64::MAX),
        None,
        Some(0),
    ])));
    one_column(Arc::new(Date32Array::from(vec![Some(-1), None, Some(0)])));
    one_column(Arc::new(TimestampMicrosecondArray::from(vec![
        Some(-1),
        None,
        Some(0),
    ])));
    one_column(Arc::new(Float32Array::from(vec![
        Some(1.5),
        None,
        Some(0.0),
    ])));
    one_column(Arc::new(Float64Array::from(vec![
        Some(1.5),
        None,
        Some(0.0),
    ])));
    one_column(Arc::new(StringArray::from(vec![Some("a"), None, Some("")])));
    one_column(Arc::new(StringViewArray::from(vec![
        Some("a"),
        None,
        Some(""),
    ])));
    one_column(Arc::new(BinaryArray::from(vec![
        Some(&b"\0"[..]),
        None,
        Some(b""),
    ])));
    for digits in [12, 18, 19, 38] {
        let values = Decimal128Array::from(vec![Some(-1), None, Some(0)]);
        one_column(Arc::new(
            values.with_precision_and_scale(digits, 2).unwrap(),
        ));
    }
}

#[test]
fn small_decimals_take_one_word() {
    let none: ArrayRef = Arc::new(Decimal128Array::from(Vec::<i128>::new()));
    let small = keys(&[DataType::Decimal128(18, 2)], &[Arc::clone(&none)]);
    assert!(matches!(small.0.known, Known::Word(_)));
    let wide = keys(&[DataType::Decimal128(19, 2)], &[none]);
    assert!(matches!(wide.0.known, Known::Hashed(..)));
}

#[test]
fn both_sides_are_compared_in_one_type() {
    let theirs = Arc::new(Int32Array::from(vec![1, -1]));
    let keys = keys(&[DataType::Int64], &[theirs]);
    let ours = Arc::new(Int64Array::from(vec![1, -1, 1 << 32, 0xffff_ffff]));
    let expected = [true, true, false, false].map(Some);
    assert_eq!(found(&keys, &[ours]), expected);
}

#[test]
fn what_does_not_fit_equals_nothing() {
    let theirs = Arc::new(StringArray::from(vec!["7", "no number"]));
    let keys = keys(&[DataType::Int64], &[theirs]);
    let ours = Arc::new(StringArray::from(vec![
        Some("7"),
        Some("0"),
        Some("no"),
        None,
    ]));
    let expected = [Some(true), Some(false), Some(false), None];
    assert_eq!(found(&keys, &[ours]), expected);
}

#[test]
fn floats_are_equal_where_their_values_are() {
    let nan = f64::from_bits(f64::NAN.to_bits() | 1);
    let theirs: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, f64::NAN]));
    let ours: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -nan, 1.0]));
    let expected = [true, true, false].map(Some);
    let alone = keys(&[DataType::Float64], &[Arc::clone(&theirs)]);
    assert_eq!(found(&alone, &[Arc::clone(&ours)]), expected);
    let text = |rows| Arc::new(StringArray::from(vec!["a"; rows])) as ArrayRef;
    let beside = keys(&[DataType::Float64, DataType::Utf8], &[theirs, text(2)]);
    assert_eq!(found(&beside, &[ours, text(3)]), expected);
}

#[test]
fn columns_keep_their_places() {
    let ints = |values: [Option<i64>; 4]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let a = ints([Some(1), Some(3), None, Some(-1)]);
    let b = ints([Some(2), Some(3), Some(5), Some(0)]);
    let expected = [Some(true), Some(true), None, Some(true)];
    for common in [DataType::Int32, DataType::Int64, DataType::Utf8] {
        let keys = keys(
            &[common.clone(), common.clone()],
            &[Arc::clone(&a), Arc::clone(&b)],
        );
        let same = [Arc::clone(&a), Arc::clone(&b)];
        assert_eq!(found(&keys, &same), expected, "{common}");
        let turned = [Arc::clone(&b), Arc::clone(&a)];
        let expected = [Some(false), Some(true), None, Some(false)];
        assert_eq!(found(&keys, &turned), expected, "{common}");
    }
}

fn taken<K: Key>(shards: &Shards<K>) -> usize {
    let sizes = shards.iter().map(|shard| shard.read().allocation_size());
    sizes.sum()
}

#[test]
fn memory_is_what_the_tables_take() {
    let numbers = |from: i64, to: i64| Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef;
    let keys = keys(&[DataType::Int64], &[numbers(0, 0)]);
    assert_eq!(keys.0.memory.size(), 0);
    let Known::Word(shards) = &keys.0.known else {
        panic!("{keys:?}");
    };
    for end in [1, 100, 10_000, 100_000] {
        keys.add(&[numbers(0, end)]).unwrap();
        assert_eq!(keys.0.memory.size(), taken(shards));
    }
    let before = keys.0.memory.size();
    assert!(before < 25 * 100_000, "{before}");
    keys.add(&[numbers(0, 100_000)]).unwrap();
    assert_eq!(keys.0.memory.size(), before);
    let answers = keys.find(&[numbers(-100, 100_100)]).unwrap();
    assert_eq!(answers.true_count(), 100_000);
}

#[test]
fn wide_keys_are_counted_too() {
    let names = (0..10_000).map(|number| format!("name {number}"));
    let keys = keys(
        &[DataType::Utf8],
        &[Arc::new(StringArray::from_iter_values(names))],
    );
    let Known::Hashed(shards, _) = &keys.0.known else {
        panic!("{keys:?}");
    };
    assert_eq!(keys.0.memory.size(), taken(shards));
    let held: usize = shards.iter().map(|shard| shard.read().len()).sum();
    assert_eq!(held, 10_000);
}

#[test]
fn more_than_memory_is_refused() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100_000));
    let memory = MemoryConsumer::new("keys").register(&pool);
    let keys = Keys::new(&[DataType::Int64], memory).unwrap();
    let many = Arc::new(Int64Array::from_iter_values(0..100_000));
    let error = keys.add(&[many]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(
        error.message().ends_with("bytes do not fit into memory"),
        "{error}"
    );
    drop(keys);
    assert_eq!(pool.reserved(), 0);
}

#[test]
fn keys_spread_over_the_tables() {
    let fullest = |keys: &mut dyn Iterator<Item = usize>| {
        let mut counts = [0; SHARDS];
        keys.for_each(|shard| counts[shard] += 1);
        counts.into_iter().max()
    };
    for step in [1_u64, 10, 64, 1000, 1 << 20, 1 << 32] {
        let words = fullest(&mut (0..6400).map(|key| (key * step).shard()));
        assert!(words < Some(400), "{step}: {words:?}");
        let twice = |key: u64| (u128::from(key * step) << 64) | u128::from(key * step);
        let wide = fullest(&mut (0..6400).map(|key| twice(key).shard()));
        assert!(wide < Some(400), "{step}: {wide:?}");
    }
}
