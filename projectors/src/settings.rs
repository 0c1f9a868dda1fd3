//! The settings of each command, read from flags and environment with every mistake listed.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
pub use event_store::{NatsAccess, NatsArgs};
use read_store::pool::PoolSettings;
use sqlx::{PgPool, postgres::PgConnectOptions};
use telemetry::{
    settings::{self, Mistakes, SettingsError},
    trace::settings::{TraceFlags, TraceSettings},
};

use crate::audit::key::Signer;

/// The name in logs, metrics and the lists of connections.
pub const SERVICE: &str = "projectors";

/// Two for each projection, one for `/ready`, and one for what `/metrics` tells of the tables.
const CONNECTIONS_MAX: u32 = 8;
/// A batch of events takes some milliseconds; what takes so long is stuck.
const STATEMENT_TIMEOUT_MS: u64 = 15_000;

/// Limits of the connections to Postgres while the projections run.
pub const POOL: PoolSettings =
    PoolSettings { application_name: SERVICE, connections_max: CONNECTIONS_MAX, statement_timeout_ms: STATEMENT_TIMEOUT_MS };

/// Limits of the connections of commands that read or rebuild whole tables.
pub const BULK_POOL: PoolSettings = PoolSettings { statement_timeout_ms: 0, ..POOL };

/// Where the read models are.
#[derive(Args, Clone, Debug, Default)]
pub struct DatabaseArgs {
    /// The Postgres database, for example postgres://contrail@127.0.0.1:5432/contrail
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl DatabaseArgs {
    /// A pool and the options of a connection of its own, or a mistake.
    pub fn required(self, limits: PoolSettings, mistakes: &mut Mistakes) -> Option<Database> {
        mistakes.required("DATABASE_URL", self.database_url, |url| {
            let url = settings::postgres_url(url)?;
            // The cause may repeat parts of the URL, which may hold a password.
            let wrong = |_| "not a URL that Postgres can be reached by".to_owned();
            let options = read_store::pool::connect_options(&url, limits).map_err(wrong)?;
            Ok(Database { pool: read_store::pool::open(&url, limits).map_err(wrong)?, options })
        })
    }

    /// The same if there is a URL.
    pub fn optional(self, limits: PoolSettings, mistakes: &mut Mistakes) -> Option<Database> {
        if self.database_url.is_none() { None } else { self.required(limits, mistakes) }
    }
}

/// The read models' database; nothing is connected yet.
#[derive(Clone, Debug)]
pub struct Database {
    /// Bounded, connects when first used.
    pub pool: PgPool,
    /// For a connection outside the pool.
    pub options: PgConnectOptions,
}

/// Whose signature the audit trail bears.
#[derive(Args, Clone, Debug, Default)]
pub struct KeyArgs {
    /// The Ed25519 private key that signs the audit trail, PKCS#8 in PEM; `projectors audit keygen` makes one
    #[arg(long, env = "AUDIT_KEY_FILE")]
    audit_key_file: Option<String>,
}

impl KeyArgs {
    /// The signer, or a mistake.
    pub fn required(self, mistakes: &mut Mistakes) -> Option<Signer> {
        mistakes.required("AUDIT_KEY_FILE", self.audit_key_file, |path| {
            Signer::from_file(&PathBuf::from(path)).map_err(|error| crate::read_models::chain(&error))
        })
    }

    /// The file, which must hold a key, or a mistake.
    pub fn required_file(self, mistakes: &mut Mistakes) -> Option<PathBuf> {
        let file = self.audit_key_file.clone().map(PathBuf::from);
        self.required(mistakes).and(file)
    }
}

/// What `run` needs.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// Where /health, /ready and /metrics are served, as host:port
    #[arg(long, env = "LISTEN_ADDR")]
    listen_addr: Option<String>,
    #[command(flatten)]
    traces: TraceFlags,
}

/// What `run` needs, checked.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// The log.
    pub nats_url: NatsAccess,
    /// The read models.
    pub database: Database,
    /// Signs the audit trail.
    pub signer: Signer,
    /// Where to listen.
    pub listen_addr: SocketAddr,
    /// Where traces go, if they are recorded.
    pub traces: Option<TraceSettings>,
}

impl RunArgs {
    /// Checks all of them.
    pub fn check(self) -> Result<RunSettings, SettingsError> {
        let mut mistakes = Mistakes::new();
        let nats_url = self.nats.required(&mut mistakes);
        let database = self.database.required(POOL, &mut mistakes);
        let listen_addr = mistakes.required("LISTEN_ADDR", self.listen_addr, settings::listen_addr);
        let signer = self.key.required(&mut mistakes);
        let traces = self.traces.check(&mut mistakes);
        telemetry::logs::check_filter(&mut mistakes);
        mistakes.finish()?;
        Ok(RunSettings {
            traces,
            nats_url: nats_url.expect(CHECKED),
            database: database.expect(CHECKED),
            signer: signer.expect(CHECKED),
            listen_addr: listen_addr.expect(CHECKED),
        })
    }
}

/// Why a required setting is there.
pub(crate) const CHECKED: &str = "Mistakes::finish refuses when a required setting is missing";
