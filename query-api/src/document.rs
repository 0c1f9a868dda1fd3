//! Parsing a query document, with every check that must come before anything walks it.

use std::collections::HashSet;

use async_graphql::parser::types::{
    Directive, DocumentOperations, ExecutableDocument, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::parser::{self, Error as ParseError};
use async_graphql::{Name, Positioned, Value, Variables};

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

/// Gives each variable of `operation` that has no value its default, or says which one lacks a value that it must have (GraphQL, section 6.1.2).
///
/// async-graphql does so where a variable is used in an argument, and not where it is used in `@skip` and `@include`.
pub fn provide(operation: &OperationDefinition, variables: &mut Variables) -> Result<(), String> {
    for definition in operation.variable_definitions.iter().map(|definition| &definition.node) {
        let (name, kind) = (&definition.name.node, &definition.var_type.node);
        match (variables.get(name), &definition.default_value) {
            (None, Some(default)) => drop(variables.insert(name.clone(), default.node.clone())),
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

/// Puts the fragments that the operation of that name, or the only one, has on its root in their places, where they are on `root` or on no type in
/// particular, and leaves out those that are used nowhere else. async-graphql subscribes to no field that comes by a fragment.
///
/// The document must be within the limits: a fragment that contains itself would never end.
pub fn flatten_root(document: &mut ExecutableDocument, name: Option<&str>, root: &str) {
    let before = used(document);
    let fragments = document.fragments.clone();
    let operation = match (&mut document.operations, name) {
        (DocumentOperations::Single(operation), _) => Some(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get_mut(name),
        (DocumentOperations::Multiple(operations), None) => operations.values_mut().next(),
    };
    let Some(operation) = operation else { return };
    let selections = &mut operation.node.selection_set.node;
    let mut flat = Vec::new();
    for selection in std::mem::take(&mut selections.items) {
        put_in_place(selection, &[], &Root { name: root, fragments: &fragments }, &mut flat);
    }
    selections.items = flat;
    let after = used(document);
    document.fragments.retain(|name, _| after.contains(name) || !before.contains(name));
}

struct Root<'a> {
    name: &'a str,
    fragments: &'a std::collections::HashMap<Name, Positioned<FragmentDefinition>>,
}

/// Adds `selection`, under the `directives` of what is around it, to `flat`.
fn put_in_place(
    mut selection: Positioned<Selection>,
    directives: &[Positioned<Directive>],
    root: &Root<'_>,
    flat: &mut Vec<Positioned<Selection>>,
) {
    let is_on_root = |on: &Name| on.as_str() == root.name;
    let within = match &selection.node {
        Selection::InlineFragment(fragment)
            if fragment.node.type_condition.as_ref().is_none_or(|condition| is_on_root(&condition.node.on.node)) =>
        {
            Some((&fragment.node.selection_set.node, &fragment.node.directives))
        }
        Selection::FragmentSpread(spread) => root
            .fragments
            .get(&spread.node.fragment_name.node)
            .filter(|fragment| is_on_root(&fragment.node.type_condition.node.on.node))
            .map(|fragment| (&fragment.node.selection_set.node, &spread.node.directives)),
        Selection::Field(_) | Selection::InlineFragment(_) => None,
    };
    if let Some((selections, own)) = within {
        let directives = [directives, own].concat();
        for selection in &selections.items {
            put_in_place(selection.clone(), &directives, root, flat);
        }
        return;
    }
    let own = match &mut selection.node {
        Selection::Field(field) => &mut field.node.directives,
        Selection::InlineFragment(fragment) => &mut fragment.node.directives,
        Selection::FragmentSpread(spread) => &mut spread.node.directives,
    };
    own.splice(0..0, directives.iter().cloned());
    flat.push(selection);
}

/// The fragments that its operations use, also by way of others.
fn used(document: &ExecutableDocument) -> HashSet<Name> {
    let mut used = HashSet::new();
    let mut ahead: Vec<_> = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node).collect();
    while let Some(selections) = ahead.pop() {
        for selection in &selections.items {
            match &selection.node {
                Selection::Field(field) => ahead.push(&field.node.selection_set.node),
                Selection::InlineFragment(fragment) => ahead.push(&fragment.node.selection_set.node),
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if used.insert(name.clone()) {
                        ahead.extend(document.fragments.get(name).map(|fragment| &fragment.node.selection_set.node));
                    }
                }
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(query: &str) -> (Vec<String>, usize) {
        let mut document = parse(query).expect("a document within the limits");
        flatten_root(&mut document, None, "S");
        let items = operation(&document, None).expect("one operation").selection_set.node.items.iter();
        let shown = items.map(|item| match &item.node {
            Selection::Field(field) => {
                let directives = field.node.directives.iter().map(|directive| format!(" @{}", directive.node.name.node));
                format!("{}{}", field.node.name.node, directives.collect::<String>())
            }
            Selection::InlineFragment(_) => "inline".to_owned(),
            Selection::FragmentSpread(spread) => format!("...{}", spread.node.fragment_name.node),
        });
        (shown.collect(), document.fragments.len())
    }

    #[test]
    fn fragments_on_the_root_are_put_in_their_places_with_what_is_asked_of_them() {
        let f = "fragment F on S { a @x ... @y { b } }";
        assert_eq!(flat(&format!("subscription {{ ...F @z }} {f}")), (vec!["a @z @x".to_owned(), "b @z @y".to_owned()], 0));
        assert_eq!(flat("subscription { ... on S { a } ... on T { b } }").0, ["a", "inline"]);
        assert_eq!(
            flat("subscription { a { ...G } ...Missing } fragment G on T { b }"),
            (vec!["a".to_owned(), "...Missing".to_owned()], 1)
        );
        // One that nothing uses is still found by validation.
        assert_eq!(flat("subscription { ...F } fragment F on S { a { ...G } } fragment G on T { b } fragment U on T { b }").1, 2);
    }

    #[test]
    fn variables_have_values_or_defaults() {
        let document = parse("query ($a: Int = 1, $b: Int, $c: Boolean!) { a }").expect("a document");
        let operation = operation(&document, None).expect("one operation");
        let mut variables = Variables::default();
        let missing = provide(operation, &mut variables).expect_err("$c has none");
        assert!(missing.contains("$c of the type Boolean!"), "{missing}");
        variables.insert(Name::new("c"), Value::Null);
        let null = provide(operation, &mut variables).expect_err("$c is null");
        assert!(null.contains("$c is null"), "{null}");
        variables.insert(Name::new("c"), Value::Boolean(true));
        provide(operation, &mut variables).expect("all are there");
        assert_eq!(variables.get(&Name::new("a")), Some(&Value::from(1)));
        assert_eq!(variables.get(&Name::new("b")), None);
    }
}
