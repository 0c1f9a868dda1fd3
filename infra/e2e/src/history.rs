//! The log of a shop that has been open for a while, written straight into the event store: what takes the services minutes takes
//! seconds here, and is the same for the same number of events.
//!
//! Orders come in groups, as the allocator takes them, each with one to three lines over a thousand SKUs. Of a hundred, three are
//! rejected, five declined, two cancelled and refunded after they were paid; the others are shipped thousands of orders later, as parcels
//! are, and most of those are delivered. Every event has the attributes that the services give it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anyhow::Context as _;
use cqrs_es::Aggregate;
use domain::{
    EventPayload, Money, OrderId, Request, Sku,
    notification::{Notification, NotificationSent, Topic},
    order::{
        Cause, Customer, Line, Order, OrderCancelled, OrderConfirmed, OrderDelivered, OrderEvent, OrderPlaced, OrderRejected,
        OrderShipped, OrderStockReserved, Shortage,
    },
    payment::{Payment, PaymentCaptured, PaymentDeclined, PaymentEvent, PaymentRefunded},
    stock::{Allocation, Stock, StockEvent, StockReceived, StockReleased, StockReserved, StockShipped},
};
use event_store::{EventContext, Expected, JetStreamEventStore, Transaction};
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::random::Random;

/// Orders that go through a step together.
const GROUP: u64 = 200;
/// How many SKUs the shop has.
const SKUS: u64 = 1_000;
/// How many orders later a parcel leaves, and how many after that it arrives.
const SHIPPED_AFTER: usize = 20_000;
const DELIVERED_AFTER: usize = 5_000;
/// When the shop opened.
const OPENED: OffsetDateTime = datetime!(2026-11-01 08:00 UTC);
/// 10,000 orders a minute.
const BETWEEN_ORDERS: Duration = Duration::milliseconds(6);
const SEED: u64 = 20_261_121;
const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Writes at least `events` events into an empty log. Returns the position of the last.
pub async fn write(store: &JetStreamEventStore, events: u64) -> anyhow::Result<u64> {
    let mut shop = Shop::open(store).await?;
    while shop.position < events {
        shop.take_orders().await?;
    }
    Ok(shop.position)
}

struct Shop<'a> {
    store: &'a JetStreamEventStore,
    random: Random,
    /// Where each aggregate ends that goes on.
    ends: HashMap<(&'static str, String), Expected>,
    position: u64,
    /// How many orders were placed.
    orders: u64,
    to_ship: VecDeque<Paid>,
    to_deliver: VecDeque<Paid>,
}

#[derive(Clone)]
struct Paid {
    id: OrderId,
    lines: Vec<Line>,
}

impl<'a> Shop<'a> {
    async fn open(store: &'a JetStreamEventStore) -> anyhow::Result<Self> {
        let mut shop = Self {
            store,
            random: Random::new(SEED),
            ends: HashMap::new(),
            position: 0,
            orders: 0,
            to_ship: VecDeque::new(),
            to_deliver: VecDeque::new(),
        };
        let mut delivery = shop.write("/contrail/command-api", "operator:warehouse");
        for number in 0..SKUS {
            let received =
                StockReceived { quantity: 1_000_000_000, reference: "DN-1".to_owned(), received_at: OPENED, request: None };
            delivery.add::<Stock>(sku(number).as_str(), &[received.into()]);
        }
        delivery.append().await?;
        Ok(shop)
    }

    fn now(&self) -> OffsetDateTime {
        OPENED + BETWEEN_ORDERS * i32::try_from(self.orders).unwrap_or(i32::MAX)
    }

    fn id(&mut self) -> Uuid {
        Uuid::from_u128((u128::from(self.random.next()) << 64) | u128::from(self.random.next()))
    }

    /// Takes a group of orders through everything that happens at once, and sends out and delivers what is due.
    async fn take_orders(&mut self) -> anyhow::Result<()> {
        let mut placed = Vec::new();
        for _ in 0..GROUP {
            let lines = (0..self.random.between(1, 3)).map(|_| self.line()).collect::<Vec<_>>();
            placed.push(Paid { id: OrderId(self.id()), lines });
        }
        self.place(&placed).await?;
        let (rejected, reserved): (Vec<_>, Vec<_>) = placed.into_iter().partition(|_| self.random.below(100) < 3);
        self.reserve(&reserved, &rejected).await?;
        let (declined, paid): (Vec<_>, Vec<_>) = reserved.into_iter().partition(|_| self.random.below(100) < 5);
        self.charge(&paid, &declined).await?;
        let (refunded, kept): (Vec<_>, Vec<_>) = paid.into_iter().partition(|_| self.random.below(100) < 2);
        self.refund(&refunded).await?;
        self.release(declined.iter().chain(&refunded)).await?;
        self.notify(&rejected, Topic::OrderRejected).await?;
        self.notify(&kept, Topic::OrderConfirmed).await?;
        self.notify(&refunded, Topic::PaymentRefunded).await?;
        self.to_ship.extend(kept);
        self.ship().await?;
        self.deliver().await
    }

