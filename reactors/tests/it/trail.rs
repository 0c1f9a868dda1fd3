//! The log as it grows, folded, and held against what must be true at every position (DESIGN §13).

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use domain::{
    EventPayload, OrderId, Sku,
    envelope::StoredEvent,
    notification::{Notification, NotificationEvent},
    order::{Order, OrderEvent, OrderStatus},
    payment::{Payment, PaymentEvent, PaymentStatus},
    stock::{Stock, StockEvent},
};
use event_store::{JetStreamEventStore, LogReader};
use tokio::time::{Instant, timeout_at};

use crate::{PATIENCE, shop};

pub(crate) struct Trail {
    reader: LogReader,
    /// Position and event of what can be read.
    pub(crate) events: Vec<(u64, StoredEvent)>,
    pub(crate) orders: BTreeMap<OrderId, Order>,
    pub(crate) payments: BTreeMap<OrderId, Payment>,
    pub(crate) stocks: BTreeMap<Sku, Stock>,
    pub(crate) notifications: BTreeMap<String, Notification>,
    versions: HashMap<(String, String), u64>,
    stories: HashMap<String, String>,
}

impl Trail {
    pub(crate) fn of(store: &JetStreamEventStore) -> Self {
        Self {
            reader: store.read_from(1),
            events: Vec::new(),
            orders: BTreeMap::new(),
            payments: BTreeMap::new(),
            stocks: BTreeMap::new(),
            notifications: BTreeMap::new(),
            versions: HashMap::new(),
            stories: HashMap::new(),
        }
    }

    /// Follows the log until `condition` holds.
    pub(crate) async fn until(&mut self, what: &str, condition: impl FnMut(&Self) -> bool) {
        self.until_within(PATIENCE, what, condition).await;
    }

    pub(crate) async fn until_within(&mut self, patience: Duration, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !condition(self) {
            let Ok(batch) = timeout_at(deadline, self.reader.next_batch(256)).await else {
                panic!("not within {patience:?}: {what}; orders are {:?}", self.statuses());
            };
            for message in batch.unwrap() {
                self.fold(message.position, &message.bytes);
            }
        }
    }

    /// Folds in what the log has by now.
    pub(crate) async fn catch_up(&mut self, store: &JetStreamEventStore) {
        let marker = shop::receive(store, "MARKER", 1).await;
        self.until("the end of the log", |trail| trail.events.last().is_some_and(|(position, _)| *position >= marker)).await;
    }

    pub(crate) fn status(&self, order_id: OrderId) -> Option<OrderStatus> {
        self.orders.get(&order_id)?.status
    }

    pub(crate) fn all_are(&self, order_ids: &[OrderId], status: OrderStatus) -> bool {
        order_ids.iter().all(|order_id| self.status(*order_id) == Some(status))
    }

    /// How many of `order_ids` have this status.
    pub(crate) fn count(&self, order_ids: &[OrderId], status: OrderStatus) -> usize {
        order_ids.iter().filter(|order_id| self.status(**order_id) == Some(status)).count()
    }

    pub(crate) fn payment_status(&self, order_id: OrderId) -> PaymentStatus {
        self.payments.get(&order_id).map_or(PaymentStatus::None, |payment| payment.status)
    }

    pub(crate) fn stock(&self, sku: &str) -> Stock {
        self.stocks.get(&sku.parse().unwrap()).cloned().unwrap_or_default()
    }

    /// Positions of the events of this type, which is given without prefix and version.
    pub(crate) fn positions_of(&self, event_type: &str) -> Vec<u64> {
        let event_type = format!("contrail.{event_type}.v1");
        let events = self.events.iter().filter(|(_, event)| event.metadata.event_type == event_type);
        events.map(|(position, _)| *position).collect()
    }

    fn statuses(&self) -> BTreeMap<&'static str, usize> {
        let mut statuses = BTreeMap::new();
        for order in self.orders.values() {
            *statuses.entry(order.status.map_or("none", OrderStatus::as_str)).or_default() += 1;
        }
        statuses
    }

    fn fold(&mut self, position: u64, bytes: &[u8]) {
        let Ok(event) = StoredEvent::from_json(bytes) else { return };
        if event.metadata.source == shop::POISON {
            // Whatever it is, that it was given up may be a consequence.
            let story = event.metadata.correlation_id.clone();
            self.stories.entry(event.metadata.event_id.to_string()).or_insert(story);
            return;
        }
        self.check_story(&event);
        let id = event.metadata.aggregate_id.as_str();
        match event.metadata.aggregate_type.as_str() {
            "order" => self.orders.entry(id.parse().unwrap()).or_default().evolve(&decode::<OrderEvent>(&event)),
            "payment" => self.payments.entry(id.parse().unwrap()).or_default().evolve(&decode::<PaymentEvent>(&event)),
            "notification" => {
                self.notifications.entry(id.to_owned()).or_default().evolve(&decode::<NotificationEvent>(&event));
            }
            "stock" => {
                let stock = self.stocks.entry(id.parse().unwrap()).or_default();
                stock.evolve(&decode::<StockEvent>(&event));
                let Stock { on_hand, reserved, open, .. } = stock;
                assert!(0 <= *reserved && *reserved <= *on_hand, "{id} at position {position}: {reserved} of {on_hand} reserved");
                assert_eq!(open.values().sum::<i64>(), *reserved, "{id} at position {position}: open reservations");
                assert!(open.values().all(|quantity| *quantity > 0), "{id} at position {position}: {open:?}");
            }
            other => panic!("an event of aggregate type {other}"),
        }
        self.events.push((position, event));
    }

    /// Versions have no gap; whatever a reactor appends belongs to the story of an event that was there before.
    fn check_story(&mut self, event: &StoredEvent) {
        let metadata = &event.metadata;
        let version = self.versions.entry((metadata.aggregate_type.clone(), metadata.aggregate_id.clone())).or_default();
        *version += 1;
        assert_eq!(metadata.version, *version, "{metadata:?}");
        if metadata.source != shop::SOURCE {
            let cause = metadata.causation_id.as_ref().expect("a reactor's event has a cause");
            let story = self.stories.get(cause).expect("the cause is in the log before what it caused");
            assert_eq!(*story, metadata.correlation_id, "{metadata:?}");
            assert!(metadata.actor.as_ref().is_some_and(|actor| actor.starts_with("system:")), "{metadata:?}");
        }
        self.stories.insert(metadata.event_id.to_string(), metadata.correlation_id.clone());
    }
}

fn decode<E: EventPayload>(event: &StoredEvent) -> E {
    event.decode().unwrap()
}
