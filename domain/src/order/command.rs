//! What can be asked of an order. Times and ids are arguments: whoever asks has a clock, this crate has none.

use time::OffsetDateTime;

use super::{Cause, Customer, Line, Shortage};
use crate::{Currency, Request};

/// Any command to an order.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderCommand {
    /// See [`Place`].
    Place(Place),
    /// See [`RecordReservation`].
    RecordReservation(RecordReservation),
    /// See [`Reject`].
    Reject(Reject),
    /// See [`Confirm`].
    Confirm(Confirm),
    /// See [`Cancel`].
    Cancel(Cancel),
    /// See [`Ship`].
    Ship(Ship),
    /// See [`Deliver`].
    Deliver(Deliver),
}

/// A checkout places the order.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Who buys.
    pub customer: Customer,
    /// The currency of every price.
    pub currency: Currency,
    /// What is bought; 1 to [`LINES_MAX`](super::LINES_MAX) lines.
    pub lines: Vec<Line>,
    /// The gateway's name of the card or account to charge.
    pub payment_method: String,
    /// When the checkout asked.
    pub placed_at: OffsetDateTime,
    /// The client request, for recognising its retries.
    pub request: Request,
}

/// The allocator reserved stock for every line.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordReservation {
    /// When.
    pub reserved_at: OffsetDateTime,
    /// Until when the order must be paid.
    pub payment_due_at: OffsetDateTime,
}

/// The allocator found too little stock.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// What was short.
    pub shortages: Vec<Shortage>,
    /// When.
    pub rejected_at: OffsetDateTime,
}

/// The payment was captured.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirm {
    /// The gateway's id of the payment.
    pub payment_intent_id: String,
    /// When.
    pub confirmed_at: OffsetDateTime,
}

/// Somebody, or a rule, calls the order off.
#[derive(Clone, Debug, PartialEq)]
pub struct Cancel {
    /// Who or what.
    pub cause: Cause,
    /// Why, in words for people.
    pub reason: String,
    /// When.
    pub cancelled_at: OffsetDateTime,
    /// The client request, if a client asked.
    pub request: Option<Request>,
}

/// The warehouse handed the parcel to a carrier.
#[derive(Clone, Debug, PartialEq)]
pub struct Ship {
    /// Who carries it.
    pub carrier: String,
    /// The carrier's number.
    pub tracking_number: String,
    /// When.
    pub shipped_at: OffsetDateTime,
    /// The client request, if a client asked.
    pub request: Option<Request>,
}

/// The parcel arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Deliver {
    /// When.
    pub delivered_at: OffsetDateTime,
    /// The client request, if a client asked.
    pub request: Option<Request>,
}
