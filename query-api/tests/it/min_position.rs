use std::time::{Duration, Instant};

use read_store::projections::ProjectionName;
use serde_json::json;
use sqlx::Connection as _;

use crate::api::Api;
use crate::rows::{advance, insert_order, insert_stock, order_id, placed};

const ORDER: &str = "query ($id: ID!, $min: Position) { order(id: $id, minPosition: $min) { version } }";

/// Completes when the API has heard of the position.
async fn heard_of(api: &Api, projection: ProjectionName, position: u64) {
    let wait = Duration::from_secs(10);
    api.positions.reach(projection, position, wait).await.expect("the position is heard of");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_its_position_and_then_sees_what_it_brought() {
    let mut api = Api::start().await;
    advance(&mut api.writer, "orders", 1).await;
    heard_of(&api, ProjectionName::Orders, 1).await;
    let mut writer = api.connect().await;
    let write = async {
        let mut transaction = writer.begin().await.expect("a transaction");
        insert_order(&mut transaction, &placed(1)).await;
        // Nobody hears of this before it is committed.
        advance(&mut transaction, "orders", 2).await;
        transaction.commit().await.expect("a commit");
    };
    let read = api.data(ORDER, json!({"id": order_id(1), "min": "2"}));
    // The read is polled first, so it begins to wait before anything is written.
    let (data, ()) = tokio::join!(read, write);
    assert_eq!(data, json!({"order": {"version": 1}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_wakes_a_waiter_before_the_next_poll() {
    let mut api = Api::start().await;
    advance(&mut api.writer, "orders", 1).await;
    heard_of(&api, ProjectionName::Orders, 1).await;
    // Several rounds, because a poll may happen to come at the right moment once.
    let started = Instant::now();
    for position in 2..12 {
        advance(&mut api.writer, "orders", position).await;
        heard_of(&api, ProjectionName::Orders, u64::try_from(position).expect("a small position")).await;
    }
    assert!(started.elapsed() < Duration::from_secs(5), "10 polls take 10 s, this took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_notification_is_made_good_for() {
    let mut api = Api::start().await;
    sqlx::query("UPDATE contrail.projections SET position = 5 WHERE name = 'inventory'")
        .execute(&mut api.writer)
        .await
        .expect("a projection that moves in silence");
    insert_stock(&mut api.writer, "TEA-1", 1, 0).await;
    let query = "{ stockItem(sku: \"TEA-1\", minPosition: 5) { onHand } }";
    assert_eq!(api.data(query, json!({})).await, json!({"stockItem": {"onHand": 1}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_comes_back_after_its_connection_was_cut() {
    let mut api = Api::start().await;
    advance(&mut api.writer, "orders", 1).await;
    heard_of(&api, ProjectionName::Orders, 1).await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut api.writer)
    .await
    .expect("every other connection is cut");
    advance(&mut api.writer, "orders", 2).await;
    heard_of(&api, ProjectionName::Orders, 2).await;
    insert_order(&mut api.writer, &placed(1)).await;
    assert_eq!(api.data(ORDER, json!({"id": order_id(1), "min": "2"})).await, json!({"order": {"version": 1}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_does_not_come_is_a_stale_read_that_says_where_things_are() {
    let mut api = Api::start_with(Duration::from_millis(50)).await;
    insert_order(&mut api.writer, &placed(1)).await;
    advance(&mut api.writer, "orders", 7).await;
    heard_of(&api, ProjectionName::Orders, 7).await;
    let response = api.response(ORDER, json!({"id": order_id(1), "min": "8"})).await;
    assert_eq!(response["data"], json!({"order": null}));
    assert_eq!(
        response["errors"][0]["extensions"],
        json!({"code": "STALE_READ", "projection": "orders", "position": "7", "minPosition": "8"})
    );
    assert_eq!(response["errors"][0]["message"], "the projection orders is at position 7 and did not reach 8 within 50 ms");
    assert_eq!(api.data(ORDER, json!({"id": order_id(1), "min": 7})).await, json!({"order": {"version": 1}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_and_its_history_wait_for_the_same_position() {
    let mut api = Api::start_with(Duration::from_millis(50)).await;
    insert_order(&mut api.writer, &placed(1)).await;
    advance(&mut api.writer, "orders", 7).await;
    heard_of(&api, ProjectionName::Orders, 7).await;
    let query = "query ($id: ID!, $min: Position) { order(id: $id, minPosition: $min) { history { edges { cursor } } } }";
    // The order is there, its history is not yet.
    let response = api.response(query, json!({"id": order_id(1), "min": "7"})).await;
    assert_eq!(
        response["errors"][0]["extensions"],
        json!({"code": "STALE_READ", "projection": "audit", "position": "0", "minPosition": "7"})
    );
    // Whoever does not ask for a position gets what there is.
    api.data(query, json!({"id": order_id(1)})).await;
    advance(&mut api.writer, "audit", 7).await;
    heard_of(&api, ProjectionName::Audit, 7).await;
    api.data(query, json!({"id": order_id(1), "min": "7"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_waits_for_its_own_read_model() {
    let mut api = Api::start_with(Duration::from_millis(50)).await;
    let cases = [
        ("orders", "{ orders(minPosition: 3) { edges { cursor } } }"),
        ("inventory", "{ stockItem(sku: \"TEA-1\", minPosition: 3) { sku } }"),
        ("inventory", "{ stockItems(minPosition: 3) { edges { cursor } } }"),
        ("audit", "{ auditTrail(minPosition: 3) { edges { cursor } } }"),
    ];
    for (projection, query) in cases {
        let response = api.response(query, json!({})).await;
        assert_eq!(response["errors"][0]["extensions"]["code"], "STALE_READ", "{query}");
        assert_eq!(response["errors"][0]["extensions"]["projection"], projection, "{query}");
    }
    for projection in ProjectionName::ALL {
        advance(&mut api.writer, projection.as_str(), 3).await;
        heard_of(&api, projection, 3).await;
    }
    for (_, query) in cases {
        api.data(query, json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waiters_cost_no_connection() {
    let mut api = Api::start().await;
    // Far more than the four connections that this API has.
    let waiters: Vec<_> = (0..100)
        .map(|_| {
            let positions = api.positions.clone();
            tokio::spawn(async move { positions.reach(ProjectionName::Orders, 5, Duration::from_secs(10)).await })
        })
        .collect();
    api.data("{ projections { name } }", json!({})).await;
    advance(&mut api.writer, "orders", 5).await;
    for waiter in waiters {
        waiter.await.expect("no panic").expect("reached");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_position_is_refused() {
    let api = Api::start().await;
    for bad in [json!("x"), json!("-1"), json!("+1"), json!(-1), json!(1.5), json!(true)] {
        let (code, message) = api.error(ORDER, json!({"id": order_id(1), "min": bad})).await;
        assert!(["BAD_USER_INPUT", "GRAPHQL_VALIDATION_FAILED"].contains(&code.as_str()), "{bad}: {code}: {message}");
    }
}
