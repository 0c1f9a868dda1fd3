//! Parsing a query document, with every check that must come before anything walks it.

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::parser::{self, Error as ParseError};

use crate::limits::{self, Excess};

/// Why a document cannot be executed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is larger than any that is executed.
    #[error(transparent)]
    Exceeds(#[from] Excess),
    /// It is not GraphQL.
    #[error(transparent)]
    NoGraphql(#[from] ParseError),
}

/// Parses a document that is within the limits.
pub fn parse(text: &str) -> Result<ExecutableDocument, DocumentError> {
    limits::check_text(text)?;
    let document = parser::parse_query(text)?;
    limits::check_document(&document)?;
    Ok(document)
}

/// Whether any part of it asks for the schema itself (GraphQL, section 4).
pub fn introspects(document: &ExecutableDocument) -> bool {
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operations.chain(fragments).any(selects_schema)
}

fn selects_schema(selections: &SelectionSet) -> bool {
    selections.items.iter().any(|selection| match &selection.node {
        Selection::Field(field) => matches!(field.node.name.node.as_str(), "__schema" | "__type"),
        Selection::InlineFragment(fragment) => selects_schema(&fragment.node.selection_set.node),
        // Fragments are looked at by themselves.
        Selection::FragmentSpread(_) => false,
    })
}
