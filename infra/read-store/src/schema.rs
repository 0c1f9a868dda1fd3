//! What the tables are called, and how they come to be.

use std::io;
use std::time::Duration;

use sqlx::{Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};
use tokio::time::timeout;

/// The schema of everything that queries read.
pub const SCHEMA: &str = "contrail";
/// One row per order, in the shape of `postgres_es::PostgresViewRepository`.
pub const ORDERS: &str = "contrail.orders";
/// One row per SKU, in the shape of `postgres_es::PostgresViewRepository`.
pub const INVENTORY: &str = "contrail.inventory";
/// One row per event of the log.
pub const AUDIT: &str = "contrail.audit";
/// The signed tree heads of the audit trail.
pub const AUDIT_CHECKPOINTS: &str = "contrail.audit_checkpoints";
/// One row per projection, see [`crate::projections`].
pub const PROJECTIONS: &str = "contrail.projections";

/// The events that projections were told to go past.
pub const SKIPS: &str = "contrail.skips";

/// How long Postgres may take to let us in.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Two processes that migrate at the same time must not both create the schema. Any number that nobody else uses.
const MIGRATE_LOCK: i64 = 0x636f_6e74_7261_696c;

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server is away or refuses the connection; see [`crate::pool::is_away`] of the source.
    #[error("connect to Postgres")]
    Connect(#[source] sqlx::Error),
    /// The schema could not be created.
    #[error("create the schema")]
    Create(#[source] sqlx::Error),
    /// The reader could not be given its rights; it may not exist.
    #[error("let the reader role read")]
    Grant(#[source] sqlx::Error),
    /// A migration failed, or one that was applied before is not what this build holds.
    #[error("migrate the schema")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

impl MigrateError {
    /// True if the same call may succeed later because only the server was away.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Connect(error)
            | Self::Create(error)
            | Self::Grant(error)
            | Self::Migrate(sqlx::migrate::MigrateError::Execute(error)) => crate::pool::is_away(error),
            Self::Migrate(_) => false,
        }
    }
}

/// Brings the schema up to date. Safe to repeat and to run twice at once. Needs a role that may create in the database.
///
/// The list of what was applied is kept in the schema itself, so dropping the schema leaves nothing behind.
pub async fn migrate(options: &PgConnectOptions) -> Result<(), MigrateError> {
    migrate_for(options, None, CONNECT_DEADLINE).await
}

/// As [`migrate`]; and `reader`, a role that exists, may read everything and nothing else, now and of all that is created later. Postgres is to
/// let us in within `connect_within`. What is begun then takes as long as it takes: broken off, a migration would begin anew the next time.
pub async fn migrate_for(options: &PgConnectOptions, reader: Option<&str>, connect_within: Duration) -> Result<(), MigrateError> {
    let options = options.clone().options([("search_path", SCHEMA), ("statement_timeout", "0")]);
    let connected = timeout(connect_within, PgConnection::connect_with(&options)).await;
    let connected = connected.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())));
    let mut connection = connected.map_err(MigrateError::Connect)?;
    let mut migrated = migrate_on(&mut connection).await;
    if let (Ok(()), Some(reader)) = (&migrated, reader) {
        migrated = let_read(&mut connection, reader).await.map_err(MigrateError::Grant);
    }
    // The lock ends with the connection, also when the goodbye is lost.
    let _ = connection.close().await;
    migrated
}

async fn migrate_on(connection: &mut PgConnection) -> Result<(), MigrateError> {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATE_LOCK).execute(&mut *connection).await.map_err(MigrateError::Create)?;
    sqlx::query("CREATE SCHEMA IF NOT EXISTS contrail").execute(&mut *connection).await.map_err(MigrateError::Create)?;
    MIGRATIONS.run_direct(connection).await.map_err(MigrateError::Migrate)
}

async fn let_read(connection: &mut PgConnection, reader: &str) -> Result<(), sqlx::Error> {
    let reader: String = sqlx::query_scalar("SELECT quote_ident($1)").bind(reader).fetch_one(&mut *connection).await?;
    // A replay builds its tables elsewhere and moves them here, so what they grant must not depend on where they begin.
    let grants = format!(
        "GRANT USAGE ON SCHEMA {SCHEMA} TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO {reader}; \
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}"
    );
    sqlx::raw_sql(&grants).execute(connection).await.map(drop)
}

/// The version of the last migration that this build holds.
pub fn version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}
