//! How often a caller may come.

use std::{num::NonZeroU32, time::Duration};

use governor::{DefaultKeyedRateLimiter, Quota, clock::Clock, clock::DefaultClock};

use crate::access::{Caller, Role};

/// Requests per second that a customer may make, unless set otherwise. As many may come at once.
pub const CUSTOMER_REQUESTS_PER_S_DEFAULT: u32 = 50;

/// Requests per second, for each caller by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// A customer's; `None` is no limit.
    pub customer: Option<NonZeroU32>,
    /// A service's, an operator's or an auditor's; `None` is no limit.
    pub staff: Option<NonZeroU32>,
}

/// Counts.
pub(crate) struct Limiter {
    customers: Option<DefaultKeyedRateLimiter<String>>,
    staff: Option<DefaultKeyedRateLimiter<String>>,
}

impl Limiter {
    pub(crate) fn new(limits: RateLimits) -> Self {
        let keyed = |per_s: Option<NonZeroU32>| per_s.map(|per_s| DefaultKeyedRateLimiter::keyed(Quota::per_second(per_s)));
        Self { customers: keyed(limits.customer), staff: keyed(limits.staff) }
    }

    /// Counts a request; if it is one too many, for how long to wait.
    pub(crate) fn count(&self, caller: &Caller) -> Result<(), Duration> {
        let limiter = match caller.role() {
            None => None,
            Some(Role::Customer) => self.customers.as_ref(),
            Some(Role::Service | Role::Operator | Role::Auditor) => self.staff.as_ref(),
        };
        let Some(limiter) = limiter else { return Ok(()) };
        limiter.check_key(&caller.actor()).map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets those who have not come for a while.
    pub(crate) fn forget_idle(&self) {
        for limiter in [&self.customers, &self.staff].into_iter().flatten() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// A wait in whole seconds, for `Retry-After`.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::access::now;

    #[test]
    fn each_caller_has_their_own_limit() {
        let limits = RateLimits { customer: NonZeroU32::new(3), staff: None };
        let limiter = Limiter::new(limits);
        let customer = |id: &str| Caller::new(Role::Customer, id, now() + Duration::from_secs(60));
        let started = Instant::now();
        for _ in 0..3 {
            assert_eq!(limiter.count(&customer("c-1")), Ok(()));
        }
        let refused = limiter.count(&customer("c-1"));
        // Unless the machine slept meanwhile.
        assert!(refused.is_err() || started.elapsed() > Duration::from_millis(300));
        assert_eq!(refused.map_err(whole_seconds), Err(1));
        assert_eq!(limiter.count(&customer("c-2")), Ok(()));
        let service = Caller::new(Role::Service, "checkout", now() + Duration::from_secs(60));
        for _ in 0..100 {
            assert_eq!((limiter.count(&service), limiter.count(&Caller::anyone())), (Ok(()), Ok(())));
        }
        limiter.forget_idle();
    }
}
