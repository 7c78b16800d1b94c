//! Both ways to join against a loop over all pairs, in batches of every size.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{JoinSide, JoinType};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, lit};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, PushedDown,
};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions, collect,
    replace_children_if_necessary,
};
use datafusion::prelude::SessionConfig;

use super::exec::{AsOfJoinExec, Way};
use super::rows::Terms;
use crate::journal::definition::FAR_FUTURE_MICROS;

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
        let at = match dice.below(24) {
            0 | 1 => None,
            // Later than the end of what has none.
            2 => Some(FAR_FUTURE_MICROS + 1),
            _ => Some(dice.below(60)),
        };
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

/// What the keys of a journal are: the columns that numbers become, in the order of these.
#[derive(Debug, Clone, Copy)]
enum Keys {
    Number,
    Text,
    Decimal,
    Date,
    /// A date, and a text.
    Two,
}

impl Keys {
    const ALL: [Self; 5] = [
        Self::Number,
        Self::Text,
        Self::Decimal,
        Self::Date,
        Self::Two,
    ];

    fn columns(self, numbers: &[Option<i64>]) -> Vec<ArrayRef> {
        let numbers = numbers.iter().copied();
        let dates = |day: fn(i64) -> i64| -> ArrayRef {
            let days = numbers.clone().map(|number| Some(day(number?) as i32));
            Arc::new(days.collect::<Date32Array>())
        };
        match self {
            Self::Number => vec![Arc::new(numbers.collect::<Int64Array>())],
            Self::Text => {
                let texts = numbers.map(|number| Some(format!("the key of number {:03}", number?)));
                vec![Arc::new(texts.collect::<StringArray>())]
            }
            Self::Decimal => {
                let cents = numbers.map(|number| Some(i128::from(number?) * 100 - 250));
                let cents: Decimal128Array = cents.collect();
                vec![Arc::new(cents.with_precision_and_scale(30, 2).unwrap())]
            }
            Self::Date => vec![dates(|number| 30 * number - 60)],
            Self::Two => {
                // The date alone is NULL where the number is.
                let texts = numbers.clone().map(|number| {
                    let even = number.is_none_or(|number| number % 2 == 0);
                    Some(if even { "even" } else { "odd" })
                });
                let texts: StringArray = texts.collect();
                vec![dates(|number| number / 2), Arc::new(texts)]
            }
        }
    }

    /// A batch of these columns, with the keys behind them.
    fn behind(
        self,
        columns: Vec<(&str, ArrayRef)>,
        numbers: impl Iterator<Item = Option<i64>>,
    ) -> RecordBatch {
        let numbers: Vec<_> = numbers.collect();
        let keys = ["k", "l"].into_iter().zip(self.columns(&numbers));
        let all = columns.into_iter().chain(keys);
        let all = all.map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(all).unwrap()
    }
}

fn timestamps(all: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let all: TimestampMicrosecondArray = all.collect();
    let all = all.with_timezone("UTC");
    assert_eq!(*all.data_type(), instants());
    Arc::new(all)
}

fn left(facts: &[Fact], keys: Keys) -> RecordBatch {
    let ids: Int64Array = facts.iter().map(|(id, ..)| *id).collect();
    let columns: Vec<(_, ArrayRef)> = vec![
        ("id", Arc::new(ids)),
        ("at", timestamps(facts.iter().map(|(.., at)| *at))),
    ];
    keys.behind(columns, facts.iter().map(|(_, key, _)| *key))
}

