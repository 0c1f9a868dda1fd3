//! The command line and the settings, from flags or from the environment.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use auth::{AuthFlags, AuthSettings};
use telemetry::settings::{self, Mistakes, SettingsError};
use telemetry::trace::settings::{TraceFlags, TraceSettings};

use crate::http::Policy;
use crate::limits::{MIN_POSITION_WAIT_MS_DEFAULT, MIN_POSITION_WAIT_MS_MAX};
use crate::operations::Operations;

/// Database connections for queries at most, unless set otherwise; two more watch the projections.
pub const DATABASE_CONNECTIONS_DEFAULT: u32 = 16;

/// GraphQL over the read models of Contrail.
#[derive(Debug, clap::Parser)]
#[command(name = "query-api", version)]
pub struct CommandLine {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of the server, not yet checked.
    #[command(flatten)]
    pub flags: Flags,
}

/// What `query-api` can do besides serving.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Command {
    /// Print the GraphQL schema (SDL) on stdout and exit; needs no settings
    Schema,
}

/// The settings as they came in.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Postgres with the read models: postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Where to listen: host:port
    #[arg(long, env = "LISTEN_ADDR")]
    pub listen_addr: Option<String>,
    #[command(flatten)]
    pub auth: AuthFlags,
    /// How long `minPosition` waits for a read model, in milliseconds [default: 5000]
    #[arg(long, env = "MIN_POSITION_WAIT_MS")]
    pub min_position_wait_ms: Option<String>,
    /// Execute only the operations of this file: an object of queries by id, or an Apollo persisted query manifest
    #[arg(long, env = "OPERATIONS_FILE")]
    pub operations_file: Option<String>,
    /// Whether the schema may be asked for: true or false [default: true]
    #[arg(long, env = "INTROSPECTION")]
    pub introspection: Option<String>,
    /// Database connections for queries at most [default: 16]
    #[arg(long, env = "DATABASE_CONNECTIONS")]
    pub database_connections: Option<String>,
    /// After SIGTERM: go on answering for so many milliseconds, 10000 at most, until balancers know [default: 1000]
    #[arg(long, env = "DRAIN_LINGER_MS")]
    pub drain_linger_ms: Option<String>,
    #[command(flatten)]
    pub traces: TraceFlags,
}

/// Settings that are complete and consistent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the read models are. Holds a password.
    pub database_url: String,
    /// Where to listen.
    pub listen_addr: SocketAddr,
    /// How callers are checked.
    pub auth: AuthSettings,
    /// How long `minPosition` waits.
    pub min_position_wait: Duration,
    /// What may be asked for.
    pub policy: Policy,
    /// Database connections for queries at most.
    pub database_connections: u32,
    /// See [`telemetry::http::serve_and_linger`].
    pub drain_linger: Duration,
    /// Where traces go, if they are recorded.
    pub traces: Option<TraceSettings>,
}

impl Flags {
    /// Checks every setting and returns them, or all mistakes at once.
    pub fn check(self) -> Result<Settings, SettingsError> {
        let mut mistakes = Mistakes::new();
        let database_url = mistakes.required("DATABASE_URL", self.database_url, settings::postgres_url);
        let listen_addr = mistakes.required("LISTEN_ADDR", self.listen_addr, settings::listen_addr);
        let auth = self.auth.check(listen_addr, &mut mistakes);
        let min_position_wait_ms =
            mistakes.optional("MIN_POSITION_WAIT_MS", self.min_position_wait_ms, MIN_POSITION_WAIT_MS_DEFAULT, |value| {
                number_within(value, 0, MIN_POSITION_WAIT_MS_MAX)
            });
        let operations = mistakes
            .optional("OPERATIONS_FILE", self.operations_file, Operations::any(), |file| Operations::listed(Path::new(file)));
        let introspection = mistakes.optional("INTROSPECTION", self.introspection, true, settings::bool_flag);
        let database_connections =
            mistakes.optional("DATABASE_CONNECTIONS", self.database_connections, DATABASE_CONNECTIONS_DEFAULT, |value| {
                number_within(value, 1, 1_000).and_then(|number| u32::try_from(number).map_err(|error| error.to_string()))
            });
        let drain_linger =
            mistakes.optional("DRAIN_LINGER_MS", self.drain_linger_ms, settings::DRAIN_LINGER_DEFAULT, settings::drain_linger);
        let traces = self.traces.check(&mut mistakes);
        telemetry::logs::check_filter(&mut mistakes);
        mistakes.finish()?;
        let present = "finish() refuses a missing setting";
        Ok(Settings {
            database_url: database_url.expect(present),
            listen_addr: listen_addr.expect(present),
            auth,
            min_position_wait: Duration::from_millis(min_position_wait_ms),
            policy: Policy { operations, introspection },
            database_connections,
            drain_linger,
            traces,
        })
    }
}

fn number_within(value: &str, min: u64, max: u64) -> Result<u64, String> {
    let number = settings::number::<u64>(value)?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(format!("must be {min} to {max}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right() -> Flags {
        Flags {
            database_url: Some("postgres://127.0.0.1:5432/contrail".to_owned()),
            listen_addr: Some("127.0.0.1:0".to_owned()),
            auth: AuthFlags { auth_disabled: Some("true".to_owned()), ..AuthFlags::default() },
            ..Flags::default()
        }
    }

    #[test]
    fn every_mistake_is_listed_at_once() {
        let flags = Flags { min_position_wait_ms: Some("16000".to_owned()), ..Flags::default() };
        let error = flags.check().expect_err("four mistakes").to_string();
        for name in ["DATABASE_URL: missing", "LISTEN_ADDR: missing", "AUTH_JWKS: missing", "MIN_POSITION_WAIT_MS: must be"] {
            assert!(error.contains(name), "{name} is not in {error}");
        }
    }

    #[test]
    fn a_list_of_operations_that_is_none_is_a_mistake() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), r#"{"p": "{ a"}"#).expect("it is written");
        let path = file.path().to_str().expect("a name in UTF-8").to_owned();
        let flags = Flags { operations_file: Some(path), introspection: Some("maybe".to_owned()), ..right() };
        let error = flags.check().expect_err("two mistakes").to_string();
        for wrong in ["OPERATIONS_FILE: the operation \"p\" cannot be executed", "INTROSPECTION: must be true or false"] {
            assert!(error.contains(wrong), "{wrong} is not in {error}");
        }
        let missing = Flags { operations_file: Some("/nowhere/at/all".to_owned()), ..right() };
        assert!(missing.check().expect_err("a mistake").to_string().contains("OPERATIONS_FILE: cannot be read"));
    }

    #[test]
    fn without_authentication_only_a_loopback_address_is_served() {
        let flags = Flags { listen_addr: Some("0.0.0.0:8081".to_owned()), ..right() };
        assert!(flags.check().expect_err("a mistake").to_string().contains("LISTEN_ADDR: must be a loopback address"));
        assert!(right().check().is_ok());
    }
}
