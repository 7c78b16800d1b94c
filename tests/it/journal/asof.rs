//! Joins in which each row chooses the instant, against a loop over all facts and all keys: in each of the ways such a
//! join may run, with the conditions that decide which.

use std::collections::BTreeMap;

use selvedge_engine::Session;

use super::{Dice, lines, session};
use crate::support::query;

/// Values of a key by second; one without a value ends it.
type History = BTreeMap<u32, Option<i64>>;
type Key = (i64, &'static str);

/// Number, both parts of a key, second.
type Fact = (i64, Option<i64>, Option<&'static str>, Option<u32>);

const PARTS: [&str; 2] = ["a", "b"];
const SECONDS: u64 = 600;

#[derive(Default)]
struct Journal {
    keys: BTreeMap<Key, History>,
}

impl Journal {
    fn random(dice: &mut Dice, events: usize) -> Self {
        let mut journal = Self::default();
        for _ in 0..events {
            let key = (dice.below(4) as i64, PARTS[dice.below(2) as usize]);
            let value = (dice.below(6) > 0).then(|| dice.below(5) as i64);
            let history = journal.keys.entry(key).or_default();
            history.insert(dice.below(SECONDS) as u32, value);
        }
        journal
    }

    /// What is true at a second, of each key.
    fn at(&self, second: u32) -> impl Iterator<Item = (Key, i64)> {
        self.keys.iter().filter_map(move |(key, history)| {
            let (_, value) = history.range(..=second).next_back()?;
            Some((*key, (*value)?))
        })
    }
}

fn instant(second: u32) -> String {
    format!("2026-01-01T00:{:02}:{:02}", second / 60, second % 60)
}

fn text(value: Option<&str>) -> String {
    value.map_or("NULL".to_owned(), |value| format!("'{value}'"))
}

fn number(value: Option<i64>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

fn facts(dice: &mut Dice, count: i64) -> Vec<Fact> {
    let facts = (0..count).map(|id| {
        // One key more than the journal has.
        let key = (dice.below(10) > 0).then(|| dice.below(5) as i64);
        let part = (dice.below(10) > 0).then(|| PARTS[dice.below(2) as usize]);
        let second = (dice.below(10) > 0).then(|| dice.below(SECONDS) as u32);
        (id, key, part, second)
    });
    facts.collect()
}

/// The journal `j`, and `facts`, in several files each.
async fn filled(session: &Session, journal: &Journal, facts: &[Fact]) {
    let create = "CREATE TABLE j (k BIGINT, g TEXT, v BIGINT, at TIMESTAMP) JOURNAL KEYS (k, g) SEQUENCE BY at \
                  APPLY AS DELETE WHEN v IS NULL";
    query::run(session, create).await;
    let rows = journal.keys.iter().flat_map(|((key, part), history)| {
        history.iter().map(move |(second, value)| {
            let (value, at) = (number(*value), instant(*second));
            format!("({key}, '{part}', CAST({value} AS BIGINT), TIMESTAMP '{at}')")
        })
    });
    let rows: Vec<String> = rows.collect();
    for rows in rows.chunks(rows.len().div_ceil(3).max(1)) {
        query::write(
            session,
            &format!("INSERT INTO j VALUES {}", rows.join(", ")),
        )
        .await;
    }
    let create = "CREATE TABLE facts (id BIGINT, k BIGINT, g TEXT, ts TIMESTAMP)";
    query::run(session, create).await;
    let rows = facts.iter().map(|(id, key, part, second)| {
        let at = second.map_or("NULL".to_owned(), |second| {
            format!("TIMESTAMP '{}'", instant(second))
        });
        let (key, part) = (number(*key), text(*part));
        format!("({id}, CAST({key} AS BIGINT), CAST({part} AS TEXT), CAST({at} AS TIMESTAMP))")
    });
    let rows: Vec<String> = rows.collect();
    for rows in rows.chunks(rows.len().div_ceil(2).max(1)) {
        query::write(
            session,
            &format!("INSERT INTO facts VALUES {}", rows.join(", ")),
        )
        .await;
    }
}

/// Facts of which the planner knows the number, and the same of which it does not.
const KNOWN: &str = "facts AS f";
const UNKNOWN: &str = "(SELECT id, k, g, ts, unnest([0]) AS one FROM facts) AS f";

/// A condition, what it means, and whether its equalities contain all keys of the journal.
struct Condition {
    sql: &'static str,
    means: fn(&Fact, Key, i64) -> bool,
    keys: bool,
}

fn same((_, key, part, _): &Fact, (k, g): Key) -> bool {
    *key == Some(k) && *part == Some(g)
}

const CONDITIONS: [Condition; 8] = [
    Condition {
        sql: "c.k = f.k AND c.g = f.g",
        means: |fact, key, _| same(fact, key),
        keys: true,
    },
    Condition {
        sql: "f.g = c.g AND c.v <> 2 AND f.k = c.k",
        means: |fact, key, value| same(fact, key) && value != 2,
        keys: true,
    },
    Condition {
        sql: "c.k = f.k AND c.g = f.g AND c.v < f.id % 5",
        means: |fact, key, value| same(fact, key) && value < fact.0 % 5,
        keys: true,
    },
    Condition {
        sql: "c.k = f.k AND c.g = f.g AND c.v = f.id % 4",
        means: |fact, key, value| same(fact, key) && value == fact.0 % 4,
        keys: true,
    },
    Condition {
        sql: "c.k = f.k AND c.g = f.g AND f.id % 3 = 0",
        means: |fact, key, _| same(fact, key) && fact.0 % 3 == 0,
        keys: true,
    },
    Condition {
        sql: "c.k = f.k",
        means: |fact, (k, _), _| fact.1 == Some(k),
        keys: false,
    },
    Condition {
        sql: "c.k + 1 = f.k AND c.g = f.g",
        means: |fact, (k, g), _| fact.1 == Some(k + 1) && fact.2 == Some(g),
        keys: false,
    },
    Condition {
        sql: "c.v > f.k",
        means: |fact, _, value| fact.1.is_some_and(|k| value > k),
        keys: false,
    },
];

fn expected(journal: &Journal, facts: &[Fact], condition: &Condition, left: bool) -> Vec<String> {
    let mut all = Vec::new();
    for fact in facts {
        let before = all.len();
        if let Some(second) = fact.3 {
            let found = journal.at(second);
            let found = found.filter(|(key, value)| (condition.means)(fact, *key, *value));
            all.extend(found.map(|((k, g), value)| format!("{} {k} {g} {value}", fact.0)));
        }
        if all.len() == before && left {
            all.push(format!("{} NULL NULL NULL", fact.0));
        }
    }
    all.sort();
    all
}

fn asked(facts: &str, condition: &str, left: bool) -> String {
    let join = if left { "LEFT JOIN" } else { "JOIN" };
    format!(
        "SELECT f.id, c.k, c.g, c.v FROM {facts} {join} j FOR VALID_TIME AS OF f.ts AS c ON {condition}"
    )
}

async fn plan(session: &Session, sql: &str) -> String {
    let lines = lines(session, &format!("EXPLAIN FORMAT INDENT {sql}")).await;
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_join_finds_what_was_true() {
    for (seed, count, events) in [(1, 300, 400), (2, 20, 400), (3, 300, 30), (4, 300, 0)] {
        let mut dice = Dice(seed);
        let journal = Journal::random(&mut dice, events);
        let facts = facts(&mut dice, count);
        let session = session().await;
        filled(&session, &journal, &facts).await;
        for condition in &CONDITIONS {
            for left in [false, true] {
                let expected = expected(&journal, &facts, condition, left);
                for from in [KNOWN, UNKNOWN] {
                    let sql = asked(from, condition.sql, left);
                    let mut found = lines(&session, &sql).await;
                    found.sort();
                    assert_eq!(found, expected, "seed {seed}: {sql}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_numbers_of_rows_choose_the_way() {
    const SORTED: &str = "AsOfJoinExec: way=merge";
    const HELD: &str = "AsOfJoinExec: way=facts held";
    let mut dice = Dice(7);
    let journal = Journal::random(&mut dice, 400);
    let facts = facts(&mut dice, 300);
    let session = session().await;
    filled(&session, &journal, &facts).await;
    for condition in &CONDITIONS {
        for left in [false, true] {
            for (from, way) in [(KNOWN, HELD), (UNKNOWN, SORTED)] {
                let sql = asked(from, condition.sql, left);
                let plan = plan(&session, &sql).await;
                match condition.keys {
                    true => assert!(plan.contains(way), "{sql}\n{plan}"),
                    false => assert!(!plan.contains("AsOfJoinExec"), "{sql}\n{plan}"),
                }
            }
        }
    }
    // A merge has both sides in order, and sorts what is not.
    let merged = plan(&session, &asked(UNKNOWN, CONDITIONS[0].sql, true)).await;
    assert!(merged.matches("SortExec").count() >= 2, "{merged}");
    // Of a few rows, whose number is exact, a hash join tells the journal which keys there are.
    let few = "(VALUES (1, 1, 'a', TIMESTAMP '2026-01-01T00:05:00')) AS f (id, k, g, ts)";
    let few = plan(&session, &asked(few, CONDITIONS[0].sql, false)).await;
    assert!(few.contains("HashJoinExec"), "{few}");
    assert!(!few.contains("AsOfJoinExec"), "{few}");
    // A LEFT join whose facts must have found something is none.
    let sql = format!("{} WHERE c.v = 1", asked(KNOWN, CONDITIONS[0].sql, true));
    let inner = plan(&session, &sql).await;
    assert!(inner.contains("join_type=Inner"), "{inner}");
    assert!(inner.contains(HELD), "{inner}");
}

/// Keys of other types, other names for columns, and keys that the query cannot name.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_known_by_any_name_and_type() {
    let session = session().await;
    let create = "CREATE TABLE j (k INT, v TEXT, at DATE) JOURNAL KEYS (k) SEQUENCE BY at";
    query::run(&session, create).await;
    let day = |n: i64| format!("DATE '2026-{:02}-{:02}'", 1 + n / 28, 1 + n % 28);
    let rows = (0..200).map(|n| format!("({}, 'v{n}', {})", n % 2, day(n)));
    let rows: Vec<String> = rows.collect();
    query::write(
        &session,
        &format!("INSERT INTO j VALUES {}", rows.join(", ")),
    )
    .await;
    query::run(&session, "CREATE TABLE facts (id BIGINT, k BIGINT, d DATE)").await;
    let rows = (0..200).map(|n| format!("({n}, {}, {})", n % 2, day(n)));
    let rows: Vec<String> = rows.collect();
    query::write(
        &session,
        &format!("INSERT INTO facts VALUES {}", rows.join(", ")),
    )
    .await;
    let expected: Vec<String> = (0..200).map(|n| format!("{n} v{n}")).collect();
    for from in [
        "facts AS f JOIN j FOR VALID_TIME AS OF f.d AS c ON c.k = f.k",
        "facts AS f JOIN j FOR VALID_TIME AS OF CAST(f.d AS TIMESTAMP) AS c (x, v, w) ON x = f.k",
        "(SELECT id, CAST(k AS INT) AS k, d FROM facts) AS f JOIN j FOR VALID_TIME AS OF f.d AS c ON c.k = f.k",
    ] {
        let sql = format!("SELECT f.id, c.v FROM {from} ORDER BY f.id");
        assert_eq!(lines(&session, &sql).await, expected, "{sql}");
        let plan = plan(&session, &sql).await;
        assert!(plan.contains("AsOfJoinExec"), "{sql}\n{plan}");
    }
}

/// One key with thousands of facts and of intervals: a hash join would make millions of pairs of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_many_intervals_costs_no_more_than_many_keys() {
    const MANY: u32 = 3_000;
    let session = session().await;
    let history = (0..MANY).map(|second| (second, Some(i64::from(second))));
    let journal = Journal {
        keys: BTreeMap::from([((1, "a"), history.collect())]),
    };
    let facts: Vec<Fact> = (0..MANY)
        .map(|second| {
            (
                i64::from(second),
                Some(1),
                Some("a"),
                Some(MANY - 1 - second),
            )
        })
        .collect();
    filled(&session, &journal, &facts).await;
    for from in [KNOWN, UNKNOWN] {
        let sql = asked(from, CONDITIONS[0].sql, false);
        let sql = format!("SELECT count(*), count(DISTINCT id), sum(id + v) FROM ({sql}) AS x");
        let sum = u64::from(MANY) * u64::from(MANY - 1);
        assert_eq!(
            lines(&session, &sql).await,
            [format!("{MANY} {MANY} {sum}")]
        );
    }
}

/// Few facts of many keys: the scan of the journal is told which of them are looked for, and when.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_read_for_the_keys_of_the_facts() {
    const KEYS: i64 = 4;
    const EVENTS: u32 = 100;
    let session = session().await;
    let create = "CREATE TABLE j (k BIGINT, g TEXT, v BIGINT, at TIMESTAMP) JOURNAL KEYS (k, g) SEQUENCE BY at";
    query::run(&session, create).await;
    query::run(
        &session,
        "CREATE TABLE facts (id BIGINT, k BIGINT, g TEXT, ts TIMESTAMP)",
    )
    .await;
    // A file for each key, and facts of all of them.
    for key in 0..KEYS {
        let rows = (0..EVENTS)
            .map(|second| format!("({key}, 'a', {second}, TIMESTAMP '{}')", instant(second)));
        let rows: Vec<String> = rows.collect();
        let rows = rows.join(", ");
        query::write(&session, &format!("INSERT INTO j VALUES {rows}")).await;
    }
    let rows = (0..i64::from(EVENTS)).map(|id| {
        let at = instant(id as u32);
        format!("({id}, {}, 'a', TIMESTAMP '{at}')", id % KEYS)
    });
    let rows: Vec<String> = rows.collect();
    let rows = rows.join(", ");
    query::write(&session, &format!("INSERT INTO facts VALUES {rows}")).await;
    let passed = async |sql: &str| -> u32 {
        let plan = lines(&session, &format!("EXPLAIN ANALYZE {sql}")).await;
        let plan = plan.join("\n");
        let rows = plan.split_once("journal_rows=").map(|(_, rows)| rows);
        let digits = rows.and_then(|rows| rows.split(|c: char| !c.is_ascii_digit()).next());
        let rows = digits.and_then(|digits| digits.parse().ok());
        rows.unwrap_or_else(|| panic!("{plan}"))
    };
    for left in [false, true] {
        let asked = asked(KNOWN, CONDITIONS[0].sql, left);
        let one = format!("{asked} WHERE f.id = 7");
        let two = format!("{asked} WHERE f.id IN (7, 9) ORDER BY f.id");
        let none = format!("{asked} WHERE f.id % 1000 = 999");
        let all = KEYS as u32 * EVENTS;
        for (on, rows) in [(true, [EVENTS, 2 * EVENTS, 0]), (false, [all, all, 0])] {
            let set =
                format!("SET datafusion.optimizer.enable_join_dynamic_filter_pushdown = {on}");
            query::run(&session, &set).await;
            let told = plan(&session, &one).await;
            assert_eq!(told.contains("DynamicFilter"), on, "{told}");
            assert_eq!(lines(&session, &one).await, ["7 3 a 7"]);
            assert_eq!(lines(&session, &two).await, ["7 3 a 7", "9 1 a 9"]);
            assert_eq!(lines(&session, &none).await, [""; 0]);
            for (sql, rows) in [one.as_str(), &two, &none].into_iter().zip(rows) {
                let passed = passed(sql).await;
                match on {
                    // Of a file that is read, pages of other instants may be left out.
                    true => assert!(passed <= rows, "{passed}: {sql}"),
                    false => assert_eq!(passed, rows, "{sql}"),
                }
            }
        }
    }
}
