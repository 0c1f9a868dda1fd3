//! Many callers that append to few aggregates at random, and what the log must hold afterwards, by what each was told.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::stock::{Stock, StockEvent, StockReceived};
use event_store::{AppendError, Appended, Expected, JetStreamEventStore, Transaction};

use crate::{NOW, context};

/// Aggregates that the callers meet at.
const AGGREGATES: u64 = 8;
/// How often, in percent, a caller goes away before its answer comes.
const IMPATIENT_PERCENT: u64 = 4;

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// What a caller appended, by the names of its events, and what it was told.
pub(crate) struct Told {
    events: Vec<String>,
    /// None if it did not wait for the answer.
    answer: Option<Result<Appended, AppendError>>,
}

/// Callers that append until they are told to end.
pub(crate) struct Rivals {
    callers: Vec<tokio::task::JoinHandle<Vec<Told>>>,
    is_over: Arc<AtomicBool>,
}

impl Rivals {
    pub(crate) fn start(store: &JetStreamEventStore, callers: u64, seed: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let start =
            |caller| tokio::spawn(append_on(store.clone(), caller, Random::of(seed * 1_000 + caller), Arc::clone(&is_over)));
        Self { callers: (1..=callers).map(start).collect(), is_over }
    }

    pub(crate) async fn end(self) -> Vec<Told> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for caller in self.callers {
            told.extend(caller.await.unwrap());
        }
        told
    }
}

async fn append_on(store: JetStreamEventStore, caller: u64, mut random: Random, is_over: Arc<AtomicBool>) -> Vec<Told> {
    let mut told = Vec::new();
    // Where the caller believes that aggregates end: right if nobody else was faster.
    let mut believed: HashMap<String, Expected> = HashMap::new();
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let (mut transaction, mut events, mut pushed) = (Transaction::new(), Vec::new(), Vec::new());
        for id in aggregates(&mut random, caller, number) {
            let is_known = believed.contains_key(&id) && random.below(3) > 0;
            if !is_known && let Ok(loaded) = store.load::<Stock>(&id).await {
                believed.insert(id.clone(), loaded.expected());
            }
            let expected = believed.get(&id).copied().unwrap_or_default();
            let names: Vec<_> = (0..=random.below(3)).map(|event| format!("{caller}-{number}-{id}-{event}")).collect();
            let received: Vec<_> = names.iter().map(|name| named(name)).collect();
            transaction.push::<Stock>(&id, expected, &received, &context());
            pushed.push((id, expected, names.len()));
            events.extend(names);
        }
        let patience = if random.below(100) < IMPATIENT_PERCENT { Duration::from_millis(random.below(8)) } else { Duration::MAX };
        let answer = tokio::time::timeout(patience, store.append(transaction)).await.ok();
        if let Some(Ok(appended)) = &answer {
            let mut position = appended.first_position;
            for (id, expected, count) in pushed {
                position += count as u64;
                let version = expected.version + count as u64;
                believed.insert(id, Expected { version, position: position - 1 });
            }
        } else {
            believed.clear();
        }
        told.push(Told { events, answer });
    }
    told
}

/// One to three different aggregates: some that everybody wants, some of the caller's own.
fn aggregates(random: &mut Random, caller: u64, number: u64) -> Vec<String> {
    let mut chosen = Vec::new();
    let count = 1 + random.below(6).saturating_sub(3);
    for _ in 0..count {
        let id = match random.below(4) {
            0 => format!("SHARED-{}", random.below(AGGREGATES)),
            1 => format!("OWN-{caller}"),
            _ => format!("NEW-{caller}-{number}-{}", chosen.len()),
        };
        if !chosen.contains(&id) {
            chosen.push(id);
        }
    }
    chosen
}

fn named(name: &str) -> StockEvent {
    StockReceived { quantity: 1, reference: name.to_owned(), received_at: NOW, request: None }.into()
}

/// Holds the whole log, read by `store`, against what the callers were told. Returns how many transactions were acknowledged.
pub(crate) async fn check(store: &JetStreamEventStore, told: &[Told]) -> usize {
    let (mut positions, mut versions) = (HashMap::new(), BTreeMap::new());
    let head = store.head().await.unwrap();
    let mut reader = store.read_from(1);
    while positions.len() < usize::try_from(head).unwrap() {
        let batch = tokio::time::timeout(Duration::from_secs(20), reader.next_batch(1_000)).await.unwrap().unwrap();
        for message in batch {
            let stored = domain::envelope::StoredEvent::from_json(&message.bytes).unwrap();
            let last: &mut u64 = versions.entry(stored.metadata.aggregate_id.clone()).or_default();
            *last += 1;
            assert_eq!(stored.metadata.version, *last, "the version of {} at {}", stored.metadata.aggregate_id, message.position);
            let StockEvent::Received(received) = stored.decode().unwrap() else { panic!("nobody appends anything else") };
            let before = positions.insert(received.reference.clone(), message.position);
            assert_eq!(before, None, "{} is in the log twice", received.reference);
        }
    }
    let mut acknowledged = 0;
    for Told { events, answer } in told {
        let found: Vec<_> = events.iter().map(|event| positions.remove(event)).collect();
        let is_contiguous = found.windows(2).all(|two| two[0].map(|position| position + 1) == two[1]);
        assert!(is_contiguous, "{events:?} are at {found:?}, after {answer:?}");
        match answer {
            Some(Ok(appended)) => {
                acknowledged += 1;
                assert_eq!(
                    (found[0], found[found.len() - 1]),
                    (Some(appended.first_position), Some(appended.last_position)),
                    "{events:?}"
                );
            }
            None | Some(Err(AppendError::Unavailable)) => {}
            Some(Err(error)) => assert!(found.iter().all(Option::is_none), "{events:?} are at {found:?}, after {error}"),
        }
    }
    let strangers: HashSet<_> = positions.into_keys().collect();
    assert!(strangers.is_empty(), "nobody appended {strangers:?}");
    acknowledged
}
