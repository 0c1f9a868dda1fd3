//! Calls off orders that are not paid in time.
//!
//! The order's `payment_due_at` is decided when its stock is set aside. Two parts see to it: [`watch`] sets a timer for each order that
//! is not paid within a moment (most are, and cost nothing), and [`Deadlines`] is handed the event again when the timer is due. The
//! payments reactor, for its part, charges nothing that is overdue ([`domain::settlement`]).
//!
//! What happens when somebody pays at that very moment is decided by optimistic concurrency: either the order is confirmed and stays, or
//! it is called off and what was charged is given back.

mod watch;

use domain::{
    envelope::StoredEvent,
    order::{self, Order, OrderEvent},
    settlement,
};
use event_store::{ExecuteError, JetStreamEventStore, Loaded, WorkSource};

pub use self::watch::{WATCHED, watch};
use crate::{
    causation::{Identity, caused_by},
    clock,
    reactor::{Failure, News, Reactor, Surroundings},
};

const IDENTITY: Identity = Identity { source: "/contrail/deadlines", actor: "system:deadlines" };
/// What the timers are for.
const PURPOSE: &str = "payment";

/// The reactor that is handed what is due.
#[derive(Debug)]
pub struct Deadlines {
    store: JetStreamEventStore,
}

impl Deadlines {
    /// Calls off what the log says is not paid.
    pub fn new(surroundings: &Surroundings) -> Self {
        Self { store: surroundings.store.clone() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the payment is not due yet")]
struct NotDue;

impl Reactor for Deadlines {
    const NAME: &'static str = "deadlines";
    const SOURCE: WorkSource = WorkSource::Timers(PURPOSE);
    const CONCURRENCY: usize = 256;

    fn wants(&self, event_type: &str) -> bool {
        event_type == watch::STOCK_RESERVED
    }

    async fn handle(&self, event: &StoredEvent, _: News) -> Result<(), Failure> {
        let OrderEvent::StockReserved(reserved) = event.decode().map_err(Failure::permanent)? else { return Ok(()) };
        let now = clock::now();
        // The server's clock is ahead of ours, or somebody has the event handled again before its time.
        if now < reserved.payment_due_at {
            return Err(Failure::not_tried(NotDue));
        }
        let (context, _sending) = caused_by(&event.metadata, &IDENTITY, now);
        let decide = |loaded: &Loaded<Order>| order::decide(&loaded.aggregate, settlement::cancel_unpaid(now));
        match self.store.execute(&event.metadata.aggregate_id, &context, decide).await {
            // Shipped, rejected, never placed: whatever it is, nothing is left to be called off.
            Ok(_) | Err(ExecuteError::Rejected(_)) => Ok(()),
            Err(ExecuteError::Load(error)) => Err(Failure::of_load(error)),
            Err(error) => Err(Failure::transient(error)),
        }
    }
}
