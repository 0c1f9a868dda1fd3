//! What work queues have still to hand out, or to be told the end of: how far reactors are behind.

use async_nats::jetstream::{consumer, context::ConsumerInfoErrorKind, stream::RawMessageErrorKind};
use time::OffsetDateTime;

use crate::{JetStreamEventStore, ReadError, WorkSource};

/// What of a work queue is not done, over all instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Events that were not handed out yet.
    pub waiting: u64,
    /// Events that were handed out, and of which nobody has said that they are done.
    pub in_hand: u64,
    /// When the oldest of them was stored, by the server's clock; none if there are none.
    pub oldest: Option<OffsetDateTime>,
}

impl Backlog {
    /// Events that are not done.
    pub fn events(&self) -> u64 {
        self.waiting + self.in_hand
    }
}

impl JetStreamEventStore {
    /// The backlog of the queue of this name and source; none if nobody has ever opened it.
    ///
    /// Costs one request, and one more for each kind of aggregate if there is a backlog.
    pub async fn backlog(&self, name: &str, source: WorkSource) -> Result<Option<Backlog>, ReadError> {
        let unavailable = |error: &dyn std::error::Error| ReadError::Unavailable(error.to_string());
        let stream = self.connection.jetstream.get_stream_no_info(source.stream()).await.map_err(|error| unavailable(&error))?;
        let consumer::Info { num_pending: waiting, num_ack_pending, ack_floor, .. } = match stream.consumer_info(name).await {
            Ok(info) => info,
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        let mut backlog = Backlog { waiting, in_hand: num_ack_pending as u64, oldest: None };
        if backlog.events() > 0 {
            for subject in source.subjects() {
                // All up to the floor is done, so the first of the queue's after it is the oldest that is not.
                match stream.get_first_raw_message_by_subject(&subject, ack_floor.stream_sequence + 1).await {
                    Ok(message) => backlog.oldest = Some(backlog.oldest.map_or(message.time, |oldest| oldest.min(message.time))),
                    Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
                    Err(error) => return Err(unavailable(&error)),
                }
            }
        }
        Ok(Some(backlog))
    }
}
