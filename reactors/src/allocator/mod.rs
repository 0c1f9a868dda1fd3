//! Gives stock to waiting orders, and takes it back from those that no longer need it.
//!
//! Works in batches: whatever waits is decided together ([`domain::allocation`]) and appended as one atomic
//! transaction, with one event per SKU however many orders share it. So a hot SKU costs one event per batch, an order
//! gets all of its lines or none, and nothing is ever oversold: a second allocator, a receipt or a cancellation in
//! between makes the transaction conflict, and it is planned anew.

mod plan;
mod stocks;
mod task;

use std::{collections::BTreeSet, time::Duration};

use domain::{OrderId, Sku, order::Order};
use event_store::{AppendError, HAND_BACK_PAUSE, JetStreamEventStore, LoadError, Loaded, WorkItem, WorkQueueOptions};
use telemetry::{drain::Drain, health::Health};

use self::{
    plan::Plan,
    stocks::Stocks,
    task::{Reading, Task, TaskKind},
};
use crate::{
    clock,
    dead_letter::{self, chain},
    metrics::ReactorMetrics,
};

/// The allocator's name: of its durable consumer, in logs, metrics and dead letters.
pub const NAME: &str = "allocator";

/// Events decided together at most.
const BATCH_ITEMS_MAX: usize = 256;
/// Deliveries without acknowledgement, over all instances: a batch in hand, and the next one on its way.
const IN_FLIGHT_MAX: i64 = 512;
/// After how long without an acknowledgement an event is handed to another instance.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Pause before the first retry of a batch; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two tries of a batch.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long orders that need a SKU that cannot be read are put aside before it is tried again.
const UNREADABLE_STOCK_PAUSE: Duration = Duration::from_secs(10);

/// What the allocator needs to know beside the log.
#[derive(Clone, Copy, Debug)]
pub struct AllocatorOptions {
    /// How long a customer has to pay once stock is reserved.
    pub payment_window: Duration,
}

/// Runs the allocator until `drain` starts and the batch in hand is finished.
pub async fn run(options: AllocatorOptions, store: JetStreamEventStore, metrics: ReactorMetrics, health: Health, drain: Drain) {
    let component = health.component(NAME);
    tokio::select! {
        () = drain.started() => return,
        () = store.wait_until_ready(|reason| component.not_ready(reason)) => component.ready(),
    }
    let mut queue = store.work_queue(WorkQueueOptions {
        name: NAME,
        aggregate_types: &["order"],
        ack_wait: ACK_WAIT,
        in_flight_max: IN_FLIGHT_MAX,
    });
    let mut allocator = Allocator { options, stocks: Stocks::new(store.clone()), store, metrics };
    let mut waiting = Vec::new();
    while !drain.is_started() {
        if waiting.is_empty() {
            let items = tokio::select! {
                biased;
                () = drain.started() => break,
                items = queue.next_batch(BATCH_ITEMS_MAX) => items,
            };
            waiting = allocator.sort(items).await;
        }
        // What does not fit one transaction is left for the next round.
        let batch = plan::take_batch(&mut waiting);
        allocator.finish(batch, &mut waiting, &drain).await;
    }
    queue.close().await;
    hand_back(waiting, HAND_BACK_PAUSE).await;
    tracing::info!(reactor = NAME, "drained");
}

async fn hand_back(tasks: Vec<Task>, pause: Duration) {
    for task in tasks {
        task.item.again_after(pause).await;
    }
}

struct Allocator {
    options: AllocatorOptions,
    store: JetStreamEventStore,
    stocks: Stocks,
    metrics: ReactorMetrics,
}

impl Allocator {
    /// The events that lead to something; the others are acknowledged.
    async fn sort(&mut self, items: Vec<WorkItem>) -> Vec<Task> {
        let mut tasks: Vec<Task> = Vec::with_capacity(items.len());
        for item in items {
            match Task::read(item) {
                Reading::Task(task) => tasks.push(*task),
                Reading::Nothing(item) => item.done().await,
                Reading::Unreadable { item, error_chain } => self.give_up(item, error_chain).await,
            }
        }
        // An order that is also released or shipped in this batch is further on than its placement tells.
        let further: BTreeSet<_> = tasks.iter().filter(|task| task.kind != TaskKind::Reserve).map(|task| task.order_id).collect();
        for task in &mut tasks {
            task.must_load |= further.contains(&task.order_id);
        }
        tasks
    }

