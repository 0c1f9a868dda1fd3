//! The thin [`cqrs_es::Aggregate`]: `decide` and `evolve`, nothing else.

use cqrs_es::{Aggregate, event_sink::EventSink};

use super::{Notification, NotificationCommand, NotificationError, NotificationEvent, decide};
use crate::SnapshotState;

impl Aggregate for Notification {
    const TYPE: &'static str = "notification";

    type Command = NotificationCommand;
    type Event = NotificationEvent;
    type Error = NotificationError;
    type Services = ();

    async fn handle(&mut self, command: Self::Command, (): &(), sink: &EventSink<Self>) -> Result<(), Self::Error> {
        for event in decide(self, command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Self::Event) {
        self.evolve(&event);
    }
}

impl SnapshotState for Notification {
    const SNAPSHOT_VERSION: u32 = 1;

    fn approximate_bytes(&self) -> usize {
        size_of::<Self>()
    }
}
