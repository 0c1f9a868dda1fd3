//! How often what happened, for `/metrics` and `/_control`.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// How a request under `/v1` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ending {
    /// A card was charged.
    Charged,
    /// A card was declined.
    Declined,
    /// A PaymentIntent was created without a charge.
    Unconfirmed,
    /// Money was given back.
    Refunded,
    /// An idempotency key was seen again, and its first answer was given again.
    Replayed,
    /// Something was looked up.
    Read,
    /// 4xx other than a decline or a key in use.
    Refused,
    /// 409: the idempotency key was in use.
    KeyInUse,
    /// 429: more requests in a second than are taken.
    TooMany,
    /// 500: an injected error, or a ledger file that cannot be written.
    Failed,
    /// 503: an outage.
    Unavailable,
}

const ENDINGS: [Ending; 11] = [
    Ending::Charged,
    Ending::Declined,
    Ending::Unconfirmed,
    Ending::Refunded,
    Ending::Replayed,
    Ending::Read,
    Ending::Refused,
    Ending::KeyInUse,
    Ending::TooMany,
    Ending::Failed,
    Ending::Unavailable,
];

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Charged => "charged",
            Self::Declined => "declined",
            Self::Unconfirmed => "unconfirmed",
            Self::Refunded => "refunded",
            Self::Replayed => "replayed",
            Self::Read => "read",
            Self::Refused => "refused",
            Self::KeyInUse => "key_in_use",
            Self::TooMany => "too_many",
            Self::Failed => "failed",
            Self::Unavailable => "unavailable",
        }
    }
}

impl EncodeLabelValue for Ending {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.name().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    ending: Ending,
}

/// The counts since the process started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    requests: Family<Labels, Counter>,
    lost_answers: Counter,
    in_flight: Gauge,
}

/// One request that is being worked on, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Counts {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("gateway_requests", "Requests to the gateway's API by how they ended", self.requests.clone());
        registry.register("gateway_requests_in_flight", "Requests that are being worked on", self.in_flight.clone());
        registry.register("gateway_lost_answers", "Requests that were carried out but not answered", self.lost_answers.clone());
    }

    /// Counts a request as in flight for as long as the result lives.
    pub(crate) fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(crate) fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    pub(crate) fn ended(&self, ending: Ending) {
        self.requests.get_or_create(&Labels { ending }).inc();
    }

    pub(crate) fn lost_answer(&self) {
        self.lost_answers.inc();
    }

    /// All counts by name, zeros included.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        let requests = ENDINGS.map(|ending| (ending.name().to_owned(), self.requests.get_or_create(&Labels { ending }).get()));
        let lost = ("lost_answers".to_owned(), self.lost_answers.get());
        requests.into_iter().chain([lost]).collect()
    }
}
