//! Sets the timers.

use std::{collections::HashMap, time::Duration};

use domain::{
    DecodeError, OrderId,
    envelope::{StoredEvent, StoredEventRef},
    order::OrderEvent,
};
use event_store::{AppendError, Beginning, Sharing, Timer, WorkItem, WorkQueueOptions, WorkSource};
use tokio::time::Instant;

use super::{Deadlines, PURPOSE};
use crate::{
    clock,
    dead_letters::{self, chain},
    reactor::{ACK_WAIT, Reactor as _, Surroundings},
};

/// Where the events come from that tell whether an order is paid.
pub const WATCHED: WorkSource = WorkSource::Log(&["order"]);
/// The event with which the customer's time to pay begins.
pub(super) const STOCK_RESERVED: &str = "contrail.order.stock_reserved.v1";
/// What ends it.
const ENDS: [&str; 2] = ["contrail.order.confirmed.v1", "contrail.order.cancelled.v1"];

/// How long an order has to be unpaid before a timer is set for it. Until then its event is held, unacknowledged: well below [`ACK_WAIT`].
const GRACE: Duration = Duration::from_secs(2);
/// Pause after timers could not be set.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Events taken at once.
const BATCH_ITEMS_MAX: usize = 1_024;
/// Events held at most; of more than that, the oldest get their timers sooner.
const HELD_MAX: usize = 4_096;
/// Deliveries without acknowledgement: those that are held, and those on their way.
const IN_FLIGHT_MAX: i64 = 8_192;

/// Sets a timer for each order that is not paid at once, until the drain starts.
pub async fn watch(surroundings: Surroundings) {
    let Surroundings { store, drain, .. } = surroundings.clone();
    tokio::select! {
        () = drain.started() => return,
        () = store.wait_until_ready(|_| ()) => {}
    }
    let mut queue = store.work_queue(WorkQueueOptions {
        name: Deadlines::NAME,
        source: WATCHED,
        takes_redrives: false,
        beginning: Beginning::First,
        ack_wait: ACK_WAIT,
        in_flight_max: IN_FLIGHT_MAX,
        parked_max: 0,
        // The one who holds an order's event has to see how the order ends.
        sharing: Sharing::OneActive,
    });
    let mut held = Held { surroundings, by_order: HashMap::new() };
    loop {
        let items = tokio::select! {
            biased;
            () = drain.started() => break,
            () = held.until_unpaid() => Vec::new(),
            items = queue.next_batch(BATCH_ITEMS_MAX) => items,
        };
        for item in items {
            held.take(item).await;
        }
        if let Err(error) = held.set_timers().await {
            tracing::warn!(reactor = Deadlines::NAME, "set timers: {error}");
            held.in_progress().await;
            tokio::select! {
                () = drain.started() => break,
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }
    queue.close().await;
    for (_, waiting) in held.by_order {
        waiting.item.hand_back().await;
    }
}

/// Orders that may be paid any moment.
struct Held {
    surroundings: Surroundings,
    by_order: HashMap<String, Waiting>,
}

struct Waiting {
    item: WorkItem,
    timer: Timer,
    /// When the timer is set.
    until: Instant,
}

impl Held {
    async fn take(&mut self, item: WorkItem) {
        let metadata = match StoredEventRef::from_json(item.bytes()) {
            Ok(event) => event.metadata,
            Err(error) => return self.give_up(item, chain(&error)).await,
        };
        let (event_type, aggregate_type, order_id) = (metadata.event_type, metadata.aggregate_type, metadata.aggregate_id);
        if event_type == STOCK_RESERVED {
            let (timer, until) = match timer(&item) {
                Ok(timer) => timer,
                Err(error_chain) => return self.give_up(item, error_chain).await,
            };
            let position = item.position;
            let earlier = self.by_order.insert(timer.aggregate_id.clone(), Waiting { item, timer, until });
            // The same event again is not done before its timer is set. Another one is of somebody else than our allocator, and its timer is
            // replaced by this one's.
            if let Some(earlier) = earlier
                && earlier.item.position != position
            {
                earlier.item.done().await;
            }
            return;
        }
        // One that somebody has put elsewhere is no order's end.
        if ENDS.contains(&event_type.as_ref())
            && item.is_of(&aggregate_type, &order_id)
            && let Some(waiting) = self.by_order.remove(order_id.as_ref())
        {
            waiting.item.done().await;
        }
        if domain::is_known(&event_type) {
            return item.done().await;
        }
        let unknown = DecodeError::UnknownType { event_type: event_type.into_owned() };
        self.give_up(item, chain(&unknown)).await;
    }

    /// Completes when a timer has to be set; never, if nothing is held.
    async fn until_unpaid(&self) {
        match self.by_order.values().map(|waiting| waiting.until).min() {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// Sets timers for the orders that have been held for long enough, and lets go of them.
    async fn set_timers(&mut self) -> Result<(), AppendError> {
        let now = Instant::now();
        let mut unpaid: Vec<_> = self.by_order.values().collect();
        unpaid.sort_unstable_by_key(|waiting| waiting.until);
        let too_many = unpaid.len().saturating_sub(HELD_MAX);
        let overdue = unpaid.partition_point(|waiting| waiting.until <= now);
        let timers: Vec<_> = unpaid[..overdue.max(too_many)].iter().map(|waiting| waiting.timer.clone()).collect();
        if timers.is_empty() {
            return Ok(());
        }
        self.surroundings.store.set_timers(&timers).await?;
        self.surroundings.metrics.count(Deadlines::NAME, "timer_set", timers.len());
        for timer in timers {
            if let Some(waiting) = self.by_order.remove(&timer.aggregate_id) {
                waiting.item.done().await;
            }
        }
        Ok(())
    }

    async fn in_progress(&self) {
        for waiting in self.by_order.values() {
            waiting.item.in_progress().await;
        }
    }

    async fn give_up(&self, item: WorkItem, error_chain: Vec<String>) {
        let Surroundings { store, metrics, .. } = &self.surroundings;
        let attempts = item.deliveries;
        dead_letters::give_up(Deadlines::NAME, store, metrics, item, error_chain, attempts).await;
    }
}

/// The timer that brings the event of `item` back when the payment is due, and when to set it; or why there cannot be one.
fn timer(item: &WorkItem) -> Result<(Timer, Instant), Vec<String>> {
    let event = StoredEvent::from_json(item.bytes()).map_err(|error| chain(&error))?;
    let order_id = event.metadata.aggregate_id.clone();
    if !item.is_in_its_place(&event) {
        return Err(vec![format!("this event is not on the subject of order {order_id}")]);
    }
    // A timer for anything else could not be set, and with it none of those that are set together.
    order_id.parse::<OrderId>().map_err(|error| chain(&error))?;
    let OrderEvent::StockReserved(reserved) = event.decode().map_err(|error| chain(&error))? else {
        return Err(vec![format!("an event of type {STOCK_RESERVED} was expected")]);
    };
    let due_at = reserved.payment_due_at;
    // Whose time is short is not held for longer than that.
    let grace = Duration::try_from(due_at - clock::now()).unwrap_or_default().min(GRACE);
    let timer = Timer { purpose: PURPOSE, aggregate_id: order_id, due_at, position: item.position, event: item.stored() };
    Ok((timer, Instant::now() + grace))
}
