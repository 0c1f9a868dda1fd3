//! What the stored events are, as documents for those who read the log without our types, in any language: `docs/events/`.
//!
//! * `<event type>.schema.json`: the `data` of one version of one event, as JSON Schema 2020-12.
//! * `asyncapi.json`: the whole log, as AsyncAPI 3.0: where the events are, the envelope around each, and an example of each.
//!
//! All of it is generated from the types that read and write the events, by way of [`domain::catalogue`]. An event that is added to
//! `event_enum!`, or an older shape to `older_shapes!`, is in it; a test fails until its files are committed, too. `cargo xtask catalogue`
//! writes them.
//!
//! The types derive `JsonSchema` whether or not anybody asks for the catalogue. A cargo feature would put a `cfg_attr` on each of
//! some thirty types, and as cargo joins the features of all that it builds together, every build of the workspace would have it
//! on anyway. What that costs a service is the time to compile schemars once: nothing of it is linked into a program that does not ask.
//!
//! This crate has no IO but on those files and on the golden files, which are the examples.

mod asyncapi;
mod schemas;

mod files;

pub use files::{COMMAND, FileError, difference, write};

use std::collections::BTreeMap;

/// The name and the text of every file of the catalogue.
pub fn documents() -> Result<BTreeMap<String, String>, FileError> {
    let mut documents: BTreeMap<_, _> = schemas::documents().map(|(name, schema)| (name, files::text(&schema))).collect();
    documents.insert("asyncapi.json".to_owned(), files::text(&asyncapi::document()?));
    Ok(documents)
}
