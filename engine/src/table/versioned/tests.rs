//! The scan against the same rows in memory: the same answers, whatever is pruned on the way.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use datafusion::arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, new_null_array,
};
use datafusion::arrow::compute::{cast, concat_batches, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, TimeUnit};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::data_type::{Int64Type as ParquetInt64, Int96, Int96Type};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::file::writer::SerializedFileWriter;
use datafusion::parquet::schema::parser::parse_message_type;
use datafusion::prelude::{SessionConfig, SessionContext};
use imbl::OrdMap;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::table::actions::{Add, DeletionVector, Metadata, Protocol};

mod journal;
mod mapped;
mod pieces;
mod widened;

/// A table under construction: files are written, and their visible rows kept aside.
struct Build {
    schema: SchemaRef,
    mapping: Mode,
    /// The same columns with their physical names, where there is a mapping.
    stored: SchemaRef,
    partition_columns: Vec<String>,
    store: Arc<InMemory>,
    files: Vec<Add>,
    visible: Vec<RecordBatch>,
}

/// One file: rows of all columns of the table, of which the file gets those not partitioned by.
struct File {
    rows: RecordBatch,
    deleted: Vec<u64>,
    stats: bool,
    /// Columns the file does not have yet.
    without: Vec<&'static str>,
}

impl File {
    fn of(rows: RecordBatch) -> Self {
        Self {
            rows,
            deleted: vec![],
            stats: true,
            without: vec![],
        }
    }

    fn deleted(mut self, deleted: impl IntoIterator<Item = u64>) -> Self {
        self.deleted = deleted.into_iter().collect();
        self
    }
}

impl Build {
    fn new(schema: SchemaRef, partition_columns: &[&str]) -> Self {
        Self {
            stored: Arc::clone(&schema),
            mapping: Mode::None,
            schema,
            partition_columns: partition_columns.iter().map(|&c| c.to_owned()).collect(),
            store: Arc::new(InMemory::new()),
            files: vec![],
            visible: vec![],
        }
    }

    /// Gives every column, and every field of a struct, a physical name made of its own.
    fn mapped(mut self, mode: Mode, mut name: impl FnMut(&str) -> String) -> Self {
        let fields = mapping::assign(self.schema.fields(), &mut 0, &mut name);
        self.stored = Arc::new(Schema::new(fields));
        self.mapping = mode;
        self
    }

    fn metadata(&self) -> Metadata {
        let mode = match self.mapping {
            Mode::None => None,
            Mode::Name => Some((mapping::MODE.to_owned(), "name".to_owned())),
            Mode::Id => Some((mapping::MODE.to_owned(), "id".to_owned())),
        };
        Metadata {
            id: "id".into(),
            name: None,
            description: None,
            format: Default::default(),
            schema_string: super::super::schema::to_delta(&self.stored).unwrap(),
            partition_columns: self.partition_columns.clone(),
            created_time: None,
            configuration: mode.into_iter().collect(),
        }
    }

    async fn add(&mut self, file: File) {
        let in_file: Vec<usize> = (0..self.schema.fields().len())
            .filter(|&at| {
                let name = self.schema.field(at).name();
                !self.partition_columns.contains(name) && !file.without.contains(&name.as_str())
            })
            .collect();
        let physical = mapping::in_files(&self.schema, &self.metadata()).unwrap();
        let columns = in_file.iter().map(|&at| {
            let data_type = physical.field(at).data_type();
            mapping::relabel(file.rows.column(at), data_type).unwrap()
        });
        let written = RecordBatch::try_new(
            Arc::new(physical.project(&in_file).unwrap()),
            columns.collect(),
        )
        .unwrap();
        let stats = file.stats.then(|| stats_json(&written));
        let partition_values = self
            .partition_columns
            .iter()
            .map(|column| {
                let array = file.rows.column_by_name(column).unwrap();
                let value = ScalarValue::try_from_array(array, 0).unwrap();
                let at = self.schema.index_of(column).unwrap();
                let column = physical.field(at).name().clone();
                (column, partition::encode(&value).unwrap())
            })
            .collect();
        self.add_bytes(parquet(&written), stats, partition_values, &file.deleted)
            .await;
        let keep: BooleanArray = (0..file.rows.num_rows() as u64)
            .map(|row| Some(!file.deleted.contains(&row)))
            .collect();
        self.visible
            .push(filter_record_batch(&file.rows, &keep).unwrap());
    }

