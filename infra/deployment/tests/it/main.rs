//! What is shipped to run Contrail elsewhere is as safe as the local stack, and fits the code.

#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

mod files;
mod rules;

mod compose;
mod images;
mod kubernetes;
mod nats;
mod postgres;

mod interop;
