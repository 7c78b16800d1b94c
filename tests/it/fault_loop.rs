//! Every write to the store fails once, in every way, in every step: what was acknowledged is there
//! exactly once, what was refused is not there at all.

use selvedge_engine::{Error, Session};

use crate::support::ordeal::{every_write_fails_once, rows};
use crate::support::query;

/// A step and the rows the table holds after it.
const STEPS: [(&str, &[i64]); 6] = [
    ("CREATE TABLE t (a BIGINT)", &[]),
    ("INSERT INTO t VALUES (1), (2)", &[1, 2]),
    ("INSERT INTO t VALUES (3)", &[1, 2, 3]),
    ("INSERT OVERWRITE t VALUES (4), (5)", &[4, 5]),
    ("INSERT INTO t SELECT a + 10 FROM t", &[4, 5, 14, 15]),
    (
        "CREATE OR REPLACE TABLE t AS SELECT a FROM t WHERE a > 5",
        &[14, 15],
    ),
];

/// Rows of the table and commits of its log.
async fn look(session: &Session) -> Result<(Vec<i64>, usize), Error> {
    let rows = rows(session).await?;
    let counted = query::try_integers(session, "SELECT count(*) FROM t").await?;
    assert_eq!(counted, [rows.len() as i64], "metadata and rows disagree");
    let commits = query::rows(session, "DESCRIBE HISTORY t").await;
    Ok((rows, commits))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_fails_once_in_every_way() {
    let steps = STEPS.iter().enumerate();
    // One commit each, and no other.
    let story = steps.map(|(before, (sql, rows))| (*sql, (rows.to_vec(), before + 1)));
    let story: Vec<_> = story.collect();
    every_write_fails_once(&[], &story, look).await;
}
