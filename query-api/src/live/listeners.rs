//! Who listens to which order, and up to where everybody has been told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::OrderId;
use tokio::sync::{Notify, mpsc};

use crate::error::QueryError;
use crate::limits::{LISTENERS_MAX, UNHEARD_EVENTS_MAX};
use crate::reads::AuditRow;

/// Those who listen. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Live {
    state: Arc<Mutex<State>>,
    /// Somebody listens who did not before.
    came: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// Everything up to here was handed out, as far as anybody listened.
    position: i64,
    by_order: HashMap<OrderId, Vec<Listener>>,
    count: usize,
    last_number: u64,
}

#[derive(Debug)]
struct Listener {
    number: u64,
    events: mpsc::Sender<Arc<AuditRow>>,
}

/// Listens to one order until it is dropped.
#[derive(Debug)]
pub struct Listening {
    live: Live,
    order_id: OrderId,
    number: u64,
    /// Events after this position come; those up to here are in the table.
    pub after: i64,
    /// The events. Ends when more came than were taken.
    pub events: mpsc::Receiver<Arc<AuditRow>>,
}

impl Live {
    /// Listens to the events of an order, its payment and its notifications. `position` is that of the audit trail as it is known now.
    ///
    /// # Errors
    ///
    /// [`QueryError::Busy`] if [`LISTENERS_MAX`] listen already.
    pub fn listen(&self, order_id: OrderId, position: i64) -> Result<Listening, QueryError> {
        let (sender, events) = mpsc::channel(UNHEARD_EVENTS_MAX);
        let mut state = self.state();
        if state.count >= LISTENERS_MAX {
            return Err(QueryError::Busy("too many subscriptions are open".to_owned()));
        }
        if state.count == 0 {
            // Nobody was told anything lately, so nobody misses anything.
            state.position = position;
        }
        state.count += 1;
        state.last_number += 1;
        let (number, after) = (state.last_number, state.position);
        state.by_order.entry(order_id).or_default().push(Listener { number, events: sender });
        drop(state);
        self.came.notify_one();
        Ok(Listening { live: self.clone(), order_id, number, after, events })
    }

    /// How many listen.
    pub fn count(&self) -> usize {
        self.state().count
    }

    /// Up to where events were handed out; waits until somebody listens.
    pub(super) async fn position(&self) -> i64 {
        loop {
            {
                let state = self.state();
                if state.count > 0 {
                    return state.position;
                }
            }
            self.came.notified().await;
        }
    }

    /// Hands out all events after `after` and up to `up_to`, unless somebody who came meanwhile begins elsewhere.
    pub(super) fn hand_out(&self, after: i64, events: Vec<(OrderId, AuditRow)>, up_to: i64) {
        let mut state = self.state();
        if state.position != after {
            return;
        }
        state.position = up_to;
        for (order_id, event) in events {
            let Some(listeners) = state.by_order.get_mut(&order_id) else { continue };
            let event = Arc::new(event);
            // Whoever has no room left is told no more, reads what there is, and listens anew.
            listeners.retain(|listener| listener.events.try_send(Arc::clone(&event)).is_ok());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.count -= 1;
        if let Some(listeners) = state.by_order.get_mut(&self.order_id) {
            listeners.retain(|listener| listener.number != self.number);
            if listeners.is_empty() {
                state.by_order.remove(&self.order_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reads::row;

    fn order(number: u128) -> OrderId {
        OrderId(uuid::Uuid::from_u128(number))
    }

    fn positions(listening: &mut Listening) -> Vec<i64> {
        std::iter::from_fn(|| listening.events.try_recv().ok()).map(|event| event.position).collect()
    }

    #[tokio::test]
    async fn each_hears_of_its_own_order_from_where_it_began() {
        let live = Live::default();
        let mut first = live.listen(order(1), 7).expect("there is room");
        assert_eq!((first.after, live.position().await), (7, 7));
        live.hand_out(7, vec![(order(1), row(8)), (order(2), row(9))], 9);
        let mut second = live.listen(order(1), 20).expect("there is room");
        assert_eq!(second.after, 9, "from where the others are");
        live.hand_out(7, vec![(order(1), row(8))], 8);
        live.hand_out(9, vec![(order(1), row(10))], 10);
        assert_eq!((positions(&mut first), positions(&mut second)), (vec![8, 10], vec![10]));
        drop(first);
        drop(second);
        assert_eq!((live.count(), live.state().by_order.len()), (0, 0));
    }

    #[tokio::test]
    async fn who_does_not_listen_is_told_no_more_and_knows_it() {
        let live = Live::default();
        let mut slow = live.listen(order(1), 0).expect("there is room");
        let mut quick = live.listen(order(1), 0).expect("there is room");
        let many = i64::try_from(UNHEARD_EVENTS_MAX).expect("a small number") + 5;
        let mut heard = Vec::new();
        for position in 1..=many {
            live.hand_out(position - 1, vec![(order(1), row(position))], position);
            heard.extend(positions(&mut quick));
        }
        assert_eq!(heard, (1..=many).collect::<Vec<_>>());
        assert_eq!(positions(&mut slow).len(), UNHEARD_EVENTS_MAX);
        assert_eq!(slow.events.recv().await.map(|event| event.position), None);
    }
}
