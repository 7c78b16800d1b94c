//! The aggregates over every split of their rows, over types, and as SQL calls them.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray,
};
use datafusion::arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Accumulator;

use super::*;
use crate::tests::{context, rows};

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn fresh(name: &str, arrays: &[ArrayRef]) -> Box<dyn Accumulator> {
    let functions = functions();
    let function = functions.iter().find(|one| one.name() == name).unwrap();
    let fields: Vec<FieldRef> = arrays
        .iter()
        .map(|array| Arc::new(Field::new("x", array.data_type().clone(), true)))
        .collect();
    let args = AccumulatorArgs {
        return_field: function.return_field(&fields).unwrap(),
        schema: &Schema::empty(),
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name,
        is_distinct: false,
        exprs: &[],
        expr_fields: &fields,
    };
    function.accumulator(args).unwrap()
}

fn at_once(name: &str, arrays: &[ArrayRef]) -> ScalarValue {
    let mut all = fresh(name, arrays);
    all.update_batch(arrays).unwrap();
    all.evaluate().unwrap()
}

fn merge(into: &mut dyn Accumulator, from: &mut dyn Accumulator) {
    let states = from.state().unwrap();
    let states: Vec<ArrayRef> = states.iter().map(|one| one.to_array().unwrap()).collect();
    into.merge_batch(&states).unwrap();
}

/// The rows cut into batches, dealt to several accumulators, which are merged in the end.
fn in_parts(name: &str, arrays: &[ArrayRef], dice: &mut Dice) -> ScalarValue {
    let len = arrays[0].len();
    let mut hands: Vec<_> = (0..=dice.below(4)).map(|_| fresh(name, arrays)).collect();
    let mut start = 0;
    while start < len {
        let rows = (dice.below(len as u64) as usize + 1).min(len - start);
        let batch: Vec<ArrayRef> = arrays.iter().map(|one| one.slice(start, rows)).collect();
        let hand = dice.below(hands.len() as u64) as usize;
        hands[hand].update_batch(&batch).unwrap();
        if dice.below(3) == 0 {
            // As a window that grows does: what was answered must not change what comes.
            hands[hand].evaluate().unwrap();
        }
        start += rows;
    }
    let mut all = fresh(name, arrays);
    for hand in &mut hands {
        merge(all.as_mut(), hand.as_mut());
    }
    all.evaluate().unwrap()
}

#[test]
fn every_split_of_the_rows_gives_the_same() {
    let mut dice = Dice(0x5eed);
    for round in 0..120 {
        let len = [0, 1, 2, 40, 3000, 9000][round % 6];
        // From mostly repeated to hardly ever.
        let values = [3, 1 << 20, 1 << 60][round % 3];
        let mut column = || -> Vec<Option<i64>> {
            (0..len)
                .map(|_| (dice.below(10) > 0).then(|| dice.below(values) as i64 - 5))
                .collect()
        };
        let (first, second) = (column(), column());
        let numbers: ArrayRef = Arc::new(Int64Array::from(first.clone()));
        let others: ArrayRef = Arc::new(Int64Array::from(second.clone()));
        let texts = second
            .iter()
            .map(|value| value.map(|value| value.to_string()));
        let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
        let floats = first
            .iter()
            .map(|value| value.map(|value| (value as f64).sqrt()));
        let floats: ArrayRef = Arc::new(floats.collect::<Float64Array>());

        let nulls = first.iter().filter(|value| value.is_none()).count() as i64;
        let nans = first.iter().flatten().filter(|value| **value < 0).count() as i64;
        let fraction = (len > 0).then(|| nulls as f64 / len as f64);
        let once = first.iter().flatten().collect::<HashSet<_>>().len() as i64;
        let once = (nulls < len as i64).then_some(once + nulls == len as i64);
        let pairs = first.iter().zip(&second);
        let pairs: Vec<_> = pairs
            .filter_map(|(first, second)| Some(((*first)?, (*second)?)))
            .collect();
        let paired = pairs.iter().collect::<HashSet<_>>().len() == pairs.len();
        let paired = (!pairs.is_empty()).then_some(paired);

        for (name, arrays, expected) in [
            (
                "null_count",
                vec![Arc::clone(&numbers)],
                ScalarValue::from(nulls),
            ),
            ("null_fraction", vec![Arc::clone(&texts)], {
                let nulls = second.iter().filter(|value| value.is_none()).count();
                ScalarValue::Float64((len > 0).then(|| nulls as f64 / len as f64))
            }),
            (
                "null_fraction",
                vec![Arc::clone(&numbers)],
                ScalarValue::Float64(fraction),
            ),
            ("nan_count", vec![floats], ScalarValue::from(nans)),
            (
                "nan_count",
                vec![Arc::clone(&texts)],
                ScalarValue::from(0_i64),
            ),
            (
                "is_unique",
                vec![Arc::clone(&numbers)],
                ScalarValue::Boolean(once),
            ),
            (
                "is_unique",
                vec![Arc::clone(&numbers), others],
                ScalarValue::Boolean(paired),
            ),
            (
                "is_unique",
                vec![numbers, texts],
                ScalarValue::Boolean(paired),
            ),
        ] {
            assert_eq!(at_once(name, &arrays), expected, "{name} round {round}");
            let parts = in_parts(name, &arrays, &mut dice);
            assert_eq!(parts, expected, "{name} round {round} in parts");
        }
    }
}