    /// Carries `batch` out, however often that has to be tried, or hands it back when the process drains first. Of a
    /// batch that turns out to be too large for one transaction, all but the first go back to the front of `waiting`.
    async fn finish(&mut self, mut batch: Vec<Task>, waiting: &mut Vec<Task>, drain: &Drain) {
        let mut pause = RETRY_PAUSE;
        while !batch.is_empty() {
            match self.attempt(&mut batch).await {
                Ok(plan) => {
                    self.metrics.count(NAME, "done", batch.len());
                    tracing::debug!(reactor = NAME, events = batch.len(), "{plan}");
                    for task in batch {
                        task.item.done().await;
                    }
                    return;
                }
                Err(Obstacle::Poisoned { order_id, error_chain }) => {
                    let (poisoned, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|task| task.order_id == order_id);
                    for task in poisoned {
                        self.give_up(task.item, error_chain.clone()).await;
                    }
                    batch = rest;
                    continue;
                }
                Err(Obstacle::StockUnreadable { sku, error_chain }) => {
                    self.metrics.count(NAME, "retried", 1);
                    let (blocked, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|task| task.needs(&sku));
                    tracing::error!(
                        reactor = NAME,
                        events = blocked.len(),
                        "orders wait because the stock of {sku} cannot be read: {}",
                        error_chain.join(": "),
                    );
                    hand_back(blocked, UNREADABLE_STOCK_PAUSE).await;
                    batch = rest;
                    continue;
                }
                // No order of at most LINES_MAX lines leads here. The others of the batch must not suffer from one that
                // somebody else than our command API has put into the log.
                Err(Obstacle::TooLarge(error_chain)) => {
                    if batch.len() > 1 {
                        waiting.splice(0..0, batch.split_off(1));
                    } else {
                        for task in batch.drain(..) {
                            self.give_up(task.item, error_chain.clone()).await;
                        }
                    }
                    continue;
                }
                Err(Obstacle::Conflict) => self.metrics.count(NAME, "conflict", 1),
                Err(Obstacle::Away(error)) => {
                    self.metrics.count(NAME, "retried", 1);
                    tracing::warn!(reactor = NAME, events = batch.len(), "trying again: {error}");
                }
            }
            self.stocks.forget();
            for task in &mut batch {
                task.must_load = true;
            }
            for task in batch.iter().chain(waiting.iter()) {
                task.item.in_progress().await;
            }
            tokio::select! {
                biased;
                () = drain.started() => return hand_back(batch, HAND_BACK_PAUSE).await,
                () = tokio::time::sleep(pause) => pause = RETRY_PAUSE_MAX.min(pause * 2),
            }
        }
    }

    async fn attempt(&mut self, batch: &mut [Task]) -> Result<Plan, Obstacle> {
        self.load_orders(batch).await?;
        let skus = plan::skus(batch);
        self.stocks.ensure(&skus).await?;
        let mut confirmed = BTreeSet::new();
        loop {
            let now = clock::now();
            let plan = Plan::new(batch, &self.stocks, now, now + self.options.payment_window)?;
            // A plan that finds too little stock, or nothing to give back, appends nothing to that SKU, so no conflict
            // would show that the stock was out of date. Look before deciding that.
            let doubtful: Vec<_> = plan.doubtful.difference(&confirmed).cloned().collect();
            if self.stocks.refresh(&doubtful).await? {
                confirmed.extend(doubtful);
                continue;
            }
            let appended = self.store.append(plan.transaction.clone()).await.map_err(|error| match error {
                AppendError::Conflict { .. } => Obstacle::Conflict,
                AppendError::Invalid(_) => Obstacle::TooLarge(chain(&error)),
                AppendError::Refused { .. } | AppendError::Overloaded | AppendError::Unavailable => {
                    Obstacle::Away(error.to_string())
                }
            })?;
            self.stocks.advance(&plan, appended.first_position);
            for change in &plan.order_changes {
                let mut order = change.order.clone();
                order.advance(&change.events, appended.first_position + change.last_index as u64);
                self.store.remember(&change.order_id.to_string(), &order);
            }
            return Ok(plan);
        }
    }

    /// Loads the orders that have to be, as the leader has them: an order that a follower does not have yet must not be
    /// taken for one that does not exist.
    async fn load_orders(&self, batch: &mut [Task]) -> Result<(), Obstacle> {
        let loads = batch.iter_mut().filter(|task| task.must_load).map(|task| async {
            let order_id = task.order_id;
            let mut order = Loaded::<Order>::default();
            let refreshed = self.store.refresh(&order_id.to_string(), &mut order).await;
            refreshed.map_err(|error| Obstacle::of_load(order_id, &error))?;
            if order.version == 0 {
                let error_chain = vec![format!("order {order_id} has no events: this one is not on its subject")];
                return Err(Obstacle::Poisoned { order_id, error_chain });
            }
            task.order = order;
            task.must_load = false;
            Ok(())
        });
        futures::future::try_join_all(loads).await.map(|_| ())
    }

    async fn give_up(&self, item: WorkItem, error_chain: Vec<String>) {
        let attempts = item.deliveries;
        dead_letter::give_up(NAME, &self.store, &self.metrics, item, error_chain, attempts).await;
    }
}

/// Why a batch could not be carried out as it is.
pub(crate) enum Obstacle {
    /// Somebody else changed an order or a SKU meanwhile.
    Conflict,
    /// The log is away, or the outcome is unknown.
    Away(String),
    /// One order cannot be decided on by this build, ever.
    Poisoned { order_id: OrderId, error_chain: Vec<String> },
    /// One SKU cannot be read by this build; a newer one may be able to.
    StockUnreadable { sku: Sku, error_chain: Vec<String> },
    /// The events of all of them are more than a transaction takes.
    TooLarge(Vec<String>),
}

impl Obstacle {
    fn of_load(order_id: OrderId, error: &LoadError) -> Self {
        match error {
            LoadError::Read(error) => Self::Away(chain(error).join(": ")),
            other => Self::Poisoned { order_id, error_chain: chain(other) },
        }
    }
}
