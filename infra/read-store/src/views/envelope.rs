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

/// Which event of an aggregate it is, and where and when it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The aggregate's version after the event.
    pub version: u64,
    /// Its place in the log.
    pub position: u64,
    /// When it was appended.
    pub time: OffsetDateTime,
}

impl Stamp {
    pub(super) fn of<A: Aggregate>(envelope: &EventEnvelope<A>) -> Self {
        let position = envelope.metadata.get(POSITION).and_then(|text| text.parse().ok());
        let time = envelope.metadata.get(TIME).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        Self {
            version: envelope.sequence as u64,
            position: position.unwrap_or_default(),
            time: time.unwrap_or(OffsetDateTime::UNIX_EPOCH),
        }
    }

    /// Moves a view's position and time on; clocks of two machines may differ, so the time never goes back.
    pub(super) fn mark(&self, position: &mut u64, updated_at: &mut OffsetDateTime) {
        *position = self.position.max(*position);
        *updated_at = self.time.max(*updated_at);
    }
}
