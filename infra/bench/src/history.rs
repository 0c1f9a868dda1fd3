//! A stack with a long log and no service, for what reads logs.

use anyhow::Context as _;
use event_store::JetStreamEventStore;
use local_stack::stack::{SERVICES, Stack, StackOptions};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::block_in_place;

use crate::{Options, Row, workplace::Workplace};

const EVENTS: u64 = 1_000_000;
const EVENTS_QUICK: u64 = 20_000;

/// Starts a stack, stops its services, writes the log of a shop, and hands both to `measure`, with the number of events.
pub(crate) async fn with_stack(
    options: &Options,
    workplace: &Workplace,
    measure: impl AsyncFnOnce(&mut Stack, usize) -> anyhow::Result<Vec<Row>>,
) -> anyhow::Result<Vec<Row>> {
    let folder = workplace.subfolder()?;
    let stack_options = StackOptions::new(folder.path().join("stack"));
    let mut stack = block_in_place(|| Stack::start(stack_options, |step| eprintln!("{step}")))?;
    let rows = async {
        for service in SERVICES {
            block_in_place(|| stack.stop(service))?;
        }
        let events = write_log(options, &stack).await?;
        measure(&mut stack, events).await
    };
    let rows = rows.await;
    let shut_down = block_in_place(|| stack.shut_down());
    let rows = rows?;
    shut_down?;
    Ok(rows)
}

async fn write_log(options: &Options, stack: &Stack) -> anyhow::Result<usize> {
    let events = options.events.unwrap_or(if options.quick { EVENTS_QUICK } else { EVENTS });
    eprintln!("writing a log of {events} events");
    let store = JetStreamEventStore::connect(&stack.info().nats, "bench").await.context("connect to NATS")?;
    store.wait_until_ready(|_| ()).await;
    let written = e2e::history::write(&store, events).await?;
    eprintln!("the log has {written} events");
    usize::try_from(written).context("count the events")
}

/// Nothing of what was before is left to be written, or to be cleared up, while the next is measured.
pub(crate) async fn settle(stack: &Stack) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&stack.info().database).await.context("connect to Postgres")?;
    // Autovacuum would look through tables that a replay has swapped in, and be in the way of whatever comes next.
    connection.execute("VACUUM ANALYZE").await.context("leave nothing to autovacuum")?;
    connection.execute("CHECKPOINT").await.context("write what is not on disk yet")?;
    // The server notices an unclean end as well.
    let _ = connection.close().await;
    Ok(())
}
