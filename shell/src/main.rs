//! The `selvedge` program: SQL over a lake from the command line, a script or a terminal, and `serve`.
//!
//! ```text
//! arguments -> args (a checked Job) -> script (statements) -> run (session) -> render (stdout) | report (stderr)
//!                                   -> interactive         -> run
//!                                   -> serve
//! ```

mod args;
mod exit;
mod figures;
mod interactive;
mod interrupt;
mod progress;
mod render;
mod report;
mod run;
mod script;
mod serve;

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use selvedge_engine::{Engine, Settings};
use tokio::runtime::Runtime;

use args::{Job, Options, Streams};
use exit::Exit;
use interrupt::Interrupt;
use run::{Runner, note};
use script::Statements;

/// Many short-lived batches are made on many threads; the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    small_pages();
    let streams = Streams {
        stdin_is_terminal: io::stdin().is_terminal(),
        stdout_is_terminal: io::stdout().is_terminal(),
        width: run::terminal_width(),
    };
    let job = match args::parse(env::args_os(), streams) {
        Ok(job) => job,
        // Help and version are "errors" of clap that end with 0.
        Err(error) => error.exit(),
    };
    let settings = Settings::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.target_partitions)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => start(&runtime, settings, job).into(),
        Err(error) => {
            note(&format!("error: cannot start threads: {error}"));
            Exit::Io.into()
        }
    }
}

/// Has memory of 4 KiB at a time from the system, whatever the allocator asks for. Of pages of 2 MiB all is cleared when the
/// first byte is written: journals took half as much memory again with them, and queries were no faster.
fn small_pages() {
    // A system that does not know of it goes on as it was.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}

fn start(runtime: &Runtime, settings: Settings, job: Job) -> Exit {
    match job {
        Job::Script(options, sources) => {
            // Before the lake is touched: a script that is not there must not leave half of the work done.
            let opened: io::Result<Vec<_>> = sources.into_iter().map(Statements::open).collect();
            match opened {
                Ok(sources) => with_engine(runtime, settings, &options.lake, |engine| {
                    let mut runner = runner(runtime, engine, &options);
                    runtime.block_on(runner.scripts(sources, options.keep_going))
                }),
                Err(error) => {
                    note(&format!("error: {error}"));
                    Exit::Io
                }
            }
        }
        Job::Interactive(options) => with_engine(runtime, settings, &options.lake, |engine| {
            let mut runner = runner(runtime, engine, &options);
            interactive::talk(&mut runner, runtime.handle(), &options.lake, options.quiet)
        }),
        Job::Serve(job) => with_engine(runtime, settings, &job.lake, |engine| {
            runtime.block_on(serve::serve(engine.clone(), &job))
        }),
    }
}

fn runner(runtime: &Runtime, engine: &Engine, options: &Options) -> Runner {
    Runner::new(
        engine.session(),
        options,
        Interrupt::watch(runtime.handle()),
    )
}

/// Opens the lake, works, and waits for what the work has started behind it.
fn with_engine(
    runtime: &Runtime,
    settings: Settings,
    lake: &str,
    work: impl FnOnce(&Engine) -> Exit,
) -> Exit {
    let opened = runtime.block_on(Engine::builder(lake).settings(settings).open());
    match opened {
        Ok(engine) => {
            let exit = work(&engine);
            runtime.block_on(engine.settle());
            exit
        }
        Err(error) => {
            note(&format!("error: cannot open lake '{lake}': {error}"));
            Exit::Io
        }
    }
}
