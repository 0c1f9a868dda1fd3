//! A check that cannot fail proves nothing: each of these logs is wrong in one way, and is caught.

use std::collections::BTreeMap;

use domain::envelope::{Metadata, StoredEvent};
use domain::order::{Cause, Customer, Line, OrderCancelled, OrderConfirmed, OrderEvent, OrderPlaced, OrderStockReserved};
use domain::payment::{PaymentCaptured, PaymentEvent};
use domain::stock::{Allocation, StockEvent, StockReceived, StockReserved};
use domain::{EventPayload, Money, OrderId, Request};
use event_store::LogMessage;
use time::OffsetDateTime;
use uuid::Uuid;

use super::log::LogFold;
use super::violations::Violations;
use super::{mail, money, orders, stock};
use crate::shop::{Acknowledged, Charge, GatewayLedger};

const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const ORDER: OrderId = OrderId(Uuid::from_u128(7));
const INTENT: &str = "pi_1";

/// A log in the making.
#[derive(Default)]
struct Log {
    events: Vec<StoredEvent>,
}

impl Log {
    /// Appends the next version of an aggregate. The first event of the log begins its story, the others belong to it.
    fn then<E: EventPayload>(mut self, aggregate_type: &str, id: &str, event: &E) -> Self {
        let same = |event: &&StoredEvent| event.metadata.aggregate_type == aggregate_type && event.metadata.aggregate_id == id;
        let version = self.events.iter().filter(same).count() as u64 + 1;
        let position = self.events.len() as u128 + 1;
        let metadata = Metadata {
            event_id: Uuid::from_u128(1_000 + position),
            event_type: event.event_type().to_owned(),
            source: "/test".to_owned(),
            aggregate_id: id.to_owned(),
            time: AT,
            aggregate_type: aggregate_type.to_owned(),
            version,
            correlation_id: "story".to_owned(),
            causation_id: self.events.last().map(|cause| cause.metadata.event_id.to_string()),
            actor: None,
            traceparent: None,
        };
        self.events.push(StoredEvent { metadata, data: event.to_data() });
        self
    }

    fn order(self, event: impl Into<OrderEvent>) -> Self {
        self.then("order", &ORDER.to_string(), &event.into())
    }

    fn stock(self, event: impl Into<StockEvent>) -> Self {
        self.then("stock", "TEA-1", &event.into())
    }

    /// Changes the last event's attributes.
    fn but(mut self, change: impl FnOnce(&mut Metadata)) -> Self {
        change(&mut self.events.last_mut().unwrap().metadata);
        self
    }

    fn fold(&self, violations: &mut Violations) -> LogFold {
        let mut fold = LogFold::default();
        for (event, position) in self.events.iter().zip(1..) {
            let message = LogMessage { position, subject: "events.test.x".into(), bytes: event.to_json().into(), pending: 0 };
            fold.take(&message, violations).unwrap();
        }
        fold
    }

    /// The kinds of violations that are found, given what was promised and what the gateway says.
    fn verdict(&self, acknowledged_at: &[u64], ledger: &GatewayLedger) -> Vec<String> {
        let mut violations = Violations::default();
        let fold = self.fold(&mut violations);
        let answers = acknowledged_at.iter().map(|position| Acknowledged { order_id: ORDER, position: *position }).collect();
        let acknowledged = BTreeMap::from([("key".to_owned(), answers)]);
        orders::count_lost(&fold, &acknowledged, &mut violations);
        orders::count_duplicated(&fold, &acknowledged, &mut violations);
        stock::check_open_reservations(&fold, &mut violations);
        money::check(&fold, ledger, &mut violations);
        let kinds = violations.into_lines().into_iter().map(|line| line.split(':').next().unwrap().to_owned());
        let mut kinds: Vec<String> = kinds.collect();
        kinds.dedup();
        kinds
    }
}

fn received(quantity: u32) -> StockReceived {
    StockReceived { quantity, reference: "note".to_owned(), received_at: AT, request: None }
}

fn reserved(quantity: u64) -> StockReserved {
    StockReserved { allocations: vec![Allocation { order_id: ORDER, quantity }], reserved_at: AT }
}

fn placed() -> OrderPlaced {
    OrderPlaced {
        customer: Customer { id: "c-1".parse().unwrap(), email: "a@example.com".to_owned(), name: "A".to_owned() },
        currency: "EUR".parse().unwrap(),
        lines: vec![Line { sku: "TEA-1".parse().unwrap(), quantity: 2, unit_price_minor: 500 }],
        total_minor: 1_000,
        payment_method: "pm_card_visa".to_owned(),
        placed_at: AT,
        request: Request { id: Uuid::nil(), digest: String::new() },
    }
}

