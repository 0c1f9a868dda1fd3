//! What became of orders and stock, by GraphQL.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{Shop, retry};

/// Rows of a page that the query API gives at most.
const PAGE_ROWS: usize = 100;
/// What to wait before a query is sent again that the server could not answer right now.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
/// Error codes that say: later.
const CODES_TO_RETRY: [&str; 3] = ["UNAVAILABLE", "STALE_READ", "DEADLINE_EXCEEDED"];

const ORDER_FIELDS: &str = "orderId status paymentStatus version position total { minorUnits currencyCode }";

/// An order as the query API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderSeen {
    /// Which order.
    pub order_id: String,
    /// Where it stands.
    pub status: String,
    /// Where its payment stands.
    pub payment_status: String,
    /// How many events of its own it has.
    pub version: u64,
    /// The last event that it shows, in decimal.
    pub position: String,
    /// What it costs.
    pub total: MoneySeen,
}

/// An amount as the query API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoneySeen {
    /// In decimal.
    pub minor_units: String,
    /// ISO 4217.
    pub currency_code: String,
}

/// A SKU as the query API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockSeen {
    /// Pieces on the shelf.
    pub on_hand: i64,
    /// Pieces promised.
    pub reserved: i64,
    /// Pieces that can be promised.
    pub available: i64,
}

/// A read model as the query API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ProjectionSeen {
    /// Which one.
    pub name: String,
    /// The last event that it holds, in decimal.
    pub position: String,
    /// `RUNNING` or `HALTED`.
    pub state: String,
}

/// One event of an order's history.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HistoryEvent {
    /// Where it stands in the log, in decimal.
    pub position: String,
    /// For example `contrail.order.placed.v1`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was appended, as RFC 3339 has it.
    pub time: String,
}

#[derive(Deserialize)]
struct Page<T> {
    edges: Vec<Edge<T>>,
}

#[derive(Deserialize)]
struct Edge<T> {
    node: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusSeen {
    order_id: String,
    status: String,
}

impl Shop {
    /// Any query. Sent again, within the shop's patience, while the server is away or says that it cannot answer right now.
    pub async fn query<T: DeserializeOwned>(&self, query: &str, variables: &Value) -> anyhow::Result<T> {
        let body = json!({ "query": query, "variables": variables });
        let ends = Instant::now() + self.patience;
        loop {
            let request = self.sign(self.http.post(format!("{}/graphql", self.query_api)).json(&body), "auditor");
            let mut answer: Value = retry::send(request, self.patience, query, &self.vain).await?.json()?;
            let Some(errors) = answer.get("errors").and_then(Value::as_array).filter(|errors| !errors.is_empty()) else {
                return serde_json::from_value(answer["data"].take()).with_context(|| format!("read the answer to {query}"));
            };
            let is_temporary =
                errors.iter().all(|error| error["extensions"]["code"].as_str().is_some_and(|code| CODES_TO_RETRY.contains(&code)));
            if !is_temporary || Instant::now() > ends {
                bail!("the query API answers {query} with {}", Value::Array(errors.clone()));
            }
            sleep(PAUSE).await;
        }
    }

