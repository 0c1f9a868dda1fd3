//! What goes wrong, and when: the same for the same seed.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::clocks::CLOCKS;
use super::proxy::Network;
use crate::random::Random;

/// Processes that are killed and frozen where one server has the log.
const PROCESSES: [&str; 7] = ["command-api", "query-api", "projectors", "reactors", "payment-simulator", "nats", "postgres"];
/// The same where three servers have it: which of them it hits is known only then.
const PROCESSES_REPLICATED: [&str; 8] =
    ["command-api", "query-api", "projectors", "reactors", "payment-simulator", LOG_LEADER, LOG_FOLLOWER, "postgres"];
/// The server that leads the log's replicas, whichever it is.
pub(super) const LOG_LEADER: &str = "nats leader";
/// One of the others.
pub(super) const LOG_FOLLOWER: &str = "nats follower";
/// Wires that are cut: who is at the near end, and who at the far one.
pub(super) const WIRES: [Wire; 5] = [
    Wire { service: "command-api", server: "nats" },
    Wire { service: "reactors", server: "nats" },
    Wire { service: "projectors", server: "nats" },
    Wire { service: "projectors", server: "postgres" },
    Wire { service: "query-api", server: "postgres" },
];

/// A service's connections to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) service: &'static str,
    pub(super) server: &'static str,
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// SIGKILL; later it is started again.
    Kill(&'static str),
    /// SIGSTOP; later SIGCONT.
    Freeze(&'static str),
    /// The network between two of them.
    Cut(usize, Network),
    /// The payment gateway.
    Gateway(Trouble),
    /// The wall clock of a service is so many seconds fast, or slow.
    Clock(&'static str, i64),
}

/// What the payment gateway does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Outage,
    Errors,
    SlowAnswers,
    LostAnswers,
}

/// A fault, the pause before it, and how long it lasts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) after: Duration,
    pub(super) fault: Fault,
    pub(super) lasts: Duration,
}

impl Trouble {
    /// As the simulator is told.
    pub(super) fn settings(self) -> Value {
        match self {
            Self::Outage => json!({ "outage": true }),
            Self::Errors => json!({ "error_rate": 0.3, "retry_after_s": 1 }),
            Self::SlowAnswers => json!({ "latency_ms": { "min": 200, "max": 3_000 } }),
            Self::LostAnswers => json!({ "lost_answer_rate": 0.3, "search_lag_ms": 1_000 }),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(name) => write!(f, "kill {name}"),
            Self::Freeze(name) => write!(f, "freeze {name}"),
            Self::Cut(wire, network) => {
                let Wire { service, server } = WIRES[*wire];
                let how = if *network == Network::Reset { "reset" } else { "silence" };
                write!(f, "{how} {service} - {server}")
            }
            Self::Gateway(Trouble::Outage) => f.write_str("gateway outage"),
            Self::Gateway(Trouble::Errors) => f.write_str("gateway errors"),
            Self::Gateway(Trouble::SlowAnswers) => f.write_str("gateway slow"),
            Self::Gateway(Trouble::LostAnswers) => f.write_str("gateway loses answers"),
            Self::Clock(service, by_s) => write!(f, "clock of {service} {}", if *by_s > 0 { "fast" } else { "slow" }),
        }
    }
}

/// All that goes wrong: three things at a time, and of each kind one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    pub(super) processes: Vec<Planned>,
    /// The network and the gateway.
    pub(super) surroundings: Vec<Planned>,
    pub(super) clocks: Vec<Planned>,
}

/// What happens within `duration`.
pub(super) fn schedule(seed: u64, duration: Duration, replicates: bool) -> Schedule {
    let names: &[&str] = if replicates { &PROCESSES_REPLICATED } else { &PROCESSES };
    let processes = fill(&mut Random::of(seed, 1), duration, |random| {
        let name = names[pick(random, names.len())];
        // A killed process is worth more: it forgets.
        if random.below(3) < 2 {
            (Fault::Kill(name), millis(random, 0, 3_000))
        } else {
            (Fault::Freeze(name), millis(random, 500, 8_000))
        }
    });
    let surroundings = fill(&mut Random::of(seed, 2), duration, |random| {
        if random.below(2) == 0 {
            let network = if random.below(2) == 0 { Network::Reset } else { Network::Silent };
            return (Fault::Cut(pick(random, WIRES.len()), network), millis(random, 500, 8_000));
        }
        let troubles = [Trouble::Outage, Trouble::Errors, Trouble::SlowAnswers, Trouble::LostAnswers];
        (Fault::Gateway(troubles[pick(random, troubles.len())]), millis(random, 2_000, 12_000))
    });
    let clocks = fill(&mut Random::of(seed, 3), duration, |random| {
        let by_s = i64::try_from(random.between(5, 60)).expect("it is a small number");
        let by_s = if random.below(2) == 0 { by_s } else { -by_s };
        (Fault::Clock(CLOCKS[pick(random, CLOCKS.len())], by_s), millis(random, 2_000, 12_000))
    });
    Schedule { processes, surroundings, clocks }
}

fn fill(random: &mut Random, duration: Duration, mut next: impl FnMut(&mut Random) -> (Fault, Duration)) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut used = Duration::ZERO;
    loop {
        let after = millis(random, 500, 6_000);
        let (fault, lasts) = next(random);
        used += after + lasts;
        if used > duration {
            return planned;
        }
        planned.push(Planned { after, fault, lasts });
    }
}

fn millis(random: &mut Random, first: u64, last: u64) -> Duration {
    Duration::from_millis(random.between(first, last))
}

fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).expect("it is below the number of items")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_is_the_same_chaos_and_another_one_another() {
        let twenty_minutes = Duration::from_mins(20);
        assert_eq!(schedule(7, twenty_minutes, true), schedule(7, twenty_minutes, true));
        assert_ne!(schedule(7, twenty_minutes, true), schedule(8, twenty_minutes, true));
        // The first minute is the same, however long it goes on.
        let (longer, shorter) =
            (schedule(7, twenty_minutes, false).processes, schedule(7, Duration::from_mins(1), false).processes);
        assert_eq!(longer[..shorter.len()], shorter);
    }

    #[test]
    fn everything_goes_wrong_within_twenty_minutes() {
        for (replicates, names) in [(false, PROCESSES.len()), (true, PROCESSES_REPLICATED.len())] {
            for seed in 0..20 {
                let Schedule { processes, surroundings, clocks } = schedule(seed, Duration::from_mins(20), replicates);
                assert!(processes.len() + surroundings.len() >= 150, "seed {seed}");
                let everything = processes.iter().chain(&surroundings).chain(&clocks);
                let kinds: BTreeSet<_> = everything.map(|planned| planned.fault.to_string()).collect();
                let all = 2 * names + 2 * WIRES.len() + 4 + 2 * CLOCKS.len();
                assert!(kinds.len() >= all - 2, "seed {seed}: {} of {all}", kinds.len());
            }
        }
    }
}