    fn line(&mut self) -> Line {
        let quantity = u32::try_from(self.random.between(1, 4)).expect("at most 4");
        Line { sku: sku(self.random.below(SKUS)), quantity, unit_price_minor: 1_250 }
    }

    async fn place(&mut self, orders: &[Paid]) -> anyhow::Result<()> {
        let now = self.now();
        self.orders += orders.len() as u64;
        let customers: Vec<_> = orders.iter().map(|_| self.random.below(50_000)).collect();
        let mut writing = self.write("/contrail/command-api", "service:checkout");
        for (order, customer) in orders.iter().zip(customers) {
            let placed = OrderPlaced {
                customer: Customer {
                    id: format!("c-{customer}").parse().expect("a customer id"),
                    email: format!("c-{customer}@example.com"),
                    name: "Ada's Tea Room".to_owned(),
                },
                currency: "EUR".parse().expect("a currency"),
                lines: order.lines.clone(),
                total_minor: total(order).minor_units,
                payment_method: "pm_card_visa".to_owned(),
                placed_at: now,
                request: Request { id: order.id.0, digest: DIGEST.to_owned() },
            };
            writing.add_order(order, &[placed.into()]);
        }
        writing.append().await
    }

    /// As the allocator does: one event for each SKU, one for each order.
    async fn reserve(&mut self, reserved: &[Paid], rejected: &[Paid]) -> anyhow::Result<()> {
        let now = self.now();
        let mut writing = self.write("/contrail/reactors/allocator", "system:allocator");
        writing.add_stock(reserved.iter(), |allocations| StockReserved { allocations, reserved_at: now }.into());
        for order in reserved {
            writing
                .add_order(order, &[OrderStockReserved { reserved_at: now, payment_due_at: now + Duration::minutes(15) }.into()]);
        }
        for order in rejected {
            let short = Shortage { sku: order.lines[0].sku.clone(), requested: 4, available: 1 };
            writing.add_order(order, &[OrderRejected { shortages: vec![short], rejected_at: now }.into()]);
        }
        writing.append().await
    }

    async fn charge(&mut self, paid: &[Paid], declined: &[Paid]) -> anyhow::Result<()> {
        let now = self.now();
        let mut writing = self.write("/contrail/reactors/payments", "system:payments");
        for order in paid {
            let payment_intent_id = format!("pi_{}", order.id.0.simple());
            let captured = PaymentCaptured { payment_intent_id: payment_intent_id.clone(), amount: total(order), captured_at: now };
            writing.add_payment(order, captured.into());
            writing.add_order(order, &[OrderConfirmed { payment_intent_id, confirmed_at: now }.into()]);
        }
        for order in declined {
            let (code, message) = ("card_declined".to_owned(), "Your card was declined.".to_owned());
            writing.add_payment(order, PaymentDeclined { code, message, declined_at: now }.into());
            writing.add_order(order, &[cancelled(Cause::PaymentDeclined, "card_declined", now)]);
        }
        writing.append().await
    }

    async fn refund(&mut self, refunded: &[Paid]) -> anyhow::Result<()> {
        let now = self.now();
        let mut writing = self.write("/contrail/reactors/payments", "system:payments");
        for order in refunded {
            writing.add_order(order, &[cancelled(Cause::Customer, "changed my mind", now)]);
            let refund_id = format!("re_{}", order.id.0.simple());
            writing.add_payment(order, PaymentRefunded { refund_id, amount: total(order), refunded_at: now }.into());
        }
        writing.append().await
    }

    async fn release(&mut self, orders: impl Iterator<Item = &Paid>) -> anyhow::Result<()> {
        let now = self.now();
        let mut writing = self.write("/contrail/reactors/allocator", "system:allocator");
        writing.add_stock(orders, |allocations| StockReleased { allocations, released_at: now }.into());
        writing.append().await
    }

    async fn notify(&mut self, orders: &[Paid], topic: Topic) -> anyhow::Result<()> {
        let now = self.now();
        let mut writing = self.write("/contrail/reactors/notifications", "system:notifications");
        for order in orders {
            let id = Uuid::new_v5(&order.id.0, format!("{topic:?}").as_bytes()).to_string();
            let sent = NotificationSent { order_id: order.id, topic, channel: "email".to_owned(), sent_at: now };
            writing.add_to::<Notification>(&id, order.id, &[sent.into()]);
        }
        writing.append().await
    }

    async fn ship(&mut self) -> anyhow::Result<()> {
        let due: Vec<_> = self.to_ship.drain(..self.to_ship.len().saturating_sub(SHIPPED_AFTER)).collect();
        let now = self.now();
        let mut writing = self.write("/contrail/command-api", "operator:warehouse");
        for order in &due {
            let tracking_number = format!("00340434{}", order.id.0.as_u128() % 1_000_000_000_000);
            let shipped = OrderShipped { carrier: "DHL".to_owned(), tracking_number, shipped_at: now, request: None };
            writing.add_order(order, &[shipped.into()]);
        }
        writing.append().await?;
        let mut writing = self.write("/contrail/reactors/allocator", "system:allocator");
        writing.add_stock(due.iter(), |allocations| StockShipped { allocations, shipped_at: now }.into());
        writing.append().await?;
        self.notify(&due, Topic::OrderShipped).await?;
        self.to_deliver.extend(due);
        Ok(())
    }

