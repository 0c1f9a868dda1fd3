use cqrs_es::{Aggregate, EventEnvelope, View};
use domain::{
    EventPayload, Money, OrderId, Request,
    envelope::{Metadata, StoredEvent},
    notification::{Notification, NotificationFailed, NotificationSent, Topic},
    order::{
        Cause, Customer, Line, Order, OrderCancelled, OrderConfirmed, OrderDelivered, OrderPlaced, OrderRejected, OrderShipped,
        OrderStatus, OrderStockReserved, Shortage,
    },
    payment::{Payment, PaymentCaptured, PaymentDeclined, PaymentGivenUp, PaymentRefunded, PaymentStatus},
    stock::{Allocation, Stock, StockAdjusted, StockEvent, StockReceived, StockReleased, StockReserved, StockShipped},
};
use read_store::views::{OrderView, StockView, envelope};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const ORDER: &str = "0c628b8e-6a0f-5c0e-9a39-5f5e2f6b7a01";

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_790_000_000 + second).unwrap()
}

/// The envelope of an event as the projectors make it; the log's position is ten times the version.
fn event<A>(id: &str, version: u64, event: impl Into<A::Event>) -> EventEnvelope<A>
where
    A: Aggregate,
    A::Event: EventPayload,
{
    let event = event.into();
    let stored = StoredEvent {
        metadata: Metadata {
            event_id: Uuid::from_u128(u128::from(version)),
            event_type: EventPayload::event_type(&event).to_owned(),
            source: "/test".to_owned(),
            aggregate_id: id.to_owned(),
            time: at(version.cast_signed()),
            aggregate_type: A::TYPE.to_owned(),
            version,
            correlation_id: "c".to_owned(),
            causation_id: None,
            actor: None,
            traceparent: None,
        },
        data: event.to_data(),
    };
    let stored = StoredEvent::from_json(&stored.to_json()).unwrap();
    envelope(version * 10, &stored).unwrap()
}

fn placed() -> OrderPlaced {
    OrderPlaced {
        customer: Customer { id: "c-42".parse().unwrap(), email: "a@example.com".to_owned(), name: "A".to_owned() },
        currency: "EUR".parse().unwrap(),
        lines: vec![Line { sku: "TEA-1".parse().unwrap(), quantity: 2, unit_price_minor: 1250 }],
        total_minor: 2500,
        payment_method: "pm_card_visa".to_owned(),
        placed_at: at(0),
        request: Request { id: Uuid::nil(), digest: String::new() },
    }
}

/// Every event that an order can have, in an order that no order has: a view must fold whatever the log holds.
fn all_order_events() -> Vec<EventEnvelope<Order>> {
    vec![
        event(ORDER, 1, placed()),
        event(ORDER, 2, OrderStockReserved { reserved_at: at(2), payment_due_at: at(900) }),
        event(ORDER, 3, OrderConfirmed { payment_intent_id: "pi_1".to_owned(), confirmed_at: at(3) }),
        event(
            ORDER,
            4,
            OrderShipped { carrier: "DHL".to_owned(), tracking_number: "T1".to_owned(), shipped_at: at(4), request: None },
        ),
        event(ORDER, 5, OrderDelivered { delivered_at: at(5), request: None }),
        event(
            ORDER,
            6,
            OrderRejected {
                shortages: vec![Shortage { sku: "TEA-1".parse().unwrap(), requested: 2, available: 1 }],
                rejected_at: at(6),
            },
        ),
        event(
            ORDER,
            7,
            OrderCancelled { cause: Cause::Customer, reason: "changed my mind".to_owned(), cancelled_at: at(7), request: None },
        ),
    ]
}

#[test]
fn the_view_of_an_order_agrees_with_the_order() {
    let (mut view, mut order) = (OrderView::default(), Order::default());
    for envelope in all_order_events() {
        view.update(&envelope);
        order.evolve(&envelope.payload);

        assert_eq!(Some(view.status), order.status);
        let placement = order.placement.as_ref().unwrap();
        assert_eq!((view.total, view.placed_at), (placement.total, placement.placed_at));
        assert_eq!(view.customer.email, placement.customer.email);
        assert_eq!(view.lines.len(), placement.lines.len());
        assert_eq!(view.payment_due_at, order.payment_due_at);
        assert_eq!(view.shipment, order.shipment);
        assert_eq!(view.cancellation, order.cancellation);
        assert_eq!(view.rejection.as_ref().map_or(&[][..], |rejection| &rejection.shortages), order.shortages);
        assert_eq!(view.version, envelope.sequence as u64);
        assert_eq!(view.position, view.version * 10);
        assert_eq!(view.updated_at, at(view.version.cast_signed()));
    }
    assert_eq!(view.order_id, ORDER);
}

#[test]
fn folding_an_event_again_changes_nothing() {
    let mut view = OrderView::default();
    let events = all_order_events();
    for envelope in &events[..5] {
        view.update(envelope);
    }
    let before = view.clone();
    for envelope in &events[..5] {
        view.update(envelope);
    }
    assert_eq!(view, before);
    assert_eq!(view.status, OrderStatus::Delivered, "the status never goes backwards");
}

