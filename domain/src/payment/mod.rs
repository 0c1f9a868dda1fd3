//! The payment of one order: what the gateway took, refused, or gave back.

mod command;
mod event;
mod state;

mod decide;
mod error;

mod aggregate;

pub use command::{PaymentCommand, RecordCapture, RecordDecline, RecordRefund};
pub use decide::decide;
pub use error::PaymentError;
pub use event::{PaymentCaptured, PaymentDeclined, PaymentEvent, PaymentRefunded};
pub use state::{Capture, Payment, PaymentStatus};
