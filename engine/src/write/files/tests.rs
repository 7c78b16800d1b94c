use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::ErrorKind;
use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, ListArray,
    MapBuilder, RecordBatch, StringArray, StringViewArray, StringViewBuilder, StructArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Int64Type, Schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::stream::BoxStream;
use futures::{Stream, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;

mod journal;
mod mapped;

// --- what is written to ---------------------------------------------------------------------

/// A store in memory that counts, and fails or dawdles on demand.
#[derive(Debug, Default)]
struct Probe {
    inner: InMemory,
    puts: AtomicUsize,
    multiparts: AtomicUsize,
    aborts: Arc<AtomicUsize>,
    fail_puts: AtomicBool,
    fail_parts: Arc<AtomicBool>,
    put_delay_ms: AtomicU64,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic {
        store: "probe",
        source: "no space left".into(),
    }
}

#[async_trait]
impl ObjectStore for Probe {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        let delay = self.put_delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if self.fail_puts.load(Ordering::SeqCst) {
            return Err(broken());
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.multiparts.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ProbeUpload {
            inner: self.inner.put_multipart_opts(location, opts).await?,
            aborts: self.aborts.clone(),
            fail: self.fail_parts.clone(),
        }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct ProbeUpload {
    inner: Box<dyn MultipartUpload>,
    aborts: Arc<AtomicUsize>,
    fail: Arc<AtomicBool>,
}

#[async_trait]
impl MultipartUpload for ProbeUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.fail.load(Ordering::SeqCst) {
            return Box::pin(async { Err(broken()) });
        }
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        self.inner.complete().await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.aborts.fetch_add(1, Ordering::SeqCst);
        self.inner.abort().await
    }
}

struct Table {
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    partition_columns: Vec<String>,
    properties: BTreeMap<String, String>,
    /// The log's schema, where it says more than `schema`.
    schema_string: String,
    target_file_bytes: u64,
}

impl Table {
    fn new(store: Arc<dyn ObjectStore>, schema: SchemaRef) -> Self {
        Self {
            store,
            schema,
            partition_columns: Vec::new(),
            properties: BTreeMap::new(),
            schema_string: String::new(),
            target_file_bytes: 256 << 20,
        }
    }

    fn partitioned_by(mut self, columns: &[&str]) -> Self {
        self.partition_columns = columns.iter().map(|c| c.to_string()).collect();
        self
    }

    fn file_bytes(mut self, bytes: u64) -> Self {
        self.target_file_bytes = bytes;
        self
    }

    fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.insert(key.into(), value.into());
        self
    }

    fn sink(&self) -> Result<FileSink> {
        let root = TableRoot {
            store_url: ObjectStoreUrl::parse("memory:///").unwrap(),
            store: self.store.clone(),
            path: Path::from("lake/t"),
        };
        let metadata = Metadata {
            id: "t".into(),
            name: None,
            description: None,
            format: Default::default(),
            schema_string: self.schema_string.clone(),
            partition_columns: self.partition_columns.clone(),
            created_time: None,
            configuration: self.properties.clone(),
        };
        let next = AtomicU64::new(1);
        let ids: Ids =
            Arc::new(move || Uuid::from_u128(next.fetch_add(1, Ordering::SeqCst).into()));
        FileSink::new(
            &root,
            &self.schema,
            &metadata,
            self.target_file_bytes,
            ids,
            Arc::new(|| 1234),
        )
    }

    async fn write(&self, partitions: &[Vec<RecordBatch>]) -> Result<Written> {
        self.write_plan(memory(&self.schema, partitions), context(4))
            .await
    }

    async fn write_plan(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Written> {
        self.sink()?.write(plan, context).await
    }

    /// Rows of a file, as they are stored.
    async fn read(&self, add: &Add) -> RecordBatch {
        let bytes = self.object(add).await;
        assert_eq!(bytes.len() as i64, add.size);
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let schema = reader.schema().clone();
        let batches: Vec<_> = reader.build().unwrap().map(|b| b.unwrap()).collect();
        concat_batches(&schema, &batches).unwrap()
    }

    async fn object(&self, add: &Add) -> bytes::Bytes {
        // As any reader of the log does it.
        let relative = Path::from_url_path(&add.path).unwrap();
        let path = Path::parse(format!("lake/t/{relative}")).unwrap();
        self.store.get(&path).await.unwrap().bytes().await.unwrap()
    }

    async fn objects(&self) -> Vec<Path> {
        let listed = self.store.list(None).map_ok(|m| m.location);
        listed.try_collect().await.unwrap()
    }

    /// Waits for the clean-up, which runs in the background.
    async fn assert_emptied(&self) {
        for _ in 0..100 {
            if self.objects().await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("left behind: {:?}", self.objects().await);
    }
}

fn probe() -> Arc<Probe> {
    Arc::new(Probe::default())
}

// --- what is written ------------------------------------------------------------------------

fn context(target_partitions: usize) -> Arc<TaskContext> {
    let config = SessionConfig::new().with_target_partitions(target_partitions);
    SessionContext::new_with_config(config).task_ctx()
}

fn memory(schema: &SchemaRef, partitions: &[Vec<RecordBatch>]) -> Arc<dyn ExecutionPlan> {
    MemorySourceConfig::try_new_exec(partitions, schema.clone(), None).unwrap()
}

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    let fields = fields
        .iter()
        .map(|(name, t)| Field::new(*name, t.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// A plan of streams made by `make`, one per partition.
fn streaming<S>(
    schema: &SchemaRef,
    partitions: usize,
    make: impl Fn(usize) -> S + Send + Sync + 'static,
) -> Arc<dyn ExecutionPlan>
where
    S: Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
{
    type Make =
        dyn Fn(usize) -> BoxStream<'static, Result<RecordBatch, DataFusionError>> + Send + Sync;
    struct Part(SchemaRef, usize, Arc<Make>);
    impl fmt::Debug for Part {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "part {}", self.1)
        }
    }
    impl PartitionStream for Part {
        fn schema(&self) -> &SchemaRef {
            &self.0
        }
        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            Box::pin(RecordBatchStreamAdapter::new(
                self.0.clone(),
                (self.2)(self.1),
            ))
        }
    }
    let make: Arc<Make> = Arc::new(move |i| make(i).boxed());
    let parts = (0..partitions)
        .map(|i| Arc::new(Part(schema.clone(), i, make.clone())) as _)
        .collect();
    Arc::new(StreamingTableExec::try_new(schema.clone(), parts, None, [], false, None).unwrap())
}

fn id_and_text() -> SchemaRef {
    schema(&[("id", DataType::Int64), ("text", DataType::Utf8View)])
}

/// Rows `first..first + rows`, whose text does not compress.
fn noise(schema: &SchemaRef, first: i64, rows: i64) -> RecordBatch {
    let mut random = StdRng::seed_from_u64(first as u64);
    let mut text = StringViewBuilder::new();
    for _ in 0..rows {
        let word: String = (0..12)
            .map(|_| format!("{:08x}", random.next_u32()))
            .collect();
        text.append_value(word);
    }
    let ids = Int64Array::from_iter_values(first..first + rows);
    batch(schema, vec![Arc::new(ids), Arc::new(text.finish())])
}

fn ids(rows: &[RecordBatch]) -> Vec<i64> {
    let mut ids: Vec<i64> = rows
        .iter()
        .flat_map(|b| b["id"].as_primitive::<Int64Type>().values().to_vec())
        .collect();
    ids.sort_unstable();
    ids
}

fn json(add: &Add) -> serde_json::Value {
    serde_json::from_str(add.stats.as_deref().unwrap()).unwrap()
}

fn element(t: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", t, true))
}

/// All types a table stores, `rows` rows of seeded random values, a tenth of them null.
fn every_type(rows: usize, seed: u64) -> RecordBatch {
    let mut random = StdRng::seed_from_u64(seed);
    let mut some = |p: f64| random.random_bool(p);
    let nulls: Vec<Vec<bool>> = (0..16)
        .map(|_| (0..rows).map(|_| some(0.1)).collect())
        .collect();
    let mut random = StdRng::seed_from_u64(seed + 1);
    macro_rules! column {
        ($array:ident, $index:expr, $value:expr) => {{
            let values = (0..rows).map(|row| {
                let value = $value(&mut random);
                (!nulls[$index][row]).then_some(value)
            });
            $array::from_iter(values)
        }};
    }
    let word = |r: &mut StdRng| -> String {
        let alphabet = ['a', 'z', 'é', '語', '🦀', '\u{d7ff}', '~', '"', '\\', '\n'];
        (0..r.random_range(0..50))
            .map(|_| alphabet[r.random_range(0..alphabet.len())])
            .collect()
    };
    let utc = || Some(Arc::<str>::from("UTC"));
    let inner_int: ArrayRef = Arc::new(column!(Int32Array, 0, |r: &mut StdRng| r.random::<i32>()));
    let inner_text: ArrayRef = Arc::new(column!(StringViewArray, 1, word));
    let inner = vec![
        Arc::new(Field::new("n", DataType::Int32, true)),
        Arc::new(Field::new("s", DataType::Utf8View, true)),
    ];
    let valid: Vec<bool> = nulls[2].iter().map(|n| !n).collect();
    let nested = StructArray::new(
        inner.into(),
        vec![inner_int, inner_text],
        Some(valid.into()),
    );
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>((0..rows).map(|row| {
        let length = random.random_range(0..4);
        (!nulls[3][row]).then(|| (0..length).map(Some).collect::<Vec<_>>())
    }));
    let (_, offsets, values, validity) = lists.into_parts();
    let lists = ListArray::new(element(DataType::Int32), offsets, values, validity);
    let names = datafusion::arrow::array::builder::MapFieldNames {
        entry: "key_value".into(),
        key: "key".into(),
        value: "value".into(),
    };
    let mut maps = MapBuilder::new(
        Some(names),
        StringViewBuilder::new(),
        datafusion::arrow::array::Int64Builder::new(),
    );
    for (row, null) in nulls[4].iter().enumerate().take(rows) {
        maps.keys().append_value(format!("k{row}"));
        maps.values().append_value(row as i64);
        maps.append(!null).unwrap();
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        (
            "long",
            Arc::new(column!(Int64Array, 5, |r: &mut StdRng| r.random::<i64>())),
        ),
        (
            "short",
            Arc::new(column!(Int16Array, 6, |r: &mut StdRng| r.random::<i16>())),
        ),
        (
            "byte",
            Arc::new(column!(Int8Array, 7, |r: &mut StdRng| r.random::<i8>())),
        ),
        (
            "double",
            Arc::new(column!(Float64Array, 8, |r: &mut StdRng| r.random::<f64>() - 0.5)),
        ),
        (
            "float",
            Arc::new(column!(Float32Array, 9, |r: &mut StdRng| r.random::<f32>() * 1e9)),
        ),
        (
            "bool",
            Arc::new(column!(BooleanArray, 10, |r: &mut StdRng| r.random::<bool>())),
        ),
        ("text", Arc::new(column!(StringViewArray, 11, word))),
        (
            "bytes",
            Arc::new(BinaryViewArray::from_iter(
                (0..rows).map(|row| (!nulls[12][row]).then(|| vec![row as u8; 20])),
            )),
        ),
        (
            "day",
            Arc::new(column!(Date32Array, 13, |r: &mut StdRng| r
                .random_range(-700_000..2_900_000))),
        ),
        (
            "at",
            Arc::new(
                column!(TimestampMicrosecondArray, 14, |r: &mut StdRng| r
                    .random_range(-60_000_000_000_000_000..250_000_000_000_000_000))
                .with_timezone_opt(utc()),
            ),
        ),
        (
            "local",
            Arc::new(column!(TimestampMicrosecondArray, 15, |r: &mut StdRng| r
                .random_range(-60_000_000_000_000_000..250_000_000_000_000_000))),
        ),
        (
            "dec9",
            Arc::new(
                column!(Decimal128Array, 5, |r: &mut StdRng| r
                    .random_range(-999_999_999..999_999_999_i128))
                .with_precision_and_scale(9, 2)
                .unwrap(),
            ),
        ),
        (
            "dec18",
            Arc::new(
                column!(Decimal128Array, 6, |r: &mut StdRng| i128::from(
                    r.random_range(-(10_i64.pow(18))..10_i64.pow(18))
                ))
                .with_precision_and_scale(18, 0)
                .unwrap(),
            ),
        ),
        (
            "dec38",
            Arc::new(
                column!(Decimal128Array, 7, |r: &mut StdRng| r
                    .random_range(-(10_i128.pow(38)) + 1..10_i128.pow(38)))
                .with_precision_and_scale(38, 10)
                .unwrap(),
            ),
        ),
        ("nested", Arc::new(nested)),
        ("list", Arc::new(lists)),
        ("map", Arc::new(maps.finish())),
    ];
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, a)| Field::new(*name, a.data_type().clone(), *name != "id"))
        .collect();
    let columns = columns.into_iter().map(|(_, a)| a).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

