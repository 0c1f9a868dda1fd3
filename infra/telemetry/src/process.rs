//! What every process says of itself on `/metrics`: whether it is ready, and what it takes.

use std::{
    fmt, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{TypedMetric, gauge::ConstGauge},
};

use crate::{gauges::Reading, health::Health, metrics::Metrics};

/// Adds to `metrics` what `/ready` says, when the process started, and how much memory it has.
pub(crate) fn tell(health: &Health, metrics: &Metrics) {
    let started = started_at();
    metrics.register(|registry| {
        let ready = health.clone();
        let ready = Reading::new(move || f64::from(u8::from(ready.is_ready())));
        registry.register("service_ready", "1 if this process can serve and is not draining, as /ready says, else 0", ready);
        registry.register_collector(Box::new(Components(health.clone())));
        let help = "When this process started, in seconds since 1970";
        registry.register("process_start_time_seconds", help, Reading::new(move || started));
        // Where the system does not say, there is no such metric, rather than a wrong one.
        if resident_bytes().is_some() {
            let resident = Reading::new(|| resident_bytes().unwrap_or_default());
            registry.register("process_resident_memory_bytes", "Memory that this process has in use", resident);
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "Prometheus tells restarts by it")]
fn started_at() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Linux says it in KiB: proc_pid_status(5).
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) * 1_024.0)
}

/// What a process needs, and whether it has it.
#[derive(Debug)]
struct Components(Health);

impl Collector for Components {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let conditions = self.0.conditions();
        if conditions.is_empty() {
            return Ok(());
        }
        let help = "1 for what this process needs and has, as /ready says, 0 for what it lacks.";
        let mut family = encoder.encode_descriptor("service_component_ready", help, None, ConstGauge::<i64>::TYPE)?;
        for (component, is_ready) in conditions {
            let labels = [("component", component)];
            ConstGauge::new(i64::from(is_ready)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_told_as_ready_tells_it() {
        let (health, metrics) = (Health::new("test"), Metrics::new("test"));
        tell(&health, &metrics);
        let nats = health.component("nats");
        health.component("postgres").ready();
        let text = metrics.plain_text();
        assert!(text.contains("\nservice_ready 0.0\n"), "{text}");
        assert!(text.contains("\nservice_component_ready{component=\"nats\"} 0\n"), "{text}");
        assert!(text.contains("\nservice_component_ready{component=\"postgres\"} 1\n"), "{text}");
        nats.ready();
        assert!(metrics.plain_text().contains("\nservice_ready 1.0\n"));
        health.drain();
        assert!(metrics.plain_text().contains("\nservice_ready 0.0\n"));
    }

    #[test]
    fn a_process_knows_when_it_started_and_what_it_takes() {
        let metrics = Metrics::new("test");
        tell(&Health::new("test"), &metrics);
        let text = metrics.plain_text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map(|value| value.parse::<f64>().unwrap())
        };
        assert!(value("process_start_time_seconds").unwrap() > 1.7e9);
        if cfg!(target_os = "linux") {
            assert!(value("process_resident_memory_bytes").unwrap() > 1e6);
        }
    }
}
