//! Files of a journal.

use super::*;

/// Rows of two partitions, which take turns.
#[tokio::test]
async fn a_file_of_current_rows_ends_with_its_row_group() {
    const BATCH: i64 = 8 << 10;
    let schema = schema(&[("k", DataType::Int64), ("now", DataType::Boolean)]);
    let rows = encode::ROW_GROUP_ROWS as i64 + 10 * BATCH;
    let batches = (0..rows / BATCH).flat_map(|at| {
        let keys = Int64Array::from_iter_values(at * BATCH..(at + 1) * BATCH);
        let keys: ArrayRef = Arc::new(keys);
        [true, false].map(|now| {
            let now = BooleanArray::from(vec![now; BATCH as usize]);
            batch(&schema, vec![Arc::clone(&keys), Arc::new(now)])
        })
    });
    let table = Table::new(probe(), Arc::clone(&schema)).partitioned_by(&["now"]);
    let sink = table.sink().unwrap().of_journal("now").unwrap();
    let plan = memory(&schema, &[batches.collect()]);
    let written = sink.write(plan, context(1)).await.unwrap();
    let mut files = Vec::new();
    for add in &written.adds {
        let bytes = table.object(add).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let groups = reader.metadata().row_groups();
        let rows: i64 = groups.iter().map(|group| group.num_rows()).sum();
        files.push((add.partition_values["now"].as_deref(), groups.len(), rows));
    }
    files.sort();
    let rest = rows - encode::ROW_GROUP_ROWS as i64;
    let first = (encode::ROW_GROUP_ROWS - lane::STEP_ROWS) as i64;
    assert_eq!(
        files,
        [
            (Some("false"), 2, rows),
            (Some("true"), 1, rest + lane::STEP_ROWS as i64),
            (Some("true"), 1, first),
        ]
    );
    assert!(table.sink().unwrap().of_journal("there").is_err());
}
