//! What reactors count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use telemetry::metrics::Metrics;

use crate::breaker::Phase;

/// Counters of all reactors of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ReactorMetrics {
    events: Family<EventLabels, Counter>,
    in_flight: Family<ReactorLabels, Gauge>,
    dead_letters: Family<ReactorName, Gauge>,
    breaker_phase: Family<PhaseLabels, Gauge>,
    breaker_changes: Family<PhaseLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    reactor: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReactorLabels {
    reactor: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReactorName {
    reactor: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    system: &'static str,
    phase: &'static str,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl ReactorMetrics {
    /// Counters that `metrics` serves.
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            registry.register("contrail_reactor_events", "Events that a reactor finished with, by outcome", this.events.clone());
            registry.register("contrail_reactor_in_flight", "Events that a reactor is working on", this.in_flight.clone());
            let dead = "Dead letters that wait for somebody, of all instances together";
            registry.register("contrail_dead_letters", dead, this.dead_letters.clone());
            let phase = "1 for the phase that the circuit breaker of an outside system is in, 0 for the others";
            registry.register("contrail_breaker_phase", phase, this.breaker_phase.clone());
            let changes = "How often the circuit breaker of an outside system has entered a phase";
            registry.register("contrail_breaker_changes", changes, this.breaker_changes.clone());
        });
        this
    }

    pub(crate) fn count(&self, reactor: &'static str, outcome: &'static str, events: usize) {
        self.events.get_or_create(&EventLabels { reactor, outcome }).inc_by(events as u64);
    }

    pub(crate) fn started(&self, reactor: &'static str) {
        self.in_flight.get_or_create(&ReactorLabels { reactor }).inc();
    }

    pub(crate) fn finished(&self, reactor: &'static str) {
        self.in_flight.get_or_create(&ReactorLabels { reactor }).dec();
    }

    /// Of the reactor of this name there are so many dead letters.
    pub fn dead_letters_are(&self, reactor: &str, count: u64) {
        let labels = ReactorName { reactor: reactor.to_owned() };
        self.dead_letters.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The breaker of `system` has just entered `now`.
    pub(crate) fn breaker_is(&self, system: &'static str, now: Phase) {
        for phase in Phase::ALL {
            let labels = PhaseLabels { system, phase: phase.label() };
            let entered = phase == now;
            self.breaker_phase.get_or_create(&labels).set(entered.into());
            self.breaker_changes.get_or_create(&labels).inc_by(entered.into());
        }
    }
}
