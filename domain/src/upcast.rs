//! How events stored in an older shape are read today.
//!
//! Stored bytes are never rewritten. When an event's shape changes, the new shape gets a new type name (`….v2`) and the
//! old one an upcaster here: a pure function from the old data to the current data, applied on every read. The golden
//! file of the old shape stays in `domain/tests/golden/` and proves that it can still be read.
//!
//! To add one: a struct of the old shape, its `OlderShape`, and its name in `older_shapes!`.

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use crate::{
    DecodeError,
    catalogue::{EventSchema, OlderEvent},
    rfc3339::Rfc3339,
};

/// The data of an event as it was stored once.
trait OlderShape: DeserializeOwned + JsonSchema {
    /// Under which type name.
    const EVENT_TYPE: &'static str;
    /// The type name of today. When that changes, it changes for all older shapes.
    const READ_AS: &'static str;

    /// The data as it would be stored today.
    fn into_current(self) -> Value;
}

/// Lists the older shapes: what is not among them is neither read nor in the catalogue. Two functions and not one table, so that a
/// program that only reads does not link what describes.
macro_rules! older_shapes {
    ($($shape:ident),+) => {
        /// The current type name and data of an event stored under `event_type`, or `None` if that is current already.
        pub(crate) fn to_current(event_type: &str, data: &str) -> Result<Option<(&'static str, Box<RawValue>)>, DecodeError> {
            match event_type {
                $($shape::EVENT_TYPE => upcast::<$shape>(data).map(Some),)+
                _ => Ok(None),
            }
        }

        /// The type names of the older shapes.
        pub(crate) const OLDER_TYPES: &[&str] = &[$($shape::EVENT_TYPE),+];

        /// What the catalogue says of the older shapes.
        pub(crate) fn older_events() -> Vec<OlderEvent> {
            vec![$(OlderEvent { schema: EventSchema::of::<$shape>($shape::EVENT_TYPE), read_as: $shape::READ_AS }),+]
        }
    };
}

older_shapes![StockReceivedV0];

fn upcast<T: OlderShape>(data: &str) -> Result<(&'static str, Box<RawValue>), DecodeError> {
    let failed = |source: serde_json::Error| DecodeError::Data { event_type: T::EVENT_TYPE.to_owned(), source: source.into() };
    let old: T = serde_json::from_str(data).map_err(failed)?;
    let current = serde_json::value::to_raw_value(&old.into_current()).map_err(failed)?;
    Ok((T::READ_AS, current))
}

// The worked example: copy it.
/// Goods came in, before references were required and fields were named as in the API.
#[derive(Deserialize, JsonSchema)]
struct StockReceivedV0 {
    /// How many pieces.
    units: u32,
    /// The delivery note, if there was one.
    delivery_note: Option<String>,
    /// When.
    #[schemars(with = "Rfc3339")]
    at: String,
}

impl OlderShape for StockReceivedV0 {
    const EVENT_TYPE: &'static str = "contrail.stock.received.v0";
    const READ_AS: &'static str = "contrail.stock.received.v1";

    fn into_current(self) -> Value {
        json!({
            "quantity": self.units,
            "reference": self.delivery_note.unwrap_or_else(|| "unknown".to_owned()),
            "received_at": self.at,
        })
    }
}
