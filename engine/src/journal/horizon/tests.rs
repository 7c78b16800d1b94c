//! What is kept, in the log and in files.

use std::collections::BTreeMap;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::physical_plan::collect;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::stream;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::super::definition::{Definition, Late, PeriodColumns};
use super::*;
use crate::table::actions::Action;
use crate::table::schema::to_delta;

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A journal of these declared columns, of which the first is the key and the second the sequence.
fn shape(stored: &SchemaRef) -> Arc<Shape> {
    let [key, sequence] = [0, 1].map(|place| stored.field(place).name());
    let definition = Definition::plain(&[key], Some(sequence));
    Arc::new(Shape::new("t", definition, &mapping::logical(stored)).unwrap())
}

fn columns_of(value: &str) -> SchemaRef {
    let declared: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("at", instant(), false),
        Field::new(value, DataType::Int64, true),
    ]));
    let periods = PeriodColumns::named("selvedge").unwrap();
    Shape::with_period(&declared, &periods).unwrap()
}

/// Events of key 1 at these instants, whose values are these as well.
fn events(shape: &Shape, at: &[i64]) -> RecordBatch {
    events_of(shape, &vec![1; at.len()], at)
}

fn events_of(shape: &Shape, keys: &[i64], at: &[i64]) -> RecordBatch {
    let number = || -> ArrayRef { Arc::new(Int64Array::from(at.to_vec())) };
    let instants = TimestampMicrosecondArray::from(at.to_vec()).with_timezone("UTC");
    let keep: BinaryArray = at.iter().map(|_| None::<&[u8]>).collect();
    RecordBatch::try_new(
        kept_schema(shape),
        vec![
            Arc::new(Int64Array::from(keys.to_vec())),
            Arc::new(instants),
            number(),
            number(),
            Arc::new(BooleanArray::from(vec![false; at.len()])),
            Arc::new(keep),
            Arc::new(BooleanArray::from(vec![false; at.len()])),
        ],
    )
    .unwrap()
}

struct Place {
    root: TableRoot,
    context: SessionContext,
}

impl Place {
    fn new() -> Self {
        let store_url = ObjectStoreUrl::parse("memory://horizon").unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let context = SessionContext::new();
        context.register_object_store(store_url.as_ref(), Arc::clone(&store));
        Self {
            root: TableRoot {
                store_url,
                store,
                path: Path::from("lake/t"),
            },
            context,
        }
    }

    fn sink(&self, shape: &Shape, metadata: &Metadata) -> FileSink {
        sink(&self.root, shape, metadata, 1 << 20, &Ambient::machine()).unwrap()
    }

    async fn write(&self, shape: &Shape, metadata: &Metadata, at: &[i64]) -> Vec<KeptFile> {
        self.write_batch(shape, metadata, events(shape, at), at)
            .await
    }

    async fn write_batch(
        &self,
        shape: &Shape,
        metadata: &Metadata,
        batch: RecordBatch,
        at: &[i64],
    ) -> Vec<KeptFile> {
        let rows = RecordBatchStreamAdapter::new(batch.schema(), stream::iter([Ok(batch)]));
        let sink = self.sink(shape, metadata);
        let context = self.context.task_ctx();
        let written = sink.write_rows(Box::pin(rows), &context).await.unwrap();
        files(&written, at[0], at[at.len() - 1]).unwrap()
    }

    /// Sequence, anchor and the value of each row, sorted.
    async fn read(
        &self,
        shape: &Shape,
        metadata: &Metadata,
        files: Vec<KeptFile>,
    ) -> Vec<(i64, bool, Option<i64>)> {
        let kept = Kept {
            watermark: 0,
            files,
        };
        let state = self.context.state();
        let plan = scan(&state, shape, &self.root, metadata, &kept, &[]).await;
        let batches = collect(plan.unwrap(), self.context.task_ctx())
            .await
            .unwrap();
        let mut rows = Vec::new();
        for batch in batches {
            let value = batch.column(2).as_primitive::<Int64Type>();
            let at = batch.column(3).as_primitive::<Int64Type>();
            let anchor = batch.column(6).as_boolean();
            let each = value.iter().zip(at.values()).zip(anchor.iter());
            rows.extend(each.map(|((value, at), anchor)| (*at, anchor.unwrap(), value)));
        }
        rows.sort();
        rows
    }
}

fn file(path: &str) -> KeptFile {
    KeptFile {
        path: path.to_owned(),
        rows: 1,
        bytes: 10,
        first: 1,
        last: 2,
        condensed: None,
    }
}

