//! What the gateway answers: objects, pages, errors; and what each error means for the request.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{
    RequestBuilder, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::{
    Deserialize,
    de::{DeserializeOwned, Error as _},
};

use telemetry::trace;

use super::super::gateway::{ChargeOutcome, GatewayError, Trouble};
use crate::outgoing;

/// The longest pause that we let the gateway ask for, in seconds.
const RETRY_AFTER_MAX_S: u64 = 300;

#[derive(Debug, Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    #[serde(default)]
    pub(super) last_payment_error: Option<ErrorObject>,
    /// In seconds since 1970.
    #[serde(default)]
    pub(super) created: i64,
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) amount: i64,
    #[serde(default)]
    pub(super) payment_intent: Option<String>,
}

/// What comes in pages.
pub(super) trait Listed {
    fn id(&self) -> &str;
}

impl Listed for Intent {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Listed for Refund {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Refund {
    /// Whether the money is on its way back or there already.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.status.as_str(), "failed" | "canceled")
    }
}

/// Of a charge's refunds the one with which `wanted` was given back; the newest, if they come to all that was `charged`.
pub(super) fn given_back(refunds: Vec<Refund>, wanted: i64, charged: i64) -> Option<Refund> {
    let mut counting: Vec<_> = refunds.into_iter().filter(Refund::counts).collect();
    let total: i64 = counting.iter().map(|refund| refund.amount).fold(0, i64::saturating_add);
    let exactly = counting.iter().position(|refund| refund.amount == wanted);
    let which = exactly.or_else(|| (total >= charged && !counting.is_empty()).then_some(0))?;
    Some(counting.swap_remove(which))
}

#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) has_more: bool,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) error: ErrorObject,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorObject {
    pub(super) r#type: String,
    pub(super) code: Option<String>,
    pub(super) decline_code: Option<String>,
    pub(super) message: Option<String>,
}

impl ErrorObject {
    pub(super) fn into_decline(self) -> ChargeOutcome {
        ChargeOutcome::Declined {
            code: self.decline_code.or(self.code).unwrap_or_else(|| "card_declined".to_owned()),
            message: self.message.unwrap_or_else(|| "the card was declined".to_owned()),
        }
    }
}

/// Why a request has no result.
#[derive(Debug)]
pub(super) enum Failed {
    /// There was no answer that can be understood.
    Trouble(Trouble),
    /// The gateway answered with an error.
    Answer(ErrorAnswer),
}

#[derive(Debug)]
pub(super) struct ErrorAnswer {
    pub(super) status: StatusCode,
    pub(super) replayed: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) error: ErrorObject,
}

pub(super) async fn send<T: DeserializeOwned>(operation: &'static str, request: RequestBuilder) -> Result<T, Failed> {
    let (client, request) = request.build_split();
    let mut request = request.map_err(|error| Failed::Trouble(Trouble::Network(error.without_url())))?;
    let mut span = outgoing::span(&mut request, trace::current()).with("contrail.operation", operation);
    let answer = answer(operation, RequestBuilder::from_parts(client, request)).await;
    match &answer {
        Ok(_) => span.set("http.response.status_code", i64::from(StatusCode::OK.as_u16())),
        Err(Failed::Answer(answer)) => {
            span.set("http.response.status_code", i64::from(answer.status.as_u16()));
            span.fail(answer.status);
        }
        Err(Failed::Trouble(trouble)) => span.fail(trouble),
    }
    answer
}

async fn answer<T: DeserializeOwned>(operation: &'static str, request: RequestBuilder) -> Result<T, Failed> {
    // The URL may hold ids or, from a careless setting, a password.
    let network = |error: reqwest::Error| Failed::Trouble(Trouble::Network(error.without_url()));
    let response = request.send().await.map_err(network)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(network)?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|source| Failed::Trouble(Trouble::Unreadable { status: status.as_u16(), source }));
    }
    let ErrorBody { mut error } = serde_json::from_slice(&body).unwrap_or_default();
    if error.r#type.is_empty() && is_refusal(status) {
        // Not the gateway's word, and nobody else's ends an order. Of other statuses than these the status says enough.
        let source = serde_json::Error::custom("it is no error of the gateway's API");
        return Err(Failed::Trouble(Trouble::Unreadable { status: status.as_u16(), source }));
    }
    error.message.get_or_insert_with(|| status.canonical_reason().unwrap_or(operation).to_owned());
    Err(Failed::Answer(ErrorAnswer {
        status,
        replayed: headers.contains_key("idempotent-replayed"),
        retry_after: retry_after(&headers),
        error,
    }))
}

/// Whether an error with this status is about the request and nothing else: see [`GatewayError::is_about_the_request`].
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYMENT_REQUIRED | StatusCode::UNPROCESSABLE_ENTITY)
}

/// The pause that the gateway asks for in seconds. Stripe does not use the header's other form, a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S)))
}

impl Failed {
    pub(super) fn classify(self, operation: &'static str) -> GatewayError {
        match self {
            Self::Trouble(source) => GatewayError::Transient { operation, retry_after: None, source },
            Self::Answer(answer) if answer.may_pass() => answer.into_transient(operation),
            Self::Answer(answer) => answer.into_permanent(operation),
        }
    }
}

impl ErrorAnswer {
    /// Whether the same request may be answered otherwise later.
    pub(super) fn may_pass(&self) -> bool {
        self.status.is_server_error()
            || matches!(
                self.status,
                StatusCode::REQUEST_TIMEOUT
                    | StatusCode::CONFLICT
                    | StatusCode::FAILED_DEPENDENCY
                    | StatusCode::TOO_EARLY
                    | StatusCode::TOO_MANY_REQUESTS
            )
    }

    pub(super) fn is_card_error(&self) -> bool {
        self.status == StatusCode::PAYMENT_REQUIRED && self.error.r#type == "card_error"
    }

    /// Whether repeating the request under its key is pointless until the key is forgotten: the key belongs to a request
    /// that was put differently (by an older version of this file), or to one that failed inside the gateway, whose
    /// failure is replayed. In both cases money may have moved.
    pub(super) fn key_is_stuck(&self) -> bool {
        self.error.r#type == "idempotency_error" || (self.replayed && self.status.is_server_error())
    }

    /// Whether an earlier request under this key was refused for good, and this is that refusal once more.
    pub(super) fn is_old_refusal(&self) -> bool {
        self.replayed && !self.may_pass()
    }

    pub(super) fn already_refunded(&self) -> bool {
        self.error.code.as_deref() == Some("charge_already_refunded")
    }

    pub(super) fn into_decline(self) -> ChargeOutcome {
        self.error.into_decline()
    }

    pub(super) fn into_transient(self, operation: &'static str) -> GatewayError {
        let source = Trouble::Answered {
            status: self.status.as_u16(),
            code: self.error.code.unwrap_or(self.error.r#type),
            message: self.error.message.unwrap_or_default(),
        };
        GatewayError::Transient { operation, retry_after: self.retry_after, source }
    }

    pub(super) fn into_permanent(self, operation: &'static str) -> GatewayError {
        GatewayError::Permanent {
            operation,
            status: self.status.as_u16(),
            code: self.error.code.unwrap_or(self.error.r#type),
            message: self.error.message.unwrap_or_default(),
        }
    }
}
