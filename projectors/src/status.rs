//! `projectors status`: how far each projection is.

use std::time::Duration;

use comfy_table::{Table, presets};
use event_store::JetStreamEventStore;
use read_store::projections::{self, Projection};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use telemetry::output::Output;
use time::format_description::well_known::Rfc3339;
use tracing::warn;

use crate::{
    failure::Failure,
    settings::{NatsAccess, SERVICE},
    skips,
};

/// How long the log may take to say how far it is; after that the projectors' own last look counts.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// A projection, and what it goes past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How far it is.
    #[serde(flatten)]
    pub projection: Projection,
    /// How many events it skips, because somebody has decided so.
    pub skipped: u64,
}

/// Every projection; with `nats`, measured against the log as it is now.
pub async fn status(pool: &PgPool, nats: Option<&NatsAccess>) -> Result<Vec<Status>, Failure> {
    let all = projections(pool, nats).await?;
    let skips = skips::counts(pool).await.map_err(Failure::postgres("read the skipped events"))?;
    let skipped = |projection: &Projection| skips.get(projection.name.as_str()).copied().unwrap_or_default();
    Ok(all.into_iter().map(|projection| Status { skipped: skipped(&projection), projection }).collect())
}

async fn projections(pool: &PgPool, nats: Option<&NatsAccess>) -> Result<Vec<Projection>, Failure> {
    let mut all = projections::all(pool).await.map_err(Failure::postgres("read the projections"))?;
    let Some(nats) = nats else { return Ok(all) };
    match tokio::time::timeout(HEAD_TIMEOUT, head(nats)).await {
        Ok(Ok(head)) => all.iter_mut().for_each(|projection| projection.head = head.max(projection.position)),
        Ok(Err(failure)) => return Err(failure),
        Err(_) => warn!("the log does not answer: lag is what the projectors saw last"),
    }
    Ok(all)
}

async fn head(nats: &NatsAccess) -> Result<u64, Failure> {
    let store = JetStreamEventStore::connect(nats, SERVICE).await.map_err(Failure::other("connect to NATS"))?;
    store.wait_until_ready(|_| {}).await;
    store.head().await.map_err(Failure::log("ask the log how far it is"))
}

/// What the command prints.
pub fn render(statuses: &[Status], output: Output) -> String {
    match output {
        Output::Json => {
            let rows: Vec<_> = statuses.iter().map(json_row).collect();
            json!({ "projections": rows }).to_string()
        }
        Output::Table => {
            let mut table = Table::new();
            table.load_preset(presets::UTF8_FULL_CONDENSED);
            table.set_header(["projection", "position", "head", "lag", "state", "skipped", "updated", "halt"]);
            for Status { projection, skipped } in statuses {
                let halt = projection.halt.as_ref().map_or_else(String::new, |halt| {
                    let event_type = halt.event_type.as_deref().unwrap_or("unknown type");
                    format!("at {} ({event_type}): {}", halt.position, halt.reason)
                });
                table.add_row([
                    projection.name.to_string(),
                    projection.position.to_string(),
                    projection.head.to_string(),
                    projection.lag().to_string(),
                    projection.state.as_str().to_owned(),
                    skipped.to_string(),
                    projection.updated_at.format(&Rfc3339).unwrap_or_default(),
                    halt,
                ]);
            }
            table.to_string()
        }
    }
}

fn json_row(status: &Status) -> serde_json::Value {
    let mut row = serde_json::to_value(status).expect("a projection has string keys and times of our clocks");
    row["lag"] = status.projection.lag().into();
    row
}
