//! Gives stock to waiting orders, and takes it back from those that no longer need it.
//!
//! Works in batches: whatever waits is decided together ([`domain::allocation`]) and appended as one atomic
//! transaction, with one event per SKU however many orders share it. So a hot SKU costs one event per batch, an order
//! gets all of its lines or none, and nothing is ever oversold: a second allocator, a receipt or a cancellation in
//! between makes the transaction conflict, and it is planned anew.

mod plan;
mod stocks;
mod task;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use domain::{
    OrderId, Sku,
    order::{Order, OrderStatus},
};
use event_store::{
    AppendError, Appended, Beginning, HAND_BACK_PAUSE, JetStreamEventStore, LoadError, Loaded, Sharing, WorkItem, WorkQueueOptions,
    WorkSource,
};
use telemetry::{
    drain::Drain,
    trace::{Kind, Span},
};
use time::OffsetDateTime;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use self::{
    plan::Plan,
    stocks::Stocks,
    task::{Reading, Task, TaskKind},
};
use crate::{
    clock,
    dead_letters::{self, chain},
    metrics::ReactorMetrics,
    reactor::{ACK_WAIT, PARKED_MAX, PROGRESS_INTERVAL, Surroundings},
};

/// The allocator's name: of its durable consumer, in logs, metrics and dead letters.
pub const NAME: &str = "allocator";
/// Where its events come from.
pub const SOURCE: WorkSource = WorkSource::Log(&["order"]);

/// Events decided together at most.
const BATCH_ITEMS_MAX: usize = 1_024;
/// Deliveries without acknowledgement, over all instances: a batch being committed, one being decided, and two on their way.
const IN_FLIGHT_MAX: i64 = 4_096;
/// Pause before the first retry of a batch; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two tries of a batch.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// By how much the newest event may be out of date without the orders being asked whether they have been called off since: they hardly ever
/// have, and if they had before, that event would have come.
const SURE_FOR: Duration = Duration::from_secs(1);
/// Tasks of a batch that is not made smaller because of conflicts. One order that is called off keeps all from their stock that go with it, and
/// the more there are, the sooner that happens again.
const TASKS_MIN: usize = 64;
/// Conflicts in a row that are taken for one order or SKU each; after that, all of a batch is looked up.
const CONFLICTS_MAX: u32 = 5;
/// Tasks from which on a batch is decided while the one before is still being committed: deciding so many takes as long as committing them.
const DECIDED_AHEAD_MIN: usize = 256;
/// How long orders that need a SKU that cannot be read are put aside before it is tried again.
const UNREADABLE_STOCK_PAUSE: Duration = Duration::from_secs(10);

/// What the allocator needs to know beside the log.
#[derive(Clone, Copy, Debug)]
pub struct AllocatorOptions {
    /// How long a customer has to pay once stock is reserved.
    pub payment_window: Duration,
}

/// Runs the allocator until the drain starts and the batch in hand is finished.
pub async fn run(options: AllocatorOptions, surroundings: Surroundings) {
    let Surroundings { store, metrics, health, drain, .. } = surroundings;
    let component = health.component(NAME);
    tokio::select! {
        () = drain.started() => return,
        () = store.wait_until_ready(|reason| component.not_ready(reason)) => component.ready(),
    }
    let mut queue = store.work_queue(WorkQueueOptions {
        name: NAME,
        source: SOURCE,
        takes_redrives: true,
        beginning: Beginning::First,
        ack_wait: ACK_WAIT,
        in_flight_max: IN_FLIGHT_MAX,
        parked_max: PARKED_MAX,
        sharing: Sharing::OneActive,
    });
    let stocks = Stocks::new(store.clone());
    let mut allocator = Allocator {
        options,
        stocks,
        store,
        metrics,
        drain: drain.clone(),
        waiting: Vec::new(),
        newest: OffsetDateTime::UNIX_EPOCH,
        committing: None,
        conflicts: 0,
        tasks_max: BATCH_ITEMS_MAX,
        progress_due: Instant::now() + PROGRESS_INTERVAL,
    };
    while !drain.is_started() {
        allocator.report_progress().await;
        if allocator.is_to_wait() {
            let items = tokio::select! {
                biased;
                () = drain.started() => break,
                items = queue.next_batch(BATCH_ITEMS_MAX) => Some(items),
                // Nobody must wait for the next batch to be told what came of this one.
                () = committed(&mut allocator.committing) => None,
                () = sleep_until(allocator.progress_due) => continue,
            };
            match items {
                Some(items) => allocator.sort(items).await,
                None => allocator.conclude_and_put_back().await,
            }
            continue;
        }
        // What has come meanwhile tells who has called off what was to be decided.
        if allocator.waiting.len() < BATCH_ITEMS_MAX {
            let items = queue.at_hand(BATCH_ITEMS_MAX);
            allocator.sort(items).await;
        }
        // What does not fit one transaction is left for the next round.
        let batch = plan::take_batch(&mut allocator.waiting, allocator.tasks_max);
        allocator.begin(batch).await;
    }
    queue.close().await;
    allocator.conclude_and_put_back().await;
    hand_back(allocator.waiting, HAND_BACK_PAUSE).await;
    tracing::info!(reactor = NAME, "drained");
}