    async fn add_bytes(
        &mut self,
        bytes: Vec<u8>,
        stats: Option<String>,
        partition_values: BTreeMap<String, Option<String>>,
        deleted: &[u64],
    ) {
        let name = format!("part a%{:05}.parquet", self.files.len());
        let location = Path::parse(format!("lake/t/{name}")).unwrap();
        let size = bytes.len() as i64;
        self.store.put(&location, bytes.into()).await.unwrap();
        let deletion_vector = (!deleted.is_empty())
            .then(|| DeletionVector::inline(&deleted.iter().copied().collect()).unwrap());
        self.files.push(Add {
            path: name.replace('%', "%25").replace(' ', "%20"),
            partition_values,
            size,
            modification_time: 1_700_000_000_000,
            data_change: true,
            stats,
            tags: None,
            deletion_vector,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        });
    }

    fn table(&self) -> VersionedTable {
        let files = self
            .files
            .iter()
            .map(|add| (add.path.clone(), Arc::new(DataFile::new(add.clone()))));
        let snapshot = Snapshot {
            version: 3,
            tombstones: Default::default(),
            domains: Default::default(),
            last_checkpoint: None,
            token: None,
            protocol: Arc::new(Protocol {
                min_reader_version: 2,
                min_writer_version: 5,
                reader_features: None,
                writer_features: None,
            }),
            metadata: Arc::new(self.metadata()),
            schema: Arc::clone(&self.stored),
            files: files.collect::<OrdMap<_, _>>(),
            transactions: OrdMap::new(),
            committed_at_ms: 0,
        };
        let root = TableRoot {
            store_url: store_url(),
            store: Arc::clone(&self.store) as _,
            path: Path::from("lake/t"),
        };
        VersionedTable::new("t", Arc::new(snapshot), root)
    }

    /// A context with the table as `t` and its visible rows in memory as `m`.
    fn context(&self, options: &[(&str, &str)]) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_target_partitions(4)
            .with_information_schema(true);
        // Splits even the tiny files of these tests.
        config = config.set_usize("datafusion.optimizer.repartition_file_min_size", 1);
        for (key, value) in options {
            config = config.set_str(key, value);
        }
        let context = SessionContext::new_with_config(config);
        context.register_object_store(store_url().as_ref(), Arc::clone(&self.store) as _);
        context.register_table("t", Arc::new(self.table())).unwrap();
        let rows = concat_batches(&self.schema, &self.visible).unwrap();
        let memory = MemTable::try_new(Arc::clone(&self.schema), vec![vec![rows]]).unwrap();
        context.register_table("m", Arc::new(memory)).unwrap();
        context
    }
}

fn store_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse("memory://").unwrap()
}

fn parquet(rows: &RecordBatch) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(64))
        .set_data_page_row_count_limit(16)
        .set_write_batch_size(16)
        .set_bloom_filter_enabled(true)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    bytes
}

/// Statistics as a foreign writer leaves them: strings cut to three characters, timestamps to
/// milliseconds, no bounds without a value, NaN left out.
fn stats_json(rows: &RecordBatch) -> String {
    let mut min = serde_json::Map::new();
    let mut max = serde_json::Map::new();
    let mut nulls = serde_json::Map::new();
    for (field, array) in rows.schema().fields().iter().zip(rows.columns()) {
        nulls.insert(field.name().clone(), array.null_count().into());
        let mut values: Vec<ScalarValue> = (0..array.len())
            .map(|row| ScalarValue::try_from_array(array, row).unwrap())
            .filter(|v| !v.is_null() && !matches!(v, ScalarValue::Float64(Some(v)) if v.is_nan()))
            .collect();
        values.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let (Some(first), Some(last)) = (values.first(), values.last()) else {
            continue;
        };
        let json = |value: &ScalarValue, upper: bool| -> serde_json::Value {
            match value {
                ScalarValue::Int64(Some(v)) => (*v).into(),
                ScalarValue::Int32(Some(v)) => (*v).into(),
                ScalarValue::Float64(Some(v)) => (*v).into(),
                ScalarValue::Utf8View(Some(v)) | ScalarValue::Utf8(Some(v)) => {
                    let mut cut: String = v.chars().take(3).collect();
                    if upper && cut.len() < v.len() {
                        cut.push('\u{10ffff}');
                    }
                    cut.into()
                }
                ScalarValue::TimestampMicrosecond(Some(v), _) => {
                    DateTime::<Utc>::from_timestamp_micros(*v)
                        .unwrap()
                        .format("%Y-%m-%dT%H:%M:%S%.3fZ")
                        .to_string()
                        .into()
                }
                ScalarValue::Decimal128(Some(v), _, 2) => (*v as f64 / 100.0).into(),
                ScalarValue::Date32(Some(_)) => partition::encode(value).unwrap().into(),
                _ => serde_json::Value::Null,
            }
        };
        min.insert(field.name().clone(), json(first, false));
        max.insert(field.name().clone(), json(last, true));
    }
    serde_json::json!({
        "numRecords": rows.num_rows(), "minValues": min, "maxValues": max, "nullCount": nulls,
    })
    .to_string()
}

