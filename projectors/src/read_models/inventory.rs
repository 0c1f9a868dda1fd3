//! `contrail.inventory`: the stock of each SKU.

use cqrs_es::Aggregate;
use domain::{
    DecodeError,
    envelope::StoredEventRef,
    stock::{Stock, StockEvent},
};
use read_store::{
    projections::ProjectionName,
    views::{Stamp, StockView},
};
use sqlx::PgConnection;

use super::{
    orders::{column, payload},
    signed,
    view_table::{StoredView, check_follows, pass},
};
use crate::copy::CopyRow;

impl StoredView for StockView {
    const NAME: ProjectionName = ProjectionName::Inventory;
    const AGGREGATES: &'static [&'static str] = &[Stock::TYPE];
    type Change = StockEvent;

    fn change(event: &StoredEventRef<'_>) -> Result<Option<(String, StockEvent)>, DecodeError> {
        if event.metadata.aggregate_type != Stock::TYPE {
            return Ok(None);
        }
        Ok(Some((event.metadata.aggregate_id.to_string(), event.decode()?)))
    }

    fn apply(&mut self, sku: &str, event: &StockEvent, stamp: &Stamp) -> Result<(), String> {
        check_follows("stock", self.version, stamp.version)?;
        self.fold(sku, event, stamp);
        Ok(())
    }

    fn row_of<'e>(event: &'e StoredEventRef<'_>) -> Option<&'e str> {
        (event.metadata.aggregate_type == Stock::TYPE).then_some(&*event.metadata.aggregate_id)
    }

    fn pass(&mut self, event: &StoredEventRef<'_>) {
        pass(&mut self.version, event);
    }

    const COLUMNS: &'static [&'static str] = &["view_id", "version", "payload", "on_hand", "reserved", "updated_at", "position"];

    fn encode(&self, id: &str, row: &mut CopyRow<'_>) {
        row.text(id)
            .bigint(signed(self.version))
            .json(self)
            .bigint(self.on_hand)
            .bigint(self.reserved)
            .time(self.updated_at)
            .bigint(signed(self.position));
    }

    async fn update(connection: &mut PgConnection, table: &str, rows: &[(&str, &Self)]) -> Result<u64, sqlx::Error> {
        let sql = format!(
            "UPDATE {table} AS stored SET version = row.version, payload = row.payload::json, on_hand = row.on_hand, \
             reserved = row.reserved, updated_at = row.updated_at, position = row.position \
             FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::bigint[]) \
             AS row (view_id, version, payload, on_hand, reserved, updated_at, position) \
             WHERE stored.view_id = row.view_id"
        );
        let updated = sqlx::query(&sql)
            .bind(column(rows, |id, _| id))
            .bind(column(rows, |_, stock| signed(stock.version)))
            .bind(column(rows, |_, stock| payload(stock)))
            .bind(column(rows, |_, stock| stock.on_hand))
            .bind(column(rows, |_, stock| stock.reserved))
            .bind(column(rows, |_, stock| stock.updated_at))
            .bind(column(rows, |_, stock| signed(stock.position)))
            .execute(connection)
            .await?;
        Ok(updated.rows_affected())
    }
}