async fn hand_back(tasks: Vec<Task>, pause: Duration) {
    for task in tasks {
        task.item.again_after(pause).await;
    }
}

/// Two batches are worked on at a time: while the log writes one, the next is gathered, and if it is large also decided, on the stocks
/// as they will be when the first is written. If it turns out not to be, what was decided on it is forgotten.
struct Allocator {
    options: AllocatorOptions,
    store: JetStreamEventStore,
    stocks: Stocks,
    metrics: ReactorMetrics,
    drain: Drain,
    /// What the next batch is taken from.
    waiting: Vec<Task>,
    /// When the newest event happened that led here: of what happened before, there is nothing more to come.
    newest: OffsetDateTime,
    committing: Option<Committing>,
    /// How many batches in a row met a conflict.
    conflicts: u32,
    /// Tasks that go together at most.
    tasks_max: usize,
    /// When the server is told next what is in hand.
    progress_due: Instant,
}

/// A batch whose transaction is on its way.
struct Committing {
    batch: Vec<Task>,
    plan: Arc<Plan>,
    answer: JoinHandle<Result<Appended, AppendError>>,
    outcome: Option<Result<Appended, AppendError>>,
    _span: Span,
}

impl Committing {
    /// Completes once it is known what came of the transaction; can be dropped and asked again.
    async fn wait(&mut self) {
        if self.outcome.is_none() {
            // The task cannot panic, and is aborted by nobody; should it be gone all the same, the outcome is unknown.
            self.outcome = Some((&mut self.answer).await.unwrap_or(Err(AppendError::Unavailable)));
        }
    }
}

/// Completes when what is being committed has its outcome; never, if nothing is.
async fn committed(committing: &mut Option<Committing>) {
    match committing {
        Some(committing) => committing.wait().await,
        None => std::future::pending().await,
    }
}

/// Keeps the orders of `plan` as they are now that it is in the log, for whoever comes next to them.
fn remember(store: &JetStreamEventStore, plan: &Plan, appended: Appended) {
    for change in &plan.order_changes {
        let mut order = change.order.clone();
        order.advance(&change.events, appended.first_position + change.last_index as u64);
        store.remember(&change.order_id.to_string(), &order);
    }
}

impl Allocator {
    /// Whether no batch is to be decided now: there is nothing to decide, or the log still writes the one before, and to decide this one when it has
    /// is quickly done, with more events and with what they tell.
    fn is_to_wait(&self) -> bool {
        self.waiting.is_empty() || (self.committing.is_some() && self.waiting.len() < DECIDED_AHEAD_MIN)
    }

    /// Tells the server what is in hand, if it has not been told for a while: else it would hand that out once more.
    async fn report_progress(&mut self) {
        if Instant::now() < self.progress_due {
            return;
        }
        let committing = self.committing.iter().flat_map(|committing| &committing.batch);
        for task in committing.chain(&self.waiting) {
            task.item.in_progress().await;
        }
        self.progress_due = Instant::now() + PROGRESS_INTERVAL;
    }

