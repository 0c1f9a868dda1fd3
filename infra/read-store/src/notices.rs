//! How a reader learns that a read model moved: `LISTEN contrail_projections`.
//!
//! The notice is sent in the transaction that moves the read model, so who hears it sees what it says.

use serde::{Deserialize, Serialize};

use crate::projections::ProjectionName;

/// The channel to listen on.
pub const CHANNEL: &str = "contrail_projections";

/// The payload of one notification, as JSON: `{"name":"orders","position":123}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Which read model moved.
    pub name: ProjectionName,
    /// Up to which event it is applied now.
    pub position: u64,
}

impl Notice {
    /// The payload to send.
    pub fn to_payload(self) -> String {
        format!(r#"{{"name":"{}","position":{}}}"#, self.name, self.position)
    }

    /// Reads a payload; `None` for one that another build sent and this one does not understand.
    pub fn from_payload(payload: &str) -> Option<Self> {
        serde_json::from_str(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_back_as_what_was_sent() {
        let notice = Notice { name: ProjectionName::Orders, position: 123 };
        assert_eq!(notice.to_payload(), r#"{"name":"orders","position":123}"#);
        assert_eq!(Notice::from_payload(&notice.to_payload()), Some(notice));
        assert_eq!(Notice::from_payload(r#"{"name":"returns","position":1}"#), None);
    }
}
