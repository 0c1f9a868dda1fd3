//! How far each read model is: the rows of `contrail.projections`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sqlx::{PgExecutor, Row, postgres::PgRow};
use time::OffsetDateTime;

/// The read models. A new one goes to the end: the order is also that of the locks under which replays run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionName {
    /// [`crate::schema::ORDERS`].
    Orders,
    /// [`crate::schema::INVENTORY`].
    Inventory,
    /// [`crate::schema::AUDIT`].
    Audit,
}

impl ProjectionName {
    /// Every read model, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Orders, Self::Inventory, Self::Audit];

    /// As the table, the commands and the APIs write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for ProjectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProjectionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// Whether a projection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionState {
    /// It applies events as they come.
    Running,
    /// It met an event that it cannot decode or apply, and stands before it; see [`Projection::halt`].
    Halted,
}

impl ProjectionState {
    /// As the table and the commands write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Halted => "halted",
        }
    }
}

/// One row of `contrail.projections`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Projection {
    /// Which read model.
    pub name: ProjectionName,
    /// The last event that is applied; 0 before the first.
    pub position: u64,
    /// The last event of the log, as far as the projector has seen; about a second old at most while one runs.
    pub head: u64,
    /// Whether it goes on.
    pub state: ProjectionState,
    /// When the row last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Why it stands still, if it does.
    pub halt: Option<Halt>,
}

impl Projection {
    /// How many events of the log are not yet applied.
    pub fn lag(&self) -> u64 {
        self.head.saturating_sub(self.position)
    }
}

/// Why a projection stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Halt {
    /// The event that could not be applied.
    pub position: u64,
    /// Its type, if that much could be read.
    pub event_type: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

const COLUMNS: &str = "name, position, head, state, updated_at, halt_position, halt_event_type, halt_reason, halted_at";

/// Every projection, in the order of [`ProjectionName::ALL`]. Rows of read models that this build does not know are left out.
pub async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<Projection>, sqlx::Error> {
    let rows = sqlx::query(&format!("SELECT {COLUMNS} FROM contrail.projections")).fetch_all(executor).await?;
    let mut projections = rows.iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
    projections.retain(Option::is_some);
    let mut projections: Vec<_> = projections.into_iter().flatten().collect();
    projections.sort_by_key(|projection| projection.name);
    Ok(projections)
}

/// One projection; `None` only before the schema is migrated.
pub async fn one(executor: impl PgExecutor<'_>, name: ProjectionName) -> Result<Option<Projection>, sqlx::Error> {
    let row = sqlx::query(&format!("SELECT {COLUMNS} FROM contrail.projections WHERE name = $1"))
        .bind(name.as_str())
        .fetch_optional(executor)
        .await?;
    row.as_ref().map_or(Ok(None), from_row)
}

fn from_row(row: &PgRow) -> Result<Option<Projection>, sqlx::Error> {
    let Ok(name) = row.try_get::<&str, _>("name")?.parse() else { return Ok(None) };
    let state = match row.try_get("state")? {
        "halted" => ProjectionState::Halted,
        _ => ProjectionState::Running,
    };
    let halt = match (row.try_get("halt_position")?, row.try_get("halt_reason")?, row.try_get("halted_at")?) {
        (Some(position), Some(reason), Some(at)) => {
            Some(Halt { position: unsigned(position), event_type: row.try_get("halt_event_type")?, reason, at })
        }
        _ => None,
    };
    Ok(Some(Projection {
        name,
        position: unsigned(row.try_get("position")?),
        head: unsigned(row.try_get("head")?),
        state,
        updated_at: row.try_get("updated_at")?,
        halt,
    }))
}

/// Postgres has no unsigned integers; the columns hold none below zero.
fn unsigned(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}
