use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::apply::{Applied, Counts, Running};
use super::aside;
use super::compile::{Terms, compile, define};
use super::policy::{Columns, Policy, PolicyAction, PolicyScope};
use super::record::PolicyResult;
use crate::error::Result;
use crate::quality::failure::{self, Failure, quarantine_schema};
use crate::table::schema::TAGS_KEY;

fn schema() -> SchemaRef {
    let tagged = [(TAGS_KEY.to_owned(), "contact,pii".to_owned())];
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("email", DataType::Utf8View, true).with_metadata(tagged.clone().into()),
        Field::new("phone", DataType::Utf8View, true).with_metadata(tagged.into()),
        Field::new("name", DataType::Utf8View, false),
        Field::new("age", DataType::Int32, true),
        Field::new("day", DataType::Date32, true),
    ]))
}

fn rows() -> RecordBatch {
    let texts = |of: [Option<&'static str>; 4]| Arc::new(StringViewArray::from_iter(of));
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None])),
            texts([Some("a@x"), None, Some("c@x"), Some("d@x")]),
            texts([Some("11"), Some("22"), Some("33"), Some("44")]),
            texts([Some("a"), Some("b"), Some("c"), Some("d")]),
            Arc::new(Int32Array::from(vec![10, 20, 30, 40])),
            Arc::new(Date32Array::from(vec![1, 1, 2, 2])),
        ],
    )
    .unwrap()
}

/// A lake in which `privacy.requests` has these columns.
fn lake(requests: Vec<(&str, ArrayRef)>) -> SessionContext {
    let context = SessionContext::new();
    fill(&context, requests);
    context
}

fn fill(context: &SessionContext, requests: Vec<(&str, ArrayRef)>) {
    let privacy = Arc::new(MemorySchemaProvider::new());
    let catalog = context.catalog("datafusion").unwrap();
    catalog.register_schema("privacy", privacy).unwrap();
    let rows = RecordBatch::try_from_iter_with_nullable(
        requests.into_iter().map(|(name, of)| (name, of, true)),
    )
    .unwrap();
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    let name = TableReference::partial("privacy", "requests");
    context.register_table(name, Arc::new(table)).unwrap();
}

fn ids(ids: impl Into<Int64Array>) -> Vec<(&'static str, ArrayRef)> {
    let ids: Int64Array = ids.into();
    vec![("id", Arc::new(ids) as ArrayRef)]
}

fn policy(name: &str, columns: &[&str], action: PolicyAction) -> Policy {
    let query = format!("SELECT {} FROM privacy.requests", columns.join(", "));
    let scope = PolicyScope::Keys {
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        query,
    };
    Policy::new(name, scope, action)
}

fn nullify(columns: &[&str]) -> PolicyAction {
    PolicyAction::Nullify {
        columns: Columns::Named(columns.iter().map(|name| (*name).to_owned()).collect()),
    }
}

fn set(column: &str, literal: &str) -> PolicyAction {
    PolicyAction::Set {
        values: [(column.to_owned(), literal.to_owned())].into(),
    }
}

async fn running(context: &SessionContext, policies: &[Policy]) -> Result<Running> {
    let (state, schema) = (context.state(), schema());
    let terms = Terms {
        state: &state,
        table: "shop.clients",
        schema: &schema,
        partition_columns: &["day".to_owned()],
    };
    let compiled = Arc::new(compile(terms, policies).await?);
    Running::begin(&compiled, &context.task_ctx()).await
}

async fn apply(context: &SessionContext, policies: &[Policy]) -> (Applied, Vec<PolicyResult>) {
    let running = running(context, policies).await.unwrap();
    let applied = running.apply(&rows()).unwrap();
    let results = running.results(&applied.counts);
    (applied, results)
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let of = batch.column_by_name(column).unwrap().as_string_view();
    of.iter().map(|text| text.map(str::to_owned)).collect()
}

fn some(of: &[&str]) -> Vec<Option<String>> {
    of.iter()
        .map(|text| (!text.is_empty()).then(|| (*text).to_owned()))
        .collect()
}

