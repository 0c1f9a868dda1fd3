//! Many orders at once, each watched until its final status is seen by GraphQL.
//!
//! Placing is a closed loop (a number of requests in flight, and of orders without an end) or an open one (a rate, kept however slow
//! the answers are). In the open loop an order's time starts when it should have been placed, so that a system that stalls cannot hide
//! the orders that waited.
//!
//! Statuses are looked up by customer: customers are tea rooms with 50 orders each, so one page of GraphQL tells of all of them.
//! Looking takes a bounded share of the time, because load, services and servers share one machine.

mod counters;
mod progress;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use crate::shop::{OrderAnswer, Shop, ShopError};
use crate::workload::{PlannedOrder, Workload};

pub use counters::{Counters, Counts};
use progress::Progress;
use watch::{Expected, Watch};

/// Requests in flight in the closed loop.
pub const IN_FLIGHT: usize = 64;
/// Orders placed and without an end in the closed loop: enough to keep every part of the system busy. With more, orders would only
/// wait longer, and be none the sooner.
pub const UNSETTLED_MAX: usize = 1_000;
/// Requests in flight in the open loop at most; the command API takes 1,024 at a time.
const OPEN_LOOP_IN_FLIGHT_MAX: usize = 960;

/// How long nothing at all may come to an end before something must be wrong, unless told otherwise.
const STALL_AFTER: Duration = Duration::from_mins(2);

/// Orders that are handed to the carrier at the same time.
const SHIPPED_AT_A_TIME: usize = 512;

/// How to place the orders.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Orders per second; as fast as [`IN_FLIGHT`] and [`UNSETTLED_MAX`] allow when left out.
    pub rate: Option<f64>,
    /// Whether each order is shipped once it is seen as confirmed, as fast as that goes, so that no stock stays set aside.
    pub ships: bool,
    /// After how long without any order coming to its end something must be wrong; two minutes when left out.
    pub stall_after: Option<Duration>,
    /// Whether a progress bar is drawn on standard error, if that is a terminal.
    pub shows_progress: bool,
    /// Counts for others to look at while the load runs.
    pub counters: Arc<Counters>,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Every order, in the order in which their ends were seen.
    pub orders: Vec<PlacedOrder>,
    /// From the first POST to the last final status seen.
    pub elapsed: Duration,
}

/// One order's way.
#[derive(Clone, Debug)]
pub struct PlacedOrder {
    /// Which one.
    pub order_id: String,
    /// The final status that was seen: `CONFIRMED`, `REJECTED` or `CANCELLED` (or later than `CONFIRMED`).
    pub status: String,
    /// From the (intended) POST to the 2xx.
    pub placed_after: Duration,
    /// From the (intended) POST to the final status seen.
    pub settled_after: Duration,
}

impl Placed {
    /// How many orders ended with this status.
    pub fn count(&self, status: &str) -> u64 {
        self.orders.iter().filter(|order| order.status == status).count() as u64
    }
}

/// Puts the workload's stock on the shelves.
pub async fn receive_stock(shop: &Shop, workload: &Workload) -> anyhow::Result<()> {
    let receipts = workload.stock().into_iter().map(|(sku, quantity)| async move {
        shop.receive(&sku, quantity, &workload.receipt_key(&sku)).await.with_context(|| format!("receive {sku}"))
    });
    futures::stream::iter(receipts).buffer_unordered(8).try_for_each(|_| async { Ok(()) }).await
}

