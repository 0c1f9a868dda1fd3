use std::time::Duration;

use cqrs_es::persist::{ViewContext, ViewRepository};
use domain::{order::Order, stock::Stock};
use local_stack::testing;
use postgres_es::PostgresViewRepository;
use read_store::{
    pool::{self, PoolSettings},
    projections::{self, ProjectionName, ProjectionState},
    schema,
    views::{LineView, OrderView, StockView},
};
use sqlx::{Connection as _, PgConnection, PgPool};

const SETTINGS: PoolSettings = PoolSettings { application_name: "test", connections_max: 4, statement_timeout_ms: 10_000 };

async fn migrate(url: &str) {
    schema::migrate(&pool::connect_options(url, SETTINGS).unwrap()).await.unwrap();
}

async fn migrated(database: &testing::TestDatabase) -> PgPool {
    migrate(database.url()).await;
    pool::open(database.url(), SETTINGS).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_can_migrate_at_the_same_time_and_again() {
    let database = testing::database();
    tokio::join!(migrate(database.url()), migrate(database.url()));
    migrate(database.url()).await;

    let pool = pool::open(database.url(), SETTINGS).unwrap();
    pool::check(&pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_takes_as_long_as_it_takes_once_it_has_begun() {
    let database = testing::database();
    let options = pool::connect_options(database.url(), SETTINGS).unwrap();
    // As another one that is at work does.
    let mut other = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(x'636f6e747261696c'::bigint)").execute(&mut other).await.unwrap();
    let connect_within = Duration::from_secs(2);
    let other_ends = async {
        tokio::time::sleep(connect_within + Duration::from_millis(500)).await;
        other.close().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(schema::migrate_for(&options, None, connect_within), other_ends);
    migrated.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_the_schema_and_says_so() {
    let database = testing::database();
    let pool = pool::open(database.url(), SETTINGS).unwrap();
    assert_eq!(pool::check(&pool).await.unwrap_err(), "the schema is not there yet: run `projectors migrate`");

    let mut reasons = Vec::new();
    tokio::join!(pool::wait_until_ready(&pool, |reason| reasons.push(reason.to_owned())), migrate(database.url()));
    assert!(reasons.len() <= 2, "the same reason is told once: {reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_server_is_away_and_a_wrong_statement_is_not() {
    // Port 1 is reserved and nobody listens there.
    let options = pool::connect_options("postgres://contrail@127.0.0.1:1/contrail", SETTINGS).unwrap();
    assert!(schema::migrate(&options).await.unwrap_err().is_away());

    let database = testing::database();
    let pool = migrated(&database).await;
    let error = sqlx::query("SELECT nonsense").execute(&pool).await.unwrap_err();
    assert!(!pool::is_away(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_amid_the_greeting_is_away() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://contrail@{}/contrail", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Reads what the client asks first, and says nothing.
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 64]).await.unwrap();
        }
    });
    let pool = pool::open(&url, SETTINGS).unwrap();
    let error = sqlx::query("SELECT 1").execute(&pool).await.unwrap_err();
    assert!(pool::is_away(&error), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_statement_is_given_up() {
    let database = testing::database();
    let settings = PoolSettings { statement_timeout_ms: 50, ..SETTINGS };
    let pool = pool::open(database.url(), settings).unwrap();
    let error = sqlx::query("SELECT pg_sleep(60)").execute(&pool).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_projection_starts_before_the_first_event() {
    let database = testing::database();
    let pool = migrated(&database).await;
    let all = projections::all(&pool).await.unwrap();
    assert_eq!(all.iter().map(|projection| projection.name).collect::<Vec<_>>(), ProjectionName::ALL);
    for projection in all {
        assert_eq!((projection.position, projection.head, projection.state), (0, 0, ProjectionState::Running));
        assert_eq!(projections::one(&pool, projection.name).await.unwrap(), Some(projection));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_projection_must_say_where_and_why() {
    let database = testing::database();
    let pool = migrated(&database).await;
    let silent = sqlx::query("UPDATE contrail.projections SET state = 'halted' WHERE name = 'orders'").execute(&pool).await;
    assert!(silent.is_err());

    sqlx::query("UPDATE contrail.projections SET state = 'halted', halt_position = 7, halt_reason = 'why', halted_at = now() WHERE name = 'orders'")
        .execute(&pool)
        .await
        .unwrap();
    let orders = projections::one(&pool, ProjectionName::Orders).await.unwrap().unwrap();
    assert_eq!(orders.state, ProjectionState::Halted);
    assert_eq!(orders.halt.unwrap().position, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_es_serves_orders_by_id() {
    let database = testing::database();
    let pool = migrated(&database).await;
    let order = OrderView { order_id: "o-1".to_owned(), version: 3, ..OrderView::default() };
    sqlx::query(
        "INSERT INTO contrail.orders VALUES ('o-1', 3, $1, 'PLACED', 'NONE', 'c-1', now(), now(), 9, 2500, 'EUR', '{TEA-1}')",
    )
    .bind(sqlx::types::Json(&order))
    .execute(&pool)
    .await
    .unwrap();

    let repository = PostgresViewRepository::<OrderView, Order>::new(schema::ORDERS, pool.clone());
    assert_eq!(repository.load("o-1").await.unwrap().as_ref(), Some(&order));
    assert!(repository.load("o-2").await.unwrap().is_none());
    let (_, context) = repository.load_with_context("o-1").await.unwrap().unwrap();
    assert_eq!(context.version, 3);

    repository.update_view(order.clone(), context).await.unwrap();
    let stale = ViewContext::new("o-1".to_owned(), 3);
    assert!(repository.update_view(order, stale).await.is_err(), "the version has moved on");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_es_serves_stock_by_sku() {
    let database = testing::database();
    let pool = migrated(&database).await;
    let stock = StockView { sku: "TEA-1".to_owned(), on_hand: 5, reserved: 2, version: 2, ..StockView::default() };
    sqlx::query("INSERT INTO contrail.inventory VALUES ('TEA-1', 2, $1, 5, 2, now(), 4)")
        .bind(sqlx::types::Json(&stock))
        .execute(&pool)
        .await
        .unwrap();

    let repository = PostgresViewRepository::<StockView, Stock>::new(schema::INVENTORY, pool);
    let loaded = repository.load("TEA-1").await.unwrap().unwrap();
    assert_eq!(loaded, stock);
    assert_eq!(loaded.available(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_an_older_schema_can_be_found_by_what_they_hold() {
    let database = testing::database();
    let options = pool::connect_options(database.url(), SETTINGS).unwrap().options([("search_path", schema::SCHEMA)]);
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("CREATE SCHEMA contrail").execute(&mut connection).await.unwrap();
    let mut older = sqlx::migrate!("./migrations");
    older.migrations.to_mut().retain(|migration| migration.version < 4);
    older.run_direct(&mut connection).await.unwrap();
    let line = |sku: &str| LineView { sku: sku.to_owned(), quantity: 1, unit_price_minor: 1 };
    for (id, lines) in [("o-1", vec![line("TEA-2"), line("CUP-1"), line("TEA-2")]), ("o-2", vec![])] {
        let order = OrderView { lines, ..OrderView::default() };
        sqlx::query("INSERT INTO contrail.orders VALUES ($1, 3, $2, 'PLACED', 'NONE', 'c-1', now(), now(), 9, 2500, 'EUR')")
            .bind(id)
            .bind(sqlx::types::Json(&order))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    migrate(database.url()).await;
    let skus: Vec<Vec<String>> =
        sqlx::query_scalar("SELECT skus FROM contrail.orders ORDER BY view_id").fetch_all(&mut connection).await.unwrap();
    assert_eq!(skus, [vec!["CUP-1".to_owned(), "TEA-2".to_owned()], vec![]]);
}
