//! Invariant 4: the tables, and what GraphQL makes of them, are what the log says.

use std::collections::BTreeMap;

use anyhow::Context as _;
use domain::Sku;
use futures::TryStreamExt as _;
use local_stack::{Stack, StackInfo};
use read_store::views::{OrderView, StockView};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::log::LogFold;
use super::program::projectors;
use super::violations::Violations;
use crate::shop::{MoneySeen, OrderSeen, Shop};

/// Orders of the sample that is compared by GraphQL, and of one request.
const SAMPLE_ORDERS_MAX: usize = 200;
const ORDERS_PER_REQUEST: usize = 40;

/// Compares every row of every table with the fold of the log, and a sample by GraphQL.
pub(super) async fn check(log: &LogFold, info: &StackInfo, shop: &Shop, violations: &mut Violations) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&info.database).await.context("connect to Postgres")?;
    check_orders(log, &mut connection, violations).await.context("read the table of orders")?;
    check_inventory(log, &mut connection, violations).await.context("read the table of stock")?;
    check_audit(log, &mut connection, violations).await.context("read the table of events")?;
    check_sample(log, shop, violations).await
}

/// Has the projectors compare their tables with a fresh replay.
pub(super) async fn check_replay(stack: &Stack, violations: &mut Violations) -> anyhow::Result<()> {
    if let Err(error) = projectors(stack, &["replay", "all", "--verify"]).await {
        violations.add("replay", format!("{error:#}"));
    }
    Ok(())
}

type OrderRow = (String, i64, Value, String, String, String, i64, i64, String);

async fn check_orders(log: &LogFold, connection: &mut PgConnection, violations: &mut Violations) -> Result<(), sqlx::Error> {
    let mut expected: BTreeMap<String, &super::log::FoldedOrder> =
        log.orders.iter().map(|(order_id, order)| (order_id.to_string(), order)).collect();
    let mut rows = sqlx::query_as::<_, OrderRow>(
        "SELECT view_id, version, payload, status, payment_status, customer_id, position, total_minor, currency FROM contrail.orders",
    )
    .fetch(connection);
    while let Some((order_id, version, payload, status, payment_status, customer_id, position, total_minor, currency)) =
        rows.try_next().await?
    {
        let Some(folded) = expected.remove(&order_id) else {
            violations.add("read models", format!("the table has order {order_id}, and the log does not"));
            continue;
        };
        let view = &folded.view;
        let placement = folded.order.placement.as_ref();
        let is_row_right = Some(status.as_str()) == folded.order.status.map(domain::order::OrderStatus::as_str)
            && payment_status == folded.payment.status.as_str()
            && version == signed(folded.version)
            && position == signed(view.position)
            && placement.is_some_and(|placement| {
                customer_id == placement.customer.id.as_str()
                    && total_minor == placement.total.minor_units
                    && currency == placement.total.currency.code()
            });
        violations.require(is_row_right, "read models", || {
            format!(
                "order {order_id}: the row says {status} {payment_status} version {version} position {position}, the log {:?} {:?} \
                 version {} position {}",
                folded.order.status, folded.payment.status, folded.version, view.position
            )
        });
        let stored: Result<OrderView, _> = serde_json::from_value(payload);
        violations.require(stored.as_ref().is_ok_and(|stored| stored == view), "read models", || {
            format!("order {order_id}: the payload is {stored:?}, a fold of the log {view:?}")
        });
    }
    for order_id in expected.into_keys() {
        violations.add("read models", format!("the log has order {order_id}, and the table does not"));
    }
    Ok(())
}

async fn check_inventory(log: &LogFold, connection: &mut PgConnection, violations: &mut Violations) -> Result<(), sqlx::Error> {
    let mut expected: BTreeMap<&str, &StockView> =
        log.stocks.iter().map(|(sku, stock): (&Sku, _)| (sku.as_str(), &stock.view)).collect();
    let mut rows = sqlx::query_as::<_, (String, i64, Value, i64, i64, i64)>(
        "SELECT view_id, version, payload, on_hand, reserved, position FROM contrail.inventory",
    )
    .fetch(connection);
    while let Some((sku, version, payload, on_hand, reserved, position)) = rows.try_next().await? {
        let Some(view) = expected.remove(sku.as_str()) else {
            violations.add("read models", format!("the table has SKU {sku}, and the log does not"));
            continue;
        };
        let stored: Result<StockView, _> = serde_json::from_value(payload);
        let is_row_right = version == signed(view.version)
            && on_hand == view.on_hand
            && reserved == view.reserved
            && position == signed(view.position)
            && stored.as_ref().is_ok_and(|stored| stored == view);
        violations.require(is_row_right, "read models", || {
            format!("SKU {sku}: the row says {on_hand}, {reserved} reserved, payload {stored:?}; a fold of the log {view:?}")
        });
    }
    for sku in expected.into_keys() {
        violations.add("read models", format!("the log has SKU {sku}, and the table does not"));
    }
    Ok(())
}

async fn check_audit(log: &LogFold, connection: &mut PgConnection, violations: &mut Violations) -> Result<(), sqlx::Error> {
    let mut rows =
        sqlx::query_as::<_, (i64, Vec<u8>)>("SELECT position, leaf_hash FROM contrail.audit ORDER BY position").fetch(connection);
    let mut expected = log.leaves.iter().zip(1_i64..);
    while let Some((position, leaf)) = rows.try_next().await? {
        let is_right = expected.next().is_some_and(|(hash, at)| at == position && hash[..] == leaf);
        if !is_right {
            violations.add("read models", format!("the table of events leaves the log at position {position}"));
            return Ok(());
        }
    }
    if let Some((_, position)) = expected.next() {
        violations.add("read models", format!("the table of events ends before position {position}"));
    }
    Ok(())
}

async fn check_sample(log: &LogFold, shop: &Shop, violations: &mut Violations) -> anyhow::Result<()> {
    let step = log.orders.len().div_ceil(SAMPLE_ORDERS_MAX).max(1);
    let sample: Vec<String> = log.orders.keys().step_by(step).map(ToString::to_string).collect();
    for order_ids in sample.chunks(ORDERS_PER_REQUEST) {
        let seen = shop.orders(order_ids).await?;
        violations.require(seen.len() == order_ids.len(), "GraphQL", || {
            format!("of {} orders that are in the log {} are there", order_ids.len(), seen.len())
        });
        for seen in seen {
            let folded = seen.order_id.parse().ok().and_then(|order_id| log.orders.get(&order_id));
            let expected = folded.and_then(expected_answer);
            violations.require(expected.as_ref() == Some(&seen), "GraphQL", || {
                format!("order {} is shown as {seen:?}, the log says {expected:?}", seen.order_id)
            });
        }
    }
    Ok(())
}

fn expected_answer(folded: &super::log::FoldedOrder) -> Option<OrderSeen> {
    let total = folded.order.placement.as_ref()?.total;
    Some(OrderSeen {
        order_id: folded.view.order_id.clone(),
        status: folded.order.status?.as_str().to_owned(),
        payment_status: folded.payment.status.as_str().to_owned(),
        version: folded.version,
        position: folded.view.position.to_string(),
        total: MoneySeen { minor_units: total.minor_units.to_string(), currency_code: total.currency.code().to_owned() },
    })
}

/// Postgres has no unsigned integers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
