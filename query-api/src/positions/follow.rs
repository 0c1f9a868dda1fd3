//! Keeps [`Positions`] up to date: a notification wakes waiters at once, and the table itself, read every second and whenever
//! the listening connection is new, makes good for every notification that was missed. The same read tells whether Postgres can
//! serve, so it is also what `/ready` reports.

use std::time::Duration;

use read_store::notices::{CHANNEL, Notice};
use read_store::{pool, projections};
use sqlx::postgres::PgListener;
use telemetry::health::Component;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Positions;
use crate::database::Database;

/// How often the table is read; also how long a missed notification can go unnoticed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How soon it is read when a notification says less than is known.
const DOUBT_INTERVAL: Duration = Duration::from_millis(100);
/// How long a read of the table may take before Postgres counts as away.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// Pause before the next attempt to listen.
const LISTEN_RETRY: Duration = Duration::from_millis(500);
/// Notifications that may wait to be taken in. Losing time here is harmless, since the table is read as well.
const NOTIFICATIONS_MAX: usize = 256;

#[derive(Debug)]
enum News {
    Moved(Notice),
    /// Notifications may have been missed.
    Listening,
}

/// Follows the read models in `database` for as long as it is polled. `database_url` is for the one connection that
/// listens; `component` tells whether Postgres can serve.
pub async fn follow(positions: Positions, database: Database, database_url: String, component: Component) {
    let (sender, news) = mpsc::channel(NOTIFICATIONS_MAX);
    tokio::join!(listen(&database_url, sender), take_in(positions, database, component, news));
}

async fn take_in(positions: Positions, database: Database, component: Component, mut news: mpsc::Receiver<News>) {
    let mut next_read = Instant::now();
    loop {
        tokio::select! {
            Some(news) = news.recv() => match news {
                News::Moved(notice) if positions.raise(notice.name, notice.position) => {}
                // Perhaps a read model was replaced by an older one. The table tells. Most likely the notice is late: each read makes some so.
                News::Moved(_) => next_read = next_read.min(Instant::now() + DOUBT_INTERVAL),
                News::Listening => next_read = Instant::now(),
            },
            () = sleep_until(next_read) => {
                read(&positions, &database, &component).await;
                next_read = Instant::now() + POLL_INTERVAL;
            }
        }
    }
}

/// Reads the table. Notifications of commits that this read cannot see yet are taken in after it, so replacing the known
/// positions by what it says never loses one.
async fn read(positions: &Positions, database: &Database, component: &Component) {
    let projections = async {
        pool::check(database.pool()).await?;
        projections::all(database.pool()).await.map_err(|error| format!("read the positions of the projections: {error}"))
    };
    match tokio::time::timeout(READ_DEADLINE, projections).await {
        Ok(Ok(projections)) => {
            for projection in projections {
                positions.set(projection.name, projection.position);
            }
            component.ready();
        }
        Ok(Err(reason)) => component.not_ready(reason),
        Err(_) => component.not_ready(format!("Postgres gave no answer within {} s", READ_DEADLINE.as_secs())),
    }
}

/// Sends on every notification. Whenever the connection is new, it first says so, because some may have been missed.
async fn listen(database_url: &str, news: mpsc::Sender<News>) {
    loop {
        if let Err(error) = listen_once(database_url, &news).await {
            // Whether Postgres is away is said by the read of the table; here it is only about waking up early.
            tracing::debug!(%error, "cannot listen for notifications: {error}");
        }
        tokio::time::sleep(LISTEN_RETRY).await;
    }
}

async fn listen_once(database_url: &str, news: &mpsc::Sender<News>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect(database_url).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    let _ = news.send(News::Listening).await;
    // `None` means that the connection was lost: end, and begin anew with a new one.
    while let Some(notification) = listener.try_recv().await? {
        if let Some(notice) = Notice::from_payload(notification.payload()) {
            let _ = news.send(News::Moved(notice)).await;
        }
    }
    Ok(())
}
