//! Appending where some of the transactions expect what is not so: the others must hardly notice, and everybody must get their
//! own right answer.
//!
//! The limit is the rate without conflicts. Only events that landed count for the rate; the refused ones are work that comes on
//! top. Afterwards the log is read back and held against every single answer.

use std::{collections::HashMap, time::Instant};

use anyhow::{Context as _, bail, ensure};
use domain::{
    OrderId,
    order::{Order, OrderEvent},
};
use e2e::random::Random;
use event_store::{AppendError, Expected, JetStreamEventStore, Transaction};
use local_stack::Durability;
use uuid::Uuid;

use super::CONFLICTS_CONCURRENCY;
use crate::{
    Options, Row,
    closed_loop::{self, Client, Step, Window},
    runs::Runs,
    shop::{self, Ids},
    workplace::Workplace,
};

const SEED: u64 = 3;
const IDS_SEED: u64 = 4;
const READ_MESSAGES_MAX: usize = 10_000;

/// Measures one share of conflicts, with fsync.
pub(super) async fn run(case: &str, percent: u64, options: &Options, window: Window, workplace: &Workplace) -> anyhow::Result<Row> {
    let log = workplace.log(Durability::Disk).await?;
    let store = log.open().await?;
    let mut runs = Runs::default();
    let mut answers = Vec::new();
    for run in 1..=options.runs.get() {
        let limit = closed_loop::run(callers(&store, 0, run), window).await?;
        let ours = closed_loop::run(callers(&store, percent, run + options.runs.get()), window).await?;
        runs.add(limit.rate, ours.rate, &ours.latencies);
        let refused = ours.clients.iter().flat_map(|caller| &caller.answers).filter(|answer| answer.position.is_none()).count();
        eprintln!(
            "{case}, run {run} of {}: without conflicts {:.0} events/s; with them {:.0} events/s, and {refused} refused",
            options.runs, limit.rate, ours.rate
        );
        ensure!(refused > 0 || options.quick, "{case}: nothing was refused, so nothing was measured");
        answers.extend(limit.clients.into_iter().chain(ours.clients).flat_map(|caller| caller.answers));
    }
    let landed =
        check(&store, &answers).await.with_context(|| format!("{case}: hold the log against {} answers", answers.len()))?;
    eprintln!("{case}: {landed} events are where their callers were told, {} are refused and not there", answers.len() - landed);
    Ok(runs.row(case, "events/s"))
}

fn callers(store: &JetStreamEventStore, percent: u64, run: usize) -> Vec<Caller> {
    let caller = |number| Caller {
        store: store.clone(),
        placed: shop::placed("TEA-1"),
        random: Random::of(SEED, (run * CONFLICTS_CONCURRENCY + number) as u64),
        ids: Ids::of(IDS_SEED, run * CONFLICTS_CONCURRENCY + number),
        percent,
        last_landed: None,
        answers: Vec::new(),
    };
    (0..CONFLICTS_CONCURRENCY).map(caller).collect()
}

/// What a caller was told about one event.
struct Answer {
    event_id: Uuid,
    /// Where it is; none if it was refused.
    position: Option<u64>,
}

struct Caller {
    store: JetStreamEventStore,
    placed: OrderEvent,
    random: Random,
    ids: Ids,
    percent: u64,
    last_landed: Option<OrderId>,
    answers: Vec<Answer>,
}

impl Caller {
    /// A transaction that must be refused: the order is placed already, or has not come as far as is expected.
    fn wrong(&mut self) -> (OrderId, Expected) {
        match self.last_landed {
            Some(order_id) if self.random.below(2) == 0 => (order_id, Expected::NEW),
            _ => (OrderId(self.ids.next()), Expected { version: 1, position: 1 }),
        }
    }
}

impl Client for Caller {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let is_wrong = self.random.below(100) < self.percent;
        let (order_id, expected) = if is_wrong { self.wrong() } else { (OrderId(self.ids.next()), Expected::NEW) };
        let event_id = self.ids.next();
        let context = shop::context(order_id.to_string(), Some(event_id));
        let mut transaction = Transaction::new();
        transaction.push::<Order>(&order_id.to_string(), expected, std::slice::from_ref(&self.placed), &context);
        let started = Instant::now();
        let outcome = self.store.append(transaction).await;
        let took = started.elapsed();
        let position = match outcome {
            Ok(appended) if !is_wrong => Some(appended.first_position),
            Err(AppendError::Conflict { subject }) if is_wrong => {
                ensure!(subject.ends_with(&order_id.to_string()), "order {order_id} was told of a conflict on {subject}");
                None
            }
            Ok(appended) => bail!("a wrong expectation was met, at position {}", appended.first_position),
            Err(error) => return Err(error).with_context(|| format!("append to order {order_id} as it is expected")),
        };
        if position.is_some() {
            self.last_landed = Some(order_id);
        }
        self.answers.push(Answer { event_id, position });
        Ok(Step { took, counts: !is_wrong })
    }
}

/// Reads the whole log: each event is where its caller was told, and nobody else's is there. Returns how many there are.
async fn check(store: &JetStreamEventStore, answers: &[Answer]) -> anyhow::Result<usize> {
    let mut told: HashMap<u64, Uuid> = HashMap::with_capacity(answers.len());
    for answer in answers {
        if let Some(position) = answer.position
            && told.insert(position, answer.event_id).is_some()
        {
            bail!("two callers were told that their event is at position {position}");
        }
    }
    let head = store.head().await?;
    ensure!(head == told.len() as u64, "{} events were acknowledged, and the log has {head}", told.len());
    let mut reader = store.read_from(1);
    let mut read = 0;
    while read < head {
        for message in reader.next_batch(READ_MESSAGES_MAX).await.context("read the log")? {
            let found = message.event().context("read an event")?.metadata.event_id;
            let expected = told.get(&message.position);
            ensure!(expected == Some(&found), "at position {} is event {found}, not {expected:?}", message.position);
            read = message.position;
        }
    }
    Ok(told.len())
}
