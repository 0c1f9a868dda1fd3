//! A validator of JSON Schema that is not ours, and the golden files, which are what it validates.

use std::{collections::BTreeSet, fs, path::PathBuf};

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value;

fn golden_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../domain/tests/golden"))
}

/// The event types that have a golden file.
pub(crate) fn golden_types() -> BTreeSet<String> {
    let files = fs::read_dir(golden_folder()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    files.map(|name| name.strip_suffix(".json").unwrap().to_owned()).collect()
}

/// The golden file of `event_type`.
pub(crate) fn golden(event_type: &str) -> Value {
    serde_json::from_slice(&fs::read(golden_folder().join(format!("{event_type}.json"))).unwrap()).unwrap()
}

/// Decides whether a value is what one schema of the catalogue says.
pub(crate) struct Validator {
    schemas: Schemas,
    schema: SchemaIndex,
}

impl Validator {
    /// Of the schema at `pointer` in the file `name` of the catalogue.
    pub(crate) fn new(name: &str, pointer: &str) -> Self {
        const BASE: &str = "https://contrail.test/";
        let document = serde_json::from_str(&catalogue::documents().unwrap()[name]).unwrap();
        let mut compiler = Compiler::new();
        // What AsyncAPI's schemas are; the others name their draft.
        compiler.set_default_draft(Draft::V7);
        compiler.enable_format_assertions();
        compiler.add_resource(&format!("{BASE}{name}"), document).unwrap();
        let mut schemas = Schemas::new();
        let schema = compiler.compile(&format!("{BASE}{name}#{pointer}"), &mut schemas).unwrap_or_else(|error| panic!("{error}"));
        Self { schemas, schema }
    }

    /// Of the data of an event.
    pub(crate) fn of_data(event_type: &str) -> Self {
        Self::new(&format!("{event_type}.schema.json"), "")
    }

    /// Of a whole stored message.
    pub(crate) fn of_message(event_type: &str) -> Self {
        Self::new("asyncapi.json", &format!("/components/messages/{event_type}/payload"))
    }

    pub(crate) fn takes(&self, value: &Value) -> bool {
        self.schemas.validate(value, self.schema).is_ok()
    }

    /// Why not, if it is refused.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        self.schemas.validate(value, self.schema).map_err(|error| format!("{error} in {value}"))
    }
}
