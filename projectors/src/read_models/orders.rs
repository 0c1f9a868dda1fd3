//! `contrail.orders`: each order, its payment, and what the customer was told.

use cqrs_es::Aggregate;
use domain::{
    DecodeError,
    envelope::StoredEventRef,
    notification::{Notification, NotificationEvent},
    order::{Order, OrderEvent},
    payment::{Payment, PaymentEvent},
};
use read_store::{
    projections::ProjectionName,
    views::{OrderView, Stamp},
};
use sqlx::PgConnection;

use super::{
    SERIALIZES, signed,
    view_table::{StoredView, check_follows, pass},
};
use crate::copy::CopyRow;

/// An event that concerns an order.
#[derive(Debug)]
pub(crate) enum OrderChange {
    Order(OrderEvent),
    Payment(PaymentEvent),
    /// With the notification's id.
    Notification(String, NotificationEvent),
}

impl StoredView for OrderView {
    const NAME: ProjectionName = ProjectionName::Orders;
    const AGGREGATES: &'static [&'static str] = &[Order::TYPE, Payment::TYPE, Notification::TYPE];
    type Change = OrderChange;

    fn change(event: &StoredEventRef<'_>) -> Result<Option<(String, OrderChange)>, DecodeError> {
        let aggregate_id = || event.metadata.aggregate_id.to_string();
        let aggregate_type = &*event.metadata.aggregate_type;
        let change = if aggregate_type == Order::TYPE {
            (aggregate_id(), OrderChange::Order(event.decode()?))
        } else if aggregate_type == Payment::TYPE {
            // A payment has the id of its order.
            (aggregate_id(), OrderChange::Payment(event.decode()?))
        } else if aggregate_type == Notification::TYPE {
            let notification = event.decode()?;
            let order_id = match &notification {
                NotificationEvent::Sent(sent) => sent.order_id,
                NotificationEvent::Failed(failed) => failed.order_id,
            };
            (order_id.to_string(), OrderChange::Notification(aggregate_id(), notification))
        } else {
            return Ok(None);
        };
        Ok(Some(change))
    }

    fn apply(&mut self, id: &str, change: &OrderChange, stamp: &Stamp) -> Result<(), String> {
        match change {
            OrderChange::Order(event) => {
                check_follows("order", self.version, stamp.version)?;
                if self.version == 0 && !matches!(event, OrderEvent::Placed(_)) {
                    return Err("the order was never placed".to_owned());
                }
                self.fold_order(id, event, stamp);
            }
            OrderChange::Payment(event) => {
                if self.version == 0 {
                    return Err("the payment's order was never placed".to_owned());
                }
                check_follows("payment", self.payment.as_ref().map_or(0, |payment| payment.version), stamp.version)?;
                self.fold_payment(event, stamp);
            }
            OrderChange::Notification(notification_id, event) => {
                if self.version == 0 {
                    return Err("the notification's order was never placed".to_owned());
                }
                let known = self.notification(notification_id);
                check_follows("notification", known.map_or(0, |known| known.version), stamp.version)?;
                self.fold_notification(notification_id, event, stamp);
            }
        }
        Ok(())
    }

    /// Of a notification only the data tell which order it is about.
    fn row_of<'e>(event: &'e StoredEventRef<'_>) -> Option<&'e str> {
        let is_own = [Order::TYPE, Payment::TYPE].contains(&&*event.metadata.aggregate_type);
        is_own.then_some(&*event.metadata.aggregate_id)
    }

    fn pass(&mut self, event: &StoredEventRef<'_>) {
        let version = if event.metadata.aggregate_type == Order::TYPE {
            &mut self.version
        } else {
            &mut self.payment.get_or_insert_default().version
        };
        pass(version, event);
    }

    const COLUMNS: &'static [&'static str] = &[
        "view_id",
        "version",
        "payload",
        "status",
        "payment_status",
        "customer_id",
        "placed_at",
        "updated_at",
        "position",
        "total_minor",
        "currency",
        "skus",
    ];

    fn encode(&self, id: &str, row: &mut CopyRow<'_>) {
        row.text(id)
            .bigint(signed(self.version))
            .json(self)
            .text(self.status.as_str())
            .text(self.payment_status.as_str())
            .text(&self.customer.id)
            .time(self.placed_at)
            .time(self.updated_at)
            .bigint(signed(self.position))
            .bigint(self.total.minor_units)
            .text(self.total.currency.code())
            .texts(&self.skus());
    }

    async fn update(connection: &mut PgConnection, table: &str, rows: &[(&str, &Self)]) -> Result<u64, sqlx::Error> {
        // What an order was placed with never changes.
        let sql = format!(
            "UPDATE {table} AS stored SET version = row.version, payload = row.payload::json, status = row.status, \
             payment_status = row.payment_status, updated_at = row.updated_at, position = row.position \
             FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[]) \
             AS row (view_id, version, payload, status, payment_status, updated_at, position) \
             WHERE stored.view_id = row.view_id"
        );
        let updated = sqlx::query(&sql)
            .bind(column(rows, |id, _| id))
            .bind(column(rows, |_, order| signed(order.version)))
            .bind(column(rows, |_, order| payload(order)))
            .bind(column(rows, |_, order| order.status.as_str()))
            .bind(column(rows, |_, order| order.payment_status.as_str()))
            .bind(column(rows, |_, order| order.updated_at))
            .bind(column(rows, |_, order| signed(order.position)))
            .execute(connection)
            .await?;
        Ok(updated.rows_affected())
    }
}

/// One column of rows, as UNNEST wants it.
pub(super) fn column<'r, V, T>(rows: &[(&'r str, &'r V)], value: impl Fn(&'r str, &'r V) -> T) -> Vec<T> {
    rows.iter().map(|(id, view)| value(id, view)).collect()
}

/// The payload column's text.
pub(super) fn payload(view: &impl serde::Serialize) -> String {
    serde_json::to_string(view).expect(SERIALIZES)
}
