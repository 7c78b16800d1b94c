//! Other processes on a lake, and what is left when they are killed.
//!
//! The other process is this test binary again, told by the environment which part to play.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use selvedge_engine::Session;

use super::lake::folder;
use super::query;

const LAKE: &str = "SELVEDGE_TEST_LAKE";

/// Starts this binary on one test, which finds its lake in the environment.
pub(crate) fn another(test: &str, lake: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(LAKE, lake)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The lake on which a parent test started this process.
pub(crate) fn lake() -> PathBuf {
    let lake = std::env::var_os(LAKE);
    lake.unwrap_or_else(|| panic!("run by its parent test"))
        .into()
}

/// Kills a process that has run for a while.
pub(crate) async fn kill_after(time: Duration, mut child: Child) {
    tokio::time::sleep(time).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The part of one that is killed: writes without end, each with the next number after that which `newest` asks for,
/// and says which it has done.
pub(crate) async fn write_for_ever(newest: &str, sql: impl Fn(i64) -> String) {
    let session = folder(&lake()).await;
    let mut next = query::integers(&session, newest).await[0];
    loop {
        next += 1;
        query::write(&session, &sql(next)).await;
        println!("acknowledged {next}");
    }
}

/// Runs a test that writes for ever, and kills it, again and again. What was acknowledged is there; `check` looks at
/// what else is, up to the number that `newest` asks for, after which kill.
pub(crate) async fn killed_writers(
    test: &str,
    lake: &Path,
    kills: u64,
    newest: &str,
    check: impl AsyncFn(&Session, i64, u64),
) {
    let mut acknowledged = 0;
    for kill in 0..kills {
        acknowledged = killed(test, lake, kill, kill + 1 == kills)
            .await
            .unwrap_or(acknowledged)
            .max(acknowledged);
        let session = folder(lake).await;
        let newest = query::integers(&session, newest).await[0];
        assert!(
            newest >= acknowledged,
            "kill {kill}: {acknowledged} was acknowledged, {newest} is there"
        );
        check(&session, newest, kill).await;
    }
    assert!(acknowledged > 0, "no write was ever acknowledged");
}

/// Runs a writer for a while, the `kill`th time, and kills it: the last write it said it had done, if any. The `last` one
/// is waited for until it has done one, however busy the machine is.
async fn killed(test: &str, lake: &Path, kill: u64, last: bool) -> Option<i64> {
    let mut child = another(test, lake);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (done, first_done) = tokio::sync::oneshot::channel();
    let reader = std::thread::spawn(move || {
        let mut done = Some(done);
        lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<i64>().ok())
            .inspect(|_| done.take().into_iter().for_each(|done| _ = done.send(())))
            .last()
    });
    if last {
        first_done.await.unwrap();
    }
    // Spread over start, planning, files and commit of its first writes.
    kill_after(Duration::from_millis(40 + kill * 37 % 160), child).await;
    reader.join().unwrap()
}
