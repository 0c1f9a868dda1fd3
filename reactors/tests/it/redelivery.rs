//! Everything delivered once more: nothing changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::{envelope::StoredEvent, order::OrderStatus, payment::PaymentStatus};
use event_store::WorkSource;
use reactors::{Failure, News, Reactor};
use tokio::sync::Semaphore;

use crate::{
    eventually,
    gateway::Gateway,
    running::{self, Running},
    shop::{Ask, ONE_TEA, Shop},
    trail::Trail,
};

fn run_all(shop: &Shop, gateway: &Gateway, mail: &std::path::Path) -> [(&'static str, Running); 3] {
    [
        ("allocator", running::allocator(&shop.store)),
        ("payments", running::payments(&shop.store, gateway.adapter())),
        ("notifications", running::notifications(&shop.store, mail)),
    ]
}

#[tokio::test]
async fn every_event_delivered_again_changes_nothing() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let mail = tempfile::tempdir().unwrap();
    shop.receive("TEA", 30).await;
    let running = run_all(&shop, &gateway, mail.path());
    let paid = shop.place_many("paid", 10, ONE_TEA).await;
    let declined = shop.place("declined", Ask { payment_method: "pm_card_chargeDeclined", ..ONE_TEA }).await;
    let rejected = shop.place_lines("rejected", &[("TEA", 31)]).await;
    let mut trail = Trail::of(&shop.store);
    trail
        .until("all are decided", |trail| {
            trail.all_are(&paid, OrderStatus::Confirmed)
                && trail.status(declined) == Some(OrderStatus::Cancelled)
                && trail.status(rejected) == Some(OrderStatus::Rejected)
        })
        .await;
    shop.ship(paid[0]).await;
    shop.cancel(paid[1]).await.unwrap();
    trail.until("it is shipped", |trail| trail.stock("TEA").on_hand == 29).await;
    trail.until("it is refunded", |trail| trail.payment_status(paid[1]) == PaymentStatus::Refunded).await;
    for (name, reactor) in running {
        shop.idle(name).await;
        reactor.drain().await;
    }
    let (head, money) = (shop.store.head().await.unwrap(), gateway.money().await);
    let files = std::fs::read_dir(mail.path()).unwrap().count();
    assert_eq!(files, 10 + 1 + 1 + 3, "confirmed, declined, rejected; shipped, cancelled and refunded");

    for name in ["allocator", "payments", "notifications"] {
        shop.forget_acknowledgements(name).await;
    }
    let running = run_all(&shop, &gateway, mail.path());
    for (name, reactor) in running {
        shop.idle(name).await;
        reactor.drain().await;
    }
    assert_eq!(shop.store.head().await.unwrap(), head);
    assert_eq!(gateway.money().await, money);
    assert_eq!(std::fs::read_dir(mail.path()).unwrap().count(), files);
    assert_eq!(shop.dead_letters().await, []);
}

/// Works on nothing before it is let to.
struct Slow {
    gate: Arc<Semaphore>,
    handled: Arc<AtomicUsize>,
}

impl Reactor for Slow {
    const NAME: &'static str = "slow";
    const SOURCE: WorkSource = WorkSource::Log(&["order"]);
    const CONCURRENCY: usize = 4;

    fn wants(&self, _event_type: &str) -> bool {
        true
    }

    async fn handle(&self, _: &StoredEvent, _: News) -> Result<(), Failure> {
        drop(self.gate.acquire().await);
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn an_instance_that_is_slow_leaves_what_it_has_no_room_for_to_others() {
    const EVENTS: usize = 3_000;
    /// What an instance has in hand at most.
    const IN_HAND: usize = 1_024;
    let shop = Shop::open().await;
    shop.place_many("o", EVENTS, ONE_TEA).await;
    let run = async |turns: usize| {
        let (gate, handled) = (Arc::new(Semaphore::new(turns)), Arc::<AtomicUsize>::default());
        let reactor = Slow { gate: Arc::clone(&gate), handled: Arc::clone(&handled) };
        (running::run(&shop.connect().await, reactor), gate, handled)
    };
    let (_stuck, gate, none_handled) = run(0).await;
    let taken = async || {
        let backlog = shop.store.backlog("slow", Slow::SOURCE).await.ok()??;
        (backlog.in_hand >= u64::try_from(IN_HAND).ok()?).then_some(())
    };
    eventually("it takes what it can", taken).await;
    // Let it take more than it can.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (_quick, _gate, handled) = run(1).await;
    eventually("the other has the rest", async || (handled.load(Ordering::Relaxed) >= EVENTS - IN_HAND).then_some(())).await;
    assert_eq!(none_handled.load(Ordering::Relaxed), 0);
    gate.add_permits(1);
    shop.idle("slow").await;
}

#[tokio::test]
async fn an_event_that_is_delivered_again_while_it_is_in_hand_is_handled_once() {
    let shop = Shop::open().await;
    shop.place("o", ONE_TEA).await;
    let (gate, handled) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let _running = running::run(&shop.store, Slow { gate: Arc::clone(&gate), handled: Arc::clone(&handled) });
    let in_hand = async || {
        let backlog = shop.store.backlog("slow", Slow::SOURCE).await.ok()??;
        (backlog.in_hand == 1).then_some(())
    };
    eventually("it has it", in_hand).await;
    // Its queue is another one now, which knows nothing of that.
    shop.forget_acknowledgements("slow").await;
    eventually("it is handed to it again", in_hand).await;
    gate.add_permits(1);
    shop.idle("slow").await;
    assert_eq!(handled.load(Ordering::Relaxed), 1);
}
