//! `contrail.orders`, in each of the orders that an index has.

mod keys;

use domain::order::OrderStatus;
use domain::payment::PaymentStatus;
use read_store::views::OrderView;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use time::OffsetDateTime;

use super::keyset::{Conditions, Sql, Table, push_begins_with};
use crate::paging::Direction;

pub use keys::{ByPlacing, ByUpdate, OrderKey};

/// One order, with the key that it is sorted by.
#[derive(Clone, Debug)]
pub struct OrderRow<K = ByPlacing> {
    /// The order.
    pub view: OrderView,
    /// Its sort key.
    pub key: K,
}

impl<K: OrderKey> FromRow<'_, PgRow> for OrderRow<K> {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Json(view) = row.try_get("payload")?;
        Ok(Self { view, key: K::from_row(row)? })
    }
}

impl<K: OrderKey> Table for OrderRow<K> {
    type Key = K;

    const NAME: &'static str = "contrail.orders";
    const COLUMNS: &'static str = K::COLUMNS;
    const FORWARDS: &'static str = K::FORWARDS;
    const BACKWARDS: &'static str = K::BACKWARDS;

    fn key(&self) -> K {
        self.key.clone()
    }

    fn push_beyond(sql: &mut Sql, key: &K, direction: Direction, or_at: bool) {
        key.push_beyond(sql, direction, or_at);
    }
}

/// Which orders. What is `None` excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct OrderConditions {
    /// Any of these.
    pub status: Option<Vec<OrderStatus>>,
    /// This one.
    pub payment_status: Option<PaymentStatus>,
    /// Of this customer.
    pub customer_id: Option<String>,
    /// The customer's id begins with this.
    pub customer_id_prefix: Option<String>,
    /// The order's id begins with this.
    pub order_id_prefix: Option<String>,
    /// With a line of this SKU.
    pub sku: Option<String>,
    /// Of this customer, because the caller may see no others.
    pub visible_of: Option<String>,
    /// Placed then or later.
    pub placed_after: Option<OffsetDateTime>,
    /// Placed earlier than this.
    pub placed_before: Option<OffsetDateTime>,
}

impl Conditions for OrderConditions {
    fn push(&self, sql: &mut Sql) {
        match self.status.as_deref() {
            // One status alone keeps the index's order; a list would have to be sorted.
            Some([status]) => {
                sql.push(" AND status = ").push_bind(status.as_str());
            }
            Some(statuses) => {
                let statuses: Vec<_> = statuses.iter().map(|status| status.as_str()).collect();
                sql.push(" AND status = ANY(").push_bind(statuses).push(")");
            }
            None => {}
        }
        if let Some(status) = self.payment_status {
            // The rare ones have an index of their own, which serves a statement only if that names one of them.
            sql.push(" AND payment_status = '").push(status.as_str()).push("'");
        }
        for customer_id in [&self.visible_of, &self.customer_id].into_iter().flatten() {
            sql.push(" AND customer_id = ").push_bind(customer_id.clone());
        }
        if let Some(sku) = &self.sku {
            sql.push(" AND skus @> ARRAY[").push_bind(sku.clone()).push("]");
        }
        for (column, prefix) in [("customer_id", &self.customer_id_prefix), ("view_id", &self.order_id_prefix)] {
            if let Some(prefix) = prefix {
                push_begins_with(sql, column, prefix);
            }
        }
        if let Some(from) = self.placed_after {
            sql.push(" AND placed_at >= ").push_bind(from);
        }
        if let Some(until) = self.placed_before {
            sql.push(" AND placed_at < ").push_bind(until);
        }
    }

    /// Half of all orders may be of one SKU and three of another; one customer may have a few orders and the next thousands.
    fn depend_on_values(&self) -> bool {
        let texts = [&self.sku, &self.customer_id, &self.customer_id_prefix, &self.order_id_prefix];
        texts.iter().any(|text| text.is_some()) || self.status.is_some()
    }
}
