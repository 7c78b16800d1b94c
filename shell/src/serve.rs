//! `selvedge serve`: starts the server crate over one lake and drains it at the end.

use std::io;
use std::process;

use selvedge_engine::Engine;
use selvedge_server::{Server, ServerOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Serve;
use crate::exit::Exit;
use crate::run::note;

/// Serves until ctrl-c or SIGTERM, then lets running statements end. A second ctrl-c does not wait for them.
pub(crate) async fn serve(engine: Engine, job: &Serve) -> Exit {
    // Before anybody is told that it listens: a supervisor may ask it to stop at once.
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            note(&format!("error: cannot wait for signals: {error}"));
            return Exit::Io;
        }
    };
    let mut options = ServerOptions::default();
    options.address = job.flight;
    let server = match Server::bind(engine, options).await {
        Ok(server) => server,
        Err(error) => {
            note(&format!("error: {error}"));
            return Exit::Io;
        }
    };
    if !job.quiet {
        note(&format!("listening on grpc://{}", server.local_addr()));
    }
    match server.serve(signals.stop()).await {
        Ok(()) => Exit::Ok,
        Err(error) => {
            note(&format!("error: {error}"));
            Exit::Io
        }
    }
}

/// What asks a server to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Ends when the server is asked to stop; whoever then presses ctrl-c does not want to wait.
    async fn stop(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        tokio::spawn(async move {
            if self.interrupt.recv().await.is_some() {
                process::exit(Exit::Interrupted as i32);
            }
        });
    }
}