#[tokio::test]
async fn cells_of_listed_keys_are_nullified_and_a_null_key_matches_nothing() {
    let lake = lake(ids(vec![Some(1_i64), Some(2), Some(2), None, Some(9)]));
    let policies = [policy("forget", &["id"], nullify(&["email", "phone"]))];
    let (applied, results) = apply(&lake, &policies).await;
    assert_eq!(applied.erased, None);
    assert_eq!(
        texts(&applied.batch, "email"),
        some(&["", "", "c@x", "d@x"])
    );
    assert_eq!(texts(&applied.batch, "phone"), some(&["", "", "33", "44"]));
    // A cell without a value is the policy's too, though nothing changes in it.
    let cleansed = |at: usize| {
        let of = applied.cleansed[at].as_ref().unwrap();
        of.set_indices().collect::<Vec<_>>()
    };
    assert_eq!((cleansed(0), cleansed(1)), (vec![0, 1], vec![0, 1]));
    let result = &results[0];
    assert_eq!((result.keys, result.rows_matched), (3, 2));
    assert_eq!((result.cells_changed, result.rows_erased), (3, 0));
    assert_eq!(
        result.notes,
        [
            "1 key with NULL, which match nothing",
            "1 key listed more than once"
        ]
    );
    assert!(!applied.is_unchanged());
}

#[tokio::test]
async fn a_second_time_nothing_changes() {
    let lake = lake(ids(vec![1_i64, 2]));
    let policies = [
        policy("forget", &["id"], nullify(&["email"])),
        policy("number", &["id"], set("age", "0")),
        policy("title", &["id"], set("name", "'gone'")),
    ];
    let running = running(&lake, &policies).await.unwrap();
    let first = running.apply(&rows()).unwrap();
    assert_eq!(
        texts(&first.batch, "name"),
        some(&["gone", "gone", "c", "d"])
    );
    let again = running.apply(&first.batch).unwrap();
    assert!(again.is_unchanged());
    assert_eq!(again.batch, first.batch);
    assert_eq!(again.counts.policy(0).rows_matched, 2);
}

#[tokio::test]
async fn the_stricter_policy_wins_and_says_so() {
    let lake = lake(ids(vec![1_i64, 2]));
    let query = "SELECT id FROM privacy.requests WHERE id = 2".to_owned();
    let scope = PolicyScope::Keys {
        columns: vec!["id".into()],
        query,
    };
    let policies = [
        policy("a_set", &["id"], set("email", "'x'")),
        policy("b_set", &["id"], set("email", "'y'")),
        Policy::new("c_delete", scope, PolicyAction::DeleteRows),
        Policy::new("d_all", PolicyScope::Every, nullify(&["phone"])),
        policy("e_phone", &["id"], set("phone", "'0'")),
    ];
    let (applied, results) = apply(&lake, &policies).await;
    assert_eq!(
        applied.erased.unwrap().set_indices().collect::<Vec<_>>(),
        [1]
    );
    assert_eq!(texts(&applied.batch, "email"), some(&["x", "c@x", "d@x"]));
    assert_eq!(texts(&applied.batch, "phone"), some(&["", "", ""]));
    let notes: Vec<&[String]> = results.iter().map(|of| of.notes.as_slice()).collect();
    let deleted = "1 row: policy c_delete deletes them, which is stricter";
    assert_eq!(notes[0], [deleted]);
    assert_eq!(
        notes[1],
        [
            "1 cell of column email: policy a_set sets them too, and its name comes first",
            deleted
        ]
    );
    assert!(notes[2].is_empty(), "{notes:?}");
    assert_eq!(notes[3], [deleted]);
    assert_eq!(
        notes[4],
        [
            deleted,
            "1 cell of column phone: policy d_all nullifies them, which is stricter"
        ]
    );
    let counts: Vec<_> = results
        .iter()
        .map(|of| (of.rows_matched, of.cells_changed, of.rows_erased))
        .collect();
    assert_eq!(
        counts,
        [(2, 1, 0), (2, 0, 0), (1, 0, 1), (4, 3, 0), (2, 0, 0)]
    );
}

