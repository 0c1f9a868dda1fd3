use std::time::Duration;

use domain::{order::Order, stock::Stock};
use local_stack::testing;
use projectors::{
    audit::{
        checkpoint::Checkpoint,
        merkle::{Frontier, leaf_hash},
    },
    replay::Purpose,
    skips, watch,
};
use read_store::{
    notices::{self, Notice},
    projections::{ProjectionName, ProjectionState},
    schema,
    views::{OrderView, StockView},
};
use sqlx::{Row, postgres::PgListener, types::Json};
use telemetry::{exit::Exit, metrics::Metrics};
use time::macros::datetime;
use uuid::Uuid;

use crate::{
    story::{EVENTS_PER_ORDER, Teller, context},
    world::{self, World, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_reaches_every_read_model() {
    let world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    let end = teller.tell(40).await;
    assert_eq!(end, 40 * EVENTS_PER_ORDER);
    world.reach(&ProjectionName::ALL, end).await;

    assert_eq!(
        world.count("SELECT count(*) FROM contrail.orders WHERE status = 'DELIVERED' AND payment_status = 'CAPTURED'").await,
        40
    );
    let id = Teller::order_id(3).to_string();
    let Json(view): Json<OrderView> = sqlx::query_scalar("SELECT payload FROM contrail.orders WHERE view_id = $1")
        .bind(&id)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let order = world.store.load::<Order>(&id).await.unwrap();
    assert_eq!((Some(view.status), view.version), (order.aggregate.status, order.version));
    assert_eq!(view.shipment, order.aggregate.shipment);
    assert_eq!(view.position, 40, "the notification was the last of the order's ten events");
    assert_eq!(view.notifications.len(), 1);

    let Json(view): Json<StockView> =
        sqlx::query_scalar("SELECT payload FROM contrail.inventory WHERE view_id = 'SKU-3'").fetch_one(&world.pool).await.unwrap();
    let stock = world.store.load::<Stock>("SKU-3").await.unwrap();
    assert_eq!((view.on_hand, view.reserved, view.version), (stock.aggregate.on_hand, stock.aggregate.reserved, stock.version));

    world.assert_all_agree().await;
    assert!(running.is_ready());
    for name in ProjectionName::ALL {
        assert_eq!(running.metric("projection_events_applied_total", name), end);
        assert_eq!(running.metric("projection_position", name), end);
        assert_eq!(running.metric("projection_lag_events", name), 0);
        assert_eq!(running.sample(&format!("projection_lag_seconds{{projection=\"{name}\"}}")), Some(0.0));
    }
    for (series, expected) in [
        ("order_events_total{event=\"placed\"}", 40.0),
        ("order_events_total{event=\"delivered\"}", 40.0),
        ("order_events_total{event=\"rejected\"}", 0.0),
        ("payment_events_total{event=\"captured\"}", 40.0),
        ("notification_events_total{event=\"sent\"}", 40.0),
        ("order_confirmation_duration_seconds_count", 40.0),
    ] {
        assert_eq!(running.sample(series), Some(expected), "{series}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_holds_the_stored_bytes_and_its_signed_root() {
    let world = World::new().await;
    let end = world.teller().tell(5).await;
    let running = world.run().await;
    world.reach(&[ProjectionName::Audit], end).await;
    let note: String = eventually("a checkpoint of the whole log", async || {
        let sql = "SELECT note FROM contrail.audit_checkpoints WHERE size = $1";
        sqlx::query_scalar(sql).bind(end.cast_signed()).fetch_optional(&world.pool).await.unwrap()
    })
    .await;

    let mut tree = Frontier::new();
    let mut reader = world.store.read_from(1);
    while tree.size() < end {
        for message in reader.next_batch(100).await.unwrap() {
            let row = sqlx::query("SELECT bytes, leaf_hash, correlation_id, actor FROM contrail.audit WHERE position = $1")
                .bind(message.position.cast_signed())
                .fetch_one(&world.pool)
                .await
                .unwrap();
            assert_eq!(row.get::<&[u8], _>("bytes"), &*message.bytes);
            assert_eq!(row.get::<&[u8], _>("leaf_hash"), leaf_hash(&message.bytes));
            assert_eq!((row.get::<&str, _>("correlation_id"), row.get::<&str, _>("actor")), ("story", "customer:c-42"));
            tree.append(leaf_hash(&message.bytes));
        }
    }
    let checkpoint = Checkpoint::open(&note, &world.signer.verifier_key()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (end, tree.root()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_at_once_apply_each_event_once() {
    let world = World::new().await;
    let (one, other) = (world.run().await, world.run().await);
    let end = world.teller().tell(150).await;
    world.reach(&ProjectionName::ALL, end).await;
    one.stop().await;
    // The survivor goes on alone.
    other.stop().await;
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit").await, end);
    world.assert_all_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_instance_applied_another_does_not_count() {
    let world = World::new().await;
    let mut teller = world.teller();
    let (one, other) = (world.run().await, world.run().await);
    let end = teller.tell(100).await;
    world.reach(&ProjectionName::ALL, end).await;
    for name in ProjectionName::ALL {
        let what = format!("both instances of {name} together to have counted each event once");
        eventually(&what, async || {
            let applied = [&one, &other].map(|running| running.metric("projection_events_applied_total", name));
            (applied.iter().sum::<u64>() == end).then_some(())
        })
        .await;
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_an_unknown_type_halts_its_projection_and_no_other() {
    let world = World::new().await;
    let mut teller = world.teller();
    let before = teller.tell(3).await;
    let id = "0c628b8e-6a0f-5c0e-9a39-5f5e2f6b7a01";
    let poison = format!(
        r#"{{"specversion":"1.0","id":"0190a8f4-0000-7000-8000-000000000001","type":"contrail.order.exploded.v1","source":"/test","subject":"{id}","time":"2026-11-20T12:00:00Z","datacontenttype":"application/json","aggregatetype":"order","sequence":"1","correlationid":"c","data":{{}}}}"#
    );
    let poisoned = world.poison(&format!("events.order.{id}"), &poison).await;
    let end = teller.tell(3).await;

    let running = world.run().await;
    world.reach(&[ProjectionName::Inventory, ProjectionName::Audit], end).await;
    let orders = eventually("orders to halt", async || {
        let orders = world.projection(ProjectionName::Orders).await;
        (orders.state == ProjectionState::Halted).then_some(orders)
    })
    .await;
    assert_eq!(orders.position, before, "what precedes the event is applied");
    let halt = orders.halt.unwrap();
    assert_eq!((halt.position, halt.event_type.as_deref()), (poisoned, Some("contrail.order.exploded.v1")));
    assert_eq!(halt.reason, "event type contrail.order.exploded.v1 is unknown to this build");
    eventually("the instance not to be ready", async || (!running.is_ready()).then_some(())).await;
    eventually("the metrics to say so", async || (running.metric("projection_halted", ProjectionName::Orders) == 1).then_some(()))
        .await;
    let end = teller.tell(1).await;
    world.reach(&[ProjectionName::Inventory, ProjectionName::Audit], end).await;
    eventually("the halted projection to see how far the log is", async || {
        (world.projection(ProjectionName::Orders).await.head == end).then_some(())
    })
    .await;
    let lag_s = running.sample("projection_lag_seconds{projection=\"orders\"}").unwrap();
    let since = datetime!(2026-11-20 12:00:00 UTC);
    let now = std::time::SystemTime::from(since) + std::time::Duration::from_secs_f64(lag_s);
    assert!(now.elapsed().is_ok_and(|ago| ago < Duration::from_secs(60)), "as old as the event that it stands before: {lag_s} s");
    assert_eq!(running.sample("order_events_total{event=\"placed\"}"), Some(3.0), "what precedes the event is counted once");
    running.stop().await;

    // A restart tries again, and halts again at the same place, without forgetting since when.
    let running = world.run().await;
    eventually("orders to try again", async || (!running.is_ready()).then_some(())).await;
    let again = world.projection(ProjectionName::Orders).await;
    assert_eq!((again.position, again.halt.unwrap().at), (before, halt.at));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_event_halt_the_projection_under_whose_subject_they_stand() {
    let world = World::new().await;
    let poisoned = world.poison("events.stock.TEA-1", "nonsense").await;
    let mislaid = r#"{"specversion":"1.0","id":"0190a8f4-0000-7000-8000-000000000001","type":"contrail.stock.received.v1","source":"/test","subject":"SKU-0","time":"2026-11-20T12:00:00Z","datacontenttype":"application/json","aggregatetype":"stock","sequence":"1","correlationid":"c","data":{"quantity":1,"reference":"r","received_at":"2026-11-20T12:00:00Z"}}"#;
    let mislaid = world.poison("events.order.x", mislaid).await;
    let end = world.teller().tell(2).await;
    let running = world.run().await;
    for (name, position) in [(ProjectionName::Inventory, poisoned), (ProjectionName::Orders, mislaid)] {
        let halt = eventually(&format!("{name} to halt"), async || world.projection(name).await.halt).await;
        assert_eq!(halt.position, position, "{halt:?}");
    }
    world.reach(&[ProjectionName::Audit], end).await;
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit WHERE event_type = 'unreadable'").await, 1);
    world
        .execute(
            "UPDATE contrail.projections SET position = 2, state = 'running', halt_position = NULL, halt_reason = NULL, \
             halted_at = NULL WHERE state = 'halted'",
        )
        .await;
    world.reach(&ProjectionName::ALL, end).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_skipped_is_skipped_for_good_and_stays_in_the_trail() {
    let world = World::new().await;
    let mut teller = world.teller();
    let before = teller.tell(2).await;
    let refused = skips::skip(&world.pool, ProjectionName::Orders, None, "none").await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Conflict, "{refused}");
    // No event; an event of a type that nobody knows, and one that follows on it; a text that Postgres cannot hold; and one that no index takes.
    let incompressible: String = (1..300_u128)
        .map(|number| Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_string())
        .collect();
    let mut poisoned = vec![world.poison("events.stock.TEA-1", "nonsense\nin two lines").await];
    for (version, event_type, correlation_id) in [
        (4, "contrail.stock.stolen.v1", "c"),
        (5, "contrail.stock.received.v1", "c"),
        (6, "contrail.stock.received.v1", "a\u{0}b"),
        (7, "contrail.stock.received.v1", incompressible.as_str()),
    ] {
        let event = serde_json::json!({
            "specversion": "1.0", "id": Uuid::from_u128(version), "type": event_type, "source": "/test", "subject": "SKU-0",
            "time": "2026-11-20T12:00:00Z", "datacontenttype": "application/json", "aggregatetype": "stock",
            "sequence": version.to_string(), "correlationid": correlation_id,
            "data": {"quantity": 1, "reference": "r", "received_at": "2026-11-20T12:00:00Z"}
        });
        poisoned.push(world.poison("events.stock.SKU-0", &event.to_string()).await);
    }
    let [nonsense, stolen, _, unwritable, too_long] = poisoned[..] else { panic!("{poisoned:?}") };
    let end = too_long;

    let running = world.run().await;
    let halts_at = async |name, position| {
        let what = format!("{name} to halt at {position}");
        let halt = eventually(&what, async || world.projection(name).await.halt.filter(|halt| halt.position == position)).await;
        let elsewhere = skips::skip(&world.pool, name, Some(before), "elsewhere").await.unwrap_err();
        assert_eq!(elsewhere.exit(), Exit::Conflict, "{elsewhere}");
        let skipped = skips::skip(&world.pool, name, Some(position), "a test put it there").await.unwrap();
        assert_eq!((skipped.position, skipped.halt_reason), (position, halt.reason));
    };
    halts_at(ProjectionName::Inventory, nonsense).await;
    halts_at(ProjectionName::Inventory, stolen).await;
    halts_at(ProjectionName::Audit, nonsense).await;
    halts_at(ProjectionName::Audit, unwritable).await;
    halts_at(ProjectionName::Audit, too_long).await;
    world.reach(&ProjectionName::ALL, end).await;
    eventually("the instance to be ready", async || running.is_ready().then_some(())).await;
    running.stop().await;

    let on_hand = "SELECT on_hand FROM contrail.inventory WHERE view_id = 'SKU-0' AND version = 7";
    assert_eq!(world.count(on_hand).await, 4, "1 was left, 3 came in, and what was stolen is not known");
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit").await, end, "the trail lacks no event");
    assert_eq!(world.count("SELECT count(*) FROM contrail.skips WHERE reason = 'a test put it there'").await, 5);
    world.assert_all_agree().await;
    for outcome in world.replayer().replay_all(&ProjectionName::ALL, Purpose::Swap).await.unwrap() {
        assert_eq!(outcome.unwrap().position, end);
    }
    world.assert_all_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_event_under_a_wrong_subject_counts_for_no_aggregate() {
    let world = World::new().await;
    world.teller().tell(1).await;
    let order_id = Teller::order_id(0).to_string();
    let claims = serde_json::json!({
        "specversion": "1.0", "id": Uuid::from_u128(6), "type": "contrail.order.delivered.v1", "source": "/test", "subject": order_id,
        "time": "2026-11-20T12:00:00Z", "datacontenttype": "application/json", "aggregatetype": "order", "sequence": "6",
        "correlationid": "c", "data": {"delivered_at": "2026-11-20T12:00:00Z"}
    });
    let mislaid = world.poison(&format!("events.payment.{order_id}"), &claims.to_string()).await;
    let running = world.run().await;
    let halt = eventually("orders to halt", async || world.projection(ProjectionName::Orders).await.halt).await;
    assert!(halt.reason.contains("stands under events.payment."), "{halt:?}");
    skips::skip(&world.pool, ProjectionName::Orders, Some(mislaid), "it stands elsewhere").await.unwrap();
    world.reach(&[ProjectionName::Orders], mislaid).await;
    assert_eq!(world.count("SELECT version FROM contrail.orders").await, 5);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_follow_halts() {
    let world = World::new().await;
    let mut teller = world.teller();
    teller.tell(1).await;
    let bytes = r#"{"specversion":"1.0","id":"0190a8f4-0000-7000-8000-000000000001","type":"contrail.stock.received.v1","source":"/test","subject":"SKU-0","time":"2026-11-20T12:00:00Z","datacontenttype":"application/json","aggregatetype":"stock","sequence":"6","correlationid":"c","data":{"quantity":1,"reference":"r","received_at":"2026-11-20T12:00:00Z"}}"#;
    let poisoned = world.poison("events.stock.SKU-0", bytes).await;
    let running = world.run().await;
    world.reach(&[ProjectionName::Orders, ProjectionName::Audit], poisoned).await;
    let halt = eventually("inventory to halt", async || world.projection(ProjectionName::Inventory).await.halt).await;
    assert_eq!((halt.position, halt.reason.as_str()), (poisoned, "version 6 of the stock does not follow on version 3"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_postgres_refuses_halts_at_its_event_only() {
    let world = World::new().await;
    let mut teller = world.teller();
    let before = teller.tell(5).await;
    // Valid JSON, and no text that Postgres can hold.
    let bytes = r#"{"specversion":"1.0","id":"0190a8f4-0000-7000-8000-000000000001","type":"contrail.stock.received.v1","source":"/test","subject":"TEA-1","time":"2026-11-20T12:00:00Z","datacontenttype":"application/json","aggregatetype":"stock","sequence":"1","correlationid":"a\u0000b","data":{"quantity":1,"reference":"r","received_at":"2026-11-20T12:00:00Z"}}"#;
    let poisoned = world.poison("events.stock.TEA-1", bytes).await;
    let end = teller.tell(5).await;
    let running = world.run().await;
    let halt = eventually("audit to halt", async || world.projection(ProjectionName::Audit).await.halt).await;
    assert_eq!(halt.position, poisoned);
    assert_eq!(world.projection(ProjectionName::Audit).await.position, before, "everything before it is applied");
    world.reach(&[ProjectionName::Orders, ProjectionName::Inventory], end).await;
    // It stands still, and hears of one more event only where it signs, too.
    let head = teller.tell(1).await;
    eventually("it to be looked after", async || (world.projection(ProjectionName::Audit).await.head >= head).then_some(())).await;
    assert_eq!(
        world.count("SELECT max(size) FROM contrail.audit_checkpoints").await,
        before,
        "what is signed is what the trail has"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_an_instance_left_unsigned_is_signed_by_the_next_without_another_event() {
    let world = World::new().await;
    let running = world.run().await;
    let end = world.teller().tell(2).await;
    world.reach(&[ProjectionName::Audit], end).await;
    running.stop().await;
    world.execute("DELETE FROM contrail.audit_checkpoints").await;
    let running = world.run().await;
    let signed = async || (world.count("SELECT count(*) FROM contrail.audit_checkpoints").await > 0).then_some(());
    eventually("the head to be signed", signed).await;
    assert_eq!(world.count("SELECT max(size) FROM contrail.audit_checkpoints").await, end);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_that_quotes_what_postgres_refuses_is_written_all_the_same() {
    let world = World::new().await;
    let order_id = Teller::order_id(0);
    let event = |number: u128, event_type: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{}","type":"{event_type}","source":"/test","subject":"{order_id}","time":"2026-11-20T12:00:00Z","datacontenttype":"application/json","aggregatetype":"order","sequence":"1","correlationid":"c","data":{data}}}"#,
            Uuid::from_u128(number)
        )
    };
    let subject = format!("events.order.{order_id}");
    let of_no_type = world.poison(&subject, &event(1, r"contrail.order.pla\u0000ced.v1", "{}")).await;
    let long_type = format!(r"contrail.order.a\u0000b{}", "x".repeat(1_500));
    let of_a_long_type = world.poison(&subject, &event(2, &long_type, "{}")).await;

    let running = world.run().await;
    for (position, quoted) in [(of_no_type, "pla\u{fffd}ced"), (of_a_long_type, "a\u{fffd}bxxx")] {
        let halt = eventually("orders to halt", async || {
            world.projection(ProjectionName::Orders).await.halt.filter(|halt| halt.position == position)
        });
        let halt = halt.await;
        assert!(halt.reason.contains(quoted), "{halt:?}");
        assert!(halt.reason.chars().count() <= 1_000, "{} characters", halt.reason.len());
        assert!(!running.is_ready());
        skips::skip(&world.pool, ProjectionName::Orders, Some(position), "nobody could read it").await.unwrap();
    }
    world.reach(&[ProjectionName::Orders], of_a_long_type).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_log_lost_halts_everything_before_it() {
    let (world, stream) = World::with_careless_stream().await;
    world.teller().tell(2).await;
    stream.delete_message(7).await.unwrap();

    let running = world.run().await;
    for name in ProjectionName::ALL {
        let halt = eventually("a halt", async || world.projection(name).await.halt).await;
        assert_eq!(halt.position, 7);
        assert_eq!(halt.reason, "position 7 is missing from the stream EVENTS, the next one is 8");
        assert_eq!(world.projection(name).await.position, 6);
        let refused = skips::skip(&world.pool, name, None, "it is lost").await.unwrap_err();
        assert_eq!(refused.exit(), Exit::Conflict, "{refused}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_dies_and_comes_back_costs_nothing() {
    let world = World::new().await;
    let mut postgres = tokio::task::block_in_place(testing::postgres);
    let url = tokio::task::block_in_place(|| postgres.create_database("contrail")).unwrap();
    let options = read_store::pool::connect_options(&url, projectors::settings::BULK_POOL).unwrap();
    schema::migrate(&options).await.unwrap();
    let pool = read_store::pool::open(&url, projectors::settings::BULK_POOL).unwrap();

    let running = world.run_on(&url).await;
    let mut teller = world.teller();
    let middle = teller.tell(5).await;
    eventually("the first events", async || {
        let all = read_store::projections::all(&pool).await.unwrap();
        all.iter().all(|projection| projection.position >= middle).then_some(())
    })
    .await;
    postgres.kill();
    let end = teller.tell(20).await;
    eventually("the instance not to be ready", async || (!running.is_ready()).then_some(())).await;
    tokio::task::block_in_place(|| postgres.start_again()).unwrap();
    eventually("all events", async || {
        let all = read_store::projections::all(&pool).await.ok()?;
        all.iter().all(|projection| projection.position >= end).then_some(())
    })
    .await;
    assert!(running.is_ready());
    let audited: i64 = sqlx::query_scalar("SELECT count(*) FROM contrail.audit").fetch_one(&pool).await.unwrap();
    assert_eq!(audited.unsigned_abs(), end);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_dies_and_comes_back_costs_nothing() {
    let mut world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    let middle = teller.tell(5).await;
    world.reach(&ProjectionName::ALL, middle).await;
    world.nats.kill();
    tokio::task::block_in_place(|| world.nats.start_again()).unwrap();
    eventually("NATS", async || world.store.check().await.ok()).await;
    let end = teller.tell(5).await;
    world.reach(&ProjectionName::ALL, end).await;
    running.stop().await;
    world.assert_all_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_when_a_read_model_has_moved() {
    let world = World::new().await;
    let mut listener = PgListener::connect_with(&world.pool).await.unwrap();
    listener.listen(notices::CHANNEL).await.unwrap();
    let running = world.run().await;
    let end = world.teller().tell(2).await;
    let told = async {
        loop {
            let notice = Notice::from_payload(listener.recv().await.unwrap().payload()).unwrap();
            assert!(world.projection(notice.name).await.position >= notice.position, "what is told can be seen");
            if notice == (Notice { name: ProjectionName::Orders, position: end }) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_true_while_nothing_happens() {
    let world = World::new().await;
    world.execute("UPDATE contrail.projections SET head = 0").await;
    let end = world.teller().tell(2).await;
    let running = world.run().await;
    world.reach(&ProjectionName::ALL, end).await;
    for name in ProjectionName::ALL {
        let projection = world.projection(name).await;
        assert_eq!((projection.head, projection.lag()), (end, 0));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_never_placed_halts() {
    let world = World::new().await;
    let mut transaction = event_store::Transaction::new();
    let id = Teller::order_id(0).to_string();
    let at = time::OffsetDateTime::UNIX_EPOCH;
    let delivered = domain::order::OrderDelivered { delivered_at: at, request: None };
    transaction.push::<Order>(&id, event_store::Expected::NEW, &[delivered.into()], &context(at));
    world.store.append(transaction).await.unwrap();
    let running = world.run().await;
    let halt = eventually("a halt", async || world.projection(ProjectionName::Orders).await.halt).await;
    assert_eq!(halt.reason, "the order was never placed");
    running.stop().await;
    assert_eq!(world.count("SELECT count(*) FROM contrail.orders").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_what_was_applied_halts() {
    let world = World::new().await;
    let mut teller = world.teller();
    let end = teller.tell(1).await;
    world.execute("UPDATE contrail.projections SET position = 1000 WHERE name = 'orders'").await;
    let running = world.run().await;
    let halt = eventually("a halt", async || world.projection(ProjectionName::Orders).await.halt).await;
    assert_eq!(halt.reason, format!("the log ends at {end}, before position 1000: it is not the one that was applied"));
    let refused = skips::skip(&world.pool, ProjectionName::Orders, None, "why not").await.unwrap_err();
    assert_eq!(refused.exit(), Exit::Conflict, "{refused}");
    world.reach(&[ProjectionName::Inventory, ProjectionName::Audit], end).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_together_count_what_happens_to_orders_once() {
    let world = World::new().await;
    let (one, other) = (world.run().await, world.run().await);
    let end = world.teller().tell(120).await;
    world.reach(&ProjectionName::ALL, end).await;
    for series in [
        "order_events_total{event=\"confirmed\"}",
        "payment_events_total{event=\"captured\"}",
        "order_confirmation_duration_seconds_count",
    ] {
        let what = format!("{series} to be 120 in both instances together");
        eventually(&what, async || {
            let sum = one.sample(series).unwrap() + other.sample(series).unwrap();
            assert!(sum <= 120.0, "{series}: {sum}");
            (sum >= 120.0).then_some(())
        })
        .await;
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_tell_which_orders_are_open_and_what_is_not_signed() {
    let world = World::new().await;
    let metrics = Metrics::new("test");
    let placed_s_ago = |status: &str, count: usize| {
        format!(
            "INSERT INTO contrail.orders (view_id, version, payload, status, payment_status, customer_id, placed_at, updated_at, position, \
             total_minor, currency, skus) SELECT '{status}-' || n, 1, '{{}}', '{status}', 'NONE', 'c', now() - n * interval '1 second', now(), n, \
             1, 'EUR', '{{}}' FROM generate_series(1, {count}) AS n"
        )
    };
    world.execute(&placed_s_ago("PLACED", 90)).await;
    world.execute(&placed_s_ago("CONFIRMED", 10_050)).await;
    world.execute(&placed_s_ago("DELIVERED", 5)).await;
    let watching = tokio::spawn(watch::watch(world.pool.clone(), metrics.clone()));
    let sample = |series: &str| world::sample(&metrics.plain_text(), series);
    eventually("the tables to be looked at", async || sample("orders_open_oldest_seconds{status=\"SHIPPED\"}").map(drop)).await;
    for (status, count) in [("PLACED", 90.0), ("RESERVED", 0.0), ("CONFIRMED", 10_000.0), ("SHIPPED", 0.0)] {
        assert_eq!(sample(&format!("orders_open{{status=\"{status}\"}}")), Some(count), "{status}");
    }
    assert_eq!(sample("orders_open{status=\"DELIVERED\"}"), None, "nothing is still to happen to those");
    let oldest = |status: &str| sample(&format!("orders_open_oldest_seconds{{status=\"{status}\"}}")).unwrap();
    assert!((90.0..120.0).contains(&oldest("PLACED")), "{}", oldest("PLACED"));
    assert_eq!(sample("orders_open_oldest_seconds{status=\"RESERVED\"}"), Some(0.0));
    assert!((10_050.0..10_080.0).contains(&oldest("CONFIRMED")), "the oldest of all: {}", oldest("CONFIRMED"));
    assert_eq!((sample("audit_signed_position"), sample("audit_unsigned_seconds")), (Some(0.0), Some(0.0)));
    watching.abort();

    // The index answers, and reads no more than it has to.
    world.execute("VACUUM ANALYZE contrail.orders").await;
    let sql = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*), min(placed_at) FROM (SELECT placed_at FROM contrail.orders \
               WHERE status = 'CONFIRMED' ORDER BY placed_at LIMIT 10000) AS oldest";
    let plan: Vec<String> = sqlx::query_scalar(sql).fetch_all(&world.pool).await.unwrap();
    let plan = plan.join("\n");
    assert!(
        plan.contains("Index Only Scan Backward using orders_status_placed_at_view_id_idx") && plan.contains("rows=10000 "),
        "{plan}"
    );
}
