//! A stored event as `cqrs_es` hands it to a view.

use std::collections::HashMap;

use cqrs_es::{Aggregate, EventEnvelope};
use domain::{DecodeError, EventPayload, envelope::StoredEvent};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Key of [`EventEnvelope::metadata`]: the event's place in the log, in decimal.
pub const POSITION: &str = "position";
/// Key of [`EventEnvelope::metadata`]: when the event was appended, as in RFC 3339.
pub const TIME: &str = "time";

/// The envelope of `event`, which stands at `position` of the log, with [`POSITION`] and [`TIME`] in its metadata.
pub fn envelope<A>(position: u64, event: &StoredEvent) -> Result<EventEnvelope<A>, DecodeError>
where
    A: Aggregate,
    A::Event: EventPayload,
{
    let time = event.metadata.time.format(&Rfc3339).unwrap_or_default();
    Ok(EventEnvelope {
        aggregate_id: event.metadata.aggregate_id.clone(),
        sequence: usize::try_from(event.metadata.version).unwrap_or(usize::MAX),
        payload: event.decode()?,
        metadata: HashMap::from([(POSITION.to_owned(), position.to_string()), (TIME.to_owned(), time)]),
    })
}

/// What a view remembers of the last event that touched it.
pub(super) struct Touch {
    /// The aggregate's version after the event.
    pub(super) version: u64,
    position: Option<u64>,
    time: Option<OffsetDateTime>,
}

impl Touch {
    pub(super) fn of<A: Aggregate>(envelope: &EventEnvelope<A>) -> Self {
        Self {
            version: envelope.sequence as u64,
            position: envelope.metadata.get(POSITION).and_then(|text| text.parse().ok()),
            time: envelope.metadata.get(TIME).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()),
        }
    }

    /// Moves a view's position and time on; clocks of two machines may differ, so the time never goes back.
    pub(super) fn mark(&self, position: &mut u64, updated_at: &mut OffsetDateTime) {
        *position = self.position.unwrap_or_default().max(*position);
        *updated_at = self.time.unwrap_or(OffsetDateTime::UNIX_EPOCH).max(*updated_at);
    }
}
