//! Two things that async-graphql 7.2 leaves undone in a response.
//!
//! A field that failed is null, or if its type does not allow that, whatever encloses it is null, up to the whole data (GraphQL,
//! section 6.4.4). async-graphql leaves the field out instead, whatever its type, so that callers would miss keys that their
//! generated types promise. [`FieldTypes::complete`] puts that right.
//!
//! Fields are answered in the order in which they are asked for (section 6.3.1). async-graphql answers those first that are ready
//! first, which shows where each field is a read of its own: at the root. [`RootKeys`] puts that right.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet, Type, TypeKind,
    TypeSystemDefinition,
};
use async_graphql::{Name, PathSegment, Response, Value};

/// The types of all fields of a schema.
#[derive(Clone, Debug)]
pub struct FieldTypes {
    by_type: HashMap<String, HashMap<String, Type>>,
    /// All types of the schema, those included that have no fields.
    names: HashSet<String>,
}

/// Scalars that every schema has, whether its text says so or not (GraphQL, section 3.5).
const BUILT_IN: [&str; 5] = ["Int", "Float", "String", "Boolean", "ID"];

impl FieldTypes {
    /// Those of the schema with this text.
    ///
    /// # Panics
    ///
    /// If the text is no schema.
    pub fn new(sdl: &str) -> Self {
        let document = parse_schema(sdl).expect("the schema's own text is a schema");
        let (mut by_type, mut names) = (HashMap::new(), HashSet::from(BUILT_IN.map(str::to_owned)));
        for definition in document.definitions {
            let TypeSystemDefinition::Type(named) = definition else { continue };
            names.insert(named.node.name.node.to_string());
            let fields = match named.node.kind {
                TypeKind::Object(object) => object.fields,
                TypeKind::Interface(interface) => interface.fields,
                _ => continue,
            };
            let fields = fields.into_iter().map(|field| (field.node.name.node.to_string(), field.node.ty.node));
            by_type.insert(named.node.name.node.to_string(), fields.collect());
        }
        Self { by_type, names }
    }

    /// What is wrong with a variable of `document` whose type the schema does not have. async-graphql says so itself of one that is no list, and
    /// panics where a list of it has a default.
    pub fn unknown_to(&self, document: &ExecutableDocument) -> Option<String> {
        let variables = document.operations.iter().flat_map(|(_, operation)| &operation.node.variable_definitions);
        variables
            .map(|variable| &variable.node)
            .find(|variable| !self.names.contains(named(&variable.var_type.node)))
            .map(|variable| format!("Unknown type \"{}\" of the variable ${}", named(&variable.var_type.node), variable.name.node))
    }

    /// Sets to null what must be null because of the errors of `response` to a query of `document`.
    pub fn complete(&self, response: &mut Response, document: &ExecutableDocument, operation: &OperationDefinition) {
        let mut nulls = BTreeSet::new();
        for error in &response.errors {
            if let Some(length) = self.null_at(&error.path, document, operation) {
                nulls.insert(Place(error.path[..length].to_vec()));
            }
        }
        // Shorter places come first, and what lies within a null needs no more care.
        let mut done: Vec<Place> = Vec::new();
        for place in nulls {
            if !done.iter().any(|outer| place.0.starts_with(&outer.0)) {
                set_null(&mut response.data, &place.0);
                done.push(place);
            }
        }
    }

    /// How much of the path of a failed field leads to what becomes null; `None` for a path that is none of this query.
    fn null_at(&self, path: &[PathSegment], document: &ExecutableDocument, operation: &OperationDefinition) -> Option<usize> {
        let mut selected = vec![(root(operation.ty), &operation.selection_set.node)];
        let mut current: Option<&Type> = None;
        let mut null_at = (!path.is_empty()).then_some(0)?;
        for (at, segment) in path.iter().enumerate() {
            let of = match (segment, current.map(|current| &current.base)) {
                (PathSegment::Index(_), Some(BaseType::List(item))) => item,
                (PathSegment::Index(_), _) => return None,
                (PathSegment::Field(key), _) => {
                    let mut fields = Vec::new();
                    for (parent, selections) in selected {
                        collect(document, parent, selections, key, &mut fields);
                    }
                    // Fields of one key are of the same shape, or the query would not be valid; so any of them tells.
                    let (parent, field) = fields.first()?;
                    let of = self.by_type.get(*parent)?.get(field.name.node.as_str())?;
                    selected = fields.into_iter().map(|(_, field)| (named(of), &field.selection_set.node)).collect();
                    of
                }
            };
            if of.nullable {
                null_at = at + 1;
            }
            current = Some(of);
        }
        Some(null_at)
    }
}

