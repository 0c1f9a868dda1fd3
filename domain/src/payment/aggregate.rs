//! The thin [`cqrs_es::Aggregate`]: `decide` and `evolve`, nothing else.

use cqrs_es::{Aggregate, event_sink::EventSink};

use super::{Payment, PaymentCommand, PaymentError, PaymentEvent, decide};

impl Aggregate for Payment {
    const TYPE: &'static str = "payment";

    type Command = PaymentCommand;
    type Event = PaymentEvent;
    type Error = PaymentError;
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
