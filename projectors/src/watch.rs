//! What `/metrics` says that only the tables know: which orders are open and since when, and how much of the audit trail is signed.
//!
//! Every instance looks for itself, which costs little however large the tables are: an index finds at most [`COUNTED_MAX`] orders of each
//! status, and two rows of the trail.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use read_store::schema::{AUDIT, AUDIT_CHECKPOINTS, ORDERS};
use sqlx::{PgConnection, PgPool};
use telemetry::{gauges::Age, metrics::Metrics};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// How often the tables are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Orders of one status that are counted at most. More are shown as so many.
pub const COUNTED_MAX: i64 = 10_000;
/// How long one of the looks may take, in milliseconds; a table that is just being replaced is looked at the next time.
const STATEMENT_TIMEOUT_MS: u64 = 1_000;
/// Where an order stands that something is still to happen to.
pub const OPEN: [&str; 4] = ["PLACED", "RESERVED", "CONFIRMED", "SHIPPED"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, Default)]
struct Figures {
    open: Family<StatusLabels, Gauge>,
    oldest: Family<StatusLabels, Age>,
    signed: Gauge,
    unsigned: Age,
}

/// Keeps the metrics true for as long as it is polled.
pub async fn watch(pool: PgPool, metrics: Metrics) {
    let figures = Figures::default();
    metrics.register(|registry| {
        let help = "Orders that something is still to happen to, by status; 10000 stands for that many or more";
        registry.register("orders_open", help, figures.open.clone());
        let help = "How long ago the oldest order of that status was placed; 0 if there is none";
        registry.register("orders_open_oldest_seconds", help, figures.oldest.clone());
        let help = "The last event that a signed checkpoint of the audit trail vouches for";
        registry.register("audit_signed_position", help, figures.signed.clone());
        let help = "How long ago the oldest event of the audit trail was appended that no signed checkpoint vouches for; 0 if all have one";
        registry.register("audit_unsigned_seconds", help, figures.unsigned.clone());
    });
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Err(error) = look(&pool, &figures).await {
            warn!(error = &error as &dyn std::error::Error, "cannot look at the tables for /metrics");
        }
    }
}

async fn look(pool: &PgPool, figures: &Figures) -> Result<(), sqlx::Error> {
    // The settings end with the transaction.
    let mut transaction = pool.begin().await?;
    sqlx::query(&format!("SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")).execute(&mut *transaction).await?;
    for status in OPEN {
        let (count, oldest) = open_orders(&mut transaction, status).await?;
        figures.open.get_or_create(&StatusLabels { status }).set(count);
        figures.oldest.get_or_create(&StatusLabels { status }).set(oldest.map(Into::into));
    }
    let sql = format!("SELECT coalesce(max(size), 0) FROM {AUDIT_CHECKPOINTS}");
    let signed: i64 = sqlx::query_scalar(&sql).fetch_one(&mut *transaction).await?;
    let sql = format!("SELECT time FROM {AUDIT} WHERE position = $1");
    let unsigned: Option<OffsetDateTime> = sqlx::query_scalar(&sql).bind(signed + 1).fetch_optional(&mut *transaction).await?;
    figures.signed.set(signed);
    figures.unsigned.set(unsigned.map(Into::into));
    transaction.rollback().await
}

/// How many orders have that status, up to [`COUNTED_MAX`], and when the oldest was placed.
async fn open_orders(connection: &mut PgConnection, status: &str) -> Result<(i64, Option<OffsetDateTime>), sqlx::Error> {
    // Backwards through the index on (status, placed_at DESC), which holds all that is asked for.
    let sql = format!(
        "SELECT count(*), min(placed_at) FROM \
         (SELECT placed_at FROM {ORDERS} WHERE status = $1 ORDER BY placed_at LIMIT {COUNTED_MAX}) AS oldest"
    );
    sqlx::query_as(&sql).bind(status).fetch_one(connection).await
}
