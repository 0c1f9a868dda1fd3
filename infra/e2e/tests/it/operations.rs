//! `docs/operations.md` and the runbooks: whoever asks what they say is answered.

use std::{fs, os::unix::fs::symlink, process::Command, time::Duration};

use async_nats::jetstream;
use e2e::eventually::eventually;
use local_stack::workspace_root;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    interop::until_all_are,
    running::{Running, order_of},
};

const DEADLINE: Duration = Duration::from_mins(1);

/// A stack on which something has gone wrong in most of the ways that are asked for. Returns an order that has not.
async fn in_trouble() -> (Running, String) {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 10, "receipt").await.unwrap();
    let order = shop.place(&order_of("TEA-1", 1), "well").await.unwrap().order_id.to_string();
    let mut refused = order_of("TEA-1", 1);
    "pm_card_chargeDeclined".clone_into(&mut refused.payment_method);
    let declined = shop.place(&refused, "declined").await.unwrap().order_id.to_string();
    until_all_are(shop, std::slice::from_ref(&order), "CONFIRMED").await;
    until_all_are(shop, &[declined], "CANCELLED").await;
    let log = jetstream::new(event_store::options(&running.info().nats).connect(&running.info().nats).await.unwrap());
    log.publish("events.order.poison", "this is no event".into()).await.unwrap().await.unwrap();
    let query = "{ projections { name state } }";
    let halted = eventually("the projection halts", DEADLINE, async || {
        let projections: Value = shop.query(query, &json!({})).await?;
        Ok((projections["projections"][0]["state"] == "HALTED").then_some(()))
    });
    halted.await.unwrap_or_else(|error| panic!("{error:#}"));
    let metrics = format!("{}/metrics", running.info().reactors);
    let dead = eventually("the dead letters are counted", DEADLINE, async || {
        let metrics = reqwest::get(&metrics).await?.text().await?;
        Ok(metrics.contains("contrail_dead_letters{reactor=\"payments\"} 1\n").then_some(()))
    });
    dead.await.unwrap_or_else(|error| panic!("{error:#}"));
    (running, order)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_of_operations_is_answered_by_its_command() {
    let page = fs::read_to_string(workspace_root().join("docs/operations.md")).unwrap();
    let blocks: Vec<_> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 1 + page.matches("\n## ").count(), "each question has one command, and the helpers are one more");
    let (running, order) = in_trouble().await;
    let checkout = tempfile::tempdir().unwrap();
    symlink(running.stack().directory(), checkout.path().join(".contrail")).unwrap();
    fs::create_dir(checkout.path().join("target")).unwrap();
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    symlink(built, checkout.path().join("target/debug")).unwrap();
    let mut answers = Vec::new();
    for question in &blocks[1..] {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &format!("order={order}\n{}{question}", blocks[0])]).current_dir(checkout.path());
        let output = block_in_place(|| bash.output()).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && !said.contains("\"errors\""),
            "{question}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        answers.push(said);
    }
    let expected: [&[&str]; 5] = [
        &["\"status\":\"CONFIRMED\"", "\"failure\":null", "contrail.payment.captured.v1"],
        &[
            "projection_halted{projection=\"orders\"} 1\n",
            "projection_lag_events{projection=\"orders\"} ",
            "contrail_reactor_lag_seconds{reactor=\"payments\",queue=\"log\"} ",
            "contrail_breaker_phase{system=\"payment-gateway\",phase=\"open\"} 0\n",
        ],
        &["\"declined\":{\"edges\":[{\"node\":{\"orderId\":", "\"declineCode\":\"", "\"givenUp\":{\"edges\":[]}"],
        &["payments", "undecodable", "allocator"],
        &["command_api: 200\n", "projectors: 503\n", "reactors: 200\n"],
    ];
    assert_eq!(answers.len(), expected.len());
    for (answer, expected) in answers.iter().zip(expected) {
        for text in expected {
            assert!(answer.contains(text), "{text} is not in {answer}");
        }
    }
    running.finish();
}

/// What is between backticks and looks like a query.
fn queries(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2).filter(|code| code.starts_with("{ "))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_runbooks_is_one_that_an_operator_may_ask() {
    let running = Running::start();
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
    let mut asked = 0;
    for page in fs::read_dir(observability::folder().join("runbooks")).unwrap() {
        let page = page.unwrap().path();
        for query in queries(&fs::read_to_string(&page).unwrap()) {
            let request =
                client.post(format!("{}/graphql", running.info().query_api)).bearer_auth(&running.info().tokens["operator"]);
            let answer: Value = request.json(&json!({ "query": query })).send().await.unwrap().json().await.unwrap();
            assert!(answer["data"].is_object() && answer["errors"].is_null(), "{}: {query}: {answer}", page.display());
            asked += 1;
        }
    }
    assert!(asked >= 7, "{asked}");
    running.finish();
}
