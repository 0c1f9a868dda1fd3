use serde_json::json;

use crate::api::Api;
use crate::rows::insert_stock;

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_item_says_what_is_there_what_is_promised_and_what_is_left() {
    let mut api = Api::start().await;
    insert_stock(&mut api.writer, "TEA-1", 10, 3).await;
    let query = "query ($sku: String!) { stockItem(sku: $sku) { sku onHand reserved available version position updatedAt } }";
    let expected = json!({"stockItem": {"sku": "TEA-1", "onHand": 10, "reserved": 3, "available": 7, "version": 3,
                                        "position": "7", "updatedAt": "2026-11-20T12:00:00.123456Z"}});
    assert_eq!(api.data(query, json!({"sku": "TEA-1"})).await, expected);
    assert_eq!(api.data(query, json!({"sku": "TEA-2"})).await, json!({"stockItem": null}));
}