#[tokio::test]
async fn every_row_is_left_or_erased_once() {
    let lake = lake(ids(vec![1_i64, 3]));
    let policies = [
        policy("a", &["id"], PolicyAction::DeleteRows),
        policy("b", &["id"], PolicyAction::DeleteRows),
        policy("c", &["id"], nullify(&["email"])),
    ];
    let running = running(&lake, &policies).await.unwrap();
    let mut counts = Counts::default();
    let mut left = 0;
    for row in 0..rows().num_rows() {
        let applied = running.apply(&rows().slice(row, 1)).unwrap();
        left += applied.batch.num_rows() as u64;
        counts.merge(&applied.counts);
    }
    assert_eq!(
        (left, counts.rows_erased(), counts.cells_changed()),
        (2, 2, 0)
    );
    let whole = running.apply(&rows()).unwrap();
    assert_eq!(whole.counts, counts);
    assert_eq!(whole.batch.num_rows(), 2);
    assert_eq!(whole.cleansed, [None]);
}

#[tokio::test]
async fn an_empty_list_is_a_warning_with_zero_counts() {
    let lake = lake(ids(Vec::<i64>::new()));
    let policies = [policy("forget", &["id"], nullify(&["email"]))];
    let (applied, results) = apply(&lake, &policies).await;
    assert!(applied.is_unchanged());
    assert_eq!(applied.batch, rows());
    let result = &results[0];
    assert_eq!(
        (result.keys, result.rows_matched, result.cells_changed),
        (0, 0, 0)
    );
    assert_eq!(
        result.notes,
        ["warning: it lists no key, so it matches nothing"]
    );
}

#[tokio::test]
async fn a_million_duplicates_are_few_keys() {
    let many: Vec<i64> = (0..1_000_000).map(|number| number % 3).collect();
    let lake = lake(ids(many));
    let policies = [policy("p", &["id"], nullify(&["email"]))];
    let running = running(&lake, &policies).await.unwrap();
    let keys = running.keys(0).unwrap();
    assert_eq!((keys.distinct(), keys.duplicates()), (3, 999_997));
}

#[tokio::test]
async fn more_keys_than_memory_are_refused() {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(1 << 20, 1.0)
        .build_arc()
        .unwrap();
    let lake = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    fill(&lake, ids((0..1_000_000).collect::<Vec<i64>>()));
    let error = running(&lake, &[policy("p", &["id"], nullify(&["email"]))]).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("Keys[cleanse policy p]"), "{error}");
}

#[tokio::test]
async fn keys_of_all_types_are_found() {
    let found = async |own: ArrayRef, listed: ArrayRef| {
        let lake = lake(vec![("k", listed)]);
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", own.data_type().clone(), true),
            Field::new("cell", DataType::Int64, true),
        ]));
        let state = lake.state();
        let terms = Terms {
            state: &state,
            table: "shop.t",
            schema: &schema,
            partition_columns: &[],
        };
        let policies = [policy("p", &["k"], nullify(&["cell"]))];
        let compiled = Arc::new(compile(terms, &policies).await.unwrap());
        let running = Running::begin(&compiled, &lake.task_ctx()).await.unwrap();
        let cells = Arc::new(Int64Array::from(vec![0; own.len()]));
        let batch = RecordBatch::try_new(schema, vec![own, cells]).unwrap();
        let applied = running.apply(&batch).unwrap();
        let hit = applied.cleansed[0].clone();
        let hit = hit.map(|hit| hit.set_indices().collect::<Vec<_>>());
        (hit.unwrap_or_default(), running.keys(0).unwrap().unfit())
    };
    let small: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), None]));
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![2, 1 << 40]));
    assert_eq!(
        found(Arc::clone(&small), Arc::clone(&wide)).await,
        (vec![1], 0)
    );
    assert_eq!(found(wide, small).await, (vec![0], 0));

    let long = "a text that is longer than what stands in a view";
    let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a", long, " a", "A"]));
    let plain: ArrayRef = Arc::new(StringArray::from(vec![long, "a", "b"]));
    assert_eq!(found(views, plain).await, (vec![0, 1], 0));

    let decimals = |values: Vec<i128>, scale| -> ArrayRef {
        let of = Decimal128Array::from(values);
        Arc::new(of.with_precision_and_scale(38, scale).unwrap())
    };
    let own = decimals(vec![150, 151, 200], 2);
    // 1.5 and 2, and one that has too many digits for the other's scale.
    let listed = decimals(vec![15, 20, 10_i128.pow(37)], 1);
    assert_eq!(found(own, listed).await, (vec![0, 2], 1));
    let own = decimals(vec![150, 200], 2);
    assert_eq!(
        found(own, Arc::new(Int64Array::from(vec![2])) as ArrayRef).await,
        (vec![1], 0)
    );

    let own: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, 1.5]));
    let listed: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, f64::NAN]));
    assert_eq!(found(own, listed).await, (vec![0, 1, 2], 0));

    let days: ArrayRef = Arc::new(Date32Array::from(vec![1, 2]));
    assert_eq!(found(Arc::clone(&days), days).await, (vec![0, 1], 0));

    let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2_000]));
    let millis = arrow::compute::cast(
        &micros.slice(1, 1),
        &DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None),
    );
    assert_eq!(found(micros, millis.unwrap()).await, (vec![1], 0));
}

