//! How much of what all share each customer has: none gets so much that nothing is left for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use auth::{Caller, Role};

/// What each customer has of one kind. Services, and people of the shop, act for many and are not limited; nor is anybody where nobody is asked
/// who they are. Clones share one state.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    most: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// One of a caller's, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Shares,
    /// None of those who are not limited.
    customer: Option<String>,
}

impl Shares {
    /// Each customer may have so many at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// One more for the caller; none if they have all that they may.
    pub(super) fn take(&self, caller: &Caller) -> Option<Share> {
        let customer = (caller.role() == Some(Role::Customer)).then(|| caller.actor());
        if let Some(customer) = &customer {
            let mut taken = self.taken();
            let count = taken.get(customer).copied().unwrap_or_default();
            if count >= self.most {
                return None;
            }
            taken.insert(customer.clone(), count + 1);
        }
        Some(Share { of: self.clone(), customer })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(customer) = &self.customer else { return };
        let mut taken = self.of.taken();
        if let Some(count) = taken.get_mut(customer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(customer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_customer_has_a_share_and_who_acts_for_many_as_many_as_they_like() {
        let caller = |role, subject| Caller::new(role, subject, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        let shares = Shares::new(2);
        let ada = caller(Role::Customer, "ada");
        let mut taken: Vec<_> = (0..2).map(|_| shares.take(&ada).expect("a share")).collect();
        assert!(shares.take(&ada).is_none());
        assert!(shares.take(&caller(Role::Customer, "bob")).is_some());
        for unlimited in [caller(Role::Service, "ada"), caller(Role::Operator, "ada"), Caller::anyone()] {
            taken.extend((0..10).map(|_| shares.take(&unlimited).expect("there is no limit")));
        }
        assert!(shares.take(&ada).is_none());
        taken.remove(0);
        assert!(shares.take(&ada).is_some());
        taken.clear();
        assert!(shares.taken().is_empty(), "nothing is kept of those who have nothing");
    }
}
