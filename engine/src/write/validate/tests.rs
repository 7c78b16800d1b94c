//! What the first stage lets through and how exactly it tells what it does not.

use super::super::stages::Received;
use super::*;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::{collect_partitioned, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::error::ErrorKind;
use crate::quality::check;
use crate::quality::compile::Compiled;
use crate::quality::past::Past;
use crate::shown::sql_name;
use crate::write::stages::{Checked, Settled};

fn rules() -> Arc<TableRules> {
    let address = Fields::from(vec![Field::new("zip", DataType::Int32, false)]);
    let schema = Arc::new(Schema::new(vec![
        Field::new("order_id", DataType::Int64, false),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("note", DataType::Utf8View, true),
        Field::new("address", DataType::Struct(address), true),
    ]));
    let state = SessionContext::new().state();
    let check = |name: &str, text: &str| {
        check::compile(&state, "shop.orders", name, text, &schema).unwrap()
    };
    let checks = vec![
        check("positive", "amount >= 0"),
        check("short", "coalesce(length(note), 0) < 5"),
    ];
    Arc::new(TableRules {
        table: "shop.orders".into(),
        schema,
        journal: None,
        checks,
        condition: false,
        quarantines_invalid: false,
    })
}

type Row<'a> = (
    Option<i32>,
    &'a str,
    Option<&'a str>,
    Option<Option<&'a str>>,
);

/// Rows whose types are all others than those of the table.
fn batch(rows: &[Row<'_>]) -> RecordBatch {
    let zips: StringArray = rows.iter().map(|row| row.3.flatten()).collect();
    let present: Vec<bool> = rows.iter().map(|row| row.3.is_some()).collect();
    let zip = Arc::new(Field::new("zip", DataType::Utf8, true));
    let address = StructArray::new(vec![zip].into(), vec![Arc::new(zips)], Some(present.into()));
    let notes: DictionaryArray<arrow::datatypes::Int8Type> = rows.iter().map(|row| row.2).collect();
    RecordBatch::try_from_iter_with_nullable([
        (
            "a",
            Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>()) as ArrayRef,
            true,
        ),
        (
            "b",
            Arc::new(rows.iter().map(|row| Some(row.1)).collect::<StringArray>()),
            true,
        ),
        ("c", Arc::new(notes), true),
        ("d", Arc::new(address), true),
    ])
    .unwrap()
}

const GOOD: Row<'static> = (Some(1), "1.50", Some("ok"), Some(Some("12345")));

fn stage(partitions: &[Vec<RecordBatch>]) -> Checked {
    let schema = batch(&[]).schema();
    let input = MemorySourceConfig::try_new_exec(partitions, schema, None).unwrap();
    let context =
        crate::WriteContext::new("shop.orders", Arc::clone(&rules().schema), "WRITE", 0, None);
    Received::rows(input)
        .validate(rules(), None)
        .unwrap()
        .hooks(&[], &context)
        .unwrap()
        .cleanse()
        .check(Compiled::none(Arc::clone(&rules().schema)))
}

async fn run(stage: &Checked) -> (Vec<RecordBatch>, Result<Settled>) {
    // Small batches, so that a partition has many.
    let context = SessionContext::new_with_config(SessionConfig::new().with_batch_size(2));
    let run = stage.account.begin(&context.task_ctx()).await.unwrap();
    let rows = collect_partitioned(Arc::clone(&stage.plan), context.task_ctx()).await;
    let rows = rows.unwrap().into_iter().flatten().collect();
    (rows, run.settle(&Past::default()))
}

async fn refusal(partitions: &[Vec<RecordBatch>]) -> Error {
    let error = run(&stage(partitions)).await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    error
}

#[tokio::test]
async fn good_rows_come_out_in_the_types_of_the_table() {
    let other = (Some(2), "20", None, None);
    let stage = stage(&[
        vec![batch(&[GOOD, other]), batch(&[])],
        vec![batch(&[GOOD])],
    ]);
    let (rows, settled) = run(&stage).await;
    let settled = settled.unwrap();
    assert_eq!((settled.rows_received, settled.hooks.len()), (3, 0));
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    for batch in rows {
        assert_eq!(batch.schema(), rules().schema);
    }
    let metrics = stage.plan.metrics().unwrap();
    assert_eq!(metrics.sum_by_name("rows_received").unwrap().as_usize(), 3);
}

#[tokio::test]
async fn a_second_run_counts_from_zero() {
    let stage = stage(&[vec![batch(&[GOOD])]]);
    for _ in 0..3 {
        assert_eq!(run(&stage).await.1.unwrap().rows_received, 1);
    }
}

#[tokio::test]
async fn every_partition_is_counted_and_the_first_example_told() {
    let null = (None, "1", None, None);
    let late = |text| (Some(7), text, None, None);
    let error = refusal(&[
        vec![
            batch(&[GOOD, late("1.005")]),
            batch(&[GOOD, late("x")]),
            batch(&[null]),
        ],
        vec![batch(&[late("1.2.3"), null, GOOD]), batch(&[null])],
    ])
    .await;
    assert_eq!(
        error.message(),
        "table shop.orders refuses 6 of 9 rows: column order_id is NOT NULL and has no value (3 rows)"
    );
    assert_eq!(
        error.detail().unwrap(),
        "column amount DECIMAL(12,2) cannot hold '1.005': digits after the point would be lost (3 rows)"
    );
}

