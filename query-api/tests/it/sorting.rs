//! Orders in every order that they can be in, and what finding them among many costs.

use serde_json::{Value, json};
use time::Duration;

use crate::api::Api;
use crate::paging::page_through;
use crate::rows::{T0, insert_order, placed};

/// Orders of few times. Returns each with its keys.
async fn some_orders(api: &mut Api) -> Vec<(Keys, String)> {
    let mut orders = Vec::new();
    for number in 0..17_u8 {
        let mut order = placed(u128::from(number) * 7_919 % 17);
        order.placed_at = T0 + Duration::seconds((number / 4).into());
        order.updated_at = T0 + Duration::minutes((number % 5).into());
        insert_order(&mut api.writer, &order).await;
        orders.push((Keys { placed_at: order.placed_at, updated_at: order.updated_at }, order.order_id));
    }
    orders
}

struct Keys {
    placed_at: time::OffsetDateTime,
    updated_at: time::OffsetDateTime,
}

fn sorted<K: Ord>(orders: &[(Keys, String)], key: impl Fn(&Keys, &String) -> K) -> Vec<String> {
    let mut sorted: Vec<_> = orders.iter().map(|(keys, id)| (key(keys, id), id)).collect();
    sorted.sort();
    sorted.into_iter().map(|(_, id)| id.clone()).collect()
}

fn orders_by(sort: &str) -> String {
    format!(
        "query ($first: Int, $after: String, $last: Int, $before: String) {{
            page: orders(orderBy: {{{sort}}}, first: $first, after: $after, last: $last, before: $before) {{
                edges {{ cursor node {{ key: orderId }} }}
                pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_paged_in_both_directions_by_whatever_they_are_sorted_by() {
    let mut api = Api::start().await;
    let orders = some_orders(&mut api).await;
    let reversed_id = |id: &String| std::cmp::Reverse(id.clone());
    let ascending = [
        ("PLACED_AT", sorted(&orders, |keys, id| (keys.placed_at, reversed_id(id)))),
        ("UPDATED_AT", sorted(&orders, |keys, id| (keys.updated_at, id.clone()))),
    ];
    for (field, ascending) in ascending {
        let descending: Vec<_> = ascending.iter().rev().cloned().collect();
        for (direction, expected) in [(", direction: ASC", &ascending), (", direction: DESC", &descending), ("", &descending)] {
            for size in [1, 4, 17] {
                page_through(&api, &orders_by(&format!("field: {field}{direction}")), expected, size).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_order_is_refused_and_one_of_the_other_direction_is_not() {
    let mut api = Api::start().await;
    let orders = some_orders(&mut api).await;
    let first = api.data(&orders_by("field: UPDATED_AT"), json!({"first": 3})).await["page"].take();
    let after = json!({"first": 100, "after": first["pageInfo"]["endCursor"]});
    for sort in ["field: PLACED_AT", "field: PLACED_AT, direction: ASC"] {
        let (code, message) = api.error(&orders_by(sort), after.clone()).await;
        assert_eq!((code.as_str(), message.as_str()), ("BAD_USER_INPUT", "after is not a cursor of this connection in this order"));
    }
    let back = api.data(&orders_by("field: UPDATED_AT, direction: ASC"), after).await["page"].take();
    let keys = |page: &Value| -> Vec<Value> {
        page["edges"].as_array().expect("edges").iter().map(|edge| edge["node"]["key"].clone()).collect()
    };
    assert_eq!(keys(&back), keys(&first)[..2].iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(orders.len(), 17);
}

const MANY: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_orders_are_found_and_sorted_by_has_an_index() {
    let mut api = Api::start().await;
    insert_order(&mut api.writer, &placed(1)).await;
    // One order in 5,000 has what is looked for; half of them are of one SKU and of customers with the same beginning.
    let many = "INSERT INTO contrail.orders
        SELECT gen_random_uuid()::text, version, payload, CASE WHEN n % 5000 = 7 THEN 'PLACED' ELSE 'DELIVERED' END,
               CASE WHEN n % 5000 = 7 THEN 'DECLINED' ELSE 'CAPTURED' END,
               CASE WHEN n % 5000 = 7 THEN 'rare-' ELSE 'c-' END || n % 100, placed_at - n * interval '1 s', updated_at + n * interval '1 s',
               n, n, CASE n % 2 WHEN 0 THEN 'EUR' ELSE 'USD' END, ARRAY[CASE WHEN n % 5000 = 7 THEN 'RARE' ELSE 'TEA-' || n % 2 END]
        FROM contrail.orders, generate_series(1, $1) AS n";
    sqlx::query(many).bind(MANY).execute(&mut api.writer).await.expect("they are inserted");
    sqlx::query("ANALYZE contrail.orders").execute(&mut api.writer).await.expect("it is analyzed");
    let before = api.entries_read("orders").await;

    let rare = [
        "sku: \"RARE\"",
        "customerIdPrefix: \"rare\"",
        "customerId: \"rare-7\"",
        "status: PLACED",
        "paymentStatus: DECLINED",
        "sku: \"RARE\", status: [PLACED, RESERVED], customerIdPrefix: \"ra\"",
    ];
    let many =
        ["", "sku: \"TEA-1\"", "customerIdPrefix: \"c-\"", "customerId: \"c-7\"", "status: DELIVERED", "paymentStatus: CAPTURED"];
    let filters = rare.iter().map(|filter| (filter, 4)).chain(many.iter().map(|filter| (filter, 20)));
    let mut queries = 0;
    for (filter, at_least) in filters {
        // More often than the server takes to keep a plan that is made for any values.
        for _ in 0..7 {
            let query = format!("{{ orders(filter: {{{filter}}}) {{ edges {{ cursor }} }} }}");
            let found = api.data(&query, json!({})).await["orders"]["edges"].as_array().map(Vec::len);
            assert!(found >= Some(at_least), "{filter}: {found:?}");
            queries += 1;
        }
    }
    for field in ["PLACED_AT", "UPDATED_AT"] {
        for direction in ["ASC", "DESC"] {
            let query = orders_by(&format!("field: {field}, direction: {direction}"));
            let page = api.data(&query, json!({"first": 50})).await;
            api.data(&query, json!({"first": 50, "after": page["page"]["pageInfo"]["endCursor"]})).await;
            queries += 2;
        }
    }
    let some = api.data("{ orders(last: 1) { edges { node { orderId } } } }", json!({})).await;
    let id = some["orders"]["edges"][0]["node"]["orderId"].as_str().expect("an id").to_owned();
    for length in [4, 8, 36] {
        let query = format!("{{ orders(filter: {{orderIdPrefix: \"{}\"}}) {{ edges {{ cursor }} }} }}", &id[..length]);
        api.data(&query, json!({})).await;
        queries += 1;
    }
    let entries = api.entries_read("orders").await - before;
    assert!(entries < MANY, "{entries} entries of indexes were read by {queries} queries");
}
