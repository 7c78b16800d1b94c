use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::collect;
use datafusion::prelude::SessionContext;

use super::super::stages::{Received, Settled};
use super::super::validate::TableRules;
use super::CleanseAccount;
use crate::cleanse::compile::{Terms, compile};
use crate::cleanse::policy::{Columns, Policy, PolicyAction, PolicyScope};
use crate::error::Result;
use crate::quality::compile as rules;
use crate::quality::metric::Partitioning;
use crate::quality::past::Past;
use crate::quality::record::MetricValue;
use crate::quality::rule::{OnViolation, Over, Rule};
use crate::quality::{check, rule};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("email", DataType::Utf8View, true),
    ]))
}

fn policy(name: &str, which: &str, action: PolicyAction) -> Policy {
    let scope = PolicyScope::Keys {
        columns: vec!["id".into()],
        query: format!("SELECT id FROM privacy.requests WHERE {which}"),
    };
    Policy::new(name, scope, action)
}

/// Rows of a write in two partitions, put through both policies, these rules and these checks.
async fn write(asked: &[Rule], text: Option<&str>) -> (Vec<i64>, Result<Settled>) {
    let context = SessionContext::new();
    let privacy = Arc::new(MemorySchemaProvider::new());
    let catalog = context.catalog("datafusion").unwrap();
    catalog.register_schema("privacy", privacy).unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let keys = RecordBatch::try_from_iter([("id", keys)]).unwrap();
    let table = MemTable::try_new(keys.schema(), vec![vec![keys]]).unwrap();
    let name = TableReference::partial("privacy", "requests");
    context.register_table(name, Arc::new(table)).unwrap();

    let (state, columns) = (context.state(), schema());
    let policies = [
        policy(
            "clear",
            "id < 3",
            PolicyAction::Nullify {
                columns: Columns::Named(vec!["email".into()]),
            },
        ),
        policy("drop", "id = 3", PolicyAction::DeleteRows),
    ];
    let terms = Terms {
        state: &state,
        table: "shop.t",
        schema: &columns,
        partition_columns: &[],
    };
    let cleansing = CleanseAccount::new(compile(terms, &policies).await.unwrap());
    let partitioning = Partitioning {
        columns: Vec::new(),
        spell: |_| Ok(None),
    };
    let terms = rules::Terms {
        state: &state,
        table: "shop.t",
        schema: &columns,
        partitioning: &partitioning,
        checks: &[],
    };
    let compiled = rules::compile(terms, asked, false).await.unwrap();
    let checks = text.map(|text| check::compile(&state, "shop.t", "c", text, &columns).unwrap());
    let table = TableRules {
        table: "shop.t".into(),
        schema: schema(),
        journal: None,
        checks: checks.into_iter().collect(),
        condition: false,
        quarantines_invalid: false,
    };
    let part = |ids: Vec<i64>, emails: Vec<Option<&str>>| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(ids)),
            Arc::new(StringViewArray::from_iter(emails)),
        ];
        vec![RecordBatch::try_new(schema(), columns).unwrap()]
    };
    let given = [
        part(vec![1, 2, 3], vec![Some("a"), None, Some("c")]),
        part(vec![4, 5], vec![None, Some("e")]),
    ];
    let input = MemorySourceConfig::try_new_exec(&given, schema(), None).unwrap();
    let written = crate::WriteContext::new("shop.t", schema(), "WRITE", 0, None);
    let stage = Received::rows(input)
        .validate(Arc::new(table), cleansing)
        .unwrap()
        .hooks(&[], &written)
        .unwrap()
        .cleanse()
        .check(compiled);
    let run = stage.account.begin(&context.task_ctx()).await.unwrap();
    let rows = match collect(Arc::clone(&stage.plan), context.task_ctx()).await {
        Ok(rows) => rows,
        Err(error) => return (Vec::new(), Err(error.into())),
    };
    let mut left = Vec::new();
    for batch in &rows {
        assert_eq!(batch.schema().fields(), schema().fields());
        let (ids, emails) = (batch.column(0), batch.column(1).as_string_view());
        for (row, id) in ids.as_primitive::<Int64Type>().values().iter().enumerate() {
            assert!(*id > 2 || emails.is_null(row), "row {id} has an email");
            left.push(*id);
        }
    }
    left.sort_unstable();
    (left, run.settle(&Past::default()))
}

#[tokio::test]
async fn each_row_is_written_dropped_or_erased() {
    let asked = Rule {
        on_violation: OnViolation::DropRow,
        on_null: rule::OnNull::Violate,
        ..Rule::new("given", "email IS NOT NULL")
    };
    let (left, settled) = write(&[asked], None).await;
    let settled = settled.unwrap();
    assert_eq!(left, [1, 2, 5]);
    assert_eq!((settled.rows_received, settled.rows_erased), (5, 1));
    assert_eq!((settled.rows_dropped, settled.rows_written), (1, 3));
    let did: Vec<_> = settled
        .policies
        .iter()
        .map(|of| {
            let name = of.policy.as_str();
            (
                name,
                of.keys,
                of.rows_matched,
                of.cells_changed,
                of.rows_erased,
            )
        })
        .collect();
    assert_eq!(did, [("clear", 2, 2, 1, 0), ("drop", 1, 1, 0, 1)]);
    // Rows 1 and 2 were not asked: what they lack was taken from them.
    let given = &settled.rules[0];
    assert_eq!(
        (given.rows_checked, given.violations, given.nulls),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn numbers_leave_out_cells_that_were_cleansed() {
    let missing = "sum(CASE WHEN email IS NULL THEN 1 ELSE 0 END)";
    let asked = Rule::new("few", format!("{missing} < 2 AND count(*) = 4"));
    let (left, settled) = write(&[asked], None).await;
    let settled = settled.unwrap();
    assert_eq!(left, [1, 2, 4, 5]);
    assert!(settled.refused.is_none(), "{:?}", settled.refused);
    let metric = |name: &str| {
        let found = |metric: &&MetricValue| metric.metric == name && metric.over == Over::Written;
        let found = settled.metrics.iter().find(found);
        found.and_then(|metric| metric.value.clone())
    };
    assert_eq!(metric(missing).as_deref(), Some("1"));
    assert_eq!(metric("count(*)").as_deref(), Some("4"));
    assert_eq!(metric("cleansed_count(email)").as_deref(), Some("2"));
}

#[tokio::test]
async fn without_rules_the_cells_are_counted_all_the_same() {
    let (left, settled) = write(&[], None).await;
    let settled = settled.unwrap();
    assert_eq!((left.len(), settled.rows_written), (4, 4));
    assert_eq!(settled.metrics[0].metric, "cleansed_count(email)");
}

#[tokio::test]
async fn what_a_policy_leaves_must_hold_the_checks() {
    let (_, settled) = write(&[], Some("email IS NOT NULL OR id = 2 OR id = 4")).await;
    let error = settled.unwrap_err().to_string();
    assert!(
        error.contains(
            "cleanse policy clear of table shop.t broke a constraint: CHECK c (email IS NOT NULL OR id = 2 OR id = 4) is not true for id = 1, email = NULL (1 row)"
        ),
        "{error}"
    );
}