#[tokio::test]
async fn a_check_is_told_with_the_values_it_reads() {
    let error = refusal(&[vec![batch(&[
        GOOD,
        (Some(2), "-3", None, None),
        (Some(3), "-4", Some("too long"), None),
    ])]])
    .await;
    assert_eq!(
        error.message(),
        "table shop.orders refuses 2 of 3 rows: CHECK positive (amount >= 0) is not true for amount = -3.00 (2 rows)"
    );
    assert_eq!(
        error.detail().unwrap(),
        "CHECK short (coalesce(length(note), 0) < 5) is not true for note = 'too long' (1 row)"
    );
}

#[tokio::test]
async fn checks_are_counted_beside_rows_that_do_not_even_fit() {
    let error = refusal(&[vec![batch(&[
        (Some(1), "no number", Some("too long"), None),
        (Some(2), "-1", None, None),
        (None, "-1", None, None),
    ])]])
    .await;
    assert!(error.message().contains("refuses 3 of 3 rows"), "{error}");
    assert!(
        error
            .detail()
            .unwrap()
            .contains("'no number': not a number (1 row)"),
        "{error}"
    );
    assert!(
        error.detail().unwrap().contains("amount = -1.00 (1 row)"),
        "{error}"
    );
}

#[tokio::test]
async fn nested_values_are_told_by_their_path() {
    let error = refusal(&[vec![batch(&[GOOD, (Some(2), "1", None, Some(Some("x")))])]]).await;
    let told = "column address.zip INT cannot hold 'x': not a number (1 row)";
    assert!(error.message().ends_with(told), "{error}");

    let error = refusal(&[vec![batch(&[GOOD, (Some(2), "1", None, Some(None))])]]).await;
    let told = "column address.zip INT cannot hold NULL: NOT NULL (1 row)";
    assert!(error.message().ends_with(told), "{error}");
}

#[tokio::test]
async fn nothing_passes_once_a_row_was_refused() {
    let bad = (None, "1", None, None);
    let stage = stage(&[vec![batch(&[GOOD]), batch(&[bad, GOOD]), batch(&[GOOD])]]);
    let (rows, settled) = run(&stage).await;
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert!(settled.unwrap_err().message().contains("1 of 4 rows"));
}

#[tokio::test]
async fn rows_that_were_not_all_read_are_not_settled() {
    let stage = stage(&[vec![batch(&[GOOD])], vec![batch(&[GOOD])]]);
    let context = SessionContext::new().task_ctx();
    let run = stage.account.begin(&context).await.unwrap();
    let first = stage.plan.execute(0, context).unwrap();
    datafusion::physical_plan::common::collect(first)
        .await
        .unwrap();
    let error = run.settle(&Past::default()).unwrap_err();
    assert!(error.message().contains("1 of 2 partitions"), "{error}");
}

#[tokio::test]
async fn a_stage_outside_of_a_begun_write_does_not_run() {
    let stage = stage(&[vec![batch(&[GOOD])]]);
    let context = || SessionContext::new().task_ctx();
    assert!(stage.plan.execute(0, context()).is_err());
    let run = stage.account.begin(&context()).await.unwrap();
    assert!(stage.account.begin(&context()).await.is_err());
    assert!(stage.plan.execute(0, context()).is_ok());
    drop(run);
    assert!(stage.plan.execute(0, context()).is_err());
}

#[test]
fn explain_shows_the_stage() {
    let stage = stage(&[vec![]]);
    let shown = displayable(stage.plan.as_ref()).indent(false).to_string();
    assert!(
        shown.starts_with(
            "ValidateExec: table=shop.orders, columns=4, not_null=[order_id], checks=[positive, short]\n"
        ),
        "{shown}"
    );
}

#[test]
fn what_no_row_can_satisfy_is_refused_when_planned() {
    let plan = |schema: Schema| {
        let input = MemorySourceConfig::try_new_exec(&[vec![]], Arc::new(schema), None).unwrap();
        Received::rows(input).validate(rules(), None).unwrap_err()
    };
    let error = plan(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    assert_eq!(
        error.message(),
        "table shop.orders has 4 columns, but 1 were given"
    );

    let mut fields: Vec<_> = batch(&[]).schema().fields().to_vec();
    fields[1] = Arc::new(Field::new("b", DataType::Boolean, true));
    let error = plan(Schema::new(fields.clone()));
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.message(),
        "table shop.orders, column amount: BOOLEAN does not convert to DECIMAL(12,2) without loss; CAST it in the query"
    );

    fields[1] = rules().schema.fields()[1].clone();
    let zip = Fields::from(vec![Field::new("zip", DataType::Date32, true)]);
    fields[3] = Arc::new(Field::new("d", DataType::Struct(zip), true));
    let error = plan(Schema::new(fields));
    assert!(
        error
            .message()
            .starts_with("table shop.orders, column address.zip: DATE"),
        "{error}"
    );
}

#[test]
fn types_are_named_as_in_sql() {
    let address = rules().schema.field(3).data_type().clone();
    assert_eq!(sql_name(&address), "STRUCT<zip INT>");
    assert_eq!(
        sql_name(&DataType::new_list(DataType::Utf8View, true)),
        "ARRAY<TEXT>"
    );
}
