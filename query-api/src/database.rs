//! Connections that can only read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use read_store::pool::{BY_INDEX, PoolSettings, UrlError, connect_options, is_away};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgPool};

use telemetry::trace::{self, Kind, Span};

use crate::error::QueryError;
use crate::limits::{CONNECTION_WAIT, STATEMENT_DEADLINE};

/// A connection that was used more recently than this is not asked whether it is still alive before it is used again.
const TRUSTED_WHEN_USED_WITHIN: Duration = Duration::from_millis(500);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// The database with the read models. Clones share its connections.
///
/// Whatever runs on them, the server refuses to write, even if the role could.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    lost: Lost,
}

/// When a connection was last found to be lost. Those that were used before that may be lost, too.
#[derive(Clone, Debug, Default)]
struct Lost(Arc<Mutex<Option<Instant>>>);

impl Lost {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn casts_doubt_on(&self, idle_for: Duration) -> bool {
        let lost = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lost.is_some_and(|lost| lost.elapsed() <= idle_for)
    }
}

impl Database {
    /// Connects when it is first used, so an absent server is no error here.
    pub fn open(database_url: &str, connections_max: u32) -> Result<Self, UrlError> {
        let statement_timeout_ms = u64::try_from(STATEMENT_DEADLINE.as_millis()).expect("a deadline of a few seconds");
        let settings = PoolSettings { application_name: "query-api", connections_max, statement_timeout_ms };
        let options = connect_options(database_url, settings)?
            // Every statement here is short; compiling one takes longer than running it.
            .options([("default_transaction_read_only", "on"), ("jit", "off")])
            .options(BY_INDEX);
        let lost = Lost::default();
        let known_lost = lost.clone();
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(CONNECTION_WAIT)
            .idle_timeout(IDLE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(move |connection, usage| {
                let is_trusted = usage.idle_for < TRUSTED_WHEN_USED_WITHIN && !known_lost.casts_doubt_on(usage.idle_for);
                Box::pin(async move {
                    if !is_trusted {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, lost })
    }

    /// The connections themselves.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs a statement. If its connection turns out to be lost, for instance because the server was restarted, it is run once
    /// more, on a connection that has proved to be alive.
    pub async fn read<T, F>(&self, statement: impl Fn(PgPool) -> F) -> Result<T, QueryError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let mut span = statement_span();
        let result = match statement(self.pool.clone()).await {
            Err(error) if is_lost(&error) => {
                self.lost.note();
                statement(self.pool.clone()).await
            }
            result => result,
        };
        if let Err(error) = &result {
            span.fail(error);
        }
        Ok(result?)
    }
}

/// The span of a statement that the current operation waits for, also where it shares that with others.
pub fn statement_span() -> Span {
    Span::after(Kind::Client, "SELECT", trace::current()).with("db.system.name", "postgresql").with("db.operation.name", "SELECT")
}

/// True if the connection broke, rather than that none could be had.
fn is_lost(error: &sqlx::Error) -> bool {
    is_away(error) && !matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
}
