//! Events and values that the tests start from.

use domain::{
    Money, OrderId, Request,
    notification::{NotificationFailed, NotificationSent, Topic},
    order::{
        Cause, Customer, Line, OrderCancelled, OrderConfirmed, OrderDelivered, OrderEvent, OrderPlaced, OrderRejected,
        OrderShipped, OrderStockReserved, Shortage,
    },
    payment::{PaymentCaptured, PaymentDeclined, PaymentGivenUp, PaymentRefunded},
    stock::{Allocation, StockAdjusted, StockEvent, StockReceived, StockReleased, StockReserved, StockShipped},
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00.123456 UTC);
pub(crate) const LATER: OffsetDateTime = datetime!(2026-11-20 12:15:00.123456 UTC);

pub(crate) fn order_id(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number))
}

pub(crate) fn request(number: u128) -> Request {
    Request { id: Uuid::from_u128(number), digest: format!("{number:064x}") }
}

pub(crate) fn euros(minor_units: i64) -> Money {
    Money::new(minor_units, "EUR".parse().unwrap())
}

pub(crate) fn customer() -> Customer {
    Customer { id: "c-42".parse().unwrap(), email: "a@example.com".to_owned(), name: "A".to_owned() }
}

pub(crate) fn line(sku: &str, quantity: u32, unit_price_minor: i64) -> Line {
    Line { sku: sku.parse().unwrap(), quantity, unit_price_minor }
}

pub(crate) fn placed() -> OrderPlaced {
    OrderPlaced {
        customer: customer(),
        currency: "EUR".parse().unwrap(),
        lines: vec![line("TEA-1", 2, 1250), line("CUP-1", 1, 400)],
        total_minor: 2900,
        payment_method: "pm_card_visa".to_owned(),
        placed_at: NOW,
        request: request(1),
    }
}

pub(crate) fn reserved() -> OrderStockReserved {
    OrderStockReserved { reserved_at: NOW, payment_due_at: LATER }
}

pub(crate) fn rejected() -> OrderRejected {
    let shortage = Shortage { sku: "TEA-1".parse().unwrap(), requested: 2, available: 1 };
    OrderRejected { shortages: vec![shortage], rejected_at: NOW }
}

pub(crate) fn confirmed() -> OrderConfirmed {
    OrderConfirmed { payment_intent_id: "pi_1".to_owned(), confirmed_at: NOW }
}

pub(crate) fn cancelled() -> OrderCancelled {
    OrderCancelled { cause: Cause::Customer, reason: "changed my mind".to_owned(), cancelled_at: NOW, request: Some(request(2)) }
}

pub(crate) fn shipped() -> OrderShipped {
    OrderShipped { carrier: "DHL".to_owned(), tracking_number: "JD01".to_owned(), shipped_at: NOW, request: Some(request(3)) }
}

pub(crate) fn delivered() -> OrderDelivered {
    OrderDelivered { delivered_at: NOW, request: Some(request(4)) }
}

/// The events of an order that went well, up to its `count`th.
pub(crate) fn first(count: usize) -> Vec<OrderEvent> {
    let all: [OrderEvent; 5] = [placed().into(), reserved().into(), confirmed().into(), shipped().into(), delivered().into()];
    all[..count].to_vec()
}

pub(crate) fn received(quantity: u32) -> StockReceived {
    StockReceived { quantity, reference: "DN-7".to_owned(), received_at: NOW, request: Some(request(5)) }
}

pub(crate) fn adjusted(delta: i64) -> StockAdjusted {
    StockAdjusted {
        delta,
        reason: "broken in the store".to_owned(),
        reference: "COUNT-3".to_owned(),
        adjusted_at: NOW,
        request: Some(request(6)),
    }
}

pub(crate) fn allocation(order: u128, quantity: u64) -> Allocation {
    Allocation { order_id: order_id(order), quantity }
}

pub(crate) fn stock_reserved(allocations: &[Allocation]) -> StockEvent {
    StockReserved { allocations: allocations.to_vec(), reserved_at: NOW }.into()
}

pub(crate) fn stock_released(allocations: &[Allocation]) -> StockEvent {
    StockReleased { allocations: allocations.to_vec(), released_at: NOW }.into()
}

pub(crate) fn stock_shipped(allocations: &[Allocation]) -> StockEvent {
    StockShipped { allocations: allocations.to_vec(), shipped_at: NOW }.into()
}

pub(crate) fn captured() -> PaymentCaptured {
    PaymentCaptured { payment_intent_id: "pi_1".to_owned(), amount: euros(2900), captured_at: NOW }
}

pub(crate) fn declined() -> PaymentDeclined {
    PaymentDeclined { code: "card_declined".to_owned(), message: "Your card was declined.".to_owned(), declined_at: NOW }
}

pub(crate) fn refunded() -> PaymentRefunded {
    PaymentRefunded { refund_id: "re_1".to_owned(), amount: euros(2900), refunded_at: NOW }
}

pub(crate) fn given_up() -> PaymentGivenUp {
    PaymentGivenUp { position: 17, reason: "refund an order: the gateway refused".to_owned(), given_up_at: NOW }
}

pub(crate) fn sent() -> NotificationSent {
    NotificationSent { order_id: order_id(1), topic: Topic::OrderConfirmed, channel: "email".to_owned(), sent_at: NOW }
}

pub(crate) fn failed() -> NotificationFailed {
    NotificationFailed {
        order_id: order_id(1),
        topic: Topic::OrderConfirmed,
        channel: "email".to_owned(),
        reason: "no such mailbox".to_owned(),
        failed_at: NOW,
    }
}
