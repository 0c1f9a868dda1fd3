//! What a payment gateway is asked, what it answers, and how it fails; not how it is spoken to.

use std::time::Duration;

use uuid::Uuid;

/// A card to be charged for an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeRequest {
    /// The order, and the idempotency key: one order is charged at most once, however often this is sent.
    pub order_id: Uuid,
    /// In the minor unit that ISO 4217 gives the currency.
    pub amount_minor: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// The gateway's name for the customer's card.
    pub payment_method: String,
}

/// How a charge ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeOutcome {
    /// The money is ours.
    Captured {
        /// What a refund has to name.
        payment_intent_id: String,
    },
    /// The card was declined. Trying again changes nothing.
    Declined {
        /// The gateway's reason, for programs: the bank's own reason where it gave one.
        code: String,
        /// The gateway's reason, for people.
        message: String,
    },
}

/// Money that was given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundOutcome {
    /// The gateway's name for it.
    pub refund_id: String,
}

/// A charge that the gateway knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCharge {
    /// What a refund has to name.
    pub payment_intent_id: String,
    /// In the minor unit that ISO 4217 gives the currency.
    pub amount_minor: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// Whether all of it was given back.
    pub refunded: bool,
}

/// Why a request to the gateway did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The gateway was not reached, or could not do it now. It is unknown whether money moved; asking the same again is
    /// safe, and finds out.
    #[error("{operation}: the gateway cannot do it now")]
    Transient {
        /// What was asked.
        operation: &'static str,
        /// How long the gateway wants to be left alone.
        retry_after: Option<Duration>,
        /// What happened.
        source: Trouble,
    },
    /// The gateway refuses this request, and will refuse it again. No money moved.
    #[error("{operation}: the gateway refused with {status} {code}: {message}")]
    Permanent {
        /// What was asked.
        operation: &'static str,
        /// The HTTP status; 422 if the request could not even be put in the gateway's terms.
        status: u16,
        /// The gateway's reason, for programs; empty if it gave none.
        code: String,
        /// The gateway's reason, for people.
        message: String,
    },
}

/// What happened to a request that may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There was no answer: refused, cut off, or too late.
    #[error("no answer")]
    Network(#[source] reqwest::Error),
    /// There was an answer, but not one of the gateway's API.
    #[error("the answer with status {status} cannot be read")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The gateway said that it cannot now.
    #[error("the gateway answered {status} {code}: {message}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// The gateway's reason, for programs; empty if it gave none.
        code: String,
        /// The gateway's reason, for people.
        message: String,
    },
    /// The gateway has accepted the request, and has not finished with it.
    #[error("the gateway has not decided yet: it is {status}")]
    Undecided {
        /// The gateway's word for the state of things.
        status: String,
    },
}
