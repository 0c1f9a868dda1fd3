//! Where ended spans wait until they are sent.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_sdk::trace::SpanData;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::ConstCounter,
};
use tokio::sync::{mpsc, oneshot};

use super::{export, sampler::Sampler, settings::TraceSettings};
use crate::metrics::Metrics;

/// Ended spans that wait to be sent; about 1 KiB each. More than that are dropped, and counted.
const WAITING_MAX: usize = 16_384;
/// How long the last spans may take when the process ends.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

static RECORDER: OnceLock<Recorder> = OnceLock::new();

#[derive(Debug)]
struct Recorder {
    sampler: Sampler,
    waiting: mpsc::Sender<SpanData>,
}

/// What became of ended spans.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
}

static COUNTS: Counts = Counts { sent: AtomicU64::new(0), dropped: AtomicU64::new(0) };

/// Whether anything is recorded.
pub fn is_on() -> bool {
    RECORDER.get().is_some()
}

/// Which traces are recorded; `None` if none is.
pub(super) fn sampler() -> Option<&'static Sampler> {
    RECORDER.get().map(|recorder| &recorder.sampler)
}

pub(super) fn record(span: SpanData) {
    if let Some(recorder) = RECORDER.get()
        && recorder.waiting.try_send(span).is_err()
    {
        COUNTS.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends what is left when the process ends.
#[derive(Debug)]
#[must_use = "the last spans are lost unless they are flushed"]
pub struct Flush(Option<oneshot::Sender<oneshot::Sender<()>>>);

impl Flush {
    /// Sends what has ended so far, if that takes no longer than 3 s.
    pub async fn finish(self) {
        let Some(ask) = self.0 else { return };
        let (done, is_done) = oneshot::channel();
        if ask.send(done).is_ok() {
            // However it ends, there is no more to be done about it.
            let _ = tokio::time::timeout(FLUSH_DEADLINE, is_done).await;
        }
    }
}

/// Begins to record and send spans of `service`, if `settings` name a collector. The first call in a process decides.
///
/// Must be called on a tokio runtime. A collector that is away costs spans, never requests.
pub fn start(service: &'static str, settings: Option<TraceSettings>, metrics: &Metrics) -> Flush {
    metrics.register(|registry| registry.register_collector(Box::new(SpanCounts)));
    let Some(settings) = settings else { return Flush(None) };
    let (waiting, spans) = mpsc::channel(WAITING_MAX);
    if RECORDER.set(Recorder { sampler: settings.sampler, waiting }).is_err() {
        return Flush(None);
    }
    let (ask, asked) = oneshot::channel();
    tokio::spawn(export::run(service, settings, spans, asked, &COUNTS));
    Flush(Some(ask))
}

#[derive(Debug)]
struct SpanCounts;

impl Collector for SpanCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "trace_spans",
            "Ended spans, by whether the collector has them.",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for (outcome, count) in [("sent", &COUNTS.sent), ("dropped", &COUNTS.dropped)] {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        Ok(())
    }
}
