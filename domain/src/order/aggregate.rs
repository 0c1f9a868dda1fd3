//! The thin [`cqrs_es::Aggregate`]: `decide` and `evolve`, nothing else.

use cqrs_es::{Aggregate, event_sink::EventSink};

use super::{Line, Order, OrderCommand, OrderError, OrderEvent, Placement, decide};
use crate::SnapshotState;

impl Aggregate for Order {
    const TYPE: &'static str = "order";

    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = OrderError;
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

impl SnapshotState for Order {
    const SNAPSHOT_VERSION: u32 = 1;

    fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.requests.approximate_bytes() + self.placement.as_ref().map_or(0, placement_bytes)
    }
}

fn placement_bytes(placement: &Placement) -> usize {
    // A SKU's text is short, and an allocation of its own.
    const SKU_BYTES: usize = 32;
    let customer = &placement.customer;
    let texts = customer.id.as_str().len() + customer.email.len() + customer.name.len() + placement.payment_method.len();
    texts + placement.lines.len() * (size_of::<Line>() + SKU_BYTES)
}