async fn run(context: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    let frame = context
        .sql(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    frame
        .collect()
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The rows as sorted lines of text.
async fn lines(context: &SessionContext, sql: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in run(context, sql).await {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| match c.is_null(row) {
                true => "∅".to_owned(),
                false => array_value_to_string(c, row).unwrap(),
            });
            lines.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    lines.sort();
    lines
}

/// Runs `sql` on the table (`{}`) and on the rows in memory.
async fn same(context: &SessionContext, sql: &str) -> Vec<String> {
    let scanned = lines(context, &sql.replace("{}", "t")).await;
    let expected = lines(context, &sql.replace("{}", "m")).await;
    assert_eq!(scanned, expected, "{sql}");
    scanned
}

async fn explain(context: &SessionContext, sql: &str) -> String {
    let plan = run(context, &format!("EXPLAIN FORMAT INDENT {sql}")).await;
    pretty_format_batches(&plan).unwrap().to_string()
}

/// Data files the physical plan reads.
async fn files_read(context: &SessionContext, sql: &str) -> usize {
    let plan = explain(context, sql).await;
    let mut names: Vec<&str> = plan
        .match_indices("part a%")
        .map(|(at, _)| &plan[at..at + 12])
        .collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Partition columns stand first and in the middle, on purpose.
fn wide_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("p", DataType::Utf8View, true),
        Field::new("id", DataType::Int64, false),
        Field::new("s", DataType::Utf8View, true),
        Field::new("day", DataType::Date32, true),
        Field::new("x", DataType::Float64, true),
        Field::new("at", utc(), true),
        Field::new("amount", DataType::Decimal128(12, 2), true),
    ]))
}

/// `count` rows from `first` on; every column but `id` has nulls.
fn wide_rows(p: Option<&str>, day: Option<i32>, first: i64, count: i64) -> RecordBatch {
    let ids = || first..first + count;
    let some = |id: i64, every: i64| (id % every != 0).then_some(id);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from(vec![p; count as usize])),
        Arc::new(ids().collect::<Int64Array>()),
        Arc::new(
            ids()
                .map(|id| some(id, 7).map(|id| format!("name {:04}", id % 97)))
                .collect::<StringViewArray>(),
        ),
        Arc::new(Date32Array::from(vec![day; count as usize])),
        Arc::new(
            ids()
                .map(|id| some(id, 5).map(|id| id as f64 / 8.0))
                .collect::<Float64Array>(),
        ),
        Arc::new(
            ids()
                .map(|id| some(id, 11).map(|id| id * 1_000_333))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        Arc::new(
            ids()
                .map(|id| some(id, 3).map(|id| i128::from(id) * 7 - 500))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
    ];
    RecordBatch::try_new(wide_schema(), columns).unwrap()
}

async fn wide_table(deleted: impl Fn(i64) -> Vec<u64>) -> Build {
    filled(Build::new(wide_schema(), &["p", "day"]), deleted).await
}

async fn filled(mut build: Build, deleted: impl Fn(i64) -> Vec<u64>) -> Build {
    for at in 0..6 {
        let p = [Some("a b"), Some("é/%=x"), None][at as usize % 3];
        let day = [Some(19_000), None][at as usize % 2];
        build
            .add(File::of(wide_rows(p, day, at * 200, 200)).deleted(deleted(at)))
            .await;
    }
    build
}

const PREDICATES: &[&str] = &[
    "true",
    "id = 417",
    "id < 0",
    "id between 150 and 450",
    "id in (3, 777, 5000)",
    "id not in (3, 777, 5000)",
    "id % 17 = 3",
    "id <> 5",
    "s = 'name 0042'",
    "s like 'name 003%'",
    "s > 'name 009'",
    "s is null",
    "s is not null and id > 900",
    "x between 20 and 30",
    "x < 1.5",
    "x is null",
    "not (x >= 3)",
    "at = to_timestamp_micros(417138861)",
    "at between to_timestamp_micros(199066000) and to_timestamp_micros(199067000)",
    "at > to_timestamp_micros(1199398000)",
    "at is null and id < 300",
    "amount = 18.19",
    "amount <= -4.86",
    "amount > 78",
    "p = 'a b'",
    "p = 'é/%=x' and id > 700",
    "p is null",
    "p <> 'a b'",
    "p in ('a b', 'zzz')",
    "p like 'é%'",
    "coalesce(p, '-') = '-'",
    "day = date '2022-01-08'",
    "day is null or id < 100",
    "p = 'a b' or s = 'name 0042'",
    "p is null and day is not null",
    "p = s",
    "day > date '2000-01-01' and x > 100 and amount < 60",
    "id = 417 or p is null",
    "upper(p) = 'A B'",
    "case when p is null then id < 500 else id > 900 end",
];