/// The keys of a query's root, in the order in which it asks for them.
#[derive(Clone, Debug)]
pub struct RootKeys(Vec<Name>);

impl RootKeys {
    /// Those of that operation.
    pub fn new(document: &ExecutableDocument, operation: &OperationDefinition) -> Self {
        let mut keys = Vec::new();
        push_keys(document, &operation.selection_set.node, &mut keys);
        Self(keys)
    }

    /// How many there are; one that is asked for more than once counts once.
    pub fn count(&self) -> usize {
        self.0.iter().collect::<BTreeSet<_>>().len()
    }

    /// Sorts the fields of the root.
    pub fn sort(&self, response: &mut Response) {
        if let Value::Object(fields) = &mut response.data
            && fields.len() > 1
        {
            fields.sort_by_cached_key(|key, _| self.0.iter().position(|asked| asked == key));
        }
    }
}

fn push_keys(document: &ExecutableDocument, selections: &SelectionSet, keys: &mut Vec<Name>) {
    for selection in &selections.items {
        match &selection.node {
            Selection::Field(field) => keys.push(field.node.response_key().node.clone()),
            Selection::InlineFragment(fragment) => push_keys(document, &fragment.node.selection_set.node, keys),
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                    push_keys(document, &fragment.node.selection_set.node, keys);
                }
            }
        }
    }
}

/// A path that sorts by its length.
#[derive(PartialEq, Eq)]
struct Place(Vec<PathSegment>);

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |place: &Self| (place.0.len(), format!("{:?}", place.0));
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Finds the fields of that key, each with the type that it is a field of.
fn collect<'a>(
    document: &'a ExecutableDocument,
    parent: &'a str,
    selections: &'a SelectionSet,
    key: &str,
    fields: &mut Vec<(&'a str, &'a Field)>,
) {
    for selection in &selections.items {
        match &selection.node {
            Selection::Field(field) if field.node.response_key().node == *key => fields.push((parent, &field.node)),
            Selection::Field(_) => {}
            Selection::InlineFragment(fragment) => {
                let condition = fragment.node.type_condition.as_ref();
                let parent = condition.map_or(parent, |condition| condition.node.on.node.as_str());
                collect(document, parent, &fragment.node.selection_set.node, key, fields);
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                    let parent = fragment.node.type_condition.node.on.node.as_str();
                    collect(document, parent, &fragment.node.selection_set.node, key, fields);
                }
            }
        }
    }
}

/// The name of the type that an operation begins at.
fn root(operation: OperationType) -> &'static str {
    match operation {
        OperationType::Query => "Query",
        OperationType::Mutation => "Mutation",
        OperationType::Subscription => "Subscription",
    }
}

/// The name of the type within all lists.
fn named(of: &Type) -> &str {
    match &of.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => named(item),
    }
}

