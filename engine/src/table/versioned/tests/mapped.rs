//! Tables with column mapping, whose files call the columns otherwise.

use datafusion::arrow::array::{AsArray, ListArray, MapArray, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::Fields;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::*;

/// Every column has the physical name of another one, so that a name not looked up finds wrong values.
pub(super) fn shuffled(build: Build, mode: Mode) -> Build {
    let names: Vec<String> = build
        .schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    build.mapped(mode, |name| {
        let at = names.iter().position(|known| known == name).unwrap();
        names[(at + 1) % names.len()].clone()
    })
}

fn wide(mode: Mode) -> Build {
    shuffled(Build::new(wide_schema(), &["p", "day"]), mode)
}

#[tokio::test]
async fn answers_are_those_of_the_table_s_names() {
    for (mode, pushdown) in [(Mode::Name, "false"), (Mode::Id, "true")] {
        let build = filled(wide(mode), |at| vec![at as u64, 150]).await;
        let option = ("datafusion.execution.parquet.pushdown_filters", pushdown);
        let context = build.context(&[option]);
        check_predicates(&context).await;
        for list in ["*", "day, p", "at, p, id, day, s", "amount, x, s"] {
            same(&context, &format!("select {list} from {{}}")).await;
        }
        let columns = run(&context, "select * from t limit 1").await[0].schema();
        assert_eq!(columns.fields(), wide_schema().fields());
    }
}

#[tokio::test]
async fn files_and_row_groups_are_skipped_as_without_a_mapping() {
    for mode in [Mode::Name, Mode::Id] {
        skips_files(wide(mode)).await;
        keeps_pushdown(wide(mode)).await;
    }
}

#[tokio::test]
async fn filters_that_come_to_be_while_a_query_runs_skip_row_groups() {
    let build = filled(wide(Mode::Name), |_| vec![]).await;
    let context = build.context(&[]);
    let sql = "select t.id from t join (values (417)) v(id) on t.id = v.id";
    assert_eq!(lines(&context, sql).await, ["417"]);
    let plan = run(&context, &format!("EXPLAIN ANALYZE {sql}")).await;
    let plan = pretty_format_batches(&plan).unwrap().to_string();
    // Six files, of five pieces each.
    assert!(
        plan.contains("files_ranges_pruned_statistics=30 total → 5 matched"),
        "{plan}"
    );
    assert!(
        plan.contains("row_groups_pruned_statistics=4 total → 1 matched"),
        "{plan}"
    );
}

fn rows(columns: &[(&str, Option<i32>, ArrayRef)]) -> RecordBatch {
    let fields = columns.iter().map(|(name, id, array)| {
        let id = id.map(|id| (PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string()));
        Field::new(*name, array.data_type().clone(), true).with_metadata(id.into_iter().collect())
    });
    RecordBatch::try_new(
        Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        columns
            .iter()
            .map(|(_, _, array)| Arc::clone(array))
            .collect(),
    )
    .unwrap()
}

fn numbers(from: i64) -> ArrayRef {
    Arc::new((from..from + 10).collect::<Int64Array>())
}

fn two_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Int64, true),
    ]))
}

#[tokio::test]
async fn a_column_of_an_old_name_does_not_find_what_was_dropped() {
    let mut build = Build::new(two_columns(), &[]).mapped(Mode::Name, |name| format!("col-{name}"));
    // Both logical names are physical names of columns that are no more.
    let old = rows(&[
        ("b", Some(9), numbers(100)),
        ("col-a", Some(1), numbers(0)),
        ("a", Some(8), numbers(200)),
    ]);
    build
        .add_bytes(parquet(&old), Some(stats_json(&old)), BTreeMap::new(), &[3])
        .await;
    let context = build_context(&build);
    assert_eq!(
        lines(&context, "select * from t where a < 2").await,
        ["0|∅", "1|∅"]
    );
    assert_eq!(
        lines(&context, "select count(*) from t where b is null").await,
        ["9"]
    );
    assert_eq!(
        lines(&context, "select a from t where b = 100").await,
        [""; 0]
    );
    assert_eq!(
        lines(&context, "select max(a), max(b) from t").await,
        ["9|∅"]
    );
}

/// A context without rows in memory to compare with.
fn build_context(build: &Build) -> SessionContext {
    let context = SessionContext::new();
    context.register_object_store(store_url().as_ref(), Arc::clone(&build.store) as _);
    context
        .register_table("t", Arc::new(build.table()))
        .unwrap();
    context
}

