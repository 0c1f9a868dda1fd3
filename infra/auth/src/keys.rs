//! The keys that callers' tokens are signed with: a JSON Web Key Set in a file or at a URL, read again as it changes.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use telemetry::health::Component;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, timeout},
};

/// How often the keys are read again: a key that was withdrawn is taken for no longer than this.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// A token of an unknown key makes us read the keys again, but no sooner than this after the last reading ended, however it did.
const REREAD_PAUSE: Duration = Duration::from_secs(5);
/// Most callers with a token of an unknown key who wait for the keys to be read again at the same time.
const REREAD_WAITING_MAX: usize = 64;
/// Pause before another attempt while there are no keys at all.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long reading the keys may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// What is wrong with a key set that is one.
const NO_USABLE_KEY: &str = "there is no key for EdDSA (Ed25519) or RS256 in the key set";
/// A key set longer than this is none.
const KEY_SET_BYTES_MAX: usize = 1024 * 1024;

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In this file.
    File(PathBuf),
    /// At this `http` or `https` URL.
    Url(String),
}

/// One key, and what it is good for.
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) decoding: DecodingKey,
}

/// A key set.
pub(crate) struct Keys(pub(crate) Vec<Key>);

impl Keys {
    /// Reads a key set. What is not for signatures with EdDSA or RS256 is passed over, and nothing may be left.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct KeySet {
            keys: Vec<Value>,
        }
        let set: KeySet = serde_json::from_slice(json).map_err(|error| format!("not a JSON Web Key Set: {error}"))?;
        // A key of a kind that we have never heard of is no reason to refuse the others.
        Ok(Self(set.keys.into_iter().filter_map(|key| key_of(&serde_json::from_value(key).ok()?)).collect()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn key_of(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        _ => return None,
    };
    let is_for_it = match jwk.common.key_algorithm {
        None => true,
        Some(KeyAlgorithm::EdDSA) => algorithm == Algorithm::EdDSA,
        Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
        Some(_) => false,
    };
    let is_for_signatures = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_it || !is_for_signatures || !verifies {
        return None;
    }
    Some(Key { id: jwk.common.key_id.clone(), algorithm, decoding: DecodingKey::from_jwk(jwk).ok()? })
}

/// The keys as they are now.
pub(crate) struct KeyRing {
    source: KeySource,
    http: Option<reqwest::Client>,
    keys: RwLock<Option<Arc<Keys>>>,
    /// When the last reading ended.
    last_read: watch::Sender<Option<Instant>>,
    /// Wakes [`refresh`](Self::refresh).
    wanted: Notify,
    waiting: Semaphore,
}

/// There were too many who wait for the keys to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyWait;

impl KeyRing {
    pub(crate) fn new(source: KeySource) -> Result<Self, String> {
        let http = match &source {
            KeySource::File(_) => None,
            KeySource::Url(_) => {
                // Somebody may have said so before.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let client = reqwest::Client::builder().timeout(READ_TIMEOUT).build();
                Some(client.map_err(|error| error.to_string())?)
            }
        };
        let (keys, last_read, wanted) = (RwLock::default(), watch::Sender::default(), Notify::new());
        Ok(Self { source, http, keys, last_read, wanted, waiting: Semaphore::new(REREAD_WAITING_MAX) })
    }

    /// The keys; `None` as long as they could not be read. Once they could, there may be none among them: all were withdrawn.
    pub(crate) fn current(&self) -> Option<Arc<Keys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the keys read again, unless that was done just now, and waits for it. All who ask meanwhile wait for the same
    /// reading, and nobody for longer than [`READ_TIMEOUT`]; more than [`REREAD_WAITING_MAX`] do not wait at all.
    ///
    /// The reading itself is done by [`refresh`](Self::refresh): it goes on if whoever asked for it goes away.
    pub(crate) async fn reread(&self) -> Result<(), TooManyWait> {
        let mut reads = self.last_read.subscribe();
        if reads.borrow_and_update().is_some_and(|ended| ended.elapsed() < REREAD_PAUSE) {
            return Ok(());
        }
        let _place = self.waiting.try_acquire().map_err(|_| TooManyWait)?;
        // If it is being read now, nobody hears this, and the end of that reading is waited for.
        self.wanted.notify_waiters();
        // The channel is never closed, and a reading that takes too long has failed.
        let _ = timeout(READ_TIMEOUT, reads.changed()).await;
        Ok(())
    }

    /// Keeps the keys fresh, and tells `health` whether there are any, for as long as it is polled.
    pub(crate) async fn refresh(self: Arc<Self>, health: Component) {
        loop {
            let read = timeout(READ_TIMEOUT, self.read()).await;
            match read.unwrap_or_else(|_| Err(format!("not done within {} s", READ_TIMEOUT.as_secs()))) {
                Ok(keys) => self.replace_with(keys),
                // Those that we have stay good: a key server that is away must not lock everybody out.
                Err(error) => tracing::warn!("the callers' keys could not be read: {error}"),
            }
            let pause = match self.current() {
                Some(keys) if !keys.is_empty() => {
                    health.ready();
                    REFRESH_INTERVAL
                }
                Some(_) => {
                    health.not_ready("every key of callers was withdrawn: there is no usable one in the key set (AUTH_JWKS)");
                    RETRY_PAUSE
                }
                None => {
                    health.not_ready("waiting for the callers' keys (AUTH_JWKS)");
                    RETRY_PAUSE
                }
            };
            let wanted = self.wanted.notified();
            self.last_read.send_replace(Some(Instant::now()));
            let _ = timeout(pause, wanted).await;
        }
    }

    /// A key that is in a key set no more is withdrawn, even if it was the last one. A service does not begin without any,
    /// though.
    fn replace_with(&self, keys: Keys) {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() {
            tracing::warn!("{NO_USABLE_KEY} of the callers (AUTH_JWKS)");
        }
        if current.is_some() || !keys.is_empty() {
            *current = Some(Arc::new(keys));
        }
    }

    async fn read(&self) -> Result<Keys, String> {
        match (&self.source, &self.http) {
            (KeySource::Url(url), Some(http)) => {
                let fetch = async {
                    let mut response = http.get(url).send().await?.error_for_status()?;
                    let mut body = Vec::new();
                    while let Some(chunk) = response.chunk().await? {
                        body.extend_from_slice(&chunk);
                        if body.len() > KEY_SET_BYTES_MAX {
                            break;
                        }
                    }
                    Ok(body)
                };
                let body = fetch.await.map_err(|error: reqwest::Error| error.without_url().to_string())?;
                if body.len() > KEY_SET_BYTES_MAX {
                    return Err(format!("the key set is longer than {KEY_SET_BYTES_MAX} bytes"));
                }
                Keys::parse(&body)
            }
            (KeySource::File(path), _) => {
                let read = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
                Keys::parse(&read)
            }
            (KeySource::Url(_), None) => Err("there is no client to fetch them with".to_owned()),
        }
    }
}

/// `AUTH_JWKS`: a URL, or a file that holds a key set now.
pub(crate) fn key_source(value: &str) -> Result<KeySource, String> {
    if value.contains("://") {
        return telemetry::settings::http_url(value).map(KeySource::Url);
    }
    let json = fs::read(value).map_err(|error| format!("the file with the callers' keys cannot be read: {error}"))?;
    if Keys::parse(&json)?.is_empty() {
        return Err(NO_USABLE_KEY.to_owned());
    }
    Ok(KeySource::File(value.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(keys: &Value) -> Result<Vec<(Option<String>, Algorithm)>, String> {
        let keys = Keys::parse(json!({ "keys": keys }).to_string().as_bytes())?;
        Ok(keys.0.into_iter().map(|key| (key.id, key.algorithm)).collect())
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let rsa =
            json!({"kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "key_ops": ["verify"], "n": "AQAB", "e": "AQAB"});
        let others = [
            json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-256", "kid": "ec", "x": "AQAB", "y": "AQAB"}),
            json!({"kty": "RSA", "kid": "pss", "alg": "PS256", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "RSA", "kid": "ops", "key_ops": ["encrypt"], "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "from the future", "kid": "?"}),
            json!("nothing at all"),
        ];
        let all: Vec<_> = others.iter().cloned().chain([ed, rsa]).collect();
        let expected = vec![(Some("ed".to_owned()), Algorithm::EdDSA), (Some("rsa".to_owned()), Algorithm::RS256)];
        assert_eq!(parse(&json!(all)), Ok(expected));
        assert_eq!(parse(&json!(others)), Ok(vec![]));
        assert!(Keys::parse(b"{}").is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, json!({ "keys": others }).to_string()).unwrap();
        let refused = key_source(file.path().to_str().unwrap());
        assert!(refused.is_err_and(|mistake| mistake.contains("there is no key")), "a service does not begin with none");
    }
}
