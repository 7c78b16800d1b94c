//! Quarantined rows as SQL sees them, from files that were written for other columns.

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, StructArray,
};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::quality::record::{Replayed, SideFile};
use crate::table::actions::{CommitInfo, Marker, Metadata, Protocol};
use crate::table::{log, schema as delta};
use crate::write::report::WriteReport;

/// Far enough ahead that nothing is past its retention.
const THEN_MS: i64 = 4_000_000_000_000;

struct Lake {
    root: TableRoot,
    columns: SchemaRef,
}

impl Lake {
    /// A table that has these columns today.
    fn new(columns: Vec<Field>) -> Self {
        Self {
            root: TableRoot {
                store_url: ObjectStoreUrl::parse("memory://").unwrap(),
                store: Arc::new(InMemory::new()),
                path: Path::from("lake/t"),
            },
            columns: Arc::new(Schema::new(columns)),
        }
    }

    fn snapshot(&self, version: u64) -> Arc<Snapshot> {
        let protocol = Protocol::plain(1, 2);
        let metadata = Metadata {
            schema_string: delta::to_delta(&self.columns).unwrap(),
            ..Metadata::of_files([])
        };
        let columns = Arc::clone(&self.columns);
        Arc::new(Snapshot {
            version,
            ..Snapshot::draft(&protocol, &metadata, columns)
        })
    }

    /// Commits rows to quarantine as this version: `columns` beside `_failures` and `_row`.
    async fn quarantine(&self, version: u64, columns: Vec<(&str, ArrayRef)>) {
        let rows = columns[0].1.len();
        let mut columns = columns;
        columns.insert(0, (FAILURES, failed(rows)));
        let texts = (0..rows).map(|row| Some(format!("{{\"row\":{row}}}")));
        columns.insert(1, (ROW, Arc::new(texts.collect::<StringArray>())));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(2))
            .build();
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let path = self.path(version);
        let file = SideFile {
            path: path.clone(),
            rows: rows as u64,
            bytes: bytes.len() as u64,
            origin: None,
        };
        let location = self.root.locate(&path).unwrap();
        self.root.store.put(&location, bytes.into()).await.unwrap();
        self.commit(version, vec![file], vec![]).await;
    }

    fn path(&self, version: u64) -> String {
        format!("_selvedge/quarantine/part-{version}.parquet")
    }

    async fn commit(&self, version: u64, quarantine: Vec<SideFile>, replayed: Vec<Replayed>) {
        let info = CommitInfo {
            in_commit_timestamp: Some(THEN_MS + i64::try_from(version).unwrap()),
            ..CommitInfo::default()
        };
        let marker = Marker {
            report: Some(WriteReport::default()),
            quarantine,
            replayed,
            ..Marker::default()
        };
        let bytes = log::encode(info, marker, &[]).unwrap();
        let path = log::commit_path(&self.root, version);
        self.root.store.put(&path, bytes.into()).await.unwrap();
    }

    async fn replay(&self, version: u64, of: u64, rows: &[u64]) {
        let rows = rows.iter().copied().collect();
        let replayed = records::replayed(&self.path(of), &rows).unwrap();
        self.commit(version, vec![], vec![replayed]).await;
    }

    fn table(&self, version: u64) -> QuarantineTable {
        QuarantineTable::new(self.snapshot(version), self.root.clone())
    }

    fn context(&self, table: QuarantineTable) -> SessionContext {
        let config = SessionConfig::new()
            .with_target_partitions(4)
            .set_usize("datafusion.optimizer.repartition_file_min_size", 1)
            // What a session may choose must not change what there is.
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        let context = SessionContext::new_with_config(config);
        let store = Arc::clone(&self.root.store);
        context.register_object_store(self.root.store_url.as_ref(), store);
        context.register_table("q", Arc::new(table)).unwrap();
        context
    }

    async fn rows(&self, version: u64, sql: &str) -> Vec<String> {
        lines(&self.context(self.table(version)), sql).await
    }
}

/// Rows as text, without the frame around them.
async fn lines(context: &SessionContext, sql: &str) -> Vec<String> {
    let frame = context.sql(sql).await.unwrap();
    let batches = frame.collect().await.unwrap();
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(str::trim);
        cells.collect::<Vec<_>>().join(",")
    };
    let lines = table.lines().filter(|line| line.starts_with('|'));
    lines.skip(1).map(cells).collect()
}

/// One failure for each row.
fn failed(rows: usize) -> ArrayRef {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows])) };
    let mut columns = ListBuilder::new(StringBuilder::new());
    for _ in 0..rows {
        columns.values().append_value("n");
        columns.append(true);
    }
    let failure = StructArray::from(vec![
        (field("rule", DataType::Utf8), text("positive")),
        (field("fingerprint", DataType::Utf8), text("f")),
        (field("message", DataType::Utf8), text("n > 0")),
        (field("value", DataType::Utf8), text("-1")),
        (
            field("columns", DataType::new_list(DataType::Utf8, true)),
            Arc::new(columns.finish()) as ArrayRef,
        ),
    ]);
    let item = field("element", failure.data_type().clone());
    let offsets = datafusion::arrow::buffer::OffsetBuffer::from_lengths(vec![1; rows]);
    let lists = datafusion::arrow::array::ListArray::new(item, offsets, Arc::new(failure), None);
    Arc::new(lists)
}

fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn today() -> Lake {
    Lake::new(vec![
        Field::new("n", DataType::Int32, false),
        Field::new("note", DataType::Utf8View, true),
        Field::new("_row", DataType::Int32, true),
    ])
}

