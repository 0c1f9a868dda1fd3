//! What is bought: a tea shop's morning, the same for the same seed.
//!
//! Most orders go through. So that every ending is seen, each block of 50 orders holds, in a random order, 2 with a card that is
//! declined, 3 for a tea of which there is half as much as is wanted, and 1 that the customer calls off: at once in every other
//! block, racing the payment, else a little later.

use std::time::Duration;

use crate::random::Random;
use crate::shop::{Customer, Line, NewOrder};

/// Teas of which there is plenty.
const PLENTIFUL_SKUS: u64 = 40;
/// The tea that runs out.
const SCARCE_SKU: &str = "TEA-RARE";
/// Most lines of an order, and most pieces of a line.
const LINES_MAX: u64 = 3;
const QUANTITY_MAX: u64 = 3;
/// Cheap enough and dear enough for every card, in minor units.
const PRICE_MINOR: (u64, u64) = (250, 4_900);
/// Orders of one customer, who is a tea room: one GraphQL page shows all of them (see [`crate::load`]).
pub const ORDERS_PER_CUSTOMER: u64 = 50;

/// Orders in a block, and how many of them end in which way.
const BLOCK: usize = 50;
const DECLINED_PER_BLOCK: usize = 2;
const SCARCE_PER_BLOCK: usize = 3;

const NAMES: [&str; 8] = [
    "Ada's Tea Room",
    "Café Zuse",
    "The Hopper",
    "Turing & Sons",
    "Kettle of Lovelace",
    "Dijkstra's Corner",
    "Liskov Leaves",
    "Hamilton House",
];

/// A number of orders, each known by its index from 0 on.
#[derive(Clone, Debug)]
pub struct Workload {
    name: String,
    seed: u64,
    orders: u64,
}

/// One order and what its customer has in mind.
#[derive(Clone, Debug)]
pub struct PlannedOrder {
    /// The `Idempotency-Key` of placing it.
    pub key: String,
    /// What the checkout sends.
    pub order: NewOrder,
    /// After how long the customer calls it off, if at all.
    pub cancelled_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Plain,
    Declined,
    Scarce,
    Cancelled,
}

impl Workload {
    /// `orders` orders. `name` tells them from those of other workloads on the same system; it is part of keys and customer ids.
    pub fn new(name: &str, seed: u64, orders: u64) -> Self {
        Self { name: name.to_owned(), seed, orders }
    }

    /// How many orders.
    pub fn orders(&self) -> u64 {
        self.orders
    }

    /// What has to be on the shelves before the first order: SKU and pieces.
    pub fn stock(&self) -> Vec<(String, u32)> {
        let pieces_max = self.orders.saturating_mul(LINES_MAX * QUANTITY_MAX).saturating_add(100);
        let plenty = u32::try_from(pieces_max.min(i32::MAX as u64)).expect("it is at most the largest 32-bit number");
        let scarce = (0..self.orders).filter(|index| self.ending(*index) == Ending::Scarce).count() / 2;
        let scarce = u32::try_from(scarce.max(1)).unwrap_or(u32::MAX);
        let plentiful = (0..PLENTIFUL_SKUS).map(|number| (plentiful_sku(number), plenty));
        plentiful.chain([(SCARCE_SKU.to_owned(), scarce)]).collect()
    }

    /// The `Idempotency-Key` of receiving a SKU.
    pub fn receipt_key(&self, sku: &str) -> String {
        format!("{}-receipt-{sku}", self.name)
    }

