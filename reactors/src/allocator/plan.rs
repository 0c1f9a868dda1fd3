//! What one batch comes to: pure, from the orders and stocks as they are known.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use domain::{
    OrderId, Sku,
    allocation::{self, WaitingOrder},
    order::{self, Order, OrderCommand, OrderEvent, OrderStatus},
    stock::{self, Stock, StockCommand, StockEvent},
};
use event_store::{EventContext, Expected, Loaded, TRANSACTION_EVENTS_MAX, Transaction};
use telemetry::trace::Span;
use time::OffsetDateTime;

use super::{
    Obstacle,
    stocks::Stocks,
    task::{Task, TaskKind},
};
use crate::{
    causation::{Identity, caused_within},
    dead_letters::chain,
};

const IDENTITY: Identity = Identity { source: "/contrail/allocator", actor: "system:allocator" };

/// What to append, and what it means for the stocks that are known.
pub(crate) struct Plan {
    pub(crate) stock_changes: Vec<StockChange>,
    pub(crate) order_changes: Vec<OrderChange>,
    orders: Transaction,
    /// SKUs whose stock decided something without being appended to.
    pub(crate) doubtful: BTreeSet<Sku>,
    reserved: usize,
    rejected: usize,
}

pub(crate) struct StockChange {
    pub(crate) sku: Sku,
    pub(crate) events: Vec<StockEvent>,
    context: EventContext,
    /// Ends with the plan.
    sending: Span,
    /// Where in the transaction its last event is.
    pub(crate) last_index: usize,
}

pub(crate) struct OrderChange {
    pub(crate) order_id: OrderId,
    /// The order before the events.
    pub(crate) order: Loaded<Order>,
    pub(crate) events: Vec<OrderEvent>,
    /// Where in the transaction its last event is.
    pub(crate) last_index: usize,
    /// Ends with the plan.
    sending: Span,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reserved, rejected, stock_changes, .. } = self;
        write!(f, "{reserved} orders reserved, {rejected} rejected, {} SKUs changed", stock_changes.len())
    }
}

/// Takes from the front of `waiting` what surely fits one transaction, `tasks_max` tasks at most; at least one, if there is any.
pub(crate) fn take_batch(waiting: &mut Vec<Task>, tasks_max: usize) -> Vec<Task> {
    // A SKU has at most one event for all tasks of a kind, and a task at most one for its order.
    let mut stock_events = BTreeSet::new();
    let mut not_loaded = 0;
    let mut taken = 0;
    for task in waiting.iter() {
        match &task.order.aggregate.placement {
            Some(placement) => stock_events.extend(placement.lines.iter().map(|line| (task.kind, &line.sku))),
            None => not_loaded += 1,
        }
        let events = stock_events.len() + not_loaded * order::LINES_MAX + taken + 1;
        if taken > 0 && (taken >= tasks_max || events > TRANSACTION_EVENTS_MAX) {
            break;
        }
        taken += 1;
    }
    waiting.drain(..taken).collect()
}

/// Every SKU that a task of the batch needs.
pub(crate) fn skus(batch: &[Task]) -> BTreeSet<Sku> {
    let placements = batch.iter().filter_map(|task| task.order.aggregate.placement.as_ref());
    placements.flat_map(|placement| placement.quantities().into_keys()).collect()
}

impl Plan {
    /// Plans `batch` at `now`. Releases and shipments come first, so that what they free can be promised again.
    pub(crate) fn new(
        batch: &[Task],
        stocks: &Stocks,
        now: OffsetDateTime,
        payment_due_at: OffsetDateTime,
    ) -> Result<Self, Obstacle> {
        let mut draft = Draft::new(batch, stocks, now);
        let released = tasks_of(batch, TaskKind::Release);
        draft.give_back(&released, |order_ids| StockCommand::Release(stock::Release { order_ids, released_at: now }))?;
        let shipped = tasks_of(batch, TaskKind::Ship);
        draft.give_back(&shipped, |order_ids| StockCommand::Ship(stock::Ship { order_ids, shipped_at: now }))?;
        let waiting = tasks_of(batch, TaskKind::Reserve);
        let waiting: Vec<_> = waiting.into_iter().filter(|task| task.order.aggregate.status == Some(OrderStatus::Placed)).collect();
        draft.reserve(&waiting, payment_due_at)?;
        Ok(draft.finish())
    }

    /// The transaction, under the condition that each SKU is where `stocks` has it: which is known only once the transaction before
    /// this one has its place in the log.
    pub(crate) fn transaction(&self, stocks: &Stocks) -> Transaction {
        let mut transaction = Transaction::new();
        for StockChange { sku, events, context, .. } in &self.stock_changes {
            let expected = stocks.get(sku).map_or(Expected::NEW, Loaded::expected);
            transaction.push::<Stock>(sku.as_str(), expected, events, context);
        }
        transaction.extend(self.orders.clone());
        transaction
    }
}

impl Plan {
    /// Nothing of it came into the log.
    pub(crate) fn forget(self) {
        let stocks = self.stock_changes.into_iter().map(|change| change.sending);
        stocks.chain(self.order_changes.into_iter().map(|change| change.sending)).for_each(Span::discard);
    }
}

fn tasks_of(batch: &[Task], kind: TaskKind) -> Vec<&Task> {
    let mut seen = BTreeSet::new();
    batch.iter().filter(|task| task.kind == kind && seen.insert(task.order_id)).collect()
}

struct Draft<'a> {
    batch: &'a [Task],
    stocks: &'a Stocks,
    /// What each changed SKU comes to, and the events that take it there.
    changed: BTreeMap<Sku, (Stock, Vec<StockEvent>)>,
    orders: Transaction,
    order_changes: Vec<OrderChange>,
    doubtful: BTreeSet<Sku>,
    now: OffsetDateTime,
    reserved: usize,
    rejected: usize,
}

