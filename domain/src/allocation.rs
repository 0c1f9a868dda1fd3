//! Which waiting orders get stock: all lines of an order, or none.
//!
//! Decided here for a whole batch of orders at once, carried out by the allocator as one atomic transaction: one
//! `stock.reserved` per SKU, one `order.stock_reserved` or `order.rejected` per order.

use std::collections::BTreeMap;

use crate::{
    OrderId, Sku,
    order::Shortage,
    stock::{Allocation, Stock},
};

/// An order that waits for stock, and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingOrder {
    /// Which order.
    pub order_id: OrderId,
    /// How many pieces of each SKU.
    pub quantities: BTreeMap<Sku, u64>,
}

/// What was decided for a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// What to reserve, by SKU.
    pub reservations: BTreeMap<Sku, Vec<Allocation>>,
    /// Who gets everything, in the order in which they waited.
    pub reserved: Vec<OrderId>,
    /// Who gets nothing, and for want of what.
    pub rejected: Vec<(OrderId, Vec<Shortage>)>,
}

/// Serves `orders` first come, first served from `stock`; a SKU that is not in `stock` has none.
///
/// Guarantees: no SKU's allocations exceed what was available; every order is either in `reserved`, with all its
/// lines, or in `rejected`, with none.
pub fn allocate<'a>(orders: &[WaitingOrder], stock: impl Fn(&Sku) -> Option<&'a Stock>) -> Allocations {
    let mut left: BTreeMap<&Sku, i64> = BTreeMap::new();
    let mut allocations = Allocations::default();
    for order in orders {
        let mut shortages = Vec::new();
        for (sku, &requested) in &order.quantities {
            let available = *left.entry(sku).or_insert_with(|| stock(sku).map_or(0, Stock::available));
            if i64::try_from(requested).map_or(true, |requested| requested > available) {
                shortages.push(Shortage { sku: sku.clone(), requested, available });
            }
        }
        if !shortages.is_empty() {
            allocations.rejected.push((order.order_id, shortages));
            continue;
        }
        for (sku, &quantity) in &order.quantities {
            if let Some(left) = left.get_mut(sku) {
                *left -= i64::try_from(quantity).expect("a quantity above i64::MAX was found short just now");
            }
            let for_sku = allocations.reservations.entry(sku.clone()).or_default();
            for_sku.push(Allocation { order_id: order.order_id, quantity });
        }
        allocations.reserved.push(order.order_id);
    }
    allocations
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn order(id: u128, quantities: &[(&str, u64)]) -> WaitingOrder {
        WaitingOrder {
            order_id: OrderId(Uuid::from_u128(id)),
            quantities: quantities.iter().map(|(sku, quantity)| (sku.parse().unwrap(), *quantity)).collect(),
        }
    }

    fn stock(on_hand: i64) -> Stock {
        Stock { on_hand, ..Stock::default() }
    }

    #[test]
    fn an_order_gets_all_its_lines_or_none() {
        let tea = stock(10);
        let orders = [order(1, &[("TEA", 1), ("CUP", 1)]), order(2, &[("TEA", 10)])];
        let allocations = allocate(&orders, |sku| (sku.as_str() == "TEA").then_some(&tea));
        assert_eq!(allocations.rejected.len(), 1, "the first wants a cup, and there is none");
        assert_eq!(allocations.reserved, [orders[1].order_id], "what the first could not use is left for the second");
    }

    #[test]
    fn first_come_first_served_and_never_oversold() {
        let tea = stock(3);
        let orders = [order(1, &[("TEA", 2)]), order(2, &[("TEA", 2)]), order(3, &[("TEA", 1)])];
        let allocations = allocate(&orders, |_| Some(&tea));
        assert_eq!(allocations.reserved, [orders[0].order_id, orders[2].order_id]);
        assert_eq!(allocations.rejected[0].1[0].available, 1);
        let promised: u64 = allocations.reservations.values().flatten().map(|allocation| allocation.quantity).sum();
        assert_eq!(promised, 3);
    }

    #[test]
    fn an_absurd_quantity_is_short_not_a_panic() {
        let tea = stock(3);
        let allocations = allocate(&[order(1, &[("TEA", u64::MAX)])], |_| Some(&tea));
        assert_eq!(allocations.reserved, []);
    }
}
