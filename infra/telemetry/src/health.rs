//! Whether a process is alive, and whether it can serve.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tracing::{info, warn};

use crate::drain::Drain;

/// What a process needs in order to serve, and whether it has it. Clones share one state.
///
/// A process without components is ready as soon as it runs. A draining process is never ready again.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    service: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    draining: bool,
    components: BTreeMap<String, Condition>,
}

#[derive(Clone, PartialEq, Eq)]
struct Condition {
    ready: bool,
    detail: String,
}

impl Health {
    /// The health of one process.
    pub fn new(service: &'static str) -> Self {
        Self { shared: Arc::new(Shared { service, state: Mutex::default() }) }
    }

    /// The name that the process logs under.
    pub fn service(&self) -> &'static str {
        self.shared.service
    }

    /// Something that the process needs. It starts as not ready, with the detail "starting". The same name again
    /// gives the same component, in the condition that it has.
    pub fn component(&self, name: impl Into<String>) -> Component {
        let name = name.into();
        self.shared
            .lock()
            .components
            .entry(name.clone())
            .or_insert_with(|| Condition { ready: false, detail: "starting".to_owned() });
        Component { name: name.into(), shared: Arc::clone(&self.shared) }
    }

    /// From now on the process is not ready, because it is about to end.
    pub fn drain(&self) {
        self.shared.lock().draining = true;
    }

    /// Calls [`Health::drain`] when the drain starts. Needs a tokio runtime.
    pub fn drain_with(&self, drain: &Drain) {
        let (health, drain) = (self.clone(), drain.clone());
        tokio::spawn(async move {
            drain.started().await;
            health.drain();
        });
    }

    /// True if every component is ready and the process is not draining.
    pub fn is_ready(&self) -> bool {
        self.shared.lock().is_ready()
    }

    /// What the process needs, and whether it has it.
    pub(crate) fn conditions(&self) -> Vec<(String, bool)> {
        let state = self.shared.lock();
        state.components.iter().map(|(name, condition)| (name.clone(), condition.ready)).collect()
    }

    /// The body of `/ready`, and whether the process is ready: both of the same moment.
    pub(crate) fn report(&self) -> (bool, Value) {
        let state = self.shared.lock();
        let ready = state.is_ready();
        let components: serde_json::Map<_, _> = state
            .components
            .iter()
            .map(|(name, condition)| (name.clone(), json!({"ready": condition.ready, "detail": condition.detail})))
            .collect();
        (ready, json!({"ready": ready, "draining": state.draining, "components": components}))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("service", &self.shared.service).field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

impl State {
    fn is_ready(&self) -> bool {
        !self.draining && self.components.values().all(|condition| condition.ready)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so the state is whole even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that a process needs, such as its connection to NATS. Clones report on the same thing.
///
/// Each change of condition is logged once; reporting the same condition again is cheap and silent.
#[derive(Clone)]
pub struct Component {
    name: Arc<str>,
    shared: Arc<Shared>,
}

impl Component {
    /// It works.
    pub fn ready(&self) {
        self.ready_with("");
    }

    /// It works; the detail says what a reader of `/ready` might want to know.
    pub fn ready_with(&self, detail: impl Into<String>) {
        self.set(true, detail.into());
    }

    /// It does not work, and why. The reason is shown to whoever may read `/ready`.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(false, reason.into());
    }

    fn set(&self, ready: bool, detail: String) {
        let now = Condition { ready, detail };
        let before = {
            let mut state = self.shared.lock();
            state.components.insert(self.name.to_string(), now.clone())
        };
        let changed = before.is_none_or(|before| {
            // The detail of a working component may move all the time, for instance with a position.
            before.ready != now.ready || (!now.ready && before.detail != now.detail)
        });
        if !changed {
            return;
        }
        let (component, detail) = (&*self.name, now.detail.as_str());
        if ready {
            info!(component, detail, "{component} is ready");
        } else {
            warn!(component, detail, "{component} is not ready: {detail}");
        }
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_needs_is_ready() {
        assert!(Health::new("test").is_ready());
    }

    #[test]
    fn every_component_must_be_ready() {
        let health = Health::new("test");
        let (nats, postgres) = (health.component("nats"), health.component("postgres"));
        nats.ready_with("127.0.0.1:4222");
        assert!(!health.is_ready());
        postgres.clone().ready();
        assert!(health.is_ready());
        postgres.not_ready("connection refused");

        let (ready, body) = health.report();
        assert!(!ready);
        assert_eq!(
            body,
            json!({"ready": false, "draining": false, "components": {
                "nats": {"ready": true, "detail": "127.0.0.1:4222"},
                "postgres": {"ready": false, "detail": "connection refused"},
            }})
        );
    }

    #[test]
    fn asking_for_a_component_again_keeps_its_condition() {
        let health = Health::new("test");
        health.component("nats").ready();
        let _again = health.component("nats");
        assert!(health.is_ready());
    }

    #[tokio::test]
    async fn a_draining_process_is_not_ready_again() {
        let (health, drain) = (Health::new("test"), Drain::manual());
        let nats = health.component("nats");
        health.drain_with(&drain);
        nats.ready();
        drain.start();
        while health.is_ready() {
            tokio::task::yield_now().await;
        }
        nats.ready();
        assert!(!health.is_ready());
    }
}
