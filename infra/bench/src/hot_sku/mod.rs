//! Reserving stock: many orders that all want one SKU, against the same orders over a thousand SKUs.
//!
//! The allocator alone: stock and placed orders are in the log, with fsync, before `reactors run --only allocator` is started.
//! Its time runs from the moment when it begins to read the log until the last order is reserved, both by the log server's clock.
//! There is exactly as much stock as is wanted, so one piece promised twice shows. Each run has a log of its own.

mod verdict;

use std::{fs, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::jetstream::{self, stream::Stream};
use domain::{OrderId, order::Order, stock::Stock};
use e2e::random::Random;
use event_store::{Expected, JetStreamEventStore, STREAM, TRANSACTION_EVENTS_MAX, Transaction};
use futures::TryStreamExt as _;
use local_stack::Durability;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::{
    Options, Row,
    figures::{median, per_second, rounded},
    process::Service,
    shop,
    workplace::{Log, Workplace},
};
use verdict::Verdict;

/// All cases.
pub const CASES: [&str; 2] = [ONE, THOUSAND];
const ONE: &str = "one-sku";
const THOUSAND: &str = "thousand-skus";

const ORDERS: u64 = 20_000;
const ORDERS_QUICK: u64 = 2_000;
const SKUS: u64 = 1_000;
const SEED: u64 = 4;

/// How long the allocator may take to begin, and to reserve everything.
const DEADLINE: Duration = Duration::from_secs(180);
/// How often is looked whether it is done. Seldom, because looking costs the server something.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Looks without any new event after which the log is read; far longer than a batch takes.
const QUIET_LOOKS: u32 = 10;

/// Measures both cases in turns, also if only the hot one is wanted: the other one is its limit.
pub(crate) async fn run(options: &Options, workplace: &Workplace) -> anyhow::Result<Vec<Row>> {
    let orders = options.orders.unwrap_or(if options.quick { ORDERS_QUICK } else { ORDERS });
    let (mut thousand, mut one) = (Figures::default(), Figures::default());
    for run in 1..=options.runs.get() {
        for (case, skus, figures) in [(THOUSAND, SKUS.min(orders), &mut thousand), (ONE, 1, &mut one)] {
            if case == ONE && !options.wants(ONE) {
                continue;
            }
            let measured = measure(orders, skus, workplace).await.with_context(|| format!("{case}, run {run}"))?;
            eprintln!(
                "{case}, run {run} of {}: {orders} orders in {:.2} s, {:.0} orders/s, {:.1} orders a stock event",
                options.runs,
                measured.elapsed.as_secs_f64(),
                measured.rate,
                measured.orders_per_stock_event
            );
            figures.rates.push(measured.rate);
            figures.rss_mb.push(measured.rss_mb);
        }
    }
    let mut rows = Vec::new();
    if options.wants(ONE) {
        rows.push(one.row(ONE).against(&thousand.rates));
    }
    if options.wants(THOUSAND) {
        rows.push(thousand.row(THOUSAND));
    }
    Ok(rows)
}

#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    rss_mb: Vec<f64>,
}

impl Figures {
    fn row(&self, case: &str) -> Row {
        Row { rss_mb: Some(rounded(median(&self.rss_mb))), ..Row::new(case, "orders/s", &self.rates) }
    }
}

/// What one run came to.
struct Measured {
    elapsed: Duration,
    rate: f64,
    orders_per_stock_event: f64,
    rss_mb: f64,
}

async fn measure(orders: u64, skus: u64, workplace: &Workplace) -> anyhow::Result<Measured> {
    let log = workplace.log(Durability::Disk).await?;
    let store = log.open().await?;
    fill(&store, orders, skus).await?;
    let filled = store.head().await?;
    let jetstream = jetstream::new(async_nats::connect(log.url()).await.context("connect to NATS")?);
    let stream = jetstream.get_stream(STREAM).await.context("look at the log")?;

    let folder = workplace.subfolder()?;
    let mut allocator = start_allocator(&log, folder.path())?;
    let verdict = await_all_reserved(&stream, &store, filled, orders, &mut allocator).await?;
    let rss_mb = allocator.peak_rss_mb()?;
    let began = began(&stream).await?;
    drop(allocator);

    let last = stream.direct_get(verdict.last_reserved_position).await.context("get the last reservation")?;
    let elapsed: Duration = (last.time - began).try_into().context("the last reservation is older than the allocator")?;
    let count = usize::try_from(orders).context("count the orders")?;
    Ok(Measured { elapsed, rate: per_second(count, elapsed), orders_per_stock_event: verdict.orders_per_stock_event(), rss_mb })
}