    async fn deliver(&mut self) -> anyhow::Result<()> {
        let due: Vec<_> = self.to_deliver.drain(..self.to_deliver.len().saturating_sub(DELIVERED_AFTER)).collect();
        let now = self.now();
        let mut writing = self.write("/contrail/command-api", "operator:warehouse");
        for order in &due {
            writing.add_order(order, &[OrderDelivered { delivered_at: now, request: None }.into()]);
        }
        writing.append().await?;
        for order in &due {
            // Nothing happens to them any more.
            self.ends.remove(&(Order::TYPE, order.id.to_string()));
            self.ends.remove(&(Payment::TYPE, order.id.to_string()));
        }
        self.notify(&due, Topic::OrderDelivered).await
    }

    fn write(&mut self, source: &'static str, actor: &'static str) -> Writing<'_, 'a> {
        Writing { shop: self, source, actor, transaction: Transaction::new(), added: Vec::new() }
    }
}

/// One transaction.
struct Writing<'s, 'a> {
    shop: &'s mut Shop<'a>,
    source: &'static str,
    actor: &'static str,
    transaction: Transaction,
    /// Each aggregate that was added, and how many events.
    added: Vec<(&'static str, String, u64)>,
}

impl Writing<'_, '_> {
    fn add_order(&mut self, order: &Paid, events: &[OrderEvent]) {
        self.add_to::<Order>(&order.id.to_string(), order.id, events);
    }

    fn add_payment(&mut self, order: &Paid, event: PaymentEvent) {
        self.add_to::<Payment>(&order.id.to_string(), order.id, &[event]);
    }

    /// One event for each SKU of these orders.
    fn add_stock<'o>(&mut self, orders: impl Iterator<Item = &'o Paid>, event: impl Fn(Vec<Allocation>) -> StockEvent) {
        let mut allocations: BTreeMap<Sku, BTreeMap<OrderId, u64>> = BTreeMap::new();
        for order in orders {
            for line in &order.lines {
                *allocations.entry(line.sku.clone()).or_default().entry(order.id).or_default() += u64::from(line.quantity);
            }
        }
        for (sku, orders) in allocations {
            let allocations = orders.into_iter().map(|(order_id, quantity)| Allocation { order_id, quantity }).collect();
            self.add::<Stock>(sku.as_str(), &[event(allocations)]);
        }
    }

    /// Events that begin a story.
    fn add<A>(&mut self, id: &str, events: &[A::Event])
    where
        A: Aggregate,
        A::Event: EventPayload,
    {
        let story = self.shop.id();
        self.add_in::<A>(id, story.to_string(), None, events);
    }

    /// Events of an order's story.
    fn add_to<A>(&mut self, id: &str, order_id: OrderId, events: &[A::Event])
    where
        A: Aggregate,
        A::Event: EventPayload,
    {
        let cause = self.shop.id();
        self.add_in::<A>(id, order_id.to_string(), Some(cause.to_string()), events);
    }

    fn add_in<A>(&mut self, id: &str, correlation_id: String, causation_id: Option<String>, events: &[A::Event])
    where
        A: Aggregate,
        A::Event: EventPayload,
    {
        let (trace, span) = (self.shop.id(), self.shop.random.next());
        let context = EventContext {
            source: self.source,
            event_id: None,
            correlation_id,
            causation_id,
            actor: Some(self.actor.to_owned()),
            traceparent: Some(format!("00-{}-{span:016x}-01", trace.simple())),
            time: self.shop.now(),
        };
        let expected = self.shop.ends.get(&(A::TYPE, id.to_owned())).copied().unwrap_or(Expected::NEW);
        self.transaction.push::<A>(id, expected, events, &context);
        self.added.push((A::TYPE, id.to_owned(), events.len() as u64));
    }

    async fn append(self) -> anyhow::Result<()> {
        if self.added.is_empty() {
            return Ok(());
        }
        let appended = self.shop.store.append(self.transaction).await.context("append a part of the history")?;
        let mut position = appended.first_position - 1;
        for (aggregate_type, id, events) in self.added {
            position += events;
            let ends = &mut self.shop.ends;
            // A notification has one event.
            if aggregate_type != Notification::TYPE {
                let end = ends.entry((aggregate_type, id)).or_insert(Expected::NEW);
                *end = Expected { version: end.version + events, position };
            }
        }
        self.shop.position = appended.last_position;
        Ok(())
    }
}

fn sku(number: u64) -> Sku {
    format!("SKU-{number:04}").parse().expect("letters, a hyphen and digits are a SKU")
}

fn total(order: &Paid) -> Money {
    let minor_units = order.lines.iter().map(|line| i64::from(line.quantity) * line.unit_price_minor).sum();
    Money::new(minor_units, "EUR".parse().expect("a currency"))
}

fn cancelled(cause: Cause, reason: &str, cancelled_at: OffsetDateTime) -> OrderEvent {
    OrderCancelled { cause, reason: reason.to_owned(), cancelled_at, request: None }.into()
}
