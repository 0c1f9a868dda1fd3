//! Whether a token is good, and whose it is.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Validation, errors::ErrorKind};
use serde::Deserialize;

use crate::{
    access::{Caller, Role, now},
    keys::{KeyRing, Keys, TooManyWait},
};

/// A longer token is not looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// A subject is an id, not a story; a customer's id has no more characters either.
const SUBJECT_CHARS_MAX: usize = 128;
/// How far ahead the clock of whoever issued the token may be.
const NOT_BEFORE_LEEWAY_S: f64 = 30.0;
/// Tokens that were checked and are remembered, so that a caller's next request costs no signature check.
const REMEMBERED_MAX: usize = 4_096;

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("{0}")]
    Invalid(String),
    /// The keys to check it with could not be read yet, or too many wait for them to be read again.
    #[error("the callers' keys could not be read yet")]
    NoKeys,
}

fn invalid(reason: impl Into<String>) -> TokenError {
    TokenError::Invalid(reason.into())
}

/// What is read of a token besides what `jsonwebtoken` checks itself.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    role: String,
    /// Seconds, possibly with a fraction (RFC 7519, section 2).
    exp: f64,
    nbf: Option<f64>,
}

/// Checks tokens.
pub(crate) struct Tokens {
    pub(crate) ring: Arc<KeyRing>,
    audience: String,
    issuer: Option<String>,
    remembered: Mutex<Remembered>,
}

/// Tokens that were good, by their text, and the keys by which they were.
#[derive(Default)]
struct Remembered {
    keys: Option<Arc<Keys>>,
    callers: HashMap<String, Caller>,
}

impl Remembered {
    fn is_by(&self, keys: &Arc<Keys>) -> bool {
        self.keys.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys))
    }
}

impl Tokens {
    pub(crate) fn new(ring: Arc<KeyRing>, audience: String, issuer: Option<String>) -> Self {
        crate::rings::install();
        Self { ring, audience, issuer, remembered: Mutex::default() }
    }

