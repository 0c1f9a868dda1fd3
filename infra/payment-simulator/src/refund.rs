//! Refunds: what is asked for, what is kept, and what the API shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    api_error::ApiError,
    ledger::Stamp,
    params::Params,
    payment_intent::{Intent, metadata},
};

const KNOWN_PARAMS: [&str; 4] = ["amount", "metadata", "payment_intent", "reason"];
const REASONS: [&str; 3] = ["duplicate", "fraudulent", "requested_by_customer"];

/// A well-formed request for a refund; whether it is possible depends on the PaymentIntent.
#[derive(Clone, Debug)]
pub(crate) struct NewRefund {
    pub(crate) payment_intent: String,
    amount: Option<i64>,
    reason: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl NewRefund {
    pub(crate) fn parse(params: &Params) -> Result<Self, ApiError> {
        params.only(&KNOWN_PARAMS)?;
        let reason = params.get("reason");
        if let Some(unknown) = reason.filter(|reason| !REASONS.contains(reason)) {
            return Err(
                ApiError::invalid(format!("Invalid reason: {unknown}; must be one of {}", REASONS.join(", "))).param("reason")
            );
        }
        Ok(Self {
            payment_intent: params.required("payment_intent")?.to_owned(),
            amount: params.positive("amount")?,
            reason: reason.map(ToOwned::to_owned),
            metadata: metadata(params)?,
        })
    }

    /// Carries it out, given what was refunded of the PaymentIntent before. Never gives back more than was taken.
    pub(crate) fn create(self, intent: &Intent, refunded_before: i64, stamp: Stamp) -> Result<Refund, ApiError> {
        let Some(charge) = intent.charge.as_ref().filter(|_| intent.succeeded()) else {
            return Err(ApiError::invalid(format!(
                "This PaymentIntent ({}) does not have a successful charge to refund.",
                intent.id
            ))
            .code("payment_intent_unexpected_state")
            .param("payment_intent"));
        };
        let left = intent.amount - refunded_before;
        if left == 0 {
            return Err(ApiError::invalid(format!("Charge {charge} has already been refunded."))
                .code("charge_already_refunded")
                .with("charge", charge.as_str()));
        }
        let amount = self.amount.unwrap_or(left);
        if amount > left {
            return Err(ApiError::invalid(format!(
                "Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            ))
            .param("amount"));
        }
        Ok(Refund {
            id: format!("re_{}", stamp.unique.simple()),
            payment_intent: intent.id.clone(),
            charge: charge.clone(),
            order_id: intent.order_id().map(ToOwned::to_owned),
            amount,
            currency: intent.currency.clone(),
            reason: self.reason,
            metadata: self.metadata,
            created_at: stamp.at,
        })
    }
}

/// A refund as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) payment_intent: String,
    pub(crate) charge: String,
    /// The order of the PaymentIntent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order_id: Option<String>,
    /// In the currency's smallest unit.
    pub(crate) amount: i64,
    pub(crate) currency: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

impl Refund {
    /// The object of the API.
    pub(crate) fn object(&self) -> Value {
        json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "balance_transaction": null,
            "charge": self.charge,
            "created": self.created_at.unix_timestamp(),
            "currency": self.currency,
            "metadata": self.metadata,
            "payment_intent": self.payment_intent,
            "reason": self.reason,
            "receipt_number": null,
            "status": "succeeded",
        })
    }
}
