//! Stripe's PaymentIntents and Refunds over HTTP, or anything that speaks like them.
//!
//! Every request that moves money carries an idempotency key made from the order id, so each of these calls may be
//! repeated after any failure, by any process, and money moves once. Stripe forgets keys after 24 hours; what is older
//! than that is found by the order id in the metadata, which every charge carries.
//!
//! Stripe's search is eventually consistent: a charge shows up within a minute, during an incident later. So "not found"
//! right after a charge whose answer was lost does not mean "not charged". Repeating the charge under its key does tell,
//! at once; [`StripeGateway::find_charge`] is for orders that must not be charged any more.

use std::{collections::BTreeMap, fmt, time::Duration};

use reqwest::{
    Client, RequestBuilder, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::{Deserialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tracing::{error, warn};
use uuid::Uuid;

use super::gateway::{ChargeOutcome, ChargeRequest, FoundCharge, GatewayError, MadeCharge, RefundOutcome, Statement, Trouble};

/// How long a connection may take to be made, in seconds.
const CONNECT_TIMEOUT_S: u64 = 5;
/// How long a charge or a refund may take from the first byte sent to the last received, in seconds: banks are slow.
const MOVE_MONEY_TIMEOUT_S: u64 = 30;
/// How long looking something up may take, in seconds.
const LOOK_UP_TIMEOUT_S: u64 = 10;
/// How long an unused connection is kept, in seconds: shorter than servers and load balancers keep theirs.
const POOL_IDLE_TIMEOUT_S: u64 = 50;
/// How many unused connections are kept; more than charges in flight.
const POOL_IDLE_CONNECTIONS_MAX: usize = 128;
/// The longest pause that we let the gateway ask for, in seconds.
const RETRY_AFTER_MAX_S: u64 = 300;

/// Pages of a hundred charges that are looked through where there is no search.
const PAGES_BY_HAND_MAX: usize = 100;

/// The version of the API that this file was written for. A newer default of the account changes nothing.
const API_VERSION: &str = "2024-06-20";

const CHARGE: &str = "charge an order";
const REFUND: &str = "refund an order";
const FIND: &str = "find an order's charge";
const STATEMENT: &str = "list charges and refunds";

/// The secret with which we speak to the gateway. It shows itself to nobody: not in logs, not in errors.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a secret as it is.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    fn into_header(self) -> Option<HeaderValue> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.0)).ok()?;
        bearer.set_sensitive(true);
        Some(bearer)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base is a URL that paths cannot be added to.
    #[error("the gateway's address is not an http URL")]
    Base,
    /// The key holds characters that no key has.
    #[error("the gateway's key cannot be sent in a header")]
    Key,
    /// The system's certificates cannot be loaded.
    #[error("set up the gateway's client")]
    Setup(#[source] reqwest::Error),
}

/// The client of one Stripe account. Clones share one pool of connections.
#[derive(Clone, Debug)]
pub struct StripeGateway {
    client: Client,
    base: Url,
}

impl StripeGateway {
    /// A client of the API at `base`, which is `https://api.stripe.com` or whatever takes its place. Talks to nobody yet.
    ///
    /// Installs the ring provider of rustls for this process if it has none.
    ///
    /// # Errors
    ///
    /// If the address or the key cannot be used, or the system's certificates cannot be loaded for an `https` address.
    pub fn new(base: Url, api_key: ApiKey) -> Result<Self, ClientError> {
        if base.cannot_be_a_base() {
            return Err(ClientError::Base);
        }
        // An error means that there is a provider already, which then is the one to use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .connect_timeout(Duration::from_secs(CONNECT_TIMEOUT_S))
            .timeout(Duration::from_secs(MOVE_MONEY_TIMEOUT_S))
            .pool_idle_timeout(Duration::from_secs(POOL_IDLE_TIMEOUT_S))
            .pool_max_idle_per_host(POOL_IDLE_CONNECTIONS_MAX)
            // Nobody may send us, and the secret key with us, anywhere else.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("contrail/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // Plain HTTP needs no certificates, and must work on a system without any.
            client = client.tls_certs_only([]);
        }
        let mut headers = HeaderMap::new();
        headers.insert("stripe-version", HeaderValue::from_static(API_VERSION));
        headers.insert(AUTHORIZATION, api_key.into_header().ok_or(ClientError::Key)?);
        let client = client.default_headers(headers).build().map_err(ClientError::Setup)?;
        Ok(Self { client, base })
    }

    /// Charges a card for an order, once, however often it is called with the same request.
    pub async fn charge(&self, request: &ChargeRequest) -> Result<ChargeOutcome, GatewayError> {
        let amount = to_stripe(request.amount_minor, &request.currency)?.to_string();
        let order_id = request.order_id.to_string();
        let params = [
            ("amount", amount.as_str()),
            ("currency", &request.currency.to_ascii_lowercase()),
            ("payment_method", &request.payment_method),
            ("payment_method_types[]", "card"),
            ("confirm", "true"),
            // Nobody is there who could answer a bank's question, so a card that needs one is declined.
            ("off_session", "true"),
            ("metadata[order_id]", &order_id),
        ];
        let http = self.client.post(self.url("v1/payment_intents")).header("idempotency-key", &order_id).form(&params);
        match send::<Intent>(CHARGE, http).await {
            Ok(intent) => self.decided(intent).await,
            Err(Failed::Answer(answer)) if answer.is_card_error() => Ok(answer.into_decline()),
            Err(Failed::Answer(answer)) if answer.key_is_stuck() => {
                warn!(%order_id, status = answer.status.as_u16(), "the idempotency key of order {order_id} is spent: looking for its charge");
                match self.find_charge(request.order_id).await {
                    Ok(Some(found)) => Ok(ChargeOutcome::Captured { payment_intent_id: found.payment_intent_id }),
                    // A refusal to look is no refusal to charge: money may have moved.
                    Ok(None) | Err(GatewayError::Permanent { .. }) => Err(answer.into_transient(CHARGE)),
                    Err(error) => Err(error),
                }
            }
            Err(failed) => Err(failed.classify(CHARGE)),
        }
    }

    /// Gives back `amount_minor` (in the order's currency as ISO 4217 has it) of an order's charge, once. If it was all
    /// given back before, by us or by hand, that refund is the outcome.
    pub async fn refund(&self, order_id: Uuid, payment_intent_id: &str, amount_minor: i64) -> Result<RefundOutcome, GatewayError> {
        let key = format!("refund-{order_id}");
        self.refund_under(key, payment_intent_id, amount_minor, Some(order_id)).await
    }

    /// Gives back `amount_minor` of a charge that was one too many for its order, once.
    pub async fn refund_surplus(&self, payment_intent_id: &str, amount_minor: i64) -> Result<RefundOutcome, GatewayError> {
        let key = format!("refund-surplus-{payment_intent_id}");
        self.refund_under(key, payment_intent_id, amount_minor, None).await
    }

    async fn refund_under(
        &self,
        key: String,
        payment_intent_id: &str,
        amount_minor: i64,
        order_id: Option<Uuid>,
    ) -> Result<RefundOutcome, GatewayError> {
        // Only the gateway knows here which currency the charge had, and only a few need it.
        let intent: Intent = self.look_up(REFUND, self.intent_url(payment_intent_id)).await?;
        let amount = to_stripe(amount_minor, &intent.currency)?.to_string();
        let order_id = order_id.map(|order_id| order_id.to_string());
        let mut params = vec![("payment_intent", payment_intent_id), ("amount", &amount)];
        params.extend(order_id.as_deref().map(|order_id| ("metadata[order_id]", order_id)));
        let http = self.client.post(self.url("v1/refunds")).header("idempotency-key", key).form(&params);
        match send::<Refund>(REFUND, http).await {
            Ok(refund) if refund.counts() => Ok(RefundOutcome { refund_id: refund.id }),
            Ok(refund) => Err(GatewayError::Permanent {
                operation: REFUND,
                status: StatusCode::OK.as_u16(),
                code: refund.status.clone(),
                message: format!("refund {} is {}", refund.id, refund.status),
            }),
            Err(Failed::Answer(answer)) if answer.already_refunded() || answer.key_is_stuck() => {
                let refunds = self.refunds_of(REFUND, payment_intent_id).await?;
                match refunds.into_iter().find(Refund::counts) {
                    Some(refund) => Ok(RefundOutcome { refund_id: refund.id }),
                    None => Err(answer.into_transient(REFUND)),
                }
            }
            Err(failed) => Err(failed.classify(REFUND)),
        }
    }

    /// The successful charge of an order. `None` means that the gateway's search does not know one, which right after a
    /// charge does not mean that there is none: see the module's documentation.
    pub async fn find_charge(&self, order_id: Uuid) -> Result<Option<FoundCharge>, GatewayError> {
        let mut url = self.url("v1/payment_intents/search");
        let query = format!("metadata['order_id']:'{order_id}' AND status:'succeeded'");
        url.query_pairs_mut().append_pair("query", &query).append_pair("limit", "2");
        let found = match self.look_up::<Page<Intent>>(FIND, url).await {
            Ok(found) => found.data,
            Err(error @ GatewayError::Permanent { status: 404, .. }) => self.search_by_hand(order_id, error).await?,
            Err(error) => return Err(error),
        };
        if found.len() > 1 {
            error!(%order_id, "order {order_id} was charged more than once");
        }
        let Some(intent) = found.into_iter().next() else { return Ok(None) };
        let refunds = self.refunds_of(FIND, &intent.id).await?;
        let refunded: i64 = refunds.iter().filter(|refund| refund.counts()).map(|refund| refund.amount).sum();
        Ok(Some(FoundCharge {
            amount_minor: from_stripe(intent.amount, &intent.currency),
            currency: intent.currency.to_ascii_uppercase(),
            refunded: refunded >= intent.amount,
            payment_intent_id: intent.id,
        }))
    }

    /// Every charge that took money, made at `since` or later, and what was given back of it. One request for each hundred charges and
    /// refunds. What is charged meanwhile may be missing.
    pub async fn statement(&self, since: Option<OffsetDateTime>) -> Result<Statement, GatewayError> {
        let mut charges = BTreeMap::new();
        let intents = self.all::<Intent>("v1/payment_intents", since).await?;
        for intent in intents.into_iter().filter(|intent| intent.status == "succeeded") {
            let charge = MadeCharge {
                order_id: intent.metadata.get("order_id").and_then(|order_id| order_id.parse().ok()),
                amount_minor: from_stripe(intent.amount, &intent.currency),
                refunded_minor: 0,
                currency: intent.currency.to_ascii_uppercase(),
                made_at: OffsetDateTime::from_unix_timestamp(intent.created).unwrap_or(OffsetDateTime::UNIX_EPOCH),
                payment_intent_id: intent.id,
            };
            charges.insert(charge.payment_intent_id.clone(), charge);
        }
        // A refund comes after its charge.
        let refunds = self.all::<Refund>("v1/refunds", since).await?;
        for refund in refunds.into_iter().filter(Refund::counts) {
            let charge = refund.payment_intent.and_then(|payment_intent_id| charges.get_mut(&payment_intent_id));
            if let Some(charge) = charge {
                charge.refunded_minor += from_stripe(refund.amount, &charge.currency);
            }
        }
        Ok(Statement { charges })
    }

    /// A whole list, page by page.
    async fn all<T: DeserializeOwned + Listed>(&self, path: &str, since: Option<OffsetDateTime>) -> Result<Vec<T>, GatewayError> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let page = self.page::<T>(STATEMENT, path, since, all.last().map(T::id)).await?;
            let is_last = !page.has_more || page.data.is_empty();
            all.extend(page.data);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// What an accepted charge came to. The answer under an idempotency key stays what it was at first, so an intent that
    /// was still being worked on is asked for again.
    async fn decided(&self, mut intent: Intent) -> Result<ChargeOutcome, GatewayError> {
        if intent.status == "processing" {
            intent = self.look_up(CHARGE, self.intent_url(&intent.id)).await?;
        }
        match intent.status.as_str() {
            "succeeded" => Ok(ChargeOutcome::Captured { payment_intent_id: intent.id }),
            "canceled" | "requires_payment_method" => {
                let reason = intent.last_payment_error.unwrap_or_default();
                Ok(reason.into_decline())
            }
            // Not at Stripe, which declines at once what is off session. Nobody shall answer the bank's question later.
            "requires_action" => {
                self.cancel(&intent.id).await?;
                Ok(ChargeOutcome::Declined {
                    code: "authentication_required".to_owned(),
                    message: "The card needs its holder's confirmation.".to_owned(),
                })
            }
            _ => Err(GatewayError::Transient {
                operation: CHARGE,
                retry_after: None,
                source: Trouble::Undecided { status: intent.status },
            }),
        }
    }

    /// The successful charges of an order among all that there are, for a gateway that has no search: small ones, for tests. One that has so many
    /// that this would take for ever has given `error`, and is left at that.
    async fn search_by_hand(&self, order_id: Uuid, error: GatewayError) -> Result<Vec<Intent>, GatewayError> {
        let order_id = order_id.to_string();
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..PAGES_BY_HAND_MAX {
            let page = self.page::<Intent>(FIND, "v1/payment_intents", None, after.as_deref()).await?;
            after = page.data.last().map(|last| last.id.clone()).filter(|_| page.has_more);
            let is_it = |intent: &Intent| intent.status == "succeeded" && intent.metadata.get("order_id") == Some(&order_id);
            found.extend(page.data.into_iter().filter(is_it));
            if after.is_none() {
                return Ok(found);
            }
        }
        Err(error)
    }

    /// One page of a list, newest first.
    async fn page<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &str,
        since: Option<OffsetDateTime>,
        after: Option<&str>,
    ) -> Result<Page<T>, GatewayError> {
        let mut url = self.url(path);
        url.query_pairs_mut().append_pair("limit", "100");
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("created[gte]", &since.unix_timestamp().to_string());
        }
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("starting_after", after);
        }
        self.look_up(operation, url).await
    }

    /// Makes an intent one that can never be charged.
    async fn cancel(&self, payment_intent_id: &str) -> Result<(), GatewayError> {
        let mut url = self.intent_url(payment_intent_id);
        url.path_segments_mut().expect("the base was checked to take paths").push("cancel");
        let http = self.client.post(url).header("idempotency-key", format!("cancel-{payment_intent_id}"));
        send::<Intent>(CHARGE, http).await.map(drop).map_err(|failed| failed.classify(CHARGE))
    }

    async fn refunds_of(&self, operation: &'static str, payment_intent_id: &str) -> Result<Vec<Refund>, GatewayError> {
        let mut url = self.url("v1/refunds");
        url.query_pairs_mut().append_pair("payment_intent", payment_intent_id).append_pair("limit", "100");
        let page: Page<Refund> = self.look_up(operation, url).await?;
        Ok(page.data)
    }

    async fn look_up<T: DeserializeOwned>(&self, operation: &'static str, url: Url) -> Result<T, GatewayError> {
        let http = self.client.get(url).timeout(Duration::from_secs(LOOK_UP_TIMEOUT_S));
        send(operation, http).await.map_err(|failed| failed.classify(operation))
    }

    fn intent_url(&self, id: &str) -> Url {
        let mut url = self.url("v1/payment_intents");
        url.path_segments_mut().expect("the base was checked to take paths").push(id);
        url
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("the base was checked to take paths").pop_if_empty().extend(path.split('/'));
        url
    }
}

