//! The socket and the limits of gRPC; start and graceful stop.

use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use selvedge_engine::{Engine, Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::server::TcpIncoming;

use crate::service::Service;
use crate::sessions::Sessions;

/// Drivers pass unknown settings on as headers, and JDBC URLs have many.
const HEADER_LIST_BYTES: u32 = 64 << 10;

/// Load balancers drop connections that are silent for some minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// HTTP/2 windows: the defaults of 64 KiB would make a bulk stream wait for the other side all the time.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Where and how to serve.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether to listen beyond loopback although nothing is encrypted and nobody is asked for a password.
    pub insecure: bool,
    /// The largest message a client may send; a batch of an ingest is one.
    pub max_message_bytes: usize,
    /// Sessions open at the same time.
    pub max_sessions: usize,
    /// How long a session is kept without use.
    pub session_idle: Duration,
    /// How long running statements may take to end after the server was asked to stop.
    pub drain: Duration,
}

impl Default for ServerOptions {
    /// Any free port of loopback, with limits that are right for one machine.
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            insecure: false,
            max_message_bytes: 64 << 20,
            max_sessions: 1024,
            session_idle: Duration::from_secs(8 * 3600),
            drain: Duration::from_secs(30),
        }
    }
}

impl ServerOptions {
    /// The default limits, on `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            ..Self::default()
        }
    }
}

/// The Flight SQL server.
#[derive(Debug)]
pub struct Server;

/// A server that has its address and waits to [`serve`](BoundServer::serve).
pub struct BoundServer {
    engine: Engine,
    options: ServerOptions,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address. Clients can connect from now on and are answered once it serves.
    pub async fn bind(engine: Engine, options: ServerOptions) -> Result<BoundServer> {
        check(&options)?;
        let refused = |error: std::io::Error| {
            Error::new(
                ErrorKind::Invalid,
                format!("cannot listen on {}: {error}", options.address),
            )
            .with_hint("choose another address, or port 0 for any free port")
            .with_source(error)
        };
        let listener = TcpListener::bind(options.address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(BoundServer {
            engine,
            options,
            listener,
            address,
        })
    }
}

impl BoundServer {
    /// The address clients connect to, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` ends, then takes no new statement and waits for running ones, at most
    /// [`ServerOptions::drain`] long.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let Self {
            engine,
            options,
            listener,
            ..
        } = self;
        let service = Service::new(Sessions::new(engine.clone(), &options));
        let service = FlightServiceServer::new(service)
            .max_decoding_message_size(options.max_message_bytes)
            .max_encoding_message_size(usize::MAX);
        let (stopping, stopped) = oneshot::channel();
        let serving = tonic::transport::Server::builder()
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .add_service(service)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                async move {
                    shutdown.await;
                    // Nobody listens when serving has failed already.
                    let _ = stopping.send(());
                },
            );
        let deadline = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(options.drain).await,
                Err(_) => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = serving => outcome.map_err(|error| {
                Error::new(ErrorKind::Internal, format!("the server stopped: {error}"))
                    .with_source(error)
            }),
            () = deadline => {
                tracing::warn!(after = ?options.drain, "stopped with statements still running");
                Ok(())
            }
        };
        engine.settle().await;
        outcome
    }
}

impl fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundServer")
            .field("address", &self.address)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Refuses what would be unsafe or cannot work.
fn check(options: &ServerOptions) -> Result<()> {
    if !options.address.ip().is_loopback() && !options.insecure {
        return Err(Error::new(
            ErrorKind::Denied,
            format!(
                "will not listen on {}: it is not a loopback address",
                options.address
            ),
        )
        .with_detail("connections are not encrypted and no password is asked for")
        .with_hint(
            "listen on 127.0.0.1, or allow it with the insecure option in a network you trust",
        ));
    }
    if options.max_sessions == 0 {
        return Err(Error::new(
            ErrorKind::Invalid,
            "max_sessions = 0: must be at least 1",
        ));
    }
    if options.max_message_bytes < 4 << 20 {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "max_message_bytes = {}: must be at least {}",
                options.max_message_bytes,
                4 << 20
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(address: &str) -> ServerOptions {
        ServerOptions::new(address.parse().unwrap())
    }

    #[test]
    fn only_loopback_unless_told_otherwise() {
        for address in ["127.0.0.1:0", "127.3.2.1:80", "[::1]:0"] {
            assert!(check(&options(address)).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:80"] {
            let error = check(&options(address)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.message().contains(address));
            let mut allowed = options(address);
            allowed.insecure = true;
            assert!(check(&allowed).is_ok());
        }
    }

    #[test]
    fn limits_nobody_can_work_with_are_refused() {
        let mut none = options("127.0.0.1:0");
        none.max_sessions = 0;
        assert!(
            check(&none)
                .unwrap_err()
                .message()
                .contains("max_sessions = 0")
        );
        let mut small = options("127.0.0.1:0");
        small.max_message_bytes = 1;
        assert!(
            check(&small)
                .unwrap_err()
                .message()
                .contains("max_message_bytes = 1")
        );
    }
}