    /// Adds the events that lead to something to what waits; the others are acknowledged.
    async fn sort(&mut self, items: Vec<WorkItem>) {
        if items.is_empty() {
            return;
        }
        let now = clock::now();
        let mut tasks = std::mem::take(&mut self.waiting);
        tasks.reserve(items.len());
        // Which of them is the last about an order.
        let mut last: HashMap<OrderId, usize> = tasks.iter().enumerate().map(|(index, task)| (task.order_id, index)).collect();
        for item in items {
            let known = |order_id: OrderId| match last.get(&order_id) {
                Some(&earlier) => Some(tasks[earlier].order.clone()),
                None => self.store.recall(&order_id.to_string()),
            };
            match Task::read(item, known) {
                Reading::Task(task) => {
                    // An event cannot be newer than now, whatever it says.
                    self.newest = self.newest.max(task.cause.time.min(now));
                    last.insert(task.order_id, tasks.len());
                    tasks.push(*task);
                }
                Reading::Nothing(item) => item.done().await,
                Reading::Unreadable { item, error_chain } => self.give_up(item, error_chain).await,
            }
        }
        // An order that is also released or shipped in this batch is further on than its placement tells.
        for index in 0..tasks.len() {
            let last = last[&tasks[index].order_id];
            if last != index {
                (tasks[index].order, tasks[index].must_load) = (tasks[last].order.clone(), tasks[last].must_load);
            }
        }
        self.waiting = tasks;
    }

    /// Decides `batch` and sends it on its way, once the one before has come to its end. It may be decided before that.
    async fn begin(&mut self, mut batch: Vec<Task>) {
        let decided = self.decide(&mut batch).await;
        // The next transaction says what it expects of the stocks in positions, which the last one's answer brings.
        if let Err(mut again) = self.conclude().await {
            // What was decided rests on what did not happen.
            decided.into_iter().for_each(Plan::forget);
            again.extend(batch);
            return self.put_back(again);
        }
        let decided = match decided {
            Ok(plan) => self.settle(plan, &batch).await,
            Err(obstacle) => Err(obstacle),
        };
        match decided {
            Ok(plan) => self.send(batch, plan),
            Err(obstacle) => {
                let mut pause = RETRY_PAUSE;
                if let Some(rest) = self.overcome(obstacle, batch, &mut pause).await {
                    self.finish(rest, pause).await;
                }
            }
        }
    }

    fn send(&mut self, batch: Vec<Task>, plan: Plan) {
        let span = Span::of_many(Kind::Internal, "allocate", batch.iter().filter_map(|task| task.span.context()))
            .with("messaging.batch.message_count", i64::try_from(batch.len()).unwrap_or(i64::MAX))
            .with_display("contrail.allocation", &plan);
        let (store, transaction, plan) = (self.store.clone(), plan.transaction(&self.stocks), Arc::new(plan));
        self.stocks.anticipate(&plan);
        let answer = tokio::spawn({
            let plan = Arc::clone(&plan);
            async move {
                let appended = store.append(transaction).await?;
                // At once: the payments reactor is being handed the very events.
                remember(&store, &plan, appended);
                Ok(appended)
            }
        });
        self.committing = Some(Committing { batch, plan, answer, outcome: None, _span: span });
    }

    /// [`conclude`](Self::conclude)s, and puts what has to be decided anew before what waits.
    async fn conclude_and_put_back(&mut self) {
        if let Err(again) = self.conclude().await {
            self.put_back(again);
        }
    }

    /// Waits for what is being committed. If it did not go the way that was anticipated, carries it to its end, whatever it takes; unless that is
    /// because of a conflict: then its tasks are returned, to be decided anew together with those that wait.
    async fn conclude(&mut self) -> Result<(), Vec<Task>> {
        let Some(mut committing) = self.committing.take() else { return Ok(()) };
        committing.wait().await;
        let Committing { batch, plan, outcome, .. } = committing;
        let conflicts = std::mem::take(&mut self.conflicts);
        let obstacle = match outcome {
            Some(Ok(appended)) => {
                self.tasks_max = BATCH_ITEMS_MAX.min(self.tasks_max + self.tasks_max / 2);
                self.stocks.confirm(&plan, appended.first_position);
                self.done(batch, &plan).await;
                return Ok(());
            }
            Some(Err(error @ AppendError::Conflict { .. })) if conflicts < CONFLICTS_MAX => {
                self.conflicts = conflicts + 1;
                Arc::into_inner(plan).into_iter().for_each(Plan::forget);
                return Err(self.reconsider(batch, &error));
            }
            Some(Err(error)) => Obstacle::of_append(&error),
            None => Obstacle::Conflict,
        };
        Arc::into_inner(plan).into_iter().for_each(Plan::forget);
        let mut pause = RETRY_PAUSE;
        if let Some(rest) = self.overcome(obstacle, batch, &mut pause).await {
            self.finish(rest, pause).await;
        }
        Err(Vec::new())
    }