async fn check_predicates(context: &SessionContext) {
    let sums = "p, count(*), count(s), sum(id), min(at), max(amount)";
    for predicate in PREDICATES {
        same(
            context,
            &format!("select s, id, p from {{}} where {predicate}"),
        )
        .await;
        same(
            context,
            &format!("select {sums} from {{}} where {predicate} group by p"),
        )
        .await;
    }
}

#[tokio::test]
async fn columns_come_in_the_order_asked_for() {
    let build = wide_table(|_| vec![]).await;
    let context = build.context(&[]);
    assert_eq!(
        run(&context, "select * from t limit 1").await[0]
            .schema()
            .fields(),
        wide_schema().fields()
    );
    for list in [
        "*",
        "id",
        "p",
        "day, p",
        "p, day",
        "at, p, id, day, s",
        "id, id + 1, p || 'x'",
        "amount, x, s",
        "1",
    ] {
        same(&context, &format!("select {list} from {{}}")).await;
    }
}

#[tokio::test]
async fn pruning_never_changes_an_answer() {
    let build = wide_table(|_| vec![]).await;
    for pushdown in ["false", "true"] {
        check_predicates(
            &build.context(&[("datafusion.execution.parquet.pushdown_filters", pushdown)]),
        )
        .await;
    }
}

#[tokio::test]
async fn files_are_skipped_by_partition_and_by_statistics() {
    skips_files(Build::new(wide_schema(), &["p", "day"])).await;
}

async fn skips_files(build: Build) {
    let build = filled(build, |at| if at == 2 { vec![0, 5] } else { vec![] }).await;
    let context = build.context(&[]);
    for (predicate, files) in [
        ("true", 6),
        ("p = 'a b'", 2),
        ("p is null", 2),
        ("day is null", 3),
        ("p is null and day is null", 1),
        ("id = 417", 1),
        ("id between 150 and 450", 3),
        ("id > 199 and id < 400", 1),
        ("at < to_timestamp_micros(199066267)", 1),
        ("amount < 0", 1),
        // Where nobody says that there is no NaN, bounds of floats are not trusted.
        ("x < 24", 6),
        ("id is null", 0),
        ("s > 'nb'", 0),
        ("p = 'a b' or id = 417", 3),
        ("p = 'a b' and id = 417", 0),
    ] {
        let sql = format!("select id from t where {predicate}");
        assert_eq!(files_read(&context, &sql).await, files, "{predicate}");
    }
    let plan = explain(
        &context,
        "select id from t where p = 'a b' and day is not null",
    )
    .await;
    assert!(!plan.contains("FilterExec"), "{plan}");
    let plan = explain(&context, "select id from t where id > 30").await;
    assert!(
        plan.contains("FilterExec") && plan.contains("pruning_predicate="),
        "{plan}"
    );
}

#[tokio::test]
async fn deleted_rows_are_gone_however_they_are_read() {
    let shapes: [fn(i64) -> Vec<u64>; 5] = [
        |at| (at as u64 * 10..at as u64 * 20).collect(),
        |_| (0..200).step_by(3).collect(),
        |_| vec![0, 63, 64, 199],
        |at| {
            if at == 3 {
                (0..200).collect()
            } else {
                (1..199).collect()
            }
        },
        |at| if at % 2 == 0 { vec![17] } else { vec![] },
    ];
    for (at, shape) in shapes.into_iter().enumerate() {
        let build = wide_table(shape).await;
        let pushdown = ["false", "true"][at % 2];
        let option = ("datafusion.execution.parquet.pushdown_filters", pushdown);
        check_predicates(&build.context(&[option])).await;
        same(&build.context(&[]), "select * from {}").await;
    }
}

#[tokio::test]
async fn deletion_vectors_keep_parallelism_and_pushdown() {
    keeps_pushdown(Build::new(wide_schema(), &["p", "day"])).await;
}

async fn keeps_pushdown(build: Build) {
    let build = filled(build, |_| (0..200).step_by(9).collect()).await;
    let context = build.context(&[("datafusion.execution.parquet.pushdown_filters", "true")]);
    let plan = explain(&context, "select id from t where id > 30").await;
    assert!(plan.contains("file_groups={4 groups"), "{plan}");
    // Deleted rows are read, and a filter that could fail never sees them: in the source it only prunes.
    assert!(plan.contains("predicate=id"), "{plan}");
    assert!(plan.contains("FilterExec"), "{plan}");
    // Of one file of four row groups, three hold no such row.
    let plan = run(
        &context,
        "EXPLAIN ANALYZE select id from t where id between 1 and 60",
    )
    .await;
    let plan = pretty_format_batches(&plan).unwrap().to_string();
    assert!(
        plan.contains("row_groups_pruned_statistics=4 total → 1 matched"),
        "{plan}"
    );
    assert!(plan.contains("page_index_rows_pruned"), "{plan}");
}

