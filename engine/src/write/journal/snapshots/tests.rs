use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

use super::*;
use crate::journal::definition::Definition;
use crate::journal::event::{DELETE, SEQUENCE, event_schema, stored_schema};

fn shape() -> Shape {
    let declared: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("city", DataType::Int64, true),
        Field::new(
            "at",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            false,
        ),
    ]));
    let definition = Definition::plain(&["id"], Some("at"));
    let stored = Shape::with_period(&declared, &definition.columns).unwrap();
    Shape::new("s.t", definition, &stored).unwrap()
}

/// Events as (key, instant), sorted.
fn events(shape: &Shape, rows: &[(i64, i64)]) -> RecordBatch {
    let ids: Int64Array = rows.iter().map(|(id, _)| Some(*id)).collect();
    let at: Int64Array = rows.iter().map(|(_, at)| Some(*at)).collect();
    let stamps: TimestampMicrosecondArray = at.reinterpret_cast();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.clone()),
        Arc::new(ids),
        Arc::new(stamps.with_timezone("UTC")),
        Arc::new(at),
        Arc::new(BooleanArray::from(vec![false; rows.len()])),
        Arc::new(BinaryArray::new_null(rows.len())),
    ];
    RecordBatch::try_new(event_schema(shape), columns).unwrap()
}

/// Intervals as (key, from, to), sorted.
fn stored(shape: &Shape, rows: &[(i64, i64, Option<i64>)]) -> RecordBatch {
    let ids: Int64Array = rows.iter().map(|(id, ..)| Some(*id)).collect();
    let from: Int64Array = rows.iter().map(|(_, from, _)| Some(*from)).collect();
    let to: Int64Array = rows.iter().map(|(_, _, to)| *to).collect();
    let stamps: TimestampMicrosecondArray = from.reinterpret_cast();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.clone()),
        Arc::new(ids),
        Arc::new(stamps.with_timezone("UTC")),
        Arc::new(from),
        Arc::new(to),
        Arc::new(UInt32Array::from(vec![0; rows.len()])),
        Arc::new(Int64Array::from_iter_values(0..rows.len() as i64)),
    ];
    RecordBatch::try_new(stored_schema(shape), columns).unwrap()
}

/// What a batch of events says, as (key, instant, whether it ends).
fn told(events: &RecordBatch) -> Vec<(i64, i64, bool)> {
    let ids = events.column(0).as_primitive::<Int64Type>();
    let at = events.column_by_name(SEQUENCE).unwrap();
    let at = at.as_primitive::<Int64Type>();
    let ends = events.column_by_name(DELETE).unwrap().as_boolean();
    let rows = 0..events.num_rows();
    rows.map(|row| (ids.value(row), at.value(row), ends.value(row)))
        .collect()
}

#[test]
fn a_key_ends_where_the_next_snapshot_lacks_it() {
    let shape = shape();
    let order = KeyOrder::new(&shape).unwrap();
    let mut snapshots = Snapshots::new([10, 20, 30]);
    let given = events(
        &shape,
        &[(1, 10), (1, 20), (1, 30), (2, 10), (2, 30), (3, 20)],
    );
    let all = snapshots
        .complete(&shape, &order, &given, &stored(&shape, &[]))
        .unwrap();
    assert_eq!(
        told(&all),
        [
            (1, 10, false),
            (1, 20, false),
            (1, 30, false),
            (2, 10, false),
            (2, 20, true),
            (2, 30, false),
            (3, 20, false),
            (3, 30, true),
        ]
    );
    assert_eq!(snapshots.before, [0, 2, 2]);
    assert_eq!(snapshots.closed, [0, 1, 1]);
    // An end has its key and its instant, and no other value.
    assert!(all.column(1).is_null(4));
    let at = all
        .column(2)
        .as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(at.value(4), 20);
}

#[test]
fn what_is_current_ends_at_the_first_snapshot_after_its_begin_that_lacks_it() {
    let shape = shape();
    let order = KeyOrder::new(&shape).unwrap();
    let mut snapshots = Snapshots::new([10, 20]);
    let known = [
        (1, 5, None),
        (2, 5, None),
        (3, 15, None),
        (4, 20, None),
        (5, 1, Some(3)),
        (6, 5, None),
    ];
    let given = events(&shape, &[(2, 10), (2, 20), (6, 10)]);
    let all = snapshots
        .complete(&shape, &order, &given, &stored(&shape, &known))
        .unwrap();
    assert_eq!(
        told(&all),
        [
            (1, 10, true),
            (2, 10, false),
            (2, 20, false),
            (3, 20, true),
            (6, 10, false),
            (6, 20, true),
        ]
    );
    // Keys 1, 2 and 6 were there before the first; 2, 3 and 6 before the second.
    assert_eq!(snapshots.before, [3, 3]);
    assert_eq!(snapshots.closed, [1, 2]);
}

#[test]
fn snapshots_that_close_too_much_are_refused_with_their_counts() {
    let shape = shape();
    let order = KeyOrder::new(&shape).unwrap();
    let mut snapshots = Snapshots::new([10]);
    let known = [(1, 5, None), (2, 5, None), (3, 5, None), (4, 5, None)];
    let given = events(&shape, &[(1, 10)]);
    snapshots
        .complete(&shape, &order, &given, &stored(&shape, &known))
        .unwrap();
    let error = snapshots
        .guard(&shape, "INSERT OVERWRITE", 0.5)
        .unwrap_err();
    assert_eq!(
        error.message(),
        "INSERT OVERWRITE of table s.t would close 3 of 4 keys (75 %), more than selvedge.journal.maxDeleteFraction = 0.5"
    );
    snapshots.guard(&shape, "INSERT OVERWRITE", 0.75).unwrap();
}

#[test]
fn a_snapshot_behind_the_newest_one_comes_only_with_it() {
    let shape = shape();
    let follows = |instants: &[i64], known: Option<i64>| {
        let snapshots = Snapshots::new(instants.iter().copied());
        snapshots.follow(known, &shape, "INSERT OVERWRITE")
    };
    for (instants, known) in [
        (&[5][..], None),
        (&[5], Some(5)),
        (&[5], Some(4)),
        (&[3, 5, 6], Some(5)),
        (&[], Some(5)),
    ] {
        assert!(
            follows(instants, known).is_ok(),
            "{instants:?} after {known:?}"
        );
    }
    for instants in [&[4][..], &[3, 4], &[4, 6]] {
        let error = follows(instants, Some(5)).unwrap_err();
        assert!(error.message().contains("s.t"), "{error}");
        assert!(
            error
                .message()
                .contains("behind that of 1970-01-01 00:00:00.000005 UTC"),
            "{error}"
        );
    }
}