#[derive(Debug, Deserialize)]
struct Intent {
    id: String,
    status: String,
    amount: i64,
    currency: String,
    #[serde(default)]
    last_payment_error: Option<ErrorObject>,
    /// In seconds since 1970.
    #[serde(default)]
    created: i64,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Refund {
    id: String,
    status: String,
    amount: i64,
    #[serde(default)]
    payment_intent: Option<String>,
}

/// What comes in pages.
trait Listed {
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
    fn counts(&self) -> bool {
        !matches!(self.status.as_str(), "failed" | "canceled")
    }
}

#[derive(Debug, Deserialize)]
struct Page<T> {
    data: Vec<T>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorObject,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorObject {
    r#type: String,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
}

impl ErrorObject {
    fn into_decline(self) -> ChargeOutcome {
        ChargeOutcome::Declined {
            code: self.decline_code.or(self.code).unwrap_or_else(|| "card_declined".to_owned()),
            message: self.message.unwrap_or_else(|| "the card was declined".to_owned()),
        }
    }
}

/// Why a request has no result.
#[derive(Debug)]
enum Failed {
    /// There was no answer that can be understood.
    Trouble(Trouble),
    /// The gateway answered with an error.
    Answer(ErrorAnswer),
}

#[derive(Debug)]
struct ErrorAnswer {
    status: StatusCode,
    replayed: bool,
    retry_after: Option<Duration>,
    error: ErrorObject,
}

async fn send<T: DeserializeOwned>(operation: &'static str, request: RequestBuilder) -> Result<T, Failed> {
    // The URL may hold ids or, from a careless setting, a password.
    let network = |error: reqwest::Error| Failed::Trouble(Trouble::Network(error.without_url()));
    let response = request.send().await.map_err(network)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.map_err(network)?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|source| Failed::Trouble(Trouble::Unreadable { status: status.as_u16(), source }));
    }
    // A proxy's error page is not JSON; the status says enough.
    let ErrorBody { mut error } = serde_json::from_slice(&body).unwrap_or_default();
    error.message.get_or_insert_with(|| status.canonical_reason().unwrap_or(operation).to_owned());
    Err(Failed::Answer(ErrorAnswer {
        status,
        replayed: headers.contains_key("idempotent-replayed"),
        retry_after: retry_after(&headers),
        error,
    }))
}

