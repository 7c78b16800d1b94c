//! The fold against an oracle that knows all events of a key at once and takes them in their order.

use std::collections::BTreeMap;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices};
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::super::definition::{Definition, IgnoreNulls, Late, LatePolicy, Track};
use super::super::event::{SEQUENCE, event_schema, kept_schema, stored_schema};
use super::*;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Change {
    key: i64,
    at: i64,
    delete: bool,
    a: Option<i64>,
    u: Option<i64>,
}

/// An interval: from, to, the two attributes, the sequence.
type Interval = (i64, Option<i64>, Option<i64>, Option<i64>, i64);
type Journal = BTreeMap<i64, Vec<Interval>>;

fn upsert(key: i64, at: i64, a: i64, u: i64) -> Change {
    Change {
        key,
        at,
        delete: false,
        a: Some(a),
        u: Some(u),
    }
}

fn delete(key: i64, at: i64) -> Change {
    Change {
        key,
        at,
        delete: true,
        a: None,
        u: None,
    }
}

fn shape(ignore: bool, policy: LatePolicy) -> Arc<Shape> {
    let definition = Definition {
        track: Track::Except(vec!["u".into()]),
        ignore_nulls: match ignore {
            true => IgnoreNulls::All,
            false => IgnoreNulls::No,
        },
        late: Late {
            policy,
            after_micros: None,
        },
        ..Definition::plain(&["k"], Some("at"))
    };
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let declared: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("a", DataType::Int64, true),
        Field::new("at", instant, false),
        Field::new("u", DataType::Int64, true),
    ]));
    let stored = Shape::with_period(&declared, &definition.columns).unwrap();
    Arc::new(Shape::new("t", definition, &stored).unwrap())
}

fn integers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

fn instants(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    let values = TimestampMicrosecondArray::from_iter_values(values);
    Arc::new(values.with_timezone("UTC"))
}

fn events(shape: &Shape, changes: &[Change]) -> RecordBatch {
    let mut changes = changes.to_vec();
    changes.sort_by_key(|one| (one.key, one.at, !one.delete));
    let each = || changes.iter();
    let keep: BinaryArray = each().map(|_| None::<&[u8]>).collect();
    RecordBatch::try_new(
        event_schema(shape),
        vec![
            integers(each().map(|one| Some(one.key))),
            integers(each().map(|one| one.a)),
            instants(each().map(|one| one.at)),
            integers(each().map(|one| one.u)),
            integers(each().map(|one| Some(one.at))),
            Arc::new(BooleanArray::from_iter(each().map(|one| Some(one.delete)))),
            Arc::new(keep),
        ],
    )
    .unwrap()
}

/// A table in memory.
struct Table {
    shape: Arc<Shape>,
    after: Option<i64>,
    watermark: i64,
    rows: Vec<(i64, Interval)>,
    kept: RecordBatch,
    /// Whether each write condenses what was kept before it.
    condenses: bool,
}

impl Table {
    fn new(shape: &Arc<Shape>, after: Option<i64>) -> Self {
        Self {
            kept: RecordBatch::new_empty(kept_schema(shape)),
            shape: Arc::clone(shape),
            after,
            watermark: i64::MIN,
            rows: Vec::new(),
            condenses: false,
        }
    }

    /// Only what the fold asks for: of each key that is touched what ends at or after the first instant, or not.
    fn stored(&self, changes: &[Change]) -> RecordBatch {
        let mut least: BTreeMap<i64, i64> = BTreeMap::new();
        for one in changes {
            let first = least.entry(one.key).or_insert(one.at);
            *first = one.at.min(*first);
        }
        let number = |name: &str| {
            self.kept
                .column_by_name(name)
                .unwrap()
                .as_primitive::<Int64Type>()
        };
        for (key, at) in number("k").values().iter().zip(number(SEQUENCE).values()) {
            if let Some(first) = least.get_mut(key) {
                *first = (*at).min(*first);
            }
        }
        let rows: Vec<(i64, (i64, Interval))> = (0..).zip(self.rows.iter().copied()).collect();
        let wanted = |key: &i64, to: Option<i64>| {
            let first = least.get(key);
            first.is_some_and(|first| to.is_none_or(|to| to >= *first))
        };
        let each = || rows.iter().filter(|(_, (key, row))| wanted(key, row.1));
        RecordBatch::try_new(
            stored_schema(&self.shape),
            vec![
                integers(each().map(|(_, (key, _))| Some(*key))),
                integers(each().map(|(_, (_, row))| row.2)),
                instants(each().map(|(_, (_, row))| row.4)),
                integers(each().map(|(_, (_, row))| row.3)),
                integers(each().map(|(_, (_, row))| Some(row.0))),
                integers(each().map(|(_, (_, row))| row.1)),
                Arc::new(UInt32Array::from_iter_values(each().map(|_| 7))),
                integers(each().map(|(number, _)| Some(*number))),
            ],
        )
        .unwrap()
    }

