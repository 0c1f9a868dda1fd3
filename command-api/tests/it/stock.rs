use domain::OrderId;
use domain::stock::{Allocation, Stock, StockReserved};
use serde_json::json;

use crate::server::{NOW, Server};

#[tokio::test(flavor = "multi_thread")]
async fn goods_are_received_and_counted() {
    let server = Server::start().await;
    let received = server.post("/v1/stock/TEA-1/receipts", "r", &json!({"quantity": 100, "reference": "DN-1"})).await;
    assert_eq!((received.status.as_u16(), received.header("etag")), (201, "\"1\""));
    let expected = json!({"sku": "TEA-1", "on_hand": 100, "reserved": 0, "available": 100, "version": 1, "position": 1});
    assert_eq!(received.json(), expected);

    let adjusted =
        server.post("/v1/stock/TEA-1/adjustments", "a", &json!({"delta": -2, "reason": "damaged", "reference": "C-7"})).await;
    assert_eq!(adjusted.status, 201);
    let expected = json!({"sku": "TEA-1", "on_hand": 98, "reserved": 0, "available": 98, "version": 2, "position": 2});
    assert_eq!(adjusted.json(), expected);

    let read = server.get("/v1/stock/TEA-1").await;
    assert_eq!((read.status.as_u16(), read.header("etag"), read.json()), (200, "\"2\"", expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_cannot_be_taken_away() {
    let server = Server::start().await;
    server.post("/v1/stock/TEA-1/receipts", "r", &json!({"quantity": 5, "reference": "DN-1"})).await;
    let allocations = vec![Allocation { order_id: OrderId::derive("test", "1"), quantity: 4 }];
    server.append::<Stock>("TEA-1", vec![StockReserved { allocations, reserved_at: NOW }.into()]).await;

    let adjust = json!({"delta": -2, "reason": "lost", "reference": "C-1"});
    let refused = server.post("/v1/stock/TEA-1/adjustments", "a", &adjust).await;
    assert_eq!(refused.problem(), (409, "stock-bounds".to_owned()));
    assert_eq!(refused.json()["detail"], "on hand would become 3, below the 4 that are reserved");
    let stock = server.get("/v1/stock/TEA-1").await.json();
    assert_eq!((&stock["on_hand"], &stock["reserved"], &stock["available"]), (&json!(5), &json!(4), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_books_can_hold_is_refused() {
    let server = Server::start().await;
    let receive = json!({"quantity": i32::MAX, "reference": "DN-1"});
    assert_eq!(server.post("/v1/stock/TEA-1/receipts", "r1", &receive).await.status, 201);
    let one_more = json!({"quantity": 1, "reference": "DN-2"});
    assert_eq!(server.post("/v1/stock/TEA-1/receipts", "r2", &one_more).await.problem(), (409, "stock-bounds".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sku_of_which_nothing_came_in_is_404() {
    let server = Server::start().await;
    assert_eq!(server.get("/v1/stock/TEA-1").await.problem(), (404, "stock-not-found".to_owned()));
}
