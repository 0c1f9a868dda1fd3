//! Orders by id, for all requests that ask at the same time.
//!
//! An order by its id is what customers ask for most. While a statement runs, whoever comes waits for the next one, which asks for all
//! of them: the more ask, the more share a statement. A request that finds a connection free is asked for at once, alone.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::OrderRow;
use crate::database::{Database, statement_span};
use crate::error::QueryError;

/// Statements at the same time. A second one keeps Postgres busy while the rows of the first are decoded.
const STATEMENTS_MAX: usize = 2;
/// Orders of one statement.
const ORDERS_MAX: usize = 256;
/// Requests that may wait here; one more waits at the door.
const WAITING_MAX: usize = 4_096;

/// Reads orders for many callers. Clones share the statements; they end with the last clone.
#[derive(Clone, Debug)]
pub struct OrdersById {
    waiting: mpsc::Sender<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    order_id: String,
    answer: oneshot::Sender<Result<Option<OrderRow>, QueryError>>,
}

impl OrdersById {
    /// Reads from `database`. Must be called on a tokio runtime.
    pub fn new(database: &Database) -> Self {
        let (waiting, wanted) = mpsc::channel(WAITING_MAX);
        let wanted = Arc::new(Mutex::new(wanted));
        for _ in 0..STATEMENTS_MAX {
            tokio::spawn(serve(database.clone(), Arc::clone(&wanted)));
        }
        Self { waiting }
    }

    /// The order of that id, by a statement that begins after this is called; `None` if there is no such order.
    pub async fn get(&self, order_id: String) -> Result<Option<OrderRow>, QueryError> {
        let _waited_for = statement_span();
        let (answer, answered) = oneshot::channel();
        // Whoever serves them lives as long as somebody can ask.
        let gone = || QueryError::internal("the reader of orders has stopped");
        self.waiting.send(Wanted { order_id, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn serve(database: Database, wanted: Arc<Mutex<mpsc::Receiver<Wanted>>>) {
    loop {
        let mut batch = Vec::new();
        if wanted.lock().await.recv_many(&mut batch, ORDERS_MAX).await == 0 {
            return;
        }
        let rows = read(&database, &batch).await;
        for Wanted { order_id, answer } in batch {
            let row = match &rows {
                Ok(rows) => Ok(rows.get(&order_id).cloned()),
                // One row that cannot be read must not be everybody's error.
                Err(QueryError::Internal(_)) => super::order(&database, &order_id).await,
                Err(error) => Err(error.clone()),
            };
            // Whoever asked may be gone.
            let _ = answer.send(row);
        }
    }
}

async fn read(database: &Database, batch: &[Wanted]) -> Result<HashMap<String, OrderRow>, QueryError> {
    let sql = "SELECT view_id, placed_at, payload FROM contrail.orders WHERE view_id = ANY($1)";
    let order_ids: Vec<&str> = batch.iter().map(|wanted| wanted.order_id.as_str()).collect();
    let order_ids = &order_ids;
    let rows: Vec<OrderRow> =
        database.read(|pool| async move { sqlx::query_as(sql).bind(order_ids).fetch_all(&pool).await }).await?;
    Ok(rows.into_iter().map(|row| (row.view.order_id.clone(), row)).collect())
}
