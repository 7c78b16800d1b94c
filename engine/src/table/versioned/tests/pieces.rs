//! Files of many row groups whose rows are deleted in all patterns: every visible row is read once, however the file
//! is shared out.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type as Int64;
use datafusion::physical_plan::{ExecutionPlanProperties, collect};

use super::*;

/// Rows of a row group, as [`parquet`] writes them.
const GROUP: u64 = 64;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("word", DataType::Utf8View, true),
    ]))
}

fn rows(groups: u64, more: u64) -> RecordBatch {
    let ids: Int64Array = (0..(groups * GROUP + more) as i64).collect();
    let words: StringViewArray = ids
        .values()
        .iter()
        .map(|id| (id % 7 > 0).then(|| format!("w{}", id % 5)))
        .collect();
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(words)]).unwrap()
}

/// Which rows go, by the number of row groups.
fn patterns(groups: u64) -> Vec<Vec<u64>> {
    let all = groups * GROUP;
    let of = |group: u64| group * GROUP..(group + 1) * GROUP;
    vec![
        (0..all).step_by(3).collect(),
        (0..all).filter(|row| row % 7 != 3).collect(),
        // Whole row groups and whole pieces, at the beginning, within and at the end.
        of(0).collect(),
        of(groups - 1).collect(),
        (0..groups).step_by(2).flat_map(of).collect(),
        (0..groups.min(4)).flat_map(of).collect(),
        (groups.saturating_sub(4)..groups).flat_map(of).collect(),
        // One row is left.
        (0..all).filter(|row| *row != all / 2).collect(),
        vec![0, all - 1],
    ]
}

#[tokio::test]
async fn each_visible_row_is_read_once() {
    for groups in [1, 2, 4, 5, 9, 16] {
        for deleted in patterns(groups) {
            let mut build = Build::new(schema(), &[]);
            build
                .add(File::of(rows(groups, 5)).deleted(deleted.clone()))
                .await;
            build.add(File::of(rows(1, 0))).await;
            for (partitions, least) in [("1", "1"), ("3", "1"), ("2", "1000000000")] {
                let context = build.context(&[
                    ("datafusion.execution.target_partitions", partitions),
                    ("datafusion.optimizer.repartition_file_min_size", least),
                ]);
                same(&context, "select * from {}").await;
                same(&context, "select count(*), sum(id) from {}").await;
                same(&context, "select id from {} where id % 64 < 3 and id > 70").await;
                same(&context, "select * from {} where id = 100").await;
                same(&context, "select * from {} where word = 'w1' and id >= 64").await;
            }
        }
    }
}

#[tokio::test]
async fn a_file_without_a_visible_row_is_not_read() {
    let mut build = Build::new(schema(), &[]);
    let mut file = File::of(rows(2, 0)).deleted(0..2 * GROUP);
    // Nobody says beforehand how many rows it has.
    file.stats = false;
    build.add(file).await;
    let context = build.context(&[]);
    same(&context, "select * from {} where id > 3").await;
    let scan = build.table().scan(&context.state(), None, &[], None).await;
    assert_eq!(scan.unwrap().name(), "EmptyExec");
}

#[tokio::test]
async fn places_of_rows_count_the_deleted_ones() {
    let mut build = Build::new(schema(), &[]);
    build
        .add(File::of(rows(9, 3)).deleted((0..9 * GROUP).step_by(2)))
        .await;
    let context = build.context(&[]);
    let located = build.table().located(Arc::default());
    let scan = located.scan(&context.state(), None, &[], None).await;
    let rows = collect(scan.unwrap(), context.task_ctx()).await.unwrap();
    let mut seen = 0;
    for batch in &rows {
        let [id, file, row] = ["id", located::FILE, located::ROW]
            .map(|name| cast(batch.column_by_name(name).unwrap(), &DataType::Int64).unwrap());
        assert_eq!(&id, &row);
        assert_eq!(file.as_primitive::<Int64>().values().iter().max(), Some(&0));
        seen += batch.num_rows();
    }
    assert_eq!(seen as u64, 9 * GROUP / 2 + 3);
}

#[tokio::test]
async fn one_file_is_shared_out_without_an_optimizer() {
    let mut build = Build::new(schema(), &[]);
    build.add(File::of(rows(9, 0)).deleted([1])).await;
    let context = build.context(&[("datafusion.optimizer.repartition_file_min_size", "1")]);
    let scan = build.table().scan(&context.state(), None, &[], None).await;
    assert_eq!(scan.unwrap().output_partitioning().partition_count(), 3);
}