#[tokio::test]
async fn older_files_are_read_in_the_columns_of_today() {
    let lake = today();
    // Wider, without a column, and with one that has gone since.
    lake.quarantine(
        1,
        vec![
            ("n", numbers(&[-1, 1 << 40, -3])),
            ("old", numbers(&[0; 3])),
        ],
    )
    .await;
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["-7", "seven"]));
    lake.quarantine(2, vec![("n", texts.clone()), ("note", texts)])
        .await;
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values([b"x"]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    lake.quarantine(3, vec![("n", bytes), ("note", floats)])
        .await;

    let all = "SELECT _id, _version, n, note, _row FROM q ORDER BY _id";
    assert_eq!(
        lake.rows(3, all).await,
        [
            r#"part-1:0,1,-1,,{"row":0}"#,
            r#"part-1:1,1,,,{"row":1}"#,
            r#"part-1:2,1,-3,,{"row":2}"#,
            r#"part-2:0,2,-7,-7,{"row":0}"#,
            r#"part-2:1,2,,seven,{"row":1}"#,
            r#"part-3:0,3,,NaN,{"row":0}"#,
        ]
    );
    assert_eq!(lake.rows(3, "SELECT count(*) FROM q").await, ["6"]);
    // Filters are about the values of today, whatever a file holds.
    for (filter, rows) in [
        ("n < 0", "3"),
        ("n IS NULL", "3"),
        ("n > 1000", "0"),
        ("note = 'seven'", "1"),
        ("_id = 'part-1:2'", "1"),
        ("_version = 2", "2"),
        ("_version >= 2 AND n IS NULL", "2"),
        ("_written_at < TIMESTAMP '2000-01-01T00:00:00Z'", "0"),
        ("array_length(_failures) = 1", "6"),
        ("_failures[1]['rule'] = 'positive'", "6"),
    ] {
        let sql = format!("SELECT count(*) FROM q WHERE {filter}");
        assert_eq!(lake.rows(3, &sql).await, [rows], "{filter}");
    }
    assert_eq!(lake.rows(3, "SELECT n FROM q LIMIT 4").await.len(), 4);
    assert_eq!(
        lake.rows(3, "SELECT n FROM q WHERE n IS NULL LIMIT 2")
            .await
            .len(),
        2
    );
    assert_eq!(
        lake.rows(3, "SELECT _failures FROM q WHERE _version = 3")
            .await,
        ["[{rule: positive, fingerprint: f, message: n > 0, value: -1, columns: [n]}]"]
    );
    assert_eq!(lake.rows(1, all).await.len(), 3);
    assert_eq!(lake.rows(0, all).await.len(), 0);
}

#[tokio::test]
async fn rows_that_were_taken_up_are_gone() {
    let lake = today();
    lake.quarantine(1, vec![("n", numbers(&[-1, -2, -3, -4, -5]))])
        .await;
    lake.replay(2, 1, &[0, 3]).await;
    lake.replay(3, 1, &[1, 2, 4]).await;
    let ids = "SELECT _id, n FROM q ORDER BY n DESC";
    assert_eq!(
        lake.rows(2, ids).await,
        ["part-1:1,-2", "part-1:2,-3", "part-1:4,-5"]
    );
    assert_eq!(lake.rows(1, ids).await.len(), 5);
    assert_eq!(lake.rows(3, ids).await.len(), 0);
    assert_eq!(lake.rows(2, "SELECT count(*) FROM q").await, ["3"]);
}

#[tokio::test]
async fn rows_tell_where_they_are() {
    let lake = today();
    lake.quarantine(1, vec![("n", numbers(&[-1, -2, -3]))])
        .await;
    lake.quarantine(2, vec![("n", numbers(&[-4]))]).await;
    lake.replay(3, 1, &[0]).await;
    let located = Arc::new(Located::default());
    let context = lake.context(lake.table(3).located(Arc::clone(&located)));
    let sql = "SELECT n, __selvedge_file, __selvedge_row, _id FROM q ORDER BY n DESC";
    assert_eq!(
        lines(&context, sql).await,
        ["-2,0,1,part-1:1", "-3,0,2,part-1:2", "-4,1,0,part-2:0"]
    );
    let files = located.files();
    let paths: Vec<&str> = files.iter().map(|file| file.add.path.as_str()).collect();
    assert_eq!(paths, [lake.path(1), lake.path(2)]);
}

#[test]
fn names_that_are_taken_are_not_there_twice() {
    let schema = schema(&today().snapshot(0));
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(
        names,
        [
            "_id",
            "_version",
            "_written_at",
            "_failures",
            "_row",
            "_replaces",
            "n",
            "note"
        ]
    );
    assert!(schema.fields().iter().all(|field| field.is_nullable()));
}

#[tokio::test]
async fn columns_are_found_by_their_names_in_files() {
    let called = |name: &str, in_files: &str| {
        let named = [(mapping::PHYSICAL_NAME.to_owned(), in_files.to_owned())];
        Field::new(name, DataType::Int64, true).with_metadata(named.into())
    };
    let inner = DataType::Struct(vec![called("y", "x")].into());
    let lake = Lake::new(vec![
        called("amount", "n"),
        called("n", "col-2"),
        called("text", "_row"),
        called("s", "s").with_data_type(inner),
    ]);
    let x = (field("x", DataType::Int64), numbers(&[5]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", numbers(&[-1])),
        ("_row of the table", numbers(&[7])),
        ("s", Arc::new(StructArray::from(vec![x]))),
    ];
    lake.quarantine(1, columns).await;
    let sql = "SELECT amount, n, text, s['y'], _row, _replaces FROM q";
    assert_eq!(lake.rows(1, sql).await, [r#"-1,,7,5,{"row":0},"#]);
}
