//! Tells another system what became of orders: signed webhooks, as Standard Webhooks has it
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! The id of a webhook is that of the notification, the same on every try, so a receiver can tell a repetition. It holds ids and amounts,
//! no names or addresses. What is told begins with the first start of this reactor, not with the first event of the log.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{
    NotificationId, OrderId,
    envelope::{Metadata, StoredEvent},
    order::{Order, OrderStatus},
};
use event_store::{Beginning, JetStreamEventStore, Loaded, WorkSource};
use reqwest::{Client, StatusCode, Url, header::RETRY_AFTER, redirect};
use ring::hmac;
use serde_json::json;
use telemetry::{drain::Drain, trace};

use super::{Draining, Due, SOURCE, due, outcome, record, topic};
use crate::{
    breaker::{Breaker, Limits},
    clock, outgoing,
    reactor::{Failure, News, Reactor, Surroundings},
};

/// The channel, as it is recorded.
const WEBHOOK: &str = "webhook";
/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest pause that a receiver may ask for.
const RETRY_AFTER_MAX_S: u64 = 300;
/// Calls at the same time.
const CALLS_MAX: usize = 32;

/// The secrets that webhooks are signed with: more than one while they are changed.
#[derive(Clone)]
pub struct WebhookSecrets(Vec<hmac::Key>);

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecrets(…)")
    }
}

impl WebhookSecrets {
    /// Reads one or more secrets of the form `whsec_<base64 of 24 to 64 bytes>`, with spaces in between.
    ///
    /// # Errors
    ///
    /// Says what is wrong, and not what was given.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = |secret: &str| {
            let bytes = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
            let bytes = bytes.filter(|bytes| (24..=64).contains(&bytes.len()));
            bytes.map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        let keys: Option<Vec<_>> = text.split_ascii_whitespace().map(key).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            _ => Err("not of the form whsec_ and the base64 of 24 to 64 bytes".to_owned()),
        }
    }

    /// `v1,<base64>` for each secret, with spaces in between.
    fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let content = format!("{id}.{timestamp}.{body}");
        let signatures = self.0.iter().map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, content.as_bytes()))));
        signatures.collect::<Vec<_>>().join(" ")
    }
}

/// The webhooks reactor.
#[derive(Debug)]
pub struct Webhooks {
    store: JetStreamEventStore,
    client: Client,
    url: Url,
    secrets: WebhookSecrets,
    breaker: Breaker,
    drain: Drain,
}

impl Webhooks {
    /// Tells whoever is at `url` what the log says has happened.
    ///
    /// # Errors
    ///
    /// If the system's certificates cannot be loaded for an `https` address.
    pub fn new(url: Url, secrets: WebhookSecrets, surroundings: &Surroundings) -> reqwest::Result<Self> {
        // An error means that there is a provider already, which then is the one to use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(CALLS_MAX)
            // A receiver that has moved has to say so to people.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("contrail/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            client = client.tls_certs_only([]);
        }
        let Surroundings { store, metrics, health, drain, .. } = surroundings;
        let breaker = Breaker::new("webhook-receiver", Limits::default(), metrics, health);
        Ok(Self { store: store.clone(), client: client.build()?, url, secrets, breaker, drain: drain.clone() })
    }
}

/// Why a webhook was not taken.
#[derive(Debug, thiserror::Error)]
enum WebhookError {
    #[error("the receiver does not answer")]
    Network(#[source] reqwest::Error),
    #[error("the receiver answered {status}")]
    Answered { status: StatusCode, retry_after: Option<Duration> },
}

impl WebhookError {
    /// Whether the receiver will never take this very webhook, whatever it takes otherwise.
    fn is_about_the_webhook(&self) -> bool {
        let about_it = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        matches!(self, Self::Answered { status, .. } if about_it.contains(status))
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Network(_) => None,
            Self::Answered { retry_after, .. } => *retry_after,
        }
    }
}

