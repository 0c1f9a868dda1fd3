//! The simulator over real connections, in this process and as a process of its own.

mod faults;
mod idempotency;
mod payment_intents;
mod process;
mod refunds;
mod running;
mod stripe_adapter;
