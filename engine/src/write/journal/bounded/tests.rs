use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use arrow::compute::{SortOptions, concat_batches};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{collect, execute_stream};
use datafusion::prelude::SessionConfig;

use super::*;

/// Rows of about a kilobyte in no order, in batches of `each`.
fn wide(partitions: usize, batches: usize, each: usize) -> Arc<dyn ExecutionPlan> {
    let all = (partitions * batches * each) as i64;
    let batch = |number: usize| {
        let places = (number * each..(number + 1) * each).map(|place| place as i64);
        // 7919 is a prime, so each key comes once.
        let keys: Vec<i64> = places.map(|place| place * 7919 % all).collect();
        let texts = keys.iter().map(|key| format!("{key:01000}"));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let keys: ArrayRef = Arc::new(Int64Array::from(keys));
        RecordBatch::try_from_iter([("k", keys), ("text", texts)]).unwrap()
    };
    let rows: Vec<Vec<RecordBatch>> = (0..partitions)
        .map(|part| (part * batches..(part + 1) * batches).map(batch).collect())
        .collect();
    let schema = rows[0][0].schema();
    MemorySourceConfig::try_new_exec(&rows, schema, None).unwrap()
}

fn order() -> LexOrdering {
    let key = Arc::new(Column::new("k", 0));
    LexOrdering::new([PhysicalSortExpr::new(key, SortOptions::default())]).unwrap()
}

/// Sources hand out batches of `each` rows at most.
fn context(mode: DiskManagerMode, each: usize) -> (Arc<TaskContext>, Arc<dyn MemoryPool>) {
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::clone(&pool))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(mode))
        .build_arc()
        .unwrap();
    let config = SessionConfig::new().with_batch_size(each);
    let context = TaskContext::default()
        .with_session_config(config)
        .with_runtime(runtime);
    (Arc::new(context), pool)
}

/// Waits until no memory is held: those who read files are tasks of their own, and end when they notice.
async fn given_back(pool: &Arc<dyn MemoryPool>) {
    for _ in 0..100 {
        if pool.reserved() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} bytes are still held", pool.reserved());
}

/// The keys in the order in which they come, and how many files it took.
async fn sorted(
    rows: Arc<dyn ExecutionPlan>,
    mode: DiskManagerMode,
    each: usize,
) -> (Vec<i64>, usize) {
    let (context, pool) = context(mode, each);
    let sort = Arc::new(BoundedSortExec::new(order(), rows, 0));
    let merged: Arc<dyn ExecutionPlan> = Arc::new(SortPreservingMergeExec::new(
        order(),
        Arc::clone(&sort) as Arc<dyn ExecutionPlan>,
    ));
    let schema = merged.schema();
    let batches = collect(merged, context).await.unwrap();
    let all = concat_batches(&schema, &batches).unwrap();
    let keys = all.column(0).as_any().downcast_ref::<Int64Array>();
    let keys = keys.unwrap().values().to_vec();
    let texts = all.column(1).as_any().downcast_ref::<StringViewArray>();
    for (key, text) in keys.iter().zip(texts.unwrap()) {
        assert_eq!(text, Some(format!("{key:01000}").as_str()));
    }
    given_back(&pool).await;
    let metrics = sort.metrics().unwrap();
    (keys, metrics.spill_count().unwrap_or_default())
}

const DISK: DiskManagerMode = DiskManagerMode::OsTmpDirectory;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_rows_come_back_from_disk_in_order() {
    // 24 MB in each of two partitions, of which each may hold four.
    let (keys, files) = sorted(wide(2, 24, 1000), DISK, 1000).await;
    assert_eq!(keys, (0..48_000).collect::<Vec<_>>());
    assert!((6..=48).contains(&files), "{files} files");
}

#[tokio::test]
async fn what_fits_stays_in_memory() {
    let (keys, files) = sorted(wide(1, 2, 1000), DISK, 1000).await;
    assert_eq!((keys.len(), files), (2_000, 0));
}

#[tokio::test]
async fn a_batch_may_be_larger_than_the_bound() {
    let (keys, files) = sorted(wide(1, 3, 12_000), DISK, 12_000).await;
    assert_eq!(keys, (0..36_000).collect::<Vec<_>>());
    assert_eq!(files, 3);
}

#[tokio::test]
async fn what_slices_share_is_held_once() {
    // Each of 24 batches holds on to all 24 MB, and no file would make that less.
    let (keys, files) = sorted(wide(1, 1, 24_000), DISK, 1000).await;
    assert_eq!(keys, (0..24_000).collect::<Vec<_>>());
    assert_eq!(files, 0);
}

#[tokio::test]
async fn without_a_disk_there_is_no_bound() {
    let (keys, files) = sorted(wide(1, 24, 1000), DiskManagerMode::Disabled, 1000).await;
    assert_eq!(keys, (0..24_000).collect::<Vec<_>>());
    assert_eq!(files, 0);
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskManagerMode::Directories(vec![folder.path().to_owned()]);
    let (context, pool) = context(disk, 1000);
    folder.close().unwrap();
    let sort = BoundedSortExec::new(order(), wide(1, 24, 1000), 0);
    assert!(collect(Arc::new(sort), context).await.is_err());
    given_back(&pool).await;
}

#[tokio::test]
async fn a_sort_that_nobody_waits_for_gives_all_back() {
    let (context, pool) = context(DISK, 1000);
    let sort = Arc::new(BoundedSortExec::new(order(), wide(1, 24, 1000), 0));
    let mut rows = execute_stream(sort, context).unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    drop(rows);
    given_back(&pool).await;
}
