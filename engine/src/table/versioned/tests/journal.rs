//! A journal's current rows and its views by valid time, against the same intervals in memory.

use super::*;
use crate::journal::definition::{
    self, Definition, FAR_FUTURE_MICROS, IgnoreNulls, Late, OpenEnd, PeriodColumns, Track,
};
use crate::table::journal::{Period, spans, view};

const SECOND: i64 = 1_000_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("city", DataType::Utf8View, true),
        Field::new("valid_from", utc(), false),
        Field::new("valid_to", utc(), true),
        Field::new("is_current", DataType::Boolean, false),
    ]))
}

/// Intervals of keys, in seconds. One without an end is current.
fn intervals(rows: &[(i64, &str, i64, Option<i64>)], open: Option<i64>) -> RecordBatch {
    let instants = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let to = |to: Option<i64>| to.map(|to| to * SECOND).or(open);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| Some(row.1))
                .collect::<StringViewArray>(),
        ),
        instants(rows.iter().map(|row| Some(row.2 * SECOND)).collect()),
        instants(rows.iter().map(|row| to(row.3)).collect()),
        Arc::new(
            rows.iter()
                .map(|row| Some(row.3.is_none()))
                .collect::<BooleanArray>(),
        ),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

async fn build(open: Option<i64>) -> Build {
    let mut build = Build::new(schema(), &["is_current"]);
    let closed = [
        (1, "A", 0, Some(10)),
        (1, "B", 10, Some(20)),
        (2, "X", 5, Some(15)),
    ];
    build.add(File::of(intervals(&closed, open))).await;
    let late = [(5, "late", 90, Some(95))];
    build.add(File::of(intervals(&late, open))).await;
    let current = [(1, "C", 20, None), (3, "Z", 12, None), (4, "gone", 1, None)];
    build
        .add(File::of(intervals(&current, open)).deleted([2]))
        .await;
    build
}

fn journal(build: &Build, open_end: OpenEnd) -> VersionedTable {
    let definition = Definition {
        keys: vec!["k".into()],
        sequence: None,
        delete_when: None,
        track: Track::All,
        ignore_nulls: IgnoreNulls::No,
        late: Late::default(),
        columns: PeriodColumns::default(),
        open_end,
    };
    let mut table = build.table();
    let mut snapshot = (*table.snapshot).clone();
    let mut metadata = (*snapshot.metadata).clone();
    let (key, value) = definition::property(&definition).unwrap();
    metadata.configuration.insert(key, value);
    snapshot.metadata = Arc::new(metadata);
    table.snapshot = Arc::new(snapshot);
    table
}

/// The table as `t` with its current rows, `raw` and `s` with all intervals, and `v` by valid time.
async fn over(open_end: OpenEnd, period: Period) -> SessionContext {
    let open = (open_end == OpenEnd::FarFuture).then_some(FAR_FUTURE_MICROS);
    let build = build(open).await;
    let raw = journal(&build, open_end);
    let current = raw.clone().current().unwrap();
    let shape = Arc::clone(current.shape().unwrap());
    let context = build.context(&[]);
    context.deregister_table("t").unwrap();
    context.register_table("t", Arc::new(current)).unwrap();
    context
        .register_table("v", view(raw.clone(), &shape, period).unwrap())
        .unwrap();
    context
        .register_table("s", spans(raw.clone(), &shape).unwrap())
        .unwrap();
    context.register_table("raw", Arc::new(raw)).unwrap();
    context
}

