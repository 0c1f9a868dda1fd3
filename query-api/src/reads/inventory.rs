//! `contrail.inventory`, by SKU.

use read_store::views::StockView;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};

use super::keyset::{Conditions, Sql, Table, push_begins_with};
use crate::paging::{Direction, Key};

/// The stock of one SKU.
#[derive(Clone, Debug)]
pub struct StockRow {
    /// The stock.
    pub view: StockView,
    /// Its sort key.
    pub key: StockKey,
}

impl FromRow<'_, PgRow> for StockRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let Json(view) = row.try_get("payload")?;
        Ok(Self { view, key: StockKey(row.try_get("view_id")?) })
    }
}

/// The SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockKey(String);

impl Key for StockKey {
    const KIND: &'static str = "stock";

    fn to_text(&self) -> String {
        self.0.clone()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

impl Table for StockRow {
    type Key = StockKey;

    const NAME: &'static str = "contrail.inventory";
    const COLUMNS: &'static str = "view_id, payload";
    const FORWARDS: &'static str = "view_id";
    const BACKWARDS: &'static str = "view_id DESC";

    fn key(&self) -> StockKey {
        self.key.clone()
    }

    fn push_beyond(sql: &mut Sql, key: &StockKey, direction: Direction, or_at: bool) {
        sql.push("view_id").push(direction.comparison(or_at)).push_bind(key.0.clone());
    }
}

/// Which SKUs. What is `None` excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct StockConditions {
    /// The SKU begins with this.
    pub sku_prefix: Option<String>,
    /// Fewer pieces than this can be promised.
    pub available_below: Option<i32>,
    /// At least so many pieces can be promised.
    pub available_at_least: Option<i32>,
}

impl Conditions for StockConditions {
    fn push(&self, sql: &mut Sql) {
        if let Some(prefix) = &self.sku_prefix {
            push_begins_with(sql, "view_id", prefix);
        }
        if let Some(limit) = self.available_below {
            sql.push(" AND on_hand - reserved < ").push_bind(limit);
        }
        if let Some(limit) = self.available_at_least {
            sql.push(" AND on_hand - reserved >= ").push_bind(limit);
        }
    }
}