// --- round trips ----------------------------------------------------------------------------

async fn query(store: Arc<dyn ObjectStore>, schema: &SchemaRef, sql: &str) -> RecordBatch {
    let context = SessionContext::new();
    context.register_object_store(&url::Url::parse("probe://s").unwrap(), store);
    let options = ParquetReadOptions::new().schema(schema);
    context
        .register_parquet("t", "probe://s/lake/t/", options)
        .await
        .unwrap();
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_read_back_as_it_was() {
    let rows = every_type(3000, 7);
    let table = Table::new(probe(), rows.schema());
    let written = table
        .write(&[
            vec![rows.slice(0, 1), rows.slice(1, 2499)],
            vec![rows.slice(2500, 500)],
        ])
        .await
        .unwrap();
    assert_eq!(written.rows, 3000);
    assert_eq!(
        written.bytes as i64,
        written.adds.iter().map(|a| a.size).sum::<i64>()
    );
    let back = query(
        table.store.clone(),
        &table.schema,
        "SELECT * FROM t ORDER BY id",
    )
    .await;
    assert_eq!(back.schema().fields(), rows.schema().fields());
    assert_eq!(back, rows);
    // What a row group knows must not lose rows.
    let one = query(
        table.store.clone(),
        &table.schema,
        "SELECT text FROM t WHERE id = 2711",
    )
    .await;
    assert_eq!(one.column(0).as_ref(), rows.slice(2711, 1)["text"].as_ref());
}

#[tokio::test]
async fn a_file_names_its_writer_and_hides_arrow() {
    let schema = id_and_text();
    let table = Table::new(probe(), schema.clone());
    let written = table.write(&[vec![noise(&schema, 0, 5)]]).await.unwrap();
    let add = &written.adds[0];
    assert_eq!(
        add.path,
        "part-00001-00000000-0000-0000-0000-000000000001.parquet"
    );
    assert_eq!((add.modification_time, add.data_change), (1234, true));
    let reader = ParquetRecordBatchReaderBuilder::try_new(table.object(add).await).unwrap();
    let file = reader.metadata().file_metadata();
    assert_eq!(
        file.created_by(),
        Some(concat!("selvedge version ", env!("CARGO_PKG_VERSION")))
    );
    assert!(file.key_value_metadata().is_none_or(Vec::is_empty));
    // So that a reader of older Arrow libraries is not asked for views.
    assert_eq!(reader.schema().field(1).data_type(), &DataType::Utf8);
}

#[tokio::test]
async fn nothing_in_means_no_file() {
    let schema = id_and_text();
    let table = Table::new(probe(), schema.clone());
    let empty = RecordBatch::new_empty(schema.clone());
    for input in [
        vec![],
        vec![vec![]],
        vec![vec![empty.clone(), empty], vec![]],
    ] {
        let written = table.write(&input).await.unwrap();
        assert!(written.adds.is_empty());
    }
    assert!(table.objects().await.is_empty());
}

#[tokio::test]
async fn one_row_is_one_put() {
    let schema = id_and_text();
    let store = probe();
    let table = Table::new(store.clone(), schema.clone());
    let written = table.write(&[vec![noise(&schema, 0, 1)]]).await.unwrap();
    assert_eq!((written.rows, written.adds.len()), (1, 1));
    assert_eq!(store.puts.load(Ordering::SeqCst), 1);
    assert_eq!(store.multiparts.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_rows_of_many_lanes_share_a_file() {
    let schema = id_and_text();
    let table = Table::new(probe(), schema.clone());
    let lanes: Vec<_> = (0..8).map(|i| vec![noise(&schema, i * 10, 10)]).collect();
    let written = table.write(&lanes).await.unwrap();
    assert_eq!((written.rows, written.adds.len()), (80, 1));
    let rows = table.read(&written.adds[0]).await;
    let order = rows["id"].as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(
        order,
        (0..80).collect::<Vec<_>>(),
        "in the order of the lanes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_closed_at_their_size() {
    let schema = id_and_text();
    let table = Table::new(probe(), schema.clone()).file_bytes(64 << 10);
    let lane = |first: i64| {
        (0..10)
            .map(|i| noise(&schema, first + i * 1000, 1000))
            .collect()
    };
    let written = table.write(&[lane(0), lane(10_000)]).await.unwrap();
    assert_eq!(written.rows, 20_000);
    // About 60 bytes a row once hexadecimal noise is compressed.
    assert!(
        (10..60).contains(&written.adds.len()),
        "{}",
        written.adds.len()
    );
    let mut rows = Vec::new();
    for add in &written.adds {
        assert!(add.size < 192 << 10, "{}", add.size);
        rows.push(table.read(add).await);
    }
    assert_eq!(ids(&rows), (0..20_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_batch_is_cut_to_the_size_of_files() {
    let schema = id_and_text();
    let table = Table::new(probe(), schema.clone()).file_bytes(64 << 10);
    let written = table
        .write(&[vec![noise(&schema, 0, 10_000)]])
        .await
        .unwrap();
    assert!(written.adds.len() > 5, "{}", written.adds.len());
    assert!(written.adds.iter().all(|a| a.size < 192 << 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_up_in_parts() {
    let schema = id_and_text();
    let store = probe();
    let table = Table::new(store.clone(), schema.clone());
    let lane = (0..80).map(|i| noise(&schema, i * 5000, 5000)).collect();
    let written = table.write(&[lane]).await.unwrap();
    assert_eq!(written.adds.len(), 1);
    assert!(
        written.bytes > 2 * upload::PART_BYTES as u64,
        "{}",
        written.bytes
    );
    assert_eq!(store.multiparts.load(Ordering::SeqCst), 1);
    assert_eq!(store.puts.load(Ordering::SeqCst), 0);
    let rows = table.read(&written.adds[0]).await;
    let order = rows["id"].as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(
        order,
        (0..400_000).collect::<Vec<_>>(),
        "in the order of the input"
    );
    assert_eq!(json(&written.adds[0])["maxValues"]["id"], 399_999);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_cover_all_row_groups() {
    let schema = schema(&[("id", DataType::Int64), ("rare", DataType::Int32)]);
    let table = Table::new(probe(), schema.clone());
    let chunk = 100_000;
    let lane = (0..25).map(|i| {
        let ids = Int64Array::from_iter_values((i * chunk..(i + 1) * chunk).rev());
        // Values in the second row group only.
        let rare =
            Int32Array::from_iter((0..chunk).map(|r| (i == 15 && r < 3).then_some(r as i32)));
        batch(&schema, vec![Arc::new(ids), Arc::new(rare)])
    });
    let written = table.write(&[lane.collect()]).await.unwrap();
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(table.object(&written.adds[0]).await).unwrap();
    let groups: Vec<_> = reader
        .metadata()
        .row_groups()
        .iter()
        .map(|g| g.num_rows())
        .collect();
    assert_eq!(groups, [1 << 20, 1 << 20, 2_500_000 - (2 << 20)]);
    let stats = json(&written.adds[0]);
    assert_eq!(stats["numRecords"], 2_500_000);
    assert_eq!(stats["minValues"], serde_json::json!({"id": 0, "rare": 0}));
    assert_eq!(
        stats["maxValues"],
        serde_json::json!({"id": 2_499_999, "rare": 2})
    );
    assert_eq!(
        stats["nullCount"],
        serde_json::json!({"id": 0, "rare": 2_499_997})
    );
}

// --- partitions -----------------------------------------------------------------------------

const ODD: [Option<&str>; 10] = [
    Some("plain"),
    Some("two words"),
    Some("50%"),
    Some("a%2Fb"),
    Some("a/b=c"),
    Some("日本 é"),
    Some("q?#&+\"'"),
    Some("../up"),
    None,
    Some("line\nbreak"),
];

fn odd_rows(schema: &SchemaRef) -> RecordBatch {
    let place = StringViewArray::from_iter(ODD.iter().cycle().take(200).copied());
    let id = Int64Array::from_iter_values(0..200);
    let text = StringViewArray::from_iter_values((0..200).map(|i| format!("a text of row {i}")));
    batch(schema, vec![Arc::new(id), Arc::new(place), Arc::new(text)])
}

async fn write_odd_partitions(store: Arc<dyn ObjectStore>) -> (Table, Written) {
    let schema = schema(&[
        ("id", DataType::Int64),
        ("place", DataType::Utf8View),
        ("text", DataType::Utf8View),
    ]);
    let table = Table::new(store, schema.clone()).partitioned_by(&["place"]);
    let rows = odd_rows(&schema);
    let lanes = [
        vec![rows.slice(0, 90)],
        vec![rows.slice(90, 60), rows.slice(150, 50)],
    ];
    let written = table.write(&lanes).await.unwrap();
    (table, written)
}

async fn check_odd_partitions(table: &Table, written: &Written) {
    assert_eq!(written.adds.len(), ODD.len(), "one file for each value");
    for add in &written.adds {
        assert!(
            add.path.is_ascii() && !add.path.contains(' '),
            "{}",
            add.path
        );
        let value = add.partition_values["place"].as_deref();
        let nth = ODD.iter().position(|v| *v == value).unwrap() as i64;
        let rows = table.read(add).await;
        let names: Vec<_> = rows
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["id", "text"], "no partition column in the file");
        assert_eq!(
            ids(&[rows]),
            (0..20).map(|i| i * 10 + nth).collect::<Vec<_>>()
        );
        let stats = json(add);
        assert_eq!(stats["minValues"]["id"], nth);
        assert!(stats["nullCount"].get("place").is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_partition_values_have_paths_that_decode() {
    let (table, written) = write_odd_partitions(probe()).await;
    check_odd_partitions(&table, &written).await;
    let path_of = |value: &str| {
        let add = written
            .adds
            .iter()
            .find(|a| a.partition_values["place"].as_deref() == Some(value));
        add.unwrap().path.rsplit_once('/').unwrap().0.to_owned()
    };
    // Hive's escape for the folder, then the log's on top of it.
    assert_eq!(path_of("two words"), "place=two%20words");
    assert_eq!(path_of("a/b=c"), "place=a%252Fb%253Dc");
    assert_eq!(path_of("50%"), "place=50%2525");
    table.sink().unwrap().discard(&written.adds).await;
    assert!(table.objects().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_partition_values_have_folders_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let (table, written) = write_odd_partitions(store).await;
    check_odd_partitions(&table, &written).await;
    for name in [
        "place=two words",
        "place=a%2Fb%3Dc",
        "place=日本 é",
        "place=..%2Fup",
    ] {
        assert!(folder.path().join("lake/t").join(name).is_dir(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partitions_stay_within_their_memory() {
    let schema = schema(&[
        ("id", DataType::Int64),
        ("p", DataType::Int32),
        ("q", DataType::Boolean),
        ("text", DataType::Utf8View),
    ]);
    let table = Table::new(probe(), schema.clone()).partitioned_by(&["p", "q"]);
    let words = noise(&id_and_text(), 0, 4000);
    let make = {
        let schema = schema.clone();
        move |lane: usize| {
            let (schema, words) = (schema.clone(), words.clone());
            futures::stream::iter(0..25).map(move |i| {
                let first = (lane * 25 + i) as i64 * 4000;
                let p = Int32Array::from_iter_values((0..4000).map(|r| r % 300));
                let q = BooleanArray::from_iter((0..4000).map(|r| Some(r % 2 == 0)));
                let id = Int64Array::from_iter_values(first..first + 4000);
                Ok(batch(
                    &schema,
                    vec![
                        Arc::new(id),
                        Arc::new(p),
                        Arc::new(q),
                        words.column(1).clone(),
                    ],
                ))
            })
        }
    };
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(24 << 20));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool.clone())
        .build_arc()
        .unwrap();
    let config = SessionConfig::new().with_target_partitions(2);
    let context = SessionContext::new_with_config_rt(config, runtime).task_ctx();
    let written = table
        .write_plan(streaming(&schema, 2, make), context)
        .await
        .unwrap();
    assert_eq!(written.rows, 200_000);
    // 20 MB of rows in 300 partitions: some files were closed early, but not all the time.
    assert!(
        (300..1500).contains(&written.adds.len()),
        "{}",
        written.adds.len()
    );
    assert_eq!(pool.reserved(), 0);
    let mut all = Vec::new();
    for add in &written.adds {
        all.push(table.read(add).await.project(&[0]).unwrap());
    }
    assert_eq!(ids(&all), (0..200_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_under_pressure_sends_its_row_groups() {
    let schema = id_and_text();
    let table = Table::new(probe(), schema.clone());
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(20 << 20));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool.clone())
        .build_arc()
        .unwrap();
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime).task_ctx();
    let lane: Vec<_> = (0..120).map(|i| noise(&schema, i * 5000, 5000)).collect();
    let written = table
        .write_plan(memory(&schema, &[lane]), context)
        .await
        .unwrap();
    assert_eq!(written.rows, 600_000);
    assert!(written.adds.len() <= 3, "{}", written.adds.len());
    assert_eq!(pool.reserved(), 0);
    let mut all = Vec::new();
    for add in &written.adds {
        all.push(table.read(add).await);
    }
    assert_eq!(ids(&all), (0..600_000).collect::<Vec<_>>());
}

// --- failure --------------------------------------------------------------------------------

/// Batches that fill several files, then whatever `end` gives.
fn rows_then<S>(
    schema: &SchemaRef,
    end: impl Fn() -> S + Send + Sync + 'static,
) -> Arc<dyn ExecutionPlan>
where
    S: Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
{
    let rows = schema.clone();
    streaming(schema, 2, move |lane| {
        let rows = rows.clone();
        futures::stream::iter(0..10)
            .map(move |i| Ok(noise(&rows, lane as i64 * 100_000 + i * 1000, 1000)))
            .chain(end())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_plan_leaves_no_file_and_comes_back_as_it_was() {
    let schema = id_and_text();
    let refused = || {
        let error = Error::rejected("column id: 3 rows are not unique").with_hint("drop them");
        futures::stream::once(async { Err(DataFusionError::from(error)) })
    };
    for table in [
        Table::new(probe(), schema.clone()).file_bytes(64 << 10),
        Table::new(probe(), schema.clone()).partitioned_by(&["text"]),
    ] {
        let error = table
            .write_plan(rows_then(&schema, refused), context(2))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert_eq!(error.message(), "column id: 3 rows are not unique");
        assert_eq!(error.hint(), Some("drop them"));
        table.assert_emptied().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_write_leaves_no_file() {
    let schema = id_and_text();
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> =
        Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    for store in [probe() as Arc<dyn ObjectStore>, local] {
        let table = Table::new(store, schema.clone()).file_bytes(64 << 10);
        let endless = rows_then(&schema, futures::stream::pending);
        let sink = table.sink().unwrap();
        let write = sink.write(endless, context(2));
        let landed = async {
            while table.objects().await.len() < 4 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = write => panic!("the plan does not end"),
            () = landed => {}
        }
        table.assert_emptied().await;
    }
    let left: Vec<_> = std::fs::read_dir(folder.path().join("lake/t"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_ends_after_the_drop_is_undone() {
    let schema = id_and_text();
    let store = probe();
    store.put_delay_ms.store(200, Ordering::SeqCst);
    let table = Table::new(store.clone(), schema.clone());
    let plan = memory(&schema, &[vec![noise(&schema, 0, 1)]]);
    let sink = table.sink().unwrap();
    let write = sink.write(plan, context(1));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), write)
            .await
            .is_err()
    );
    assert_eq!(store.puts.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    table.assert_emptied().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_upload_is_aborted() {
    let schema = id_and_text();
    let store = probe();
    let table = Table::new(store.clone(), schema.clone()).file_bytes(10 << 20);
    let rows = schema.clone();
    let plan = streaming(&schema, 1, move |_| {
        let rows = rows.clone();
        futures::stream::iter(0..80)
            .map(move |i| Ok(noise(&rows, i * 5000, 5000)))
            .chain(futures::stream::pending())
    });
    let sink = table.sink().unwrap();
    let write = sink.write(plan, context(1));
    let begun = async {
        while store.multiparts.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = write => panic!("the plan does not end"),
        () = begun => {}
    }
    table.assert_emptied().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_named_and_nothing_stays() {
    let schema = id_and_text();
    let store = probe();
    store.fail_puts.store(true, Ordering::SeqCst);
    let table = Table::new(store.clone(), schema.clone());
    let error = table
        .write(&[vec![noise(&schema, 0, 1)]])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(
        error.message().starts_with("data file lake/t/part-00001-"),
        "{error}"
    );
    assert!(error.detail().unwrap().contains("no space left"));

    store.fail_parts.store(true, Ordering::SeqCst);
    let lane = (0..60).map(|i| noise(&schema, i * 5000, 5000)).collect();
    let error = table.write(&[lane]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    for _ in 0..100 {
        if store.aborts.load(Ordering::SeqCst) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.aborts.load(Ordering::SeqCst), 1);
    table.assert_emptied().await;
}

#[tokio::test]
async fn rows_a_file_cannot_hold_are_refused() {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8View, true),
    ];
    let table = Table::new(probe(), Arc::new(Schema::new(fields)));
    let loose = id_and_text();
    let text: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
    let holes = batch(
        &loose,
        vec![Arc::new(Int64Array::from(vec![Some(1), None])), text],
    );
    let error = table
        .write_plan(memory(&loose, &[vec![holes]]), context(1))
        .await
        .unwrap_err();
    assert_eq!(
        error.message(),
        "column id is NOT NULL, but 1 rows have no value"
    );

    let other = schema(&[("id", DataType::Int64), ("text", DataType::Utf8)]);
    let rows = batch(
        &other,
        vec![
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(StringArray::from(vec!["a"])),
        ],
    );
    let error = table
        .write_plan(memory(&other, &[vec![rows]]), context(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.detail().unwrap().contains("Utf8"), "{error}");
    let all = Table::new(probe(), id_and_text()).partitioned_by(&["id", "text"]);
    assert_eq!(all.sink().err().unwrap().kind(), ErrorKind::Invalid);
}

// --- statistics -----------------------------------------------------------------------------

/// Statistics the slow way, from the rows.
fn brute_force(rows: &RecordBatch, name: &str) -> (Option<String>, Option<String>, usize) {
    let column = &rows[name];
    let text = cast(column, &DataType::Utf8).unwrap();
    let order = datafusion::arrow::compute::sort_to_indices(column, None, None).unwrap();
    let valid: Vec<usize> = order
        .values()
        .iter()
        .map(|&i| i as usize)
        .filter(|&i| column.is_valid(i))
        .collect();
    let value = |i: &usize| text.as_string::<i32>().value(*i).to_owned();
    (
        valid.first().map(value),
        valid.last().map(value),
        column.null_count(),
    )
}

#[tokio::test]
async fn statistics_equal_those_of_the_rows() {
    for seed in 0..6 {
        let rows = every_type([1, 2, 7, 50, 500, 2000][seed as usize], seed * 10);
        let table = Table::new(probe(), rows.schema());
        let written = table.write(&[vec![rows.clone()]]).await.unwrap();
        let text = written.adds[0].stats.as_deref().unwrap();
        let stats = json(&written.adds[0]);
        assert_eq!(stats["numRecords"], rows.num_rows());
        assert_eq!(stats["tightBounds"], true);
        for name in ["long", "short", "byte", "dec9", "dec18", "dec38"] {
            let (min, max, _) = brute_force(&rows, name);
            for value in min.iter().chain(&max) {
                // In the text, since a parser would round the decimals.
                assert!(
                    text.contains(&format!("\"{name}\":{value}")),
                    "{name} {value} {text}"
                );
            }
        }
        for name in ["double", "float"] {
            let (min, max, _) = brute_force(&rows, name);
            for value in min.iter().chain(&max) {
                let value = match name {
                    "float" => serde_json::to_string(&value.parse::<f32>().unwrap()),
                    _ => serde_json::to_string(&value.parse::<f64>().unwrap()),
                };
                // In the text again: serde_json parses a float to within one unit in the last place.
                let bound = format!("\"{name}\":{}", value.unwrap());
                assert!(text.contains(&bound), "{bound} {text}");
            }
        }
        for (name, format) in [
            ("day", "%Y-%m-%d"),
            ("at", "%Y-%m-%dT%H:%M:%S%.6fZ"),
            ("local", "%Y-%m-%dT%H:%M:%S%.6f"),
        ] {
            let (min, max, _) = brute_force(&rows, name);
            for (side, bound) in [("minValues", min), ("maxValues", max)] {
                let bound = bound.map(|b| match name {
                    "day" => b,
                    _ => chrono::DateTime::parse_from_rfc3339(&format!(
                        "{}Z",
                        b.trim_end_matches('Z')
                    ))
                    .unwrap()
                    .format(format)
                    .to_string(),
                });
                assert_eq!(stats[side][name].as_str(), bound.as_deref(), "{name}");
            }
        }
        let text_column = rows["text"].as_string_view();
        let (min, max) = (
            text_column.iter().flatten().min(),
            text_column.iter().flatten().max(),
        );
        let stated = |side: &str| stats[side]["text"].as_str().map(str::to_owned);
        assert_eq!(
            stated("minValues"),
            min.map(|m| m.chars().take(32).collect())
        );
        assert_eq!(stated("maxValues").is_some(), max.is_some());
        if let (Some(stated), Some(max)) = (stated("maxValues"), max) {
            assert!(stated.as_str() >= max && stated.chars().count() <= 32);
        }
        for name in [
            "long", "text", "bool", "bytes", "dec38", "at", "list", "map",
        ] {
            assert_eq!(stats["nullCount"][name], rows[name].null_count(), "{name}");
        }
        let nested = rows["nested"].as_struct();
        let missing = |i: usize| {
            let child = nested.column(i);
            let hidden = (0..rows.num_rows()).filter(|&r| nested.is_null(r) || child.is_null(r));
            hidden.count()
        };
        assert_eq!(stats["nullCount"]["nested"]["n"], missing(0));
        assert_eq!(stats["nullCount"]["nested"]["s"], missing(1));
        let visible = (0..rows.num_rows())
            .filter(|&r| nested.is_valid(r) && nested.column(0).is_valid(r))
            .map(|r| nested.column(0).as_primitive::<Int32Type>().value(r));
        assert_eq!(
            stats["minValues"]["nested"]["n"].as_i64(),
            visible.min().map(i64::from)
        );
        for name in ["bool", "bytes", "list", "map"] {
            assert!(
                stats["minValues"].get(name).is_none(),
                "{name} has no order"
            );
        }
    }
}

#[tokio::test]
async fn nan_takes_the_bounds_away_and_infinity_its_own() {
    let schema = schema(&[
        ("nan", DataType::Float64),
        ("inf", DataType::Float64),
        ("zero", DataType::Float32),
        ("small", DataType::Float32),
    ]);
    let rows = batch(
        &schema,
        vec![
            Arc::new(Float64Array::from(vec![1.0, f64::NAN, 3.0])),
            Arc::new(Float64Array::from(vec![1.5, f64::INFINITY, 3.0])),
            Arc::new(Float32Array::from(vec![0.0, -0.0, 0.0])),
            Arc::new(Float32Array::from(vec![0.1, 0.2, 1e-20])),
        ],
    );
    let table = Table::new(probe(), schema.clone());
    let written = table.write(&[vec![rows]]).await.unwrap();
    let stats = written.adds[0].stats.as_deref().unwrap();
    assert_eq!(
        stats,
        "{\"numRecords\":3,\
         \"minValues\":{\"inf\":1.5,\"zero\":-0.0,\"small\":1e-20},\
         \"maxValues\":{\"zero\":0.0,\"small\":0.2},\
         \"nullCount\":{\"nan\":0,\"inf\":0,\"zero\":0,\"small\":0},\
         \"nanCount\":{\"inf\":0,\"zero\":0,\"small\":0},\
         \"tightBounds\":true}"
    );
}

#[tokio::test]
async fn a_chunk_with_nan_has_no_bounds_and_keeps_its_null_count() {
    let item = Arc::new(Field::new("element", DataType::Float32, true));
    let inner = Field::new("inner", DataType::Float64, true);
    let schema = schema(&[
        ("id", DataType::Int64),
        ("x", DataType::Float64),
        ("s", DataType::Struct(vec![inner].into())),
        ("l", DataType::List(item)),
        ("last", DataType::Float64),
    ]);
    // Three row groups; NaN stands in the second only, and in the list in the first.
    let group = encode::ROW_GROUP_ROWS;
    let rows = 2 * group + 10;
    let float = |nan: Option<usize>| {
        let value = |row| match row {
            _ if Some(row) == nan => Some(f64::NAN),
            0 => None,
            row => Some(row as f64),
        };
        (0..rows).map(value).collect::<Float64Array>()
    };
    let DataType::Struct(fields) = schema.field(2).data_type() else {
        panic!()
    };
    let inner: ArrayRef = Arc::new(float(Some(group + 5)));
    let list = ListArray::from_iter_primitive::<Float32Type, _, _>(
        (0..rows).map(|row| Some([Some(row as f32), (row == 7).then_some(-f32::NAN)])),
    );
    let DataType::List(element) = schema.field(3).data_type() else {
        panic!()
    };
    let (_, offsets, values, nulls) = list.into_parts();
    let list = ListArray::new(Arc::clone(element), offsets, values, nulls);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..rows as i64)),
        Arc::new(float(Some(group + 3))),
        Arc::new(StructArray::new(fields.clone(), vec![inner], None)),
        Arc::new(list),
        Arc::new(float(None)),
    ];
    let table = Table::new(probe(), schema.clone());
    let written = table.write(&[vec![batch(&schema, columns)]]).await.unwrap();
    let bytes = table.object(&written.adds[0]).await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let bounded: Vec<Vec<bool>> = reader
        .metadata()
        .row_groups()
        .iter()
        .map(|group| {
            let columns = group.columns().iter();
            columns
                .map(|chunk| {
                    let statistics = chunk.statistics().unwrap();
                    assert!(statistics.null_count_opt().is_some());
                    statistics.min_bytes_opt().is_some() && statistics.max_bytes_opt().is_some()
                })
                .collect()
        })
        .collect();
    assert_eq!(
        bounded,
        [
            [true, true, true, false, true],
            [true, false, false, true, true],
            [true, true, true, true, true],
        ]
    );
    let stats = json(&written.adds[0]);
    assert_eq!(
        stats["minValues"],
        serde_json::json!({"id": 0, "last": 1.0})
    );
    assert_eq!(stats["nullCount"]["x"], 1);
    assert_eq!(stats["nanCount"], serde_json::json!({"last": 0}));
}

#[tokio::test]
async fn the_table_s_properties_choose_the_columns() {
    let names: Vec<String> = (0..40).map(|i| format!("c{i}")).collect();
    let schema = schema(
        &names
            .iter()
            .map(|n| (n.as_str(), DataType::Int32))
            .collect::<Vec<_>>(),
    );
    let columns = (0..40).map(|_| Arc::new(Int32Array::from(vec![1])) as _);
    let rows = batch(&schema, columns.collect());
    let counted = async |table: Table| {
        let written = table.write(&[vec![rows.clone()]]).await.unwrap();
        let stats = json(&written.adds[0]);
        assert_eq!(stats["numRecords"], 1);
        let keys = stats["minValues"].as_object().unwrap().keys().cloned();
        keys.collect::<Vec<_>>()
    };
    let table = || Table::new(probe(), schema.clone());
    let num = "delta.dataSkippingNumIndexedCols";
    assert_eq!(counted(table()).await.len(), 32);
    assert_eq!(counted(table().property(num, "-1")).await.len(), 40);
    assert_eq!(
        counted(table().property(num, "3")).await,
        ["c0", "c1", "c2"]
    );
    assert!(counted(table().property(num, "0")).await.is_empty());
    let listed = table().property("delta.dataSkippingStatsColumns", "c39, `c7`");
    assert_eq!(counted(listed).await, ["c39", "c7"]);
    for wrong in ["-2", "many"] {
        let error = table().property(num, wrong).sink().err().unwrap();
        assert!(error.message().contains(wrong), "{error}");
    }
    let table = table().partitioned_by(&["c0"]);
    assert_eq!(
        counted(table).await.len(),
        32,
        "partition columns do not count"
    );
}

/// Not a measurement, a guard: the path of a small insert must stay free of waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_small_writes_do_not_interfere() {
    let schema = id_and_text();
    let store = probe();
    let table = Table::new(store.clone(), schema.clone());
    let sink = table.sink().unwrap();
    let started = Mutex::new(0);
    let writes = (0..1000).map(|i| {
        *started.lock() += 1;
        sink.write(memory(&schema, &[vec![noise(&schema, i, 1)]]), context(1))
    });
    let written: Vec<_> = futures::stream::iter(writes)
        .buffered(16)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(written.iter().map(|w| w.rows).sum::<u64>(), 1000);
    assert_eq!(store.puts.load(Ordering::SeqCst), 1000);
}

#[test]
fn paths_are_encoded_once_more() {
    for path in ["a=b/c d", "a=50%25", "é/語", "x+y&z", "plain-1_2.~/p"] {
        let encoded = encode_path(path);
        assert!(encoded.is_ascii());
        assert_eq!(decode_path(&encoded).as_deref(), Some(path));
    }
    assert_eq!(decode_path("%zz"), None);
}
