//! A sample, and the medians of samples.

use std::future::Future;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::Result;

/// One run of one thing.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// Seconds on the wall clock.
    pub wall: f64,
    /// Seconds of processor time, user and system, of all threads: steadier than the wall clock on a busy machine.
    pub cpu: f64,
}

/// Runs `work` in this process and takes its time.
pub(crate) async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(Sample, T)> {
    let (start, cpu) = (Instant::now(), cpu_seconds(UsageWho::RUSAGE_SELF)?);
    let value = work.await?;
    let wall = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds(UsageWho::RUSAGE_SELF)? - cpu;
    Ok((Sample { wall, cpu }, value))
}

/// Runs a child to its end and takes its time; its output is thrown away, its failure is ours.
pub(crate) fn timed_child(command: &mut Command) -> Result<Sample> {
    let (start, cpu) = (Instant::now(), cpu_seconds(UsageWho::RUSAGE_CHILDREN)?);
    let done = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let wall = start.elapsed().as_secs_f64();
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("{command:?} failed ({}): {}", done.status, said.trim()).into());
    }
    let cpu = cpu_seconds(UsageWho::RUSAGE_CHILDREN)? - cpu;
    Ok(Sample { wall, cpu })
}

fn cpu_seconds(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who)?;
    let [user, system] = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    Ok(user + system)
}

/// The value below which `fraction` of the samples lie; zero of none.
pub(crate) fn quantile(samples: &[f64], fraction: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let place = (last as f64 * fraction).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

/// The middle sample.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}