/// The pause that the gateway asks for in seconds. Stripe does not use the header's other form, a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S)))
}

impl Failed {
    fn classify(self, operation: &'static str) -> GatewayError {
        match self {
            Self::Trouble(source) => GatewayError::Transient { operation, retry_after: None, source },
            Self::Answer(answer) if answer.may_pass() => answer.into_transient(operation),
            Self::Answer(answer) => answer.into_permanent(operation),
        }
    }
}

impl ErrorAnswer {
    /// Whether the same request may be answered otherwise later.
    fn may_pass(&self) -> bool {
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

    fn is_card_error(&self) -> bool {
        self.status == StatusCode::PAYMENT_REQUIRED && self.error.r#type == "card_error"
    }

    /// Whether repeating the request under its key is pointless until the key is forgotten: the key belongs to a request
    /// that was put differently (by an older version of this file), or to one that failed inside the gateway, whose
    /// failure is replayed. In both cases money may have moved.
    fn key_is_stuck(&self) -> bool {
        self.error.r#type == "idempotency_error" || (self.replayed && self.status.is_server_error())
    }

    fn already_refunded(&self) -> bool {
        self.error.code.as_deref() == Some("charge_already_refunded")
    }

    fn into_decline(self) -> ChargeOutcome {
        self.error.into_decline()
    }

    fn into_transient(self, operation: &'static str) -> GatewayError {
        let source = Trouble::Answered {
            status: self.status.as_u16(),
            code: self.error.code.unwrap_or(self.error.r#type),
            message: self.error.message.unwrap_or_default(),
        };
        GatewayError::Transient { operation, retry_after: self.retry_after, source }
    }

    fn into_permanent(self, operation: &'static str) -> GatewayError {
        GatewayError::Permanent {
            operation,
            status: self.status.as_u16(),
            code: self.error.code.unwrap_or(self.error.r#type),
            message: self.error.message.unwrap_or_default(),
        }
    }
}

/// An amount in ISO 4217's minor unit as Stripe wants it. They differ for three currencies
/// (<https://docs.stripe.com/currencies#special-cases>).
fn to_stripe(amount_minor: i64, currency: &str) -> Result<i64, GatewayError> {
    let amount = match currency.to_ascii_uppercase().as_str() {
        // ISO: no decimals. Stripe: two, always zero.
        "ISK" | "UGX" => amount_minor.checked_mul(100),
        // ISO: two decimals. Stripe: none.
        "MGA" => (amount_minor % 100 == 0).then_some(amount_minor / 100),
        _ => Some(amount_minor),
    };
    amount.ok_or_else(|| GatewayError::Permanent {
        operation: "put an amount in the gateway's unit",
        status: StatusCode::UNPROCESSABLE_ENTITY.as_u16(),
        code: "invalid_amount".to_owned(),
        message: format!("the gateway has no such amount of {currency} as {amount_minor} minor units"),
    })
}

/// The inverse of [`to_stripe`].
fn from_stripe(amount: i64, currency: &str) -> i64 {
    match currency.to_ascii_uppercase().as_str() {
        "ISK" | "UGX" => amount / 100,
        "MGA" => amount.saturating_mul(100),
        _ => amount,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, body::Body, extract::Request, response::Response};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    /// A gateway that gives the same answer to everything, and the paths that it was asked for.
    async fn answering(
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        body: Value,
    ) -> (StripeGateway, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| async move {
            log.lock().unwrap().push(request.uri().path().to_owned());
            let answer =
                headers.iter().fold(Response::builder().status(status), |answer, (name, value)| answer.header(*name, *value));
            answer.body(Body::from(body.to_string())).unwrap()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/mounted/here/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (gateway(&base), asked)
    }

    fn gateway(base: &str) -> StripeGateway {
        StripeGateway::new(base.parse().unwrap(), ApiKey::new("sk_test_1")).unwrap()
    }

    fn request() -> ChargeRequest {
        ChargeRequest {
            order_id: Uuid::from_u128(7),
            amount_minor: 1250,
            currency: "EUR".to_owned(),
            payment_method: "pm_card_visa".to_owned(),
        }
    }

    async fn charge(
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        body: Value,
    ) -> Result<ChargeOutcome, GatewayError> {
        answering(status, headers, body).await.0.charge(&request()).await
    }

    fn error(kind: &str, code: &str) -> Value {
        json!({"error": {"type": kind, "code": code, "message": "Because."}})
    }

    #[tokio::test]
    async fn what_may_pass_is_transient() {
        for status in [408, 409, 424, 425, 429, 500, 502, 503, 504] {
            let error = charge(status, &[("retry-after", "3")], error("api_error", "x")).await.unwrap_err();
            let GatewayError::Transient { retry_after, source: Trouble::Answered { status: answered, .. }, .. } = error else {
                panic!("{status}: {error:?}")
            };
            assert_eq!((retry_after, answered), (Some(Duration::from_secs(3)), status));
        }
    }

    #[tokio::test]
    async fn what_will_not_pass_is_permanent() {
        for status in [400, 401, 402, 403, 404, 422] {
            let error = charge(status, &[], error("invalid_request_error", "amount_too_small")).await.unwrap_err();
            let GatewayError::Permanent { status: answered, code, message, .. } = error else { panic!("{status}: {error:?}") };
            assert_eq!((answered, code.as_str(), message.as_str()), (status, "amount_too_small", "Because."));
        }
    }

    #[tokio::test]
    async fn a_card_error_is_a_decline_and_not_a_failure() {
        let body = json!({"error": {"type": "card_error", "code": "card_declined", "decline_code": "lost_card", "message": "No."}});
        let declined = ChargeOutcome::Declined { code: "lost_card".to_owned(), message: "No.".to_owned() };
        assert_eq!(charge(402, &[], body).await.unwrap(), declined);
    }

    #[tokio::test]
    async fn answers_that_are_not_the_gateways_are_transient() {
        let error = charge(200, &[], json!("welcome")).await.unwrap_err();
        assert!(matches!(error, GatewayError::Transient { source: Trouble::Unreadable { status: 200, .. }, .. }), "{error:?}");
        let error = charge(502, &[("retry-after", "Fri, 20 Nov 2026 12:00:00 GMT")], json!("<html>")).await.unwrap_err();
        assert!(matches!(error, GatewayError::Transient { retry_after: None, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn an_unreachable_gateway_is_transient() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = gateway(&format!("http://{closed}")).charge(&request()).await.unwrap_err();
        assert!(matches!(error, GatewayError::Transient { source: Trouble::Network(_), .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_spent_key_makes_it_look_for_the_charge() {
        for (status, headers, kind) in
            [(400, &[][..], "idempotency_error"), (500, &[("idempotent-replayed", "true")][..], "api_error")]
        {
            let (gateway, asked) = answering(status, headers, error(kind, "x")).await;
            let failed = gateway.charge(&request()).await.unwrap_err();
            assert!(matches!(failed, GatewayError::Transient { .. }), "money may have moved, so it is no decline: {failed:?}");
            let asked = asked.lock().unwrap();
            assert_eq!(asked[..], ["/mounted/here/v1/payment_intents", "/mounted/here/v1/payment_intents/search"]);
        }
    }

    #[tokio::test]
    async fn an_intent_that_is_being_worked_on_is_asked_for_again() {
        let body = json!({"id": "pi_1", "status": "processing", "amount": 1250, "currency": "eur"});
        let (gateway, asked) = answering(200, &[], body).await;
        let error = gateway.charge(&request()).await.unwrap_err();
        assert!(matches!(error, GatewayError::Transient { source: Trouble::Undecided { .. }, .. }), "{error:?}");
        assert_eq!(asked.lock().unwrap()[1], "/mounted/here/v1/payment_intents/pi_1");
    }

    #[tokio::test]
    async fn an_intent_that_waits_for_the_cards_holder_is_cancelled_and_declined() {
        let body = json!({"id": "pi_1", "status": "requires_action", "amount": 1250, "currency": "eur"});
        let (gateway, asked) = answering(200, &[], body).await;
        let declined = gateway.charge(&request()).await.unwrap();
        assert!(matches!(&declined, ChargeOutcome::Declined { code, .. } if code == "authentication_required"), "{declined:?}");
        assert_eq!(asked.lock().unwrap()[1], "/mounted/here/v1/payment_intents/pi_1/cancel");
    }

    #[tokio::test]
    async fn without_a_search_all_charges_are_looked_through() {
        let (gateway, asked) = answering(404, &[], error("invalid_request_error", "")).await;
        let failed = gateway.find_charge(Uuid::from_u128(7)).await.unwrap_err();
        assert!(matches!(failed, GatewayError::Permanent { status: 404, .. }), "{failed:?}");
        assert_eq!(asked.lock().unwrap()[1], "/mounted/here/v1/payment_intents");
    }

    #[test]
    fn amounts_differ_from_iso_4217_where_stripe_says_so() {
        for (iso, currency, stripe) in [(1250, "EUR", 1250), (500, "JPY", 500), (5, "ISK", 500), (5, "UGX", 500), (1200, "MGA", 12)]
        {
            assert_eq!(to_stripe(iso, currency).unwrap(), stripe);
            assert_eq!(from_stripe(stripe, &currency.to_lowercase()), iso);
        }
        assert!(to_stripe(1, "MGA").is_err());
        assert!(to_stripe(i64::MAX, "ISK").is_err());
    }

    #[test]
    fn the_key_is_not_shown() {
        let shown = format!("{:?} {:?}", ApiKey::new("sk_live_secret"), gateway("http://127.0.0.1:1"));
        assert!(!shown.contains("sk_"), "{shown}");
        assert!(matches!(StripeGateway::new("mailto:a@b".parse().unwrap(), ApiKey::new("k")), Err(ClientError::Base)));
        assert!(matches!(StripeGateway::new("http://h".parse().unwrap(), ApiKey::new("k\n")), Err(ClientError::Key)));
    }
}
