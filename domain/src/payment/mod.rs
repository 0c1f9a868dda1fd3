//! The payment of one order: what the gateway took, refused, or gave back.

mod command;
mod event;
mod state;

mod decide;
mod error;

mod aggregate;

pub use command::*;
pub use decide::decide;
pub use error::PaymentError;
pub use event::*;
pub use state::{Capture, GivenUp, Payment, PaymentStatus};
