//! Servers and libraries that others have written, at the other end. They come from PyPI and npm, so these tests run when they are asked for:
//!
//! `cargo xtask test -- -p e2e --run-ignored only -E 'test(interop)'`

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use e2e::{
    eventually::eventually,
    load::{self, Load},
    settle::settle,
    shop::{NewOrder, Shop},
    workload::Workload,
};
use serde_json::{Value, json};

use crate::running::{Running, order_of};

/// Versions that these tests were written with.
const PACKAGES: [&str; 3] = ["aiosmtpd==1.4.6", "localstripe==1.15.10", "standardwebhooks==1.1.0"];
const DEADLINE: Duration = Duration::from_mins(1);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A program in Python that ends with the test.
struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is at the other end of the reactors, installed into `folder`.
fn packages(folder: &Path) -> PathBuf {
    install(folder, &PACKAGES)
}

fn install(folder: &Path, packages: &[&str]) -> PathBuf {
    let target = folder.join("packages");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&target).args(packages);
    let output = pip.output().unwrap();
    assert!(output.status.success(), "pip: {}", String::from_utf8_lossy(&output.stderr));
    target
}

fn python(packages: &Path, arguments: &[&str]) -> Python {
    let mut command = Command::new("python3");
    command.args(arguments).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    // What localstripe remembers it writes into the temporary folder.
    command.env("TMPDIR", packages.parent().unwrap()).current_dir(packages.parent().unwrap());
    Python(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn script(name: &str) -> String {
    format!("{}/independent/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn certificate(name: &str) -> String {
    format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn until_listening(port: u16) {
    let listening = eventually("it listens", DEADLINE, async || Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop)));
    listening.await.unwrap_or_else(|error| panic!("{error:#}"));
}

fn order_by(customer: &str, payment_method: &str) -> NewOrder {
    let mut order = order_of("TEA-1", 1);
    (order.customer.email, order.payment_method) = (customer.to_owned(), payment_method.to_owned());
    order
}

pub(crate) async fn until_all_are(shop: &Shop, order_ids: &[String], status: &str) {
    let what = format!("all are {status}");
    let seen = eventually(&what, DEADLINE, async || {
        let orders = shop.orders(order_ids).await?;
        // One that the read model does not have yet is not among them.
        Ok((orders.len() == order_ids.len() && orders.iter().all(|order| order.status == status)).then_some(()))
    });
    seen.await.unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs packages from PyPI"]
async fn interop_charges_declines_and_refunds_go_through_localstripe() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let packages = packages(folder.path());
    let _stripe = python(&packages, &["-m", "localstripe", "--port", &port.to_string(), "--from-scratch"]);
    until_listening(port).await;
    let stripe = format!("http://127.0.0.1:{port}");
    let running = Running::start_as(|options| options.settings.push(("reactors", "STRIPE_API_BASE", stripe.clone())));
    let shop = &running.shop;
    shop.receive("TEA-1", 1_000, "receipt").await.unwrap();
    let mut placed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (group, payment_method) in
        [("paid", "pm_card_visa"), ("called-off", "pm_card_visa"), ("declined", "pm_card_chargeCustomerFail")]
    {
        for number in 0..8 {
            let order = order_by("ada@example.com", payment_method);
            let answer = shop.place(&order, &format!("{group}-{number}")).await.unwrap();
            placed.entry(group).or_default().push(answer.order_id.to_string());
        }
    }
    until_all_are(shop, &placed["paid"], "CONFIRMED").await;
    until_all_are(shop, &placed["called-off"], "CONFIRMED").await;
    until_all_are(shop, &placed["declined"], "CANCELLED").await;
    for order_id in &placed["called-off"] {
        shop.cancel(order_id.parse().unwrap(), "changed my mind", &format!("cancel-{order_id}")).await.unwrap();
    }
    settle(running.info(), shop).await.unwrap();
    let orders: Vec<String> = placed.values().flatten().cloned().collect();
    let mut seen: BTreeMap<(String, String), u32> = BTreeMap::new();
    for order in shop.orders(&orders).await.unwrap() {
        *seen.entry((order.status, order.payment_status)).or_default() += 1;
    }
    let counted = |status: &str, payment: &str| seen.get(&(status.to_owned(), payment.to_owned())).copied();
    assert_eq!(
        (counted("CONFIRMED", "CAPTURED"), counted("CANCELLED", "REFUNDED"), counted("CANCELLED", "DECLINED")),
        (Some(8), Some(8), Some(8)),
        "{seen:?}"
    );
    // And by its own account.
    let mut reconcile = running.stack().command("reactors").unwrap();
    let reconcile = reconcile.args(["reconcile", "--settle-s", "0", "--output", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&reconcile.stdout).unwrap();
    assert_eq!((reconcile.status.code(), &report["charges"], &report["refunds"]), (Some(0), &16.into(), &8.into()), "{report}");
    running.finish();
    // It remembers there, whatever the temporary folder is.
    let _ = fs::remove_file("/tmp/localstripe.pickle");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs packages from PyPI"]
async fn interop_mail_is_received_by_aiosmtpd_over_starttls() {
    let folder = tempfile::tempdir().unwrap();
    let (port, inbox) = (free_port(), folder.path().join("inbox"));
    let packages = packages(folder.path());
    let (certificate_file, key) = (certificate("localhost.pem"), certificate("localhost.key"));
    let (script, port_text) = (script("receive_mail.py"), port.to_string());
    let _server = python(&packages, &[&script, &port_text, inbox.to_str().unwrap(), &certificate_file, &key]);
    until_listening(port).await;
    let running = Running::start_as(|options| {
        options.settings.push(("reactors", "MAIL_DIR", String::new()));
        options.settings.push(("reactors", "SMTP_URL", format!("smtp://127.0.0.1:{port}")));
        options.settings.push(("reactors", "SMTP_CA_FILE", certificate("ca.pem")));
    });
    let shop = &running.shop;
    shop.receive("TEA-1", 1_000, "receipt").await.unwrap();
    let mut orders = Vec::new();
    for customer in ["ada@example.com", "refused@example.com", "grace@example.com"] {
        let answer = shop.place(&order_by(customer, "pm_card_visa"), customer).await.unwrap();
        orders.push(answer.order_id.to_string());
    }
    until_all_are(shop, &orders, "CONFIRMED").await;
    settle(running.info(), shop).await.unwrap();
    let query = "query($id: ID!) { order(id: $id) { notifications { topic channel status reason } } }";
    for (order, refused) in orders.iter().zip([false, true, false]) {
        let seen: Value = shop.query(query, &json!({ "id": order })).await.unwrap();
        let reason = refused.then_some("the mail server refuses the recipient with 550");
        let status = if refused { "FAILED" } else { "SENT" };
        let expected = json!([{ "topic": "ORDER_CONFIRMED", "channel": "email", "status": status, "reason": reason }]);
        assert_eq!(seen["order"]["notifications"], expected);
    }
    // As Python's own library reads it.
    let read = "import email, email.policy, json, pathlib, sys\n\
                mails = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in pathlib.Path(sys.argv[1]).glob('*.eml')]\n\
                print(json.dumps([{'to': str(mail['to']), 'subject': str(mail['subject']), 'text': mail.get_body(('plain',)).get_content(), \
                'html': mail.get_body(('html',)).get_content()} for mail in mails]))";
    let output = Command::new("python3").args(["-c", read]).arg(&inbox).output().unwrap();
    let mut mails: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    mails.sort_by_key(|mail| mail["to"].to_string());
    let to: Vec<_> = mails.iter().map(|mail| mail["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["Ada <ada@example.com>", "Ada <grace@example.com>"]);
    for (mail, order) in mails.iter().zip([&orders[0], &orders[2]]) {
        let (text, html) = (mail["text"].as_str().unwrap(), mail["html"].as_str().unwrap());
        assert!([text, html].iter().all(|body| body.contains("12.50 EUR") && body.contains(order.as_str())), "{mail}");
        assert!(html.starts_with("<!DOCTYPE html>") && mail["subject"] == "Your order is confirmed", "{mail}");
    }
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs packages from PyPI"]
async fn interop_webhooks_verify_with_standardwebhooks() {
    const ORDERS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let (port, verified) = (free_port(), folder.path().join("verified"));
    let packages = packages(folder.path());
    let (script, port_text) = (script("receive_webhooks.py"), port.to_string());
    let _receiver = python(&packages, &[&script, &port_text, SECRET, verified.to_str().unwrap()]);
    until_listening(port).await;
    let running = Running::start_as(|options| {
        options.settings.push(("reactors", "WEBHOOK_URL", format!("http://127.0.0.1:{port}/hooks")));
        options.settings.push(("reactors", "WEBHOOK_SECRET", SECRET.to_owned()));
    });
    let shop = &running.shop;
    shop.receive("TEA-1", 1_000, "receipt").await.unwrap();
    let mut orders = Vec::new();
    for number in 0..ORDERS {
        orders.push(shop.place(&order_of("TEA-1", 1), &format!("order-{number}")).await.unwrap().order_id.to_string());
    }
    until_all_are(shop, &orders, "CONFIRMED").await;
    settle(running.info(), shop).await.unwrap();
    let text = fs::read_to_string(&verified).unwrap();
    let mut told: Vec<_> = text.lines().map(|line| line.split(' ').skip(1).collect::<Vec<_>>().join(" ")).collect();
    told.sort_unstable();
    let mut expected: Vec<_> = orders.iter().map(|order| format!("order.confirmed {order}")).collect();
    expected.sort_unstable();
    assert_eq!(told, expected);
    running.finish();
}

/// Installs packages of npm into `folder`.
fn npm_install(folder: &Path, packages: &[&str]) {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund"]).args(packages).current_dir(folder);
    let output = npm.output().unwrap();
    assert!(output.status.success(), "npm: {}", String::from_utf8_lossy(&output.stderr));
}

/// Versions of what audits GraphQL over HTTP.
const NPM_PACKAGES: [&str; 2] = ["graphql-http@1.23.1", "graphql@16.11.0"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs packages from npm"]
async fn interop_all_audits_of_graphql_http_pass() {
    let folder = tempfile::tempdir().unwrap();
    npm_install(folder.path(), &NPM_PACKAGES);
    let running = Running::start();
    let info = running.info();
    let mut node = Command::new("node");
    node.arg(script("graphql_http_audits.mjs")).arg(format!("{}/graphql", info.query_api)).arg(&info.tokens["auditor"]);
    let output = node.current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), "61 of 61");
    running.finish();
}

/// What makes up requests from an OpenAPI document, and how many of them it makes up for each operation and phase.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const EXAMPLES_MAX: &str = "200";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a package from PyPI"]
async fn interop_schemathesis_finds_no_difference_between_the_openapi_document_and_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let packages = install(folder.path(), &[SCHEMATHESIS]);
    let running = Running::start_as(|options| {
        // How soon a customer is put off is another question.
        options.settings.push(("command-api", "CUSTOMER_REQUESTS_PER_S", "0".to_owned()));
    });
    let info = running.info();
    for role in ["service", "operator", "customer"] {
        let mut schemathesis = Command::new("python3");
        schemathesis.args(["-m", "schemathesis.cli", "--config-file", &script("schemathesis/schemathesis.toml"), "run"]);
        schemathesis.arg(format!("{}/openapi.json", info.command_api)).args(["--checks", "all", "--max-examples", EXAMPLES_MAX]);
        schemathesis.args(["--seed", "1", "--continue-on-failure", "--no-color"]);
        schemathesis.args(["--header", &format!("Authorization: Bearer {}", info.tokens[role])]);
        schemathesis.env("PYTHONPATH", format!("{}:{}", packages.display(), script("schemathesis")));
        schemathesis.env("PYTHONDONTWRITEBYTECODE", "1").env("SCHEMATHESIS_HOOKS", "hooks").current_dir(folder.path());
        let output = schemathesis.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "as {role}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let cases = said.lines().find(|line| line.contains(" generated, ")).unwrap();
        println!("as {role}: {}", cases.trim());
    }
    running.finish();
}

/// What parses AsyncAPI documents.
const ASYNCAPI_PARSER: &str = "@asyncapi/parser@3.6.3";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs packages from npm"]
async fn interop_what_is_stored_is_as_the_asyncapi_document_describes_it() {
    let folder = tempfile::tempdir().unwrap();
    npm_install(folder.path(), &[ASYNCAPI_PARSER]);
    let running = Running::start();
    let shop = &running.shop;
    let workload = Workload::new("described", 20_261_122, 100);
    load::receive_stock(shop, &workload).await.unwrap();
    load::run(shop, &workload, &Load { ships: true, ..Load::default() }).await.unwrap();
    settle(running.info(), shop).await.unwrap();
    let exported = folder.path().join("trail.jsonl");
    let mut export = running.stack().command("projectors").unwrap();
    export.args(["audit", "export", "--format", "jsonl", "--out"]).arg(&exported);
    let output = export.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = fs::read_to_string(&exported).unwrap().lines().count();
    let mut node = Command::new("node");
    node.arg(script("asyncapi_parse.mjs"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events/asyncapi.json")).arg(&exported);
    let output = node.current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let checked = format!("19 examples and {events} lines checked");
    assert!(said.contains(&checked) && events > 500, "{said}");
    running.finish();
}
