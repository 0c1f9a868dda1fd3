//! The catalogue is complete, is what is committed, and says of events what is so.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod documents;

mod asyncapi;
mod schemas;

mod any_event;
mod validator;
