//! Commands over HTTP.

use domain::OrderId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::retry::{self, ShopError};
use super::{Acknowledged, Shop};

/// The header that names a request, so that a second try of it is recognised.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// What a checkout sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewOrder {
    /// Who buys.
    pub customer: Customer,
    /// ISO 4217.
    pub currency: String,
    /// What is bought.
    pub lines: Vec<Line>,
    /// The gateway's name of the card.
    pub payment_method: String,
}

/// Who buys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Customer {
    /// The shop's id.
    pub id: String,
    /// Where mail goes.
    pub email: String,
    /// How to address them.
    pub name: String,
}

/// So many pieces of one SKU at one price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What.
    pub sku: String,
    /// How many.
    pub quantity: u32,
    /// The price of one in minor units.
    pub unit_price_minor: i64,
}

/// The answer to a command on an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct OrderAnswer {
    /// Which order.
    pub order_id: Uuid,
    /// Where it stands.
    pub status: String,
    /// How many events it has.
    pub version: u64,
    /// Where the last of them stands in the log.
    pub position: u64,
}

/// The answer to a command on stock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StockAnswer {
    /// Which SKU.
    pub sku: String,
    /// Pieces on the shelf.
    pub on_hand: i64,
    /// Pieces promised.
    pub reserved: i64,
    /// Pieces that can be promised.
    pub available: i64,
    /// How many events it has.
    pub version: u64,
    /// Where the last of them stands in the log.
    pub position: u64,
}

/// Any answer, as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct RawAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Whether the server says that it gave this answer before.
    pub replayed: bool,
    /// The body; null if it is not JSON.
    pub body: Value,
}

impl Shop {
    /// Puts goods on the shelf.
    pub async fn receive(&self, sku: &str, quantity: u32, key: &str) -> Result<StockAnswer, ShopError> {
        let body = json!({ "quantity": quantity, "reference": key });
        self.post(&format!("/v1/stock/{sku}/receipts"), key, &body).await?.json()
    }

    /// Places an order, and remembers what was acknowledged.
    pub async fn place(&self, order: &NewOrder, key: &str) -> Result<OrderAnswer, ShopError> {
        let answer: OrderAnswer = self.post("/v1/orders", key, order).await?.json()?;
        self.acknowledge(key, Acknowledged { order_id: OrderId(answer.order_id), position: answer.position });
        Ok(answer)
    }

    /// The customer calls an order off.
    pub async fn cancel(&self, order_id: Uuid, reason: &str, key: &str) -> Result<OrderAnswer, ShopError> {
        self.post(&format!("/v1/orders/{order_id}/cancel"), key, &json!({ "reason": reason })).await?.json()
    }

    /// The warehouse hands an order to a carrier.
    pub async fn ship(&self, order_id: Uuid, tracking_number: &str, key: &str) -> Result<OrderAnswer, ShopError> {
        let body = json!({ "carrier": "Contrail Parcels", "tracking_number": tracking_number });
        self.post(&format!("/v1/orders/{order_id}/ship"), key, &body).await?.json()
    }

    /// The parcel arrived.
    pub async fn deliver(&self, order_id: Uuid, key: &str) -> Result<OrderAnswer, ShopError> {
        self.post(&format!("/v1/orders/{order_id}/deliver"), key, &json!({})).await?.json()
    }

    /// Any POST to the command API with its retries, whatever the answer is. Nothing is remembered.
    pub async fn post_raw(&self, path: &str, key: &str, body: &Value) -> Result<RawAnswer, ShopError> {
        let answered = self.post(path, key, body).await?;
        let status = answered.status.as_u16();
        Ok(RawAnswer { status, replayed: answered.replayed, body: serde_json::from_str(&answered.body).unwrap_or_default() })
    }

    async fn post(&self, path: &str, key: &str, body: &impl Serialize) -> Result<retry::Answered, ShopError> {
        let is_of_shop = path.starts_with("/v1/stock/") || path.ends_with("/ship") || path.ends_with("/deliver");
        let request = self.http.post(format!("{}{path}", self.command_api)).header(IDEMPOTENCY_KEY, key).json(body);
        let request = self.sign(request, if is_of_shop { "operator" } else { "service" });
        retry::send(request, self.patience, key, &self.vain).await
    }
}
