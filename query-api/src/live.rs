//! What happens to orders, as it happens.
//!
//! One task ([`follow`]) reads the audit trail as it grows, once for all, and hands each event to those who listen to its order. A
//! [`Follower`] is one of them: it first reads what there is, then takes what comes, and hands out every event of its order in the order of
//! the log, none left out and none twice. It cannot be outrun: of one that is slow only a few events are kept, and what came after those it
//! reads again by itself.
//!
//! The trail is a read model, so whatever becomes of the projectors is seen here as no more than a pause.

mod follower;
mod listeners;
mod tail;

pub use follower::{Followed, Follower, Ground};
pub use listeners::{Listening, Live};
pub use tail::follow;
