//! The business rules, told as given/when/then, and their laws.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod given;
mod golden;
mod laws;
mod notification;
mod order;
mod payment;
mod settlement;
mod states;
mod stock;
