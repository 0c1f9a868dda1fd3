//! Rows of the read models, as a projector would have written them.

use domain::Money;
use domain::envelope::{Metadata, StoredEvent};
use domain::notification::{Notification, Topic};
use domain::order::{Cancellation, Cause, OrderStatus, Shipment, Shortage};
use domain::payment::PaymentStatus;
use read_store::views::{
    CustomerView, LineView, NotificationView, OrderView, PaymentFailureView, PaymentView, RejectionView, StockView,
};
use serde_json::Value;
use serde_json::value::to_raw_value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

/// When the first of all these orders was placed.
pub(crate) const T0: OffsetDateTime = datetime!(2026-11-20 12:00:00.123456 UTC);

/// The id of the order of that number.
pub(crate) fn order_id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

/// A placed order of that number: 2 × TEA-1 at 12.50 EUR by customer c-42.
pub(crate) fn placed(number: u128) -> OrderView {
    OrderView {
        order_id: order_id(number),
        customer: CustomerView { id: "c-42".to_owned(), name: "A".to_owned(), email: "a@example.com".to_owned() },
        lines: vec![LineView { sku: "TEA-1".to_owned(), quantity: 2, unit_price_minor: 1_250 }],
        total: Money::new(2_500, "EUR".parse().expect("a currency")),
        placed_at: T0,
        updated_at: T0,
        version: 1,
        position: 1,
        ..OrderView::default()
    }
}

/// An order with everything that can happen to one, even what excludes each other.
pub(crate) fn eventful(number: u128) -> OrderView {
    let at = T0 + time::Duration::minutes(1);
    OrderView {
        status: OrderStatus::Cancelled,
        payment_status: PaymentStatus::Refunded,
        reserved_at: Some(at),
        payment_due_at: Some(at),
        confirmed_at: Some(at),
        rejection: Some(RejectionView {
            shortages: vec![Shortage { sku: "TEA-1".parse().expect("a SKU"), requested: 2, available: 1 }],
            rejected_at: at,
        }),
        cancellation: Some(Cancellation { cause: Cause::PaymentDeadline, reason: "unpaid".to_owned(), cancelled_at: at }),
        shipment: Some(Shipment {
            carrier: "DHL".to_owned(),
            tracking_number: "T1".to_owned(),
            shipped_at: at,
            delivered_at: None,
        }),
        payment: Some(PaymentView {
            version: 2,
            payment_intent_id: Some("pi_1".to_owned()),
            amount: Some(Money::new(2_500, "EUR".parse().expect("a currency"))),
            captured_at: Some(at),
            refund_id: Some("re_1".to_owned()),
            refunded_amount: Some(Money::new(2_500, "EUR".parse().expect("a currency"))),
            refunded_at: Some(at),
            failure: Some(PaymentFailureView { position: 8, reason: "the gateway refused".to_owned(), given_up_at: at }),
            ..PaymentView::default()
        }),
        notifications: vec![NotificationView {
            id: order_id(99),
            version: 1,
            topic: Topic::OrderCancelled,
            channel: "email".to_owned(),
            status: Notification::Failed,
            reason: Some("no such mailbox".to_owned()),
            at,
        }],
        version: 4,
        position: 9,
        updated_at: at,
        ..placed(number)
    }
}

pub(crate) async fn insert_order(connection: &mut PgConnection, view: &OrderView) {
    sqlx::query(
        "INSERT INTO contrail.orders (view_id, version, payload, status, payment_status, customer_id, placed_at, updated_at,
                                      position, total_minor, currency, skus)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&view.order_id)
    .bind(i64::try_from(view.version).expect("a small version"))
    .bind(sqlx::types::Json(view))
    .bind(view.status.as_str())
    .bind(view.payment_status.as_str())
    .bind(&view.customer.id)
    .bind(view.placed_at)
    .bind(view.updated_at)
    .bind(i64::try_from(view.position).expect("a small position"))
    .bind(view.total.minor_units)
    .bind(view.total.currency.code())
    .bind(view.skus())
    .execute(connection)
    .await
    .expect("a row of an order");
}

pub(crate) async fn insert_stock(connection: &mut PgConnection, sku: &str, on_hand: i64, reserved: i64) {
    let view = StockView { sku: sku.to_owned(), on_hand, reserved, version: 3, position: 7, updated_at: T0 };
    sqlx::query(
        "INSERT INTO contrail.inventory (view_id, version, payload, on_hand, reserved, updated_at, position)
         VALUES ($1, 3, $2, $3, $4, $5, 7)",
    )
    .bind(sku)
    .bind(sqlx::types::Json(&view))
    .bind(on_hand)
    .bind(reserved)
    .bind(T0)
    .execute(connection)
    .await
    .expect("a row of the inventory");
}

/// An event of the audit trail: an aggregate's `version`-th, of a type such as `order.placed`.
pub(crate) async fn insert_event(
    connection: &mut PgConnection,
    position: u32,
    event_type: &str,
    aggregate_id: &str,
    version: u32,
    data: &Value,
) {
    let (aggregate_type, _) = event_type.split_once('.').expect("a type such as order.placed");
    let metadata = Metadata {
        event_id: Uuid::from_u128(position.into()),
        event_type: format!("contrail.{event_type}.v1"),
        source: "/contrail/test".to_owned(),
        aggregate_id: aggregate_id.to_owned(),
        time: T0 + time::Duration::seconds(position.into()),
        aggregate_type: aggregate_type.to_owned(),
        version: version.into(),
        correlation_id: format!("story-of-{aggregate_id}"),
        causation_id: (version > 1).then(|| "the event before".to_owned()),
        actor: (version == 1).then(|| "customer:c-42".to_owned()),
        traceparent: None,
    };
    let event = StoredEvent { metadata, data: to_raw_value(data).expect("JSON") };
    let StoredEvent { metadata, .. } = &event;
    sqlx::query(
        "INSERT INTO contrail.audit (position, event_id, event_type, aggregate_type, aggregate_id, version, time, actor,
                                     correlation_id, causation_id, trace_id, bytes, leaf_hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, '\\x00ff')",
    )
    .bind(i64::from(position))
    .bind(metadata.event_id)
    .bind(&metadata.event_type)
    .bind(&metadata.aggregate_type)
    .bind(&metadata.aggregate_id)
    .bind(i64::from(version))
    .bind(metadata.time)
    .bind(&metadata.actor)
    .bind(&metadata.correlation_id)
    .bind(&metadata.causation_id)
    .bind(metadata.trace_id())
    .bind(event.to_json())
    .execute(connection)
    .await
    .expect("a row of the audit trail");
}

/// Moves a projection and says so, as a projector does after a batch.
pub(crate) async fn advance(connection: &mut PgConnection, projection: &str, position: i64) {
    sqlx::query(
        "WITH moved AS (UPDATE contrail.projections SET position = $2, head = greatest(head, $2) WHERE name = $1)
         SELECT pg_notify('contrail_projections', json_build_object('name', $1, 'position', $2)::text)",
    )
    .bind(projection)
    .bind(position)
    .execute(connection)
    .await
    .expect("a projection that moves");
}
