//! `contrail.inventory`: the stock of each SKU.

use cqrs_es::{Aggregate, EventEnvelope, View};
use domain::{DecodeError, envelope::StoredEvent, stock::Stock};
use read_store::{
    projections::ProjectionName,
    views::{StockView, envelope},
};
use sqlx::PgConnection;

use super::{
    orders::{column, payload},
    signed,
    view_table::{StoredView, check_follows},
};

impl StoredView for StockView {
    const NAME: ProjectionName = ProjectionName::Inventory;
    type Change = EventEnvelope<Stock>;

    fn change(position: u64, event: &StoredEvent) -> Result<Option<(String, EventEnvelope<Stock>)>, DecodeError> {
        if event.metadata.aggregate_type != Stock::TYPE {
            return Ok(None);
        }
        Ok(Some((event.metadata.aggregate_id.clone(), envelope(position, event)?)))
    }

    fn apply(&mut self, change: &EventEnvelope<Stock>) -> Result<(), String> {
        check_follows("stock", self.version, change.sequence)?;
        self.update(change);
        Ok(())
    }

    async fn upsert(connection: &mut PgConnection, table: &str, rows: &[(&str, &Self)]) -> Result<(), sqlx::Error> {
        let sql = format!(
            "INSERT INTO {table} (view_id, version, payload, on_hand, reserved, updated_at, position) \
             SELECT view_id, version, payload::json, on_hand, reserved, updated_at, position \
             FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::bigint[]) \
             AS row (view_id, version, payload, on_hand, reserved, updated_at, position) \
             ON CONFLICT (view_id) DO UPDATE SET version = EXCLUDED.version, payload = EXCLUDED.payload, \
             on_hand = EXCLUDED.on_hand, reserved = EXCLUDED.reserved, updated_at = EXCLUDED.updated_at, \
             position = EXCLUDED.position"
        );
        sqlx::query(&sql)
            .bind(column(rows, |id, _| id))
            .bind(column(rows, |_, stock| signed(stock.version)))
            .bind(column(rows, |_, stock| payload(stock)))
            .bind(column(rows, |_, stock| stock.on_hand))
            .bind(column(rows, |_, stock| stock.reserved))
            .bind(column(rows, |_, stock| stock.updated_at))
            .bind(column(rows, |_, stock| signed(stock.position)))
            .execute(connection)
            .await?;
        Ok(())
    }
}