#[tokio::test]
async fn the_plain_name_is_the_current_rows_of_their_files_alone() {
    for open_end in [OpenEnd::Null, OpenEnd::FarFuture] {
        let context = over(open_end, Period::All).await;
        assert_eq!(lines(&context, "SELECT * FROM t").await, ["1|C", "3|Z"]);
        assert_eq!(
            lines(&context, "SELECT city FROM t WHERE k > 1").await,
            ["Z"]
        );
        assert_eq!(lines(&context, "SELECT count(*) FROM t").await, ["2"]);
        assert_eq!(files_read(&context, "SELECT * FROM t").await, 1);
        // The log knows how many there are.
        assert_eq!(files_read(&context, "SELECT count(*) FROM t").await, 0);
        assert!(
            !explain(&context, "SELECT * FROM t")
                .await
                .contains("FilterExec")
        );
        assert_eq!(lines(&context, "SELECT * FROM raw").await.len(), 6);
        assert_eq!(lines(&context, "SELECT * FROM v").await.len(), 6);
        let open = "SELECT k FROM s WHERE __selvedge_to IS NULL";
        assert_eq!(lines(&context, open).await, ["1", "3"]);
    }
}

#[tokio::test]
async fn places_go_with_the_current_rows() {
    let build = build(None).await;
    let located = Arc::new(Located::default());
    let raw = journal(&build, OpenEnd::Null);
    for table in [
        raw.clone().located(Arc::clone(&located)).current().unwrap(),
        raw.clone().current().unwrap().located(Arc::clone(&located)),
    ] {
        let names: Vec<_> = table
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(names, ["k", "city", located::FILE, located::ROW]);
    }
}

#[tokio::test]
async fn t3_boundaries_of_periods() {
    let open = "valid_to IS NULL OR valid_to = to_timestamp_micros(253402214400000000)";
    let at = |second: i64| format!("to_timestamp_micros({})", second * SECOND);
    for open_end in [OpenEnd::Null, OpenEnd::FarFuture] {
        for a in [-1, 0, 9, 10, 15, 95] {
            let context = over(open_end, Period::AsOf(a * SECOND)).await;
            let told = lines(&context, "SELECT k, city FROM v").await;
            let expected = format!(
                "SELECT k, city FROM m WHERE valid_from <= {0} AND ({open} OR {0} < valid_to)",
                at(a)
            );
            assert_eq!(told, lines(&context, &expected).await, "AS OF {a}");
            for b in [-1, 0, 10, 15, 95] {
                let (x, y) = (a * SECOND, b * SECOND);
                let lasts = format!("({open} OR valid_to > {})", at(a));
                let cases = [
                    (
                        Period::FromTo(x, y),
                        format!("valid_from < {} AND {lasts}", at(b)),
                    ),
                    (
                        Period::Between(x, y),
                        format!("valid_from <= {} AND {lasts}", at(b)),
                    ),
                    (
                        Period::ContainedIn(x, y),
                        format!(
                            "valid_from >= {} AND NOT ({open}) AND valid_to <= {}",
                            at(a),
                            at(b)
                        ),
                    ),
                ];
                for (period, condition) in cases {
                    let context = over(open_end, period).await;
                    let told = lines(&context, "SELECT * FROM v").await;
                    let expected = format!("SELECT * FROM m WHERE {} <= {} AND {condition}", a, b);
                    assert_eq!(told, lines(&context, &expected).await, "{period:?}");
                }
            }
        }
        // After all time, what is open still holds.
        let context = over(open_end, Period::AsOf(FAR_FUTURE_MICROS)).await;
        assert_eq!(lines(&context, "SELECT * FROM v").await, ["1|C", "3|Z"]);
    }
}

#[tokio::test]
async fn an_instant_prunes_files_by_the_bounds_of_their_intervals() {
    let context = over(OpenEnd::Null, Period::AsOf(3 * SECOND)).await;
    // Neither the intervals that begin later, nor files of current rows that do.
    assert_eq!(lines(&context, "SELECT * FROM v").await, ["1|A"]);
    let plan = explain(&context, "SELECT * FROM v").await;
    assert!(!plan.contains("part a%00001"), "{plan}");
}

#[tokio::test]
async fn a_journal_that_is_not_partitioned_by_its_flag_is_refused() {
    let mut build = Build::new(schema(), &[]);
    build
        .add(File::of(intervals(&[(1, "A", 0, None)], None)))
        .await;
    let error = journal(&build, OpenEnd::Null).current().unwrap_err();
    assert_eq!(
        error.message(),
        "table t: a journal is partitioned by is_current, and its metadata says otherwise"
    );
}