/// `far_future`: whether what has no end has one there.
fn right(spans: &[Span], keys: Keys, far_future: bool) -> RecordBatch {
    let numbers: Int64Array = spans.iter().map(|(.., number)| *number).collect();
    let ends = spans.iter().map(|(_, _, to, _)| match far_future {
        true => Some(to.unwrap_or(FAR_FUTURE_MICROS)),
        false => *to,
    });
    let begins = spans.iter().map(|(_, from, ..)| Some(*from));
    let columns: Vec<(_, ArrayRef)> = vec![
        ("from", timestamps(begins)),
        ("to", timestamps(ends)),
        ("sid", Arc::new(numbers)),
    ];
    keys.behind(columns, spans.iter().map(|(key, ..)| *key))
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
    let places = [(0, JoinSide::Left), (2, JoinSide::Right)];
    let places = places.map(|(index, side)| ColumnIndex { index, side });
    let of = schema(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("sid", DataType::Int64, false),
    ]);
    JoinFilter::new(both(rest, Operator::NotEq, lit(0_i64)), places.to_vec(), of)
}

fn terms(join_type: JoinType, filter: Option<JoinFilter>, keys: Keys) -> Terms {
    let column = |name: &str, at: usize| -> PhysicalExprRef { Arc::new(Column::new(name, at)) };
    let on = ["k", "l"].into_iter().zip(keys.columns(&[]));
    let on = on.enumerate().map(|(at, (name, _))| {
        // Behind the columns before them.
        (column(name, 2 + at), column(name, 3 + at))
    });
    Terms {
        join_type,
        on: on.collect(),
        at: column("at", 1),
        from: 0,
        to: 1,
        far_future: false,
        filter,
    }
}

/// The join as the planner leaves it where the scan of its journal refuses rows by a filter; and the filter, in words.
fn told(join: AsOfJoinExec) -> (Arc<dyn ExecutionPlan>, impl Fn() -> String) {
    let config = ConfigOptions::default();
    let phase = FilterPushdownPhase::Post;
    let wanted = join
        .gather_filters_for_pushdown(phase, Vec::new(), &config)
        .unwrap()
        .self_filters();
    let [facts, journal] = wanted.as_slice() else {
        panic!("{wanted:?}");
    };
    let ([], [filter]) = (facts.as_slice(), journal.as_slice()) else {
        panic!("{wanted:?}");
    };
    let filter = Arc::clone(filter);
    let join: Arc<dyn ExecutionPlan> = Arc::new(join);
    let children = join.children();
    let scan = FilterExec::try_new(Arc::clone(&filter), Arc::clone(children[1])).unwrap();
    let children = vec![Arc::clone(children[0]), Arc::new(scan) as _];
    let join = replace_children_if_necessary(Arc::clone(&join), children).unwrap();
    let result = ChildPushdownResult {
        parent_filters: Vec::new(),
        self_filters: vec![
            Vec::new(),
            vec![PushedDown::Yes.wrap_expression(Arc::clone(&filter))],
        ],
    };
    let result = join.handle_child_pushdown_result(phase, result, &config);
    let join = result.unwrap().updated_node.unwrap();
    (join, move || filter.to_string())
}

