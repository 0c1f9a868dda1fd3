//! `contrail.orders`, newest first.

use domain::order::OrderStatus;
use domain::payment::PaymentStatus;
use read_store::views::OrderView;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use time::OffsetDateTime;

use super::keyset::{Sql, Table};
use crate::paging::{Direction, Key};

/// One order.
#[derive(Clone, Debug)]
pub struct OrderRow {
    /// The order.
    pub view: OrderView,
    /// Its sort key.
    pub key: OrderKey,
}

impl FromRow<'_, PgRow> for OrderRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Json(view) = row.try_get("payload")?;
        let key = OrderKey { placed_at: row.try_get("placed_at")?, view_id: row.try_get("view_id")? };
        Ok(Self { view, key })
    }
}

/// Newest first; orders of the same microsecond by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderKey {
    placed_at: OffsetDateTime,
    view_id: String,
}

impl Key for OrderKey {
    const KIND: &'static str = "order";

    fn to_text(&self) -> String {
        // Postgres keeps microseconds, so this loses nothing.
        format!("{}:{}", self.placed_at.unix_timestamp_nanos() / 1_000, self.view_id)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (micros, view_id) = text.split_once(':')?;
        let nanos = i128::from(micros.parse::<i64>().ok()?) * 1_000;
        let placed_at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
        Some(Self { placed_at, view_id: view_id.to_owned() })
    }
}

impl Table for OrderRow {
    type Key = OrderKey;

    const NAME: &'static str = "contrail.orders";
    const COLUMNS: &'static str = "view_id, placed_at, payload";
    const FORWARDS: &'static str = "placed_at DESC, view_id";
    const BACKWARDS: &'static str = "placed_at, view_id DESC";

    fn key(&self) -> OrderKey {
        self.key.clone()
    }

    fn push_beyond(sql: &mut Sql, key: &OrderKey, direction: Direction, or_at: bool) {
        // The two columns sort in opposite directions, so a row comparison will not do. The first condition is implied by the
        // second; it is what lets the index start at the right place.
        let (at_or_beyond, beyond, id_beyond) = match direction {
            Direction::Forwards => (" <= ", " < ", " > "),
            Direction::Backwards => (" >= ", " > ", " < "),
        };
        sql.push("placed_at").push(at_or_beyond).push_bind(key.placed_at);
        sql.push(" AND (placed_at").push(beyond).push_bind(key.placed_at);
        sql.push(" OR view_id").push(id_beyond).push_bind(key.view_id.clone());
        if or_at {
            sql.push(" OR view_id = ").push_bind(key.view_id.clone());
        }
        sql.push(")");
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
    /// Of this customer, because the caller may see no others.
    pub visible_of: Option<String>,
    /// Placed then or later.
    pub placed_after: Option<OffsetDateTime>,
    /// Placed earlier than this.
    pub placed_before: Option<OffsetDateTime>,
}

impl OrderConditions {
    /// Adds ` AND …` for each condition.
    pub fn push(&self, sql: &mut Sql) {
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
            sql.push(" AND payment_status = ").push_bind(status.as_str());
        }
        for customer_id in [&self.visible_of, &self.customer_id].into_iter().flatten() {
            sql.push(" AND customer_id = ").push_bind(customer_id.clone());
        }
        if let Some(from) = self.placed_after {
            sql.push(" AND placed_at >= ").push_bind(from);
        }
        if let Some(until) = self.placed_before {
            sql.push(" AND placed_at < ").push_bind(until);
        }
    }
}
