//! Metrics in the OpenMetrics and the Prometheus text format.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::text,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// The metrics of one process. Clones share one registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// A registry that holds `build_info{service,version} 1`.
    pub fn new(service: &'static str) -> Self {
        let build_info = Family::<Vec<(&'static str, &'static str)>, Gauge>::default();
        build_info.get_or_create(&vec![("service", service), ("version", env!("CARGO_PKG_VERSION"))]).set(1);
        let mut registry = Registry::default();
        registry.register("build_info", "What runs here; always 1", build_info);
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Lets a part of the process add its metrics, and returns what the closure returns.
    ///
    /// Register a counter as `orders_placed`, without `_total`: the encoding adds it.
    pub fn register<R>(&self, add: impl FnOnce(&mut Registry) -> R) -> R {
        // A registry is a list that only grows, so it is whole even if a closure panicked half way.
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that is registered, in the OpenMetrics 1.0 text format.
    pub fn openmetrics(&self) -> String {
        let mut buffer = String::new();
        self.register(|registry| text::encode(&mut buffer, registry)).expect("writing to a string never fails");
        buffer
    }

    /// Everything that is registered, in the Prometheus text format 0.0.4.
    pub fn plain_text(&self) -> String {
        plain_text(&self.openmetrics())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Rewrites OpenMetrics 1.0 as Prometheus text 0.0.4.
///
/// The two differ in that the older format names a counter's family like its sample (with `_total`), has fewer types,
/// and knows neither units, exemplars nor an end mark.
fn plain_text(openmetrics: &str) -> String {
    let mut plain = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(comment) = line.strip_prefix("# ") else {
            plain.push_str(without_exemplar(line));
            plain.push('\n');
            continue;
        };
        // The encoder writes the help of a family first and its type on the next line.
        if let Some((name, help)) = comment.strip_prefix("HELP ").and_then(|rest| rest.split_once(' ')) {
            let kind = lines
                .peek()
                .and_then(|next| next.strip_prefix("# TYPE "))
                .and_then(|rest| rest.rsplit_once(' '))
                .map_or("unknown", |(_, kind)| kind);
            let suffix = family(kind).1;
            let help = help.replace("\\\"", "\"");
            plain.extend(["# HELP ", name, suffix, " ", &help, "\n"]);
        } else if let Some((name, kind)) = comment.strip_prefix("TYPE ").and_then(|rest| rest.rsplit_once(' ')) {
            let (kind, suffix) = family(kind);
            plain.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        }
    }
    plain
}

/// The older format's name of a type, and what it adds to the family's name.
fn family(openmetrics_kind: &str) -> (&'static str, &'static str) {
    match openmetrics_kind {
        "counter" => ("counter", "_total"),
        "gauge" | "stateset" => ("gauge", ""),
        "info" => ("gauge", "_info"),
        "histogram" | "gaugehistogram" => ("histogram", ""),
        "summary" => ("summary", ""),
        _ => ("untyped", ""),
    }
}

/// A sample line up to its exemplar, which begins with ` # ` after the labels. A label's value may hold the same text.
fn without_exemplar(sample: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in sample.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return sample[..at].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        metrics::{counter::Counter, exemplar::HistogramWithExemplars, info::Info},
        registry::Unit,
    };

    use super::*;

    #[test]
    fn build_info_names_the_service() {
        let text = Metrics::new("command-api").openmetrics();
        let sample = format!("build_info{{service=\"command-api\",version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&sample), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn plain_text_is_the_older_format() {
        let metrics = Metrics::new("test");
        let requests = Family::<Vec<(&'static str, &'static str)>, Counter>::default();
        let durations = HistogramWithExemplars::<Vec<(String, String)>>::new([0.1].into_iter());
        metrics.register(|registry| {
            registry.register("requests", "Requests", requests.clone());
            registry.register_with_unit("wait", "Waits", Unit::Seconds, durations.clone());
            registry.register("log", "Which log", Info::new(vec![("stream", "EVENTS")]));
        });
        requests.get_or_create(&vec![("route", "/a # \"{b}\"")]).inc();
        durations.observe(0.05, Some(vec![("trace_id".into(), "abc".into())]), None);
        assert!(metrics.openmetrics().contains("trace_id=\"abc\""));

        let expected = format!(
            r#"# HELP build_info What runs here; always 1.
# TYPE build_info gauge
build_info{{service="test",version="{}"}} 1
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{{route="/a # \"{{b}}\""}} 1
# HELP wait_seconds Waits.
# TYPE wait_seconds histogram
wait_seconds_sum 0.05
wait_seconds_count 1
wait_seconds_bucket{{le="0.1"}} 1
wait_seconds_bucket{{le="+Inf"}} 1
# HELP log_info Which log.
# TYPE log_info gauge
log_info{{stream="EVENTS"}} 1
"#,
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(metrics.plain_text(), expected);
    }

    #[test]
    fn register_hands_back_what_the_closure_returns() {
        let counter = Metrics::new("test").register(|registry| {
            let counter: Counter = Counter::default();
            registry.register("things", "Things", counter.clone());
            counter
        });
        assert_eq!(counter.inc(), 0);
    }
}