fn set_null(value: &mut Value, path: &[PathSegment]) {
    let Some((segment, rest)) = path.split_first() else {
        *value = Value::Null;
        return;
    };
    // An object is left null when each of its fields failed.
    if matches!((&*value, segment), (Value::Null, PathSegment::Field(_))) {
        *value = Value::Object(IndexMap::new());
    }
    match (value, segment) {
        (Value::Object(fields), PathSegment::Field(key)) => {
            set_null(fields.entry(Name::new(key)).or_insert(Value::Null), rest);
        }
        (Value::List(items), PathSegment::Index(index)) => {
            if let Some(item) = items.get_mut(*index) {
                set_null(item, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use async_graphql::{ServerError, value};

    use super::*;

    const SDL: &str = "type Query { maybe: Thing, sure: Thing!, list: [Thing!]!, holes: [Thing], node: Node }
                       interface Node { id: ID! } type Thing implements Node { id: ID!, maybe: Int, sure: Int!, inner: Thing! }";

    /// What becomes of `data`, as async-graphql left it, when the fields at these paths failed.
    fn completed(query: &str, data: Value, failed: &[&[&str]]) -> Value {
        let document = parse_query(query).expect("a query");
        let mut response = Response::new(data);
        for path in failed {
            let segment = |text: &&str| text.parse().map_or_else(|_| PathSegment::Field((*text).to_owned()), PathSegment::Index);
            response.errors.push(ServerError::new("failed", None).with_path(path.iter().map(segment).collect()));
        }
        let (_, operation) = document.operations.iter().next().expect("an operation");
        FieldTypes::new(SDL).complete(&mut response, &document, &operation.node);
        response.data
    }

    #[test]
    fn a_field_that_may_be_null_is() {
        assert_eq!(completed("{ maybe { id } }", Value::Null, &[&["maybe"]]), value!({"maybe": null}));
        let data = value!({"b": {"id": 1}});
        assert_eq!(completed("{ a: maybe { id } b: maybe { id } }", data, &[&["a"]]), value!({"b": {"id": 1}, "a": null}));
    }

    #[test]
    fn a_field_that_may_not_be_null_makes_null_what_encloses_it() {
        let data = || value!({"maybe": {"id": 1}});
        assert_eq!(completed("{ maybe { id sure } }", data(), &[&["maybe", "sure"]]), value!({"maybe": null}));
        assert_eq!(completed("{ maybe { id inner { sure } } }", data(), &[&["maybe", "inner", "sure"]]), value!({"maybe": null}));
        assert_eq!(completed("{ maybe { id } sure { id } }", data(), &[&["sure"]]), Value::Null);
        assert_eq!(
            completed("{ maybe { id maybe } }", data(), &[&["maybe", "maybe"]]),
            value!({"maybe": {"id": 1, "maybe": null}})
        );
    }

    #[test]
    fn lists_pass_it_on_unless_they_may_have_holes() {
        let things = || value!([{"id": 1}, {"id": 2}]);
        let list = value!({"list": (things())});
        assert_eq!(completed("{ list { id sure } }", list, &[&["list", "1", "sure"]]), Value::Null);
        let holes = value!({"holes": (things())});
        let expected = value!({"holes": [{"id": 1}, null]});
        assert_eq!(completed("{ holes { id sure } }", holes, &[&["holes", "1", "sure"]]), expected);
    }

    #[test]
    fn fields_are_found_within_fragments() {
        let query = "{ node { ... on Thing { ...Part } } } fragment Part on Thing { id n: maybe s: sure }";
        let data = || value!({"node": {"id": 1}});
        assert_eq!(completed(query, data(), &[&["node", "n"]]), value!({"node": {"id": 1, "n": null}}));
        assert_eq!(completed(query, data(), &[&["node", "n"], &["node", "s"]]), value!({"node": null}));
    }

    #[test]
    fn the_root_is_in_the_order_of_the_query() {
        let document = parse_query("{ b: maybe { id } ...Rest a: maybe { id } } fragment Rest on Query { c: sure { id } }");
        let document = document.expect("a query");
        let (_, operation) = document.operations.iter().next().expect("an operation");
        let mut response = Response::new(value!({"a": 1, "b": 2, "c": 3}));
        RootKeys::new(&document, &operation.node).sort(&mut response);
        assert_eq!(response.data.to_string(), "{b: 2, c: 3, a: 1}");
    }

    #[test]
    fn a_path_of_another_query_changes_nothing() {
        let data = || value!({"maybe": {"id": 1}});
        for path in [&["other"][..], &["maybe", "0"], &[]] {
            assert_eq!(completed("{ maybe { id } }", data(), &[path]), data());
        }
    }
}