impl<'a> Draft<'a> {
    fn new(batch: &'a [Task], stocks: &'a Stocks, now: OffsetDateTime) -> Self {
        Self {
            batch,
            stocks,
            changed: BTreeMap::new(),
            orders: Transaction::new(),
            order_changes: Vec::new(),
            doubtful: BTreeSet::new(),
            now,
            reserved: 0,
            rejected: 0,
        }
    }

    fn stock(&self, sku: &Sku) -> Option<&Stock> {
        let changed = self.changed.get(sku).map(|(stock, _)| stock);
        changed.or_else(|| self.stocks.get(sku).map(|loaded| &loaded.aggregate))
    }

    fn apply(&mut self, sku: &Sku, command: StockCommand) -> Result<(), Obstacle> {
        let unknown = Stock::default();
        let known = self.stocks.get(sku).map_or(&unknown, |loaded| &loaded.aggregate);
        let stock = self.changed.get(sku).map_or(known, |(stock, _)| stock);
        // What is asked was computed from this very stock, so a rejection can only mean that it was out of date.
        let events = stock::decide(stock, command).map_err(|_| Obstacle::Conflict)?;
        if events.is_empty() {
            return Ok(());
        }
        let (stock, so_far) = self.changed.entry(sku.clone()).or_insert_with(|| (known.clone(), Vec::new()));
        for event in events {
            stock.evolve(&event);
            so_far.push(event);
        }
        Ok(())
    }

    fn give_back(&mut self, tasks: &[&Task], command: impl Fn(Vec<OrderId>) -> StockCommand) -> Result<(), Obstacle> {
        let mut by_sku: BTreeMap<Sku, Vec<OrderId>> = BTreeMap::new();
        for task in tasks {
            let order = &task.order.aggregate;
            // What was never set aside need not be given back. It never will be either: reservation and order move together.
            let Some(placement) = order.placement.as_ref().filter(|_| order.was_reserved()) else { continue };
            for sku in placement.quantities().into_keys() {
                if !self.stock(&sku).is_some_and(|stock| stock.open.contains_key(&task.order_id)) {
                    self.doubtful.insert(sku.clone());
                }
                by_sku.entry(sku).or_default().push(task.order_id);
            }
        }
        for (sku, order_ids) in by_sku {
            self.apply(&sku, command(order_ids))?;
        }
        Ok(())
    }

    fn reserve(&mut self, tasks: &[&Task], payment_due_at: OffsetDateTime) -> Result<(), Obstacle> {
        let now = self.now;
        let waiting: Vec<_> = tasks
            .iter()
            .filter_map(|task| {
                let quantities = task.order.aggregate.placement.as_ref()?.quantities();
                Some(WaitingOrder { order_id: task.order_id, quantities })
            })
            .collect();
        let allocations = allocation::allocate(&waiting, |sku| self.stock(sku));
        for (sku, allocations) in allocations.reservations {
            self.apply(&sku, StockCommand::Reserve(stock::Reserve { allocations, reserved_at: now }))?;
        }
        let tasks: BTreeMap<_, _> = tasks.iter().map(|task| (task.order_id, *task)).collect();
        for order_id in allocations.reserved {
            let command = order::RecordReservation { reserved_at: now, payment_due_at };
            self.decide_order(tasks.get(&order_id), OrderCommand::RecordReservation(command))?;
            self.reserved += 1;
        }
        for (order_id, shortages) in allocations.rejected {
            self.doubtful.extend(shortages.iter().map(|shortage| shortage.sku.clone()));
            let command = order::Reject { shortages, rejected_at: now };
            self.decide_order(tasks.get(&order_id), OrderCommand::Reject(command))?;
            self.rejected += 1;
        }
        Ok(())
    }

    fn decide_order(&mut self, task: Option<&&Task>, command: OrderCommand) -> Result<(), Obstacle> {
        let Some(task) = task else { return Ok(()) };
        let poisoned = |error: order::OrderError| Obstacle::Poisoned { order_id: task.order_id, error_chain: chain(&error) };
        let events = order::decide(&task.order.aggregate, command).map_err(poisoned)?;
        let (context, sending) = caused_within(task.span.context(), &task.cause, &IDENTITY, self.now);
        self.orders.push::<Order>(&task.order_id.to_string(), task.expected(), &events, &context);
        if events.is_empty() {
            sending.discard();
        } else {
            let (order_id, order, last_index) = (task.order_id, task.order.clone(), self.orders.len() - 1);
            self.order_changes.push(OrderChange { order_id, order, events, last_index, sending });
        }
        Ok(())
    }

    fn finish(self) -> Plan {
        let Self { batch, stocks: _, changed, orders, mut order_changes, doubtful, now, reserved, rejected } = self;
        // One event serves many orders; it belongs to the story of the first of them that needs the SKU.
        let mut causes: HashMap<&Sku, &Task> = HashMap::new();
        for task in batch.iter().rev() {
            let placement = task.order.aggregate.placement.iter();
            causes.extend(placement.flat_map(|placement| &placement.lines).map(|line| (&line.sku, task)));
        }
        let mut stock_changes = Vec::with_capacity(changed.len());
        let mut stock_events = 0;
        for (sku, (_, events)) in changed {
            let cause = causes.get(&sku).expect("a SKU is changed for a task that needs it");
            let (context, sending) = caused_within(cause.span.context(), &cause.cause, &IDENTITY, now);
            stock_events += events.len();
            stock_changes.push(StockChange { sku, events, context, sending, last_index: stock_events - 1 });
        }
        for change in &mut order_changes {
            change.last_index += stock_events;
        }
        Plan { stock_changes, order_changes, orders, doubtful, reserved, rejected }
    }
}
