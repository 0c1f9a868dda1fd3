//! The thin [`cqrs_es::Aggregate`]: `decide` and `evolve`, nothing else.

use cqrs_es::{Aggregate, event_sink::EventSink};

use super::{Order, OrderCommand, OrderError, OrderEvent, decide};

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
