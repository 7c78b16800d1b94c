//! Both ways to join against a loop over all pairs, in batches of every size.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::{JoinSide, JoinType};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, lit};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionConfig;

use super::exec::{AsOfJoinExec, Way};
use super::rows::Terms;

/// Number, key, instant.
type Fact = (i64, Option<i64>, Option<i64>);
/// Key, begin, end, number.
type Span = (Option<i64>, i64, Option<i64>, i64);
/// Numbers of a fact and of what it found.
type Found = (i64, Option<i64>);

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound) as i64
    }
}

fn facts(dice: &mut Dice, count: u64) -> Vec<Fact> {
    let facts = (0..count as i64).map(|number| {
        let key = (dice.below(12) > 0).then(|| dice.below(6));
        let at = (dice.below(12) > 0).then(|| dice.below(60));
        (number, key, at)
    });
    let mut facts: Vec<Fact> = facts.collect();
    facts.sort_by_key(|(_, key, at)| (*key, *at));
    facts
}

/// Intervals of a key do not overlap; between some of them are gaps. A row without key is nobody's.
fn spans(dice: &mut Dice) -> Vec<Span> {
    let mut spans = vec![(None, 0, None, 1_000)];
    for key in 0..6 {
        let mut from = dice.below(10);
        while from < 60 {
            let to = from + 1 + dice.below(8);
            let open = dice.below(12) == 0;
            spans.push((Some(key), from, (!open).then_some(to), spans.len() as i64));
            if open {
                break;
            }
            from = to + dice.below(3) * dice.below(2);
        }
    }
    spans
}

fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn left(facts: &[Fact]) -> RecordBatch {
    let of = schema(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("k", DataType::Int64, true),
        Field::new("at", instants(), true),
    ]);
    let ids: Int64Array = facts.iter().map(|(id, ..)| *id).collect();
    let keys: Int64Array = facts.iter().map(|(_, key, _)| *key).collect();
    let at: TimestampMicrosecondArray = facts.iter().map(|(.., at)| *at).collect();
    let at = at.with_timezone("UTC");
    RecordBatch::try_new(of, vec![Arc::new(ids), Arc::new(keys), Arc::new(at)]).unwrap()
}

fn right(spans: &[Span]) -> RecordBatch {
    let of = schema(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("from", instants(), false),
        Field::new("to", instants(), true),
        Field::new("sid", DataType::Int64, false),
    ]);
    let keys: Int64Array = spans.iter().map(|(key, ..)| *key).collect();
    let from: TimestampMicrosecondArray = spans.iter().map(|(_, from, ..)| Some(*from)).collect();
    let to: TimestampMicrosecondArray = spans.iter().map(|(_, _, to, _)| *to).collect();
    let numbers: Int64Array = spans.iter().map(|(.., number)| *number).collect();
    let (from, to) = (from.with_timezone("UTC"), to.with_timezone("UTC"));
    RecordBatch::try_new(
        of,
        vec![
            Arc::new(keys),
            Arc::new(from),
            Arc::new(to),
            Arc::new(numbers),
        ],
    )
    .unwrap()
}

/// Rows in batches of `size`, dealt out to `parts`.
fn plan(all: &RecordBatch, size: usize, parts: usize) -> Arc<dyn ExecutionPlan> {
    let mut dealt = vec![Vec::new(); parts];
    for (number, begin) in (0..all.num_rows()).step_by(size).enumerate() {
        let rows = size.min(all.num_rows() - begin);
        dealt[number % parts].push(all.slice(begin, rows));
    }
    MemorySourceConfig::try_new_exec(&dealt, all.schema(), None).unwrap()
}

/// `(id + sid) % 3 <> 0`
fn further() -> JoinFilter {
    let column = |name: &str, at: usize| -> PhysicalExprRef { Arc::new(Column::new(name, at)) };
    let both = |left, operator, right| -> PhysicalExprRef {
        Arc::new(BinaryExpr::new(left, operator, right))
    };
    let sum = both(column("id", 0), Operator::Plus, column("sid", 1));
    let rest = both(sum, Operator::Modulo, lit(3_i64));
    let places = [(0, JoinSide::Left), (3, JoinSide::Right)];
    let places = places.map(|(index, side)| ColumnIndex { index, side });
    let of = schema(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("sid", DataType::Int64, false),
    ]);
    JoinFilter::new(both(rest, Operator::NotEq, lit(0_i64)), places.to_vec(), of)
}

