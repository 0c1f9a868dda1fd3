//! The fields on the root of a subscription, collected as GraphQL has it.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_graphql::parser::types::{
    Directive, DocumentOperations, ExecutableDocument, Field, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, Value, Variables};
use async_graphql_value::Value as Expression;

/// Puts the fragments that the operation of that name, or the only one, has on its root in their places, where they are on `root` or on no type
/// in particular, and makes one of fields that are asked for more than once (GraphQL, section 6.3.2). async-graphql subscribes to no field that
/// comes by a fragment, and once for each field, whatever its key.
///
/// `@skip` and `@include` on the root are decided upon. What is used nowhere any more, of the fragments and variables, is left out. Takes time
/// and memory in proportion to the document, which must be within the limits: a fragment that contains itself would never end.
pub fn flatten_root(document: &mut ExecutableDocument, name: Option<&str>, root: &str, variables: &Variables) {
    let before = Used::by(document);
    let fragments = document.fragments.clone();
    let operation = match (&mut document.operations, name) {
        (DocumentOperations::Single(operation), _) => Some(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get_mut(name),
        (DocumentOperations::Multiple(operations), None) => operations.values_mut().next(),
    };
    let Some(operation) = operation else { return };
    let operation = &mut operation.node;
    let mut root = Root { name: root, fragments: &fragments, variables, placed: HashSet::new(), selections: Vec::new() };
    root.place_all(&operation.selection_set.node);
    operation.selection_set.node.items = root.selections;
    let after = Used::by(document);
    document.fragments.retain(|name, _| after.fragments.contains(name) || !before.fragments.contains(name));
    let is_used = |name: &Name| after.variables.contains(name) || !before.variables.contains(name);
    match &mut document.operations {
        DocumentOperations::Single(operation) => retain_variables(operation, is_used),
        DocumentOperations::Multiple(operations) => {
            for operation in operations.values_mut() {
                retain_variables(operation, is_used);
            }
        }
    }
}

fn retain_variables(operation: &mut Positioned<OperationDefinition>, is_used: impl Fn(&Name) -> bool) {
    operation.node.variable_definitions.retain(|definition| is_used(&definition.node.name.node));
}

/// A root that is being made flat.
struct Root<'a> {
    name: &'a str,
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    variables: &'a Variables,
    /// The fragments that are in their places: one that is used again there says nothing new.
    placed: HashSet<Name>,
    selections: Vec<Positioned<Selection>>,
}