    fn write(&mut self, changes: &[Change]) -> Folded {
        self.fold(changes, false)
    }

    fn fold(&mut self, changes: &[Change], dml: bool) -> Folded {
        let terms = Terms {
            shape: Arc::clone(&self.shape),
            horizon: self.after.map(|after| self.watermark.saturating_sub(after)),
            dml,
        };
        let chunk = Chunk {
            stored: self.stored(changes),
            kept: self.kept.clone(),
            new: events(&self.shape, changes),
        };
        let folded = fold(&terms, &chunk).unwrap();
        for (file, row) in &folded.remove {
            assert_eq!(*file, 7);
            self.rows[*row as usize].1.0 = i64::MIN;
        }
        self.rows.retain(|(_, row)| row.0 != i64::MIN);
        for batch in &folded.rows {
            self.rows.extend(intervals(batch));
        }
        self.rows.sort_by_key(|(key, row)| (*key, row.0));
        if let (Some(horizon), true) = (terms.horizon, self.condenses) {
            let left = condensed(&self.shape, &self.kept, horizon).unwrap();
            let none = || RecordBatch::new_empty(kept_schema(&self.shape));
            self.kept = left.unwrap_or_else(none);
        }
        self.keep(&folded.keep);
        let last = changes.iter().map(|one| one.at).max();
        self.watermark = self.watermark.max(last.unwrap_or(i64::MIN));
        folded
    }

    fn keep(&mut self, more: &[RecordBatch]) {
        let all = [&self.kept].into_iter().chain(more);
        let all = concat_batches(&kept_schema(&self.shape), all).unwrap();
        let column = |name: &str| SortColumn {
            values: Arc::clone(all.column_by_name(name).unwrap()),
            options: None,
        };
        let order = lexsort_to_indices(&[column("k"), column(SEQUENCE)], None).unwrap();
        self.kept = take_record_batch(&all, &order).unwrap();
    }

    fn journal(&self) -> Journal {
        let mut journal = Journal::new();
        for (key, row) in &self.rows {
            journal.entry(*key).or_default().push(*row);
        }
        journal
    }
}

fn intervals(batch: &RecordBatch) -> Vec<(i64, Interval)> {
    let number = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        column
            .as_primitive::<Int64Type>()
            .iter()
            .collect::<Vec<_>>()
    };
    let instant = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        let column = column.as_primitive::<TimestampMicrosecondType>();
        column.iter().collect::<Vec<_>>()
    };
    let (k, a, u) = (number("k"), number("a"), number("u"));
    let (at, from, to) = (instant("at"), instant("valid_from"), instant("valid_to"));
    let current = batch.column_by_name("is_current").unwrap().as_boolean();
    (0..batch.num_rows())
        .map(|row| {
            assert_eq!(current.value(row), to[row].is_none());
            let interval = (
                from[row].unwrap(),
                to[row],
                a[row],
                u[row],
                at[row].unwrap(),
            );
            (k[row].unwrap(), interval)
        })
        .collect()
}

