//! Peers in Python: each a process that stays alive and answers one request at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::measure::Sample;
use crate::report::Report;
use crate::{Bench, Result};

/// A running peer.
pub(crate) struct Peer {
    /// Its column in the table.
    pub name: &'static str,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `peers/<script>.py`; `None`, and a line in the report, when its package is not installed.
    pub(crate) fn start(
        bench: &Bench,
        report: &mut Report,
        name: &'static str,
        script: &str,
    ) -> Result<Option<Self>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(script)
            .with_extension("py");
        let python = &bench.args.python;
        // A peer has the pages it asks for.
        small_pages(false);
        let spawned = Command::new(python)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        small_pages(true);
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                report.absent(format!(
                    "{name}: cannot start {}: {error}",
                    python.display()
                ));
                return Ok(None);
            }
        };
        let requests = child.stdin.take();
        let answers = child.stdout.take().ok_or("a peer without output")?;
        let mut peer = Self {
            name,
            child,
            requests,
            answers: BufReader::new(answers),
        };
        let hello = peer.answer()?;
        if let Some(install) = hello["absent"].as_str() {
            report.absent(format!("{name}: {install}"));
            return Ok(None);
        }
        report.took_part(hello["ready"].as_str().unwrap_or(name));
        Ok(Some(peer))
    }

    /// One request, one answer. `request` names the method of the peer as `op`, the rest are its arguments.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<Value> {
        let pipe = self.requests.as_mut().ok_or("a peer without input")?;
        writeln!(pipe, "{request}")?;
        pipe.flush()?;
        let answer = self.answer()?;
        match answer["error"].as_str() {
            Some(error) => Err(format!("{}: {}: {error}", self.name, request["op"]).into()),
            None => Ok(answer),
        }
    }

    /// A request whose answer is a time and a number of rows.
    pub(crate) fn time(&mut self, request: &Value) -> Result<(Sample, u64)> {
        let answer = self.ask(request)?;
        match (
            answer["seconds"].as_f64(),
            answer["cpu_seconds"].as_f64(),
            answer["rows"].as_u64(),
        ) {
            (Some(wall), Some(cpu), Some(rows)) => Ok((Sample { wall, cpu }, rows)),
            _ => Err(format!("{}: no time in {answer}", self.name).into()),
        }
    }

    /// Milliseconds of each of `count` single-row inserts, numbered from `first`.
    pub(crate) fn insert(&mut self, to: &Path, first: usize, count: usize) -> Result<Vec<f64>> {
        let answer =
            self.ask(&json!({"op": "insert", "to": to, "first": first, "count": count}))?;
        let millis = answer["millis"]
            .as_array()
            .ok_or_else(|| format!("{}: no times in {answer}", self.name))?;
        Ok(millis.iter().filter_map(Value::as_f64).collect())
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!(
                "{} ended before it answered; its message is above",
                self.name
            )
            .into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A peer ends when its input does; there is no one to tell if it does not end well.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

/// Whether this process has memory of 4 KiB at a time, as the program has. Those it starts begin with the same.
pub(crate) fn small_pages(small: bool) {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(small);
    #[cfg(not(target_os = "linux"))]
    let _ = small;
}
