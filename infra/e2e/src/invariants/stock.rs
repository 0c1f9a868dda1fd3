//! Invariant 2: nothing is promised twice, and no promise stays open for an order that needs it no more.

use std::collections::{BTreeMap, HashMap};

use domain::order::OrderStatus;
use domain::stock::{Allocation, StockEvent};
use domain::{OrderId, Sku};

use super::log::LogFold;
use super::violations::Violations;

/// The open reservations of one SKU, kept apart from the domain's own fold so that the two can be compared.
#[derive(Default)]
pub(super) struct Reservations {
    open: HashMap<OrderId, u64>,
    sum: i64,
}

impl Reservations {
    /// Pieces in all open reservations.
    pub(super) fn sum(&self) -> i64 {
        self.sum
    }

    /// Folds one event in; tells of reservations that are made twice, or ended otherwise than they were made.
    pub(super) fn evolve(&mut self, event: &StockEvent, mut wrong: impl FnMut(String)) {
        match event {
            StockEvent::Received(_) | StockEvent::Adjusted(_) => {}
            StockEvent::Reserved(reserved) => {
                for Allocation { order_id, quantity } in &reserved.allocations {
                    if self.open.insert(*order_id, *quantity).is_some() {
                        wrong(format!("order {order_id} gets a second reservation"));
                    }
                    self.sum += signed(*quantity);
                }
            }
            StockEvent::Released(released) => self.end(&released.allocations, &mut wrong),
            StockEvent::Shipped(shipped) => self.end(&shipped.allocations, &mut wrong),
        }
    }

    fn end(&mut self, allocations: &[Allocation], wrong: &mut impl FnMut(String)) {
        for Allocation { order_id, quantity } in allocations {
            let open = self.open.remove(order_id);
            if open != Some(*quantity) {
                wrong(format!("{quantity} pieces are taken from order {order_id}, which has {open:?}"));
            }
            self.sum -= signed(*quantity);
        }
    }
}

/// Whether the numbers of a SKU are impossible.
pub(super) fn is_oversold(on_hand: i64, reserved: i64) -> bool {
    reserved < 0 || reserved > on_hand
}

/// At rest, exactly the orders that are paid and not yet shipped have stock set aside.
pub(super) fn check_open_reservations(log: &LogFold, violations: &mut Violations) {
    let mut expected: BTreeMap<&Sku, HashMap<OrderId, u64>> = BTreeMap::new();
    let needed =
        log.orders.iter().filter(|(_, order)| matches!(order.order.status, Some(OrderStatus::Reserved | OrderStatus::Confirmed)));
    let quantities: Vec<_> =
        needed.filter_map(|(order_id, order)| Some((*order_id, order.order.placement.as_ref()?.quantities()))).collect();
    for (order_id, quantities) in &quantities {
        for (sku, quantity) in quantities {
            expected.entry(sku).or_default().insert(*order_id, *quantity);
        }
    }
    for (sku, stock) in &log.stocks {
        let expected = expected.remove(sku).unwrap_or_default();
        for (order_id, quantity) in &stock.reservations.open {
            violations.require(expected.get(order_id) == Some(quantity), "reservations", || {
                let status = log.orders.get(order_id).and_then(|order| order.order.status);
                format!("{sku} has {quantity} pieces set aside for order {order_id}, which is {status:?}")
            });
        }
        for (order_id, quantity) in &expected {
            violations.require(stock.reservations.open.contains_key(order_id), "reservations", || {
                format!("{sku} has not set aside the {quantity} pieces of order {order_id}")
            });
        }
    }
    for (sku, orders) in expected {
        violations.add("reservations", format!("{sku} never came in, and {} orders have it reserved", orders.len()));
    }
}

fn signed(quantity: u64) -> i64 {
    i64::try_from(quantity).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_oversold() {
        assert!(is_oversold(1, 2) && is_oversold(0, -1) && is_oversold(-1, 0));
        assert!(!is_oversold(2, 2) && !is_oversold(0, 0));
    }

    #[test]
    fn a_reservation_that_ends_otherwise_than_it_began_is_noticed() {
        let at = time::OffsetDateTime::UNIX_EPOCH;
        let order_id = OrderId(uuid::Uuid::nil());
        let allocations = |quantity| vec![Allocation { order_id, quantity }];
        let mut wrong = Vec::new();
        let mut reservations = Reservations::default();
        let reserved = domain::stock::StockReserved { allocations: allocations(2), reserved_at: at };
        reservations.evolve(&reserved.into(), |what| wrong.push(what));
        assert_eq!((reservations.sum(), wrong.len()), (2, 0));
        let released = domain::stock::StockReleased { allocations: allocations(1), released_at: at };
        reservations.evolve(&released.into(), |what| wrong.push(what));
        assert_eq!(wrong.len(), 1);
    }
}
