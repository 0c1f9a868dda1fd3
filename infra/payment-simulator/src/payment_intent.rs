//! PaymentIntents: what is asked for, what is kept, and what the API shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    api_error::ApiError,
    currency,
    ledger::Stamp,
    params::Params,
    payment_method::{self, Decline},
};

/// Limits of Stripe's metadata.
const METADATA_KEYS_MAX: usize = 50;
const METADATA_KEY_CHARS_MAX: usize = 40;
const METADATA_VALUE_CHARS_MAX: usize = 500;

/// What may be sent. Those that are not read change nothing for a card that is charged at once.
const KNOWN_PARAMS: [&str; 18] = [
    "amount",
    "automatic_payment_methods",
    "capture_method",
    "confirm",
    "confirmation_method",
    "currency",
    "customer",
    "description",
    "error_on_requires_action",
    "metadata",
    "off_session",
    "payment_method",
    "payment_method_types",
    "receipt_email",
    "return_url",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
];

/// A valid request for a PaymentIntent.
#[derive(Clone, Debug)]
pub(crate) struct NewIntent {
    amount: i64,
    currency: String,
    payment_method: Option<String>,
    confirm: bool,
    description: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl NewIntent {
    pub(crate) fn parse(params: &Params) -> Result<Self, ApiError> {
        params.only(&KNOWN_PARAMS)?;
        params.required("amount")?;
        let amount = params.positive("amount")?.expect("a required parameter is there");
        let currency = currency::supported(params.required("currency")?)?;
        currency::check_amount(amount, &currency)?;
        if let Some(other) = params.get("capture_method").filter(|method| !method.starts_with("automatic")) {
            return Err(ApiError::invalid(format!("This gateway captures at once; capture_method '{other}' is not available."))
                .param("capture_method"));
        }
        let payment_method = params.get("payment_method").filter(|method| !method.is_empty());
        if let Some(unknown) = payment_method.filter(|method| !payment_method::exists(method)) {
            return Err(ApiError::no_such("PaymentMethod", unknown, "payment_method"));
        }
        let confirm = params.flag("confirm")?;
        if confirm && payment_method.is_none() {
            return Err(ApiError::invalid("You cannot confirm this PaymentIntent because it's missing a payment method.")
                .code("payment_intent_unexpected_state")
                .param("payment_method"));
        }
        Ok(Self {
            amount,
            currency,
            payment_method: payment_method.map(ToOwned::to_owned),
            confirm,
            description: params.get("description").map(ToOwned::to_owned),
            metadata: metadata(params)?,
        })
    }

    /// Carries it out. `decline_anyway` declines a charge that would have gone through.
    pub(crate) fn create(self, stamp: Stamp, decline_anyway: bool) -> Intent {
        let outcome = match self.payment_method.as_deref().filter(|_| self.confirm) {
            None => Outcome::Unconfirmed,
            Some(method) => payment_method::decline(method)
                .or_else(|| decline_anyway.then(Decline::generic))
                .map_or(Outcome::Succeeded, Outcome::Declined),
        };
        let unique = stamp.unique.simple();
        Intent {
            id: format!("pi_{unique}"),
            charge: self.confirm.then(|| format!("ch_{unique}")),
            amount: self.amount,
            currency: self.currency,
            payment_method: self.payment_method,
            description: self.description,
            metadata: self.metadata,
            outcome,
            created_at: stamp.at,
        }
    }
}

/// The `metadata[…]` parameters, within Stripe's limits.
pub(crate) fn metadata(params: &Params) -> Result<BTreeMap<String, String>, ApiError> {
    let metadata = params.nested("metadata");
    let too_long = |(key, value): (&String, &String)| {
        key.chars().count() > METADATA_KEY_CHARS_MAX || value.chars().count() > METADATA_VALUE_CHARS_MAX
    };
    if metadata.len() > METADATA_KEYS_MAX || metadata.iter().any(too_long) {
        return Err(ApiError::invalid(format!(
            "Metadata can have up to {METADATA_KEYS_MAX} keys, with names of up to {METADATA_KEY_CHARS_MAX} and \
             values of up to {METADATA_VALUE_CHARS_MAX} characters."
        ))
        .param("metadata"));
    }
    Ok(metadata)
}

/// A PaymentIntent as the ledger keeps it. It never changes: refunds are records of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) charge: Option<String>,
    /// In the currency's smallest unit.
    pub(crate) amount: i64,
    /// ISO 4217 in lower case.
    pub(crate) currency: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payment_method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) outcome: Outcome,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

/// What became of a PaymentIntent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The card was charged.
    Succeeded,
    /// The card was not charged.
    Declined(Decline),
    /// It was not asked to be charged yet.
    Unconfirmed,
}