#[test]
fn one_repeated_key_among_many_is_found_and_memory_is_that_of_the_keys() {
    let many = 200_000;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..many));
    let mut unique = fresh("is_unique", &[Arc::clone(&keys)]);
    for start in (0..many as usize).step_by(1000) {
        unique.update_batch(&[keys.slice(start, 1000)]).unwrap();
    }
    assert_eq!(unique.evaluate().unwrap(), ScalarValue::from(true));
    let bytes = 8 * many as usize;
    let size = unique.size();
    assert!(
        size >= bytes && size < bytes + bytes / 3,
        "{size} of {bytes}"
    );
    let one: ArrayRef = Arc::new(Int64Array::from(vec![123_456]));
    let mut other = fresh("is_unique", &[Arc::clone(&one)]);
    other.update_batch(&[Arc::clone(&one)]).unwrap();
    merge(unique.as_mut(), other.as_mut());
    assert_eq!(unique.evaluate().unwrap(), ScalarValue::from(false));
    // Nothing can change that any more.
    assert!(unique.size() < 1000, "{}", unique.size());
    unique.update_batch(&[keys]).unwrap();
    assert!(unique.size() < 1000, "{}", unique.size());
    let mut last = fresh("is_unique", &[Arc::clone(&one)]);
    merge(last.as_mut(), unique.as_mut());
    assert_eq!(last.evaluate().unwrap(), ScalarValue::from(false));
}

#[test]
fn keys_made_to_collide_are_told_apart_in_time() {
    // Unmixed, so that all of them start in one slot of one part.
    let mut seen = seen::Seen::<u64>::new();
    seen.extend((0..300_000).map(|key: u64| key << 24));
    assert!(!seen.repeats());
    seen.extend(std::iter::once(77 << 24));
    assert!(seen.repeats());
}

#[test]
fn a_key_takes_in_every_bit() {
    let decimals = vec![1, 1 << 64, (1 << 64) + 1, i128::MAX, -1, 0];
    let decimals: ArrayRef = Arc::new(Decimal128Array::from(decimals));
    assert_eq!(at_once("is_unique", &[decimals]), ScalarValue::from(true));
    let ends = vec![i64::MIN, i64::MAX, 0, -1, 1];
    let (ends, turned): (ArrayRef, ArrayRef) = (
        Arc::new(Int64Array::from(ends.clone())),
        Arc::new(Int64Array::from_iter_values(ends.into_iter().rev())),
    );
    assert_eq!(
        at_once("is_unique", &[ends, turned]),
        ScalarValue::from(true)
    );
    let nothing: ArrayRef = Arc::new(Int64Array::from(vec![None; 3]));
    assert_eq!(at_once("is_unique", &[nothing]), ScalarValue::Boolean(None));
}