#[tokio::test]
async fn metadata_answers_what_it_knows_exactly() {
    let scans = |plan: &str| plan.contains("DataSourceExec");
    let build = wide_table(|_| vec![]).await;
    let context = build.context(&[]);
    for list in [
        "count(*)",
        "count(1)",
        "count(s), count(id), count(p), count(day)",
        "min(id), max(id)",
        "min(amount), max(amount)",
        "min(p), max(day)",
    ] {
        let sql = format!("select {list} from {{}}");
        same(&context, &sql).await;
        let plan = explain(&context, &sql.replace("{}", "t")).await;
        assert!(!scans(&plan), "{list}: {plan}");
    }
    let plan = explain(&context, "select count(*) from t where p = 'a b'").await;
    assert!(!scans(&plan), "{plan}");
    same(&context, "select count(*) from {} where p = 'a b'").await;
    // Cut strings and timestamps, and doubles, are no values of the table.
    for list in ["max(s)", "min(at)", "min(x)"] {
        let sql = format!("select {list} from {{}}");
        same(&context, &sql).await;
        assert!(
            scans(&explain(&context, &sql.replace("{}", "t")).await),
            "{list}"
        );
    }

    let build = wide_table(|at| {
        if at == 5 {
            (150..200).collect()
        } else {
            vec![]
        }
    })
    .await;
    let context = build.context(&[]);
    for (list, scanned) in [
        ("count(*), count(id)", false),
        ("max(id)", true),
        ("count(s)", true),
        ("max(day)", false),
    ] {
        let sql = format!("select {list} from {{}}");
        same(&context, &sql).await;
        assert_eq!(
            scans(&explain(&context, &sql.replace("{}", "t")).await),
            scanned,
            "{list}"
        );
    }
    let empty = Build::new(wide_schema(), &["p"]);
    let mut build = empty;
    build.visible.push(RecordBatch::new_empty(wide_schema()));
    let context = build.context(&[]);
    same(&context, "select count(*), min(id), max(p) from {}").await;
    same(&context, "select * from {} where p = 'x' and id > 3").await;
}

#[tokio::test]
async fn limits_count_visible_rows() {
    // Two files of 200 rows with 10 visible ones, then whole files.
    let build = wide_table(|at| if at < 2 { (5..195).collect() } else { vec![] }).await;
    let context = build.context(&[]);
    for limit in [0, 1, 9, 10, 11, 20, 21, 300, 820, 821, 5000] {
        let rows = lines(&context, &format!("select id from t limit {limit}"))
            .await
            .len();
        assert_eq!(rows, limit.min(820), "{limit}");
    }
    assert_eq!(files_read(&context, "select id from t limit 10").await, 1);
    assert_eq!(files_read(&context, "select id from t limit 11").await, 2);
    assert_eq!(files_read(&context, "select id from t limit 21").await, 3);
    for predicate in [
        "p is null",
        "id > 190",
        "s is null",
        "p is null and id > 300",
    ] {
        let all = lines(&context, &format!("select id from m where {predicate}")).await;
        for limit in [1, 30, 5000] {
            let rows = lines(
                &context,
                &format!("select id from t where {predicate} limit {limit}"),
            )
            .await;
            assert_eq!(rows.len(), limit.min(all.len()), "{predicate} {limit}");
            assert!(rows.iter().all(|row| all.contains(row)));
        }
        same(
            &context,
            &format!("select id from {{}} where {predicate} order by id desc limit 7"),
        )
        .await;
        same(
            &context,
            &format!("select s, id from {{}} where {predicate} order by s, id limit 7"),
        )
        .await;
    }
    same(&context, "select count(*) from (select * from {} limit 15)").await;
    same(
        &context,
        "select a.id from {} a join {} b on a.id = b.id + 200 where b.s = 'name 0042'",
    )
    .await;
}

#[tokio::test]
async fn files_without_row_counts_are_asked_themselves() {
    let mut build = Build::new(wide_schema(), &["p"]);
    for at in 0..3 {
        let mut file = File::of(wide_rows(Some("q"), Some(at as i32), at * 100, 100));
        file.stats = at == 1;
        build.add(file.deleted([3, 99])).await;
    }
    let context = build.context(&[]);
    check_predicates(&context).await;
    assert_eq!(files_read(&context, "select id from t limit 5").await, 2);
}