impl Root<'_> {
    fn place_all(&mut self, selections: &SelectionSet) {
        for selection in &selections.items {
            self.place(selection);
        }
    }

    fn place(&mut self, selection: &Positioned<Selection>) {
        let directives = match &selection.node {
            Selection::Field(field) => &field.node.directives,
            Selection::InlineFragment(fragment) => &fragment.node.directives,
            Selection::FragmentSpread(spread) => &spread.node.directives,
        };
        let Some(undecided) = self.undecided(directives) else { return };
        let is_on_root = |on: &Name| on.as_str() == self.name;
        match &selection.node {
            Selection::Field(field) => self.ask_for(field, undecided),
            // What is not known as a directive is for validation to refuse, where it stands.
            Selection::InlineFragment(fragment)
                if undecided.is_empty()
                    && fragment.node.type_condition.as_ref().is_none_or(|condition| is_on_root(&condition.node.on.node)) =>
            {
                self.place_all(&fragment.node.selection_set.node);
            }
            Selection::FragmentSpread(spread) if undecided.is_empty() => {
                let (name, fragments) = (&spread.node.fragment_name.node, self.fragments);
                match fragments.get(name).filter(|fragment| is_on_root(&fragment.node.type_condition.node.on.node)) {
                    Some(fragment) => {
                        if self.placed.insert(name.clone()) {
                            self.place_all(&fragment.node.selection_set.node);
                        }
                    }
                    None => self.selections.push(selection.clone()),
                }
            }
            Selection::InlineFragment(_) | Selection::FragmentSpread(_) => self.selections.push(selection.clone()),
        }
    }

    /// Adds `field`, or what it selects to the same field.
    fn ask_for(&mut self, field: &Positioned<Field>, directives: Vec<Positioned<Directive>>) {
        let same = self.selections.iter_mut().find_map(|selection| match &mut selection.node {
            Selection::Field(earlier) if directives.is_empty() && is_same(&earlier.node, &field.node) => Some(&mut earlier.node),
            _ => None,
        });
        if let Some(earlier) = same {
            earlier.selection_set.node.items.extend_from_slice(&field.node.selection_set.node.items);
            return;
        }
        let pos = field.pos;
        let field = Positioned::new(Field { directives, ..field.node.clone() }, pos);
        self.selections.push(Positioned::new(Selection::Field(field), pos));
    }

    /// Which of `directives` are not decided upon here; `None` if what has them is left out. One that is there twice is for validation to refuse.
    fn undecided(&self, directives: &[Positioned<Directive>]) -> Option<Vec<Positioned<Directive>>> {
        let mut undecided = Vec::new();
        for directive in directives {
            let name = &directive.node.name.node;
            let count = directives.iter().filter(|other| other.node.name.node == *name).count();
            let condition = if count == 1 { self.condition(&directive.node) } else { None };
            match (name.as_str(), condition) {
                ("skip", Some(true)) | ("include", Some(false)) => return None,
                ("skip" | "include", Some(_)) => {}
                _ => undecided.push(directive.clone()),
            }
        }
        Some(undecided)
    }

    /// What `if` is, should it be the only argument and a Boolean.
    fn condition(&self, directive: &Directive) -> Option<bool> {
        let [(name, value)] = directive.arguments.as_slice() else { return None };
        match &value.node {
            _ if name.node != "if" => None,
            Expression::Boolean(condition) => Some(*condition),
            Expression::Variable(variable) => match self.variables.get(variable) {
                Some(Value::Boolean(condition)) => Some(*condition),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether both are answered under one key with the same.
fn is_same(one: &Field, other: &Field) -> bool {
    let is_plain = one.directives.is_empty() && one.arguments.len() == other.arguments.len();
    is_plain && one.response_key() == other.response_key() && one.name == other.name && {
        let by_name = |field: &Field| -> BTreeMap<_, _> {
            field.arguments.iter().map(|(name, value)| (name.node.clone(), value.node.clone())).collect()
        };
        one.arguments == other.arguments || by_name(one) == by_name(other)
    }
}

/// What the operations of a document use, also by way of fragments.
#[derive(Default)]
struct Used {
    fragments: HashSet<Name>,
    variables: HashSet<Name>,
}

impl Used {
    fn by(document: &ExecutableDocument) -> Self {
        let mut used = Self::default();
        let mut ahead = Vec::new();
        for (_, operation) in document.operations.iter() {
            used.note_all(&operation.node.directives);
            ahead.push(&operation.node.selection_set.node);
        }
        while let Some(selections) = ahead.pop() {
            for selection in &selections.items {
                match &selection.node {
                    Selection::Field(field) => {
                        field.node.arguments.iter().for_each(|(_, value)| used.note(&value.node));
                        used.note_all(&field.node.directives);
                        ahead.push(&field.node.selection_set.node);
                    }
                    Selection::InlineFragment(fragment) => {
                        used.note_all(&fragment.node.directives);
                        ahead.push(&fragment.node.selection_set.node);
                    }
                    Selection::FragmentSpread(spread) => {
                        used.note_all(&spread.node.directives);
                        let name = &spread.node.fragment_name.node;
                        if used.fragments.insert(name.clone()) {
                            ahead.extend(document.fragments.get(name).map(|fragment| &fragment.node.selection_set.node));
                        }
                    }
                }
            }
        }
        used
    }

    fn note_all(&mut self, directives: &[Positioned<Directive>]) {
        let arguments = directives.iter().flat_map(|directive| &directive.node.arguments);
        arguments.for_each(|(_, value)| self.note(&value.node));
    }

    fn note(&mut self, value: &Expression) {
        match value {
            Expression::Variable(name) => drop(self.variables.insert(name.clone())),
            Expression::List(items) => items.iter().for_each(|item| self.note(item)),
            Expression::Object(fields) => fields.values().for_each(|field| self.note(field)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{operation, parse};
    use super::*;

    fn flat_with(query: &str, variables: &[(&str, bool)]) -> (Vec<String>, ExecutableDocument) {
        let mut document = parse(query).expect("a document within the limits");
        let mut values = Variables::default();
        for (name, value) in variables {
            values.insert(Name::new(name), Value::Boolean(*value));
        }
        flatten_root(&mut document, None, "S", &values);
        let items = operation(&document, None).expect("one operation").selection_set.node.items.iter();
        let shown = items.map(|item| match &item.node {
            Selection::Field(field) => {
                let directives = field.node.directives.iter().map(|directive| format!(" @{}", directive.node.name.node));
                let below = field.node.selection_set.node.items.iter().map(|item| match &item.node {
                    Selection::Field(field) => format!(".{}", field.node.name.node),
                    _ => ".?".to_owned(),
                });
                format!("{}{}{}", field.node.name.node, directives.collect::<String>(), below.collect::<String>())
            }
            Selection::InlineFragment(_) => "inline".to_owned(),
            Selection::FragmentSpread(spread) => format!("...{}", spread.node.fragment_name.node),
        });
        (shown.collect(), document)
    }

    fn flat(query: &str) -> Vec<String> {
        flat_with(query, &[]).0
    }

    #[test]
    fn fragments_on_the_root_are_put_in_their_places() {
        let (fields, document) = flat_with("subscription { ...F } fragment F on S { a @x ... { b } }", &[]);
        assert_eq!((fields, document.fragments.len()), (vec!["a @x".to_owned(), "b".to_owned()], 0));
        assert_eq!(flat("subscription { ... on S { a } ... on T { b } }"), ["a", "inline"]);
        let (fields, document) = flat_with("subscription { a { ...G } ...Missing } fragment G on T { b }", &[]);
        assert_eq!((fields, document.fragments.len()), (vec!["a.?".to_owned(), "...Missing".to_owned()], 1));
        // One that nothing uses is still found by validation, and so is a directive that there is none of.
        let unused = "subscription { ...F } fragment F on S { a { ...G } } fragment G on T { b } fragment U on T { b }";
        assert_eq!(flat_with(unused, &[]).1.fragments.len(), 2);
        assert_eq!(flat("subscription { ...F @x } fragment F on S { a }"), ["...F"]);
    }

    #[test]
    fn what_is_asked_for_twice_is_one_field() {
        assert_eq!(flat("subscription { ...F ...F a(x: 1, y: 2) { c } } fragment F on S { a(y: 2, x: 1) { b } }"), ["a.b.c"]);
        assert_eq!(flat("subscription { a(x: 1) { b } a(x: 2) { c } a: d { e } }"), ["a.b", "a.c", "d.e"]);
    }

    #[test]
    fn directives_on_the_root_are_decided_upon() {
        let query = "subscription ($x: Boolean!, $y: Boolean!, $z: Int) {
            ...F @include(if: $x) ...G @skip(if: $y) } fragment F on S { a @skip(if: false) { b } } fragment G on S { a { c(z: $z) } }";
        let (fields, document) = flat_with(query, &[("x", true), ("y", true)]);
        assert_eq!(fields, ["a.b"]);
        // Else validation would find that nothing uses them.
        assert!(operation(&document, None).expect("one").variable_definitions.is_empty());
        let (fields, document) = flat_with(query, &[("x", true), ("y", false)]);
        assert_eq!(fields, ["a.b.c"]);
        assert_eq!(operation(&document, None).expect("one").variable_definitions.len(), 1);
        // Without a value nothing can be decided, and twice is once too often.
        assert_eq!(flat_with(query, &[("x", true)]).0, ["a.b", "...G"]);
        assert_eq!(flat("subscription { a @include(if: true) @include(if: true) }"), ["a @include @include"]);
    }
}
