//! What a client asked for, remembered in the aggregate, so that a retry is recognised for what it is (DESIGN §8).

use std::{collections::VecDeque, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// How many requests an aggregate remembers; an older retry meets the ordinary rules of the command instead.
pub const REMEMBERED_REQUESTS_MAX: usize = 1_000;

/// One client request: its id, derived from aggregate and Idempotency-Key, and a digest of what it asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// UUID v5 of the aggregate and the key; also the id of the event that answered the request, unless that event began
    /// the aggregate.
    pub id: Uuid,
    /// SHA-256 of the method, route and canonical body, in hex.
    pub digest: String,
}

/// The last [`REMEMBERED_REQUESTS_MAX`] requests that led to an event of this aggregate, oldest first, each with what it was
/// answered as far as the aggregate has to know that. A clone shares them; only a change copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentRequests<T = ()>(Arc<VecDeque<Remembered<T>>>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered<T> {
    id: Uuid,
    #[serde(with = "shared_text")]
    digest: Arc<str>,
    answer: T,
}

/// What an aggregate knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMemory {
    /// Not among the remembered ones.
    New,
    /// The same request was carried out before.
    Repeated,
    /// The key was used before, for something else.
    KeyReused,
}

impl<T> RecentRequests<T> {
    /// What is known of `request`.
    pub fn look_up(&self, request: &Request) -> RequestMemory {
        match self.find(request.id) {
            None => RequestMemory::New,
            Some(known) if *known.digest == *request.digest => RequestMemory::Repeated,
            Some(_) => RequestMemory::KeyReused,
        }
    }

    /// What the request of this id was answered, if it is remembered.
    pub fn answer_to(&self, request_id: Uuid) -> Option<&T> {
        self.find(request_id).map(|known| &known.answer)
    }

    /// About how many bytes of memory they take, counted as if nothing were shared.
    pub fn approximate_bytes(&self) -> usize {
        // A digest is 64 characters, and the allocation around it has two counters.
        self.0.len() * (size_of::<Remembered<T>>() + 80)
    }

    fn find(&self, id: Uuid) -> Option<&Remembered<T>> {
        self.0.iter().rev().find(|known| known.id == id)
    }
}

impl<T: Clone> RecentRequests<T> {
    /// Remembers `request` and its `answer`, forgetting the oldest one when full.
    pub fn remember(&mut self, request: Option<&Request>, answer: T) {
        let Some(Request { id, digest }) = request else { return };
        let requests = Arc::make_mut(&mut self.0);
        if requests.len() >= REMEMBERED_REQUESTS_MAX {
            requests.pop_front();
        }
        requests.push_back(Remembered { id: *id, digest: digest.as_str().into(), answer });
    }
}

impl<T> Default for RecentRequests<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Serialize> Serialize for RecentRequests<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        VecDeque::serialize(&self.0, serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for RecentRequests<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        VecDeque::deserialize(deserializer).map(|requests| Self(Arc::new(requests)))
    }
}

/// A shared text is stored as any other.
mod shared_text {
    use super::{Arc, Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u128, digest: &str) -> Request {
        Request { id: Uuid::from_u128(id), digest: digest.to_owned() }
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut recent = RecentRequests::default();
        for id in 0..=REMEMBERED_REQUESTS_MAX as u128 {
            recent.remember(Some(&request(id, "d")), id);
        }
        recent.remember(None, 7);
        assert_eq!(recent.look_up(&request(0, "d")), RequestMemory::New);
        assert_eq!(recent.look_up(&request(1, "d")), RequestMemory::Repeated);
        assert_eq!(recent.look_up(&request(1, "other")), RequestMemory::KeyReused);
        assert_eq!((recent.answer_to(Uuid::from_u128(0)), recent.answer_to(Uuid::from_u128(1))), (None, Some(&1)));
    }

    #[test]
    fn a_clone_keeps_what_it_was_and_is_stored_alike() {
        let mut recent = RecentRequests::default();
        recent.remember(Some(&request(1, "d")), ());
        let earlier = recent.clone();
        recent.remember(Some(&request(2, "d")), ());
        assert_eq!(earlier.look_up(&request(2, "d")), RequestMemory::New);
        let stored = serde_json::to_string(&recent).unwrap();
        assert_eq!(serde_json::from_str::<RecentRequests>(&stored).unwrap(), recent);
    }
}