#[tokio::test]
async fn columns_added_later_are_null_in_old_files() {
    let mut build = Build::new(wide_schema(), &["p"]);
    let rows = wide_rows(None, Some(1), 0, 100);
    let mut columns = rows.columns().to_vec();
    for at in [2, 6] {
        columns[at] = new_null_array(rows.schema().field(at).data_type(), 100);
    }
    let mut old = File::of(RecordBatch::try_new(wide_schema(), columns).unwrap());
    old.without = vec!["s", "amount"];
    build.add(old.deleted([1, 2])).await;
    build
        .add(File::of(wide_rows(Some("n"), Some(2), 100, 100)))
        .await;
    for pushdown in ["false", "true"] {
        let context = build.context(&[("datafusion.execution.parquet.pushdown_filters", pushdown)]);
        check_predicates(&context).await;
        same(
            &context,
            "select count(s), count(amount), max(amount) from {}",
        )
        .await;
    }
}

#[tokio::test]
async fn foreign_physical_types_become_the_table_s() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("s", DataType::Utf8View, true),
        Field::new("at", utc(), true),
        Field::new(
            "local",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            true,
        ),
    ]));
    let rows = 200_i64;
    let names: Vec<Option<String>> = (0..rows)
        .map(|id| (id % 7 != 0).then(|| format!("n{}", id % 20)))
        .collect();
    let micros: Vec<Option<i64>> = (0..rows)
        .map(|id| (id % 9 != 0).then_some(id * 1_000_001))
        .collect();
    let truth = |first: i64| {
        let at = TimestampMicrosecondArray::from(micros.clone());
        RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new((first..first + rows).collect::<Int64Array>()),
                Arc::new(names.iter().collect::<StringViewArray>()),
                Arc::new(at.clone().with_timezone("UTC")),
                Arc::new(at),
            ],
        )
        .unwrap()
    };
    let strings: Vec<ArrayRef> = vec![
        Arc::new(names.iter().collect::<StringArray>()),
        Arc::new(names.iter().collect::<LargeStringArray>()),
        Arc::new(
            names
                .iter()
                .map(Option::as_deref)
                .collect::<DictionaryArray<Int32Type>>(),
        ),
    ];
    let mut build = Build::new(Arc::clone(&schema), &[]);
    for (at, string) in strings.into_iter().enumerate() {
        let truth = truth(at as i64 * rows);
        let nanos: TimestampNanosecondArray = micros.iter().map(|v| v.map(|v| v * 1_000)).collect();
        let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
        let at: ArrayRef = Arc::new(nanos.clone().with_timezone("UTC"));
        let local: ArrayRef = Arc::new(nanos);
        let written = RecordBatch::try_from_iter_with_nullable([
            ("local", local, true),
            ("id", cast(truth.column(0), &DataType::Int32).unwrap(), true),
            ("unknown", new_null_array(&millis, 200), true),
            ("s", string, true),
            ("at", at, true),
        ])
        .unwrap();
        let deleted = vec![1, 2, 150];
        build
            .add_bytes(parquet(&written), None, BTreeMap::new(), &deleted)
            .await;
        let keep: BooleanArray = (0..200).map(|row| Some(!deleted.contains(&row))).collect();
        build
            .visible
            .push(filter_record_batch(&truth, &keep).unwrap());
    }
    for pushdown in ["false", "true"] {
        let context = build.context(&[("datafusion.execution.parquet.pushdown_filters", pushdown)]);
        for predicate in [
            "true",
            "s = 'n3'",
            "s > 'n15' or s is null",
            "id = 313",
            "at = to_timestamp_micros(5000005)",
            "at > to_timestamp_micros(190000000)",
            "local between timestamp '1970-01-01 00:00:10' and timestamp '1970-01-01 00:00:20'",
        ] {
            same(&context, &format!("select * from {{}} where {predicate}")).await;
        }
        same(&context, "select s, count(*) from {} group by s").await;
        same(&context, "select max(at), min(local) from {}").await;
    }
}

