//! What the gateway knows: every PaymentIntent, every refund, every idempotency key.

use std::{collections::HashMap, io, path::Path, sync::Arc};

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    api_error::ApiError,
    journal::{Entry, Happened, Journal, LedgerError, UsedKey},
    payment_intent::{Intent, NewIntent},
    refund::{NewRefund, Refund},
};

/// A request that moves money.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    CreateIntent(NewIntent),
    CreateRefund(NewRefund),
}

/// The moment of a command, and an id that is used for nothing else: both come from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) at: OffsetDateTime,
    pub(crate) unique: Uuid,
}

/// What a command led to; also what its idempotency key leads to from then on.
#[derive(Clone, Debug)]
pub(crate) enum Recorded {
    Intent(Arc<Intent>),
    Refund(Arc<Refund>),
}

/// Why a command led to nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The request cannot be carried out as things are.
    Rejected(ApiError),
    /// The ledger file cannot be written, so nothing may happen.
    NotWritten(io::Error),
}

/// Whether a request with an idempotency key may go ahead.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is the first one, and holds the key until it is carried out or [released](Ledger::release).
    First,
    /// It was carried out before, with this result.
    Replay(Recorded),
    /// It is being carried out.
    InUse,
    /// The key belongs to a request with other parameters.
    OtherParams,
}

enum Key {
    InUse { params: String },
    Used { params: String, recorded: Recorded },
}

/// The state, in memory and in the file. Everything here is quick: callers hold a lock.
#[derive(Default)]
pub(crate) struct Ledger {
    journal: Option<Journal>,
    intents: Vec<Arc<Intent>>,
    refunds: Vec<Arc<Refund>>,
    /// Positions in `intents`.
    by_intent_id: HashMap<String, usize>,
    /// Positions in `intents`, oldest first.
    by_metadata: HashMap<(String, String), Vec<usize>>,
    /// Positions in `refunds`.
    by_refund_id: HashMap<String, usize>,
    /// Amounts in the smallest unit, by id of the PaymentIntent.
    refunded: HashMap<String, i64>,
    keys: HashMap<String, Key>,
}

