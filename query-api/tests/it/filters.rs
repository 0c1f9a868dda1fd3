use domain::order::OrderStatus;
use domain::payment::PaymentStatus;
use read_store::views::LineView;
use serde_json::{Value, json};
use time::Duration;

use crate::api::Api;
use crate::rows::{T0, insert_event, insert_order, insert_stock, order_id, placed};

/// The keys of the rows that a filter lets through.
async fn keys(api: &Api, query: &str, filter: Value) -> Vec<String> {
    let data = api.data(query, json!({"filter": filter})).await;
    let edges = data["page"]["edges"].as_array().expect("edges").iter();
    edges.map(|edge| edge["node"]["key"].as_str().expect("a key").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_filtered_by_each_field_and_by_all_together() {
    let mut api = Api::start().await;
    for number in 1..=4_u8 {
        let mut order = placed(number.into());
        order.placed_at = T0 + Duration::hours(number.into());
        order.status = if number == 4 { OrderStatus::Placed } else { OrderStatus::Confirmed };
        order.payment_status = if number == 1 { PaymentStatus::Captured } else { PaymentStatus::None };
        order.customer.id = format!("c-{}", number % 2);
        let cups: Vec<_> = (0..number).map(|cup| LineView { sku: format!("CUP-{cup}"), ..order.lines[0].clone() }).collect();
        order.lines.extend(cups);
        insert_order(&mut api.writer, &order).await;
    }
    let query = "query ($filter: OrderFilter) { page: orders(filter: $filter) { edges { node { key: orderId } } } }";
    let at = |hour: i64| (T0 + Duration::hours(hour)).format(&time::format_description::well_known::Rfc3339).expect("a time");
    let cases = [
        (json!(null), vec![4, 3, 2, 1]),
        (json!({}), vec![4, 3, 2, 1]),
        (json!({"status": ["CONFIRMED"]}), vec![3, 2, 1]),
        (json!({"status": ["PLACED", "CONFIRMED"]}), vec![4, 3, 2, 1]),
        (json!({"status": ["DELIVERED", "PLACED"]}), vec![4]),
        (json!({"status": []}), vec![]),
        (json!({"paymentStatus": "CAPTURED"}), vec![1]),
        (json!({"customerId": "c-1"}), vec![3, 1]),
        (json!({"placedAfter": at(3)}), vec![4, 3]),
        (json!({"placedBefore": at(3)}), vec![2, 1]),
        (json!({"placedAfter": at(2), "placedBefore": at(4), "status": ["CONFIRMED"], "customerId": "c-1"}), vec![3]),
        (json!({"customerId": "' OR true --"}), vec![]),
        (json!({"customerIdPrefix": ""}), vec![4, 3, 2, 1]),
        (json!({"customerIdPrefix": "c-"}), vec![4, 3, 2, 1]),
        (json!({"customerIdPrefix": "c-1"}), vec![3, 1]),
        (json!({"customerIdPrefix": "C"}), vec![]),
        (json!({"customerIdPrefix": "c%"}), vec![]),
        (json!({"orderIdPrefix": ""}), vec![4, 3, 2, 1]),
        (json!({"orderIdPrefix": "00000000-0000"}), vec![4, 3, 2, 1]),
        (json!({"orderIdPrefix": order_id(2)}), vec![2]),
        (json!({"orderIdPrefix": "FF"}), vec![]),
        (json!({"sku": "TEA-1"}), vec![4, 3, 2, 1]),
        (json!({"sku": "CUP-2"}), vec![4, 3]),
        (json!({"sku": "CUP"}), vec![]),
        (json!({"sku": "{}"}), vec![]),
        (json!({"sku": "CUP-1", "customerIdPrefix": "c-0", "status": ["CONFIRMED"]}), vec![2]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<_> = expected.into_iter().map(order_id).collect();
        assert_eq!(keys(&api, query, filter.clone()).await, expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_id_can_begin_with_is_refused_in_words() {
    let api = Api::start().await;
    let query = "query ($filter: OrderFilter) { orders(filter: $filter) { edges { cursor } } }";
    for prefix in ["TEA", "0000-", "00000000000000000", "'", "\0", "00000000-0000-0000-0000-0000000000011"] {
        let (code, message) = api.error(query, json!({"filter": {"orderIdPrefix": prefix}})).await;
        assert_eq!(code, "BAD_USER_INPUT");
        assert!(message.starts_with("orderIdPrefix must be what a UUID begins with"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_holds_on_every_page_and_for_its_ends() {
    let mut api = Api::start().await;
    for number in 1..=6 {
        let mut order = placed(number);
        order.customer.id = if number % 2 == 0 { "even" } else { "odd" }.to_owned();
        insert_order(&mut api.writer, &order).await;
    }
    let query = "query ($first: Int, $after: String, $last: Int) {
        orders(filter: {customerId: \"odd\"}, first: $first, after: $after, last: $last) {
            edges { node { orderId } } pageInfo { hasNextPage hasPreviousPage endCursor } } }";
    let first = api.data(query, json!({"first": 2})).await["orders"].take();
    assert_eq!(first["edges"], json!([{"node": {"orderId": order_id(1)}}, {"node": {"orderId": order_id(3)}}]));
    let next = api.data(query, json!({"first": 2, "after": first["pageInfo"]["endCursor"]})).await["orders"].take();
    assert_eq!(next["edges"], json!([{"node": {"orderId": order_id(5)}}]));
    assert_eq!(next["pageInfo"]["hasNextPage"], false, "6 is even");
    assert_eq!(next["pageInfo"]["hasPreviousPage"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_items_are_filtered_by_prefix_and_by_what_is_available() {
    let mut api = Api::start().await;
    for (sku, on_hand, reserved) in [("CUP_1", 5, 5), ("TEA-1", 10, 2), ("TEA-2", 3, 0), ("tea-3", 1, 0)] {
        insert_stock(&mut api.writer, sku, on_hand, reserved).await;
    }
    let query = "query ($filter: StockFilter) { page: stockItems(filter: $filter) { edges { node { key: sku } } } }";
    let cases = [
        (json!({"skuPrefix": "TEA"}), vec!["TEA-1", "TEA-2"]),
        (json!({"skuPrefix": "CUP%"}), vec![]),
        (json!({"availableBelow": 3}), vec!["CUP_1", "tea-3"]),
        (json!({"availableAtLeast": 3}), vec!["TEA-1", "TEA-2"]),
        (json!({"availableBelow": 8, "availableAtLeast": 1, "skuPrefix": "TEA"}), vec!["TEA-2"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(keys(&api, query, filter.clone()).await, expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_filtered_by_each_field_and_by_all_together() {
    let mut api = Api::start().await;
    let one = order_id(1);
    let events = [
        (1, "stock.received", "TEA-1", 1),
        (2, "order.placed", one.as_str(), 1),
        (3, "order.stock_reserved", one.as_str(), 2),
        (4, "payment.captured", one.as_str(), 1),
    ];
    for (position, event_type, id, version) in events {
        insert_event(&mut api.writer, position, event_type, id, version, &json!({})).await;
    }
    let query = "query ($filter: AuditFilter) { page: auditTrail(filter: $filter) { edges { node { key: position } } } }";
    let cases = [
        (json!({}), vec!["1", "2", "3", "4"]),
        (json!({"aggregateType": "order"}), vec!["2", "3"]),
        (json!({"aggregateId": one}), vec!["2", "3", "4"]),
        (json!({"aggregateType": "payment", "aggregateId": one}), vec!["4"]),
        (json!({"eventType": "contrail.order.placed.v1"}), vec!["2"]),
        (json!({"correlationId": "story-of-TEA-1"}), vec!["1"]),
        (json!({"actor": "customer:c-42"}), vec!["1", "2", "4"]),
        (json!({"fromPosition": "3"}), vec!["3", "4"]),
        (json!({"toPosition": 2}), vec!["1", "2"]),
        (json!({"fromPosition": "18446744073709551615"}), vec![]),
        (json!({"timeAfter": "2026-11-20T12:00:03.123456Z"}), vec!["3", "4"]),
        (json!({"timeBefore": "2026-11-20T13:00:03.123456+01:00"}), vec!["1", "2"]),
        (json!({"aggregateId": one, "actor": "customer:c-42", "toPosition": "3"}), vec!["2"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(keys(&api, query, filter.clone()).await, expected, "{filter}");
    }
}
