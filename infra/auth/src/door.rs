//! Where every caller is asked who they are.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use axum::http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use telemetry::{health::Health, metrics::Metrics};
use tokio::task::JoinSet;

use crate::{
    access::Caller,
    keys::KeyRing,
    rate::{Limiter, whole_seconds},
    settings::AuthSettings,
    token::{TokenError, Tokens},
};

/// How often callers who do not come any more are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Asks callers who they are. Clones share what they know.
#[derive(Clone)]
pub struct Door {
    kind: Arc<Kind>,
    refusals: Family<Labels, Counter>,
}

/// A few values, so that a caller cannot make the metrics grow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

enum Kind {
    Open,
    Kept {
        tokens: Tokens,
        limiter: Arc<Limiter>,
        /// Ends with the last clone.
        _upkeep: JoinSet<()>,
    },
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.kind {
            Kind::Open => "Door (open)",
            Kind::Kept { .. } => "Door (kept)",
        })
    }
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// They did not say who they are.
    #[error("a bearer token is needed: send the header Authorization: Bearer …")]
    NoToken,
    /// They did, but it is not to be believed; the text says why.
    #[error("the bearer token is not accepted: {0}")]
    BadToken(String),
    /// They come too often.
    #[error("too many requests: this caller may come again in {retry_after_s} s")]
    TooOften {
        /// When to come again.
        retry_after_s: NonZeroU64,
    },
    /// It cannot be told now.
    #[error("the keys to check callers with cannot be reached now")]
    Unavailable,
}

impl Refused {
    /// The status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken(_) => StatusCode::UNAUTHORIZED,
            Self::TooOften { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::BadToken(_) => "bad_token",
            Self::TooOften { .. } => "too_often",
            Self::Unavailable => "no_keys",
        }
    }

    /// The headers that go with it: how to say who one is (RFC 6750, section 3), or when to come again.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        let (name, value) = match self {
            Self::NoToken => (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"contrail\"")),
            Self::BadToken(_) => (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"contrail\", error=\"invalid_token\"")),
            Self::TooOften { retry_after_s } => (RETRY_AFTER, retry_after_s.get().into()),
            Self::Unavailable => (RETRY_AFTER, HeaderValue::from_static("1")),
        };
        headers.insert(name, value);
    }
}

impl Door {
    /// Nobody is asked.
    pub fn open() -> Self {
        Self::of(Kind::Open)
    }

    /// As the settings say. `health` learns whether callers can be checked. Must be called on a tokio runtime, which is where the keys
    /// are kept fresh.
    pub fn new(settings: AuthSettings, health: &Health) -> Result<Self, String> {
        let AuthSettings::Keys { source, audience, issuer, limits } = settings else { return Ok(Self::open()) };
        let ring = Arc::new(KeyRing::new(source)?);
        let limiter = Arc::new(Limiter::new(limits));
        let mut upkeep = JoinSet::new();
        let component = health.component("auth");
        component.not_ready("waiting for the callers' keys (AUTH_JWKS)");
        upkeep.spawn(Arc::clone(&ring).refresh(component));
        upkeep.spawn({
            let limiter = Arc::clone(&limiter);
            async move {
                loop {
                    tokio::time::sleep(FORGET_INTERVAL).await;
                    limiter.forget_idle();
                }
            }
        });
        Ok(Self::of(Kind::Kept { tokens: Tokens::new(ring, audience, issuer), limiter, _upkeep: upkeep }))
    }

    fn of(kind: Kind) -> Self {
        Self { kind: Arc::new(kind), refusals: Family::default() }
    }

    /// Has `metrics` tell how many were not let in, and why.
    pub fn tell_refusals(&self, metrics: &Metrics) {
        let help = "Callers who were not let in, by reason: no_token, bad_token, too_often, no_keys";
        // What never happened is zero: where there is nothing at all, no rate can be told from its first increase.
        for refused in [
            Refused::NoToken,
            Refused::BadToken(String::new()),
            Refused::TooOften { retry_after_s: NonZeroU64::MIN },
            Refused::Unavailable,
        ] {
            self.refusals.get_or_create_owned(&Labels { reason: refused.reason() });
        }
        metrics.register(|registry| registry.register("auth_refusals", help, self.refusals.clone()));
    }

    /// Who sent a request with these headers, which counts as one of theirs.
    pub async fn ask(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        self.ask_for(bearer(headers)).await
    }

    /// Whose token that is; asking counts as a request of theirs.
    pub async fn ask_for(&self, token: Result<&str, Refused>) -> Result<Caller, Refused> {
        let Kind::Kept { tokens, .. } = &*self.kind else { return Ok(Caller::anyone()) };
        let token = token.map_err(|refused| self.refuse(refused))?;
        let caller = tokens.check(token).await.map_err(|error| match error {
            TokenError::Invalid(reason) => self.refuse(Refused::BadToken(reason)),
            TokenError::NoKeys => self.refuse(Refused::Unavailable),
        })?;
        self.count(&caller)?;
        Ok(caller)
    }

    /// Counts one more request of somebody who is in already.
    pub fn count(&self, caller: &Caller) -> Result<(), Refused> {
        let Kind::Kept { limiter, .. } = &*self.kind else { return Ok(()) };
        limiter.count(caller).map_err(|wait| {
            self.refuse(Refused::TooOften { retry_after_s: NonZeroU64::new(whole_seconds(wait)).unwrap_or(NonZeroU64::MIN) })
        })
    }

    /// Counts one more request of somebody who is in already, once they may make one more. Nobody is refused by that. Whoever waits looks again
    /// every second, so that their other requests come through, too.
    pub async fn turn(&self, caller: &Caller) {
        let Kind::Kept { limiter, .. } = &*self.kind else { return };
        while let Err(wait) = limiter.count(caller) {
            tokio::time::sleep(wait.max(Duration::from_secs(1))).await;
        }
    }

    fn refuse(&self, refused: Refused) -> Refused {
        self.refusals.get_or_create(&Labels { reason: refused.reason() }).inc();
        refused
    }
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refused::NoToken)?;
    let malformed = || Refused::BadToken("Authorization must be one header of the form Bearer …".to_owned());
    if values.next().is_some() {
        return Err(malformed());
    }
    token_of(value.to_str().map_err(|_| malformed())?).ok_or_else(malformed)
}

/// The token in `Bearer …`; the scheme in any case (RFC 9110, section 11.1).
pub fn token_of(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_or_asked_for() {
        let headers = |values: &[&str]| values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect::<HeaderMap>();
        assert_eq!(bearer(&headers(&["Bearer a.b.c"])), Ok("a.b.c"));
        assert_eq!(bearer(&headers(&["bearer  a.b.c "])), Ok("a.b.c"));
        assert_eq!(bearer(&headers(&[])), Err(Refused::NoToken));
        for bad in [&["Basic YTpi"][..], &["Bearer"], &["Bearer "], &["Bearer a b"], &["Bearer a", "Bearer b"]] {
            assert!(matches!(bearer(&headers(bad)), Err(Refused::BadToken(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_would_help() {
        let headers = |refused: &Refused| {
            let mut headers = HeaderMap::new();
            refused.add_headers(&mut headers);
            headers
        };
        let bad = Refused::BadToken("it has expired".to_owned());
        assert_eq!(
            (bad.status(), &headers(&bad)["www-authenticate"]),
            (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("Bearer realm=\"contrail\", error=\"invalid_token\""))
        );
        let often = Refused::TooOften { retry_after_s: NonZeroU64::MIN };
        assert_eq!(
            (often.status(), &headers(&often)["retry-after"]),
            (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from_static("1"))
        );
    }
}
