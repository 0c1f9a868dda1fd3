//! What the process is told by flags and environment.

use std::{net::SocketAddr, time::Duration};

use clap::{Parser, Subcommand};
use event_store::CACHE_BYTES;
use telemetry::settings::{
    DRAIN_LINGER_DEFAULT, Mistakes, SettingsError, bool_flag, drain_linger, listen_addr, mebibytes, nats_url,
};

/// The command API of Contrail: HTTP in, events out.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// NATS server(s) that hold the log, for example nats://127.0.0.1:4222
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// host:port to listen on
    #[arg(long, env = "LISTEN_ADDR")]
    listen_addr: Option<String>,
    /// Must be true: callers are not asked who they are, so only this machine may call
    #[arg(long, env = "AUTH_DISABLED", num_args = 0..=1, default_missing_value = "true")]
    auth_disabled: Option<String>,
    /// Keys of callers' tokens; not supported yet
    #[arg(long, env = "AUTH_JWKS", hide = true, hide_env_values = true)]
    auth_jwks: Option<String>,
    /// MiB that the cache of aggregates may take [default: 64]
    #[arg(long, env = "AGGREGATE_CACHE_MIB")]
    aggregate_cache_mib: Option<String>,
    /// After SIGTERM: go on answering for so many milliseconds, 10000 at most, until balancers know [default: 1000]
    #[arg(long, env = "DRAIN_LINGER_MS")]
    drain_linger_ms: Option<String>,
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
    pub nats_url: String,
    /// Where to listen.
    pub listen_addr: SocketAddr,
    /// Memory that the cache of aggregates may take.
    pub aggregate_cache_bytes: usize,
    /// See [`telemetry::http::serve_and_linger`].
    pub drain_linger: Duration,
}

impl Arguments {
    /// What to do instead of serving, if anything.
    pub fn task(&self) -> Option<Task> {
        self.task
    }

    /// Checks everything, and lists everything that is wrong.
    pub fn settings(self) -> Result<Settings, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats_url = mistakes.required("NATS_URL", self.nats_url, nats_url);
        let listen_addr = mistakes.required("LISTEN_ADDR", self.listen_addr, listen_addr);
        let cache_bytes = mistakes.optional("AGGREGATE_CACHE_MIB", self.aggregate_cache_mib, CACHE_BYTES, mebibytes);
        let drain_linger = mistakes.optional("DRAIN_LINGER_MS", self.drain_linger_ms, DRAIN_LINGER_DEFAULT, drain_linger);
        let has_jwks = self.auth_jwks.is_some_and(|jwks| !jwks.trim().is_empty());
        if has_jwks {
            mistakes.add("AUTH_JWKS: is not supported yet; leave it out and set AUTH_DISABLED=true");
        }
        match self.auth_disabled.as_deref().map(str::trim).filter(|value| !value.is_empty()).map(bool_flag) {
            Some(Ok(true)) => {}
            Some(Err(mistake)) => mistakes.add(format!("AUTH_DISABLED: {mistake}")),
            None | Some(Ok(false)) if has_jwks => {}
            None | Some(Ok(false)) => mistakes.add("AUTH_DISABLED: must be true, because there is no key to check callers with"),
        }
        if listen_addr.is_some_and(|address| !address.ip().is_loopback()) {
            mistakes
                .add("LISTEN_ADDR: must be a loopback address such as 127.0.0.1:8080, because callers are not asked who they are");
        }
        mistakes.finish()?;
        Ok(Settings {
            nats_url: nats_url.expect("finish() refuses a missing setting"),
            listen_addr: listen_addr.expect("finish() refuses a missing setting"),
            aggregate_cache_bytes: cache_bytes,
            drain_linger,
        })
    }
}
