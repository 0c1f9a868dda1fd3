//! Events as the other services append them.

use std::collections::HashMap;

use cqrs_es::Aggregate;
use domain::{
    EventPayload, Money, OrderId, Request, Sku,
    notification::{Notification, NotificationSent, Topic},
    order::{Customer, Line, Order, OrderConfirmed, OrderDelivered, OrderEvent, OrderPlaced, OrderShipped, OrderStockReserved},
    payment::{Payment, PaymentCaptured},
    stock::{Allocation, Stock, StockReceived, StockReserved, StockShipped},
};
use event_store::{EventContext, Expected, JetStreamEventStore, Transaction};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Events of one order from the checkout to the doorstep, stock's included.
pub(crate) const EVENTS_PER_ORDER: u64 = 10;

/// Appends whole orders, remembering where each aggregate ends.
pub(crate) struct Teller {
    store: JetStreamEventStore,
    ends: HashMap<(&'static str, String), Expected>,
    orders: u64,
}

impl Teller {
    pub(crate) fn new(store: JetStreamEventStore) -> Self {
        Self { store, ends: HashMap::new(), orders: 0 }
    }

    /// Goes on in another log that has the same events.
    pub(crate) fn in_log(self, store: JetStreamEventStore) -> Self {
        Self { store, ..self }
    }

    /// Takes so many further orders through, each in one transaction. Returns the position of the last event.
    pub(crate) async fn tell(&mut self, orders: u64) -> u64 {
        let mut position = 0;
        for _ in 0..orders {
            position = self.tell_one().await;
        }
        position
    }

    /// The id of the order that was told as number `index`, from 0 on.
    pub(crate) fn order_id(index: u64) -> OrderId {
        OrderId::derive("test", &index.to_string())
    }

    async fn tell_one(&mut self) -> u64 {
        let order_id = Self::order_id(self.orders);
        let sku: Sku = format!("SKU-{}", self.orders % 7).parse().unwrap();
        let at = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap() + Duration::seconds(self.orders.cast_signed());
        self.orders += 1;
        let amount = Money::new(2500, "EUR".parse().unwrap());
        let allocations = vec![Allocation { order_id, quantity: 2 }];
        let order: Vec<OrderEvent> = vec![
            placed(&sku, at).into(),
            OrderStockReserved { reserved_at: at, payment_due_at: at + Duration::minutes(15) }.into(),
            OrderConfirmed { payment_intent_id: format!("pi_{order_id}"), confirmed_at: at }.into(),
            OrderShipped { carrier: "DHL".to_owned(), tracking_number: "T1".to_owned(), shipped_at: at, request: None }.into(),
            OrderDelivered { delivered_at: at, request: None }.into(),
        ];
        let payment = PaymentCaptured { payment_intent_id: format!("pi_{order_id}"), amount, captured_at: at };
        let sent = NotificationSent { order_id, topic: Topic::OrderConfirmed, channel: "email".to_owned(), sent_at: at };
        let stock = vec![
            StockReceived { quantity: 3, reference: "D1".to_owned(), received_at: at, request: None }.into(),
            StockReserved { allocations: allocations.clone(), reserved_at: at }.into(),
            StockShipped { allocations, shipped_at: at }.into(),
        ];
        let mut telling = Telling { teller: self, transaction: Transaction::new(), told: Vec::new(), at };
        telling.add::<Stock>(sku.as_str(), &stock);
        telling.add::<Order>(&order_id.to_string(), &order);
        telling.add::<Payment>(&order_id.to_string(), &[payment.into()]);
        telling.add::<Notification>(&Uuid::new_v5(&order_id.0, b"confirmed").to_string(), &[sent.into()]);
        telling.append().await
    }
}

struct Telling<'a> {
    teller: &'a mut Teller,
    transaction: Transaction,
    /// Each aggregate that was added, and how many events.
    told: Vec<(&'static str, String, u64)>,
    at: OffsetDateTime,
}

impl Telling<'_> {
    fn add<A>(&mut self, id: &str, events: &[A::Event])
    where
        A: Aggregate,
        A::Event: EventPayload,
    {
        let expected = self.teller.ends.get(&(A::TYPE, id.to_owned())).copied().unwrap_or(Expected::NEW);
        self.transaction.push::<A>(id, expected, events, &context(self.at));
        self.told.push((A::TYPE, id.to_owned(), events.len() as u64));
    }

    async fn append(self) -> u64 {
        let appended = self.teller.store.append(self.transaction).await.unwrap();
        let mut position = appended.first_position - 1;
        for (aggregate_type, id, events) in self.told {
            position += events;
            let end = self.teller.ends.entry((aggregate_type, id)).or_insert(Expected::NEW);
            *end = Expected { version: end.version + events, position };
        }
        assert_eq!(position, appended.last_position);
        position
    }
}

pub(crate) fn placed(sku: &Sku, at: OffsetDateTime) -> OrderPlaced {
    OrderPlaced {
        customer: Customer { id: "c-42".parse().unwrap(), email: "a@example.com".to_owned(), name: "A".to_owned() },
        currency: "EUR".parse().unwrap(),
        lines: vec![Line { sku: sku.clone(), quantity: 2, unit_price_minor: 1250 }],
        total_minor: 2500,
        payment_method: "pm_card_visa".to_owned(),
        placed_at: at,
        request: Request { id: Uuid::nil(), digest: String::new() },
    }
}

pub(crate) fn context(time: OffsetDateTime) -> EventContext {
    EventContext {
        source: "/test",
        event_id: None,
        correlation_id: "story".to_owned(),
        causation_id: None,
        actor: Some("customer:c-42".to_owned()),
        traceparent: None,
        time,
    }
}
