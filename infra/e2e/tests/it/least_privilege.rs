//! No service can do on the servers what its work does not need.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use async_nats::{Client, Event, HeaderMap, Request, ServerError};
use event_store::STREAM;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::block_in_place;

use crate::running::{Running, order_of};

/// How long something that was refused may go without an answer.
const SILENCE: Duration = Duration::from_secs(1);

/// A connection as a service has it, and what the server has said against it.
struct Connected {
    client: Client,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Connected {
    async fn as_service(running: &Running, name: &str) -> Self {
        let refusals = Arc::<Mutex<Vec<String>>>::default();
        let heard = refusals.clone();
        let url = running.stack().nats_of(name).unwrap();
        let options = event_store::options(&url).custom_inbox_prefix(format!("_INBOX.{name}")).event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(error)) = event {
                heard.lock().unwrap().push(error.to_lowercase());
            }
            async {}
        });
        Self { client: options.connect(&url).await.unwrap(), refusals }
    }

    /// Sends a request that must not be let through.
    async fn is_refused(&self, subject: &str, payload: &str) {
        let request = Request::new().payload(payload.to_owned().into()).headers(HeaderMap::new()).timeout(Some(SILENCE));
        let answer = self.client.send_request(subject.to_owned(), request).await;
        assert!(answer.is_err(), "{subject}: {answer:?}");
        let refusal = format!("permissions violation for publish to \"{}\"", subject.to_lowercase());
        let refusals = self.refusals.lock().unwrap();
        assert!(refusals.iter().any(|said| said.contains(&refusal)), "{subject}: {refusals:?}");
    }

    /// Asks what it may ask.
    async fn is_answered(&self, subject: &str) {
        let answer = self.client.request(subject.to_owned(), "".into()).await.unwrap();
        assert!(!String::from_utf8_lossy(&answer.payload).contains("\"error\""), "{subject}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_has_just_the_rights_on_nats_that_its_work_needs() {
    let running = Running::start();
    running.shop.receive("TEA-1", 10, "receipt").await.unwrap();
    running.shop.place(&order_of("TEA-1", 1), "checkout").await.unwrap();
    running.check_invariants().await;
    for (name, arguments) in
        [("reactors", &["dead-letters", "list"][..]), ("projectors", &["status"]), ("projectors", &["replay", "all"])]
    {
        let output = block_in_place(|| running.stack().command(name).unwrap().args(arguments).output()).unwrap();
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // They have enough: nothing that they did was refused.
    let said = fs::read_to_string(running.stack().log("nats")).unwrap().to_lowercase();
    assert!(!said.contains("violation"), "{said}");

    let admin = event_store::options(&running.info().nats).connect(&running.info().nats).await.unwrap();
    let log = jetstream::new(admin).get_stream(STREAM).await.unwrap();
    let before = log.get_info().await.unwrap();
    let config = serde_json::to_string(&Config { deny_purge: false, deny_delete: false, ..before.config.clone() }).unwrap();
    for name in ["command-api", "reactors", "projectors"] {
        let service = Connected::as_service(&running, name).await;
        service.is_answered("$JS.API.STREAM.INFO.EVENTS").await;
        for (subject, payload) in [
            ("$JS.API.STREAM.UPDATE.EVENTS", config.as_str()),
            ("$JS.API.STREAM.DELETE.EVENTS", ""),
            ("$JS.API.STREAM.PURGE.EVENTS", ""),
            ("$JS.API.STREAM.MSG.DELETE.EVENTS", "{\"seq\": 1}"),
            ("$JS.API.STREAM.CREATE.MINE", "{\"name\": \"MINE\"}"),
            ("$JS.API.STREAM.SNAPSHOT.EVENTS", "{}"),
            ("$JS.API.STREAM.RESTORE.EVENTS", "{}"),
        ] {
            service.is_refused(subject, payload).await;
        }
    }
    let projectors = Connected::as_service(&running, "projectors").await;
    projectors.is_refused("events.order.forged", "{}").await;
    projectors.is_refused("timers.payment.forged", "{}").await;
    // It reads the log with consumers of its own, and must not touch those that hand out work.
    for queue in ["allocator", "payments", "notifications", "webhooks", "deadlines"] {
        projectors.is_refused(&format!("$JS.API.CONSUMER.DELETE.EVENTS.{queue}"), "").await;
    }
    projectors.is_refused("$JS.API.CONSUMER.MSG.NEXT.EVENTS.payments", "{}").await;
    projectors.is_refused("$JS.ACK.EVENTS.payments.1.1.1.1.0", "").await;
    let commands = Connected::as_service(&running, "command-api").await;
    commands.is_refused("$JS.API.CONSUMER.DELETE.EVENTS.allocator", "").await;
    // Neither can it hear the answers to others.
    let mut others = commands.client.subscribe("_INBOX.reactors.>").await.unwrap();
    assert!(tokio::time::timeout(SILENCE, futures::StreamExt::next(&mut others)).await.is_err());
    assert!(
        commands.refusals.lock().unwrap().iter().any(|said| said.contains("violation for subscription to \"_inbox.reactors.>\""))
    );

    let after = log.get_info().await.unwrap();
    assert_eq!((after.config, after.state.messages), (before.config, before.state.messages));
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_apis_role_reads_and_writes_nothing() {
    let running = Running::start();
    running.shop.receive("TEA-1", 10, "receipt").await.unwrap();
    running.shop.place(&order_of("TEA-1", 1), "checkout").await.unwrap();
    running.check_invariants().await;
    let mut reader = PgConnection::connect(&running.stack().database_of("query-api").unwrap()).await.unwrap();
    // The service asks for transactions that only read; the role must not depend on that.
    reader.execute("SET default_transaction_read_only = off").await.unwrap();
    for writing in [
        "INSERT INTO contrail.skips SELECT * FROM contrail.skips",
        "UPDATE contrail.orders SET status = 'SHIPPED'",
        "DELETE FROM contrail.audit",
        "TRUNCATE contrail.orders",
        "DROP TABLE contrail.orders",
        "ALTER TABLE contrail.orders ADD COLUMN mine int",
        "CREATE TABLE contrail.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
    ] {
        let error = reader.execute(writing).await.expect_err(writing);
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned);
        // insufficient_privilege
        assert_eq!(code.as_deref(), Some("42501"), "{writing}: {error}");
    }
    // A replay puts new tables in the places of the old ones; they can be read as well.
    let output = block_in_place(|| running.stack().command("projectors").unwrap().args(["replay", "all"]).output()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for table in ["orders", "inventory", "audit", "audit_checkpoints", "projections", "skips"] {
        reader.execute(format!("SELECT * FROM contrail.{table}").as_str()).await.unwrap_or_else(|error| panic!("{table}: {error}"));
    }
    running.finish();
}
