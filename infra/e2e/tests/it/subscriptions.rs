//! Orders followed live, while what they are read from dies, comes back, and is swapped.

use std::process::Stdio;
use std::time::Duration;

use e2e::{
    audience::Audience,
    load::{self, Load},
    workload::Workload,
};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::running::Running;

const ORDERS: u64 = 600;
const ORDERS_PER_S: f64 = 30.0;
const SUBSCRIBERS: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_see_every_status_in_order_while_projectors_die_and_read_models_are_swapped() {
    let mut running = Running::start();
    let workload = Workload::new("followed", 20_261_122, ORDERS);
    let shop = running.shop.clone();
    load::receive_stock(&shop, &workload).await.unwrap();
    let audience = Audience::gather(running.info(), &workload, SUBSCRIBERS).await.unwrap();
    let listening = tokio::spawn(audience.listen());
    let load = Load { rate: Some(ORDERS_PER_S), ..Load::default() };
    let placing = tokio::spawn(async move { load::run(&shop, &workload, &load).await.map(|placed| placed.orders.len()) });
    for _ in 0..3 {
        sleep(Duration::from_secs(2)).await;
        running.kill("projectors");
        sleep(Duration::from_millis(500)).await;
        running.start_again("projectors");
        let mut replay = running.stack().command("projectors").unwrap();
        replay.args(["replay", "all"]).stdout(Stdio::null()).stderr(Stdio::null());
        let replayed = block_in_place(|| replay.status()).unwrap();
        assert!(replayed.success(), "{replayed}");
    }
    assert_eq!(placing.await.unwrap().unwrap() as u64, ORDERS);
    let heard = listening.await.unwrap().unwrap();
    assert_eq!(heard.orders, ORDERS);
    assert_eq!(heard.lags.count() as u64, heard.updates);
    running.finish();
}
