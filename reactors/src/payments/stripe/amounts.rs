//! Amounts as the gateway counts them.

use super::super::gateway::GatewayError;

/// An amount in ISO 4217's minor unit as Stripe wants it. They differ for three currencies
/// (<https://docs.stripe.com/currencies#special-cases>).
pub(super) fn to_stripe(amount_minor: i64, currency: &str) -> Result<i64, GatewayError> {
    let amount = match currency.to_ascii_uppercase().as_str() {
        // ISO: no decimals. Stripe: two, always zero.
        "ISK" | "UGX" => amount_minor.checked_mul(100),
        // ISO: two decimals. Stripe: none.
        "MGA" => (amount_minor % 100 == 0).then_some(amount_minor / 100),
        _ => Some(amount_minor),
    };
    amount.ok_or_else(|| GatewayError::NotAsked {
        operation: "put an amount in the gateway's unit",
        code: "invalid_amount".to_owned(),
        message: format!("the gateway has no such amount of {currency} as {amount_minor} minor units"),
    })
}

/// The inverse of [`to_stripe`].
pub(super) fn from_stripe(amount: i64, currency: &str) -> i64 {
    match currency.to_ascii_uppercase().as_str() {
        "ISK" | "UGX" => amount / 100,
        "MGA" => amount.saturating_mul(100),
        _ => amount,
    }
}
