//! Which operations are executed: any, or only those that are listed in a file.
//!
//! A list is what the build of a client writes: Relay's persisted queries (an object of texts by id) or Apollo's persisted query manifest.
//! Whoever asks for a listed operation may send its text, its id as `documentId`, or its SHA-256 as Apollo's clients do, in
//! `extensions.persistedQuery.sha256Hash`. An id is the list's own, or `sha256:` and the SHA-256 of the text in hex.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::document;

/// The operations that are executed. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Operations(Option<Arc<Listed>>);

#[derive(Debug, Default)]
struct Listed {
    by_id: HashMap<String, Arc<str>>,
    texts: HashSet<Arc<str>>,
}

/// How a request names its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its text.
    Text(String),
    /// By the id of a listed one.
    Id(String),
    /// By the SHA-256 of its text in hex, as Apollo's clients do. They send the text next if the server does not know the hash.
    Hash(String),
}

/// Why an operation is not executed. The texts for hashes are those that Apollo's clients look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotExecuted {
    /// There is a list, and the text is not on it.
    #[error("only operations that are listed are executed here, and this is none of them")]
    NotListed,
    /// There is a list without that id.
    #[error("no listed operation has this documentId")]
    UnknownId,
    /// There is no list, so there are no ids.
    #[error("no operations are listed here: send the query itself instead of a documentId")]
    NoIds,
    /// There is a list without that hash.
    #[error("PersistedQueryNotFound")]
    UnknownHash,
    /// There is no list, so nothing is known by a hash.
    #[error("PersistedQueryNotSupported")]
    NoHashes,
}

/// The formats of a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Format {
    Apollo { format: String, operations: Vec<ApolloOperation> },
    Relay(HashMap<String, String>),
}

#[derive(Deserialize)]
struct ApolloOperation {
    id: String,
    body: String,
}

const APOLLO_FORMAT: &str = "apollo-persisted-query-manifest";

impl Operations {
    /// Any that are within the limits.
    pub fn any() -> Self {
        Self(None)
    }

    /// Those of a list's file; or what is wrong with it.
    ///
    /// Each text must be GraphQL and within the limits of this service; whether it fits the schema is known when it is executed.
    pub fn listed(file: &Path) -> Result<Self, String> {
        let bytes = fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
        Self::from_list(&bytes)
    }

    fn from_list(bytes: &[u8]) -> Result<Self, String> {
        let wanted = "must be an object of queries by id, or an Apollo persisted query manifest";
        let operations: Vec<(String, String)> = match serde_json::from_slice(bytes) {
            Ok(Format::Apollo { format, operations }) if format == APOLLO_FORMAT => {
                operations.into_iter().map(|operation| (operation.id, operation.body)).collect()
            }
            Ok(Format::Apollo { format, .. }) => return Err(format!("{wanted}, not {format:?}")),
            Ok(Format::Relay(operations)) => operations.into_iter().collect(),
            Err(error) => return Err(format!("{wanted}: {error}")),
        };
        let mut listed = Listed::default();
        for (id, text) in operations {
            document::parse(&text).map_err(|error| format!("the operation {id:?} cannot be executed: {error}"))?;
            let text: Arc<str> = text.into();
            listed.by_id.insert(format!("sha256:{}", sha256(&text)), Arc::clone(&text));
            listed.by_id.insert(id, Arc::clone(&text));
            listed.texts.insert(text);
        }
        Ok(Self(Some(Arc::new(listed))))
    }

    /// The text of the operation, if it may be executed.
    pub fn text_of(&self, named: Named) -> Result<Arc<str>, NotExecuted> {
        match (&self.0, named) {
            (None, Named::Text(text)) => Ok(text.into()),
            (None, Named::Id(_)) => Err(NotExecuted::NoIds),
            (None, Named::Hash(_)) => Err(NotExecuted::NoHashes),
            (Some(listed), Named::Text(text)) => listed.texts.get(text.as_str()).cloned().ok_or(NotExecuted::NotListed),
            (Some(listed), Named::Id(id)) => listed.by_id.get(&id).cloned().ok_or(NotExecuted::UnknownId),
            (Some(listed), Named::Hash(hash)) => {
                listed.by_id.get(&format!("sha256:{hash}")).cloned().ok_or(NotExecuted::UnknownHash)
            }
        }
    }
}

fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        write!(hex, "{byte:02x}").expect("writing to a string never fails");
    }
    hex
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "{ projections { name } }";

    fn listed(list: &serde_json::Value) -> Operations {
        Operations::from_list(list.to_string().as_bytes()).expect("a good list")
    }

    #[test]
    fn a_listed_operation_is_known_by_its_text_its_id_and_its_hash() {
        let apollo = json!({"format": APOLLO_FORMAT, "version": 1, "operations": [
            {"id": "p", "name": "P", "type": "query", "body": TEXT},
        ]});
        for operations in [listed(&json!({"p": TEXT})), listed(&apollo)] {
            let hash = sha256(TEXT);
            for named in [
                Named::Text(TEXT.to_owned()),
                Named::Id("p".to_owned()),
                Named::Id(format!("sha256:{hash}")),
                Named::Hash(hash.clone()),
            ] {
                assert_eq!(operations.text_of(named).as_deref(), Ok(TEXT));
            }
            assert_eq!(operations.text_of(Named::Text(format!("{TEXT} "))), Err(NotExecuted::NotListed));
            assert_eq!(operations.text_of(Named::Id(hash)), Err(NotExecuted::UnknownId));
            assert_eq!(operations.text_of(Named::Hash("p".to_owned())), Err(NotExecuted::UnknownHash));
        }
    }

    #[test]
    fn without_a_list_there_are_texts_alone() {
        let any = Operations::any();
        assert_eq!(any.text_of(Named::Text("{ a }".to_owned())).as_deref(), Ok("{ a }"));
        assert_eq!(any.text_of(Named::Id("p".to_owned())), Err(NotExecuted::NoIds));
        assert_eq!(any.text_of(Named::Hash("p".to_owned())), Err(NotExecuted::NoHashes));
    }

    #[test]
    fn what_is_no_list_is_refused_with_what_is_wrong() {
        for (list, wrong) in [
            (json!([]), "must be an object of queries by id"),
            (json!({"p": 1}), "must be an object of queries by id"),
            (json!({"format": "other", "operations": []}), "not \"other\""),
            (json!({"p": "{ a"}), "the operation \"p\" cannot be executed"),
            (json!({"p": "{ a ".repeat(70)}), "the operation \"p\" cannot be executed: the query nests more than 64 brackets"),
        ] {
            let error = Operations::from_list(list.to_string().as_bytes()).expect_err("no list");
            assert!(error.contains(wrong), "{error}");
        }
    }
}
