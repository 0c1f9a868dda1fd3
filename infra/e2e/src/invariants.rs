//! DESIGN §13, checked from the outside on a system at rest.
//!
//! The log is read once and folded by the domain's own `evolve`; everything else is held against that fold: what was acknowledged
//! to the shop, the gateway's ledger, the read models, the mail, the audit trail.

mod audit;
mod log;
mod mail;
mod merkle;
mod money;
mod orders;
mod program;
mod read_models;
mod stock;
mod violations;

#[cfg(test)]
mod tests;

use anyhow::Context as _;
use domain::order::OrderStatus;
use event_store::JetStreamEventStore;
use local_stack::Stack;
use serde::Serialize;

use crate::eventually::patiently;
use crate::log_server;
use crate::settle::settle;
use crate::shop::Shop;
use log::LogFold;
use violations::Violations;

/// The verdict.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Events in the log.
    pub events: u64,
    /// Orders in the log.
    pub orders: u64,
    /// Of those, the ones that are confirmed, or on their way, or delivered.
    pub confirmed: u64,
    /// Those for which stock did not suffice.
    pub rejected: u64,
    /// Those that were called off.
    pub cancelled: u64,
    /// Acknowledged orders that are not in the log, or have no end.
    pub lost: u64,
    /// Orders that are in the log more than once, or that nobody was promised.
    pub duplicated: u64,
    /// SKUs of which more was promised than there was, at any position.
    pub oversold: u64,
    /// Whether the exported trail is the log, byte by byte, and its root is the signed one.
    pub audit_verified: bool,
    /// The root of the audit tree, in hex.
    pub audit_root: String,
    /// Every violation, in words; many of a kind are counted.
    pub violations: Vec<String>,
}

impl Report {
    /// Fails with all violations, if there are any.
    pub fn ensure_none_violated(&self) -> anyhow::Result<()> {
        if self.violations.is_empty() {
            return Ok(());
        }
        anyhow::bail!("{} invariants are violated:\n  {}", self.violations.len(), self.violations.join("\n  "))
    }
}

/// Waits until the system is at rest, then checks everything. All orders in the log must have been placed through `shop`.
///
/// Fails only if something cannot be checked; what is wrong is in the report.
pub async fn check(stack: &Stack, shop: &Shop) -> anyhow::Result<Report> {
    let info = stack.info();
    let head = settle(info, shop).await?;
    let store = JetStreamEventStore::connect(&log_server::access(info)?, "e2e").await.context("connect to NATS")?;
    let mut violations = Violations::default();
    let log = patiently("reading the log", LogFold::read(&store, head, &mut violations)).await?;

    let mut report = Report { events: head, orders: log.orders.len() as u64, ..Report::default() };
    for order in log.orders.values() {
        match order.order.status {
            Some(OrderStatus::Confirmed | OrderStatus::Shipped | OrderStatus::Delivered) => report.confirmed += 1,
            Some(OrderStatus::Rejected) => report.rejected += 1,
            Some(OrderStatus::Cancelled) => report.cancelled += 1,
            Some(OrderStatus::Placed | OrderStatus::Reserved) | None => {}
        }
    }
    report.lost = orders::count_lost(&log, &shop.acknowledged(), &mut violations);
    report.duplicated = orders::count_duplicated(&log, &shop.acknowledged(), &mut violations);
    report.oversold = log.oversold.len() as u64;
    stock::check_open_reservations(&log, &mut violations);
    let ledger = patiently("asking for the gateway's ledger", shop.gateway_ledger()).await?;
    money::check(&log, &ledger, &mut violations);
    mail::check(&log, &stack.directory().join("mail"), &mut violations)?;
    patiently("looking at the dead letters", mail::check_dead_letters(info, &mut violations)).await?;
    patiently("comparing the read models", read_models::check(&log, info, shop, &mut violations)).await?;
    patiently("replaying the log beside the read models", read_models::check_replay(stack, &mut violations)).await?;
    let audited = patiently("verifying the audit trail", audit::check(stack, &log, &mut violations)).await?;
    report.audit_verified = audited.is_verified;
    report.audit_root = audited.root_hex;
    report.violations = violations.into_lines();
    Ok(report)
}