fn captured() -> PaymentEvent {
    let amount = Money::new(1_000, "EUR".parse().unwrap());
    PaymentCaptured { payment_intent_id: INTENT.to_owned(), amount, captured_at: AT }.into()
}

fn confirmed() -> OrderConfirmed {
    OrderConfirmed { payment_intent_id: INTENT.to_owned(), confirmed_at: AT }
}

fn cancelled() -> OrderCancelled {
    OrderCancelled { cause: Cause::Customer, reason: "why not".to_owned(), cancelled_at: AT, request: None }
}

/// Received, placed at 2, reserved.
fn reserved_order() -> Log {
    let is_reserved = OrderStockReserved { reserved_at: AT, payment_due_at: AT };
    Log::default().stock(received(5)).order(placed()).stock(reserved(2)).order(is_reserved)
}

/// And paid.
fn paid_order() -> Log {
    reserved_order().then("payment", &ORDER.to_string(), &captured()).order(confirmed())
}

fn ledger(charges: usize) -> GatewayLedger {
    let charge =
        Charge { payment_intent: INTENT.to_owned(), order_id: Some(ORDER.to_string()), amount: 1_000, currency: "eur".to_owned() };
    GatewayLedger { charges: vec![charge; charges], refunds: Vec::new() }
}

#[test]
fn a_log_in_which_all_is_well_is_not_complained_about() {
    assert_eq!(paid_order().verdict(&[2], &ledger(1)), Vec::<String>::new());
}

#[test]
fn an_order_that_is_missing_unfinished_doubled_or_unasked_for_is_found() {
    assert_eq!(paid_order().verdict(&[3], &ledger(1)), ["lost"]);
    assert_eq!(reserved_order().verdict(&[2], &ledger(0)), ["lost"]);
    assert_eq!(paid_order().verdict(&[], &ledger(1)), ["duplicated"]);
    assert_eq!(paid_order().verdict(&[2, 9], &ledger(1)), ["duplicated", "lost"]);
    let twice = Log::default().stock(received(5)).order(placed()).order(placed()).order(cancelled());
    assert_eq!(twice.verdict(&[2], &ledger(0)), ["duplicated"]);
}

#[test]
fn money_that_was_not_taken_or_taken_twice_or_not_given_back_is_found() {
    assert_eq!(reserved_order().order(confirmed()).verdict(&[2], &ledger(0)), ["money"]);
    assert_eq!(paid_order().verdict(&[2], &ledger(2)), ["gateway"]);
    assert_eq!(paid_order().verdict(&[2], &ledger(0)), ["gateway"]);
    assert_eq!(paid_order().order(cancelled()).verdict(&[2], &ledger(1)), ["money", "reservations"]);
}

#[test]
fn stock_that_is_promised_twice_or_for_ever_is_found() {
    let oversold = Log::default().stock(received(1)).stock(reserved(2));
    let mut violations = Violations::default();
    assert_eq!(oversold.fold(&mut violations).oversold.len(), 1);
    assert!(violations.into_lines()[0].starts_with("oversold: TEA-1 at 2"));
    let forgotten = reserved_order().order(cancelled());
    assert_eq!(forgotten.verdict(&[2], &ledger(0)), ["reservations"]);
    let never_reserved = Log::default().stock(received(5)).order(placed()).order(confirmed());
    assert_eq!(never_reserved.verdict(&[2], &ledger(0)), ["money", "reservations"]);
}

#[test]
fn versions_with_a_gap_and_stories_without_a_cause_are_found() {
    assert_eq!(paid_order().but(|metadata| metadata.version += 1).verdict(&[2], &ledger(1)), ["versions"]);
    assert_eq!(paid_order().but(|metadata| metadata.causation_id = None).verdict(&[2], &ledger(1)), ["stories"]);
    assert_eq!(paid_order().but(|metadata| metadata.causation_id = Some("x".to_owned())).verdict(&[2], &ledger(1)), ["stories"]);
    assert_eq!(paid_order().but(|metadata| metadata.correlation_id.clear()).verdict(&[2], &ledger(1)), ["stories"]);
}

#[test]
fn a_customer_who_was_not_told_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut violations = Violations::default();
    let fold = paid_order().fold(&mut violations);
    std::fs::write(folder.path().join("0.eml"), "what is this about?").unwrap();
    mail::check(&fold, folder.path(), &mut violations).unwrap();
    let lines = violations.into_lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("is due and was not sent") && lines[1].contains("0.eml belongs to no notification"), "{lines:?}");
}
