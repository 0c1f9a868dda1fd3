//! The thin [`cqrs_es::Aggregate`]: `decide` and `evolve`, nothing else.

use cqrs_es::{Aggregate, event_sink::EventSink};

use super::{Payment, PaymentCommand, PaymentError, PaymentEvent, decide};
use crate::SnapshotState;

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

impl SnapshotState for Payment {
    const SNAPSHOT_VERSION: u32 = 2;

    fn approximate_bytes(&self) -> usize {
        let capture = self.capture.as_ref().map_or(0, |capture| capture.payment_intent_id.len());
        let decline = self.decline.as_ref().map_or(0, |(code, message)| code.len() + message.len());
        let given_up = self.given_up.as_ref().map_or(0, |given_up| given_up.reason.len());
        size_of::<Self>() + capture + decline + given_up + self.refund_id.as_ref().map_or(0, String::len)
    }
}
