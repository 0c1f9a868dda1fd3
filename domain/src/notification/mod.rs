//! One message to one customer over one channel. Its id is derived from the event that it is about, so a redelivered
//! event finds that its message was already sent.
//!
//! No address and no name is stored here: those are the order's.

mod command;
mod event;
mod state;

mod decide;
mod error;

mod aggregate;

pub use command::*;
pub use decide::decide;
pub use error::NotificationError;
pub use event::*;
pub use state::Notification;
