//! Random streams of changes, in any order and split in any way, against a journal that anyone can see to be right:
//! events in a map by sequence, read from first to last.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_engine::Session;

use super::{Dice, checked, conserved, lines, orders, session};
use crate::support::query;

/// What one row says of a key: both attributes, or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Is(Option<i64>, Option<i64>),
    Gone,
}

/// A key, a second, and what happens there.
type Event = (i64, u32, Change);

/// Which journal: what is told to the table, and what it means.
#[derive(Debug, Clone, Copy)]
struct Kind {
    clauses: &'static str,
    /// Whether `b` is tracked.
    tracks_b: bool,
    /// Whether NULL of `a` and of `b` keeps the value before.
    keeps: (bool, bool),
}

const KINDS: [Kind; 4] = [
    Kind {
        clauses: "TRACK HISTORY ON * EXCEPT (op)",
        tracks_b: true,
        keeps: (false, false),
    },
    Kind {
        clauses: "TRACK HISTORY ON (a)",
        tracks_b: false,
        keeps: (false, false),
    },
    Kind {
        clauses: "TRACK HISTORY ON * EXCEPT (op) IGNORE NULL UPDATES",
        tracks_b: true,
        keeps: (true, true),
    },
    Kind {
        clauses: "TRACK HISTORY ON (a) IGNORE NULL UPDATES ON (b)",
        tracks_b: false,
        keeps: (false, true),
    },
];

/// Long enough for every stream here.
const ALL_OF_IT: &str = "LATE APPLY AFTER INTERVAL '1 day'";

/// An interval as the oracle knows it: attributes, first second, and the one that is no longer in it.
type Interval = (Option<i64>, Option<i64>, u32, Option<u32>);

#[derive(Debug, Default)]
struct Oracle {
    keys: BTreeMap<i64, BTreeMap<u32, Change>>,
}

impl Oracle {
    fn add(&mut self, (key, second, change): Event) {
        let before = self.keys.entry(key).or_default().insert(second, change);
        assert!(
            before.is_none_or(|before| before == change),
            "a stream contradicts itself"
        );
    }

    fn of(events: &[Event]) -> Self {
        let mut oracle = Self::default();
        events.iter().for_each(|event| oracle.add(*event));
        oracle
    }

    fn intervals(&self, kind: Kind, key: i64) -> Vec<Interval> {
        let mut done: Vec<Interval> = Vec::new();
        let mut open: Option<Interval> = None;
        for (second, change) in self.keys.get(&key).into_iter().flatten() {
            let Change::Is(a, b) = *change else {
                if let Some((a, b, from, _)) = open.take() {
                    done.push((a, b, from, Some(*second)));
                }
                continue;
            };
            let Some((old_a, old_b, from, _)) = open else {
                open = Some((a, b, *second, None));
                continue;
            };
            let a = if kind.keeps.0 { a.or(old_a) } else { a };
            let b = if kind.keeps.1 { b.or(old_b) } else { b };
            if a == old_a && (b == old_b || !kind.tracks_b) {
                open = Some((a, b, from, None));
            } else {
                done.push((old_a, old_b, from, Some(*second)));
                open = Some((a, b, *second, None));
            }
        }
        done.extend(open);
        done
    }

    /// The lines that the whole journal has.
    fn journal(&self, kind: Kind) -> Vec<String> {
        let all = self.keys.keys().flat_map(|key| {
            let intervals = self.intervals(kind, *key);
            intervals.into_iter().map(move |(a, b, from, to)| {
                let to_text = to.map_or("NULL".to_owned(), |to| format!("{}Z", instant(to)));
                let current = to.is_none();
                format!(
                    "{key} {} {} {} {}Z {to_text} {current}",
                    cell(a),
                    cell(b),
                    instant(from),
                    instant(from)
                )
            })
        });
        all.collect()
    }

    /// The lines of what is true at a second; at none, of what is current.
    fn state(&self, kind: Kind, at: Option<u32>) -> Vec<String> {
        let mut rows = Vec::new();
        for key in self.keys.keys() {
            let found = self
                .intervals(kind, *key)
                .into_iter()
                .find(|(.., from, to)| match at {
                    Some(at) => *from <= at && to.is_none_or(|to| to > at),
                    None => to.is_none(),
                });
            rows.extend(found.map(|(a, b, ..)| format!("{key} {} {}", cell(a), cell(b))));
        }
        rows
    }

