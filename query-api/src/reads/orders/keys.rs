//! What orders can be sorted by. Each key ends with the order's id, which makes it unique.

use sqlx::FromRow;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::paging::{Direction, Key};
use crate::reads::keyset::Sql;

/// What orders can be sorted by.
pub trait OrderKey: Key + Clone + Send + Sync + Unpin + for<'r> FromRow<'r, PgRow> {
    /// The key's columns, and the document.
    const COLUMNS: &'static str;
    /// `ORDER BY`, what is latest first.
    const FORWARDS: &'static str;
    /// `ORDER BY` of the opposite order.
    const BACKWARDS: &'static str;

    /// Adds the condition that a row lies beyond this key in `direction`, or also at it.
    fn push_beyond(&self, sql: &mut Sql, direction: Direction, or_at: bool);
}

/// Newest first; orders of the same microsecond by id.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ByPlacing {
    placed_at: OffsetDateTime,
    view_id: String,
}

impl Key for ByPlacing {
    const KIND: &'static str = "order";

    fn to_text(&self) -> String {
        time_and_id(self.placed_at, &self.view_id)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (placed_at, view_id) = from_time_and_id(text)?;
        Some(Self { placed_at, view_id })
    }
}

impl OrderKey for ByPlacing {
    const COLUMNS: &'static str = "placed_at, view_id, payload";
    const FORWARDS: &'static str = "placed_at DESC, view_id";
    const BACKWARDS: &'static str = "placed_at, view_id DESC";

    fn push_beyond(&self, sql: &mut Sql, direction: Direction, or_at: bool) {
        // The two columns sort in opposite directions, so a row comparison will not do. The first condition is implied by the
        // second; it is what lets the index start at the right place.
        let (at_or_beyond, beyond, id_beyond) = match direction {
            Direction::Forwards => (" <= ", " < ", " > "),
            Direction::Backwards => (" >= ", " > ", " < "),
        };
        sql.push("placed_at").push(at_or_beyond).push_bind(self.placed_at);
        sql.push(" AND (placed_at").push(beyond).push_bind(self.placed_at);
        sql.push(" OR view_id").push(id_beyond).push_bind(self.view_id.clone());
        if or_at {
            sql.push(" OR view_id = ").push_bind(self.view_id.clone());
        }
        sql.push(")");
    }
}

/// What changed last first.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct ByUpdate {
    updated_at: OffsetDateTime,
    view_id: String,
}

impl Key for ByUpdate {
    const KIND: &'static str = "order-by-update";

    fn to_text(&self) -> String {
        time_and_id(self.updated_at, &self.view_id)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (updated_at, view_id) = from_time_and_id(text)?;
        Some(Self { updated_at, view_id })
    }
}

impl OrderKey for ByUpdate {
    const COLUMNS: &'static str = "updated_at, view_id, payload";
    const FORWARDS: &'static str = "updated_at DESC, view_id DESC";
    const BACKWARDS: &'static str = "updated_at, view_id";

    fn push_beyond(&self, sql: &mut Sql, direction: Direction, or_at: bool) {
        sql.push("(updated_at, view_id)").push(direction.opposite().comparison(or_at)).push("(");
        sql.push_bind(self.updated_at).push(", ").push_bind(self.view_id.clone()).push(")");
    }
}

fn time_and_id(time: OffsetDateTime, view_id: &str) -> String {
    // Postgres keeps microseconds, so this loses nothing.
    format!("{}:{view_id}", time.unix_timestamp_nanos() / 1_000)
}

fn from_time_and_id(text: &str) -> Option<(OffsetDateTime, String)> {
    let (micros, view_id) = text.split_once(':')?;
    let nanos = i128::from(micros.parse::<i64>().ok()?) * 1_000;
    Some((OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?, view_id.to_owned()))
}
