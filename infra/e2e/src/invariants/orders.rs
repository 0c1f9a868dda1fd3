//! Invariant 1: what was acknowledged is in the log exactly once, and has an end.

use std::collections::{BTreeMap, BTreeSet};

use domain::OrderId;
use domain::order::OrderStatus;

use super::log::LogFold;
use super::violations::Violations;
use crate::shop::Acknowledged;

/// Acknowledged orders that are not in the log where they should be, or have no end.
pub(super) fn count_lost(log: &LogFold, acknowledged: &BTreeMap<String, Vec<Acknowledged>>, violations: &mut Violations) -> u64 {
    let mut lost: BTreeSet<OrderId> = BTreeSet::new();
    for Acknowledged { order_id, position } in acknowledged.values().flatten() {
        let in_log = log.orders.get(order_id);
        if in_log.is_none_or(|order| !order.placed_at.contains(position)) {
            violations.add("lost", format!("order {order_id} was acknowledged at {position} and is not there"));
            lost.insert(*order_id);
        }
    }
    for (order_id, order) in &log.orders {
        let is_final = !matches!(order.order.status, None | Some(OrderStatus::Placed | OrderStatus::Reserved));
        if !is_final {
            violations.add("lost", format!("order {order_id} has come to rest as {:?}", order.order.status));
            lost.insert(*order_id);
        }
    }
    lost.len() as u64
}

/// Orders that were placed more than once, and orders that nobody was promised.
pub(super) fn count_duplicated(
    log: &LogFold,
    acknowledged: &BTreeMap<String, Vec<Acknowledged>>,
    violations: &mut Violations,
) -> u64 {
    let mut duplicated = 0;
    for (key, answers) in acknowledged {
        if answers.len() > 1 {
            violations.add("duplicated", format!("the key {key} was answered with {answers:?}"));
            duplicated += 1;
        }
    }
    let promised: BTreeSet<_> = acknowledged.values().flatten().map(|answer| answer.order_id).collect();
    for (order_id, order) in &log.orders {
        if order.placed_at.len() > 1 {
            violations.add("duplicated", format!("order {order_id} was placed at {:?}", order.placed_at));
            duplicated += 1;
        }
        if !promised.contains(order_id) {
            violations.add("duplicated", format!("order {order_id} is in the log and was acknowledged to nobody"));
            duplicated += 1;
        }
    }
    duplicated
}