#[tokio::test]
async fn ids_decide_where_the_mode_says_so() {
    for (mode, expected) in [(Mode::Id, "0|100"), (Mode::Name, "100|0")] {
        let mut build = Build::new(two_columns(), &[]).mapped(mode, |name| format!("col-{name}"));
        let file = rows(&[
            ("col-b", Some(1), numbers(0)),
            ("col-a", Some(2), numbers(100)),
        ]);
        build
            .add_bytes(parquet(&file), None, BTreeMap::new(), &[])
            .await;
        let context = build_context(&build);
        assert_eq!(
            lines(&context, "select min(a), min(b) from t").await,
            [expected]
        );
        let expected = usize::from(mode == Mode::Name) * 10;
        let found = lines(&context, "select a from t where a >= 100").await;
        assert_eq!(found.len(), expected);
    }
    // A file without ids, which other readers read by name as well.
    let mut build = Build::new(two_columns(), &[]).mapped(Mode::Id, |name| format!("col-{name}"));
    let file = rows(&[("col-b", None, numbers(0)), ("a", None, numbers(100))]);
    build
        .add_bytes(parquet(&file), None, BTreeMap::new(), &[])
        .await;
    let context = build_context(&build);
    assert_eq!(
        lines(&context, "select min(a), min(b) from t").await,
        ["∅|0"]
    );
}

/// `x` and `y`, which are `x` and `y`, or `y` and `x`, in the files.
fn pair(names: [&str; 2], from: i64) -> StructArray {
    let fields: Fields = names
        .map(|name| Field::new(name, DataType::Int64, true))
        .into_iter()
        .collect();
    StructArray::new(fields, vec![numbers(from), numbers(from + 50)], None)
}

fn nested(names: [&str; 2]) -> RecordBatch {
    let pair = |from| Arc::new(pair(names, from)) as ArrayRef;
    let offsets = || OffsetBuffer::<i32>::from_lengths([1; 10]);
    let element = Field::new("element", pair(0).data_type().clone(), true);
    let list = ListArray::new(Arc::new(element), offsets(), pair(100), None);
    let keys: ArrayRef = Arc::new(StringViewArray::from(vec!["k"; 10]));
    let entries = StructArray::from(vec![
        (Arc::new(Field::new("key", DataType::Utf8View, false)), keys),
        (
            Arc::new(Field::new("value", pair(0).data_type().clone(), true)),
            pair(200),
        ),
    ]);
    let key_value = Field::new("key_value", entries.data_type().clone(), false);
    let map = MapArray::new(Arc::new(key_value), offsets(), entries, None, false);
    rows(&[
        ("id", None, numbers(0)),
        ("s", None, pair(0)),
        ("l", None, Arc::new(list)),
        ("m", None, Arc::new(map)),
    ])
}

#[tokio::test]
async fn fields_of_structs_are_found_at_any_depth() {
    let truth = nested(["x", "y"]);
    for (mode, pushdown) in [
        (Mode::Name, "false"),
        (Mode::Name, "true"),
        (Mode::Id, "false"),
    ] {
        let swap = |name: &str| match name {
            "x" => "y".to_owned(),
            "y" => "x".to_owned(),
            other => format!("col-{other}"),
        };
        let mut build = Build::new(truth.schema(), &[]).mapped(mode, swap);
        build
            .add(File {
                stats: false,
                ..File::of(truth.clone())
            })
            .await;
        // A file from before the structs got their second field.
        let lone = |array: &ArrayRef| {
            let pair = pair(["x", "y"], 0);
            let nulls = new_null_array(&DataType::Int64, 10);
            match array.data_type() {
                DataType::Struct(fields) => Arc::new(StructArray::new(
                    fields.clone(),
                    vec![Arc::clone(pair.column(0)), nulls],
                    None,
                )) as ArrayRef,
                _ => Arc::clone(array),
            }
        };
        let older =
            RecordBatch::try_new(truth.schema(), truth.columns().iter().map(lone).collect())
                .unwrap();
        let short = StructArray::new(
            vec![
                Field::new("y", DataType::Int64, true)
                    .with_metadata([(PARQUET_FIELD_ID_META_KEY.to_owned(), "3".to_owned())].into()),
            ]
            .into(),
            vec![Arc::clone(older.column(1).as_struct().column(0))],
            None,
        );
        let physical = mapping::in_files(&build.schema, &build.metadata()).unwrap();
        let of_file =
            |at: usize| mapping::relabel(older.column(at), physical.field(at).data_type()).unwrap();
        let file = rows(&[
            ("col-id", Some(1), numbers(0)),
            ("col-s", Some(2), Arc::new(short)),
            ("col-l", Some(5), of_file(2)),
            ("col-m", Some(8), of_file(3)),
        ]);
        build
            .add_bytes(parquet(&file), None, BTreeMap::new(), &[4])
            .await;
        let keep: BooleanArray = (0..10).map(|row| Some(row != 4)).collect();
        build
            .visible
            .push(filter_record_batch(&older, &keep).unwrap());

        let context = build.context(&[("datafusion.execution.parquet.pushdown_filters", pushdown)]);
        for sql in [
            "select * from {}",
            "select s from {}",
            "select s['x'], s['y'] from {}",
            "select id from {} where s['y'] > 55",
            "select id from {} where s['x'] > 5 and s['y'] is null",
            "select l[1]['y'], map_values(m)[1]['x'] from {}",
            "select id, l from {} where l[1]['x'] = 105",
            "select id, m from {} where map_values(m)[1]['y'] >= 257",
            "select s['y'], count(*) from {} group by s['y']",
        ] {
            same(&context, sql).await;
        }
    }
}
