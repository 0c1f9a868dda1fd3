//! A shop with a log of its own: what customers and the warehouse do, straight to the log.

use std::time::Duration;

use domain::{
    Currency, OrderId, Request,
    envelope::{Metadata, StoredEvent},
    order::{self, Cause, Customer, Line, Order, OrderCommand, OrderError, OrderEvent},
    stock::{Adjust, Receive, Stock, StockCommand},
};
use event_store::{Beginning, DeadLetter, EventContext, JetStreamEventStore, Sharing, WorkQueueOptions, WorkSource};
use futures::future::join_all;
use local_stack::nats::NatsServer;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::eventually;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00 UTC);
/// The CloudEvents source of what the shop appends.
pub(crate) const SOURCE: &str = "/contrail/test";
/// The CloudEvents source of what should not be in the log.
pub(crate) const POISON: &str = "/somebody/else";
/// The price of everything, in cents.
pub(crate) const PRICE: i64 = 1250;

pub(crate) struct Shop {
    pub(crate) server: NatsServer,
    pub(crate) store: JetStreamEventStore,
    jetstream: async_nats::jetstream::Context,
}

/// What a customer orders, and how they pay.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) lines: &'a [(&'a str, u32)],
    pub(crate) payment_method: &'a str,
    pub(crate) email: &'a str,
    pub(crate) name: &'a str,
}

/// One piece of TEA, paid with a card that works.
pub(crate) const ONE_TEA: Ask<'static> =
    Ask { lines: &[("TEA", 1)], payment_method: "pm_card_visa", email: "ada@example.com", name: "Ada" };

impl Shop {
    pub(crate) async fn open() -> Self {
        let server = local_stack::testing::nats();
        let store = JetStreamEventStore::connect(server.url(), "shop").await.unwrap();
        eventually("a connection", async || store.is_connected().then_some(())).await;
        store.set_up(Some(1)).await.unwrap();
        store.wait_until_ready(|_| ()).await;
        let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
        Self { server, store, jetstream }
    }

    /// A connection of its own, as another process has.
    pub(crate) async fn connect(&self) -> JetStreamEventStore {
        let store = JetStreamEventStore::connect(self.server.url(), "another").await.unwrap();
        store.wait_until_ready(|_| ()).await;
        store
    }

    pub(crate) async fn receive(&self, sku: &str, quantity: u32) {
        receive(&self.store, sku, quantity).await;
    }

    pub(crate) async fn adjust(&self, sku: &str, delta: i64) {
        let command = StockCommand::Adjust(Adjust {
            delta,
            reason: "counted".to_owned(),
            reference: "C-1".to_owned(),
            adjusted_at: NOW,
            request: None,
        });
        decide_stock(&self.store, sku, command).await;
    }

    /// Places one order, whose id follows from `key`.
    pub(crate) async fn place(&self, key: &str, ask: Ask<'_>) -> OrderId {
        let order_id = OrderId::derive("shop", key);
        self.order(order_id, OrderCommand::Place(place(key, ask))).await.unwrap();
        order_id
    }

    pub(crate) async fn place_lines(&self, key: &str, lines: &[(&str, u32)]) -> OrderId {
        self.place(key, Ask { lines, ..ONE_TEA }).await
    }

    /// Places `count` equal orders at once.
    pub(crate) async fn place_many(&self, key: &str, count: usize, ask: Ask<'_>) -> Vec<OrderId> {
        let keys: Vec<_> = (0..count).map(|number| format!("{key}-{number}")).collect();
        join_all(keys.iter().map(|key| self.place(key, ask))).await
    }

    pub(crate) async fn cancel(&self, order_id: OrderId) -> Result<(), OrderError> {
        let command =
            order::Cancel { cause: Cause::Customer, reason: "changed my mind".to_owned(), cancelled_at: NOW, request: None };
        self.order(order_id, OrderCommand::Cancel(command)).await
    }

    /// As [`Self::cancel`], at this very moment.
    #[expect(clippy::disallowed_methods, reason = "what is due some time after a cancellation has to come while the test runs")]
    pub(crate) async fn cancel_now(&self, order_id: OrderId) -> Result<(), OrderError> {
        let (cause, reason, cancelled_at) = (Cause::Customer, "changed my mind".to_owned(), OffsetDateTime::now_utc());
        self.order(order_id, OrderCommand::Cancel(order::Cancel { cause, reason, cancelled_at, request: None })).await
    }

