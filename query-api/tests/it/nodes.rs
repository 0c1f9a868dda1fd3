use serde_json::json;

use crate::api::Api;
use crate::rows::{insert_event, insert_order, insert_stock, order_id, placed};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_found_again_by_its_id() {
    let mut api = Api::start().await;
    insert_order(&mut api.writer, &placed(1)).await;
    insert_stock(&mut api.writer, "TEA-1", 1, 0).await;
    insert_event(&mut api.writer, 1, "order.placed", &order_id(1), 1, &json!({})).await;
    let found = api
        .data(
            "{ orders { edges { node { id } } } stockItem(sku: \"TEA-1\") { id } auditTrail { edges { node { id } } } }",
            json!({}),
        )
        .await;
    let query = "query ($id: ID!) { node(id: $id) { id __typename ... on Order { orderId } ... on StockItem { sku }
                                                    ... on AuditEvent { position } } }";
    let cases = [
        (&found["orders"]["edges"][0]["node"]["id"], "Order", "orderId", order_id(1)),
        (&found["stockItem"]["id"], "StockItem", "sku", "TEA-1".to_owned()),
        (&found["auditTrail"]["edges"][0]["node"]["id"], "AuditEvent", "position", "1".to_owned()),
    ];
    for (id, typename, field, value) in cases {
        let node = api.data(query, json!({"id": id})).await;
        assert_eq!(node, json!({"node": {"id": id, "__typename": typename, field: value}}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_exist_is_null() {
    let api = Api::start().await;
    // Base64 of "StockItem:NONE", of "AuditEvent:7", of "Order:x", of "Basket:1"; and no base64 at all.
    for id in ["U3RvY2tJdGVtOk5PTkU=", "QXVkaXRFdmVudDo3", "T3JkZXI6eA==", "QmFza2V0OjE=", "nonsense"] {
        assert_eq!(api.data("query ($id: ID!) { node(id: $id) { id } }", json!({"id": id})).await, json!({"node": null}));
    }
}