/// What the journal must be, of all events in any order.
fn oracle(changes: &[Change], ignore: bool) -> Journal {
    let mut sorted = changes.to_vec();
    sorted.sort_by_key(|one| (one.key, one.at));
    let mut journal = Journal::new();
    for one in sorted {
        let intervals = journal.entry(one.key).or_default();
        let open = intervals.last_mut().filter(|last| last.1.is_none());
        let Some(open) = open else {
            if !one.delete {
                intervals.push((one.at, None, one.a, one.u, one.at));
            }
            continue;
        };
        let or = |new: Option<i64>, old: Option<i64>| match ignore {
            true => new.or(old),
            false => new,
        };
        let (a, u) = (or(one.a, open.2), or(one.u, open.3));
        if one.delete {
            open.1 = Some(one.at);
        } else if a != open.2 {
            open.1 = Some(one.at);
            intervals.push((one.at, None, a, u, one.at));
        } else {
            open.3 = u;
        }
    }
    journal.retain(|_, intervals| !intervals.is_empty());
    journal
}

/// Events of some keys, each at instants of its own.
fn stream(random: &mut StdRng, keys: i64, events: i64) -> Vec<Change> {
    let value =
        |random: &mut StdRng| (random.random_range(0..4) > 0).then(|| random.random_range(0..2));
    let mut changes = Vec::new();
    for at in 1..=events {
        changes.push(Change {
            key: random.random_range(0..keys),
            at: at * 10,
            delete: random.random_range(0..5) == 0,
            a: value(random),
            u: value(random),
        });
    }
    changes
}

fn permutations(of: &[Change]) -> Vec<Vec<Change>> {
    let Some((first, rest)) = of.split_first() else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for shorter in permutations(rest) {
        for at in 0..=shorter.len() {
            let mut longer = shorter.clone();
            longer.insert(at, *first);
            all.push(longer);
        }
    }
    all
}

/// Batches of a stream: a bit of `cuts` ends one.
fn split(changes: &[Change], cuts: u32) -> Vec<Vec<Change>> {
    let mut batches = vec![Vec::new()];
    for (at, one) in changes.iter().enumerate() {
        batches.last_mut().unwrap().push(*one);
        if cuts & (1 << at) != 0 {
            batches.push(Vec::new());
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[test]
fn every_order_and_every_split_is_one_journal_inside_the_horizon() {
    let mut random = StdRng::seed_from_u64(6);
    for round in 0..24 {
        let ignore = round % 2 == 0;
        let shape = shape(ignore, LatePolicy::Fail);
        let all = stream(&mut random, 1, 4);
        let expected = oracle(&all, ignore);
        for order in permutations(&all) {
            for cuts in 0..8 {
                let mut table = Table::new(&shape, Some(1_000));
                for batch in split(&order, cuts) {
                    table.write(&batch);
                }
                assert_eq!(table.journal(), expected, "{order:?} cut at {cuts:b}");
            }
        }
    }
    let shape = shape(true, LatePolicy::Fail);
    let all = stream(&mut random, 1, 6);
    let expected = oracle(&all, true);
    for order in permutations(&all) {
        let mut table = Table::new(&shape, Some(1_000));
        order.iter().for_each(|one| drop(table.write(&[*one])));
        assert_eq!(table.journal(), expected, "{order:?}");
    }
}

#[test]
fn random_streams_of_many_keys_are_one_journal_inside_the_horizon() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let ignore = random.random();
        let shape = shape(ignore, LatePolicy::Quarantine);
        let mut all = stream(&mut random, 4, 24);
        let expected = oracle(&all, ignore);
        all.shuffle(&mut random);
        let mut table = Table::new(&shape, Some(1_000));
        let batches = split(&all, random.random());
        for batch in &batches {
            table.write(batch);
        }
        assert_eq!(table.journal(), expected, "seed {seed}");
        // What came once comes again, and nothing happens.
        for batch in &batches {
            let again = table.write(batch);
            assert!(
                again.rows.is_empty() && again.remove.is_empty(),
                "seed {seed}"
            );
            assert!(
                again.keep.is_empty() && again.clash.is_empty(),
                "seed {seed}"
            );
            assert_eq!(again.counts.unchanged, batch.len() as u64);
        }
    }
}

#[test]
fn a_horizon_that_moves_forgets_only_what_is_not_needed() {
    for seed in 0..1_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let ignore = random.random();
        let shape = shape(ignore, LatePolicy::Fail);
        let mut all = stream(&mut random, 3, 30);
        let expected = oracle(&all, ignore);
        // Nothing comes more than the horizon late.
        all.sort_by_cached_key(|one| one.at + random.random_range(0..60));
        let mut table = Table::new(&shape, Some(60));
        table.condenses = true;
        for batch in split(&all, random.random()) {
            let folded = table.write(&batch);
            assert!(folded.late.is_empty(), "seed {seed}");
        }
        assert_eq!(table.journal(), expected, "seed {seed}");
    }
}

