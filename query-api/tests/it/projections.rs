use serde_json::json;

use crate::api::Api;
use crate::rows::advance;

#[tokio::test(flavor = "multi_thread")]
async fn projections_say_how_far_they_are_and_why_they_stand_still() {
    let mut api = Api::start().await;
    advance(&mut api.writer, "orders", 7).await;
    sqlx::query(
        "UPDATE contrail.projections SET position = 4, head = 9, state = 'halted', halt_position = 5,
             halt_event_type = 'contrail.order.lost.v1', halt_reason = 'unknown type', halted_at = '2026-11-20T12:00:00Z'
         WHERE name = 'inventory'",
    )
    .execute(&mut api.writer)
    .await
    .expect("a projection that halts");
    let query = "{ projections { name position head lag state halt { position eventType reason haltedAt } } }";
    let expected = json!({"projections": [
        {"name": "orders", "position": "7", "head": "7", "lag": 0, "state": "RUNNING", "halt": null},
        {"name": "inventory", "position": "4", "head": "9", "lag": 5, "state": "HALTED",
         "halt": {"position": "5", "eventType": "contrail.order.lost.v1", "reason": "unknown type",
                  "haltedAt": "2026-11-20T12:00:00Z"}},
        {"name": "audit", "position": "0", "head": "0", "lag": 0, "state": "RUNNING", "halt": null},
    ]});
    assert_eq!(api.data(query, json!({})).await, expected);
}
