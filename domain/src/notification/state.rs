//! What a notification is now: the fold of its events.

use serde::{Deserialize, Serialize};

use super::NotificationEvent;

/// One message to one customer; [`Notification::default`] is one that no channel has taken or refused yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Notification {
    /// Not yet handed to the channel, as far as is recorded.
    #[default]
    Pending,
    /// The channel took it. Final.
    Sent,
    /// The channel refused it for good; a later success still counts.
    Failed,
}

impl Notification {
    /// Folds one event in. Total: whatever the log holds, in whatever order, gives a state.
    pub fn evolve(&mut self, event: &NotificationEvent) {
        *self = match event {
            NotificationEvent::Sent(_) => Self::Sent,
            NotificationEvent::Failed(_) => Self::Failed,
        };
    }
}