#[tokio::test]
async fn legacy_timestamps_of_all_years_are_read() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("at", utc(), true),
    ]));
    // Years 1, 1969, 2024 and 9999, with microseconds.
    let micros = [
        -62_135_596_799_999_999_i64,
        -1,
        1_704_164_645_123_456,
        253_402_300_799_999_999,
    ];
    let message = "message m { required int64 id; required int96 at; }";
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(
        &mut bytes,
        Arc::new(parse_message_type(message).unwrap()),
        Default::default(),
    )
    .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column
        .typed::<ParquetInt64>()
        .write_batch(&[0, 1, 2, 3], None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let int96 = micros.map(|micros| {
        let day = micros.div_euclid(86_400_000_000);
        let nanos = micros.rem_euclid(86_400_000_000) as u64 * 1_000;
        let mut value = Int96::new();
        value.set_data(nanos as u32, (nanos >> 32) as u32, (day + 2_440_588) as u32);
        value
    });
    column
        .typed::<Int96Type>()
        .write_batch(&int96, None, None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let mut build = Build::new(Arc::clone(&schema), &[]);
    build.add_bytes(bytes, None, BTreeMap::new(), &[]).await;
    let truth: [ArrayRef; 2] = [
        Arc::new(Int64Array::from(vec![0, 1, 2, 3])),
        Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC")),
    ];
    build
        .visible
        .push(RecordBatch::try_new(schema, truth.to_vec()).unwrap());
    let context = build.context(&[]);
    for predicate in [
        "true",
        "at > timestamp '2000-01-01'",
        "at < timestamp '1900-01-01'",
    ] {
        assert!(
            !same(
                &context,
                &format!("select id, at from {{}} where {predicate}")
            )
            .await
            .is_empty()
        );
    }
}

#[tokio::test]
async fn what_is_broken_is_named() {
    let mut build = Build::new(wide_schema(), &["p"]);
    build
        .add(File::of(wide_rows(None, None, 0, 10)).deleted([10]))
        .await;
    let failure = |build: &Build| {
        let context = build.context(&[]);
        async move {
            let frame = context.sql("select * from t").await.unwrap();
            frame.collect().await.unwrap_err().to_string()
        }
    };
    let message = failure(&build).await;
    assert!(
        message.contains("names row 10, the file has 10 rows"),
        "{message}"
    );
    build.files[0].path = "s3://other/x.parquet".into();
    let message = failure(&build).await;
    assert!(message.contains("outside the table's folder"), "{message}");
    build.files[0].path = "gone.parquet".into();
    build.files[0].deletion_vector = None;
    let message = failure(&build).await;
    assert!(message.contains("gone.parquet"), "{message}");
    build.files[0].size = -1;
    let message = failure(&build).await;
    assert!(message.contains("size -1"), "{message}");

    build.files.clear();
    let context = build.context(&[]);
    for (sql, expected) in [
        ("delete from t where id in (select 1)", "DELETE on table t"),
        ("update t set id = 1", "UPDATE on table t"),
        ("truncate table t", "TRUNCATE on table t"),
    ] {
        let outcome = async { context.sql(sql).await?.collect().await }.await;
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains(expected), "{sql}: {message}");
    }
}

#[tokio::test]
async fn a_nan_is_neither_skipped_nor_forgotten() {
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, true)]));
    let mut build = Build::new(Arc::clone(&schema), &[]);
    for values in [vec![1.0, f64::NAN], vec![-0.0, 2.0], vec![f64::NAN]] {
        let array: ArrayRef = Arc::new(Float64Array::from(values));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
        build.add(File::of(rows)).await;
    }
    // Spark counts NaN above all other values.
    build.files[0].stats = Some(
        r#"{"numRecords":2,"minValues":{"x":1.0},"maxValues":{"x":"NaN"},"nullCount":{"x":0}}"#
            .into(),
    );
    let context = build.context(&[]);
    for sql in [
        "select max(x), min(x), count(x) from {}",
        "select x from {} where x <= 1",
        "select x from {} where x < 0",
        "select x from {} where isnan(x)",
        "select x from {} order by x desc limit 2",
        "select count(*) from {} where x is not null",
    ] {
        same(&context, sql).await;
    }
    // Only a writer that counts NaN may say that a bound is one.
    assert_eq!(
        files_read(&context, "select x from t where x > 100").await,
        3
    );
    let counted = |count: &str| {
        format!(
            r#"{{"numRecords":2,"minValues":{{"x":0.0}},"maxValues":{{"x":2.0}},"nullCount":{{"x":0}},"nanCount":{count}}}"#
        )
    };
    for (nans, read) in [(r#"{"x":0}"#, 2), (r#"{"x":1}"#, 3), ("{}", 3)] {
        build.files[1].stats = Some(counted(nans));
        let context = build.context(&[]);
        assert_eq!(
            files_read(&context, "select x from t where x > 100").await,
            read,
            "{nans}"
        );
    }
}

