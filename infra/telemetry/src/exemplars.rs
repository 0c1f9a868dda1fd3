//! Exemplars: beside how long requests take, the trace of one that took so long.

use std::fmt;

use axum::http::HeaderMap;
use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::exemplar::HistogramWithExemplars,
};

/// A histogram that names, for each of its buckets, the trace of the last request that fell into it.
pub type TracedHistogram = HistogramWithExemplars<TraceId>;

/// The id of a distributed trace, as the label `trace_id` of an exemplar: 32 digits, hexadecimal and in lower case (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// The trace that a request with these headers belongs to; none, if it does not say.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get("traceparent")?.to_str().ok()?.trim().split('-').nth(1)?)
    }

    /// The id that is written like this; none, if that is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 32] = text.as_bytes().try_into().ok()?;
        let is_id = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) && digits != [b'0'; 32];
        is_id.then_some(Self(digits))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("digits are ASCII")
    }
}

impl EncodeLabelSet for TraceId {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        [("trace_id", self.as_str())].encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_trace_is_that_of_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceId::of(&headers), None);
        headers.insert("traceparent", format!("00-{ID}-00f067aa0ba902b7-01").parse().unwrap());
        assert_eq!(TraceId::of(&headers).unwrap().as_str(), ID);
        for wrong in ["", "00", "00-x-00f067aa0ba902b7-01", &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))] {
            headers.insert("traceparent", wrong.parse().unwrap());
            assert_eq!(TraceId::of(&headers), None, "{wrong:?}");
        }
        assert_eq!(TraceId::parse(&ID.to_uppercase()), None);
    }

    #[test]
    fn an_exemplar_is_told_to_those_who_know_exemplars() {
        let metrics = Metrics::new("test");
        let durations = TracedHistogram::new([0.1, 1.0].into_iter());
        metrics.register(|registry| registry.register("wait_seconds", "Waits", durations.clone()));
        durations.observe(0.5, TraceId::parse(ID), None);
        durations.observe(0.05, None, None);
        let sample = format!("\nwait_seconds_bucket{{le=\"1.0\"}} 2 # {{trace_id=\"{ID}\"}} 0.5\n");
        assert!(metrics.openmetrics().contains(&sample), "{}", metrics.openmetrics());
        assert!(!metrics.plain_text().contains(ID));
    }
}