/// As much stock as is wanted, then the orders: each wants one piece of a SKU, and the SKUs are in no order.
async fn fill(store: &JetStreamEventStore, orders: u64, skus: u64) -> anyhow::Result<()> {
    let wanted_by: Vec<u64> = {
        let mut wanted: Vec<u64> = (0..orders).map(|order| order % skus).collect();
        Random::new(SEED).shuffle(&mut wanted);
        wanted
    };
    let context = |number: u64| shop::context(format!("story-{number}"), None);
    let mut transaction = Transaction::new();
    for sku in 0..skus {
        let pieces = u32::try_from((orders - sku).div_ceil(skus)).context("count the pieces of a SKU")?;
        transaction.push::<Stock>(&sku_name(sku), Expected::NEW, &[shop::received(pieces)], &context(sku));
        append_full(store, &mut transaction).await?;
    }
    for (number, sku) in (0..orders).zip(wanted_by) {
        let order_id = OrderId(shop::random_id(&mut Random::of(SEED, number))).to_string();
        transaction.push::<Order>(&order_id, Expected::NEW, &[shop::placed(&sku_name(sku))], &context(skus + number));
        append_full(store, &mut transaction).await?;
    }
    store.append(transaction).await.context("append the last orders")?;
    Ok(())
}

async fn append_full(store: &JetStreamEventStore, transaction: &mut Transaction) -> anyhow::Result<()> {
    if transaction.len() == TRANSACTION_EVENTS_MAX {
        store.append(std::mem::take(transaction)).await.context("append stock and orders")?;
    }
    Ok(())
}

fn sku_name(sku: u64) -> String {
    format!("TEA-{sku}")
}

/// The real process. It is told of a payment gateway and of mail as well, which the allocator never uses.
fn start_allocator(log: &Log, folder: &std::path::Path) -> anyhow::Result<Service> {
    let mail = folder.join("mail");
    fs::create_dir(&mail).context("create a folder for mail")?;
    let environment = [
        ("NATS_URL", log.url()),
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("STRIPE_API_BASE", "http://127.0.0.1:9"),
        ("STRIPE_API_KEY", "sk_test_unused"),
        ("MAIL_DIR", mail.to_str().context("the folder's name is not UTF-8")?),
        ("MAIL_FROM", "orders@contrail.example"),
        ("AUTH_DISABLED", "true"),
        ("RUST_LOG", "warn"),
    ];
    Service::start("reactors", &["run", "--only", "allocator"], &environment, folder)
}

/// Waits until nothing is appended any more, then reads the log. Fails when an order is not reserved within the deadline, and
/// whenever the log says that something was promised twice.
async fn await_all_reserved(
    stream: &Stream,
    store: &JetStreamEventStore,
    filled: u64,
    orders: u64,
    allocator: &mut Service,
) -> anyhow::Result<Verdict> {
    let ends = Instant::now() + DEADLINE;
    let (mut head, mut quiet) = (filled, 0);
    loop {
        sleep(LOOK_PAUSE).await;
        allocator.ensure_running()?;
        let now = stream.get_info().await.context("look at the log")?.state.last_sequence;
        quiet = if now == head { quiet + 1 } else { 0 };
        head = now;
        if quiet >= QUIET_LOOKS && head >= filled + orders {
            let verdict = Verdict::read(store, head).await?;
            if verdict.reserved_orders() == orders {
                verdict.ensure_right(orders)?;
                return Ok(verdict);
            }
            quiet = 0;
        }
        if Instant::now() > ends {
            bail!("{} events were appended within {} s, and not every order is reserved", head - filled, DEADLINE.as_secs());
        }
    }
}

/// When the allocator began: when the first consumer of the log was created. Nobody but the allocator and [`Verdict::read`], after
/// it, reads the log by a consumer.
async fn began(stream: &Stream) -> anyhow::Result<OffsetDateTime> {
    let consumers: Vec<_> = stream.consumers().try_collect().await.context("list the log's consumers")?;
    consumers.iter().map(|consumer| consumer.created).min().context("nobody reads the log")
}
