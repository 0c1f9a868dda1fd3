//! Identifiers. Every aggregate id is one NATS subject token, so none of them can hold a dot, a space or a wildcard.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest SKU, in characters (which are bytes here).
pub const SKU_CHARS_MAX: usize = 64;
/// Longest customer id, in characters.
pub const CUSTOMER_ID_CHARS_MAX: usize = 128;

/// The one spelling of a UUID that is a subject token, for those who read events without this crate.
const UUID_PATTERN: &str = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";

/// Namespace of order ids derived from a caller and an Idempotency-Key. A constant of the contract: changing it would
/// turn every retried order into a second one.
const ORDER_NAMESPACE: Uuid = Uuid::from_u128(0x0c62_8b8e_6a0f_5c0e_9a39_5f5e_2f6b_7a01);
/// Namespace of notification ids derived from an event id and a channel.
const NOTIFICATION_NAMESPACE: Uuid = Uuid::from_u128(0x5d0b_3e1c_9a4d_5b7f_8c21_7e1d_4c3a_9b02);

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}, not {given:?}")]
pub struct IdError {
    what: &'static str,
    rule: &'static str,
    given: String,
}

impl IdError {
    fn new(what: &'static str, rule: &'static str, given: &str) -> Self {
        // A hostile megabyte is not echoed back.
        let given = given.chars().take(80).collect();
        Self { what, rule, given }
    }
}

/// Identifies an order, and the payment of that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("pattern" = UUID_PATTERN))]
pub struct OrderId(pub Uuid);

impl OrderId {
    /// The order that `caller` means by `idempotency_key`: the same pair always gives the same id (UUID v5), which is
    /// what makes a retried `POST /v1/orders` find the first one for as long as the log lives (ADR 0004).
    pub fn derive(caller: &str, idempotency_key: &str) -> Self {
        // The length prefix keeps ("a", "bc") and ("ab", "c") apart.
        let name = format!("{}:{caller}{idempotency_key}", caller.len());
        Self(Uuid::new_v5(&ORDER_NAMESPACE, name.as_bytes()))
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        // Only the hyphenated lower-case form: an id has one spelling, because it is a subject token.
        match Uuid::try_parse(text) {
            Ok(id) if id.to_string() == text => Ok(Self(id)),
            _ => Err(IdError::new("an order id", "a UUID in hyphenated lower-case form", text)),
        }
    }
}

/// A stock keeping unit: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = SKU_CHARS_MAX, "pattern" = "^[A-Za-z0-9_-]*$"))]
pub struct Sku(String);

impl Sku {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Sku {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Sku {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=SKU_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err(IdError::new("a SKU", "1 to 64 letters, digits, '_' or '-'", &text))
        }
    }
}

/// The shop's own id of a customer: 1 to 128 printable ASCII characters without spaces. Opaque to us.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = CUSTOMER_ID_CHARS_MAX, "pattern" = "^[!-~]*$"))]
pub struct CustomerId(String);

impl CustomerId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CustomerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for CustomerId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        if (1..=CUSTOMER_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err(IdError::new("a customer id", "1 to 128 printable ASCII characters without spaces", &text))
        }
    }
}

/// Identifies one message to one customer over one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("pattern" = UUID_PATTERN))]
pub struct NotificationId(pub Uuid);

impl NotificationId {
    /// The notification about `event_id` over `channel`: always the same id, so that a redelivered event finds what
    /// was sent for it before.
    pub fn derive(event_id: Uuid, channel: &str) -> Self {
        Self(Uuid::new_v5(&NOTIFICATION_NAMESPACE, format!("{event_id}:{channel}").as_bytes()))
    }
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_is_the_same_for_the_same_caller_and_key_only() {
        assert_eq!(OrderId::derive("shop", "k1"), OrderId::derive("shop", "k1"));
        assert_ne!(OrderId::derive("shop", "k1"), OrderId::derive("shop", "k2"));
        assert_ne!(OrderId::derive("a", "bc"), OrderId::derive("ab", "c"));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = OrderId::derive("shop", "k1").to_string();
        assert!(id.parse::<OrderId>().is_ok());
        assert!(id.to_uppercase().parse::<OrderId>().is_err());
        assert!(id.replace('-', "").parse::<OrderId>().is_err());
    }

    #[test]
    fn a_sku_is_a_subject_token() {
        for bad in ["", "a.b", "a b", "*", ">", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<Sku>().is_err(), "{bad:?}");
        }
        assert!("TEA-1_x".parse::<Sku>().is_ok());
        assert!(serde_json::from_str::<Sku>("\"a.b\"").is_err());
    }
}