/// Places every order of the workload and waits until each has its final status.
///
/// Fails when an order is refused, is not acknowledged within the shop's patience, or does not come to an end.
pub async fn run(shop: &Shop, workload: &Workload, load: &Load) -> anyhow::Result<Placed> {
    let unsettled_max = if load.rate.is_some() { Semaphore::MAX_PERMITS } else { UNSETTLED_MAX };
    let watch = Watch::new(load.counters.clone(), unsettled_max, load.stall_after.unwrap_or(STALL_AFTER));
    let progress = Progress::start(load, workload.orders());
    let started = Instant::now();
    let placing = async {
        let in_flight_max = if load.rate.is_some() { OPEN_LOOP_IN_FLIGHT_MAX } else { IN_FLIGHT };
        let placed = futures::stream::iter(0..workload.orders())
            .map(|index| {
                let intended = load.rate.map(|rate| started + Duration::from_secs_f64(as_f64(index) / rate));
                place(shop, workload.order(index), intended, &watch)
            })
            .buffer_unordered(in_flight_max)
            .try_for_each(|()| async { Ok(()) })
            .await;
        watch.no_more();
        placed
    };
    let (confirmed, to_ship) = mpsc::unbounded_channel();
    let shipping = ship_all(shop, to_ship);
    let following = async {
        let confirmed = load.ships.then_some(confirmed);
        watch
            .follow(shop, |order| {
                if let Some(confirmed) = &confirmed
                    && order.status == "CONFIRMED"
                {
                    // Who ships is gone only when the load has failed.
                    let _ = confirmed.send(order.order_id.clone());
                }
            })
            .await
    };
    let ((), orders, (), ()) = tokio::try_join!(placing, following, shipping, async {
        progress.follow(&watch).await;
        Ok(())
    })?;
    let elapsed = watch.last_end().map_or(Duration::ZERO, |end| end - started);
    ensure!(
        orders.len() as u64 == workload.orders(),
        "{} orders were placed and {} came to an end",
        workload.orders(),
        orders.len()
    );
    Ok(Placed { orders, elapsed })
}

async fn place(shop: &Shop, planned: PlannedOrder, intended: Option<Instant>, watch: &Watch) -> anyhow::Result<()> {
    if let Some(intended) = intended {
        sleep_until(intended).await;
    }
    watch.make_room().await;
    let started = intended.unwrap_or_else(Instant::now);
    let answer = shop.place(&planned.order, &planned.key).await.context("place an order")?;
    let placed_after = started.elapsed();
    watch.placed();
    let expected = match planned.cancelled_after {
        None => Expected::AnyEnd,
        Some(after) => {
            sleep(after).await;
            cancel(shop, &answer, &planned.key).await?
        }
    };
    watch.add(planned.order.customer.id, answer.order_id.to_string(), watch::Waiting { started, placed_after, expected });
    Ok(())
}

/// Ships the orders that come, until no more can come.
async fn ship_all(shop: &Shop, orders: mpsc::UnboundedReceiver<String>) -> anyhow::Result<()> {
    let orders = futures::stream::unfold(orders, |mut orders| async { Some((orders.recv().await?, orders)) });
    orders.map(|order_id| ship(shop, order_id)).buffer_unordered(SHIPPED_AT_A_TIME).try_for_each(|()| async { Ok(()) }).await
}

async fn ship(shop: &Shop, order_id: String) -> anyhow::Result<()> {
    let id = order_id.parse().context("read an order id")?;
    shop.ship(id, &format!("CT{order_id}"), &format!("{order_id}-ship")).await.context("ship an order").map(drop)
}

/// Calls an order off. It may have been rejected before, which is an end as well.
async fn cancel(shop: &Shop, answer: &OrderAnswer, key: &str) -> anyhow::Result<Expected> {
    match shop.cancel(answer.order_id, "changed my mind", &format!("{key}-cancel")).await {
        Ok(_) => Ok(Expected::Cancelled),
        Err(ShopError::Refused { status: 409, .. }) => Ok(Expected::AnyEnd),
        Err(error) => Err(error).context("cancel an order"),
    }
}

/// How many orders come in at this rate, at least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive, and the number far below 2^63")]
pub fn orders_in(orders_per_s: f64, duration: Duration) -> u64 {
    (orders_per_s * duration.as_secs_f64()).round().max(1.0) as u64
}

#[expect(clippy::cast_precision_loss, reason = "a number of orders is far below 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
