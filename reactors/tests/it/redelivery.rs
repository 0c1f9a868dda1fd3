//! Everything delivered once more: nothing changes.

use domain::{order::OrderStatus, payment::PaymentStatus};

use crate::{
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
