//! Events with whatever their types can hold, also what no command would ever lead to.

use domain::{
    EventPayload, Money, OrderId, Request,
    notification::{NotificationEvent, NotificationFailed, Topic},
    order::{Cause, Customer, Line, OrderCancelled, OrderEvent, OrderPlaced, OrderRejected, Shortage},
    payment::{PaymentCaptured, PaymentEvent, PaymentGivenUp},
    stock::{Allocation, StockAdjusted, StockEvent, StockReceived, StockReserved},
};
use proptest::{collection::vec, option, prelude::*};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

/// Which events [`any_event`] gives: between them they have every type of field that there is.
pub(crate) const EVENTS_DRAWN: [&str; 9] = [
    "contrail.order.placed.v1",
    "contrail.order.rejected.v1",
    "contrail.order.cancelled.v1",
    "contrail.stock.received.v1",
    "contrail.stock.adjusted.v1",
    "contrail.stock.reserved.v1",
    "contrail.payment.captured.v1",
    "contrail.payment.given_up.v1",
    "contrail.notification.failed.v1",
];

/// An event's type and its data, as stored.
pub(crate) fn any_event() -> impl Strategy<Value = (&'static str, Value)> {
    prop_oneof![
        any_order_event().prop_map(|event| stored(&event)),
        any_stock_event().prop_map(|event| stored(&event)),
        any_payment_event().prop_map(|event| stored(&event)),
        any_notification_event().prop_map(|event| stored(&event)),
    ]
}

fn stored<E: EventPayload>(event: &E) -> (&'static str, Value) {
    (event.event_type(), serde_json::from_str(event.to_data().get()).unwrap())
}

fn any_order_event() -> impl Strategy<Value = OrderEvent> {
    let customer = ("[!-~]{1,128}", any::<String>(), any::<String>());
    let lines = vec(("[A-Za-z0-9_-]{1,64}", any::<u32>(), any::<i64>()), 0..3);
    let placed = (customer, any_currency(), lines, any::<i64>(), any::<String>(), any_time(), any_request());
    let shortages = vec(("[A-Za-z0-9_-]{1,64}", any::<u64>(), any::<i64>()), 0..3);
    let causes = vec![Cause::Customer, Cause::Operator, Cause::PaymentDeclined, Cause::PaymentDeadline];
    let cancelled = (prop::sample::select(causes), any::<String>(), any_time(), option::of(any_request()));
    prop_oneof![
        placed.prop_map(|((id, email, name), currency, lines, total_minor, payment_method, placed_at, request)| {
            let customer = Customer { id: id.parse().unwrap(), email, name };
            let line =
                |(sku, quantity, unit_price_minor): (String, _, _)| Line { sku: sku.parse().unwrap(), quantity, unit_price_minor };
            let (currency, lines) = (currency.parse().unwrap(), lines.into_iter().map(line).collect());
            OrderPlaced { customer, currency, lines, total_minor, payment_method, placed_at, request }.into()
        }),
        (shortages, any_time()).prop_map(|(shortages, rejected_at)| {
            let shortage =
                |(sku, requested, available): (String, _, _)| Shortage { sku: sku.parse().unwrap(), requested, available };
            OrderRejected { shortages: shortages.into_iter().map(shortage).collect(), rejected_at }.into()
        }),
        cancelled.prop_map(|(cause, reason, cancelled_at, request)| OrderCancelled { cause, reason, cancelled_at, request }.into()),
    ]
}

fn any_stock_event() -> impl Strategy<Value = StockEvent> {
    let received = (any::<u32>(), any::<String>(), any_time(), option::of(any_request()));
    let adjusted = (any::<i64>(), any::<String>(), any::<String>(), any_time(), option::of(any_request()));
    let allocations = vec((any_order_id(), any::<u64>()), 0..3);
    prop_oneof![
        received.prop_map(|(quantity, reference, received_at, request)| {
            StockReceived { quantity, reference, received_at, request }.into()
        }),
        adjusted.prop_map(|(delta, reason, reference, adjusted_at, request)| {
            StockAdjusted { delta, reason, reference, adjusted_at, request }.into()
        }),
        (allocations, any_time()).prop_map(|(allocations, reserved_at)| {
            let allocations = allocations.into_iter().map(|(order_id, quantity)| Allocation { order_id, quantity }).collect();
            StockReserved { allocations, reserved_at }.into()
        }),
    ]
}

fn any_payment_event() -> impl Strategy<Value = PaymentEvent> {
    let captured = (any::<String>(), any::<i64>(), any_currency(), any_time());
    prop_oneof![
        captured.prop_map(|(payment_intent_id, minor_units, currency, captured_at)| {
            let amount = Money::new(minor_units, currency.parse().unwrap());
            PaymentCaptured { payment_intent_id, amount, captured_at }.into()
        }),
        (any::<u64>(), any::<String>(), any_time()).prop_map(|(position, reason, given_up_at)| PaymentGivenUp {
            position,
            reason,
            given_up_at
        }
        .into()),
    ]
}

fn any_notification_event() -> impl Strategy<Value = NotificationEvent> {
    use Topic::{OrderCancelled, OrderConfirmed, OrderDelivered, OrderRejected, OrderShipped, PaymentRefunded};
    let topics = vec![OrderConfirmed, OrderRejected, OrderCancelled, OrderShipped, OrderDelivered, PaymentRefunded];
    let failed = (any_order_id(), prop::sample::select(topics), any::<String>(), any::<String>(), any_time());
    failed.prop_map(|(order_id, topic, channel, reason, failed_at)| {
        NotificationFailed { order_id, topic, channel, reason, failed_at }.into()
    })
}

fn any_order_id() -> impl Strategy<Value = OrderId> {
    any::<u128>().prop_map(|id| OrderId(Uuid::from_u128(id)))
}

fn any_request() -> impl Strategy<Value = Request> {
    (any::<u128>(), "[0-9a-f]{64}").prop_map(|(id, digest)| Request { id: Uuid::from_u128(id), digest })
}

fn any_currency() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["EUR", "USD", "JPY", "KWD", "CHF"][..])
}

/// From the year 1 to the year 9999, which is what RFC 3339 can write and every calendar has.
fn any_time() -> impl Strategy<Value = OffsetDateTime> {
    (-62_135_596_800..253_402_300_800_i64, 0..1_000_000_000_u32).prop_map(|(second, nanosecond)| {
        OffsetDateTime::from_unix_timestamp(second).unwrap().replace_nanosecond(nanosecond).unwrap()
    })
}
