//! A checkout that is not sure whether it was heard asks again, and again.

use futures::future::join_all;
use serde_json::json;

use crate::running::{Running, order_of};

#[tokio::test(flavor = "multi_thread")]
async fn one_key_fifty_times_at_once_is_one_order_and_fifty_equal_answers() {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 10, "receipt").await.unwrap();
    let body = serde_json::to_value(order_of("TEA-1", 1)).unwrap();

    for round in 0..3 {
        let key = format!("checkout-{round}");
        let answers = join_all((0..50).map(|_| shop.post_raw("/v1/orders", &key, &body))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
        assert!(answers.iter().all(|answer| answer.body == answers[0].body), "{answers:?}");
        let first = answers.iter().filter(|answer| !answer.replayed).count();
        assert!(first <= 1, "{first} answers claim to be the first");

        let mut other = body.clone();
        other["lines"][0]["quantity"] = json!(2);
        let refused = shop.post_raw("/v1/orders", &key, &other).await.unwrap();
        assert_eq!(refused.status, 422, "{refused:?}");

        // The same request once more, long after: the same answer, although the order has moved on.
        let again = shop.place(&order_of("TEA-1", 1), &key).await.unwrap();
        assert_eq!(json!(again.order_id), answers[0].body["order_id"]);
        assert_eq!(json!(again.position), answers[0].body["position"]);
    }
    let report = running.check_invariants().await;
    assert_eq!((report.orders, report.confirmed), (3, 3));
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_is_sent_twice_at_once_is_booked_once() {
    let running = Running::start();
    let shop = &running.shop;
    let receipts = join_all((0..20).map(|_| shop.receive("TEA-1", 5, "delivery-note-1"))).await;
    let answers: Vec<_> = receipts.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    assert_eq!((answers[0].on_hand, answers[0].version), (5, 1));
    running.check_invariants().await;
    running.finish();
}
