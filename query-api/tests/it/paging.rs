use serde_json::{Value, json};
use time::Duration;

use crate::api::Api;
use crate::rows::{T0, insert_event, insert_order, insert_stock, order_id, placed};

const ORDERS: &str = "query ($first: Int, $after: String, $last: Int, $before: String) {
    page: orders(first: $first, after: $after, last: $last, before: $before) {
        edges { cursor node { key: orderId } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
const STOCK_ITEMS: &str = "query ($first: Int, $after: String, $last: Int, $before: String) {
    page: stockItems(first: $first, after: $after, last: $last, before: $before) {
        edges { cursor node { key: sku } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
const AUDIT_TRAIL: &str = "query ($first: Int, $after: String, $last: Int, $before: String) {
    page: auditTrail(first: $first, after: $after, last: $last, before: $before) {
        edges { cursor node { key: position } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

/// 23 orders of which many were placed in the same microsecond. Returns their ids, newest first.
async fn some_orders(api: &mut Api) -> Vec<String> {
    let mut expected = Vec::new();
    for number in 0..23_u128 {
        let mut order = placed(number * 7_919 % 23);
        order.placed_at = T0 + Duration::microseconds(i64::try_from(number / 5).expect("a small number"));
        insert_order(&mut api.writer, &order).await;
        expected.push((std::cmp::Reverse(order.placed_at), order.order_id));
    }
    expected.sort();
    expected.into_iter().map(|(_, id)| id).collect()
}

/// Pages through everything in both directions, with pages of `size`, and checks keys and ends of every page.
pub(crate) async fn page_through(api: &Api, query: &str, expected: &[String], size: usize) {
    let keys = |page: &Value| -> Vec<String> {
        let edges = page["edges"].as_array().expect("edges").iter();
        edges.map(|edge| edge["node"]["key"].as_str().expect("a key").to_owned()).collect()
    };
    let pages = expected.len().div_ceil(size);

    let (mut seen, mut after) = (Vec::new(), Value::Null);
    for number in 1..=pages {
        let page = api.data(query, json!({"first": size, "after": after})).await["page"].take();
        seen.extend(keys(&page));
        assert_eq!(page["pageInfo"]["hasNextPage"], number < pages, "page {number} of {size}");
        assert_eq!(page["pageInfo"]["hasPreviousPage"], number > 1, "page {number} of {size}");
        assert_eq!(page["pageInfo"]["startCursor"], page["edges"][0]["cursor"]);
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(seen, expected, "forwards, by {size}");

    let (mut seen, mut before) = (Vec::new(), Value::Null);
    for number in 1..=pages {
        let page = api.data(query, json!({"last": size, "before": before})).await["page"].take();
        seen.splice(0..0, keys(&page));
        assert_eq!(page["pageInfo"]["hasPreviousPage"], number < pages, "page {number} of {size} from the end");
        assert_eq!(page["pageInfo"]["hasNextPage"], number > 1, "page {number} of {size} from the end");
        before = page["pageInfo"]["startCursor"].clone();
    }
    assert_eq!(seen, expected, "backwards, by {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_paged_newest_first_in_both_directions_over_equal_times() {
    let mut api = Api::start().await;
    let expected = some_orders(&mut api).await;
    for size in [1, 3, 5, 22, 23, 24] {
        page_through(&api, ORDERS, &expected, size).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_items_and_events_are_paged_in_both_directions() {
    let mut api = Api::start().await;
    let mut skus: Vec<_> = (0..11).map(|number| format!("SKU-{}", number * 7 % 11)).collect();
    for (position, sku) in (1..).zip(&skus) {
        insert_stock(&mut api.writer, sku, 5, 1).await;
        insert_event(&mut api.writer, position, "stock.received", sku, 1, &json!({})).await;
    }
    skus.sort();
    let positions: Vec<_> = (1..=11).map(|position| position.to_string()).collect();
    for size in [1, 4, 11] {
        page_through(&api, STOCK_ITEMS, &skus, size).await;
        page_through(&api, AUDIT_TRAIL, &positions, size).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_between_two_cursors_knows_what_lies_beyond_both() {
    let mut api = Api::start().await;
    let expected = some_orders(&mut api).await;
    let all = api.data(ORDERS, json!({"first": 100})).await;
    let cursor = |at: usize| all["page"]["edges"][at]["cursor"].clone();
    for arguments in [json!({"first": 100}), json!({"last": 100})] {
        let mut arguments = arguments;
        (arguments["after"], arguments["before"]) = (cursor(2), cursor(6));
        let page = api.data(ORDERS, arguments).await["page"].take();
        let keys: Vec<_> = page["edges"].as_array().expect("edges").iter().map(|edge| &edge["node"]["key"]).collect();
        assert_eq!(keys, expected[3..6].iter().collect::<Vec<_>>());
        assert_eq!(page["pageInfo"]["hasNextPage"], true);
        assert_eq!(page["pageInfo"]["hasPreviousPage"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paging_goes_on_when_the_row_of_its_cursor_is_gone() {
    let mut api = Api::start().await;
    let expected = some_orders(&mut api).await;
    let first = api.data(ORDERS, json!({"first": 3})).await;
    sqlx::query("DELETE FROM contrail.orders WHERE view_id = $1")
        .bind(&expected[2])
        .execute(&mut api.writer)
        .await
        .expect("a row is deleted");
    let next = api.data(ORDERS, json!({"first": 1, "after": first["page"]["pageInfo"]["endCursor"]})).await;
    assert_eq!(next["page"]["edges"][0]["node"]["key"], expected[3].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_20_rows_unless_told_and_none_when_told_so() {
    let mut api = Api::start().await;
    for number in 1..=21 {
        insert_order(&mut api.writer, &placed(number)).await;
    }
    let page = api.data(ORDERS, json!({})).await["page"].take();
    assert_eq!(page["edges"].as_array().map(Vec::len), Some(20));
    assert_eq!(page["edges"][0]["node"]["key"], order_id(1).as_str());
    let page = api.data(ORDERS, json!({"first": 0})).await["page"].take();
    assert_eq!(page["edges"], json!([]));
    assert_eq!(page["pageInfo"], json!({"hasNextPage": true, "hasPreviousPage": false, "startCursor": null, "endCursor": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn page_arguments_that_make_no_sense_are_refused_with_the_limit_in_words() {
    let api = Api::start().await;
    let cases = [
        (json!({"first": 101}), "first must be 0 to 100, not 101"),
        (json!({"last": 101}), "last must be 0 to 100, not 101"),
        (json!({"first": -1}), "first must be 0 to 100, not -1"),
        (json!({"first": 1, "last": 1}), "first and last cannot be combined: ask for one of them"),
        (json!({"after": "nonsense"}), "after is not a cursor of this connection in this order"),
        (json!({"before": ""}), "before is not a cursor of this connection in this order"),
    ];
    for query in [ORDERS, STOCK_ITEMS, AUDIT_TRAIL] {
        for (arguments, message) in &cases {
            let (code, said) = api.error(query, arguments.clone()).await;
            assert_eq!((code.as_str(), said.as_str()), ("BAD_USER_INPUT", *message));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_connection_is_refused() {
    let mut api = Api::start().await;
    insert_stock(&mut api.writer, "TEA-1", 1, 0).await;
    let page = api.data(STOCK_ITEMS, json!({})).await;
    let (code, _) = api.error(ORDERS, json!({"after": page["page"]["pageInfo"]["endCursor"]})).await;
    assert_eq!(code, "BAD_USER_INPUT");
}