    /// Whose token that is. Known at once, but for one of a key that is not known: then the keys may be read again first, for
    /// which nobody waits longer than one reading may take.
    pub(crate) async fn check(&self, token: &str) -> Result<Caller, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid(format!("it is longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let keys = self.ring.current().ok_or(TokenError::NoKeys)?;
        if let Some(caller) = self.recall(token, &keys) {
            return Ok(caller);
        }
        let (caller, keys) = match self.verify(token, &keys) {
            // The key may be newer than what we have.
            Err(Unverified::UnknownKey) => {
                self.ring.reread().await.map_err(|TooManyWait| TokenError::NoKeys)?;
                let keys = self.ring.current().ok_or(TokenError::NoKeys)?;
                (self.verify(token, &keys).map_err(Unverified::into_error)?, keys)
            }
            outcome => (outcome.map_err(Unverified::into_error)?, keys),
        };
        self.remember(token, &keys, &caller);
        Ok(caller)
    }

    fn verify(&self, token: &str, keys: &Keys) -> Result<Caller, Unverified> {
        let refuse = |reason: &str| Unverified::Invalid(reason.to_owned());
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| refuse("it is not a JSON Web Token that is signed with EdDSA or RS256"))?;
        // RFC 7515, section 4.1.11: whoever does not know an extension that is critical must refuse the token.
        if header.crit.is_some() {
            return Err(refuse("it has critical extensions that are not known here"));
        }
        let id_fits = |id: Option<&str>| header.kid.is_none() || id == header.kid.as_deref();
        let mut candidates = keys.0.iter().filter(|key| id_fits(key.id.as_deref()) && key.algorithm == header.alg).peekable();
        if candidates.peek().is_none() {
            return Err(Unverified::UnknownKey);
        }
        let mut last = Unverified::UnknownKey;
        for key in candidates {
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation(key.algorithm)) {
                Ok(good) => return caller(&good.claims).map_err(Unverified::Invalid),
                Err(error) => last = Unverified::Invalid(in_words(error.kind())),
            }
        }
        Err(last)
    }

    fn validation(&self, algorithm: jsonwebtoken::Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.set_audience(&[&self.audience]);
        let mut required = HashSet::from(["exp", "aud", "sub"].map(str::to_owned));
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.insert("iss".to_owned());
        }
        validation.required_spec_claims = required;
        validation
    }

    /// Whose it is, if it was good with these keys before and has not expired since.
    fn recall(&self, token: &str, keys: &Arc<Keys>) -> Option<Caller> {
        let mut remembered = self.remembered();
        // With other keys it may not be good any more.
        if !remembered.is_by(keys) {
            *remembered = Remembered { keys: Some(Arc::clone(keys)), callers: HashMap::new() };
        }
        let caller = remembered.callers.get(token)?;
        if caller.expires_in().is_some_and(|left| left.is_zero()) {
            remembered.callers.remove(token);
            return None;
        }
        Some(caller.clone())
    }

    /// Remembers whose it is, unless other keys came in since it was checked with these: with those it may not be good.
    fn remember(&self, token: &str, keys: &Arc<Keys>, caller: &Caller) {
        let mut remembered = self.remembered();
        if !remembered.is_by(keys) {
            return;
        }
        if remembered.callers.len() >= REMEMBERED_MAX {
            remembered.callers.clear();
        }
        remembered.callers.insert(token.to_owned(), caller.clone());
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Unverified {
    UnknownKey,
    Invalid(String),
}

impl Unverified {
    fn into_error(self) -> TokenError {
        match self {
            Self::UnknownKey => invalid("its key is not one of those that callers' tokens are signed with"),
            Self::Invalid(reason) => invalid(reason),
        }
    }
}

fn caller(claims: &Claims) -> Result<Caller, String> {
    let role: Role = claims.role.parse().map_err(|mistake| format!("its role {mistake}"))?;
    let is_id = (1..=SUBJECT_CHARS_MAX).contains(&claims.sub.len()) && claims.sub.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_id {
        return Err(format!("its sub must be 1 to {SUBJECT_CHARS_MAX} visible ASCII characters"));
    }
    let since_epoch = now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    if claims.nbf.is_some_and(|not_before| not_before > since_epoch + NOT_BEFORE_LEEWAY_S) {
        return Err("it is not valid yet".to_owned());
    }
    let expires_at = Duration::try_from_secs_f64(claims.exp).ok().and_then(|exp| SystemTime::UNIX_EPOCH.checked_add(exp));
    let expires_at = expires_at.ok_or("its exp is no time")?;
    if expires_at <= now() {
        return Err("it has expired".to_owned());
    }
    Ok(Caller::new(role, &claims.sub, expires_at))
}

fn in_words(error: &ErrorKind) -> String {
    match error {
        ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::InvalidAudience => "it is for another audience".to_owned(),
        ErrorKind::InvalidIssuer => "it is from another issuer".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            format!("its claim {claim} is missing or malformed")
        }
        ErrorKind::Json(_) => "its claims need a sub, a role and an exp".to_owned(),
        _ => "it is malformed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::KeySource;

    #[test]
    fn a_token_that_was_checked_with_old_keys_is_not_remembered_by_new_ones() {
        let ring = KeyRing::new(KeySource::File("none".into())).unwrap();
        let tokens = Tokens::new(Arc::new(ring), "contrail".to_owned(), None);
        let [old, new] = [(); 2].map(|()| Arc::new(Keys(Vec::new())));
        let caller = Caller::new(Role::Service, "checkout", now() + Duration::from_secs(60));
        assert!(tokens.recall("token", &old).is_none());
        // While one request checks it with the old keys, another one comes with the new ones.
        assert!(tokens.recall("another", &new).is_none());
        tokens.remember("token", &old, &caller);
        assert!(tokens.recall("token", &new).is_none());
        tokens.remember("token", &new, &caller);
        assert!(tokens.recall("token", &new).is_some());
    }
}
