//! Stripe's PaymentIntents and Refunds over HTTP, or anything that speaks like them.
//!
//! Every request that moves money carries an idempotency key made from the order id, so each of these calls may be
//! repeated after any failure, by any process, and money moves once. Stripe forgets keys after 24 hours; what is older
//! than that is found by the order id in the metadata, which every charge carries.
//!
//! Stripe's search is eventually consistent: a charge shows up within a minute, during an incident later. So "not found"
//! right after a charge whose answer was lost does not mean "not charged". Repeating the charge under its key does tell,
//! at once; [`StripeGateway::find_charge`] is for orders that must not be charged any more.

mod amounts;
mod answers;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, time::Duration};

use reqwest::{
    Client, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
    redirect,
};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tracing::{error, warn};
use uuid::Uuid;

use self::{
    amounts::{from_stripe, to_stripe},
    answers::{Failed, Intent, Listed, Page, Refund, given_back, send},
};
use super::gateway::{
    ChargeOutcome, ChargeRequest, FoundCharge, GatewayError, MadeCharge, RefundOutcome, Statement, Trouble, is_about_the_request,
};

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
/// Pages of a hundred charges that are looked through where there is no search.
const PAGES_BY_HAND_MAX: usize = 100;

/// Idempotency keys of one refund: each is for one more request after one that was refused for good, within the day for which the gateway
/// repeats a refusal.
const REFUND_KEYS_MAX: u32 = 10;

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
                    Ok(Some(found)) if !found.refunded => {
                        Ok(ChargeOutcome::Captured { payment_intent_id: found.payment_intent_id })
                    }
                    // Money that somebody has given back pays for nothing; a refusal to look is no refusal to charge: money may have moved.
                    Ok(_) | Err(GatewayError::Permanent { .. }) => Err(answer.into_transient(CHARGE)),
                    Err(error) => Err(error),
                }
            }
            Err(failed) => Err(failed.classify(CHARGE)),
        }
    }

    /// Gives back `amount_minor` (in the order's currency as ISO 4217 has it) of an order's charge, once. If it was all
    /// given back before, by us or by hand, that refund is the outcome. One that the gateway has refused may be asked for
    /// again, once what was in its way is out of it.
    pub async fn refund(&self, order_id: Uuid, payment_intent_id: &str, amount_minor: i64) -> Result<RefundOutcome, GatewayError> {
        let key = format!("refund-{order_id}");
        self.refund_under(key, payment_intent_id, amount_minor, Some(order_id)).await
    }

    /// Gives back `amount_minor` of a charge that was one too many for its order: what is left of it, so the same amount is given back once.
    pub async fn refund_surplus(&self, payment_intent_id: &str, amount_minor: i64) -> Result<RefundOutcome, GatewayError> {
        let key = format!("refund-surplus-{payment_intent_id}-{amount_minor}");
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
        let wanted = to_stripe(amount_minor, &intent.currency)?;
        let amount = wanted.to_string();
        let order_id = order_id.map(|order_id| order_id.to_string());
        let mut params = vec![("payment_intent", payment_intent_id), ("amount", &amount)];
        params.extend(order_id.as_deref().map(|order_id| ("metadata[order_id]", order_id)));
        let mut attempt = 1;
        loop {
            let key = if attempt == 1 { key.clone() } else { format!("{key}-{attempt}") };
            let http = self.client.post(self.url("v1/refunds")).header("idempotency-key", key).form(&params);
            match send::<Refund>(REFUND, http).await {
                Ok(refund) if refund.counts() => return Ok(RefundOutcome { refund_id: refund.id }),
                Ok(refund) => {
                    return Err(GatewayError::Permanent {
                        operation: REFUND,
                        status: StatusCode::OK.as_u16(),
                        code: refund.status.clone(),
                        message: format!("refund {} is {}", refund.id, refund.status),
                    });
                }
                Err(Failed::Answer(answer)) if answer.already_refunded() || answer.key_is_stuck() => {
                    let refunds = self.refunds_of(REFUND, payment_intent_id).await?;
                    // The gateway says now that there is nothing left; of more refunds than it lists at once we could not tell.
                    let charged = if answer.already_refunded() && !answer.replayed { 0 } else { intent.amount };
                    return match given_back(refunds, wanted, charged) {
                        Some(refund) => Ok(RefundOutcome { refund_id: refund.id }),
                        None => Err(answer.into_transient(REFUND)),
                    };
                }
                // Nothing was given back under this key, and for a day the gateway only says so again.
                Err(Failed::Answer(answer)) if answer.is_old_refusal() && attempt < REFUND_KEYS_MAX => attempt += 1,
                Err(failed) => return Err(failed.classify(REFUND)),
            }
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
            intent = self.look_again(&intent).await?;
        }
        // Not at Stripe, which declines at once what is off session. Nobody shall answer the bank's question later.
        if intent.status == "requires_action" {
            match self.cancel(&intent.id).await {
                Ok(()) => {
                    return Ok(ChargeOutcome::Declined {
                        code: "authentication_required".to_owned(),
                        message: "The card needs its holder's confirmation.".to_owned(),
                    });
                }
                // Its holder was quicker, or it is cancelled already.
                Err(error) if error.is_about_the_request() => intent = self.look_again(&intent).await?,
                Err(error) => return Err(error),
            }
        }
        match intent.status.as_str() {
            "succeeded" => Ok(ChargeOutcome::Captured { payment_intent_id: intent.id }),
            "canceled" | "requires_payment_method" => {
                let reason = intent.last_payment_error.unwrap_or_default();
                Ok(reason.into_decline())
            }
            _ => Err(GatewayError::Transient {
                operation: CHARGE,
                retry_after: None,
                source: Trouble::Undecided { status: intent.status },
            }),
        }
    }

    /// What has become of `intent` since. A refusal to look is no refusal to charge: money may have moved.
    async fn look_again(&self, intent: &Intent) -> Result<Intent, GatewayError> {
        match self.look_up(CHARGE, self.intent_url(&intent.id)).await {
            Err(GatewayError::Permanent { operation, status, code, message }) if is_about_the_request(status, &code) => {
                let source = Trouble::Answered { status, code, message };
                Err(GatewayError::Transient { operation, retry_after: None, source })
            }
            looked_up => looked_up,
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