    /// Every instant at which anything happens, and one before and after all of them.
    fn instants(&self) -> BTreeSet<u32> {
        let seconds = self.keys.values().flat_map(BTreeMap::keys);
        seconds.copied().chain([0, 3_599]).collect()
    }
}

fn cell(value: Option<i64>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

/// A second of an hour.
fn instant(second: u32) -> String {
    format!("2026-01-01T00:{:02}:{:02}", second / 60, second % 60)
}

async fn create(session: &Session, kind: Kind, late: &str) {
    let sql = format!(
        "CREATE TABLE t (k BIGINT, op TEXT, a BIGINT, b BIGINT, at TIMESTAMP) JOURNAL KEYS (k) SEQUENCE BY at \
         APPLY AS DELETE WHEN op = 'D' {} {late}",
        kind.clauses
    );
    query::run(session, &sql).await;
}

async fn insert(session: &Session, events: &[Event]) {
    let rows = events.iter().map(|(key, second, change)| {
        let at = instant(*second);
        match change {
            Change::Is(a, b) => format!(
                "({key}, 'U', CAST({} AS BIGINT), CAST({} AS BIGINT), TIMESTAMP '{at}')",
                cell(*a),
                cell(*b)
            ),
            Change::Gone => format!(
                "({key}, 'D', CAST(NULL AS BIGINT), CAST(NULL AS BIGINT), TIMESTAMP '{at}')"
            ),
        }
    });
    let rows: Vec<String> = rows.collect();
    let sql = format!("INSERT INTO t VALUES {}", rows.join(", "));
    let report = query::write(session, &sql).await;
    conserved(&report);
    assert_eq!(report.rows_accepted, events.len() as u64, "{report:?}");
}

const JOURNAL: &str = "SELECT k, a, b, at, valid_from, valid_to, is_current FROM \"t$journal\" ORDER BY k, valid_from";

async fn same(session: &Session, oracle: &Oracle, kind: Kind, context: &str) {
    checked(session, "t").await;
    assert_eq!(
        lines(session, JOURNAL).await,
        oracle.journal(kind),
        "{context}"
    );
    let current = lines(session, "SELECT k, a, b FROM t ORDER BY k").await;
    assert_eq!(current, oracle.state(kind, None), "{context}");
}

async fn same_at_every_instant(session: &Session, oracle: &Oracle, kind: Kind, context: &str) {
    for second in oracle.instants() {
        let sql = format!(
            "SELECT k, a, b FROM t FOR VALID_TIME AS OF TIMESTAMP '{}' ORDER BY k",
            instant(second)
        );
        let expected = oracle.state(kind, Some(second));
        assert_eq!(
            lines(session, &sql).await,
            expected,
            "{context}, second {second}"
        );
    }
}

/// Changes of a few keys, some of them twice. `first` is the earliest second.
fn stream(dice: &mut Dice, keys: u64, length: u64, first: u32) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut taken = BTreeSet::new();
    for _ in 0..length {
        let key = dice.below(keys) as i64;
        let second = first + dice.below(length) as u32;
        if !taken.insert((key, second)) {
            continue;
        }
        let value = |dice: &mut Dice| match dice.below(4) {
            0 => None,
            value => Some(value as i64),
        };
        let change = match dice.below(5) {
            0 => Change::Gone,
            _ => Change::Is(value(dice), value(dice)),
        };
        events.push((key, second, change));
        if dice.below(8) == 0 {
            events.push((key, second, change));
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn random_streams_in_any_order_and_any_split_are_one_journal() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        for seed in 0..4 {
            let mut dice = Dice(1_000 * number as u64 + seed);
            let mut events = stream(&mut dice, 6, 60, 10);
            dice.shuffle(&mut events);
            let session = session().await;
            create(&session, kind, ALL_OF_IT).await;
            let mut oracle = Oracle::default();
            let mut rest = events.as_slice();
            while !rest.is_empty() {
                let size = (1 + dice.below(16) as usize).min(rest.len());
                let (batch, later) = rest.split_at(size);
                insert(&session, batch).await;
                batch.iter().for_each(|event| oracle.add(*event));
                let context = format!("{kind:?}, seed {seed}, {} events to come", later.len());
                same(&session, &oracle, kind, &context).await;
                rest = later;
            }
            let context = format!("{kind:?}, seed {seed}");
            same_at_every_instant(&session, &oracle, kind, &context).await;
        }
    }
}

/// A key for every order of five events and every way to split them into writes.
#[tokio::test(flavor = "multi_thread")]
async fn every_order_and_every_split_is_one_journal() {
    let events = [
        (10, Change::Is(Some(1), Some(1))),
        (20, Change::Is(Some(2), None)),
        (30, Change::Gone),
        (40, Change::Is(None, Some(2))),
        (50, Change::Is(Some(2), Some(3))),
    ];
    let last = events.len() - 1;
    for kind in KINDS {
        let session = session().await;
        create(&session, kind, ALL_OF_IT).await;
        let mut writes: Vec<Vec<Event>> = vec![Vec::new(); events.len()];
        let mut key = 0;
        for order in orders(&events) {
            for cuts in 0..1_usize << last {
                let mut write = 0;
                for (place, (second, change)) in order.iter().enumerate() {
                    writes[write].push((key, *second, *change));
                    write += (cuts >> place) & 1;
                }
                key += 1;
            }
        }
        for write in writes {
            insert(&session, &write).await;
            checked(&session, "t").await;
        }
        let mut oracle = Oracle::default();
        for key in 0..key {
            events
                .iter()
                .for_each(|(second, change)| oracle.add((key, *second, *change)));
        }
        same(&session, &oracle, kind, &format!("{kind:?}")).await;
    }
}

/// What is late by less than the horizon is exact, however long the stream: what lies behind it is folded away.
#[tokio::test(flavor = "multi_thread")]
async fn a_horizon_that_moves_forgets_nothing_that_may_still_change() {
    const HORIZON: u32 = 40;
    for (number, kind) in KINDS.into_iter().enumerate() {
        let mut dice = Dice(77 + number as u64);
        let events = stream(&mut dice, 5, 400, 1);
        // Each comes at its second and up to a horizon later, so nothing is behind it.
        let mut arrivals: Vec<(u32, Event)> = Vec::new();
        for event in events {
            arrivals.push((event.1 + dice.below(u64::from(HORIZON)) as u32, event));
        }
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let session = session().await;
        let late = format!("LATE FAIL AFTER INTERVAL '{HORIZON} seconds'");
        create(&session, kind, &late).await;
        let mut oracle = Oracle::default();
        for (write, batch) in arrivals.chunks(9).enumerate() {
            let batch: Vec<Event> = batch.iter().map(|(_, event)| *event).collect();
            insert(&session, &batch).await;
            batch.iter().for_each(|event| oracle.add(*event));
            if write % 5 == 0 {
                same(&session, &oracle, kind, &format!("{kind:?}, write {write}")).await;
            }
        }
        same(&session, &oracle, kind, &format!("{kind:?}")).await;
        // It is not for want of forgetting: one that is far behind is refused.
        let old = format!(
            "INSERT INTO t VALUES (0, 'U', 9, 9, TIMESTAMP '{}')",
            instant(0)
        );
        let error = query::error(&session, &old).await;
        assert!(
            error.contains("too late") && error.contains("k = 0"),
            "{error}"
        );
    }
}

/// Where no sightings are kept, a stream that comes in order is exact all the same.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_horizon_order_is_all_that_is_asked() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        let mut dice = Dice(500 + number as u64);
        let mut events = stream(&mut dice, 8, 160, 1);
        events.sort_by_key(|(_, second, _)| *second);
        // Identical rows come together here: once untracked values have moved on, nobody knows what they were.
        events.dedup_by_key(|(key, second, _)| (*key, *second));
        let session = session().await;
        create(&session, kind, "").await;
        let mut rest = events.as_slice();
        let mut oracle = Oracle::default();
        while !rest.is_empty() {
            let size = (1 + dice.below(12) as usize).min(rest.len());
            let (batch, later) = rest.split_at(size);
            insert(&session, batch).await;
            batch.iter().for_each(|event| oracle.add(*event));
            rest = later;
        }
        let context = format!("{kind:?}");
        same(&session, &oracle, kind, &context).await;
        same_at_every_instant(&session, &oracle, kind, &context).await;
    }
}

/// Whole histories at once, sorted by nobody: the same as write by write.
#[tokio::test(flavor = "multi_thread")]
async fn one_write_of_a_long_history_is_the_same_journal() {
    for (number, kind) in KINDS.into_iter().enumerate() {
        let mut dice = Dice(900 + number as u64);
        let mut events = stream(&mut dice, 40, 1_500, 1);
        dice.shuffle(&mut events);
        let session = session().await;
        create(&session, kind, "").await;
        insert(&session, &events).await;
        same(&session, &Oracle::of(&events), kind, &format!("{kind:?}")).await;
    }
}
