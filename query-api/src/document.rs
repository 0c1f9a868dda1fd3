//! Parsing a query document, with every check that must come before anything walks it.

mod root;

use async_graphql::parser::types::{
    BaseType, DocumentOperations, ExecutableDocument, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::parser::{self, Error as ParseError};
use async_graphql::{Value, Variables};

pub use self::root::flatten_root;
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

/// The operation of that name, or the only one; `None` if that cannot be told, which execution then says.
pub fn operation<'a>(document: &'a ExecutableDocument, name: Option<&str>) -> Option<&'a OperationDefinition> {
    let operation = match (&document.operations, name) {
        (DocumentOperations::Single(operation), _) => Some(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
        (DocumentOperations::Multiple(operations), None) => operations.values().next().filter(|_| operations.len() == 1),
    };
    operation.map(|operation| &operation.node)
}

/// Gives each Boolean variable of `operation` that has no value its default, or says which one of any type lacks a value that it must have
/// (GraphQL, section 6.1.2).
///
/// async-graphql does so where a variable is used in an argument, and not where it is used in `@skip` and `@include`.
pub fn provide(operation: &OperationDefinition, variables: &mut Variables) -> Result<(), String> {
    for definition in operation.variable_definitions.iter().map(|definition| &definition.node) {
        let (name, kind) = (&definition.name.node, &definition.var_type.node);
        match (variables.get(name), &definition.default_value) {
            (None, Some(default)) if matches!(&kind.base, BaseType::Named(named) if named == "Boolean") => {
                variables.insert(name.clone(), default.node.clone());
            }
            (None, None) if !kind.nullable => {
                return Err(format!("the variable ${name} of the type {kind} has no value: give it one, or a default"));
            }
            (Some(Value::Null), _) if !kind.nullable => {
                return Err(format!("the variable ${name} is null, which its type {kind} does not allow"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_graphql::Name;

    use super::*;

    #[test]
    fn variables_have_values_or_defaults() {
        let document = parse("query ($a: Boolean! = true, $b: Boolean, $c: Boolean!, $d: Int = 1) { a }").expect("a document");
        let operation = operation(&document, None).expect("one operation");
        let mut variables = Variables::default();
        let missing = provide(operation, &mut variables).expect_err("$c has none");
        assert!(missing.contains("$c of the type Boolean!"), "{missing}");
        variables.insert(Name::new("c"), Value::Null);
        let null = provide(operation, &mut variables).expect_err("$c is null");
        assert!(null.contains("$c is null"), "{null}");
        variables.insert(Name::new("c"), Value::Boolean(true));
        provide(operation, &mut variables).expect("all are there");
        assert_eq!(variables.get(&Name::new("a")), Some(&Value::from(true)));
        assert_eq!(variables.get(&Name::new("b")), None);
        // Arguments get theirs from async-graphql, which takes what is given for values of all operations.
        assert_eq!(variables.get(&Name::new("d")), None);
    }
}