    /// Any query, sent once. Fails unless there is an answer; whether it is an error is for the caller to see.
    pub async fn ask_once(&self, query: &str, variables: &Value) -> anyhow::Result<Value> {
        let body = json!({ "query": query, "variables": variables });
        let request = self.sign(self.http.post(format!("{}/graphql", self.query_api)).json(&body), "auditor");
        let response = request.send().await.with_context(|| format!("send {query}"))?;
        let status = response.status();
        let body = response.text().await.with_context(|| format!("read the answer to {query}"))?;
        ensure!(status.is_success(), "{query} is answered with {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("the answer to {query} is {body}"))
    }

    /// One order, as it is once the read model holds `min_position` if that is given; `None` if there is no such order.
    pub async fn order(&self, order_id: &str, min_position: Option<u64>) -> anyhow::Result<Option<OrderSeen>> {
        let query = format!("query($id: ID!, $min: Position) {{ order(id: $id, minPosition: $min) {{ {ORDER_FIELDS} }} }}");
        let variables = json!({ "id": order_id, "min": min_position.map(|position| position.to_string()) });
        let mut data: Map<String, Value> = self.query(&query, &variables).await?;
        Ok(serde_json::from_value(data.remove("order").unwrap_or_default())?)
    }

    /// Several orders in one request; those that do not exist are left out.
    pub async fn orders(&self, order_ids: &[String]) -> anyhow::Result<Vec<OrderSeen>> {
        let (mut arguments, mut fields) = (String::new(), String::new());
        let mut variables = Map::new();
        for (index, order_id) in order_ids.iter().enumerate() {
            write!(arguments, "$o{index}: ID! ")?;
            write!(fields, "o{index}: order(id: $o{index}) {{ {ORDER_FIELDS} }} ")?;
            variables.insert(format!("o{index}"), json!(order_id));
        }
        let query = format!("query({arguments}) {{ {fields} }}");
        let data: BTreeMap<String, Option<OrderSeen>> = self.query(&query, &Value::Object(variables)).await?;
        Ok(data.into_values().flatten().collect())
    }

    /// Order id and status of the newest 100 orders of each of these customers, in one request.
    pub async fn statuses_of_customers(&self, customer_ids: &[String]) -> anyhow::Result<Vec<(String, String)>> {
        let (mut arguments, mut fields) = (String::new(), String::new());
        let mut variables = Map::new();
        for (index, customer_id) in customer_ids.iter().enumerate() {
            write!(arguments, "$c{index}: String! ")?;
            write!(
                fields,
                "c{index}: orders(filter: {{customerId: $c{index}}}, first: {PAGE_ROWS}) {{ edges {{ node {{ orderId status }} }} }} "
            )?;
            variables.insert(format!("c{index}"), json!(customer_id));
        }
        let query = format!("query({arguments}) {{ {fields} }}");
        let data: BTreeMap<String, Page<StatusSeen>> = self.query(&query, &Value::Object(variables)).await?;
        let seen = data.into_values().flat_map(|page| page.edges);
        Ok(seen.map(|Edge { node }| (node.order_id, node.status)).collect())
    }

    /// One SKU, as it is once the read model holds `min_position` if that is given; `None` if nothing of it ever came in.
    pub async fn stock_item(&self, sku: &str, min_position: Option<u64>) -> anyhow::Result<Option<StockSeen>> {
        let query =
            "query($sku: String!, $min: Position) { stockItem(sku: $sku, minPosition: $min) { onHand reserved available } }";
        let variables = json!({ "sku": sku, "min": min_position.map(|position| position.to_string()) });
        let mut data: Map<String, Value> = self.query(query, &variables).await?;
        Ok(serde_json::from_value(data.remove("stockItem").unwrap_or_default())?)
    }

    /// How far each read model is.
    pub async fn projections(&self) -> anyhow::Result<Vec<ProjectionSeen>> {
        let mut data: BTreeMap<String, Vec<ProjectionSeen>> =
            self.query("{ projections { name position state } }", &json!({})).await?;
        data.remove("projections").context("the answer has no projections")
    }

    /// What happened to an order and its payment, oldest first, up to 100 events; as far as the audit trail is, and at least up to
    /// `min_position` if that is given.
    pub async fn history(&self, order_id: &str, min_position: Option<u64>) -> anyhow::Result<Vec<HistoryEvent>> {
        #[derive(Deserialize)]
        struct Answer {
            order: Option<Historic>,
        }
        #[derive(Deserialize)]
        struct Historic {
            history: Page<HistoryEvent>,
        }
        let query = format!(
            "query($id: ID!, $min: Position) {{ order(id: $id, minPosition: $min) {{ history(first: {PAGE_ROWS}) {{ edges {{ node {{ position type time }} }} }} }} }}"
        );
        let variables = json!({ "id": order_id, "min": min_position.map(|position| position.to_string()) });
        let answer: Answer = self.query(&query, &variables).await?;
        let order = answer.order.with_context(|| format!("there is no order {order_id}"))?;
        Ok(order.history.edges.into_iter().map(|edge| edge.node).collect())
    }
}