impl Reactor for Webhooks {
    const NAME: &'static str = "webhooks";
    const SOURCE: WorkSource = SOURCE;
    const BEGINNING: Beginning = Beginning::Now;
    const CONCURRENCY: usize = CALLS_MAX;

    fn wants(&self, event_type: &str) -> bool {
        topic(event_type).is_some()
    }

    fn breaker(&self) -> Option<&Breaker> {
        Some(&self.breaker)
    }

    async fn handle(&self, event: &StoredEvent, news: News) -> Result<(), Failure> {
        let cause = &event.metadata;
        let Some(Due { topic, order_id, id }) = due(&self.store, cause, WEBHOOK, news).await? else { return Ok(()) };
        let mut order = Loaded::<Order>::default();
        self.store.refresh(&cause.aggregate_id, &mut order).await.map_err(Failure::of_load)?;
        let body = body(cause, order_id, &order);
        let call = self.breaker.admit().await.map_err(Failure::not_tried)?;
        if self.drain.is_started() {
            return Err(Failure::not_tried(Draining));
        }
        let sent = self.send(id, &body).await;
        match &sent {
            Ok(()) => call.worked(),
            Err(error) if error.is_about_the_webhook() => call.worked(),
            Err(error) => call.failed(error.retry_after()),
        }
        let reason = match sent {
            Ok(()) => None,
            Err(error) if error.is_about_the_webhook() => Some(error.to_string()),
            Err(error) => return Err(Failure::Transient { retry_after: error.retry_after(), source: Box::new(error) }),
        };
        record(&self.store, &self.drain, id, cause, outcome(order_id, topic, WEBHOOK, reason)).await
    }
}

impl Webhooks {
    async fn send(&self, id: NotificationId, body: &str) -> Result<(), WebhookError> {
        let (id, timestamp) = (id.to_string(), clock::now().unix_timestamp());
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.secrets.sign(&id, timestamp, body))
            .body(body.to_owned());
        // The URL may hold a secret.
        let network = |error: reqwest::Error| WebhookError::Network(error.without_url());
        let mut request = request.build().map_err(network)?;
        let mut span = outgoing::span(&mut request, trace::current());
        let response = self.client.execute(request).await.map_err(network).inspect_err(|error| span.fail(error))?;
        let status = response.status();
        span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_success() {
            return Ok(());
        }
        let asked = response.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.trim().parse::<u64>().ok());
        let retry_after = asked.map(|seconds| Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S)));
        Err(WebhookError::Answered { status, retry_after })
    }
}

/// What is told: the event's name without prefix and version, when it happened, and where the order stands now.
fn body(cause: &Metadata, order_id: OrderId, order: &Loaded<Order>) -> String {
    let event_type = cause.event_type.trim_start_matches("contrail.");
    let event_type = event_type.rsplit_once(".v").map_or(event_type, |(name, _)| name);
    let time = cause.time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let placement = order.aggregate.placement.as_ref();
    json!({
        "type": event_type,
        "timestamp": time,
        "data": {
            "order_id": order_id.to_string(),
            "status": order.aggregate.status.map(OrderStatus::as_str),
            "version": order.version,
            "customer_id": placement.map(|placement| placement.customer.id.to_string()),
            "total": placement.map(|placement| {
                json!({ "minor_units": placement.total.minor_units, "currency": placement.total.currency.code() })
            }),
            "event_id": cause.event_id.to_string(),
            "correlation_id": cause.correlation_id,
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification's own example.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secrets = WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(two.expect("two secrets").sign("a", 1, "b").split(' ').count(), 2);
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        for wrong in ["", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw x"] {
            let error = WebhookSecrets::parse(wrong).expect_err("no secret");
            assert!(wrong.len() < 7 || !error.contains(wrong), "{error}");
        }
        let secrets = WebhookSecrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        assert_eq!(format!("{secrets:?}"), "WebhookSecrets(…)");
    }
}
