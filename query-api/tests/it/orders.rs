use serde_json::json;

use crate::api::Api;
use crate::rows::{eventful, insert_event, insert_order, order_id, placed};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_has_everything_that_happened_to_it() {
    let mut api = Api::start().await;
    insert_order(&mut api.writer, &eventful(1)).await;
    let query = "query ($id: ID!) { order(id: $id) {
        orderId status paymentStatus customer { id email name }
        lines { sku quantity unitPrice { amount currencyCode minorUnits } total { amount } } total { amount currencyCode minorUnits }
        placedAt updatedAt version position reservedAt paymentDueAt confirmedAt
        rejection { shortages { sku requested available } rejectedAt }
        cancellation { cause reason cancelledAt }
        shipment { carrier trackingNumber shippedAt deliveredAt }
        payment { status paymentIntentId amount { amount } capturedAt declineCode declineMessage declinedAt refundId
                  refundedAmount { minorUnits } refundedAt failure { reason givenUpAt position } }
        notifications { id topic channel status reason at }
    } }";
    let at = "2026-11-20T12:01:00.123456Z";
    let expected = json!({"order": {
        "orderId": order_id(1), "status": "CANCELLED", "paymentStatus": "REFUNDED",
        "customer": {"id": "c-42", "email": "a@example.com", "name": "A"},
        "lines": [{"sku": "TEA-1", "quantity": 2, "unitPrice": {"amount": "12.50", "currencyCode": "EUR", "minorUnits": "1250"},
                   "total": {"amount": "25.00"}}],
        "total": {"amount": "25.00", "currencyCode": "EUR", "minorUnits": "2500"},
        "placedAt": "2026-11-20T12:00:00.123456Z", "updatedAt": at, "version": 4, "position": "9",
        "reservedAt": at, "paymentDueAt": at, "confirmedAt": at,
        "rejection": {"shortages": [{"sku": "TEA-1", "requested": 2, "available": 1}], "rejectedAt": at},
        "cancellation": {"cause": "PAYMENT_DEADLINE", "reason": "unpaid", "cancelledAt": at},
        "shipment": {"carrier": "DHL", "trackingNumber": "T1", "shippedAt": at, "deliveredAt": null},
        "payment": {"status": "REFUNDED", "paymentIntentId": "pi_1", "amount": {"amount": "25.00"}, "capturedAt": at,
                    "declineCode": null, "declineMessage": null, "declinedAt": null, "refundId": "re_1",
                    "refundedAmount": {"minorUnits": "2500"}, "refundedAt": at,
                    "failure": {"reason": "the gateway refused", "givenUpAt": at, "position": "8"}},
        "notifications": [{"id": order_id(99), "topic": "ORDER_CANCELLED", "channel": "email", "status": "FAILED",
                           "reason": "no such mailbox", "at": at}],
    }});
    assert_eq!(api.data(query, json!({"id": order_id(1)})).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_happen_to_an_order_is_null() {
    let mut api = Api::start().await;
    insert_order(&mut api.writer, &placed(1)).await;
    let query = "query ($id: ID!) { order(id: $id) {
        status paymentStatus reservedAt paymentDueAt confirmedAt rejection { rejectedAt } cancellation { reason }
        shipment { carrier } payment { status } notifications { id } history { edges { cursor } pageInfo { endCursor } }
    } }";
    let expected = json!({"order": {
        "status": "PLACED", "paymentStatus": "NONE", "reservedAt": null, "paymentDueAt": null, "confirmedAt": null,
        "rejection": null, "cancellation": null, "shipment": null, "payment": null, "notifications": [],
        "history": {"edges": [], "pageInfo": {"endCursor": null}},
    }});
    assert_eq!(api.data(query, json!({"id": order_id(1)})).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_found_by_its_own_id_and_by_its_node_id_and_else_is_null() {
    let mut api = Api::start().await;
    insert_order(&mut api.writer, &placed(1)).await;
    let query = "query ($id: ID!) { order(id: $id) { id orderId } }";
    let by_order_id = api.data(query, json!({"id": order_id(1)})).await;
    assert_eq!(by_order_id["order"]["orderId"], order_id(1));
    assert_eq!(api.data(query, json!({"id": by_order_id["order"]["id"]})).await, by_order_id);
    assert_eq!(api.data(query, json!({"id": order_id(1).to_uppercase()})).await, by_order_id);
    for nobody in [order_id(2), "nonsense".to_owned(), String::new()] {
        assert_eq!(api.data(query, json!({"id": nobody})).await, json!({"order": null}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_that_of_the_order_and_its_payment_in_the_order_of_the_log() {
    let mut api = Api::start().await;
    let (one, two) = (order_id(1), order_id(2));
    insert_order(&mut api.writer, &placed(1)).await;
    insert_order(&mut api.writer, &placed(2)).await;
    let events = [
        (1, "order.placed", &one, 1),
        (2, "order.placed", &two, 1),
        (3, "stock.reserved", &"TEA-1".to_owned(), 1),
        (4, "order.stock_reserved", &one, 2),
        (5, "payment.captured", &one, 1),
        (6, "order.confirmed", &one, 3),
    ];
    for (position, event_type, id, version) in events {
        insert_event(&mut api.writer, position, event_type, id, version, &json!({"n": position})).await;
    }
    let query = "query ($id: ID!, $first: Int, $after: String) { order(id: $id) { history(first: $first, after: $after) {
        edges { cursor node { position type aggregateType version data } } pageInfo { hasNextPage hasPreviousPage endCursor }
    } } }";
    let first = api.data(query, json!({"id": one, "first": 2})).await["order"]["history"].take();
    assert_eq!(
        first["edges"][1]["node"],
        json!({"position": "4", "type": "contrail.order.stock_reserved.v1", "aggregateType": "order", "version": 2, "data": {"n": 4}})
    );
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    assert_eq!(first["pageInfo"]["hasPreviousPage"], false);
    let rest = api.data(query, json!({"id": one, "first": 2, "after": first["pageInfo"]["endCursor"]})).await;
    let rest = &rest["order"]["history"];
    let types: Vec<_> = rest["edges"].as_array().expect("edges").iter().map(|edge| &edge["node"]["type"]).collect();
    assert_eq!(types, ["contrail.payment.captured.v1", "contrail.order.confirmed.v1"]);
    assert_eq!(rest["pageInfo"]["hasNextPage"], false);
    assert_eq!(rest["pageInfo"]["hasPreviousPage"], true);
}

// On one thread, so that the statement begins only when every history was asked for: on two, the machine can pause the one that
// asks between two of them for longer than the loader waits.
#[tokio::test(flavor = "current_thread")]
async fn the_histories_of_a_page_of_orders_are_read_together() {
    let mut api = Api::start().await;
    for number in 1..=30_u32 {
        insert_order(&mut api.writer, &placed(number.into())).await;
        insert_event(&mut api.writer, number, "order.placed", &order_id(number.into()), 1, &json!({})).await;
    }
    // While the table is locked, every statement that wants it can be counted.
    let mut writer = api.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE contrail.audit IN ACCESS EXCLUSIVE MODE").execute(&mut writer).await.expect("a lock");
    let histories = async {
        let query = "{ orders(first: 30) { edges { node { orderId history(first: 5) { edges { node { aggregateId } } } } } } }";
        api.data(query, json!({})).await
    };
    let lock = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'contrail.audit'::regclass";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut writer).await.expect("a count") == 0 {
            tokio::task::yield_now().await;
        }
        // Thirty statements would have taken all four connections by now, and this could not be answered.
        api.data("{ projections { name } }", json!({})).await;
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut writer).await.expect("a count");
        sqlx::raw_sql("COMMIT").execute(&mut writer).await.expect("the lock is given up");
        waiting
    };
    let (data, waiting) = tokio::join!(histories, lock);
    assert_eq!(waiting, 1, "one statement for 30 histories");
    let orders = data["orders"]["edges"].as_array().expect("edges");
    assert_eq!(orders.len(), 30);
    for order in orders {
        let events = order["node"]["history"]["edges"].as_array().expect("edges");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["node"]["aggregateId"], order["node"]["orderId"]);
    }
}