    /// Most often a customer has called an order off just when it got its stock: what was known of that order, or of that SKU, was out of date, and
    /// nothing else has to be doubted.
    fn reconsider(&mut self, mut batch: Vec<Task>, conflict: &AppendError) -> Vec<Task> {
        self.metrics.count(NAME, "conflict", 1);
        self.tasks_max = TASKS_MIN.max(batch.len() / 2);
        self.stocks.take_back();
        match conflict.moved() {
            Some(("stock", sku)) => self.stocks.doubt(sku.parse::<Sku>().ok().into_iter().collect()),
            Some(("order", order_id)) => {
                let order_id = order_id.parse::<OrderId>().ok();
                batch.iter_mut().filter(|task| Some(task.order_id) == order_id).for_each(|task| task.must_load = true);
            }
            _ => {}
        }
        batch
    }

    /// Carries `batch` out alone, however often that has to be tried, or hands it back when the process drains first.
    async fn finish(&mut self, mut batch: Vec<Task>, mut pause: Duration) {
        while !batch.is_empty() {
            let decided = match self.decide(&mut batch).await {
                Ok(plan) => self.settle(plan, &batch).await,
                Err(obstacle) => Err(obstacle),
            };
            let obstacle = match decided {
                Ok(plan) => match self.store.append(plan.transaction(&self.stocks)).await {
                    Ok(appended) => {
                        self.stocks.anticipate(&plan);
                        self.stocks.confirm(&plan, appended.first_position);
                        remember(&self.store, &plan, appended);
                        return self.done(batch, &plan).await;
                    }
                    Err(error) => {
                        plan.forget();
                        Obstacle::of_append(&error)
                    }
                },
                Err(obstacle) => obstacle,
            };
            match self.overcome(obstacle, batch, &mut pause).await {
                Some(rest) => batch = rest,
                None => return,
            }
        }
    }

    /// Does what an obstacle calls for, and returns what of the batch is to be tried again: nothing, when the process drains.
    async fn overcome(&mut self, obstacle: Obstacle, mut batch: Vec<Task>, pause: &mut Duration) -> Option<Vec<Task>> {
        // Whatever happened: what was anticipated did not.
        if matches!(obstacle, Obstacle::Conflict) {
            self.stocks.take_back();
            self.stocks.doubt(plan::skus(&batch));
        } else {
            self.stocks.forget();
        }
        match obstacle {
            Obstacle::Poisoned { order_id, error_chain } => {
                let (poisoned, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|task| task.order_id == order_id);
                for task in poisoned {
                    self.give_up(task.item, error_chain.clone()).await;
                }
                return Some(rest);
            }
            Obstacle::StockUnreadable { sku, error_chain } => {
                self.metrics.count(NAME, "retried", 1);
                let (blocked, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|task| task.needs(&sku));
                tracing::error!(
                    reactor = NAME,
                    events = blocked.len(),
                    "orders wait because the stock of {sku} cannot be read: {}",
                    error_chain.join(": "),
                );
                hand_back(blocked, UNREADABLE_STOCK_PAUSE).await;
                return Some(rest);
            }
            // No order of at most LINES_MAX lines leads here. The others of the batch must not suffer from one that somebody else
            // than our command API has put into the log.
            Obstacle::TooLarge(error_chain) => {
                if batch.len() > 1 {
                    let rest = batch.split_off(1);
                    self.put_back(rest);
                    return Some(batch);
                }
                for task in batch {
                    self.give_up(task.item, error_chain.clone()).await;
                }
                return None;
            }
            Obstacle::Conflict => self.metrics.count(NAME, "conflict", 1),
            Obstacle::Away(error) => {
                self.metrics.count(NAME, "retried", 1);
                tracing::warn!(reactor = NAME, events = batch.len(), "trying again: {error}");
            }
        }
        for task in &mut batch {
            task.must_check = true;
        }
        for task in batch.iter().chain(&self.waiting) {
            task.item.in_progress().await;
        }
        tokio::select! {
            biased;
            () = self.drain.started() => {
                hand_back(batch, HAND_BACK_PAUSE).await;
                None
            }
            () = tokio::time::sleep(*pause) => {
                *pause = RETRY_PAUSE_MAX.min(*pause * 2);
                Some(batch)
            }
        }
    }

    /// To the front of what waits, to be decided anew.
    fn put_back(&mut self, batch: Vec<Task>) {
        self.waiting.splice(0..0, batch);
    }

