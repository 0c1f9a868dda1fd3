//! Connections to Postgres.

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use telemetry::{gauges::Reading, metrics::Metrics};

use crate::schema;

/// How long a caller waits for a free connection, or for an absent server, before it gets an error.
pub const ACQUIRE_TIMEOUT_S: u64 = 5;
/// How long a transaction may stand open without a statement before the server ends it: its owner has died or hangs.
pub const IDLE_IN_TRANSACTION_TIMEOUT_S: u64 = 60;
/// How long an unused connection is kept.
const IDLE_TIMEOUT_S: u64 = 300;
/// How often [`wait_until_ready`] looks again.
const POLL_INTERVAL_MS: u64 = 250;

/// What one process wants of its connections.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Shown in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Most connections at the same time, at least 1.
    pub connections_max: u32,
    /// How long one statement may run, in milliseconds; 0 for no limit.
    pub statement_timeout_ms: u64,
}

/// `DATABASE_URL` cannot be used. The text does not repeat it, because it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("read the database URL")]
pub struct UrlError(#[source] sqlx::Error);

/// For connections whose every statement finds its rows by an index. The server keeps the plan of a prepared statement until the
/// table is analyzed. Made while the table was all but empty, that plan reads the whole table each time: over 34,000 rows three times
/// a second in a load of 1,200 orders a second, one minute after the first.
pub const BY_INDEX: [(&str, &str); 1] = [("enable_seqscan", "off")];

/// A pool that connects when it is first used, so an absent server is no error here. Its statements find their rows
/// [by an index](BY_INDEX).
pub fn open(database_url: &str, settings: PoolSettings) -> Result<PgPool, UrlError> {
    Ok(PgPoolOptions::new()
        .max_connections(settings.connections_max)
        .acquire_timeout(Duration::from_secs(ACQUIRE_TIMEOUT_S))
        .idle_timeout(Duration::from_secs(IDLE_TIMEOUT_S))
        .connect_lazy_with(connect_options(database_url, settings)?.options(BY_INDEX)))
}

/// Has `metrics` tell how many connections there are and are in use; in Postgres the pool is called by its [`PoolSettings::application_name`].
pub fn tell(pool: &PgPool, metrics: &Metrics) {
    let reading = |read: fn(&PgPool) -> usize| {
        let pool = pool.clone();
        Reading::count(move || read(&pool))
    };
    metrics.register(|registry| {
        let in_use = reading(|pool| (pool.size() as usize).saturating_sub(pool.num_idle()));
        registry.register("postgres_pool_connections_in_use", "Connections to Postgres that somebody works with", in_use);
        registry.register("postgres_pool_connections_idle", "Connections to Postgres that are free", reading(PgPool::num_idle));
        let help = "How many connections to Postgres there may be; who needs one more waits, and then gets an error";
        let limit = reading(|pool| pool.options().get_max_connections() as usize);
        registry.register("postgres_pool_connections_limit", help, limit);
    });
}

/// The options of a single connection outside a pool, with the same limits.
pub fn connect_options(database_url: &str, settings: PoolSettings) -> Result<PgConnectOptions, UrlError> {
    let options: PgConnectOptions = database_url.parse().map_err(UrlError)?;
    Ok(options.application_name(settings.application_name).options([
        ("statement_timeout", settings.statement_timeout_ms.to_string()),
        ("idle_in_transaction_session_timeout", (IDLE_IN_TRANSACTION_TIMEOUT_S * 1_000).to_string()),
        ("TimeZone", "UTC".to_owned()),
        // What it remarks beside that, for example that there was nothing to drop, looks like trouble in a log and is none.
        ("client_min_messages", "warning".to_owned()),
    ]))
}

/// One quick look for `/ready`: whether the server answers and has every table that this build needs. Else why not, in words for
/// an operator.
pub async fn check(pool: &PgPool) -> Result<(), String> {
    let applied: Result<Option<i64>, _> =
        sqlx::query_scalar("SELECT max(version) FROM contrail._sqlx_migrations WHERE success").fetch_one(pool).await;
    let needed = schema::version();
    match applied {
        Ok(Some(applied)) if applied >= needed => Ok(()),
        Ok(applied) => Err(format!(
            "the schema is at version {} and this build needs {needed}: run `projectors migrate`",
            applied.unwrap_or_default()
        )),
        Err(error) if is_missing(&error) => Err("the schema is not there yet: run `projectors migrate`".to_owned()),
        Err(sqlx::Error::PoolTimedOut) => Err(format!("no connection to Postgres within {ACQUIRE_TIMEOUT_S} s")),
        Err(error) => Err(format!("Postgres does not answer: {error}")),
    }
}

/// Waits, without end, until [`check`] finds nothing missing. `on_wait` is called with the reason whenever that changes.
pub async fn wait_until_ready(pool: &PgPool, mut on_wait: impl FnMut(&str)) {
    let mut last = String::new();
    while let Err(reason) = check(pool).await {
        if reason != last {
            on_wait(&reason);
            last = reason;
        }
        tokio::time::sleep(Duration::from_millis(POLL_INTERVAL_MS)).await;
    }
}

/// True if the statement failed because the server is away, starting, stopping or out of connections: the same statement may
/// succeed later.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // The protocol is violated by a connection that is cut off amid its greeting, as by a network that resets it.
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // Classes of SQLSTATE: 08 connection exception, 53 insufficient resources, 57P operator intervention.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["08", "53", "57P"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// `undefined_table` or `invalid_schema_name`.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "42P01" || code == "3F000")
}