#[test]
fn an_order_shows_what_became_of_its_payment() {
    let amount = Money::new(2500, "EUR".parse().unwrap());
    let mut view = OrderView::default();
    view.update(&event::<Order>(ORDER, 1, placed()));
    let captured = event::<Payment>(ORDER, 1, PaymentCaptured { payment_intent_id: "pi_1".to_owned(), amount, captured_at: at(8) });
    view.update(&captured);
    assert_eq!(view.payment_status, PaymentStatus::Captured);

    view.update(&event::<Payment>(ORDER, 2, PaymentRefunded { refund_id: "re_1".to_owned(), amount, refunded_at: at(9) }));
    view.update(&captured);
    assert_eq!(view.payment_status, PaymentStatus::Refunded, "the older event comes too late");
    assert_eq!((view.version, view.position), (1, 20), "the order's version is not the payment's");
    let payment = view.payment.as_ref().unwrap();
    assert_eq!(payment.payment_intent_id.as_deref(), Some("pi_1"));
    assert_eq!((payment.amount, payment.refunded_amount), (Some(amount), Some(amount)));
    assert_eq!((payment.captured_at, payment.refunded_at), (Some(at(8)), Some(at(9))));

    let given_up = |version| {
        let given_up = PaymentGivenUp { position: 17, reason: "it is stuck".to_owned(), given_up_at: at(9) };
        event::<Payment>(ORDER, version, given_up)
    };
    view.update(&given_up(3));
    let failure = view.payment.as_ref().unwrap().failure.as_ref().unwrap();
    assert_eq!((failure.position, failure.reason.as_str(), failure.given_up_at), (17, "it is stuck", at(9)));
    assert_eq!(view.payment_status, PaymentStatus::Refunded, "where the money is has not changed");

    let declined =
        PaymentDeclined { code: "card_declined".to_owned(), message: "insufficient funds".to_owned(), declined_at: at(8) };
    let mut view = OrderView::default();
    view.update(&event::<Payment>(ORDER, 1, declined));
    assert_eq!(view.payment_status, PaymentStatus::Declined);
    assert_eq!(view.payment.unwrap().decline_code.as_deref(), Some("card_declined"));
}

#[test]
fn an_order_shows_what_the_customer_was_told() {
    let order_id: OrderId = ORDER.parse().unwrap();
    let (topic, channel) = (Topic::OrderConfirmed, "email".to_owned());
    let failed =
        NotificationFailed { order_id, topic, channel: channel.clone(), reason: "no such mailbox".to_owned(), failed_at: at(1) };
    let sent = NotificationSent { order_id, topic, channel, sent_at: at(2) };

    let mut view = OrderView::default();
    view.update(&event::<Notification>("n-1", 1, failed.clone()));
    view.update(&event::<Notification>("n-2", 1, sent.clone()));
    assert_eq!(view.notifications.len(), 2);
    assert_eq!(view.notification("n-1").unwrap().status, Notification::Failed);

    view.update(&event::<Notification>("n-1", 2, sent));
    view.update(&event::<Notification>("n-1", 1, failed));
    assert_eq!(view.notifications.len(), 2);
    let first = view.notification("n-1").unwrap();
    assert_eq!((first.status, first.at, &first.reason), (Notification::Sent, at(2), &None));
}

#[test]
fn the_view_of_stock_agrees_with_the_stock() {
    let allocations = |quantities: &[u64]| {
        let order = |index: usize| OrderId(Uuid::from_u128(index as u128));
        let pairs = quantities.iter().enumerate();
        pairs.map(|(index, &quantity)| Allocation { order_id: order(index), quantity }).collect::<Vec<_>>()
    };
    let events: Vec<StockEvent> = vec![
        StockReceived { quantity: 10, reference: "r".to_owned(), received_at: at(1), request: None }.into(),
        StockReserved { allocations: allocations(&[2, 3, 1]), reserved_at: at(2) }.into(),
        StockAdjusted { delta: -1, reason: "c".to_owned(), reference: "r".to_owned(), adjusted_at: at(3), request: None }.into(),
        StockReleased { allocations: allocations(&[2]), released_at: at(4) }.into(),
        StockShipped { allocations: allocations(&[0, 3]), shipped_at: at(5) }.into(),
    ];
    let (mut view, mut stock) = (StockView::default(), Stock::default());
    for (version, payload) in (1..).zip(events) {
        let envelope = event::<Stock>("TEA-1", version, payload);
        view.update(&envelope);
        view.update(&envelope);
        stock.evolve(&envelope.payload);
        assert_eq!((view.on_hand, view.reserved, view.available()), (stock.on_hand, stock.reserved, stock.available()));
        assert_eq!((view.version, view.position), (version, version * 10));
    }
    assert_eq!(view.sku, "TEA-1");
}

#[test]
fn a_payload_of_an_older_build_still_reads() {
    let view: OrderView = serde_json::from_str(r#"{"order_id":"o-1","status":"SHIPPED","version":4}"#).unwrap();
    assert_eq!((view.status, view.version), (OrderStatus::Shipped, 4));
    assert!(view.notifications.is_empty());
}

#[test]
fn times_of_another_clock_do_not_take_a_view_back() {
    let mut view = StockView::default();
    let received = |quantity| StockReceived { quantity, reference: "r".to_owned(), received_at: at(1), request: None };
    view.update(&event::<Stock>("TEA-1", 1, received(1)));
    let mut early = event::<Stock>("TEA-1", 2, received(1));
    let past = (at(1) - Duration::hours(1)).format(&time::format_description::well_known::Rfc3339).unwrap();
    early.metadata.insert(read_store::views::TIME.to_owned(), past);
    view.update(&early);
    assert_eq!((view.version, view.updated_at), (2, at(1)));
}
