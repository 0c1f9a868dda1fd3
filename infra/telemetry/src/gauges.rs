//! Gauges that are looked at when somebody asks for them, and so are true whatever the process is busy with.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, TypedMetric},
};

/// A gauge with the value that a function returns. It is called on every scrape, so it must be quick and must not block.
#[derive(Clone)]
pub struct Reading(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Reading {
    /// A gauge that shows what `read` returns.
    pub fn new(read: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// A gauge that shows how many `count` returns.
    pub fn count(count: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self::new(move || u32::try_from(count()).map_or(f64::INFINITY, f64::from))
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reading").field(&(self.0)()).finish()
    }
}

impl TypedMetric for Reading {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Reading {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&(self.0)())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A gauge of how many seconds ago something began that has not ended yet; 0 while there is no such thing. Clones are the same gauge.
///
/// It keeps when that was, and not how long ago. So it goes on to grow when nobody can tell it any more.
#[derive(Clone, Debug)]
pub struct Age {
    /// In milliseconds since 1970; [`NOTHING`] if there is no such thing.
    since_ms: Arc<AtomicI64>,
}

const NOTHING: i64 = i64::MAX;

impl Default for Age {
    fn default() -> Self {
        Self { since_ms: Arc::new(AtomicI64::new(NOTHING)) }
    }
}

impl Age {
    /// It began at `since`; or there is no such thing any more.
    pub fn set(&self, since: Option<SystemTime>) {
        self.since_ms.store(since.map_or(NOTHING, unix_ms), Ordering::Relaxed);
    }

    /// It has begun now, unless it had begun already.
    pub fn begin(&self) {
        let _ = self.since_ms.compare_exchange(NOTHING, unix_ms(now()), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How long ago that was. Never negative, even where another host's clock is ahead of this one's.
    pub fn elapsed(&self) -> Duration {
        let elapsed_ms = unix_ms(now()).saturating_sub(self.since_ms.load(Ordering::Relaxed));
        Duration::from_millis(u64::try_from(elapsed_ms).unwrap_or(0))
    }
}

#[expect(clippy::disallowed_methods, reason = "an age is measured against the wall clock, and is told to nobody but Prometheus")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn unix_ms(time: SystemTime) -> i64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(NOTHING)
}

impl TypedMetric for Age {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Age {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.elapsed().as_secs_f64())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::family::Family;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_reading_is_taken_when_it_is_asked_for() {
        let metrics = Metrics::new("test");
        let things = Arc::new(AtomicI64::new(1));
        let counted = Arc::clone(&things);
        let reading = Reading::count(move || usize::try_from(counted.load(Ordering::Relaxed)).unwrap());
        metrics.register(|registry| registry.register("things", "Things", reading));
        assert!(metrics.plain_text().contains("# TYPE things gauge\nthings 1.0\n"));
        things.store(2, Ordering::Relaxed);
        assert!(metrics.plain_text().contains("\nthings 2.0\n"));
    }

    #[test]
    fn an_age_is_that_of_what_has_begun_and_not_ended() {
        let ages = Family::<[(&'static str, &'static str); 1], Age>::default();
        let age = ages.get_or_create_owned(&[("queue", "a")]);
        let metrics = Metrics::new("test");
        metrics.register(|registry| registry.register("age_seconds", "Age", ages.clone()));
        assert!(metrics.plain_text().contains("\nage_seconds{queue=\"a\"} 0.0\n"));

        age.set(Some(now() - Duration::from_secs(90)));
        assert!((90..100).contains(&age.elapsed().as_secs()), "{:?}", age.elapsed());
        age.begin();
        assert!(age.elapsed().as_secs() >= 90, "it had begun already");
        assert!(metrics.plain_text().contains("\nage_seconds{queue=\"a\"} 9"));

        age.set(None);
        assert_eq!(age.elapsed(), Duration::ZERO);
        age.begin();
        assert!(age.elapsed().as_secs() < 10);
        age.set(Some(now() + Duration::from_secs(60)));
        assert_eq!(age.elapsed(), Duration::ZERO, "of another host's clock");
    }
}
