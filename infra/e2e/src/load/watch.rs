//! Orders that have no end yet, looked up by GraphQL until they have.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::{Counters, PlacedOrder};
use crate::shop::Shop;

/// Customers of one request, 50 orders each.
const CUSTOMERS_PER_LOOK: usize = 8;
/// Half of them are those that wait longest, whose orders should be through next; the others take turns.
const OLDEST_PER_LOOK: usize = 4;
/// Shortest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A look is followed by a pause this many times as long, so that looking is a small part of what the machine does.
const PAUSE_PER_LOOK: u32 = 5;
/// How long nothing at all may come to an end before something must be wrong.
const STALL_DEADLINE: Duration = Duration::from_mins(2);

/// The orders on their way.
pub(super) struct Watch {
    state: Mutex<State>,
    /// A permit for each order that may be placed before another one comes to its end.
    room: Semaphore,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct State {
    /// By customer, those who wait longest first.
    waiting: BTreeMap<u64, Customer>,
    /// Their keys in `waiting`.
    arrivals: HashMap<String, u64>,
    next_arrival: u64,
    /// Takes turns.
    turns: VecDeque<u64>,
    is_complete: bool,
    last_end: Option<Instant>,
}

struct Customer {
    id: String,
    orders: HashMap<String, Waiting>,
}

/// What is known of an order on its way.
pub(super) struct Waiting {
    pub(super) started: Instant,
    pub(super) placed_after: Duration,
    pub(super) expected: Expected,
}

/// Which end is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    AnyEnd,
    /// Its cancellation was acknowledged, so `CONFIRMED` may be seen, but not for good.
    Cancelled,
}

impl Expected {
    fn is_met_by(self, status: &str) -> bool {
        match status {
            "CANCELLED" => true,
            "CONFIRMED" | "SHIPPED" | "DELIVERED" | "REJECTED" => self == Self::AnyEnd,
            _ => false,
        }
    }
}

impl Watch {
    /// At most `unsettled_max` orders are on their way at the same time.
    pub(super) fn new(counters: Arc<Counters>, unsettled_max: usize) -> Self {
        Self { state: Mutex::default(), room: Semaphore::new(unsettled_max), counters }
    }

    /// Waits until one more order may be placed.
    pub(super) async fn make_room(&self) {
        // The semaphore is never closed, so the permit is there. It comes back when the order's end is seen.
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// An order was answered 2xx.
    pub(super) fn placed(&self) {
        self.counters.placed();
    }

    /// An order is to be watched.
    pub(super) fn add(&self, customer_id: String, order_id: String, order: Waiting) {
        let mut state = self.state();
        let state = &mut *state;
        let arrival = *state.arrivals.entry(customer_id.clone()).or_insert_with(|| {
            state.next_arrival += 1;
            state.turns.push_back(state.next_arrival);
            state.next_arrival
        });
        let customer = state.waiting.entry(arrival).or_insert_with(|| Customer { id: customer_id, orders: HashMap::new() });
        customer.orders.insert(order_id, order);
    }

    /// No order will be added any more.
    pub(super) fn no_more(&self) {
        self.state().is_complete = true;
    }

    /// Whether every order has come to its end.
    pub(super) fn is_done(&self) -> bool {
        let state = self.state();
        state.is_complete && state.waiting.is_empty()
    }

    /// When the last end was seen.
    pub(super) fn last_end(&self) -> Option<Instant> {
        self.state().last_end
    }

    /// Looks until every order has come to its end.
    pub(super) async fn follow(&self, shop: &Shop) -> anyhow::Result<Vec<PlacedOrder>> {
        let mut ended = Vec::new();
        let mut last_news = Instant::now();
        while !self.is_done() {
            let customers = self.state().next_look();
            let mut pause = PAUSE_MIN;
            if customers.is_empty() {
                last_news = Instant::now();
            } else {
                let started = Instant::now();
                let seen = shop.statuses_of_customers(&customers).await?;
                pause = pause.max(started.elapsed() * PAUSE_PER_LOOK);
                let news = self.settle(seen);
                if !news.is_empty() {
                    last_news = Instant::now();
                }
                ended.extend(news);
            }
            ensure!(
                last_news.elapsed() < STALL_DEADLINE,
                "within {} s no order came to its end, and these wait for it: {}",
                STALL_DEADLINE.as_secs(),
                self.state().examples()
            );
            sleep(pause).await;
        }
        Ok(ended)
    }

    fn settle(&self, seen: Vec<(String, String)>) -> Vec<PlacedOrder> {
        let now = Instant::now();
        let mut state = self.state();
        let by_id: HashMap<String, String> = seen.into_iter().collect();
        let mut ended = Vec::new();
        for customer in state.waiting.values_mut() {
            let settled = customer
                .orders
                .extract_if(|order_id, order| by_id.get(order_id).is_some_and(|status| order.expected.is_met_by(status)));
            for (order_id, order) in settled {
                let status = by_id[&order_id].clone();
                self.counters.settled(&status);
                let settled_after = now - order.started;
                ended.push(PlacedOrder { order_id, status, placed_after: order.placed_after, settled_after });
            }
        }
        if !ended.is_empty() {
            state.last_end = Some(now);
        }
        state.forget_settled();
        self.room.add_permits(ended.len());
        ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whose orders to look up next.
    fn next_look(&mut self) -> Vec<String> {
        let mut chosen: Vec<u64> = self.waiting.keys().take(OLDEST_PER_LOOK).copied().collect();
        for _ in 0..self.turns.len() {
            if chosen.len() >= CUSTOMERS_PER_LOOK {
                break;
            }
            let arrival = self.turns.pop_front().expect("there are as many turns as rounds");
            self.turns.push_back(arrival);
            if !chosen.contains(&arrival) {
                chosen.push(arrival);
            }
        }
        chosen.iter().filter_map(|arrival| self.waiting.get(arrival)).map(|customer| customer.id.clone()).collect()
    }

    fn forget_settled(&mut self) {
        let Self { waiting, arrivals, turns, .. } = self;
        for (_, customer) in waiting.extract_if(.., |_, customer| customer.orders.is_empty()) {
            arrivals.remove(&customer.id);
        }
        turns.retain(|arrival| waiting.contains_key(arrival));
    }

    fn examples(&self) -> String {
        let orders: Vec<_> = self.waiting.values().flat_map(|customer| customer.orders.keys().cloned()).collect();
        let shown = orders.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        if orders.len() > 5 { format!("{shown} and {} more", orders.len() - 5) } else { shown }
    }
}
