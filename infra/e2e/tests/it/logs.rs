//! What the logs say, and what they must not.

use std::fs;
use std::time::Duration;

use e2e::eventually::eventually;
use e2e::shop::Customer;
use local_stack::stack::SERVICES;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::running::{Running, order_of};

const DEADLINE: Duration = Duration::from_secs(30);
const NAME: &str = "Zaphod Beeblebrox";
const MAIL: &str = "zaphod@heart-of-gold.example";

#[tokio::test(flavor = "multi_thread")]
async fn logs_carry_ids_and_nothing_of_a_person_or_a_secret_however_much_they_say() {
    let mut running = Running::start_as(|options| {
        options.settings.extend(SERVICES.map(|service| (service, "RUST_LOG", "debug".to_owned())));
    });
    let shop = &running.shop;
    shop.receive("TEA-1", 10, "stock").await.unwrap();
    let customer = Customer { id: "c-42".to_owned(), email: MAIL.to_owned(), name: NAME.to_owned() };
    let mut ids = Vec::new();
    // Paid, declined, without stock, a card that the gateway does not know, a mail server's nightmare, and one that is called off.
    for (number, (card, quantity)) in
        [("pm_card_visa", 1), ("pm_card_chargeDeclined", 1), ("pm_card_visa", 1_000), ("pm_nonsense_4242", 1), ("pm_card_visa", 1)]
            .into_iter()
            .enumerate()
    {
        let mut order = order_of("TEA-1", quantity);
        (order.customer, order.payment_method) = (customer.clone(), card.to_owned());
        ids.push(shop.place(&order, &format!("secret-key-{number}")).await.unwrap().order_id);
    }
    let final_status = async |id: &str| {
        let done = async || {
            let order = shop.order(id, None).await?;
            Ok(order.is_some_and(|order| ["CONFIRMED", "REJECTED", "CANCELLED"].contains(&order.status.as_str())).then_some(()))
        };
        eventually("the order has come to its end", DEADLINE, done).await.unwrap_or_else(|error| panic!("{error:#}"));
    };
    for id in &ids {
        final_status(&id.to_string()).await;
    }
    let called_off: Uuid = ids[4];
    shop.cancel(called_off, &format!("{NAME} has changed his mind"), "secret-key-cancel").await.unwrap();
    // What is refused, and what nobody understands.
    let wrong = json!({"customer": {"id": "c-42", "email": MAIL, "name": NAME}, "currency": NAME, "lines": []});
    shop.post_raw("/v1/orders", "secret-key-wrong", &wrong).await.unwrap();
    let query = format!("{{ orders(filter: {{customerId: \"{MAIL}\"}}) {{ edges {{ node {{ nonsense }} }} }} }}");
    shop.ask_once(&query, &Value::Null).await.unwrap();
    let query = format!("{{ orders(filter: {{customerIdPrefix: \"{MAIL}\"}}) {{ edges {{ cursor }} }} }}");
    shop.ask_once(&query, &Value::Null).await.unwrap();

    for name in SERVICES {
        running.stop(name);
    }
    let mut secrets: Vec<_> =
        [NAME, "Zaphod", MAIL, "heart-of-gold", "pm_card", "pm_nonsense", "secret-key"].map(str::to_owned).into();
    secrets.extend(running.info().tokens.values().cloned());
    for url in [&running.info().nats, &running.info().database] {
        let password = url.split("://").nth(1).and_then(|rest| rest.split('@').next()?.split(':').nth(1)).expect("a password");
        secrets.push(password.to_owned());
    }
    for service in ["command-api", "reactors", "projectors"] {
        let url = running.stack().nats_of(service).unwrap();
        secrets.extend(url.split("://").nth(1).and_then(|rest| rest.split('@').next()?.split(':').nth(1)).map(str::to_owned));
    }
    let mut told = String::new();
    for name in SERVICES {
        let log = fs::read_to_string(running.stack().log(name)).unwrap();
        // The simulator has nothing more to say.
        assert!(log.contains("\"level\":\"DEBUG\"") || name == "payment-simulator", "{name} was told to say more");
        for line in log.lines() {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
            for secret in &secrets {
                assert!(!line.contains(secret.as_str()), "{name} tells {secret}: {line}");
            }
        }
        told.push_str(&log);
    }
    assert!(told.contains("\"trace_id\":\""), "no line says of which trace it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_service_says_more_and_less_as_its_file_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("filter");
    let setting = ("command-api", "LOG_FILTER_FILE", file.display().to_string());
    let running = Running::start_as(|options| options.settings.push(setting));
    let log = running.stack().log("command-api");
    let says = async |what: &str| {
        let said = async || Ok(fs::read_to_string(&log)?.contains(what).then_some(()));
        eventually(what, DEADLINE, said).await.unwrap_or_else(|error| panic!("{error:#}"));
    };
    let debug_lines = || fs::read_to_string(&log).unwrap().matches("\"level\":\"DEBUG\"").count();

    running.shop.receive("TEA-1", 1, "one").await.unwrap();
    assert_eq!(debug_lines(), 0);
    fs::write(&file, "info,command_api=debug\n").unwrap();
    says("the filter of logs is now info,command_api=debug").await;
    running.shop.receive("TEA-1", 1, "two").await.unwrap();
    says("POST /v1/stock/{sku}/receipts was answered 201").await;

    fs::write(&file, "command_api=shouting").unwrap();
    says("LOG_FILTER_FILE holds no filter").await;
    fs::remove_file(&file).unwrap();
    says("\"filter\":\"info\"").await;
    let before = debug_lines();
    running.shop.receive("TEA-1", 1, "three").await.unwrap();
    assert_eq!(debug_lines(), before);
}