/// Row groups of 64 rows, pages of 16, with bounds and bloom filters: the files of a writer that
/// leaves NaN out of all of them.
#[tokio::test]
async fn bounds_of_foreign_floats_hide_no_nan() {
    const NAN: f64 = f64::NAN;
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("x", DataType::Float64, true),
        Field::new("y", DataType::Float32, true),
    ]));
    let special = |row: i64| match row {
        70 | 200 => NAN,
        90 | 250 => -NAN,
        130..192 => 5.0,
        192 => NAN,
        256..320 => NAN,
        330 => -0.0,
        331 => 0.0,
        384..448 => -0.0,
        _ => (row % 100) as f64 / 10.0,
    };
    let mut build = Build::new(Arc::clone(&schema), &[]);
    for (first, count) in [(0, 448), (448, 64), (128, 65), (384, 64)] {
        let rows = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                Arc::new((first..first + count).collect::<Int64Array>()),
                Arc::new(
                    (first..first + count)
                        .map(special)
                        .collect::<Float64Array>(),
                ),
                Arc::new(
                    (first..first + count)
                        .map(|row| special(row) as f32)
                        .collect::<Float32Array>(),
                ),
            ],
        );
        build.add(File::of(rows.unwrap())).await;
    }
    for pushdown in ["false", "true"] {
        let context = build.context(&[("datafusion.execution.parquet.pushdown_filters", pushdown)]);
        for (column, ops) in [
            ("x", ["=", "<>", "<", "<=", ">", ">="].as_slice()),
            ("y", &["<>", "<", ">"]),
        ] {
            for op in ops {
                for value in ["5", "11", "-1", "-0.0", "'NaN'", "'-NaN'"] {
                    for not in ["", "not"] {
                        let filter = format!("{not} {column} {op} arrow_cast({value}, 'Float64')");
                        let all = format!("select id from {{}} where {filter}");
                        let ids = same(&context, &all).await;
                        let some = format!("select id from t where {filter} limit 3");
                        let some = lines(&context, &some).await;
                        assert_eq!(some.len(), ids.len().min(3), "{filter}");
                    }
                }
            }
            for sql in [
                "select id from {} where COLUMN in (5, 'NaN')",
                "select COLUMN from {} order by COLUMN limit 7",
                "select COLUMN from {} order by COLUMN desc limit 7",
                "select min(COLUMN), max(COLUMN), count(COLUMN) from {}",
                "select count(*) from {} where COLUMN > 1000",
            ] {
                same(&context, &sql.replace("COLUMN", column)).await;
            }
        }
    }
}

/// A linear congruential generator: the same tables and predicates in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn comparison(&mut self) -> String {
        let op = ["=", "<>", "<", "<=", ">", ">="][self.below(6) as usize];
        let id = self.below(1_300) as i64 - 50;
        match self.below(9) {
            0 => format!("id {op} {id}"),
            1 => format!("s {op} 'name {:04}'", id % 97),
            2 => format!("x {op} {}", id as f64 / 8.0),
            3 => format!(
                "at {op} to_timestamp_micros({})",
                id * 1_000_333 + self.below(3) as i64 - 1
            ),
            4 => format!("amount {op} {}", (id * 7 - 500) as f64 / 100.0),
            5 => format!("p {op} '{}'", ["a b", "é/%=x", "k"][self.below(3) as usize]),
            6 => format!(
                "day {op} date '{}'",
                ["2022-01-08", "2022-01-09"][self.below(2) as usize]
            ),
            7 => {
                let column = ["p", "s", "x", "at", "amount", "day", "id"][self.below(7) as usize];
                format!("{column} is {}null", ["", "not "][self.below(2) as usize])
            }
            _ => format!("id in ({id}, {}, {})", id + 3, id * 2),
        }
    }

    fn predicate(&mut self) -> String {
        let mut text = self.comparison();
        for _ in 0..self.below(4) {
            let joint = ["and", "or", "and not", "or not"][self.below(4) as usize];
            text = format!("({text} {joint} {})", self.comparison());
        }
        text
    }
}

#[tokio::test]
async fn random_tables_answer_random_predicates_as_memory_does() {
    let mut random = Random(20_240_229);
    for round in 0..6 {
        let mut build = Build::new(wide_schema(), &["p", "day"]);
        if round % 2 == 1 {
            build = mapped::shuffled(build, [Mode::Name, Mode::Id][round / 2 % 2]);
        }
        let mut first = 0;
        for _ in 0..1 + random.below(8) {
            let p = [Some("a b"), Some("é/%=x"), None][random.below(3) as usize];
            let day = [Some(19_000), Some(19_001), None][random.below(3) as usize];
            let count = 1 + random.below(300);
            let deleted: Vec<u64> = match random.below(4) {
                0 => vec![],
                1 => (0..count).filter(|_| random.below(20) == 0).collect(),
                2 => (0..count).filter(|_| random.below(20) != 0).collect(),
                _ => (random.below(count)..count).collect(),
            };
            let mut file = File::of(wide_rows(p, day, first, count as i64)).deleted(deleted);
            file.stats = random.below(5) != 0;
            build.add(file).await;
            first += random.below(350) as i64;
        }
        let pushdown = ["false", "true"][random.below(2) as usize];
        let context = build.context(&[("datafusion.execution.parquet.pushdown_filters", pushdown)]);
        for _ in 0..30 {
            let predicate = random.predicate();
            same(&context, &format!("select * from {{}} where {predicate}")).await;
            same(&context, &format!("select day, count(*), count(x), max(id) from {{}} where {predicate} group by day")).await;
            same(
                &context,
                &format!("select id, p from {{}} where {predicate} order by id, p limit 5"),
            )
            .await;
        }
    }
}