async fn joined(join: Arc<dyn ExecutionPlan>, most: usize) -> Vec<Found> {
    let config = SessionConfig::new().with_batch_size(most);
    let context = TaskContext::default().with_session_config(config);
    let batches = collect(join, Arc::new(context)).await.unwrap();
    let mut found = Vec::new();
    for batch in batches {
        assert!(batch.num_rows() > 0 && batch.num_rows() <= most);
        let numbers = |name| batch.column_by_name(name).unwrap();
        let ids = numbers("id").as_primitive::<Int64Type>();
        let numbers = numbers("sid").as_primitive::<Int64Type>();
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

fn shuffled(spans: &[Span], dice: &mut Dice) -> Vec<Span> {
    let mut shuffled = spans.to_vec();
    for last in (1..shuffled.len()).rev() {
        shuffled.swap(last, dice.below(last as u64 + 1) as usize);
    }
    shuffled
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
        let shuffled = shuffled(&spans, &mut dice);
        let keys = Keys::ALL[seed as usize % Keys::ALL.len()];
        let far_future = [true, false, false][seed as usize % 3];
        for join_type in [JoinType::Inner, JoinType::Left] {
            for filtered in [false, true] {
                let expected = expected(&facts, &spans, join_type, filtered);
                let terms = Arc::new(Terms {
                    far_future,
                    ..terms(join_type, filtered.then(further), keys)
                });
                for size in [1, 3, 7, 1_000] {
                    let context = format!("seed {seed}, {join_type}, {filtered}, {size}, {keys:?}");
                    let other = 8 - size.min(7);
                    let merge = AsOfJoinExec::try_new(
                        plan(&left(&facts, keys), size, 1),
                        plan(&right(&spans, keys, far_future), other, 1),
                        Arc::clone(&terms),
                        Way::Merge,
                    );
                    let found = joined(Arc::new(merge.unwrap()), size).await;
                    assert_eq!(found, expected, "{context}: merge");
                    let held = || {
                        let held = AsOfJoinExec::try_new(
                            plan(&left(&facts, keys), size, 1),
                            plan(&right(&shuffled, keys, far_future), other, 3),
                            Arc::clone(&terms),
                            Way::Held,
                        );
                        held.unwrap()
                    };
                    let found = joined(Arc::new(held()), size).await;
                    assert_eq!(found, expected, "{context}: facts held");
                    let (told, filter) = told(held());
                    let found = joined(told, size).await;
                    assert_eq!(found, expected, "{context}: {}", filter());
                }
            }
        }
    }
}

/// What facts told the journal, how many of its rows came, and how many of these the scan says it let pass.
async fn asked(facts: &[Fact], keys: Keys, far_future: bool) -> (String, usize, Option<usize>) {
    let spans = [(Some(1), 0, Some(50), 0), (Some(3), 10, None, 1)];
    let terms = Terms {
        far_future,
        ..terms(JoinType::Left, None, keys)
    };
    let join = AsOfJoinExec::try_new(
        plan(&left(facts, keys), 2, 1),
        plan(&right(&spans, keys, far_future), 1, 2),
        Arc::new(terms),
        Way::Held,
    );
    let (join, filter) = told(join.unwrap());
    assert_eq!(filter(), "DynamicFilter [ empty ]");
    let found = joined(Arc::clone(&join), 10).await;
    assert_eq!(found, expected(facts, &spans, JoinType::Left, false));
    let rows = join.metrics().unwrap();
    let rows = rows.sum_by_name("journal_rows").map(|rows| rows.as_usize());
    let scanned = join.children()[1].metrics().unwrap().output_rows();
    (filter(), rows.unwrap_or_default(), scanned)
}

/// What the scan of a journal is told.
#[tokio::test]
async fn facts_tell_the_journal_what_they_look_for() {
    // One key; NULL is none, and no instant.
    let one = [
        (0, None, Some(70)),
        (1, Some(3), None),
        (2, Some(3), Some(20)),
        (3, Some(3), Some(30)),
    ];
    let (filter, rows, _) = asked(&one, Keys::Number, false).await;
    assert!(filter.contains("k@3 = 3 AND from@0 <= "), "{filter}");
    assert!(filter.contains("to@1 IS NULL OR to@1 > "), "{filter}");
    assert_eq!(rows, 1, "{filter}");
    // Two of them, which are bounds and a list; of two columns each for itself.
    let two = [(0, Some(1), Some(5)), (1, Some(4), Some(90))];
    let (filter, rows, _) = asked(&two, Keys::Number, false).await;
    let expected = "k@3 >= 1 AND k@3 <= 4 AND k@3 IN (";
    assert!(filter.contains(expected), "{filter}");
    assert_eq!(rows, 1, "{filter}");
    let (filter, rows, _) = asked(&two, Keys::Two, true).await;
    for part in [
        "k@3 >= ",
        "k@3 <= ",
        "k@3 IN (",
        "l@4 >= even",
        "l@4 <= odd",
    ] {
        assert!(filter.contains(part), "{part}: {filter}");
    }
    assert_eq!(rows, 1, "{filter}");
    // More than a list may have.
    let many = (0..400).map(|key| (key, Some(key), Some(20)));
    let (filter, rows, _) = asked(&many.collect::<Vec<_>>(), Keys::Number, false).await;
    assert!(
        filter.contains("k@3 >= 0 AND k@3 <= 399 AND from"),
        "{filter}"
    );
    assert_eq!(rows, 2, "{filter}");
    // Ended before the first instant, or begun after the last one.
    let (filter, rows, _) = asked(
        &[(0, Some(1), Some(50)), (1, Some(3), Some(60))],
        Keys::Date,
        false,
    )
    .await;
    assert_eq!(rows, 1, "{filter}");
    let (filter, rows, _) = asked(
        &[(0, Some(1), Some(5)), (1, Some(3), Some(9))],
        Keys::Date,
        false,
    )
    .await;
    assert_eq!(rows, 1, "{filter}");
    // The end of what has none is no end.
    let late = [(0, Some(3), Some(FAR_FUTURE_MICROS + 7))];
    let (filter, rows, _) = asked(&late, Keys::Text, true).await;
    assert_eq!(rows, 1, "{filter}");
    // Where nothing can be found the journal does not run.
    for none in [&[][..], &[(0, None, Some(3)), (1, Some(1), None)]] {
        let (filter, rows, scanned) = asked(none, Keys::Decimal, false).await;
        assert_eq!(filter, "DynamicFilter [ false ]");
        assert_eq!((rows, scanned), (0, None), "{none:?}");
    }
}

#[test]
fn a_filter_is_for_held_facts_and_where_it_is_asked_for() {
    let keys = Keys::Number;
    let of = |way| {
        let terms = Arc::new(terms(JoinType::Inner, None, keys));
        let (facts, spans) = (
            plan(&left(&[], keys), 1, 1),
            plan(&right(&[], keys, false), 1, 1),
        );
        AsOfJoinExec::try_new(facts, spans, terms, way).unwrap()
    };
    let filters = |join: &dyn ExecutionPlan, phase, config: &ConfigOptions| {
        let gathered = join.gather_filters_for_pushdown(phase, Vec::new(), config);
        gathered.unwrap().self_filters().iter().flatten().count()
    };
    let on = ConfigOptions::default();
    let mut off = ConfigOptions::default();
    off.optimizer.enable_join_dynamic_filter_pushdown = false;
    let (pre, post) = (FilterPushdownPhase::Pre, FilterPushdownPhase::Post);
    assert_eq!(filters(&of(Way::Held), post, &on), 1);
    assert_eq!(filters(&of(Way::Held), post, &off), 0);
    assert_eq!(filters(&of(Way::Held), pre, &on), 0);
    assert_eq!(filters(&of(Way::Merge), post, &on), 0);
    // One that has it already keeps it, but for a run of its own.
    let (join, _) = told(of(Way::Held));
    assert_eq!(filters(join.as_ref(), post, &on), 0);
    let produced = |join: &Arc<dyn ExecutionPlan>| join.dynamic_expressions_produced().len();
    assert_eq!(produced(&join), 1);
    let sides = join.children().into_iter().cloned().collect();
    let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let again = Arc::clone(&join).replace_children(sides, anew).unwrap();
    assert_eq!(produced(&again), 1);
    assert_eq!(produced(&join.reset_state().unwrap()), 0);
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
    let keys = Keys::Number;
    let terms = Arc::new(terms(JoinType::Left, None, keys));
    let of = |way| {
        let facts = plan(&left(&facts, keys), 2, 1);
        let spans = plan(&right(&spans, keys, false), 2, 1);
        let join = AsOfJoinExec::try_new(facts, spans, Arc::clone(&terms), way);
        Arc::new(join.unwrap())
    };
    let merged = joined(of(Way::Merge), 3).await;
    assert_eq!(
        merged,
        [(0, Some(0)), (1, Some(2)), (2, None), (3, None), (4, None)]
    );
    let held = joined(of(Way::Held), 3).await;
    assert_eq!(held, expected(&facts, &spans, JoinType::Left, false));
}
