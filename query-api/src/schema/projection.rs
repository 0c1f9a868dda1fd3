//! How far the read models are.

use async_graphql::{Enum, SimpleObject};
use read_store::projections;
use time::OffsetDateTime;

use super::scalars::{Position, int};

/// A read model and how far it has followed the log.
#[derive(SimpleObject)]
pub(super) struct Projection {
    /// Which one: orders, inventory or audit.
    name: &'static str,
    /// The last event that is applied; 0 before the first.
    position: Position,
    /// The last event of the log, as far as the projector knows.
    head: Position,
    /// How many events of the log are not yet applied.
    lag: i32,
    /// Whether it goes on.
    state: ProjectionState,
    /// When it last moved or changed its state.
    updated_at: OffsetDateTime,
    /// Why it stands still, if it does.
    halt: Option<Halt>,
}

/// Whether a projection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "projections::ProjectionState")]
pub(super) enum ProjectionState {
    /// It applies events as they come.
    Running,
    /// It met an event that it cannot apply and stands before it until somebody acts.
    Halted,
}

/// Why a projection stands still.
#[derive(SimpleObject)]
pub(super) struct Halt {
    /// The event that could not be applied.
    position: Position,
    /// Its type, if that much could be read.
    event_type: Option<String>,
    /// What is wrong with it.
    reason: String,
    /// Since when.
    halted_at: OffsetDateTime,
}

impl From<projections::Projection> for Projection {
    fn from(projection: projections::Projection) -> Self {
        Self {
            name: projection.name.as_str(),
            position: Position(projection.position),
            head: Position(projection.head),
            lag: int(projection.lag()),
            state: projection.state.into(),
            updated_at: projection.updated_at,
            halt: projection.halt.map(|halt| Halt {
                position: Position(halt.position),
                event_type: halt.event_type,
                reason: halt.reason,
                halted_at: halt.at,
            }),
        }
    }
}