    /// Reserves an order's stock, years ago, though it need not be paid for many more.
    pub(crate) async fn reserve_long_ago(&self, order_id: OrderId) {
        let (reserved_at, payment_due_at) = (datetime!(2020-01-01 12:00 UTC), datetime!(2999-01-01 12:00 UTC));
        let command = OrderCommand::RecordReservation(order::RecordReservation { reserved_at, payment_due_at });
        let (id, context) = (order_id.to_string(), EventContext { time: reserved_at, ..context(&order_id.to_string()) });
        let decide = |loaded: &event_store::Loaded<Order>| order::decide(&loaded.aggregate, command.clone());
        self.store.execute(&id, &context, decide).await.unwrap();
    }

    /// Confirms an order as if it had been paid.
    pub(crate) async fn confirm(&self, order_id: OrderId) {
        let command = order::Confirm { payment_intent_id: "pi_1".to_owned(), confirmed_at: NOW };
        self.order(order_id, OrderCommand::Confirm(command)).await.unwrap();
    }

    pub(crate) async fn ship(&self, order_id: OrderId) {
        let command =
            order::Ship { carrier: "DHL".to_owned(), tracking_number: "JD014".to_owned(), shipped_at: NOW, request: None };
        self.order(order_id, OrderCommand::Ship(command)).await.unwrap();
    }

