//! Measures the engine beside its peers in one run, taking turns, and prints ratios of medians.
//!
//! Only ratios travel from one machine to another: each workload names the system that is 1.00, and the
//! targets are ratios too, save the two that a user feels directly (milliseconds of a small write, of a start).
//!
//! ```text
//! data (generated once) -> workload (rounds in turn: ours, DataFusion, peers) -> report (table, targets, JSON)
//! ```
//!
//! A run that returns wrong rows fails: every workload compares what the systems answered.

#![expect(clippy::print_stdout, reason = "the table is the program's result")]

mod compare;
mod data;
mod deletes;
mod measure;
mod ours;
mod peers;
mod report;
mod workload;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use selvedge_engine::Settings;

use report::Report;

/// Whatever goes wrong ends the run and is told to the person who started it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// The 22 TPC-H queries.
    Tpch,
    /// Many rows into a new version.
    Bulk,
    /// One row at a time, each durable.
    Small,
    /// From process start to a first answer.
    Cold,
    /// Rows of a table deleted, updated and merged.
    Changes,
    /// Many rows into a new table, with rules and without.
    Quality,
    /// Many rows into a new table whose keys are to be forgotten, and a few keys forgotten at rest.
    Cleanse,
    /// A history that grows by days of changes.
    Journal,
}

/// Benchmarks of Selvedge beside its peers.
#[derive(Debug, Parser)]
struct Args {
    /// What to measure, in this order; all of them when none is named.
    workloads: Vec<Workload>,
    /// Rounds that count, after one that warms up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// TPC-H scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only these TPC-H queries.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=22))]
    queries: Vec<u8>,
    /// Rows of the wide table that is written at once, of the one whose rows are changed, and keys of the journal.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Single-row inserts.
    #[arg(long, default_value_t = 1_000)]
    inserts: usize,
    /// Process starts.
    #[arg(long, default_value_t = 21)]
    starts: usize,
    /// Days of changes that all systems take in turn.
    #[arg(long, default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    days: usize,
    /// Days of changes after them, for what upkeep costs.
    #[arg(long, default_value_t = 100)]
    long_days: usize,
    /// Where generated data is kept between runs and lakes are written; the default is beside the build.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Python interpreter that has the peers' packages.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The program whose start is measured; the default is the one built beside this runner.
    #[arg(long)]
    selvedge: Option<PathBuf>,
    /// Also writes every sample to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What every workload is handed.
struct Bench {
    args: Args,
    settings: Settings,
    /// Generated once, kept.
    data: PathBuf,
    /// Lakes and files of this run, removed at its end.
    scratch: tempfile::TempDir,
}

impl Bench {
    fn open(args: Args) -> Result<Self> {
        let data = match &args.data {
            Some(folder) => folder.clone(),
            None => beside_build()?.join("bench-data"),
        };
        std::fs::create_dir_all(&data)?;
        let data = data.canonicalize()?;
        let scratch = tempfile::tempdir_in(&data)?;
        Ok(Self {
            args,
            settings: Settings::default(),
            data,
            scratch,
        })
    }

    fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The `selvedge` program to start.
    fn program(&self) -> Result<PathBuf> {
        let program = match &self.args.selvedge {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("selvedge"),
        };
        if program.is_file() {
            Ok(program)
        } else {
            Err(format!(
                "no program {}: build it with `cargo build --release`, or name it with --selvedge",
                program.display()
            )
            .into())
        }
    }
}

/// The build's target folder: it is outside the sources and already ignored.
fn beside_build() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    match program.parent().and_then(Path::parent) {
        Some(folder) => Ok(folder.to_path_buf()),
        None => Err("cannot tell where to keep data: name a folder with --data".into()),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    peers::small_pages(true);
    let mut args = Args::parse();
    if args.workloads.is_empty() {
        args.workloads = Workload::value_variants().to_vec();
    }
    let bench = Bench::open(args)?;
    let mut report = Report::new(&bench.settings);
    for workload in &bench.args.workloads {
        match workload {
            Workload::Tpch => workload::tpch::run(&bench, &mut report).await?,
            Workload::Bulk => workload::bulk::run(&bench, &mut report).await?,
            Workload::Small => workload::small::run(&bench, &mut report).await?,
            Workload::Cold => workload::cold::run(&bench, &mut report).await?,
            Workload::Changes => workload::changes::run(&bench, &mut report).await?,
            Workload::Quality => workload::quality::run(&bench, &mut report).await?,
            Workload::Cleanse => workload::cleanse::run(&bench, &mut report).await?,
            Workload::Journal => workload::journal::run(&bench, &mut report).await?,
        }
    }
    print!("{report}");
    if let Some(path) = &bench.args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}