#[tokio::test]
async fn a_key_of_many_columns_is_all_of_them() {
    let ids = Int64Array::from(vec![Some(1), Some(2), Some(3), None]);
    let names = StringArray::from(vec!["a", "a", "c", "d"]);
    let lake = lake(vec![
        ("id", Arc::new(ids) as ArrayRef),
        ("name", Arc::new(names)),
    ]);
    let policies = [policy("p", &["id", "name"], nullify(&["phone"]))];
    let (applied, results) = apply(&lake, &policies).await;
    assert_eq!(texts(&applied.batch, "phone"), some(&["", "22", "", "44"]));
    assert_eq!((results[0].keys, results[0].rows_matched), (3, 2));
}

#[tokio::test]
async fn what_is_wrong_with_a_policy_is_told() {
    let lake = lake(vec![
        ("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("note", Arc::new(StringArray::from(vec!["1"]))),
    ]);
    let told = async |policy: Policy| {
        let (state, schema) = (lake.state(), schema());
        let terms = Terms {
            state: &state,
            table: "shop.clients",
            schema: &schema,
            partition_columns: &["day".to_owned()],
        };
        define(terms, &policy, &[]).await.unwrap_err().to_string()
    };
    let nope = async |policy: Policy, what: &str| {
        let error = told(policy).await;
        assert!(error.contains(what), "{what}: {error}");
        assert!(
            error.contains("cleanse policy p of table shop.clients"),
            "{error}"
        );
    };
    let p = |action: PolicyAction| policy("p", &["id"], action);
    nope(
        p(nullify(&["emial"])),
        "no column emial\nhint: did you mean email?",
    )
    .await;
    nope(
        p(nullify(&["name"])),
        "column name cannot be nullified: it is NOT NULL\nhint: SET",
    )
    .await;
    nope(
        p(nullify(&["id"])),
        "column id cannot be nullified: it is in the key",
    )
    .await;
    nope(p(nullify(&["day"])), "the table is partitioned by it").await;
    nope(
        p(set("day", "'2024-01-01'")),
        "the table is partitioned by it",
    )
    .await;
    nope(
        p(set("age", "'ten'")),
        "column age is INT and cannot hold 'ten'",
    )
    .await;
    nope(
        p(set("age", "5000000000")),
        "column age is INT and cannot hold 5000000000",
    )
    .await;
    nope(p(set("name", "NULL")), "the column is NOT NULL").await;
    nope(p(nullify(&["email", "email"])), "email is nullified twice").await;
    let all = |action| Policy::new("p", PolicyScope::Every, action);
    nope(all(PolicyAction::DeleteRows), "would leave no row").await;
    let tagged = |tag: &str| PolicyAction::Nullify {
        columns: Columns::Tagged(tag.to_owned()),
    };
    nope(
        all(tagged("pi")),
        "no column carries the tag pi\nhint: did you mean pii?",
    )
    .await;

    let keys = |columns: &[&str], query: &str| {
        let scope = PolicyScope::Keys {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            query: query.to_owned(),
        };
        Policy::new("p", scope, nullify(&["email"]))
    };
    let of = "SELECT note FROM privacy.requests";
    nope(
        keys(&["id"], of),
        "key column id is BIGINT, which does not compare with note of its query, a TEXT",
    )
    .await;
    nope(
        keys(&["id", "age"], "SELECT id FROM privacy.requests"),
        "its key is (id, age), but its query answers (id)",
    )
    .await;
    nope(
        keys(&["idd"], "SELECT id FROM privacy.requests"),
        "no column idd",
    )
    .await;
    nope(keys(&["id"], "SELECT ix FROM privacy.requests"), "ix").await;
    nope(keys(&["id"], "SELECT id FROM privacy.request"), "request").await;

    let fine = all(tagged("pii"));
    let (applied, results) = apply(&lake, &[fine]).await;
    assert_eq!(texts(&applied.batch, "email"), some(&["", "", "", ""]));
    assert_eq!(results[0].cells_changed, 7);
    // A tag that was taken away since leaves a note, and not a write that fails.
    let (applied, results) = apply(&lake, &[all(tagged("gone"))]).await;
    assert!(applied.is_unchanged());
    assert_eq!(results[0].notes, ["no column carries the tag gone"]);
}

#[tokio::test]
async fn what_stands_behind_the_columns_stays_with_its_row() {
    let lake = lake(ids(vec![1_i64]));
    let running = running(&lake, &[policy("p", &["id"], PolicyAction::DeleteRows)]).await;
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(Field::new("place", DataType::Int64, true)));
    let mut columns = rows().columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![7, 8, 9, 10])));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let left = running.unwrap().apply(&batch).unwrap().batch;
    let places = left.column(6).as_primitive::<arrow::datatypes::Int64Type>();
    assert_eq!(places.values(), &[8, 9, 10]);
}