fn snapshot(kept: Option<&Kept>) -> Snapshot {
    let protocol = Protocol::plain(3, 7);
    let mut snapshot = Snapshot::draft(&protocol, &Metadata::of_files([]), columns_of("v"));
    if let Some(kept) = kept {
        let line = line(kept).unwrap();
        snapshot.domains.insert(DOMAIN.to_owned(), Arc::new(line));
    }
    snapshot
}

#[test]
fn the_list_is_carried_on_from_version_to_version() {
    let keeping = |watermark: i64, came: &[&str], out: &[&str]| Keeping {
        watermark,
        restores: false,
        came: came.iter().map(|path| file(path)).collect(),
        out: out.iter().map(|path| (*path).to_owned()).collect(),
    };
    let first = over(&snapshot(None), &keeping(-5, &["a"], &[]));
    let first = first.unwrap().unwrap();
    assert_eq!(first.watermark, -5);
    let head = snapshot(Some(&first));
    assert_eq!(of(&head).unwrap(), first);
    // An earlier one does not take the watermark back.
    let next = over(&head, &keeping(-9, &["b"], &["a"])).unwrap().unwrap();
    assert_eq!((next.watermark, next.files), (-5, vec![file("b")]));
    assert_eq!(over(&head, &keeping(-5, &[], &[])).unwrap(), None);
    let error = over(&head, &keeping(0, &[], &["c"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let mut broken = head;
    let line = json!({"domain": DOMAIN, "configuration": "{}", "removed": false});
    broken.domains.insert(DOMAIN.to_owned(), Arc::new(line));
    assert_eq!(of(&broken).unwrap_err().kind(), ErrorKind::Corrupt);
    let line = json!({"domain": DOMAIN, "configuration": "", "removed": true});
    broken.domains.insert(DOMAIN.to_owned(), Arc::new(line));
    assert_eq!(of(&broken).unwrap(), Kept::default());
}

#[tokio::test]
async fn kept_events_are_condensed_behind_the_horizon() {
    let place = Place::new();
    let (shape, metadata) = (shape(&columns_of("v")), Metadata::of_files([]));
    let mut files = place.write(&shape, &metadata, &[1, 5]).await;
    files.extend(place.write(&shape, &metadata, &[20, 30]).await);
    let all: Vec<_> = [1, 5, 20, 30].map(|at| (at, false, Some(at))).into();
    assert_eq!(place.read(&shape, &metadata, files.clone()).await, all);

    let state = place.context.state();
    let sink = place.sink(&shape, &metadata);
    let kept = Kept {
        watermark: 30,
        files,
    };
    let due = |horizon| {
        condense(
            &state,
            &shape,
            &place.root,
            &metadata,
            &kept,
            horizon,
            &sink,
        )
    };
    assert_eq!(due(5).await.unwrap(), None);
    let (came, out) = due(25).await.unwrap().unwrap();
    let paths: Vec<String> = kept.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(out, paths);
    assert_eq!((came[0].first, came[0].last), (25, 30));
    assert_eq!(came[0].condensed, Some(25));
    let left = [(20, true, Some(20)), (30, false, Some(30))];
    assert_eq!(place.read(&shape, &metadata, came).await, left);
    // Nothing but an anchor, which is there for one more round.
    let (came, _) = due(40).await.unwrap().unwrap();
    assert_eq!(
        place.read(&shape, &metadata, came.clone()).await,
        [(30, true, Some(30))]
    );
    let kept = Kept {
        watermark: 50,
        files: came,
    };
    let again = condense(&state, &shape, &place.root, &metadata, &kept, 40, &sink).await;
    assert!(again.unwrap().unwrap().0.is_empty());
}

/// Who writes few keys reads the pages that may hold them.
#[tokio::test]
async fn only_the_keys_that_are_asked_for_are_read() {
    let place = Place::new();
    let shape = shape(&columns_of("v"));
    let (name, text) = definition::property(&shape.definition).unwrap();
    let metadata = Metadata::of_files([(name.as_str(), text.as_str())]);
    let mut files = Vec::new();
    // Two files of 5000 keys each: three pages, the last of them short.
    for from in [0_i64, 5_000] {
        let keys: Vec<i64> = (from..from + 5_000).collect();
        let batch = events_of(&shape, &keys, &keys);
        let written = place.write_batch(&shape, &metadata, batch, &keys).await;
        files.extend(written);
    }
    let kept = Kept {
        watermark: 0,
        files,
    };
    let state = place.context.state();
    let between = |from: i64, to: i64| {
        let key = || datafusion::logical_expr::ident("k");
        [
            key().gt_eq(datafusion::logical_expr::lit(from)),
            key().lt_eq(datafusion::logical_expr::lit(to)),
        ]
    };
    for (from, to, rows, at_most) in [
        (7_100, 7_101, 2, 4_096),
        (4_999, 5_000, 2, 904 + 4_096),
        (20_000, 20_001, 0, 0),
    ] {
        let filters = between(from, to);
        let plan = scan(&state, &shape, &place.root, &metadata, &kept, &filters);
        let plan = plan.await.unwrap();
        let context = place.context.task_ctx();
        let batches = collect(Arc::clone(&plan), context).await.unwrap();
        let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(found, rows, "{from} to {to}");
        let mut leaf = plan;
        loop {
            let below = leaf.children().first().copied().cloned();
            match below {
                Some(below) => leaf = below,
                None => break,
            }
        }
        let read = leaf.metrics().and_then(|metrics| metrics.output_rows());
        let read = read.unwrap_or(if at_most == 0 { 0 } else { usize::MAX });
        assert!((rows..=at_most).contains(&read), "{from} to {to}: {read}");
    }
    let all = scan(&state, &shape, &place.root, &metadata, &kept, &[]);
    let all = collect(all.await.unwrap(), place.context.task_ctx()).await;
    let rows: usize = all.unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 10_000);
}

/// What a file says that others were made into was said before.
#[test]
fn files_that_were_condensed_bring_nothing_new() {
    let late = Late {
        after_micros: Some(10),
        ..Late::default()
    };
    let shape = shape(&columns_of("v"));
    let definition = Definition {
        late,
        ..shape.definition.clone()
    };
    let shape = Shape::new("t", definition, &shape.stored).unwrap();
    let kept = |paths: &[(&str, Option<i64>)]| Kept {
        watermark: 30,
        files: paths
            .iter()
            .map(|(path, condensed)| KeptFile {
                condensed: *condensed,
                ..file(path)
            })
            .collect(),
    };
    let base = snapshot(Some(&kept(&[("a", None), ("b", None)])));
    let new = |commits: &[Kept]| {
        let mut since = Since::new(&shape, &base).unwrap();
        for (version, kept) in (1..).zip(commits) {
            let action = Action::DomainMetadata(line(kept).unwrap());
            since.take(version, &[action]).unwrap();
        }
        let files = since.files().into_iter();
        files.map(|file| file.path).collect::<Vec<_>>()
    };
    // Events that came are new, whether they are still listed or have gone into another file since.
    let came = kept(&[("a", None), ("b", None), ("c", None)]);
    assert_eq!(new(std::slice::from_ref(&came)), ["c"]);
    assert_eq!(new(&[came, kept(&[("ab", Some(20)), ("c", None)])]), ["c"]);
    // Two files of one condensation are as good as one.
    let two = kept(&[("ab", Some(20)), ("ab2", Some(15))]);
    assert_eq!(new(std::slice::from_ref(&two)), [""; 0]);
    // The next one may have dropped what counts, and so may one that folded what is still replayed.
    assert_eq!(
        new(&[two, kept(&[("abc", Some(20))])]),
        ["ab", "ab2", "abc"]
    );
    assert_eq!(new(&[kept(&[("ab", Some(21))])]), ["ab"]);
}

#[tokio::test]
async fn a_column_that_is_renamed_keeps_what_was_kept_of_it() {
    let place = Place::new();
    let before = columns_of("v");
    let mut ids = 0;
    let fields = mapping::assign(before.fields(), &mut ids, &mut |name| format!("col-{name}"));
    let metadata = |fields: Vec<Field>| {
        let schema = Arc::new(Schema::new(fields));
        let mode = BTreeMap::from([(mapping::MODE.to_owned(), "name".to_owned())]);
        let metadata = Metadata {
            schema_string: to_delta(&schema).unwrap(),
            configuration: mode,
            ..Metadata::of_files([])
        };
        (shape(&schema), metadata)
    };
    let fields: Vec<Field> = fields.iter().map(|field| field.as_ref().clone()).collect();
    let (old, old_metadata) = metadata(fields.clone());
    let files = place.write(&old, &old_metadata, &[7]).await;
    let rows = [(7, false, Some(7))];
    assert_eq!(place.read(&old, &old_metadata, files.clone()).await, rows);
    let renamed = fields
        .iter()
        .cloned()
        .map(|field| match field.name() == "v" {
            true => field.with_name("w"),
            false => field,
        });
    let (new, new_metadata) = metadata(renamed.collect());
    assert_eq!(place.read(&new, &new_metadata, files.clone()).await, rows);
    // Another column of the old name finds nothing of it.
    let mut ids = 10;
    let other = mapping::assign(before.fields(), &mut ids, &mut |name| format!("new-{name}"));
    let mut fields = fields;
    fields[2] = other[2].as_ref().clone();
    let (new, new_metadata) = metadata(fields);
    assert_eq!(
        place.read(&new, &new_metadata, files).await,
        [(7, false, None)]
    );
}