#[tokio::test]
async fn equal_values_of_every_type_repeat() {
    let context = context();
    for (different, same) in [
        ("1, 2, -1", "1, 1"),
        (
            "arrow_cast(1, 'Int8'), arrow_cast(-1, 'Int8')",
            "arrow_cast(7, 'Int8'), arrow_cast(7, 'Int8')",
        ),
        (
            "arrow_cast(1, 'UInt16'), arrow_cast(2, 'UInt16')",
            "arrow_cast(7, 'UInt16'), arrow_cast(7, 'UInt16')",
        ),
        ("true, false", "true, true"),
        (
            "CAST(0.0 AS DOUBLE), CAST('NaN' AS DOUBLE), CAST('inf' AS DOUBLE)",
            "CAST(0.0 AS DOUBLE), CAST('-0' AS DOUBLE)",
        ),
        (
            "CAST(1 AS FLOAT), CAST(2 AS FLOAT)",
            "CAST('NaN' AS FLOAT), -CAST('NaN' AS FLOAT)",
        ),
        (
            "arrow_cast(CAST(1 AS FLOAT), 'Float16')",
            "arrow_cast(CAST(0 AS FLOAT), 'Float16'), arrow_cast(CAST('-0' AS FLOAT), 'Float16')",
        ),
        (
            "CAST(1.25 AS DECIMAL(38, 2)), CAST(1.26 AS DECIMAL(38, 2))",
            "CAST(1 AS DECIMAL(38, 2)), CAST(1 AS DECIMAL(38, 2))",
        ),
        (
            "CAST(1.25 AS DECIMAL(60, 2)), CAST(1.26 AS DECIMAL(60, 2))",
            "CAST(1 AS DECIMAL(60, 2)), CAST(1 AS DECIMAL(60, 2))",
        ),
        (
            "DATE '2024-01-01', DATE '2024-01-02'",
            "DATE '2024-01-01', DATE '2024-01-01'",
        ),
        (
            "TIMESTAMP '2024-01-01 00:00:00', TIMESTAMP '2024-01-01 00:00:01'",
            "TIMESTAMP '2024-01-01 00:00:00', TIMESTAMP '2024-01-01 00:00:00'",
        ),
        (
            "INTERVAL '1 day', INTERVAL '1 month'",
            "INTERVAL '1 day', INTERVAL '1 day'",
        ),
        ("'', 'a', 'ab'", "'a', 'b', 'a'"),
        (
            "arrow_cast('a', 'Utf8View'), arrow_cast('b', 'Utf8View')",
            "arrow_cast('a', 'Utf8View'), arrow_cast('a', 'Utf8View')",
        ),
        (
            "arrow_cast('a', 'Dictionary(Int32, Utf8)'), arrow_cast('b', 'Dictionary(Int32, Utf8)')",
            "arrow_cast('a', 'Dictionary(Int32, Utf8)'), arrow_cast('a', 'Dictionary(Int32, Utf8)')",
        ),
        ("X'00', X'0000', X''", "X'00', X'00'"),
        ("[1, 2], [1], [2, 1], [1, NULL]", "[1, NULL], [1, NULL]"),
        (
            "[CAST(1 AS DOUBLE)], [CAST(2 AS DOUBLE)]",
            "[CAST(0 AS DOUBLE)], [CAST('-0' AS DOUBLE)]",
        ),
        (
            "named_struct('a', 1, 'b', 'x'), named_struct('a', 1, 'b', 'y')",
            "named_struct('a', 1, 'b', CAST('NaN' AS DOUBLE)), named_struct('a', 1, 'b', CAST('NaN' AS DOUBLE))",
        ),
    ] {
        for (values, expected) in [(different, "true"), (same, "false")] {
            let list = values.to_owned() + ",";
            // One row for each value at the top: those between brackets stay together.
            let mut depth = 0;
            let mut row = String::new();
            let mut selects = Vec::new();
            for sign in list.chars() {
                match sign {
                    '(' | '[' => depth += 1,
                    ')' | ']' => depth -= 1,
                    ',' if depth == 0 => {
                        selects.push(format!("SELECT {} AS x", std::mem::take(&mut row)));
                        continue;
                    }
                    _ => {}
                }
                row.push(sign);
            }
            let from = selects.join(" UNION ALL ");
            for sql in [
                format!("SELECT is_unique(x) FROM ({from})"),
                format!("SELECT is_unique(x, 'k') FROM ({from})"),
                format!(
                    "SELECT is_unique(x) FROM ({from} UNION ALL SELECT NULL UNION ALL SELECT NULL)"
                ),
            ] {
                assert_eq!(rows(&context, &sql).await.unwrap(), [expected], "{sql}");
            }
        }
    }
}