fn terms(join_type: JoinType, filter: Option<JoinFilter>) -> Arc<Terms> {
    let key = |at: usize| -> PhysicalExprRef { Arc::new(Column::new("k", at)) };
    Arc::new(Terms {
        join_type,
        on: vec![(key(1), key(0))],
        at: Arc::new(Column::new("at", 2)),
        from: 1,
        to: 2,
        far_future: false,
        filter,
    })
}

async fn joined(join: AsOfJoinExec, most: usize) -> Vec<Found> {
    let config = SessionConfig::new().with_batch_size(most);
    let context = TaskContext::default().with_session_config(config);
    let batches = collect(Arc::new(join), Arc::new(context)).await.unwrap();
    let mut found = Vec::new();
    for batch in batches {
        assert!(batch.num_rows() > 0 && batch.num_rows() <= most);
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let numbers = batch.column(6).as_primitive::<Int64Type>();
        found.extend((0..batch.num_rows()).map(|row| {
            let number = numbers.is_valid(row).then(|| numbers.value(row));
            (ids.value(row), number)
        }));
    }
    found.sort_unstable();
    found
}

fn expected(facts: &[Fact], spans: &[Span], join_type: JoinType, filtered: bool) -> Vec<Found> {
    let mut all = Vec::new();
    for (id, key, at) in facts {
        let found = spans.iter().filter(|(of, from, to, sid)| {
            key.is_some()
                && key == of
                && at.is_some_and(|at| *from <= at && to.is_none_or(|to| at < to))
                && (!filtered || (id + sid) % 3 != 0)
        });
        let before = all.len();
        all.extend(found.map(|(.., sid)| (*id, Some(*sid))));
        if all.len() == before && join_type == JoinType::Left {
            all.push((*id, None));
        }
    }
    all.sort_unstable();
    all
}

#[tokio::test]
async fn each_way_finds_what_a_loop_over_all_pairs_finds() {
    for seed in 1..40_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let count = [0, 1, 40, 200][seed as usize % 4];
        let facts = facts(&mut dice, count);
        let spans = match seed % 7 {
            0 => Vec::new(),
            _ => spans(&mut dice),
        };
        let mut shuffled = spans.clone();
        for last in (1..shuffled.len()).rev() {
            shuffled.swap(last, dice.below(last as u64 + 1) as usize);
        }
        for join_type in [JoinType::Inner, JoinType::Left] {
            for filtered in [false, true] {
                let expected = expected(&facts, &spans, join_type, filtered);
                let terms = terms(join_type, filtered.then(further));
                for size in [1, 3, 7, 1_000] {
                    let context = format!("seed {seed}, {join_type}, {filtered}, {size}");
                    let merge = AsOfJoinExec::try_new(
                        plan(&left(&facts), size, 1),
                        plan(&right(&spans), 8 - size.min(7), 1),
                        Arc::clone(&terms),
                        Way::Merge,
                    );
                    let found = joined(merge.unwrap(), size).await;
                    assert_eq!(found, expected, "{context}: merge");
                    let held = AsOfJoinExec::try_new(
                        plan(&left(&facts), size, 1),
                        plan(&right(&shuffled), 8 - size.min(7), 3),
                        Arc::clone(&terms),
                        Way::Held,
                    );
                    let found = joined(held.unwrap(), size).await;
                    assert_eq!(found, expected, "{context}: facts held");
                }
            }
        }
    }
}

/// What others wrote past the rules of a journal: of intervals that overlap, a merge finds at most one, which holds the
/// instant; if the facts are held, all are found.
#[tokio::test]
async fn a_journal_that_others_broke_breaks_no_join() {
    let spans = [
        (Some(1), 0, Some(50), 0),
        (Some(1), 10, Some(20), 1),
        (Some(1), 10, Some(20), 2),
        (Some(1), 30, Some(25), 3),
    ];
    let facts = [5, 15, 22, 35, 60];
    let facts: Vec<Fact> = (0..)
        .zip(facts)
        .map(|(id, at)| (id, Some(1), Some(at)))
        .collect();
    let terms = terms(JoinType::Left, None);
    let of = |way| {
        let (left, right) = (plan(&left(&facts), 2, 1), plan(&right(&spans), 2, 1));
        AsOfJoinExec::try_new(left, right, Arc::clone(&terms), way).unwrap()
    };
    let merged = joined(of(Way::Merge), 3).await;
    assert_eq!(
        merged,
        [(0, Some(0)), (1, Some(2)), (2, None), (3, None), (4, None)]
    );
    let held = joined(of(Way::Held), 3).await;
    assert_eq!(held, expected(&facts, &spans, JoinType::Left, false));
}
