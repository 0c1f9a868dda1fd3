//! Faults on demand.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest latency that can be asked for.
const LATENCY_MS_MAX: u64 = 600_000;

/// The longest lag of the search that can be asked for: a day.
const SEARCH_LAG_MS_MAX: u64 = 86_400_000;

/// What goes wrong at the gateway from now on. Everything that is left out is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How long a request under `/v1` takes at least.
    pub latency_ms: Latency,
    /// The share of requests (0 to 1) that are answered 500 before anything was done.
    pub error_rate: f64,
    /// The share of requests (0 to 1) that are carried out, and then the connection is cut instead of an answer.
    pub lost_answer_rate: f64,
    /// Every request is answered 503.
    pub outage: bool,
    /// How long after it was made a PaymentIntent is found by search, in milliseconds. At Stripe it takes up to a minute, in an incident longer.
    pub search_lag_ms: u64,
    /// The share of charges (0 to 1) that are declined although the card is good.
    pub decline_rate: f64,
    /// How many requests are taken in a second; more are answered 429 before anything was done. At Stripe 25 or 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s_max: Option<u32>,
    /// The `Retry-After` header, in seconds, of every 429, 500 and 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

/// A latency in milliseconds: a number, or a range in which every request gets a random one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Latency {
    /// The same for every request.
    Fixed(u64),
    /// Both ends are included.
    Between {
        /// The shortest.
        min: u64,
        /// The longest.
        max: u64,
    },
}

impl Default for Latency {
    fn default() -> Self {
        Self::Fixed(0)
    }
}

impl Latency {
    fn ends(self) -> (u64, u64) {
        match self {
            Self::Fixed(ms) => (ms, ms),
            Self::Between { min, max } => (min, max),
        }
    }

    /// The latency of one request; none if it is zero.
    pub(crate) fn draw(self) -> Option<Duration> {
        let (min, max) = self.ends();
        if max == 0 {
            return None;
        }
        // The bias of a remainder does not matter for less than 2^20 values out of 2^64.
        let ms = min + random() % (max - min + 1);
        Some(Duration::from_millis(ms))
    }
}

impl Faults {
    /// Everything that is wrong with these settings; empty if they can be used.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let rates =
            [("error_rate", self.error_rate), ("lost_answer_rate", self.lost_answer_rate), ("decline_rate", self.decline_rate)];
        let mut mistakes: Vec<_> = rates
            .into_iter()
            .filter(|(_, rate)| !(0.0..=1.0).contains(rate))
            .map(|(name, _)| format!("{name} must be between 0 and 1"))
            .collect();
        let (min, max) = self.latency_ms.ends();
        if min > max {
            mistakes.push("latency_ms: min must not be greater than max".to_owned());
        }
        if max > LATENCY_MS_MAX {
            mistakes.push(format!("latency_ms must be at most {LATENCY_MS_MAX}"));
        }
        if self.search_lag_ms > SEARCH_LAG_MS_MAX {
            mistakes.push(format!("search_lag_ms must be at most {SEARCH_LAG_MS_MAX}"));
        }
        mistakes
    }
}

/// True for this share of the calls (0 never, 1 always).
pub(crate) fn strikes(rate: f64) -> bool {
    // 53 random bits make a uniform number in [0, 1) without rounding.
    #[expect(clippy::cast_precision_loss, reason = "a number below 2^53 is exact in an f64")]
    let draw = (random() >> 11) as f64 / (1_u64 << 53) as f64;
    rate > 0.0 && draw < rate
}

fn random() -> u64 {
    getrandom::u64().expect("the system has a source of random numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> Result<Faults, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn latency_is_a_number_or_a_range() {
        let fixed = faults(r#"{"latency_ms":20}"#).expect("valid");
        assert_eq!(fixed.latency_ms.draw(), Some(Duration::from_millis(20)));
        let range = faults(r#"{"latency_ms":{"min":5,"max":7}}"#).expect("valid");
        for _ in 0..100 {
            let drawn = range.latency_ms.draw().expect("not zero").as_millis();
            assert!((5..=7).contains(&drawn));
        }
        assert_eq!(Faults::default().latency_ms.draw(), None);
    }

    #[test]
    fn mistakes_are_all_listed() {
        let wrong = r#"{"latency_ms":{"min":9,"max":7},"error_rate":1.5,"decline_rate":-0.1}"#;
        assert_eq!(
            faults(wrong).expect("well-formed").mistakes(),
            [
                "error_rate must be between 0 and 1",
                "decline_rate must be between 0 and 1",
                "latency_ms: min must not be greater than max"
            ]
        );
        assert!(faults(r#"{"eror_rate":1}"#).is_err());
    }

    #[test]
    fn certain_and_impossible_faults_are_that() {
        assert!((0..1_000).all(|_| strikes(1.0)));
        assert!(!(0..1_000).any(|_| strikes(0.0)));
    }
}
