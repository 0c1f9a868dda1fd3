//! Orders that have no end yet, looked up by GraphQL until they have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::{Counters, PlacedOrder};
use crate::shop::Shop;

/// Customers of one request, 50 orders each.
const CUSTOMERS_PER_LOOK: usize = 8;
/// Shortest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A look is followed by a pause this many times as long, so that looking is a small part of what the machine does.
const PAUSE_PER_LOOK: u32 = 5;
/// Nobody is looked up before the oldest order has waited for this part of what orders took lately: it would be in vain.
const PATIENCE: f64 = 0.75;
/// The weight of the newest order in what orders took lately.
const LATELY_WEIGHT: f64 = 0.02;
/// Whoever was looked up in vain is looked up again after this time.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The orders on their way.
pub(super) struct Watch {
    state: Mutex<State>,
    /// A permit for each order that may be placed before another one comes to its end.
    room: Semaphore,
    counters: Arc<Counters>,
    /// How long nothing at all may come to an end before something must be wrong.
    stall_after: Duration,
}

#[derive(Default)]
struct State {
    /// By customer.
    waiting: HashMap<String, Customer>,
    /// How long orders took lately, in seconds.
    lately_s: f64,
    is_complete: bool,
    last_end: Option<Instant>,
}

#[derive(Default)]
struct Customer {
    /// By order id.
    orders: HashMap<String, Waiting>,
    looked_up: Option<Instant>,
}

impl Customer {
    /// When to look next, if orders take `usual`.
    fn due(&self, usual: Duration) -> Option<Instant> {
        let oldest = self.orders.values().map(|order| order.started).min()?;
        let again = self.looked_up.map(|looked_up| looked_up + AGAIN_AFTER);
        Some(again.map_or(oldest + usual, |again| again.max(oldest + usual)))
    }
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
    pub(super) fn new(counters: Arc<Counters>, unsettled_max: usize, stall_after: Duration) -> Self {
        Self { state: Mutex::default(), room: Semaphore::new(unsettled_max), counters, stall_after }
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
        self.state().waiting.entry(customer_id).or_default().orders.insert(order_id, order);
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

    /// Looks until every order has come to its end, and tells `on_end` of each.
    pub(super) async fn follow(&self, shop: &Shop, on_end: impl Fn(&PlacedOrder)) -> anyhow::Result<Vec<PlacedOrder>> {
        let mut ended = Vec::new();
        let mut last_news = Instant::now();
        while !self.is_done() {
            let started = Instant::now();
            let (customers, is_idle) = self.state().next_look(started);
            let mut pause = PAUSE_MIN;
            if is_idle {
                last_news = started;
            } else if !customers.is_empty() {
                let seen = shop.statuses_of_customers(&customers).await?;
                pause = pause.max(started.elapsed() * PAUSE_PER_LOOK);
                let news = self.settle(seen);
                if !news.is_empty() {
                    last_news = Instant::now();
                }
                news.iter().for_each(&on_end);
                ended.extend(news);
            }
            ensure!(
                last_news.elapsed() < self.stall_after,
                "within {} s no order came to its end, and these wait for it: {}",
                self.stall_after.as_secs(),
                self.state().examples()
            );
            sleep(pause).await;
        }
        Ok(ended)
    }

    fn settle(&self, seen: Vec<(String, String)>) -> Vec<PlacedOrder> {
        let now = Instant::now();
        let mut state = self.state();
        let State { waiting, lately_s, last_end, .. } = &mut *state;
        let by_id: HashMap<String, String> = seen.into_iter().collect();
        let mut ended = Vec::new();
        for customer in waiting.values_mut() {
            let settled = customer
                .orders
                .extract_if(|order_id, order| by_id.get(order_id).is_some_and(|status| order.expected.is_met_by(status)));
            for (order_id, order) in settled {
                let status = by_id[&order_id].clone();
                self.counters.settled(&status);
                let settled_after = now - order.started;
                *lately_s += (settled_after.as_secs_f64() - *lately_s) * LATELY_WEIGHT;
                ended.push(PlacedOrder { order_id, status, placed_after: order.placed_after, settled_after });
            }
        }
        if !ended.is_empty() {
            *last_end = Some(now);
        }
        waiting.retain(|_, customer| !customer.orders.is_empty());
        self.room.add_permits(ended.len());
        ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whose orders to look up next, those first that have been due for longest; and whether nobody waits at all.
    fn next_look(&mut self, now: Instant) -> (Vec<String>, bool) {
        let usual = Duration::from_secs_f64(self.lately_s * PATIENCE);
        let due = self.waiting.iter().filter_map(|(id, customer)| Some((customer.due(usual)?, id)));
        let mut due: Vec<_> = due.filter(|(due, _)| *due <= now).collect();
        due.sort_unstable();
        let chosen: Vec<String> = due.into_iter().take(CUSTOMERS_PER_LOOK).map(|(_, id)| id.clone()).collect();
        for id in &chosen {
            if let Some(customer) = self.waiting.get_mut(id) {
                customer.looked_up = Some(now);
            }
        }
        (chosen, self.waiting.is_empty())
    }

    fn examples(&self) -> String {
        let orders: Vec<_> = self.waiting.values().flat_map(|customer| customer.orders.keys().cloned()).collect();
        let shown = orders.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        if orders.len() > 5 { format!("{shown} and {} more", orders.len() - 5) } else { shown }
    }
}
