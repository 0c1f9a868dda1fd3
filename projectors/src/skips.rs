//! `projectors skip`: lets a halted projection go past the event that it stands before.
//!
//! Who skips says why, and that is kept. The event stays in the log and in the audit trail; what is lost is what it would have done to
//! one read model. Replays go past the same events, so that a rebuilt read model is the live one.

use std::collections::{BTreeMap, BTreeSet};

use read_store::projections::{self, ProjectionName};
use serde::Serialize;
use serde_json::json;
use sqlx::{PgExecutor, PgPool};
use telemetry::output::Output;

use crate::{checkpoints, failure::Failure, read_models::signed};

/// What was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// By which projection.
    pub projection: ProjectionName,
    /// The event.
    pub position: u64,
    /// Its type, as far as it could be read.
    pub event_type: Option<String>,
    /// Why it could not be applied.
    pub halt_reason: String,
    /// Why it need not be.
    pub reason: String,
}

/// Lets `name` go past the event that it stands before, which must be the one at `position` if that is given.
///
/// A running projector goes on within about a second. Fails with [`Failure::Conflict`] if the projection is not halted, or halted
/// elsewhere, or because the log lacks the event.
pub async fn skip(pool: &PgPool, name: ProjectionName, position: Option<u64>, reason: &str) -> Result<Skipped, Failure> {
    const DOING: &str = "skip an event";
    let mut transaction = pool.begin().await.map_err(Failure::postgres(DOING))?;
    // The projection's own transactions begin with the same lock.
    checkpoints::lock(&mut transaction, name).await.map_err(Failure::postgres(DOING))?;
    let projection = projections::one(&mut *transaction, name).await.map_err(Failure::postgres(DOING))?;
    let Some(halt) = projection.and_then(|projection| projection.halt) else {
        return Err(Failure::Conflict(format!("{name} is not halted: there is nothing to skip")));
    };
    if let Some(position) = position
        && position != halt.position
    {
        return Err(Failure::Conflict(format!("{name} stands before position {}, not {position}", halt.position)));
    }
    if checkpoints::is_without_event(&halt) {
        return Err(Failure::Conflict(format!(
            "{}: there is no event to go past, and nothing here can do without it",
            halt.reason
        )));
    }
    sqlx::query(
        "INSERT INTO contrail.skips (projection, position, event_type, halt_reason, reason) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (projection, position) DO NOTHING",
    )
    .bind(name.as_str())
    .bind(signed(halt.position))
    .bind(&halt.event_type)
    .bind(&halt.reason)
    .bind(reason)
    .execute(&mut *transaction)
    .await
    .map_err(Failure::postgres(DOING))?;
    sqlx::query(
        "UPDATE contrail.projections SET state = 'running', halt_position = NULL, halt_event_type = NULL, halt_reason = NULL, \
         halted_at = NULL, updated_at = now() WHERE name = $1",
    )
    .bind(name.as_str())
    .execute(&mut *transaction)
    .await
    .map_err(Failure::postgres(DOING))?;
    transaction.commit().await.map_err(Failure::postgres(DOING))?;
    let reason = reason.to_owned();
    Ok(Skipped { projection: name, position: halt.position, event_type: halt.event_type, halt_reason: halt.reason, reason })
}

/// The positions of every event that the projection skips.
pub(crate) async fn all(executor: impl PgExecutor<'_>, name: ProjectionName) -> Result<BTreeSet<u64>, sqlx::Error> {
    let skips: Vec<i64> = sqlx::query_scalar("SELECT position FROM contrail.skips WHERE projection = $1")
        .bind(name.as_str())
        .fetch_all(executor)
        .await?;
    Ok(skips.into_iter().map(i64::unsigned_abs).collect())
}

/// Those of `skips` at or before `position`.
pub(crate) fn up_to(position: u64, skips: &BTreeSet<u64>) -> impl Iterator<Item = &u64> {
    skips.range(..=position)
}

/// How many events each projection skips; of one that skips none there is nothing.
pub(crate) async fn counts(executor: impl PgExecutor<'_>) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let counts: Vec<(String, i64)> =
        sqlx::query_as("SELECT projection, count(*) FROM contrail.skips GROUP BY projection").fetch_all(executor).await?;
    Ok(counts.into_iter().map(|(projection, count)| (projection, count.unsigned_abs())).collect())
}

/// What the command prints.
pub fn render(skipped: &Skipped, output: Output) -> String {
    match output {
        Output::Json => json!({ "skipped": skipped }).to_string(),
        Output::Table => {
            let event_type = skipped.event_type.as_deref().unwrap_or("unknown type");
            format!("{} goes past position {} ({event_type}): {}", skipped.projection, skipped.position, skipped.reason)
        }
    }
}