    /// Decides one command on an order and appends what it decides.
    pub(crate) async fn order(&self, order_id: OrderId, command: OrderCommand) -> Result<(), OrderError> {
        let id = order_id.to_string();
        loop {
            let decide = |loaded: &event_store::Loaded<Order>| order::decide(&loaded.aggregate, command.clone());
            match self.store.execute(&id, &context(&id), decide).await {
                Ok(_) => return Ok(()),
                Err(event_store::ExecuteError::Rejected(rejection)) => return Err(rejection),
                // A test's customers are more stubborn than an API may be.
                Err(event_store::ExecuteError::Conflict) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// Puts bytes into the log that no service of ours would.
    pub(crate) async fn publish_raw(&self, subject: String, bytes: Vec<u8>) -> u64 {
        self.jetstream.publish(subject, bytes.into()).await.unwrap().await.unwrap().sequence
    }

    /// An envelope as it should be, with data that no event of this type has.
    pub(crate) async fn publish_with_wrong_data(&self, aggregate_type: &str, id: &str, event_type: &str, version: u64) -> u64 {
        let event = StoredEvent {
            metadata: Metadata {
                event_id: Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{id}/{version}").as_bytes()),
                event_type: event_type.to_owned(),
                source: POISON.to_owned(),
                aggregate_id: id.to_owned(),
                time: NOW,
                aggregate_type: aggregate_type.to_owned(),
                version,
                correlation_id: "poison".to_owned(),
                causation_id: None,
                actor: None,
                traceparent: None,
            },
            data: serde_json::value::to_raw_value(&serde_json::json!({"no": "such field"})).unwrap(),
        };
        self.publish_raw(format!("events.{aggregate_type}.{id}"), event.to_json()).await
    }

    /// What was given up, in the order in which it was.
    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut stream = self.stream("DEAD_LETTERS").await;
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut letters = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            letters.push(serde_json::from_slice(&message.payload).unwrap());
        }
        letters
    }

    /// How many timers there are, set or due.
    pub(crate) async fn timers(&self) -> u64 {
        self.stream("TIMERS").await.info().await.unwrap().state.messages
    }

    /// How many timers there ever were, at most.
    pub(crate) async fn last_timer(&self) -> u64 {
        self.stream("TIMERS").await.info().await.unwrap().state.last_sequence
    }

    /// Waits until a reactor has been handed something, and has nothing left to take and nothing in hand.
    pub(crate) async fn idle(&self, reactor: &str) {
        let stream = self.stream("EVENTS").await;
        let is_idle = async || {
            let info = stream.consumer_info(reactor).await.ok()?;
            // While the server makes a queue it says that nothing waits in it.
            let is_made = info.delivered.consumer_sequence > 0;
            (is_made && info.num_pending == 0 && info.num_ack_pending == 0).then_some(())
        };
        eventually(&format!("{reactor} is idle"), is_idle).await;
    }

    /// Whether `reactor` was handed all up to `position`, and has acknowledged one more than those that it still has.
    pub(crate) async fn is_acknowledged(&self, reactor: &str, position: u64) -> bool {
        let info = self.stream("EVENTS").await.consumer_info(reactor).await.unwrap();
        info.delivered.stream_sequence >= position && (info.num_ack_pending as u64) < position
    }

    /// Waits until the log knows a reactor's queue, so that whatever happens from now on is handed to it.
    pub(crate) async fn known(&self, reactor: &str) {
        let stream = self.stream("EVENTS").await;
        eventually(&format!("{reactor} has a queue"), async || stream.consumer_info(reactor).await.ok().map(drop)).await;
    }

    /// Makes the log forget what `reactor` has acknowledged, so that it gets everything again.
    pub(crate) async fn forget_acknowledgements(&self, reactor: &str) {
        self.stream("EVENTS").await.delete_consumer(reactor).await.unwrap();
    }

    /// Has `reactor` take everything that is in the log now for done.
    pub(crate) async fn acknowledge_all(&self, reactor: &'static str, aggregate_types: &'static [&'static str], sharing: Sharing) {
        let mut queue = self.store.work_queue(WorkQueueOptions {
            name: reactor,
            source: WorkSource::Log(aggregate_types),
            takes_redrives: false,
            beginning: Beginning::First,
            ack_wait: Duration::from_secs(6),
            in_flight_max: if sharing == Sharing::All { 2_048 } else { 4_096 },
            parked_max: 0,
            sharing,
        });
        let acknowledging = async {
            loop {
                for item in queue.next_batch(1_000).await {
                    item.done().await;
                }
            }
        };
        tokio::select! {
            () = acknowledging => {}
            () = self.idle(reactor) => {}
        }
        queue.close().await;
    }

    /// Has the log take no further event, as when its disk is full; or take them again.
    pub(crate) async fn be_full(&self, is_full: bool) {
        let mut stream = self.stream("EVENTS").await;
        let info = stream.info().await.unwrap().clone();
        let max_messages = if is_full { i64::try_from(info.state.messages).unwrap() } else { -1 };
        self.jetstream.update_stream(async_nats::jetstream::stream::Config { max_messages, ..info.config }).await.unwrap();
    }

    async fn stream(&self, name: &str) -> async_nats::jetstream::stream::Stream {
        self.jetstream.get_stream(name).await.unwrap()
    }
}

/// Receives stock and returns the event's position.
pub(crate) async fn receive(store: &JetStreamEventStore, sku: &str, quantity: u32) -> u64 {
    let command = StockCommand::Receive(Receive { quantity, reference: "DN-1".to_owned(), received_at: NOW, request: None });
    decide_stock(store, sku, command).await
}

async fn decide_stock(store: &JetStreamEventStore, sku: &str, command: StockCommand) -> u64 {
    loop {
        let decide = |loaded: &event_store::Loaded<Stock>| domain::stock::decide(&loaded.aggregate, command.clone());
        match store.execute(sku, &context(sku), decide).await {
            Ok(executed) => return executed.position,
            Err(event_store::ExecuteError::Conflict) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) fn context(story: &str) -> EventContext {
    EventContext {
        source: SOURCE,
        event_id: None,
        correlation_id: format!("story of {story}"),
        causation_id: None,
        actor: Some("customer:c-42".to_owned()),
        traceparent: None,
        time: NOW,
    }
}

/// The event that places an order, past every check.
pub(crate) fn placed_unchecked(key: &str, ask: Ask<'_>) -> OrderEvent {
    let order::Place { customer, currency, lines, payment_method, placed_at, request } = place(key, ask);
    order::OrderPlaced { customer, currency, lines, total_minor: PRICE, payment_method, placed_at, request }.into()
}

fn place(key: &str, ask: Ask<'_>) -> order::Place {
    let line = |(sku, quantity): &(&str, u32)| Line { sku: sku.parse().unwrap(), quantity: *quantity, unit_price_minor: PRICE };
    order::Place {
        customer: Customer { id: "c-42".parse().unwrap(), email: ask.email.to_owned(), name: ask.name.to_owned() },
        currency: "EUR".parse::<Currency>().unwrap(),
        lines: ask.lines.iter().map(line).collect(),
        payment_method: ask.payment_method.to_owned(),
        placed_at: NOW,
        request: Request { id: Uuid::new_v5(&Uuid::NAMESPACE_URL, key.as_bytes()), digest: "d".to_owned() },
    }
}
