//! Invariant 3: who keeps their order has paid for it once, who does not has paid nothing, and the gateway says the same.

use std::collections::BTreeMap;

use domain::OrderId;
use domain::order::OrderStatus;

use super::log::LogFold;
use super::violations::Violations;
use crate::shop::{Charge, GatewayLedger, Refund};

pub(super) fn check(log: &LogFold, ledger: &GatewayLedger, violations: &mut Violations) {
    let mut at_gateway = AtGateway::default();
    for charge in &ledger.charges {
        at_gateway.charges.entry(of_order(charge.order_id.as_ref())).or_default().push(charge);
    }
    for refund in &ledger.refunds {
        at_gateway.refunds.entry(of_order(refund.order_id.as_ref())).or_default().push(refund);
    }
    for (order_id, order) in &log.orders {
        let Some(placement) = &order.order.placement else {
            violations.add("money", format!("order {order_id} has events and was never placed"));
            continue;
        };
        let is_kept = matches!(order.order.status, Some(OrderStatus::Confirmed | OrderStatus::Shipped | OrderStatus::Delivered));
        let owed = if is_kept { placement.total.minor_units } else { 0 };
        let balance = order.captured.iter().sum::<i64>() - order.refunded.iter().sum::<i64>();
        violations.require(balance == owed, "money", || {
            format!("order {order_id} is {:?}, owes {owed} and has paid {balance}", order.order.status)
        });
        violations.require(order.captured.len() <= 1, "money", || format!("order {order_id} was captured twice in the log"));

        let charges = at_gateway.charges.remove(&order_id.to_string()).unwrap_or_default();
        let refunds = at_gateway.refunds.remove(&order_id.to_string()).unwrap_or_default();
        let charged: Vec<_> = charges.iter().map(|charge| charge.amount).collect();
        let given_back: Vec<_> = refunds.iter().map(|refund| refund.amount).collect();
        violations.require(charged == order.captured, "gateway", || {
            format!("order {order_id}: the gateway charged {charged:?}, the log captured {:?}", order.captured)
        });
        violations.require(given_back == order.refunded, "gateway", || {
            format!("order {order_id}: the gateway refunded {given_back:?}, the log {:?}", order.refunded)
        });
        check_names(*order_id, order, &charges, &refunds, violations);
    }
    for (order_id, charges) in at_gateway.charges {
        violations.add("gateway", format!("{} charges are for {order_id}, which is not in the log", charges.len()));
    }
    for (order_id, refunds) in at_gateway.refunds {
        violations.add("gateway", format!("{} refunds are for {order_id}, which is not in the log", refunds.len()));
    }
}

#[derive(Default)]
struct AtGateway<'a> {
    charges: BTreeMap<String, Vec<&'a Charge>>,
    refunds: BTreeMap<String, Vec<&'a Refund>>,
}

fn of_order(order_id: Option<&String>) -> String {
    order_id.map_or_else(|| "no order".to_owned(), Clone::clone)
}

/// The ids and the currency that the log remembers are the gateway's.
fn check_names(
    order_id: OrderId,
    order: &super::log::FoldedOrder,
    charges: &[&Charge],
    refunds: &[&Refund],
    violations: &mut Violations,
) {
    let captured = order
        .payment
        .capture
        .as_ref()
        .map(|capture| (capture.payment_intent_id.as_str(), capture.amount.currency.code().to_lowercase()));
    let charged = charges.first().map(|charge| (charge.payment_intent.as_str(), charge.currency.clone()));
    violations.require(captured == charged, "gateway", || {
        format!("order {order_id}: the gateway's payment is {charged:?}, the log's {captured:?}")
    });
    let refunded = refunds.first().map(|refund| refund.refund.as_str());
    violations.require(order.payment.refund_id.as_deref() == refunded, "gateway", || {
        format!("order {order_id}: the gateway's refund is {refunded:?}, the log's {:?}", order.payment.refund_id)
    });
}
