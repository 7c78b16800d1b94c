//! From process start to a first answer.

use std::process::Command;

use crate::measure::{Sample, median, timed_child};
use crate::ours::text;
use crate::report::{Report, Unit};
use crate::{Bench, Result};

const NAME: &str = "cold";
const OURS: &str = "selvedge";

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let program = bench.program()?;
    let lake = bench.scratch("lake-cold");
    let lake = text(&lake)?;
    let start = |sql: &str| {
        let mut command = Command::new(&program);
        command.args([lake, "-c", sql]);
        command
    };
    timed_child(&mut start(
        "CREATE TABLE t (id BIGINT); INSERT INTO t VALUES (1)",
    ))?;

    // DuckDB's own program is not in a package registry: its library in Python stands for it, and an
    // interpreter that does nothing says how much of that is Python.
    let python = |code: &str| {
        let mut command = Command::new(&bench.args.python);
        command.args(["-c", code]);
        command
    };
    let mut systems = vec![
        ("select 1", OURS, start("select 1")),
        ("one table", OURS, start("select * from t")),
    ];
    if timed_child(&mut python("pass")).is_err() {
        report.absent(format!(
            "python: cannot start {}",
            bench.args.python.display()
        ));
    } else {
        systems.push(("select 1", "python alone", python("pass")));
        if timed_child(&mut python("import duckdb")).is_ok() {
            systems.push((
                "select 1",
                "python + duckdb",
                python("import duckdb; duckdb.sql('select 1').fetchall()"),
            ));
        } else {
            report.absent("duckdb: pip install duckdb".into());
        }
    }

    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); systems.len()];
    for round in 0..=bench.args.starts {
        for ((_, _, command), samples) in systems.iter_mut().zip(&mut samples) {
            let sample = timed_child(command)?;
            // The first round warms up.
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    for ((case, system, _), samples) in systems.iter().zip(&samples) {
        let millis = |of: fn(&Sample) -> f64| {
            samples
                .iter()
                .map(|sample| of(sample) * 1e3)
                .collect::<Vec<_>>()
        };
        let cpu = millis(|sample| sample.cpu);
        if (*case, *system) == ("select 1", OURS) {
            report.target("cold_cpu_ms", 60.0, median(&cpu));
        }
        report.numbers(NAME, &format!("{case}, cpu"), system, Unit::Millis, cpu);
        report.numbers(
            NAME,
            &format!("{case}, wall"),
            system,
            Unit::Millis,
            millis(|sample| sample.wall),
        );
    }
    Ok(())
}
