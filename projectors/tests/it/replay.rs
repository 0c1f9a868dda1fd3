use std::{collections::BTreeMap, time::Duration};

use projectors::{
    failure::Failure,
    replay::{ColumnDifference, Difference, DifferenceKind, Purpose, Replayer},
    settings::BULK_POOL,
};
use read_store::{
    pool,
    projections::{ProjectionName, ProjectionState},
    schema,
};
use sqlx::{Connection, PgConnection};
use telemetry::exit::Exit;

use uuid::Uuid;

use crate::{
    story::EVENTS_PER_ORDER,
    world::{World, eventually},
};

fn columns(difference: &Difference) -> Vec<&str> {
    difference.columns.iter().map(|differing| differing.column.as_str()).collect()
}

const SCHEMAS: &str = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'contrail\\_%'";

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_while_events_come_in_loses_and_doubles_none() {
    let world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    teller.tell(50).await;

    let replayer = world.replayer();
    let replays = async {
        for name in ProjectionName::ALL.into_iter().cycle().take(6) {
            let report = replayer.replay(name, Purpose::Swap).await.unwrap();
            assert!(report.swapped && report.agrees());
        }
    };
    let (end, ()) = tokio::join!(teller.tell(150), replays);
    world.reach(&ProjectionName::ALL, end).await;
    running.stop().await;

    world.assert_all_agree().await;
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit").await, end);
    assert_eq!(world.count(SCHEMAS).await, 0, "nothing is left beside the live tables");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_always_find_the_table_and_never_an_older_state() {
    let world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    let position = teller.tell(30).await;
    world.reach(&[ProjectionName::Orders], position).await;

    let replayer = world.replayer();
    let replays = async {
        for _ in 0..5 {
            replayer.replay(ProjectionName::Orders, Purpose::Swap).await.unwrap();
        }
    };
    tokio::pin!(replays);
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut replays => break,
            orders = world.count("SELECT count(*) FROM contrail.orders WHERE status = 'DELIVERED'") => {
                assert!(orders >= seen && orders >= 30, "{orders} orders after {seen}");
                seen = orders;
            }
        }
        teller.tell(1).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_table_has_the_grants_and_the_indexes_of_the_old() {
    let world = World::new().await;
    world.teller().tell(1).await;
    let toast = "SELECT coalesce(toast.reloptions::text, 'none') FROM pg_class AS toast JOIN pg_class ON toast.oid = pg_class.reltoastrelid \
                 WHERE pg_class.oid = 'contrail.orders'::regclass";
    world.execute("GRANT SELECT ON contrail.orders TO PUBLIC; ALTER TABLE contrail.orders SET (fillfactor = 90)").await;
    let facts = "SELECT relacl::text || reloptions::text || (SELECT string_agg(indexdef, ';' ORDER BY indexname) FROM pg_indexes \
                 WHERE schemaname = 'contrail' AND tablename = 'orders') FROM pg_class WHERE oid = 'contrail.orders'::regclass";
    let before: String = sqlx::query_scalar(facts).fetch_one(&world.pool).await.unwrap();
    assert!(before.contains("=r/") && before.contains("{fillfactor=90}"), "{before}");
    world.replayer().replay(ProjectionName::Orders, Purpose::Swap).await.unwrap();
    let after: String = sqlx::query_scalar(facts).fetch_one(&world.pool).await.unwrap();
    assert_eq!(after, before);
    let toast: String = sqlx::query_scalar(toast).fetch_one(&world.pool).await.unwrap();
    assert_eq!(toast, "none", "autovacuum is let in again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_replay_is_gone_on_with_and_a_reader_only_delays_the_swap() {
    let world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    let first_end = teller.tell(20).await;
    world.reach(&ProjectionName::ALL, first_end).await;

    let mut reader = PgConnection::connect(world.database.url()).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM contrail.orders").execute(&mut *reading).await.unwrap();
    let replayer = world.replayer();
    {
        let replay = replayer.replay(ProjectionName::Orders, Purpose::Swap);
        tokio::pin!(replay);
        let built = eventually("everything to be built", async || built_to(&world, first_end).await);
        tokio::select! {
            report = &mut replay => panic!("the reader holds the table, and still: {report:?}"),
            () = built => {}
        }
        let end = teller.tell(1).await;
        tokio::select! {
            report = &mut replay => panic!("the reader holds the table, and still: {report:?}"),
            () = world.reach(&[ProjectionName::Orders], end) => {}
        }
    }
    reading.rollback().await.unwrap();

    // What came in while it waited for the reader, the interrupted one may have built or not.
    let end = teller.tell(1).await;
    let (built, report) = eventually("the interrupted replay's connection to be gone", async || {
        let built = built_position(&world).await?;
        replayer.replay(ProjectionName::Orders, Purpose::Swap).await.ok().map(|report| (built, report))
    })
    .await;
    assert!(built >= first_end, "what was built is still there: {built}");
    assert_eq!((report.events, report.position), (end - built, end), "only what had come in since");
    running.stop().await;
    world.assert_all_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_build_has_left_is_not_gone_on_with() {
    let world = World::new().await;
    let end = world.teller().tell(3).await;
    world
        .execute(
            "CREATE SCHEMA contrail_replay_orders; \
             CREATE TABLE contrail_replay_orders.orders (LIKE contrail.orders INCLUDING ALL); \
             CREATE TABLE contrail_replay_orders.progress (position bigint NOT NULL, frontier bytea, built_by text); \
             INSERT INTO contrail_replay_orders.progress VALUES (25, NULL, 'another build')",
        )
        .await;
    let report = world.replayer().replay(ProjectionName::Orders, Purpose::Swap).await.unwrap();
    assert_eq!((report.events, report.position), (end, end));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_read_models_are_rebuilt_from_one_reading_and_one_that_fails_stops_no_other() {
    let world = World::new().await;
    let mut teller = world.teller();
    teller.tell(300).await;
    let end = world.poison("events.order.x", &poison_order()).await;
    let outcomes = world.replayer().replay_all(&ProjectionName::ALL, Purpose::Swap).await.unwrap();
    let [orders, inventory, audit] = outcomes.try_into().unwrap();
    assert_eq!(orders.unwrap_err().exit(), Exit::Failed);
    for report in [inventory.unwrap(), audit.unwrap()] {
        assert_eq!((report.events, report.position), (end, end));
    }
    assert_eq!(world.projection(ProjectionName::Orders).await.position, 0);
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit").await, end);
    assert_eq!(world.verify(ProjectionName::Audit).await.differences, []);
    assert_eq!(world.verify(ProjectionName::Inventory).await.differences, []);
}

/// A message whose attributes are those of an order's event, and whose data are not.
fn poison_order() -> String {
    let mut event = serde_json::json!({
        "specversion": "1.0", "id": Uuid::nil(), "type": "contrail.order.placed.v1", "source": "/test", "subject": "x",
        "time": "2026-11-20T12:00:00Z", "datacontenttype": "application/json", "aggregatetype": "order", "sequence": "1",
        "correlationid": "story"
    });
    event["data"] = serde_json::json!({ "lines": "none" });
    event.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_to_a_position_puts_the_read_model_back_to_there() {
    let world = World::new().await;
    let running = world.run().await;
    let end = world.teller().tell(30).await;
    world.reach(&ProjectionName::ALL, end).await;
    running.stop().await;
    let replayer = world.replayer();
    let failure = replayer.replay(ProjectionName::Orders, Purpose::SwapAt(end + 1)).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::TryAgain, "{failure}");
    let to = 7 * EVENTS_PER_ORDER;
    let outcomes = replayer.replay_all(&ProjectionName::ALL, Purpose::SwapAt(to)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|report| report.position == to)), "{outcomes:?}");
    for name in ProjectionName::ALL {
        let projection = world.projection(name).await;
        assert_eq!((projection.position, projection.lag()), (to, end - to));
    }
    assert_eq!(world.count("SELECT count(*) FROM contrail.orders").await, 7);
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit").await, to);
    world.assert_all_agree().await;

    // Who runs meanwhile goes on from there.
    let running = world.run().await;
    world.reach(&ProjectionName::ALL, end).await;
    replayer.replay(ProjectionName::Orders, Purpose::SwapAt(to)).await.unwrap();
    world.reach(&ProjectionName::ALL, end).await;
    running.stop().await;
    world.assert_all_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_replay_has_left_can_be_abandoned() {
    let world = World::new().await;
    let end = world.teller().tell(5).await;
    let replayer = world.replayer();
    let mut reader = PgConnection::connect(world.database.url()).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM contrail.orders").execute(&mut *reading).await.unwrap();
    let options = pool::connect_options(world.database.url(), BULK_POOL).unwrap();
    {
        let replay = replayer.replay(ProjectionName::Orders, Purpose::Swap);
        tokio::pin!(replay);
        let built = eventually("everything to be built", async || built_to(&world, end).await);
        tokio::select! {
            report = &mut replay => panic!("the reader holds the table, and still: {report:?}"),
            () = built => {}
        }
        let failure = Replayer::abandon(&options, &[ProjectionName::Orders]).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Conflict, "it runs: {failure}");
    }
    reading.rollback().await.unwrap();
    let abandoned = eventually("the interrupted replay's connection to be gone", async || {
        Replayer::abandon(&options, &ProjectionName::ALL).await.ok()
    })
    .await;
    assert_eq!(abandoned, [ProjectionName::Orders]);
    assert_eq!(world.count(SCHEMAS).await, 0);
    assert_eq!(Replayer::abandon(&options, &ProjectionName::ALL).await.unwrap(), []);
    assert_eq!(replayer.replay(ProjectionName::Orders, Purpose::Swap).await.unwrap().events, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_skipped_during_a_replay_is_not_in_what_was_replayed() {
    let world = World::new().await;
    let end = world.teller().tell(5).await;
    let replayer = world.replayer();
    let mut reader = PgConnection::connect(world.database.url()).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM contrail.orders").execute(&mut *reading).await.unwrap();
    let replay = async {
        let failure = replayer.replay(ProjectionName::Orders, Purpose::Swap).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Conflict, "{failure}");
        assert!(failure.to_string().contains("replay orders again"), "{failure}");
    };
    let skip = async {
        eventually("everything to be built", async || built_to(&world, end).await).await;
        world
            .execute(&format!(
                "INSERT INTO contrail.skips (projection, position, halt_reason, reason) VALUES ('orders', {end}, 'r', 'r')"
            ))
            .await;
        reading.rollback().await.unwrap();
    };
    tokio::join!(replay, skip);
    assert_eq!(built_to(&world, end).await, Some(()));
    let report = replayer.replay(ProjectionName::Orders, Purpose::Swap).await.unwrap();
    assert_eq!((report.events, report.position), (end, end), "begun anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_was_gone_on_with_knows_what_was_skipped_meanwhile() {
    let world = World::new().await;
    let mut teller = world.teller();
    let replayer = world.replayer();
    let mut reader = PgConnection::connect(world.database.url()).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM contrail.orders").execute(&mut *reading).await.unwrap();
    let mut end = 0;
    for round in 1..=2 {
        end = teller.tell(5).await;
        if round == 2 {
            let skip = "INSERT INTO contrail.skips (projection, position, halt_reason, reason) VALUES ('orders', ";
            world.execute(&format!("{skip}{end}, 'r', 'r')")).await;
        }
        let replay = replayer.replay(ProjectionName::Orders, Purpose::Swap);
        tokio::select! {
            report = replay => panic!("the reader holds the table, and still: {report:?}"),
            () = eventually("everything to be built", async || built_to(&world, end).await) => {}
        }
    }
    reading.rollback().await.unwrap();
    let report = replayer.replay(ProjectionName::Orders, Purpose::Swap).await.unwrap();
    assert_eq!(report.position, end);
    assert!(report.events < end, "begun anew: {report:?}");
}

/// Whether an unfinished replay of the orders has built so much.
async fn built_to(world: &World, position: u64) -> Option<()> {
    (built_position(world).await? == position).then_some(())
}

/// How much of the orders an unfinished replay has built.
async fn built_position(world: &World) -> Option<u64> {
    let sql = "SELECT position FROM contrail_replay_orders.progress";
    let built: i64 = sqlx::query_scalar(sql).fetch_optional(&world.pool).await.ok()??;
    Some(built.unsigned_abs())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replay_of_the_same_read_model_is_refused_unless_the_first_is_just_going() {
    let world = World::new().await;
    world.teller().tell(1).await;
    let mut rival = PgConnection::connect(world.database.url()).await.unwrap();
    // As the first replay does; the keys are the contract between two builds of the program.
    sqlx::query("SELECT pg_advisory_lock(x'636f6e74'::int, 0)").execute(&mut rival).await.unwrap();
    let replayer = world.replayer();
    let failure = replayer.replay(ProjectionName::Orders, Purpose::Verify).await.unwrap_err();
    assert!(matches!(failure, Failure::Conflict(_)), "{failure:?}");
    assert_eq!(failure.exit(), Exit::Conflict);
    replayer.replay(ProjectionName::Inventory, Purpose::Swap).await.unwrap();
    // As Postgres notices a moment later that a process was killed.
    let noticed = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        rival.close().await.unwrap();
    };
    let (verified, ()) = tokio::join!(replayer.replay(ProjectionName::Orders, Purpose::Verify), noticed);
    verified.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_mends_a_broken_row_and_ends_the_halt() {
    let world = World::new().await;
    let mut teller = world.teller();
    let running = world.run().await;
    let end = teller.tell(7).await;
    world.reach(&ProjectionName::ALL, end).await;
    // A running projection has the row in memory and would not notice.
    running.stop().await;
    world.execute("UPDATE contrail.inventory SET payload = '{\"on_hand\":\"many\"}' WHERE view_id = 'SKU-0'").await;
    let running = world.run().await;
    let end = teller.tell(1).await;
    let halt = eventually("inventory to halt", async || world.projection(ProjectionName::Inventory).await.halt).await;
    assert!(halt.reason.contains("replay inventory"), "{halt:?}");

    world.replayer().replay(ProjectionName::Inventory, Purpose::Swap).await.unwrap();
    assert_eq!(world.projection(ProjectionName::Inventory).await.state, ProjectionState::Running);
    let later = teller.tell(8).await;
    world.reach(&ProjectionName::ALL, later).await;
    assert!(later > end && running.is_ready());
    running.stop().await;
    world.assert_all_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_stops_at_an_event_that_it_cannot_apply_and_swaps_nothing() {
    let world = World::new().await;
    let mut teller = world.teller();
    let before = teller.tell(1).await;
    world.poison("events.order.x", "nonsense").await;
    let running = world.run().await;
    eventually("a halt", async || world.projection(ProjectionName::Orders).await.halt).await;
    let failure = world.replayer().replay(ProjectionName::Orders, Purpose::Swap).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Failed);
    let orders = world.projection(ProjectionName::Orders).await;
    assert_eq!((orders.position, orders.state), (before, ProjectionState::Halted));
    // What is there can be verified all the same.
    assert_eq!(world.verify(ProjectionName::Orders).await.differing, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_another_log_is_not_swapped_in() {
    let world = World::new().await;
    let end = world.teller().tell(2).await;
    let sql = "INSERT INTO contrail.audit_checkpoints (size, root, note) VALUES ($1, $2, 'of another log')";
    sqlx::query(sql).bind(end.cast_signed() - 3).bind([7_u8; 32].as_slice()).execute(&world.pool).await.unwrap();
    let failure = world.replayer().replay(ProjectionName::Audit, Purpose::Swap).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Integrity, "{failure}");
    assert_eq!(world.count("SELECT count(*) FROM contrail.audit").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_the_read_model_is_told() {
    let world = World::new().await;
    world.teller().tell(1).await;
    world.execute("UPDATE contrail.projections SET position = 1000").await;
    let failure = world.replayer().replay(ProjectionName::Orders, Purpose::Swap).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Integrity, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_finds_every_difference_and_changes_nothing() {
    let world = World::new().await;
    let running = world.run().await;
    let end = world.teller().tell(20).await;
    world.reach(&ProjectionName::ALL, end).await;
    running.stop().await;
    world.assert_all_agree().await;

    world
        .execute(
            "UPDATE contrail.audit SET bytes = set_byte(bytes, 100, get_byte(bytes, 100) # 1) WHERE position = 17; \
             UPDATE contrail.orders SET payload = replace(payload::text, '\"quantity\":2', '\"quantity\":3')::json, status = 'SHIPPED' \
             WHERE view_id = (SELECT min(view_id) FROM contrail.orders); \
             DELETE FROM contrail.inventory WHERE view_id = 'SKU-1'; \
             INSERT INTO contrail.inventory VALUES ('SKU-99', 1, '{}', 1, 0, now(), 1)",
        )
        .await;
    let audit = world.verify(ProjectionName::Audit).await;
    assert_eq!((audit.rows, audit.differing), (end, 1));
    let changed = &audit.differences[0];
    assert_eq!((changed.key.as_str(), changed.kind, columns(changed).as_slice()), ("17", DifferenceKind::Changed, &["bytes"][..]));
    let ColumnDifference { live: Some(live), replayed: Some(replayed), .. } = &changed.columns[0] else { panic!("{changed:?}") };
    let differing = live.bytes().zip(replayed.bytes()).filter(|(live, replayed)| live != replayed).count();
    assert_eq!((live.len(), differing), (replayed.len(), 1), "one digit of one byte: {changed:?}");

    let orders = world.verify(ProjectionName::Orders).await;
    assert_eq!((orders.rows, orders.differing), (20, 1));
    assert_eq!(columns(&orders.differences[0]), ["payload.lines", "status"]);
    let status = &orders.differences[0].columns[1];
    assert_eq!((status.live.as_deref(), status.replayed.as_deref()), (Some("SHIPPED"), Some("DELIVERED")));

    let inventory = world.verify(ProjectionName::Inventory).await;
    let found: Vec<_> = inventory.differences.iter().map(|row| (row.key.as_str(), row.kind)).collect();
    assert_eq!(found, [("SKU-1", DifferenceKind::Missing), ("SKU-99", DifferenceKind::Unexpected)]);

    assert_eq!(world.count("SELECT count(*) FROM contrail.inventory WHERE view_id = 'SKU-99'").await, 1, "nothing is mended");
    assert_eq!(world.count(SCHEMAS).await, 0);
}

/// The least that can be changed of a value, by the type of its column, as SQL: one byte, or one step.
fn nudged(column: &str, kind: &str) -> String {
    match kind {
        "bigint" | "integer" => format!("{column} + 1"),
        "bytea" => format!("set_byte({column}, 7, get_byte({column}, 7) # 1)"),
        "timestamp with time zone" => format!("{column} + interval '1 microsecond'"),
        // The last digit of a number: of what the order costs, of what is on the shelf.
        "json" => format!("regexp_replace({column}::text, '(minor_units|on_hand)\":([0-9]+)', '\\1\":1\\2')::json"),
        "uuid" => {
            format!("overlay({column}::text PLACING CASE right({column}::text, 1) WHEN '0' THEN '1' ELSE '0' END FROM 36)::uuid")
        }
        "text" => format!("overlay({column} PLACING CASE right({column}, 1) WHEN 'x' THEN 'y' ELSE 'x' END FROM length({column}))"),
        "ARRAY" => format!("array_append({column}, '')"),
        kind => panic!("how can a {kind} be changed?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_change_in_any_column_of_any_read_model_is_named() {
    let world = World::new().await;
    let running = world.run().await;
    let end = world.teller().tell(20).await;
    world.reach(&ProjectionName::ALL, end).await;
    running.stop().await;
    for (name, key) in
        [(ProjectionName::Orders, "view_id"), (ProjectionName::Inventory, "view_id"), (ProjectionName::Audit, "position")]
    {
        let all: Vec<(String, String)> = sqlx::query_as(
            "SELECT column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = 'contrail' AND table_name = $1 AND column_name <> $2",
        )
        .bind(name.as_str())
        .bind(key)
        .fetch_all(&world.pool)
        .await
        .unwrap();
        // Each column in another row, and what is empty in every row in none.
        let mut spoilt = BTreeMap::new();
        for (column, kind) in &all {
            let spoil = format!(
                "UPDATE contrail.{name} SET {column} = {} WHERE {key} = \
                 (SELECT min({key}) FROM contrail.{name} WHERE {column} IS NOT NULL AND NOT {key}::text = ANY($1)) RETURNING {key}::text",
                nudged(column, kind)
            );
            let taken: Vec<String> = spoilt.keys().cloned().collect();
            let row: Option<String> = sqlx::query_scalar(&spoil).bind(taken).fetch_optional(&world.pool).await.unwrap();
            spoilt.extend(row.map(|row| (row, column.clone())));
        }
        assert!(spoilt.len() >= all.len() - 3, "{spoilt:?}");
        let comparison = world.verify(name).await;
        let found = comparison.differences.iter().map(|row| {
            assert_eq!(row.kind, DifferenceKind::Changed, "{row:?}");
            let [column] = &columns(row)[..] else { panic!("{row:?}") };
            (row.key.clone(), column.split('.').next().unwrap().to_owned())
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), spoilt, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verifying_while_events_come_in_compares_one_moment() {
    let world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    let verifies = async {
        for name in ProjectionName::ALL.into_iter().cycle().take(6) {
            assert_eq!(world.verify(name).await.differences, []);
        }
    };
    tokio::join!(verifies, teller.tell(100));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_replays_to_empty_tables() {
    let world = World::new().await;
    let replayer = world.replayer();
    for name in ProjectionName::ALL {
        let report = replayer.replay(name, Purpose::Swap).await.unwrap();
        assert_eq!((report.events, report.position), (0, 0));
    }
    world.assert_all_agree().await;
    assert_eq!(world.count(&format!("SELECT count(*) FROM {}", schema::ORDERS)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_depends_on_the_table_is_not_left_behind() {
    let world = World::new().await;
    world.teller().tell(1).await;
    world.execute("CREATE VIEW public.revenue AS SELECT sum(total_minor) FROM contrail.orders").await;
    let replayer = world.replayer();
    let failure = replayer.replay(ProjectionName::Orders, Purpose::Swap).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Conflict, "{failure}");
    world.execute("DROP VIEW public.revenue").await;
    let swapped = tokio::time::timeout(Duration::from_secs(30), replayer.replay(ProjectionName::Orders, Purpose::Swap));
    swapped.await.unwrap().unwrap();
}
