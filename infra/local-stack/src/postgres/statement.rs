//! Single SQL statements, run to the end from code that is not async (such as `Drop`) but may be called from async code.

use std::thread;

use anyhow::Context as _;
use sqlx::{Connection as _, Executor as _, PgConnection};

/// Runs a statement on its own connection.
pub(crate) fn run(url: &str, statement: &str) -> anyhow::Result<()> {
    on_own_runtime(url, async |connection| connection.execute(statement).await.map(drop))
        .with_context(|| format!("run {statement}"))
}

/// Runs a query on its own connection. Returns the number of rows.
pub(crate) fn rows(url: &str, query: &str) -> anyhow::Result<usize> {
    on_own_runtime(url, async |connection| connection.fetch_all(query).await.map(|rows| rows.len()))
        .with_context(|| format!("run {query}"))
}

/// A thread with a runtime of its own, because the calling thread may belong to a runtime, and that must not be blocked on from
/// the inside.
fn on_own_runtime<T: Send>(
    url: &str,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error> + Send,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(url).await.context("connect to Postgres")?;
                let outcome = work(&mut connection).await?;
                // The server notices an unclean end as well; the statement is done.
                let _ = connection.close().await;
                Ok(outcome)
            })
        });
        worker.join().expect("the thread that runs the statement does not panic")
    })
}
