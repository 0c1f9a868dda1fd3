//! What the process is told by flags and environment.

use std::{net::SocketAddr, time::Duration};

use auth::{AuthFlags, AuthSettings};
use clap::{Parser, Subcommand};
use event_store::{CACHE_BYTES, NatsAccess, NatsArgs};
use telemetry::{
    settings::{DRAIN_LINGER_DEFAULT, Mistakes, SettingsError, drain_linger, listen_addr, mebibytes},
    trace::settings::{TraceFlags, TraceSettings},
};

/// The command API of Contrail: HTTP in, events out.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(flatten)]
    nats: NatsArgs,
    /// host:port to listen on
    #[arg(long, env = "LISTEN_ADDR")]
    listen_addr: Option<String>,
    #[command(flatten)]
    auth: AuthFlags,
    /// MiB that the cache of aggregates may take [default: 64]
    #[arg(long, env = "AGGREGATE_CACHE_MIB")]
    aggregate_cache_mib: Option<String>,
    /// After SIGTERM: go on answering for so many milliseconds, 10000 at most, until balancers know [default: 1000]
    #[arg(long, env = "DRAIN_LINGER_MS")]
    drain_linger_ms: Option<String>,
    #[command(flatten)]
    traces: TraceFlags,
    #[command(subcommand)]
    task: Option<Task>,
}

/// What to do instead of serving.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Task {
    /// Print the OpenAPI document
    Openapi,
}

/// Everything the service needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    /// Where the log is.
    pub nats: NatsAccess,
    /// Where to listen.
    pub listen_addr: SocketAddr,
    /// How callers are checked.
    pub auth: AuthSettings,
    /// Memory that the cache of aggregates may take.
    pub aggregate_cache_bytes: usize,
    /// See [`telemetry::http::serve_and_linger`].
    pub drain_linger: Duration,
    /// Where traces go, if they are recorded.
    pub traces: Option<TraceSettings>,
}

impl Arguments {
    /// What to do instead of serving, if anything.
    pub fn task(&self) -> Option<Task> {
        self.task
    }

    /// Checks everything, and lists everything that is wrong.
    pub fn settings(self) -> Result<Settings, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats = self.nats.required(&mut mistakes);
        let listen_addr = mistakes.required("LISTEN_ADDR", self.listen_addr, listen_addr);
        let cache_bytes = mistakes.optional("AGGREGATE_CACHE_MIB", self.aggregate_cache_mib, CACHE_BYTES, mebibytes);
        let drain_linger = mistakes.optional("DRAIN_LINGER_MS", self.drain_linger_ms, DRAIN_LINGER_DEFAULT, drain_linger);
        let auth = self.auth.check(listen_addr, &mut mistakes);
        let traces = self.traces.check(&mut mistakes);
        telemetry::logs::check_filter(&mut mistakes);
        mistakes.finish()?;
        Ok(Settings {
            nats: nats.expect("finish() refuses a missing setting"),
            listen_addr: listen_addr.expect("finish() refuses a missing setting"),
            auth,
            aggregate_cache_bytes: cache_bytes,
            drain_linger,
            traces,
        })
    }
}
