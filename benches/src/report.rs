//! What was measured, as a table for people, lines for a script and JSON for a file.

use std::fmt;

use selvedge_engine::Settings;
use serde::Serialize;

use crate::measure::{Sample, median};

/// Everything one run has measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    cores: usize,
    target_partitions: usize,
    memory_limit_bytes: usize,
    systems: Vec<String>,
    absent: Vec<String>,
    series: Vec<Series>,
    targets: Vec<Target>,
}

/// Samples of one system at one case of one workload.
#[derive(Debug, Serialize)]
struct Series {
    workload: &'static str,
    case: String,
    system: &'static str,
    unit: Unit,
    median: f64,
    samples: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_median_s: Option<f64>,
}

/// What the numbers of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Millions of bytes.
    #[serde(rename = "MB")]
    Megabytes,
}

/// A number that must not be exceeded.
#[derive(Debug, Serialize)]
struct Target {
    name: String,
    limit: f64,
    value: f64,
    ok: bool,
}

impl Report {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            target_partitions: settings.target_partitions,
            memory_limit_bytes: settings.memory_limit_bytes,
            systems: Vec::new(),
            absent: Vec::new(),
            series: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Keeps which version of a peer took part.
    pub(crate) fn took_part(&mut self, version: &str) {
        if !self.systems.iter().any(|known| known == version) {
            self.systems.push(version.to_owned());
        }
    }

    /// Keeps that a peer did not take part, and what would change that.
    pub(crate) fn absent(&mut self, what: String) {
        if !self.absent.contains(&what) {
            self.absent.push(what);
        }
    }

    /// Keeps the times of a case. The first system named in a workload is the one that ratios refer to.
    pub(crate) fn times(
        &mut self,
        workload: &'static str,
        case: &str,
        system: &'static str,
        samples: &[Sample],
    ) {
        let cpu: Vec<f64> = samples.iter().map(|sample| sample.cpu).collect();
        let wall = samples.iter().map(|sample| sample.wall).collect();
        self.keep(
            workload,
            case,
            system,
            Unit::Seconds,
            wall,
            Some(median(&cpu)),
        );
    }

    /// Keeps plain numbers of a case.
    pub(crate) fn numbers(
        &mut self,
        workload: &'static str,
        case: &str,
        system: &'static str,
        unit: Unit,
        samples: Vec<f64>,
    ) {
        self.keep(workload, case, system, unit, samples, None);
    }

    fn keep(
        &mut self,
        workload: &'static str,
        case: &str,
        system: &'static str,
        unit: Unit,
        samples: Vec<f64>,
        cpu_median_s: Option<f64>,
    ) {
        self.series.push(Series {
            workload,
            case: case.to_owned(),
            system,
            unit,
            median: median(&samples),
            samples,
            cpu_median_s,
        });
    }

    /// The sum of the medians of all cases of a system.
    pub(crate) fn total(&self, workload: &str, system: &str) -> f64 {
        self.of(workload)
            .filter(|series| series.system == system)
            .map(|series| series.median)
            .sum()
    }

    /// The median of one system at one case; not a number if it was not measured.
    pub(crate) fn median(&self, workload: &str, case: &str, system: &str) -> f64 {
        let mut found = self
            .of(workload)
            .filter(|series| series.case == case && series.system == system);
        found.next().map_or(f64::NAN, |series| series.median)
    }

    /// Keeps the verdict on a number.
    pub(crate) fn target(&mut self, name: impl Into<String>, limit: f64, value: f64) {
        self.targets.push(Target {
            name: name.into(),
            limit,
            value,
            // Not a number means that nothing was measured: that is no success.
            ok: value <= limit,
        });
    }

    fn of(&self, workload: &str) -> impl Iterator<Item = &Series> {
        self.series
            .iter()
            .filter(move |series| series.workload == workload)
    }

    fn table(&self, workload: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let systems = distinct(self.of(workload).map(|series| series.system));
        let cases = distinct(self.of(workload).map(|series| series.case.as_str()));
        let Some(first) = systems.first() else {
            return Ok(());
        };
        write!(f, "\n{workload:<22}")?;
        for system in &systems {
            write!(f, "{system:>24}")?;
        }
        writeln!(f)?;
        for case in &cases {
            let find = |system: &str| {
                self.of(workload)
                    .find(|series| series.case == *case && series.system == system)
            };
            let base = find(first).map(|series| series.median);
            write!(f, "{case:<22}")?;
            for system in &systems {
                let cell = find(system).map_or_else(
                    || "-".to_owned(),
                    |series| cell(series.median, series.unit, base),
                );
                write!(f, "{cell:>24}")?;
            }
            writeln!(f)?;
        }
        // A sum means something only where all cases are the same kind of work.
        if cases.len() > 1 && self.of(workload).all(|series| series.unit == Unit::Seconds) {
            let base = self.total(workload, first);
            write!(f, "{:<22}", "total")?;
            for system in &systems {
                write!(
                    f,
                    "{:>24}",
                    cell(self.total(workload, system), Unit::Seconds, Some(base))
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores", self.cores)?;
        for system in &self.systems {
            write!(f, ", {system}")?;
        }
        writeln!(f, "; medians, and ratios to the first column")?;
        for workload in distinct(self.series.iter().map(|series| series.workload)) {
            self.table(workload, f)?;
        }
        if !self.absent.is_empty() || !self.targets.is_empty() {
            writeln!(f)?;
        }
        for what in &self.absent {
            writeln!(f, "absent: {what}")?;
        }
        for Target {
            name,
            limit,
            value,
            ok,
        } in &self.targets
        {
            let verdict = if *ok { "ok" } else { "missed" };
            writeln!(f, "target {name} <= {limit}: {value:.2} {verdict}")?;
        }
        Ok(())
    }
}

fn cell(value: f64, unit: Unit, base: Option<f64>) -> String {
    let unit = match unit {
        Unit::Seconds => "s",
        Unit::Millis => "ms",
        Unit::Megabytes => "MB",
    };
    match base {
        Some(base) if base > 0.0 => format!("{value:.3} {unit} {:>6.2}x", value / base),
        _ => format!("{value:.3} {unit}        "),
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}
