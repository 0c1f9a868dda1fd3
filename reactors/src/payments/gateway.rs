//! What a payment gateway is asked, what it answers, and how it fails; not how it is spoken to.

use std::{collections::BTreeMap, fmt, time::Duration};

use domain::Money;
use time::OffsetDateTime;
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

/// What the gateway has done with money.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Every charge that took money, by the gateway's name for it.
    pub charges: BTreeMap<String, MadeCharge>,
}

/// One charge that took money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeCharge {
    /// The gateway's name for it.
    pub payment_intent_id: String,
    /// The order that it was for, if it names one.
    pub order_id: Option<Uuid>,
    /// In the minor unit that ISO 4217 gives the currency.
    pub amount_minor: i64,
    /// How much of that was given back since.
    pub refunded_minor: i64,
    /// ISO 4217, upper case.
    pub currency: String,
    /// When.
    pub made_at: OffsetDateTime,
}

impl MadeCharge {
    /// Whether all of it was given back.
    pub fn is_refunded(&self) -> bool {
        self.refunded_minor >= self.amount_minor
    }
}

impl fmt::Display for MadeCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let money = |minor_units| match self.currency.parse() {
            Ok(currency) => Money::new(minor_units, currency).to_string(),
            Err(_) => format!("{minor_units} minor units of {}", self.currency),
        };
        write!(f, "the gateway took {}", money(self.amount_minor))?;
        match self.refunded_minor {
            0 => Ok(()),
            refunded => write!(f, " and gave back {}", money(refunded)),
        }
    }
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
        /// The HTTP status.
        status: u16,
        /// The gateway's reason, for programs; empty if it gave none.
        code: String,
        /// The gateway's reason, for people.
        message: String,
    },
    /// The request cannot be put in the gateway's terms, so the gateway was not asked. No money moved.
    #[error("{operation}: {message}")]
    NotAsked {
        /// What was to be done.
        operation: &'static str,
        /// The reason, for programs.
        code: String,
        /// The reason, for people.
        message: String,
    },
}

impl GatewayError {
    /// How long the gateway wants to be left alone, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            Self::Permanent { .. } | Self::NotAsked { .. } => None,
        }
    }

    /// Whether the gateway refuses to be asked so often. It has done nothing. Stripe says 429 also of one object that is in use.
    pub fn is_too_fast(&self) -> bool {
        matches!(self, Self::Transient { source: Trouble::Answered { status: 429, code, .. }, .. } if code != "lock_timeout")
    }

    /// Whether this tells that the gateway cannot be used now, by whatever request; not that there is something about this one.
    pub fn is_of_the_gateway(&self) -> bool {
        match self {
            Self::Transient { source: Trouble::Network(_) | Trouble::Unreadable { .. }, .. } => true,
            // 409, 424 and 425 are about another request under the same key, 429 about how many there are.
            Self::Transient { source: Trouble::Answered { status, .. }, .. } => *status >= 500 || *status == 408,
            Self::Transient { source: Trouble::Undecided { .. }, .. } | Self::NotAsked { .. } => false,
            Self::Permanent { .. } => !self.is_about_the_request(),
        }
    }

    /// Whether the gateway refuses this one charge or refund for good. 401 and 403 are about our key, 405 and a 404 that names nothing about
    /// the address: nobody's order suffers from those; they wait until the setting is mended. A 404 for something that the gateway does not
    /// know is about that: of a charge that was made under another account, for example.
    pub fn is_about_the_request(&self) -> bool {
        match self {
            Self::Transient { .. } => false,
            Self::NotAsked { .. } => true,
            Self::Permanent { status, code, .. } => is_about_the_request(*status, code),
        }
    }
}

/// See [`GatewayError::is_about_the_request`].
pub(super) fn is_about_the_request(status: u16, code: &str) -> bool {
    match status {
        404 => code == NOT_KNOWN,
        status => matches!(status, 200 | 400 | 402 | 422),
    }
}

/// Stripe's code for an id that it does not know.
const NOT_KNOWN: &str = "resource_missing";

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