#[test]
fn events_in_their_order_need_no_horizon() {
    for seed in 0..1_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let ignore = random.random();
        let shape = shape(ignore, LatePolicy::Fail);
        let all = stream(&mut random, 3, 24);
        let mut table = Table::new(&shape, None);
        for batch in split(&all, random.random()) {
            let folded = table.write(&batch);
            assert!(folded.late.is_empty() && folded.keep.is_empty());
        }
        assert_eq!(table.journal(), oracle(&all, ignore), "seed {seed}");
    }
}

#[test]
fn late_changes_split_what_is_stored_whatever_their_order() {
    let shape = shape(false, LatePolicy::Apply);
    let all: Vec<Change> = (0..5).map(|at| upsert(1, at, at, at)).collect();
    let expected = oracle(&all, false);
    for order in permutations(&all) {
        let mut table = Table::new(&shape, None);
        order.iter().for_each(|one| drop(table.write(&[*one])));
        assert_eq!(table.journal(), expected, "{order:?}");
    }
}

#[test]
fn a_sighting_that_changed_nothing_counts_for_a_late_change() {
    let shape = shape(false, LatePolicy::Apply);
    let mut table = Table::new(&shape, Some(100));
    table.write(&[upsert(1, 1, 10, 0)]);
    assert_eq!(table.write(&[upsert(1, 5, 10, 0)]).counts.unchanged, 1);
    table.write(&[upsert(1, 3, 20, 0)]);
    let journal = [
        (1, Some(3), Some(10), Some(0), 1),
        (3, Some(5), Some(20), Some(0), 3),
        (5, None, Some(10), Some(0), 5),
    ];
    assert_eq!(table.journal()[&1], journal);
}

#[test]
fn a_delete_that_comes_before_its_insert_is_remembered() {
    let shape = shape(false, LatePolicy::Apply);
    let mut table = Table::new(&shape, Some(100));
    table.write(&[delete(1, 5)]);
    table.write(&[upsert(1, 3, 1, 1)]);
    assert_eq!(table.journal()[&1], [(3, Some(5), Some(1), Some(1), 3)]);
}

#[test]
fn a_delete_takes_away_what_began_at_its_instant_and_stays_there() {
    let shape = shape(false, LatePolicy::Apply);
    for after in [None, Some(100)] {
        let mut table = Table::new(&shape, after);
        table.write(&[upsert(1, 1, 1, 1), upsert(1, 3, 2, 2)]);
        table.write(&[delete(1, 3)]);
        let journal = [(1, Some(3), Some(1), Some(1), 1)];
        assert_eq!(table.journal()[&1], journal);
        let again = table.write(&[upsert(1, 3, 2, 2)]);
        assert_eq!(again.counts.unchanged, 1);
        assert_eq!(table.journal()[&1], journal);
    }
}

#[test]
fn what_contradicts_what_is_stored_is_told() {
    let shape = shape(false, LatePolicy::Apply);
    for after in [None, Some(100)] {
        let mut table = Table::new(&shape, after);
        table.write(&[upsert(1, 1, 1, 1), upsert(2, 1, 1, 1)]);
        let before = table.journal();
        let folded = table.write(&[upsert(1, 1, 2, 1), upsert(2, 1, 1, 1)]);
        assert_eq!(folded.clash[0].num_rows(), 1);
        assert_eq!(folded.counts.unchanged, 1);
        assert_eq!(table.journal(), before);
    }
}

