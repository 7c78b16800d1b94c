//! Tables whose columns had narrower types when their older files were written.

use datafusion::arrow::array::{Float32Array, Int32Array};

use super::*;
use crate::table::widening;

/// A column that was of type `from`, and the values its older file holds.
fn old(name: &str, from: DataType, to: &DataType, values: ArrayRef) -> (Field, ArrayRef) {
    let field = Field::new(name, from, true);
    assert!(widening::allowed(field.data_type(), to), "{field}");
    (widening::widen(&field, to).unwrap(), values)
}

fn columns() -> Vec<(Field, ArrayRef)> {
    let numbers = || (-100..100).map(|n| (n % 7 != 0).then_some(n));
    let integers = || Arc::new(numbers().collect::<Int32Array>()) as ArrayRef;
    let floats: Float32Array = numbers().map(|n| n.map(|n| n as f32 / 10.0)).collect();
    let decimals: Decimal128Array = numbers().map(|n| n.map(i128::from)).collect();
    let days: Date32Array = numbers().collect();
    let ntz = DataType::Timestamp(TimeUnit::Microsecond, None);
    vec![
        old("i", DataType::Int32, &DataType::Int64, integers()),
        old("d", DataType::Int32, &DataType::Float64, integers()),
        old(
            "n",
            DataType::Int32,
            &DataType::Decimal128(14, 2),
            integers(),
        ),
        old("f", DataType::Float32, &DataType::Float64, Arc::new(floats)),
        old(
            "m",
            DataType::Decimal128(9, 2),
            &DataType::Decimal128(12, 4),
            Arc::new(decimals.with_precision_and_scale(9, 2).unwrap()),
        ),
        old("t", DataType::Date32, &ntz, Arc::new(days)),
    ]
}

/// Statistics of floats as other writers leave them: with the digits a float needs.
fn with_floats(stats: &str) -> String {
    let mut stats: serde_json::Value = serde_json::from_str(stats).unwrap();
    stats["minValues"]["f"] = serde_json::json!(-10.0);
    stats["maxValues"]["f"] = serde_json::json!(9.9);
    stats.to_string()
}

#[tokio::test]
async fn narrow_values_are_read_as_wide_ones_and_pruned_rightly() {
    let columns = columns();
    let schema = Arc::new(Schema::new(
        columns
            .iter()
            .map(|(field, _)| field.clone())
            .collect::<Vec<_>>(),
    ));
    let plain: Vec<Field> = columns
        .iter()
        .map(|(field, array)| field.clone().with_data_type(array.data_type().clone()))
        .map(|field| field.with_metadata(Default::default()))
        .collect();
    let narrow = RecordBatch::try_new(
        Arc::new(Schema::new(plain)),
        columns.iter().map(|(_, array)| Arc::clone(array)).collect(),
    )
    .unwrap();
    let logical = mapping::logical(&schema);
    let wide = RecordBatch::try_new(
        Arc::clone(&logical),
        logical
            .fields()
            .iter()
            .zip(narrow.columns())
            .map(|(field, array)| cast(array, field.data_type()).unwrap())
            .collect(),
    )
    .unwrap();
    let mut build = Build::new(Arc::clone(&logical), &[]);
    build.stored = schema;
    let stats = with_floats(&stats_json(&narrow));
    build
        .add_bytes(parquet(&narrow), Some(stats), BTreeMap::new(), &[])
        .await;
    build.visible.push(wide.clone());
    build.add(File::of(wide)).await;
    for pushdown in ["false", "true"] {
        let context = build.context(&[("datafusion.execution.parquet.pushdown_filters", pushdown)]);
        for predicate in [
            "true",
            "i = 50",
            "i > 4000000000",
            "i between -3 and 3",
            "i in (1, 99, 5000000000)",
            "d = 50.0",
            "d < -99.5",
            "d > 49.5 and d < 50.5",
            "n = 50",
            "n = 50.5",
            "n > 98.99",
            // As a float 9.9 is 9.8999996, and 0.1 is 0.100000001.
            "f >= 9.9",
            "f > 9.8999995",
            "f = 0.1",
            "f = cast(cast(0.1 as real) as double)",
            "m = 0.5",
            "m = 0.5001",
            "m > 0.9899",
            "t = timestamp '1970-02-01 00:00:00'",
            "t = timestamp '1970-02-01 12:00:00'",
            "t > timestamp '1970-04-09 23:00:00'",
            "t < timestamp '1969-09-23 00:00:00.000001'",
            "t is null and i is null",
        ] {
            same(&context, &format!("select * from {{}} where {predicate}")).await;
        }
        same(
            &context,
            "select min(i), max(i), min(f), max(f), min(m), max(m), min(t), max(t), count(n) from {}",
        )
        .await;
    }
    let context = build.context(&[]);
    let found = run(&context, "select f from t where f >= 9.899 limit 1").await;
    assert_eq!(found[0].num_rows(), 1);
    // Of decimals the wide file has no statistics here.
    for (predicate, files) in [
        ("i > 100", 0),
        // Nobody says of these files that they hold no NaN.
        ("d > 100", 2),
        ("m > 1", 1),
        ("n < -101", 0),
    ] {
        let sql = format!("select i from t where {predicate}");
        assert_eq!(files_read(&context, &sql).await, files, "{predicate}");
    }
}
