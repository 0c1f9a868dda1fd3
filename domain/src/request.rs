//! What a client asked for, remembered in the aggregate, so that a retry is recognised for what it is (DESIGN §8).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many requests an aggregate remembers; an older retry meets the ordinary rules of the command instead.
pub const REMEMBERED_REQUESTS_MAX: usize = 1_000;

/// One client request: its id, derived from aggregate and Idempotency-Key, and a digest of what it asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// UUID v5 of the aggregate and the key; also the id of the event that answered the request, unless that event began
    /// the aggregate.
    pub id: Uuid,
    /// SHA-256 of the method, route and canonical body, in hex.
    pub digest: String,
}

/// The last [`REMEMBERED_REQUESTS_MAX`] requests that led to an event of this aggregate, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecentRequests(VecDeque<Request>);

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

impl RecentRequests {
    /// What is known of `request`.
    pub fn look_up(&self, request: &Request) -> RequestMemory {
        match self.0.iter().rev().find(|known| known.id == request.id) {
            None => RequestMemory::New,
            Some(known) if known.digest == request.digest => RequestMemory::Repeated,
            Some(_) => RequestMemory::KeyReused,
        }
    }

    /// Remembers `request`, forgetting the oldest one when full.
    pub fn remember(&mut self, request: Option<&Request>) {
        let Some(request) = request else { return };
        if self.0.len() >= REMEMBERED_REQUESTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(request.clone());
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
            recent.remember(Some(&request(id, "d")));
        }
        assert_eq!(recent.look_up(&request(0, "d")), RequestMemory::New);
        assert_eq!(recent.look_up(&request(1, "d")), RequestMemory::Repeated);
        assert_eq!(recent.look_up(&request(1, "other")), RequestMemory::KeyReused);
    }
}