#[test]
fn late_events_are_left_where_the_policy_says_so() {
    let shape = shape(false, LatePolicy::Quarantine);
    let mut table = Table::new(&shape, None);
    table.write(&[upsert(1, 10, 1, 1), upsert(1, 20, 2, 1)]);
    let before = table.journal();
    // The second says what is stored, but after the first, which is left, it would not.
    let folded = table.write(&[upsert(1, 12, 3, 1), upsert(1, 15, 1, 1)]);
    assert_eq!(folded.late[0].num_rows(), 2);
    assert_eq!(folded.counts.late, 2);
    assert_eq!(table.journal(), before);
    // By itself it says what is so.
    let folded = table.write(&[upsert(1, 15, 1, 1)]);
    assert_eq!((folded.counts.unchanged, folded.counts.late), (1, 0));
    // With a horizon all before it is late.
    let mut table = Table::new(&shape, Some(5));
    table.write(&[upsert(1, 10, 1, 1), upsert(2, 30, 1, 1)]);
    let folded = table.write(&[upsert(1, 20, 2, 1), upsert(3, 1, 1, 1)]);
    assert_eq!(folded.late[0].num_rows(), 1);
    assert_eq!(table.journal()[&3], [(1, None, Some(1), Some(1), 1)]);
}

#[test]
fn a_statement_acts_after_what_is_known() {
    let shape = shape(false, LatePolicy::Apply);
    let mut table = Table::new(&shape, None);
    table.write(&[upsert(1, 10, 1, 1)]);
    assert_eq!(
        table.fold(&[upsert(1, 10, 2, 1)], true).late[0].num_rows(),
        1
    );
    assert_eq!(table.fold(&[delete(1, 9)], true).late[0].num_rows(), 1);
    assert!(table.fold(&[delete(1, 11)], true).late.is_empty());
    assert_eq!(table.journal()[&1], [(10, Some(11), Some(1), Some(1), 10)]);
}

#[test]
fn counts_say_what_happened_to_intervals() {
    let shape = shape(false, LatePolicy::Apply);
    let mut table = Table::new(&shape, None);
    let first: Vec<Change> = (1..=4).map(|key| upsert(key, 1, 1, 1)).collect();
    assert_eq!(table.write(&first).counts.opened, 4);
    let counts = table
        .write(&[
            upsert(1, 2, 1, 1),
            upsert(2, 2, 1, 2),
            upsert(3, 2, 2, 1),
            delete(4, 2),
            upsert(5, 2, 1, 1),
        ])
        .counts;
    let expected = Counts {
        unchanged: 1,
        opened: 2,
        closed: 2,
        updated: 1,
        late: 0,
    };
    assert_eq!(counts, expected);
    // The untracked value came without a version of its own, and the sequence stays.
    assert_eq!(table.journal()[&2], [(1, None, Some(1), Some(2), 1)]);
}

#[test]
fn intervals_that_overlap_are_told() {
    let shape = shape(false, LatePolicy::Apply);
    let mut table = Table::new(&shape, None);
    table.rows = vec![
        (1, (1, None, Some(1), None, 1)),
        (1, (5, None, Some(2), None, 5)),
    ];
    let changes = [upsert(1, 9, 1, 1)];
    let chunk = Chunk {
        stored: table.stored(&changes),
        kept: table.kept.clone(),
        new: events(&shape, &changes),
    };
    let terms = Terms {
        shape,
        horizon: None,
        dml: false,
    };
    let error = fold(&terms, &chunk).err().unwrap();
    assert!(
        error
            .message()
            .starts_with("table t, key k = 1: its intervals from"),
        "{error}"
    );
}

#[test]
fn rows_of_one_key_and_sequence_are_settled() {
    let shape = shape(false, LatePolicy::Apply);
    let batch = events(
        &shape,
        &[
            upsert(1, 1, 1, 1),
            upsert(1, 1, 1, 1),
            upsert(1, 2, 1, 1),
            delete(2, 1),
            upsert(2, 1, 1, 1),
            upsert(3, 1, 1, 1),
            upsert(3, 1, 1, 2),
        ],
    );
    let equals = settle_equals(&shape, &batch).unwrap();
    let on: Vec<bool> = equals.on.values().iter().collect();
    assert_eq!(on, [true, false, true, true, false, false, false]);
    assert_eq!(equals.differing.len(), 1);
    assert_eq!(equals.differing.first(), Some(&(5..7)));
    let none = settle_equals(&shape, &batch.slice(0, 0)).unwrap();
    assert!(none.on.is_empty() && none.differing.is_empty());
}
