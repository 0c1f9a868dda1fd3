//! A batch that had to wait for the projection's row goes on with what it finds then, and not with what was there when it began to wait.

use read_store::{projections::ProjectionName, views::StockView};
use sqlx::{Connection, PgConnection, types::Json};

use crate::world::{World, eventually};

/// A transaction that holds the row of `inventory`.
struct Holding(PgConnection);

impl Holding {
    async fn open(world: &World) -> Self {
        let mut connection = PgConnection::connect(world.database.url()).await.unwrap();
        execute(&mut connection, "BEGIN; SELECT 1 FROM contrail.projections WHERE name = 'inventory' FOR UPDATE").await;
        Self(connection)
    }

    /// Once somebody waits for the row, does `what` and lets go of it.
    async fn let_go_after(mut self, world: &World, what: &str) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("somebody to wait for the row", async || (world.count(waiting).await > 0).then_some(())).await;
        execute(&mut self.0, what).await;
        execute(&mut self.0, "COMMIT").await;
        self.0.close().await.unwrap();
    }
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_exchanged_meanwhile_is_the_one_it_goes_on_with() {
    let world = World::new().await;
    let running = world.run().await;
    let mut teller = world.teller();
    let before = teller.tell(7).await;
    world.reach(&[ProjectionName::Inventory], before).await;

    // What a replay does that has found another on_hand, at the same position.
    let holding = Holding::open(&world).await;
    let end = teller.tell(1).await;
    let exchange = "CREATE SCHEMA built; CREATE TABLE built.inventory (LIKE contrail.inventory INCLUDING ALL); \
         INSERT INTO built.inventory SELECT view_id, version, jsonb_set(payload::jsonb, '{on_hand}', '1000')::json, 1000, reserved, \
         updated_at, position FROM contrail.inventory; \
         DROP TABLE contrail.inventory; ALTER TABLE built.inventory SET SCHEMA contrail; \
         UPDATE contrail.projections SET updated_at = now() WHERE name = 'inventory'";
    holding.let_go_after(&world, exchange).await;
    world.reach(&[ProjectionName::Inventory], end).await;
    let Json(view): Json<StockView> =
        sqlx::query_scalar("SELECT payload FROM contrail.inventory WHERE view_id = 'SKU-0'").fetch_one(&world.pool).await.unwrap();
    assert_eq!((view.on_hand, view.position), (1_000 + 3 - 2, before + 3), "three came in and two were shipped");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_skipped_meanwhile_is_skipped() {
    let world = World::new().await;
    let mut teller = world.teller();
    teller.tell(1).await;
    let poisoned = world.poison("events.stock.TEA-1", "no event at all").await;
    let end = teller.tell(1).await;
    let running = world.run().await;
    eventually("inventory to halt", async || world.projection(ProjectionName::Inventory).await.halt).await;
    running.stop().await;

    let holding = Holding::open(&world).await;
    let running = world.run().await;
    let skip = format!(
        "INSERT INTO contrail.skips (projection, position, event_type, halt_reason, reason) VALUES ('inventory', {poisoned}, NULL, 'h', 'r'); \
         UPDATE contrail.projections SET state = 'running', halt_position = NULL, halt_event_type = NULL, halt_reason = NULL, \
         halted_at = NULL WHERE name = 'inventory'"
    );
    holding.let_go_after(&world, &skip).await;
    world.reach(&[ProjectionName::Inventory], end).await;
    running.stop().await;
}
