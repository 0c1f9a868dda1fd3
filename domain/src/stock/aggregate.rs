//! The thin [`cqrs_es::Aggregate`]: `decide` and `evolve`, nothing else.

use cqrs_es::{Aggregate, event_sink::EventSink};

use super::{Stock, StockCommand, StockError, StockEvent, decide};
use crate::SnapshotState;

impl Aggregate for Stock {
    const TYPE: &'static str = "stock";

    type Command = StockCommand;
    type Event = StockEvent;
    type Error = StockError;
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

impl SnapshotState for Stock {
    const SNAPSHOT_VERSION: u32 = 1;

    fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.open.approximate_bytes() + self.requests.approximate_bytes()
    }
}