    /// What of `batch` follows for the log, from the orders and stocks as they will be when what is being committed is written.
    async fn decide(&mut self, batch: &mut [Task]) -> Result<Plan, Obstacle> {
        self.catch_up(batch);
        self.load_orders(batch).await?;
        self.stocks.check().await?;
        self.stocks.ensure(&plan::skus(batch)).await?;
        self.plan(batch)
    }

    /// A plan that finds too little stock, or nothing to give back, appends nothing to that SKU, so no conflict would show that the
    /// stock was out of date. This looks, once nothing is on its way to the log any more, and plans again where it was.
    async fn settle(&mut self, mut plan: Plan, batch: &[Task]) -> Result<Plan, Obstacle> {
        let mut looked_at = BTreeSet::new();
        loop {
            let doubtful: Vec<_> = plan.doubtful.difference(&looked_at).cloned().collect();
            if doubtful.is_empty() || !self.stocks.refresh(&doubtful).await? {
                return Ok(plan);
            }
            looked_at.extend(doubtful);
            std::mem::replace(&mut plan, self.plan(batch)?).forget();
        }
    }

    fn plan(&self, batch: &[Task]) -> Result<Plan, Obstacle> {
        let now = clock::now();
        Plan::new(batch, &self.stocks, now, now + self.options.payment_window)
    }

    /// Acknowledges what is in the log now.
    async fn done(&self, batch: Vec<Task>, plan: &Plan) {
        self.metrics.count(NAME, "done", batch.len());
        tracing::debug!(reactor = NAME, events = batch.len(), "{plan}");
        for task in batch {
            task.item.done().await;
        }
    }

    /// Takes the orders as this process knows them by now: its other reactors are handed their events, too.
    fn catch_up(&self, batch: &mut [Task]) {
        for task in batch.iter_mut().filter(|task| task.kind == TaskKind::Reserve) {
            if let Some(order) = self.store.recall_beyond(&task.order_id.to_string(), task.order.version) {
                task.order = order;
                task.must_load = false;
            }
        }
    }

    /// Loads the orders that have to be, as the leader has them: an order that a follower does not have yet must not be
    /// taken for one that does not exist.
    async fn load_orders(&self, batch: &mut [Task]) -> Result<(), Obstacle> {
        self.check_orders(batch).await?;
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

    /// Asks the log, for all of them at once, which orders of the batch have moved on since they were placed: all, if the queue is behind
    /// the log, and those of a transaction that met a conflict.
    async fn check_orders(&self, batch: &mut [Task]) -> Result<(), Obstacle> {
        let is_behind = clock::now() - self.newest > SURE_FOR;
        let in_doubt = |task: &Task| {
            let is_waiting = task.kind == TaskKind::Reserve && task.order.aggregate.status == Some(OrderStatus::Placed);
            (task.must_check || is_behind) && is_waiting && !task.must_load
        };
        let known: Vec<_> =
            batch.iter().filter(|task| in_doubt(task)).map(|task| (task.order_id.to_string(), task.expected())).collect();
        if known.is_empty() {
            return Ok(());
        }
        let moved = self.store.moved::<Order>(known.iter().map(|(id, expected)| (id.as_str(), *expected))).await;
        let moved: BTreeSet<_> = moved.map_err(|error| Obstacle::Away(chain(&error).join(": ")))?.into_iter().collect();
        for task in batch {
            task.must_load |= moved.contains(task.order_id.to_string().as_str());
            task.must_check = false;
        }
        Ok(())
    }

    async fn give_up(&self, item: WorkItem, error_chain: Vec<String>) {
        let attempts = item.deliveries;
        dead_letters::give_up(NAME, &self.store, &self.metrics, item, error_chain, attempts).await;
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
    fn of_append(error: &AppendError) -> Self {
        match error {
            AppendError::Conflict { .. } => Self::Conflict,
            AppendError::Invalid(_) => Self::TooLarge(chain(error)),
            AppendError::Refused { .. } | AppendError::Overloaded | AppendError::Unavailable => Self::Away(error.to_string()),
        }
    }

    fn of_load(order_id: OrderId, error: &LoadError) -> Self {
        match error {
            LoadError::Read(error) => Self::Away(chain(error).join(": ")),
            other => Self::Poisoned { order_id, error_chain: chain(other) },
        }
    }
}
