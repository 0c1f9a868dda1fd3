//! `contrail.orders`: each order, its payment, and what the customer was told.

use cqrs_es::{Aggregate, EventEnvelope, View};
use domain::{
    DecodeError,
    envelope::StoredEvent,
    notification::{Notification, NotificationEvent},
    order::{Order, OrderEvent},
    payment::Payment,
};
use read_store::{
    projections::ProjectionName,
    views::{OrderView, envelope},
};
use sqlx::PgConnection;

use super::{
    signed,
    view_table::{StoredView, check_follows},
};

/// An event that concerns an order.
#[derive(Debug)]
pub(crate) enum OrderChange {
    Order(EventEnvelope<Order>),
    Payment(EventEnvelope<Payment>),
    Notification(EventEnvelope<Notification>),
}

impl StoredView for OrderView {
    const NAME: ProjectionName = ProjectionName::Orders;
    type Change = OrderChange;

    fn change(position: u64, event: &StoredEvent) -> Result<Option<(String, OrderChange)>, DecodeError> {
        let aggregate_id = || event.metadata.aggregate_id.clone();
        let aggregate_type = event.metadata.aggregate_type.as_str();
        let change = if aggregate_type == Order::TYPE {
            (aggregate_id(), OrderChange::Order(envelope(position, event)?))
        } else if aggregate_type == Payment::TYPE {
            // A payment has the id of its order.
            (aggregate_id(), OrderChange::Payment(envelope(position, event)?))
        } else if aggregate_type == Notification::TYPE {
            let envelope: EventEnvelope<Notification> = envelope(position, event)?;
            let order_id = match &envelope.payload {
                NotificationEvent::Sent(sent) => sent.order_id,
                NotificationEvent::Failed(failed) => failed.order_id,
            };
            (order_id.to_string(), OrderChange::Notification(envelope))
        } else {
            return Ok(None);
        };
        Ok(Some(change))
    }

    fn apply(&mut self, change: &OrderChange) -> Result<(), String> {
        match change {
            OrderChange::Order(envelope) => {
                check_follows("order", self.version, envelope.sequence)?;
                if self.version == 0 && !matches!(envelope.payload, OrderEvent::Placed(_)) {
                    return Err("the order was never placed".to_owned());
                }
                self.update(envelope);
            }
            OrderChange::Payment(envelope) => {
                if self.version == 0 {
                    return Err("the payment's order was never placed".to_owned());
                }
                check_follows("payment", self.payment.as_ref().map_or(0, |payment| payment.version), envelope.sequence)?;
                self.update(envelope);
            }
            OrderChange::Notification(envelope) => {
                if self.version == 0 {
                    return Err("the notification's order was never placed".to_owned());
                }
                let known = self.notification(&envelope.aggregate_id);
                check_follows("notification", known.map_or(0, |known| known.version), envelope.sequence)?;
                self.update(envelope);
            }
        }
        Ok(())
    }

    async fn upsert(connection: &mut PgConnection, table: &str, rows: &[(&str, &Self)]) -> Result<(), sqlx::Error> {
        let sql = format!(
            "INSERT INTO {table} (view_id, version, payload, status, payment_status, customer_id, placed_at, updated_at, position, \
             total_minor, currency) \
             SELECT view_id, version, payload::json, status, payment_status, customer_id, placed_at, updated_at, position, \
             total_minor, currency \
             FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], \
             $8::timestamptz[], $9::bigint[], $10::bigint[], $11::text[]) AS row (view_id, version, payload, status, payment_status, \
             customer_id, placed_at, updated_at, position, total_minor, currency) \
             ON CONFLICT (view_id) DO UPDATE SET version = EXCLUDED.version, payload = EXCLUDED.payload, status = EXCLUDED.status, \
             payment_status = EXCLUDED.payment_status, customer_id = EXCLUDED.customer_id, placed_at = EXCLUDED.placed_at, \
             updated_at = EXCLUDED.updated_at, position = EXCLUDED.position, total_minor = EXCLUDED.total_minor, \
             currency = EXCLUDED.currency"
        );
        sqlx::query(&sql)
            .bind(column(rows, |id, _| id))
            .bind(column(rows, |_, order| signed(order.version)))
            .bind(column(rows, |_, order| payload(order)))
            .bind(column(rows, |_, order| order.status.as_str()))
            .bind(column(rows, |_, order| order.payment_status.as_str()))
            .bind(column(rows, |_, order| order.customer.id.as_str()))
            .bind(column(rows, |_, order| order.placed_at))
            .bind(column(rows, |_, order| order.updated_at))
            .bind(column(rows, |_, order| signed(order.position)))
            .bind(column(rows, |_, order| order.total.minor_units))
            .bind(column(rows, |_, order| order.total.currency.code()))
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// One column of rows, as UNNEST wants it.
pub(super) fn column<'r, V, T>(rows: &[(&'r str, &'r V)], value: impl Fn(&'r str, &'r V) -> T) -> Vec<T> {
    rows.iter().map(|(id, view)| value(id, view)).collect()
}

/// The payload column's text.
pub(super) fn payload(view: &impl serde::Serialize) -> String {
    serde_json::to_string(view).expect("a view has string keys and times within RFC 3339's range, so it always serializes")
}