#[tokio::test]
async fn groups_filters_and_windows() {
    let context = context();
    let table = "FROM (SELECT v % 7 AS g, CASE WHEN v % 3 = 0 THEN NULL WHEN v % 5 = 0 THEN CAST('NaN' AS DOUBLE) ELSE CAST(v % 40 AS DOUBLE) END AS x, v FROM generate_series(1, 100) AS t(v))";
    for call in [
        "null_count(x)",
        "null_fraction(x)",
        "nan_count(x)",
        "is_unique(x)",
        "is_unique(v, x)",
        "null_count(x) FILTER (WHERE v > 50)",
        "null_fraction(x) FILTER (WHERE v > 99)",
        "nan_count(x) FILTER (WHERE x IS NOT NULL)",
        "is_unique(x) FILTER (WHERE v < 10)",
        "is_unique(x ORDER BY v)",
        "approx_percentile(v, 0.5)",
    ] {
        let grouped = format!("SELECT {call} {table} GROUP BY g ORDER BY g");
        let grouped = rows(&context, &grouped).await.unwrap();
        for (group, found) in grouped.iter().enumerate() {
            let alone = format!("SELECT {call} {table} WHERE g = {group}");
            let alone = rows(&context, &alone).await.unwrap();
            assert_eq!(&alone, &[found.as_str()], "{call} {group}");
        }
        assert_eq!(grouped.len(), 7);
    }
    let x = "FROM (VALUES (1, 5), (2, NULL), (3, NULL), (4, 5)) AS t(n, x)";
    for (sql, expected) in [
        (
            "SELECT null_count(x) FROM (VALUES (1)) AS t(x) WHERE x > 1",
            vec!["0"],
        ),
        (
            "SELECT null_fraction(x) FROM (VALUES (1)) AS t(x) WHERE x > 1",
            vec!["NULL"],
        ),
        (
            "SELECT is_unique(x) FROM (VALUES (1)) AS t(x) WHERE x > 1",
            vec!["NULL"],
        ),
        ("SELECT is_unique(NULL)", vec!["NULL"]),
        ("SELECT null_count(NULL)", vec!["1"]),
        ("SELECT nan_count('NaN')", vec!["0"]),
        (
            "SELECT nan_count(arrow_cast(CAST('NaN' AS DOUBLE), 'Dictionary(Int32, Float64)'))",
            vec!["1"],
        ),
        (&format!("SELECT null_count(DISTINCT x) {x}"), vec!["1"]),
        (&format!("SELECT is_unique(DISTINCT x) {x}"), vec!["true"]),
        (
            &format!(
                "SELECT null_count(x) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) {x} ORDER BY n"
            ),
            vec!["0", "1", "2", "1"],
        ),
        (
            &format!("SELECT is_unique(x) OVER (ORDER BY n) {x} ORDER BY n"),
            vec!["true", "true", "true", "false"],
        ),
        (
            &format!("SELECT approx_percentile(x, 0.5) {x}"),
            vec!["5.0"],
        ),
    ] {
        assert_eq!(rows(&context, sql).await.unwrap(), expected, "{sql}");
    }
    for (sql, what) in [
        (
            format!("SELECT null_count(DISTINCT x), count(x) {x}"),
            "null_count(DISTINCT ..)",
        ),
        (
            format!("SELECT is_unique(DISTINCT x, n) {x}"),
            "is_unique(DISTINCT ..)",
        ),
        (format!("SELECT null_count(x, n) {x}"), "null_count"),
        (format!("SELECT is_unique() {x}"), "is_unique"),
    ] {
        let error = rows(&context, &sql).await.unwrap_err().strip_backtrace();
        assert!(error.contains(what), "{sql}: {error}");
    }
}
