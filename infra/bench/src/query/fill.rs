//! The table that is asked: confirmed orders, from their events by way of the real projector.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use domain::{
    OrderId,
    order::{self, Confirm, Order, OrderCommand, OrderEvent, RecordReservation},
};
use e2e::{eventually::eventually, shop::Shop};
use event_store::{Expected, JetStreamEventStore, TRANSACTION_EVENTS_MAX, Transaction};
use local_stack::StackInfo;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::shop::{self, NOW};

/// As many orders as the arithmetic of [`id_digits`] has room for.
pub(super) const ORDERS_MAX: u64 = 1_000_000;
/// The projectors have this long to take everything in.
const PROJECTION_DEADLINE: Duration = Duration::from_mins(5);

/// What every order's id begins with; the last twelve digits tell them apart.
pub(super) const ID_PREFIX: &str = "6b0e4d0c-3a51-4f7e-9d2a-";
/// The last twelve digits of order `n` are those of `n * ID_FACTOR % ID_MODULUS + ID_MODULUS`: all different, because the factor is
/// odd and the modulus a power of two; without a zero in front; and in no order, as the ids of real orders are. It is arithmetic that
/// pgbench can do as well, and the product of the largest number and the factor fits in 63 bits.
pub(super) const ID_FACTOR: u64 = 8_675_309_241_527;
/// See [`ID_FACTOR`].
pub(super) const ID_MODULUS: u64 = 1 << 47;

/// The order of that number.
pub(super) fn order_id(number: u64) -> OrderId {
    let digits = number * ID_FACTOR % ID_MODULUS + ID_MODULUS;
    OrderId(format!("{ID_PREFIX}{digits:x}").parse().expect("a prefix and twelve digits are a UUID"))
}

/// Appends the orders and waits until the read model has all of them.
pub(super) async fn fill(info: &StackInfo, orders: u64) -> anyhow::Result<()> {
    eprintln!("placing {orders} orders and waiting for the projectors");
    let store = JetStreamEventStore::connect(&info.nats, "bench").await.context("connect to NATS")?;
    store.wait_until_ready(|_| ()).await;
    let story = story();
    let mut transaction = Transaction::new();
    for number in 0..orders {
        let id = order_id(number).to_string();
        transaction.push::<Order>(&id, Expected::NEW, &story, &shop::context(id.clone(), None));
        if transaction.len() + story.len() > TRANSACTION_EVENTS_MAX {
            store.append(std::mem::take(&mut transaction)).await.context("append orders")?;
        }
    }
    store.append(transaction).await.context("append the last orders")?;
    let head = store.head().await.context("look at the log")?;
    let shop = Shop::new(info)?;
    eventually("the read models have every order", PROJECTION_DEADLINE, async || {
        let projections = shop.projections().await?;
        Ok(projections.iter().all(|projection| projection.position == head.to_string()).then_some(()))
    })
    .await
}

/// An order's way until it is paid.
fn story() -> Vec<OrderEvent> {
    let mut order = Order::default();
    let placed = shop::placed("TEA-1");
    order.evolve(&placed);
    let mut story = vec![placed];
    let commands = [
        OrderCommand::RecordReservation(RecordReservation { reserved_at: NOW, payment_due_at: NOW + Duration::from_mins(15) }),
        OrderCommand::Confirm(Confirm { payment_intent_id: "pi_3PqKd2eZvKYlo2C10000".to_owned(), confirmed_at: NOW }),
    ];
    for command in commands {
        let events = order::decide(&order, command).expect("a placed order can be reserved, and then be paid");
        for event in &events {
            order.evolve(event);
        }
        story.extend(events);
    }
    story
}

/// Brings the table into the state that the server itself would bring it into some time later, so that this does not happen
/// while it is measured. Fails if the table has not just the orders that are asked for.
pub(super) async fn settle_table(database_url: &str, orders: u64) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(database_url).await.context("connect to Postgres")?;
    connection.execute("VACUUM (ANALYZE) contrail.orders").await.context("vacuum the table of orders")?;
    connection.execute("CHECKPOINT").await.context("write what is not on disk yet")?;
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM contrail.orders").fetch_one(&mut connection).await.context("count the orders")?;
    ensure!(u64::try_from(count).is_ok_and(|count| count == orders), "the table has {count} orders, not {orders}");
    // The server notices an unclean end as well.
    let _ = connection.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn ids_are_all_different_uuids_with_twelve_digits_of_their_own() {
        let ids: HashSet<Uuid> = (0..10_000).chain([ORDERS_MAX - 1]).map(|number| order_id(number).0).collect();
        assert_eq!(ids.len(), 10_001);
        assert!(ids.iter().all(|id| id.to_string().starts_with(ID_PREFIX)));
        assert!(
            ORDERS_MAX.checked_mul(ID_FACTOR).is_some_and(|product| i64::try_from(product).is_ok()),
            "pgbench counts in 64 bits"
        );
    }

    #[test]
    fn an_order_is_placed_reserved_and_confirmed() {
        assert!(matches!(story()[..], [OrderEvent::Placed(_), OrderEvent::StockReserved(_), OrderEvent::Confirmed(_)]));
    }
}