impl Ledger {
    /// What the file says happened so far; without a file, nothing.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, LedgerError> {
        let mut ledger = Self::default();
        if let Some(file) = file {
            ledger.journal = Some(Journal::open(file, |entry| {
                ledger.apply(entry);
            })?);
        }
        Ok(ledger)
    }

    /// Takes the key for a request, if it is free.
    pub(crate) fn admit(&mut self, key: &str, params: &str) -> Admission {
        match self.keys.get(key) {
            None => {
                let params = params.to_owned();
                self.keys.insert(key.to_owned(), Key::InUse { params });
                Admission::First
            }
            Some(Key::InUse { params: first } | Key::Used { params: first, .. }) if first != params => Admission::OtherParams,
            Some(Key::InUse { .. }) => Admission::InUse,
            Some(Key::Used { recorded, .. }) => Admission::Replay(recorded.clone()),
        }
    }

    /// Frees the key of a request that came to nothing. A key that led to something stays bound to it.
    pub(crate) fn release(&mut self, key: &str) {
        if matches!(self.keys.get(key), Some(Key::InUse { .. })) {
            self.keys.remove(key);
        }
    }

    /// Carries a command out: decides, writes, then remembers. If it is refused nothing has changed.
    pub(crate) fn execute(
        &mut self,
        command: Command,
        idempotency: Option<UsedKey>,
        stamp: Stamp,
        decline_anyway: bool,
    ) -> Result<Recorded, Refused> {
        let happened = match command {
            Command::CreateIntent(new) => Happened::PaymentIntent(new.create(stamp, decline_anyway)),
            Command::CreateRefund(new) => {
                let Some(intent) = self.intent(&new.payment_intent) else {
                    return Err(Refused::Rejected(ApiError::no_such("payment_intent", &new.payment_intent, "payment_intent")));
                };
                let before = self.refunded(&intent.id);
                Happened::Refund(new.create(&intent, before, stamp).map_err(Refused::Rejected)?)
            }
        };
        let entry = Entry { happened, idempotency };
        if let Some(journal) = &mut self.journal {
            journal.append(&entry).map_err(Refused::NotWritten)?;
        }
        Ok(self.apply(entry))
    }

    /// Remembers what has happened.
    fn apply(&mut self, entry: Entry) -> Recorded {
        let recorded = match entry.happened {
            Happened::PaymentIntent(intent) => {
                let at = self.intents.len();
                let intent = Arc::new(intent);
                self.by_intent_id.insert(intent.id.clone(), at);
                for (key, value) in &intent.metadata {
                    self.by_metadata.entry((key.clone(), value.clone())).or_default().push(at);
                }
                self.intents.push(Arc::clone(&intent));
                Recorded::Intent(intent)
            }
            Happened::Refund(refund) => {
                let refund = Arc::new(refund);
                *self.refunded.entry(refund.payment_intent.clone()).or_default() += refund.amount;
                self.by_refund_id.insert(refund.id.clone(), self.refunds.len());
                self.refunds.push(Arc::clone(&refund));
                Recorded::Refund(refund)
            }
        };
        if let Some(UsedKey { key, params }) = entry.idempotency {
            let recorded = recorded.clone();
            self.keys.insert(key, Key::Used { params, recorded });
        }
        recorded
    }

    pub(crate) fn intent(&self, id: &str) -> Option<Arc<Intent>> {
        self.by_intent_id.get(id).map(|&at| Arc::clone(&self.intents[at]))
    }

    pub(crate) fn refund(&self, id: &str) -> Option<Arc<Refund>> {
        self.by_refund_id.get(id).map(|&at| Arc::clone(&self.refunds[at]))
    }

    /// How much of a PaymentIntent was given back, in the smallest unit.
    pub(crate) fn refunded(&self, intent_id: &str) -> i64 {
        self.refunded.get(intent_id).copied().unwrap_or_default()
    }

    /// Every PaymentIntent, oldest first.
    pub(crate) fn intents(&self) -> &[Arc<Intent>] {
        &self.intents
    }

    /// Those with this metadata, oldest first.
    pub(crate) fn intents_with(&self, key: &str, value: &str) -> Vec<Arc<Intent>> {
        self.by_metadata
            .get(&(key.to_owned(), value.to_owned()))
            .into_iter()
            .flatten()
            .map(|&at| Arc::clone(&self.intents[at]))
            .collect()
    }

    /// Every refund, oldest first.
    pub(crate) fn refunds(&self) -> &[Arc<Refund>] {
        &self.refunds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Params;

    fn stamp(number: usize) -> Stamp {
        Stamp { at: OffsetDateTime::UNIX_EPOCH, unique: Uuid::from_u128(number as u128) }
    }

    fn charge(ledger: &mut Ledger, key: Option<&str>) -> Arc<Intent> {
        let params = Params::parse("amount=1000&currency=eur&confirm=true&payment_method=pm_card_visa&metadata[order_id]=o-1")
            .expect("form encoding");
        let new = NewIntent::parse(&params).expect("valid");
        let used = key.map(|key| UsedKey { key: key.to_owned(), params: "p".to_owned() });
        let stamp = stamp(ledger.intents().len());
        match ledger.execute(Command::CreateIntent(new), used, stamp, false) {
            Ok(Recorded::Intent(intent)) => intent,
            other => panic!("{other:?}"),
        }
    }

    fn refund(ledger: &mut Ledger, params: &str) -> Result<i64, String> {
        let new = NewRefund::parse(&Params::parse(params).expect("form encoding")).expect("valid");
        let stamp = stamp(ledger.refunds().len());
        match ledger.execute(Command::CreateRefund(new), None, stamp, false) {
            Ok(Recorded::Refund(refund)) => Ok(refund.amount),
            Err(Refused::Rejected(error)) => Err(error.message().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_is_used_once() {
        let mut ledger = Ledger::default();
        assert!(matches!(ledger.admit("k", "p"), Admission::First));
        assert!(matches!(ledger.admit("k", "p"), Admission::InUse));
        assert!(matches!(ledger.admit("k", "q"), Admission::OtherParams));
        ledger.release("k");
        assert!(matches!(ledger.admit("k", "p"), Admission::First));
        let intent = charge(&mut ledger, Some("k"));
        ledger.release("k");
        assert!(matches!(ledger.admit("k", "p"), Admission::Replay(Recorded::Intent(same)) if same == intent));
        assert!(matches!(ledger.admit("k", "q"), Admission::OtherParams));
    }

    #[test]
    fn no_more_is_refunded_than_was_charged() {
        let mut ledger = Ledger::default();
        let id = charge(&mut ledger, None).id.clone();
        let whole = format!("payment_intent={id}");
        assert_eq!(refund(&mut ledger, &format!("{whole}&amount=400")), Ok(400));
        let error = refund(&mut ledger, &format!("{whole}&amount=601")).expect_err("too much");
        assert!(error.contains("greater than unrefunded amount"), "{error}");
        assert_eq!(refund(&mut ledger, &whole), Ok(600));
        let error = refund(&mut ledger, &whole).expect_err("nothing is left");
        assert!(error.contains("already been refunded"), "{error}");
        assert_eq!(ledger.refunded(&id), 1_000);
    }

    #[test]
    fn a_reopened_ledger_knows_charges_refunds_and_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(Some(&path)).expect("opens");
        let intent = charge(&mut ledger, Some("k"));
        refund(&mut ledger, &format!("payment_intent={}&amount=1", intent.id)).expect("refunded");
        drop(ledger);

        let mut ledger = Ledger::open(Some(&path)).expect("opens");
        assert_eq!(ledger.intents_with("order_id", "o-1"), [Arc::clone(&intent)]);
        assert_eq!(ledger.refunded(&intent.id), 1);
        assert_eq!(ledger.refunds().len(), 1);
        assert!(matches!(ledger.admit("k", "p"), Admission::Replay(_)));
    }
}
