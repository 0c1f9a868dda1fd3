//! What a payment is now: the fold of its events.

use serde::{Deserialize, Serialize};

use super::PaymentEvent;
use crate::Money;

/// Where a payment stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStatus {
    /// Nothing is recorded.
    #[default]
    None,
    /// The money was taken.
    Captured,
    /// It was refused for good. Final.
    Declined,
    /// It was taken and given back. Final.
    Refunded,
}

impl PaymentStatus {
    /// As the APIs write it: `NONE`, `CAPTURED`, ….
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Captured => "CAPTURED",
            Self::Declined => "DECLINED",
            Self::Refunded => "REFUNDED",
        }
    }
}

/// The payment of one order; [`Payment::default`] is one of which the gateway has not answered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Where it stands.
    pub status: PaymentStatus,
    /// What was taken, if it was.
    pub capture: Option<Capture>,
    /// The gateway's code and words, if it was refused.
    pub decline: Option<(String, String)>,
    /// The gateway's id of the refund, if it was given back.
    pub refund_id: Option<String>,
    /// On what the payments reactor gave up last, unless the gateway has answered since.
    pub given_up: Option<GivenUp>,
}

/// What the payments reactor gave up on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The event's place in the log.
    pub position: u64,
    /// Why.
    pub reason: String,
}

/// What was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// The gateway's id of the payment.
    pub payment_intent_id: String,
    /// How much.
    pub amount: Money,
}

impl Payment {
    /// Folds one event in. Total: whatever the log holds, in whatever order, gives a state.
    pub fn evolve(&mut self, event: &PaymentEvent) {
        match event {
            PaymentEvent::Captured(captured) => {
                self.status = PaymentStatus::Captured;
                self.capture = Some(Capture { payment_intent_id: captured.payment_intent_id.clone(), amount: captured.amount });
            }
            PaymentEvent::Declined(declined) => {
                self.status = PaymentStatus::Declined;
                self.decline = Some((declined.code.clone(), declined.message.clone()));
            }
            PaymentEvent::Refunded(refunded) => {
                self.status = PaymentStatus::Refunded;
                self.refund_id = Some(refunded.refund_id.clone());
            }
            PaymentEvent::GivenUp(given_up) => {
                self.given_up = Some(GivenUp { position: given_up.position, reason: given_up.reason.clone() });
                return;
            }
        }
        self.given_up = None;
    }
}