impl Intent {
    pub(crate) fn succeeded(&self) -> bool {
        self.outcome == Outcome::Succeeded
    }

    pub(crate) fn order_id(&self) -> Option<&str> {
        self.metadata.get("order_id").map(String::as_str)
    }

    /// The status that the API shows.
    pub(crate) fn status(&self) -> &'static str {
        match self.outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Unconfirmed if self.payment_method.is_some() => "requires_confirmation",
            // Stripe detaches a declined payment method and asks for another one.
            Outcome::Declined(_) | Outcome::Unconfirmed => "requires_payment_method",
        }
    }

    /// The error with which a declined charge is answered.
    pub(crate) fn decline_error(&self) -> Option<ApiError> {
        let Outcome::Declined(decline) = &self.outcome else {
            return None;
        };
        let mut error = ApiError::card(&decline.message).code(&decline.code).with("payment_intent", self.object());
        if let Some(decline_code) = &decline.decline_code {
            error = error.with("decline_code", decline_code.as_str());
        }
        if let Some(charge) = &self.charge {
            error = error.with("charge", charge.as_str());
        }
        Some(error)
    }

    /// The object of the API.
    pub(crate) fn object(&self) -> Value {
        let declined = match &self.outcome {
            Outcome::Declined(decline) => json!({
                "type": "card_error", "code": decline.code, "decline_code": decline.decline_code,
                "message": decline.message,
            }),
            Outcome::Succeeded | Outcome::Unconfirmed => Value::Null,
        };
        let attached = match self.outcome {
            Outcome::Declined(_) => None,
            Outcome::Succeeded | Outcome::Unconfirmed => self.payment_method.as_deref(),
        };
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": 0,
            "amount_received": if self.succeeded() { self.amount } else { 0 },
            "canceled_at": null,
            "cancellation_reason": null,
            "capture_method": "automatic",
            "client_secret": format!("{}_secret_simulated", self.id),
            "confirmation_method": "automatic",
            "created": self.created_at.unix_timestamp(),
            "currency": self.currency,
            "customer": null,
            "description": self.description,
            "last_payment_error": declined,
            "latest_charge": self.charge,
            "livemode": false,
            "metadata": self.metadata,
            "next_action": null,
            "payment_method": attached,
            "payment_method_types": ["card"],
            "status": self.status(),
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const STAMP: Stamp = Stamp { at: OffsetDateTime::UNIX_EPOCH, unique: Uuid::nil() };

    fn parse(encoded: &str) -> Result<NewIntent, ApiError> {
        NewIntent::parse(&Params::parse(encoded).expect("form encoding"))
    }

    fn mistake(encoded: &str) -> Value {
        parse(encoded).expect_err("a mistake").body()["error"].clone()
    }

    #[test]
    fn amounts_must_be_whole_and_positive() {
        assert_eq!(mistake("currency=eur")["message"], "Missing required param: amount.");
        for wrong in ["1.5", "abc", "0", "-100", "99999999999999999999"] {
            let error = mistake(&format!("amount={wrong}&currency=eur"));
            assert_eq!(error["code"], "parameter_invalid_integer", "{wrong}");
            assert_eq!(error["param"], "amount");
        }
    }

    #[test]
    fn a_charge_needs_a_payment_method_that_exists() {
        let error = mistake("amount=100&currency=eur&confirm=true&payment_method=card_1");
        assert_eq!(error["code"], "resource_missing");
        assert_eq!(error["message"], "No such PaymentMethod: 'card_1'");
        let error = mistake("amount=100&currency=eur&confirm=true");
        assert_eq!(error["code"], "payment_intent_unexpected_state");
    }

    #[test]
    fn what_is_not_confirmed_is_not_charged() {
        let intent = parse("amount=100&currency=eur&payment_method=pm_card_visa").expect("valid").create(STAMP, false);
        assert_eq!(intent.status(), "requires_confirmation");
        assert_eq!(intent.object()["amount_received"], 0);
        assert!(!intent.succeeded());
    }

    #[test]
    fn a_declined_charge_shows_its_reason_twice() {
        let intent = parse("amount=100&currency=eur&confirm=true&payment_method=pm_card_visa_chargeDeclined")
            .expect("valid")
            .create(STAMP, false);
        let error = intent.decline_error().expect("declined");
        assert_eq!(error.status(), 402);
        let error = &error.body()["error"];
        assert_eq!(error["type"], "card_error");
        assert_eq!(error["code"], "card_declined");
        assert_eq!(error["decline_code"], "generic_decline");
        assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
        assert_eq!(error["payment_intent"]["last_payment_error"]["code"], "card_declined");
    }
}
