//! Stripe's test payment methods, and how a charge of them ends.

use serde::{Deserialize, Serialize};

/// Why a charge was declined, in the words of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the field has this name in the API")]
pub(crate) struct Decline {
    pub(crate) code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decline_code: Option<String>,
    pub(crate) message: String,
}

impl Decline {
    fn new(code: &str, decline_code: Option<&str>, message: &str) -> Self {
        Self { code: code.to_owned(), decline_code: decline_code.map(ToOwned::to_owned), message: message.to_owned() }
    }

    /// The bank said no and did not say why.
    pub(crate) fn generic() -> Self {
        Self::new("card_declined", Some("generic_decline"), "Your card was declined.")
    }
}

/// Whether there can be such a payment method at all.
pub(crate) fn exists(payment_method: &str) -> bool {
    payment_method.len() > "pm_".len() && payment_method.starts_with("pm_")
}

/// How a charge of it is declined; none if it goes through.
///
/// After <https://docs.stripe.com/testing#declined-payments>: `pm_card_[brand_]chargeDeclined[Reason]`.
pub(crate) fn decline(payment_method: &str) -> Option<Decline> {
    if payment_method == "pm_card_authenticationRequired" {
        return Some(Decline::new(
            "authentication_required",
            Some("authentication_required"),
            "Your card was declined. This transaction requires authentication.",
        ));
    }
    if payment_method.starts_with("pm_card_") && payment_method.ends_with("chargeCustomerFail") {
        return Some(Decline::generic());
    }
    let (_, reason) = payment_method.split_once("chargeDeclined")?;
    let declined = |reason, message| Decline::new("card_declined", Some(reason), message);
    Some(match reason {
        "InsufficientFunds" => declined("insufficient_funds", "Your card has insufficient funds."),
        "LostCard" => declined("lost_card", "Your card was declined."),
        "StolenCard" => declined("stolen_card", "Your card was declined."),
        "Fraudulent" => declined("fraudulent", "Your card was declined."),
        "VelocityLimitExceeded" => declined(
            "card_velocity_exceeded",
            "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
        ),
        "ExpiredCard" => Decline::new("expired_card", None, "Your card has expired."),
        "IncorrectCvc" => Decline::new("incorrect_cvc", None, "Your card's security code is incorrect."),
        "ProcessingError" => {
            Decline::new("processing_error", None, "An error occurred while processing your card. Try again in a little bit.")
        }
        _ => Decline::generic(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(payment_method: &str) -> Option<(String, Option<String>)> {
        decline(payment_method).map(|decline| (decline.code, decline.decline_code))
    }

    #[test]
    fn ordinary_methods_go_through() {
        for method in ["pm_card_visa", "pm_card_mastercard", "pm_1QxYz"] {
            assert!(exists(method));
            assert_eq!(decline(method), None);
        }
        assert!(!exists("card_visa") && !exists("pm_") && !exists(""));
    }

    #[test]
    fn declines_carry_their_reason() {
        let declined = |reason: &str| Some(("card_declined".to_owned(), Some(reason.to_owned())));
        assert_eq!(codes("pm_card_chargeDeclined"), declined("generic_decline"));
        assert_eq!(codes("pm_card_visa_chargeDeclined"), declined("generic_decline"));
        for brand in ["", "visa_"] {
            assert_eq!(codes(&format!("pm_card_{brand}chargeDeclinedInsufficientFunds")), declined("insufficient_funds"));
        }
        assert_eq!(codes("pm_card_chargeDeclinedExpiredCard"), Some(("expired_card".to_owned(), None)));
        assert_eq!(codes("pm_card_chargeDeclinedOfANewKind"), declined("generic_decline"));
    }
}
