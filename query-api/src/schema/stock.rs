//! Stock.

use async_graphql::{ID, InputObject, Object};
use time::OffsetDateTime;

use super::node;
use super::scalars::{Position, int};
use crate::reads::{StockConditions, StockRow};

/// The stock of one SKU.
pub(super) struct StockItem(StockRow);

impl From<StockRow> for StockItem {
    fn from(row: StockRow) -> Self {
        Self(row)
    }
}

/// The stock of one SKU.
#[Object]
impl StockItem {
    /// The object's id among all objects. Opaque: hand it back as it is.
    pub(super) async fn id(&self) -> ID {
        node::stock_item_id(&self.0.view.sku)
    }

    /// The stock keeping unit.
    async fn sku(&self) -> &str {
        &self.0.view.sku
    }

    /// Pieces on the shelf.
    async fn on_hand(&self) -> i32 {
        int(self.0.view.on_hand)
    }

    /// Pieces that are promised to orders and not yet shipped.
    async fn reserved(&self) -> i32 {
        int(self.0.view.reserved)
    }

    /// Pieces that can still be promised: onHand − reserved, never negative.
    async fn available(&self) -> i32 {
        int(self.0.view.available())
    }

    /// When the last event was appended that is taken in here.
    async fn updated_at(&self) -> OffsetDateTime {
        self.0.view.updated_at
    }

    /// The stock's own version: how many events it has had.
    async fn version(&self) -> i32 {
        int(self.0.view.version)
    }

    /// The place in the log of the last event that is taken in here.
    async fn position(&self) -> Position {
        Position(self.0.view.position)
    }
}

/// Which stock items. A field that is left out excludes nothing; all that are given must hold.
#[derive(InputObject)]
pub(super) struct StockFilter {
    /// The SKU begins with this.
    sku_prefix: Option<String>,
    /// Fewer pieces than this are available.
    available_below: Option<i32>,
    /// At least so many pieces are available.
    available_at_least: Option<i32>,
}

impl From<StockFilter> for StockConditions {
    fn from(filter: StockFilter) -> Self {
        Self {
            sku_prefix: filter.sku_prefix,
            available_below: filter.available_below,
            available_at_least: filter.available_at_least,
        }
    }
}
