//! Trying again, as a checkout does: the same request with the same key, for as long as the customer waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::time::{Instant, sleep};

use crate::random::Random;

/// Pause before the second try; doubles up to [`PAUSE_MAX`], with jitter.
const PAUSE: Duration = Duration::from_millis(25);
/// Longest pause between two tries, whatever the server asks for.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why there is no answer that one could use.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// The server understood and said no; trying again would not help.
    #[error("{method_and_url} was refused with {status}: {body}")]
    Refused {
        /// What was asked.
        method_and_url: String,
        /// The HTTP status.
        status: u16,
        /// The answer's body.
        body: String,
    },
    /// No try within the deadline was answered.
    #[error("{method_and_url} was not answered in {tries} tries; the last one: {last}")]
    GaveUp {
        /// What was asked.
        method_and_url: String,
        /// How often.
        tries: u32,
        /// What came of the last try.
        last: String,
    },
    /// The answer is not what the interface promises.
    #[error("{method_and_url} answered what cannot be read: {body}")]
    Malformed {
        /// What was asked.
        method_and_url: String,
        /// The answer's body.
        body: String,
        /// What the JSON reader said.
        #[source]
        source: serde_json::Error,
    },
}

impl ShopError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::GaveUp { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// What was tried in vain, and made good by trying again.
#[derive(Debug, Default)]
pub(super) struct Vain {
    put_off: AtomicU64,
    failed: Mutex<Vec<String>>,
}

/// What was tried in vain so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VainTries {
    /// Tries answered 503 with `Retry-After`: come again.
    pub put_off: u64,
    /// What came of the others: no answer, or a 503 that does not say when.
    pub failed: Vec<String>,
}

impl Vain {
    pub(super) fn so_far(&self) -> VainTries {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        VainTries { put_off: self.put_off.load(Ordering::Relaxed), failed }
    }

    fn count(&self, method_and_url: &str, outcome: &str, retry_after: Option<Duration>) {
        if retry_after.is_some() {
            self.put_off.fetch_add(1, Ordering::Relaxed);
        } else {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push(format!("{method_and_url}: {outcome}"));
        }
    }
}

/// Sends `request`, again after a failed connection, a timeout or a 503, until it is answered otherwise. `jitter` makes the
/// pauses of different requests different.
pub(super) async fn send(request: RequestBuilder, patience: Duration, jitter: &str, vain: &Vain) -> Result<Answered, ShopError> {
    let method_and_url = describe(&request);
    let ends = Instant::now() + patience;
    let mut random = Random::new(jitter.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte)));
    let mut ceiling = PAUSE;
    for tries in 1.. {
        let one_try = request.try_clone().expect("a body that is text can be sent again").send();
        let (last, retry_after) = match read(one_try.await).await {
            Ok(answered) if answered.status == StatusCode::SERVICE_UNAVAILABLE => {
                (format!("503 {}", answered.body), answered.retry_after)
            }
            Ok(answered) => return Ok(Answered { method_and_url, ..answered }),
            Err(error) => (chain(&error), None),
        };
        vain.count(&method_and_url, &last, retry_after);
        let jittered =
            ceiling.mul_f64(0.5) + Duration::from_micros(random.below(u64::try_from(ceiling.as_micros() / 2).unwrap_or(1)));
        let pause = retry_after.map_or(jittered, |asked| asked.max(jittered)).min(PAUSE_MAX);
        if Instant::now() + pause > ends {
            return Err(ShopError::GaveUp { method_and_url, tries, last });
        }
        sleep(pause).await;
        ceiling = (ceiling * 2).min(PAUSE_MAX);
    }
    unreachable!("the loop ends at the deadline at the latest")
}

/// One answer, completely read.
pub(super) struct Answered {
    pub(super) method_and_url: String,
    pub(super) status: StatusCode,
    pub(super) replayed: bool,
    pub(super) body: String,
    retry_after: Option<Duration>,
}

impl Answered {
    /// The JSON body of a 2xx answer.
    pub(super) fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, ShopError> {
        let Self { method_and_url, status, body, .. } = self;
        if !status.is_success() {
            return Err(ShopError::Refused { method_and_url, status: status.as_u16(), body });
        }
        serde_json::from_str(&body).map_err(|source| ShopError::Malformed { method_and_url, body, source })
    }
}

/// A connection that breaks within the body is as good as none.
async fn read(sent: Result<Response, reqwest::Error>) -> Result<Answered, reqwest::Error> {
    let response = sent?;
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let replayed = header("idempotent-replayed") == Some("true");
    let body = response.text().await?;
    Ok(Answered { method_and_url: String::new(), status, replayed, body, retry_after })
}

fn describe(request: &RequestBuilder) -> String {
    match request.try_clone().map(RequestBuilder::build) {
        Some(Ok(request)) => format!("{} {}", request.method(), request.url()),
        _ => "a request".to_owned(),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
