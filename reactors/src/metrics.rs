//! What reactors count.

use std::time::Duration;

use event_store::{Backlog, WorkSource};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use telemetry::{gauges::Age, metrics::Metrics};

use crate::breaker::Phase;

/// Counters of all reactors of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReactorMetrics {
    events: Family<EventLabels, Counter>,
    in_flight: Family<ReactorLabels, Gauge>,
    dead_letters: Family<ReactorName, Gauge>,
    breaker_phase: Family<PhaseLabels, Gauge>,
    breaker_changes: Family<PhaseLabels, Counter>,
    lag_events: Family<QueueLabels, Gauge>,
    lag_seconds: Family<QueueLabels, Age>,
    unacknowledged: Family<QueueLabels, Gauge>,
    charges: Family<ChargeLabels, Counter>,
    gateway_calls: Family<CallLabels, Histogram, fn() -> Histogram>,
}

/// How a charge ended that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChargeEnd {
    /// The money is ours.
    Captured,
    /// The card was declined, or the gateway will never accept this charge.
    Declined,
    /// Nobody knows: the gateway was away, or said so. It is tried again.
    Failed,
}

impl ChargeEnd {
    const ALL: [Self; 3] = [Self::Captured, Self::Declined, Self::Failed];

    const fn label(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Failed => "failed",
        }
    }
}

/// What a gateway is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatewayCall {
    Charge,
    FindCharge,
    Refund,
}

impl GatewayCall {
    pub(crate) const ALL: [Self; 3] = [Self::Charge, Self::FindCharge, Self::Refund];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::FindCharge => "find_charge",
            Self::Refund => "refund",
        }
    }
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
struct QueueLabels {
    reactor: &'static str,
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChargeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
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

impl Default for ReactorMetrics {
    fn default() -> Self {
        let this = Self {
            events: Family::default(),
            in_flight: Family::default(),
            dead_letters: Family::default(),
            breaker_phase: Family::default(),
            breaker_changes: Family::default(),
            lag_events: Family::default(),
            lag_seconds: Family::default(),
            unacknowledged: Family::default(),
            charges: Family::default(),
            // From a gateway next door to one that takes as long as it may.
            gateway_calls: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 14))),
        };
        // What was never seen is zero: where there is nothing at all, no rate can be told from its first increase.
        for outcome in ChargeEnd::ALL {
            this.charges.get_or_create_owned(&ChargeLabels { outcome: outcome.label() });
        }
        for call in GatewayCall::ALL {
            this.gateway_calls.get_or_create_owned(&CallLabels { call: call.label() });
        }
        this
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
            let lag = "Events of a reactor's queue that are not done, of all instances together: those that wait and those in hand";
            registry.register("contrail_reactor_lag_events", lag, this.lag_events.clone());
            let lag = "How long ago the oldest of those was stored; 0 if there are none";
            registry.register("contrail_reactor_lag_seconds", lag, this.lag_seconds.clone());
            let in_hand = "Events of a reactor's queue that were handed out and are not done, of all instances together";
            registry.register("contrail_reactor_unacknowledged_events", in_hand, this.unacknowledged.clone());
            let charges = "Charges that were tried at the gateway by how that ended; one that failed is tried again";
            registry.register("contrail_charges", charges, this.charges.clone());
            let calls = "How long the payment gateway took to answer, or not to";
            registry.register("contrail_gateway_call_duration_seconds", calls, this.gateway_calls.clone());
        });
        this
    }

    /// A reactor has started: what it counts begins at zero.
    pub fn begins(&self, reactor: &'static str) {
        for outcome in ["done", "retried", "dead"] {
            self.events.get_or_create_owned(&EventLabels { reactor, outcome });
        }
        self.in_flight.get_or_create_owned(&ReactorLabels { reactor });
    }

    /// So much of a reactor's queue is not done.
    pub fn backlog_is(&self, reactor: &'static str, source: WorkSource, backlog: &Backlog) {
        let queue = match source {
            WorkSource::Log(_) => "log",
            WorkSource::Timers(_) => "timers",
        };
        let labels = QueueLabels { reactor, queue };
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.lag_events.get_or_create(&labels).set(gauge(backlog.events()));
        self.unacknowledged.get_or_create(&labels).set(gauge(backlog.in_hand));
        self.lag_seconds.get_or_create(&labels).set(backlog.oldest.map(Into::into));
    }

    pub(crate) fn charged(&self, outcome: ChargeEnd) {
        self.charges.get_or_create(&ChargeLabels { outcome: outcome.label() }).inc();
    }

    pub(crate) fn gateway_answered(&self, call: GatewayCall, took: Duration) {
        self.gateway_calls.get_or_create(&CallLabels { call: call.label() }).observe(took.as_secs_f64());
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