    /// The order of that index.
    pub fn order(&self, index: u64) -> PlannedOrder {
        let mut random = Random::of(self.seed, index);
        let ending = self.ending(index);
        let count = random.between(1, LINES_MAX);
        let mut lines: Vec<Line> =
            (0..count).map(|_| self.line(plentiful_sku(random.below(PLENTIFUL_SKUS)), &mut random)).collect();
        if ending == Ending::Scarce {
            lines[0] = Line { sku: SCARCE_SKU.to_owned(), quantity: 1, unit_price_minor: 9_900 };
        }
        let currency = ["EUR", "EUR", "EUR", "USD", "JPY"][index_below(&mut random, 5)];
        let declined = ending == Ending::Declined;
        let cancelled_after = (ending == Ending::Cancelled).then(|| match index / BLOCK as u64 % 2 {
            0 => Duration::ZERO,
            _ => Duration::from_millis(random.between(50, 300)),
        });
        PlannedOrder {
            key: format!("{}-{index}", self.name),
            order: NewOrder {
                customer: self.customer(index),
                currency: currency.to_owned(),
                lines,
                payment_method: if declined { "pm_card_chargeDeclined" } else { "pm_card_visa" }.to_owned(),
            },
            cancelled_after,
        }
    }

    fn customer(&self, index: u64) -> Customer {
        let number = index / ORDERS_PER_CUSTOMER;
        let name = NAMES[index_below(&mut Random::of(self.seed, number), NAMES.len())];
        Customer {
            id: format!("{}-c{number}", self.name),
            email: format!("orders-{number}@{}.example", self.name),
            name: name.to_owned(),
        }
    }

    fn line(&self, sku: String, random: &mut Random) -> Line {
        // One price per tea.
        let number = sku.bytes().fold(0, |number: u64, byte| number * 31 + u64::from(byte));
        let price = Random::of(self.seed, number).between(PRICE_MINOR.0, PRICE_MINOR.1);
        Line {
            sku,
            quantity: u32::try_from(random.between(1, QUANTITY_MAX)).expect("it is small"),
            unit_price_minor: i64::try_from(price).expect("it is small"),
        }
    }

    fn ending(&self, index: u64) -> Ending {
        let mut endings = [Ending::Plain; BLOCK];
        endings[..DECLINED_PER_BLOCK].fill(Ending::Declined);
        endings[DECLINED_PER_BLOCK..DECLINED_PER_BLOCK + SCARCE_PER_BLOCK].fill(Ending::Scarce);
        endings[DECLINED_PER_BLOCK + SCARCE_PER_BLOCK] = Ending::Cancelled;
        let (block, place) = (index / BLOCK as u64, index % BLOCK as u64);
        Random::of(self.seed ^ 0x0b10_c4ed, block).shuffle(&mut endings);
        endings[usize::try_from(place).expect("it is below the block's size")]
    }
}

fn plentiful_sku(number: u64) -> String {
    format!("TEA-{:02}", number + 1)
}

fn index_below(random: &mut Random, length: usize) -> usize {
    usize::try_from(random.below(length as u64)).expect("it is below a length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(workload: &Workload, ending: Ending) -> usize {
        (0..workload.orders()).filter(|index| workload.ending(*index) == ending).count()
    }

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let orders = |seed| (0..200).map(|index| Workload::new("w", seed, 200).order(index).order).collect::<Vec<_>>();
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1), orders(2));
    }

    #[test]
    fn even_fifty_orders_end_in_every_way() {
        for seed in 0..100 {
            let workload = Workload::new("w", seed, 50);
            let endings = [Ending::Declined, Ending::Scarce, Ending::Cancelled].map(|ending| count(&workload, ending));
            assert_eq!(endings, [2, 3, 1]);
            assert_eq!(workload.stock().last().unwrap(), &(SCARCE_SKU.to_owned(), 1));
        }
    }

    #[test]
    fn customers_and_keys_are_told_apart() {
        let workload = Workload::new("w", 1, 101);
        let customers: Vec<_> = [0, 49, 50, 100].map(|index| workload.order(index).order.customer.id).into();
        assert_eq!(customers, ["w-c0", "w-c0", "w-c1", "w-c2"]);
        assert_eq!(workload.order(7).key, "w-7");
    }

    #[test]
    fn some_customers_call_off_at_once_and_some_later() {
        let workload = Workload::new("w", 3, 200);
        let calls: Vec<_> = (0..200).filter_map(|index| workload.order(index).cancelled_after).collect();
        assert_eq!(calls.len(), 4);
        assert_eq!(calls.iter().filter(|after| after.is_zero()).count(), 2);
    }
}
