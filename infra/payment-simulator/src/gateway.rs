//! How a request goes through the gateway: faults, idempotency, the ledger.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde_json::Value;
use time::OffsetDateTime;
use tracing::{error, info};
use uuid::Uuid;

use crate::{
    api_error::ApiError,
    counts::{Counts, Ending},
    faults::{Faults, strikes},
    journal::UsedKey,
    ledger::{Admission, Command, Ledger, Recorded, Refused, Stamp},
    payment_intent::Outcome,
};

/// This moment, and a new id.
#[expect(clippy::disallowed_methods, reason = "the gateway is an outside system: its clock and its ids are its own")]
pub(crate) fn stamp() -> Stamp {
    Stamp { at: OffsetDateTime::now_utc(), unique: Uuid::now_v7() }
}

/// What the client gets.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    /// Nothing: the connection is cut.
    Lost,
}

/// A status, a body, and what Stripe says in headers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) replayed: bool,
    pub(crate) retry_after_s: Option<u32>,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body, replayed: false, retry_after_s: None }
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        Self { status: error.status(), body: error.body(), replayed: false, retry_after_s: None }
    }
}

impl From<&Recorded> for Answer {
    /// A function of what is in the ledger only, so a replay is the same to the byte.
    fn from(recorded: &Recorded) -> Self {
        match recorded {
            Recorded::Intent(intent) => intent.decline_error().map_or_else(|| Self::ok(intent.object()), Self::from),
            Recorded::Refund(refund) => Self::ok(refund.object()),
        }
    }
}

/// The gateway. No lock is held across an await.
pub(crate) struct Gateway {
    ledger: Mutex<Ledger>,
    faults: Mutex<Faults>,
    /// Requests since then, within a second, while there is a limit.
    taken: Mutex<(Instant, u32)>,
    counts: Counts,
}

impl Gateway {
    pub(crate) fn new(ledger: Ledger) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::new(ledger),
            faults: Mutex::default(),
            taken: Mutex::new((Instant::now(), 0)),
            counts: Counts::default(),
        })
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        info!(?faults, "faults set");
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // The file is written before the memory, and a broken memory must not be written on: better no answers.
        self.ledger.lock().expect("no thread panics while it changes the ledger")
    }

    /// Looks something up, under the faults that are set.
    pub(crate) async fn read(&self, look_up: impl FnOnce(&Ledger) -> Result<Value, ApiError>) -> Reply {
        let _in_flight = self.counts.begin();
        let answer = match self.before().await {
            Err(answer) => answer,
            Ok(()) => match look_up(&self.ledger()) {
                Ok(body) => {
                    self.counts.ended(Ending::Read);
                    Answer::ok(body)
                }
                Err(error) => self.refuse(error),
            },
        };
        self.reply(answer)
    }

    /// Carries a command out once per idempotency key, under the faults that are set.
    pub(crate) async fn submit(&self, command: Command, idempotency: Option<UsedKey>) -> Reply {
        let _in_flight = self.counts.begin();
        if let Some(unavailable) = self.outage() {
            return self.reply(unavailable);
        }
        let admission = idempotency.as_ref().map_or(Admission::First, |used| self.ledger().admit(&used.key, &used.params));
        let key = idempotency.as_ref().map(|used| used.key.clone());
        let answer = match admission {
            Admission::First => match self.before().await {
                Ok(()) => self.execute(command, idempotency),
                Err(answer) => answer,
            },
            Admission::Replay(recorded) => match self.before().await {
                Ok(()) => {
                    self.counts.ended(Ending::Replayed);
                    Answer { replayed: true, ..Answer::from(&recorded) }
                }
                Err(answer) => answer,
            },
            Admission::InUse => {
                self.counts.ended(Ending::KeyInUse);
                return self.reply(ApiError::key_in_use(&key.unwrap_or_default()).into());
            }
            Admission::OtherParams => {
                let message = format!(
                    "Keys for idempotent requests can only be used with the same parameters they were first used \
                     with. Try using a key other than '{}' if you meant to execute a different request.",
                    key.unwrap_or_default()
                );
                return self.reply(self.refuse(ApiError::idempotency(message)));
            }
        };
        if let Some(key) = key {
            // Does nothing if the command has led to something.
            self.ledger().release(&key);
        }
        self.reply(answer)
    }

    /// What every request goes through before anything is done: an outage, the latency, an error.
    async fn before(&self) -> Result<(), Answer> {
        if let Some(unavailable) = self.outage() {
            return Err(unavailable);
        }
        let faults = self.faults();
        if faults.requests_per_s_max.is_some_and(|max| !self.takes_one_more(max)) {
            self.counts.ended(Ending::TooMany);
            return Err(Answer { retry_after_s: faults.retry_after_s, ..ApiError::too_many().into() });
        }
        if let Some(latency) = faults.latency_ms.draw() {
            tokio::time::sleep(latency).await;
        }
        if strikes(faults.error_rate) {
            return Err(self.fail("An error occurred internally with the gateway."));
        }
        Ok(())
    }

    /// Whether this second has room for one more request.
    fn takes_one_more(&self, max: u32) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.0.elapsed() >= Duration::from_secs(1) {
            *taken = (Instant::now(), 0);
        }
        taken.1 = taken.1.saturating_add(1);
        taken.1 <= max
    }

    fn execute(&self, command: Command, idempotency: Option<UsedKey>) -> Answer {
        let decline_anyway = strikes(self.faults().decline_rate);
        let executed = self.ledger().execute(command, idempotency, stamp(), decline_anyway);
        match executed {
            Ok(recorded) => {
                self.counts.ended(match &recorded {
                    Recorded::Intent(intent) => match intent.outcome {
                        Outcome::Succeeded => Ending::Charged,
                        Outcome::Declined(_) => Ending::Declined,
                        Outcome::Unconfirmed => Ending::Unconfirmed,
                    },
                    Recorded::Refund(_) => Ending::Refunded,
                });
                Answer::from(&recorded)
            }
            Err(Refused::Rejected(error)) => self.refuse(error),
            Err(Refused::NotWritten(cause)) => {
                error!(error = %cause, "cannot write the ledger file: {cause}");
                self.fail("The gateway cannot record anything at the moment.")
            }
        }
    }

    /// Answers a request that is wrong.
    pub(crate) fn refuse(&self, error: ApiError) -> Answer {
        self.counts.ended(Ending::Refused);
        error.into()
    }

    fn fail(&self, message: &str) -> Answer {
        self.counts.ended(Ending::Failed);
        Answer { retry_after_s: self.faults().retry_after_s, ..ApiError::internal(message).into() }
    }

    /// The answer to every request while the gateway is down.
    pub(crate) fn outage(&self) -> Option<Answer> {
        let faults = self.faults();
        if !faults.outage {
            return None;
        }
        self.counts.ended(Ending::Unavailable);
        Some(Answer { retry_after_s: faults.retry_after_s, ..ApiError::unavailable().into() })
    }

    /// The answer, unless it gets lost.
    fn reply(&self, answer: Answer) -> Reply {
        if strikes(self.faults().lost_answer_rate) {
            self.counts.lost_answer();
            Reply::Lost
        } else {
            Reply::Answer(answer)
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("faults", &self.faults()).finish_non_exhaustive()
    }
}
