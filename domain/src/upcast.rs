//! How events stored in an older shape are read today.
//!
//! Stored bytes are never rewritten. When an event's shape changes, the new shape gets a new type name (`….v2`) and the
//! old one an upcaster here: a pure function from the old data to the current data, applied on every read. The golden
//! file of the old shape stays in `domain/tests/golden/` and proves that it can still be read.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::DecodeError;

/// The current type name and data of an event stored under `event_type`, or `None` if that is current already.
pub(crate) fn to_current(event_type: &str, data: &RawValue) -> Result<Option<(&'static str, Box<RawValue>)>, DecodeError> {
    match event_type {
        "contrail.stock.received.v0" => {
            let failed = |source| DecodeError::Data { event_type: event_type.to_owned(), source };
            let old: StockReceivedV0 = serde_json::from_str(data.get()).map_err(failed)?;
            let current = serde_json::json!({
                "quantity": old.units,
                "reference": old.delivery_note.unwrap_or_else(|| "unknown".to_owned()),
                "received_at": old.at,
            });
            let current = serde_json::value::to_raw_value(&current).map_err(failed)?;
            Ok(Some(("contrail.stock.received.v1", current)))
        }
        _ => Ok(None),
    }
}

/// Goods came in, before references were required and fields were named as in the API. The worked example: copy it.
#[derive(Deserialize)]
struct StockReceivedV0 {
    units: u32,
    delivery_note: Option<String>,
    at: String,
}