#[tokio::test]
async fn quarantined_rows_lose_their_values_wherever_they_are() {
    let lake = lake(ids(vec![1_i64, 2]));
    let scope = PolicyScope::Keys {
        columns: vec!["id".into()],
        query: "SELECT id FROM privacy.requests WHERE id = 2".into(),
    };
    let policies = [
        policy("a", &["id"], nullify(&["email"])),
        Policy::new("b", scope, PolicyAction::DeleteRows),
    ];
    let running = running(&lake, &policies).await.unwrap();
    let failure = |column: &str, value: &str| Failure {
        rule: "r".into(),
        fingerprint: None,
        message: format!("odd: {value}"),
        value: format!("{column} = {value}"),
        columns: vec![column.to_owned()],
    };
    let failures = [
        vec![failure("email", "'a@x'"), failure("age", "10")],
        vec![failure("email", "NULL")],
        vec![failure("email", "'c@x'")],
        vec![],
    ];
    let came = StringArray::from(vec![
        Some(r#"{"id":1,"email":"a@x","age":"10"}"#),
        None,
        Some(r#"{"id":3,"email":"c@x"}"#),
        None,
    ]);
    let mut columns = vec![
        failure::column(failures.iter().map(Vec::as_slice)),
        Arc::new(came) as ArrayRef,
    ];
    let own = quarantine_schema(&schema());
    let rest = own.fields().iter().skip(2).take(2);
    columns.extend(rest.map(|field| new_null_array(field.data_type(), 4)));
    columns.extend(rows().columns().iter().cloned());
    let batch = RecordBatch::try_new(own, columns).unwrap();
    let applied = aside::apply(&running, &batch).unwrap();
    assert_eq!(applied.counts.rows_erased(), 1);
    assert_eq!(applied.batch.schema(), batch.schema());
    assert_eq!(texts(&applied.batch, "email"), some(&["", "c@x", "d@x"]));
    let came = applied.batch.column(1).as_string::<i32>();
    let first: serde_json::Value = serde_json::from_str(came.value(0)).unwrap();
    assert_eq!(
        first,
        serde_json::json!({"id": 1, "email": null, "age": "10"})
    );
    assert_eq!(came.value(1), r#"{"id":3,"email":"c@x"}"#);
    let told = format!("{:?}", applied.batch.column(0));
    assert!(!told.contains("a@x"), "{told}");
    assert!(told.contains("***") && told.contains("age = 10"), "{told}");
    assert!(told.contains("c@x"), "{told}");
}
