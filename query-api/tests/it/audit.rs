use serde_json::json;

use crate::api::Api;
use crate::rows::{insert_event, order_id};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_shown_as_it_is_stored() {
    let mut api = Api::start().await;
    // Numbers beyond 53 bits, and the order of keys, survive.
    let data: serde_json::Value = serde_json::from_str(r#"{"z":9007199254740993,"a":[1.10,null],"text":"ü"}"#).expect("JSON");
    insert_event(&mut api.writer, 5, "order.placed", &order_id(1), 1, &data).await;
    let query = "{ auditTrail { edges { node { position eventId type aggregateType aggregateId version time actor correlationId
                                               causationId traceId data leafHash } } } }";
    let event = json!({
        "position": "5", "eventId": "00000000-0000-0000-0000-000000000005", "type": "contrail.order.placed.v1",
        "aggregateType": "order", "aggregateId": order_id(1), "version": 1, "time": "2026-11-20T12:00:05.123456Z",
        "actor": "customer:c-42", "correlationId": format!("story-of-{}", order_id(1)), "causationId": null, "traceId": null,
        "data": data, "leafHash": "00ff",
    });
    assert_eq!(api.data(query, json!({})).await, json!({"auditTrail": {"edges": [{"node": event}]}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_event_is_shown_as_its_text() {
    let mut api = Api::start().await;
    for position in 1..=2 {
        insert_event(&mut api.writer, position, "order.placed", &order_id(1), position, &json!({"of": position})).await;
    }
    let nonsense = "UPDATE contrail.audit SET bytes = 'no \"event\" \\377'::bytea WHERE position = 1";
    sqlx::query(nonsense).execute(&mut api.writer).await.expect("it is changed");
    let data = api.data("{ auditTrail(first: 2) { edges { node { data } } } }", json!({})).await;
    let shown = json!({"edges": [{"node": {"data": "no \"event\" \u{fffd}"}}, {"node": {"data": {"of": 2}}}]});
    assert_eq!(data["auditTrail"], shown);
}
