//! Every limit of this service, by name and unit, and the checks of a query document that must come before anything walks it.

use std::collections::HashMap;
use std::time::Duration;

use async_graphql::Name;
use async_graphql::parser::types::{ExecutableDocument, Field, Selection, SelectionSet};

/// Largest HTTP request body, in bytes. Also bounds a GET request's query string, together with the server's own limit on headers.
pub const REQUEST_BYTES_MAX: usize = 100 * 1024;
/// Longest time from the first byte of a request to its answer, on top of the wait for `minPosition`.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Most requests that are worked on at the same time; one more is answered with 503. A request that waits for a position holds
/// no database connection, so this is much more than there are of those.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 2_048;
/// Longest time that one SQL statement may run. Shorter than [`REQUEST_DEADLINE`], so that the caller hears why.
pub const STATEMENT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time that a request waits for a free database connection.
pub const CONNECTION_WAIT: Duration = Duration::from_secs(2);

/// Most subscriptions at the same time. One costs some kilobytes, and a little time for each event of its order.
pub const LISTENERS_MAX: usize = 20_000;
/// Most subscriptions of one customer at the same time, over however many connections.
pub const SUBSCRIPTIONS_PER_CUSTOMER_MAX: usize = 200;
/// Events that are kept for a subscription that does not take them; what comes after those it reads again.
pub const UNHEARD_EVENTS_MAX: usize = 32;
/// Most connections of `/graphql/ws` at the same time.
pub const SOCKETS_MAX: usize = 10_000;
/// Most of them of one customer.
pub const SOCKETS_PER_CUSTOMER_MAX: usize = 100;
/// What such a connection has for what comes in, in bytes, from its beginning; it grows with a longer message. Who subscribes says little.
pub const SOCKET_READ_BUFFER_BYTES: usize = 4 * 1024;
/// Most subscriptions and queries of one such connection at the same time.
pub const OPERATIONS_PER_SOCKET_MAX: usize = 128;

/// How long `minPosition` waits unless set otherwise, in milliseconds.
pub const MIN_POSITION_WAIT_MS_DEFAULT: u64 = 5_000;
/// Longest wait for `minPosition` that can be set, in milliseconds; well within the drain deadline.
pub const MIN_POSITION_WAIT_MS_MAX: u64 = 15_000;

/// Most rows of one page of a connection.
pub const PAGE_ROWS_MAX: i32 = 100;
/// Rows of one page if the query does not say.
pub const PAGE_ROWS_DEFAULT: i32 = 20;

/// Deepest nesting of fields. The introspection query of the common tools needs 15.
pub const QUERY_DEPTH_MAX: usize = 16;
/// Highest cost of a query: one per field, times the page size for everything within a page, times
/// [`INNER_LIST_ENTRIES_ASSUMED`] for everything within a list of a row, plus [`LOOKUP_COST`] per read.
pub const QUERY_COMPLEXITY_MAX: usize = 10_000;
/// How many entries a list within a row, such as the lines of an order, counts as in a query's cost. It may have ten times as
/// many: few do, and a page of the largest orders is an answer of some megabytes at [`QUERY_COMPLEXITY_MAX`] nevertheless.
pub const INNER_LIST_ENTRIES_ASSUMED: usize = 10;
/// What one read from the database adds to a query's cost.
pub const LOOKUP_COST: usize = 10;
/// Most fields and fragments of a document after every fragment is put in the place where it is used, `__typename` included. Bounds aliases,
/// and how often anything is put in place.
pub const QUERY_FIELDS_MAX: usize = 2_000;
/// Most aliases of `__typename`, which costs nothing otherwise, with every fragment in place. Clients that add it give it none.
pub const TYPENAME_ALIASES_MAX: usize = 16;
/// Most that the schema is asked for: one for each field below `__schema` and `__type`, times the entries of each list around it as
/// [`listed`] assumes them. The introspection query of the common tools comes to 82,000.
pub const INTROSPECTION_COST_MAX: usize = 150_000;
/// Longest alias, in bytes: it is repeated in the answer for each row.
pub const ALIAS_BYTES_MAX: usize = 128;
/// Most directives on one field or fragment.
pub const FIELD_DIRECTIVES_MAX: usize = 4;
/// Deepest nesting of selection sets and fragments.
pub const QUERY_RECURSION_MAX: usize = 32;
/// Deepest nesting of brackets of any kind in a document's text. The parser recurses on them, so this bounds its stack.
pub const BRACKETS_DEPTH_MAX: usize = 64;

/// What a document exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// See [`BRACKETS_DEPTH_MAX`].
    #[error("the query nests more than {BRACKETS_DEPTH_MAX} brackets")]
    Brackets,
    /// See [`QUERY_FIELDS_MAX`].
    #[error("the query has more than {QUERY_FIELDS_MAX} fields and fragments, counting each fragment wherever it is used")]
    Fields,
    /// See [`TYPENAME_ALIASES_MAX`].
    #[error("the query has more than {TYPENAME_ALIASES_MAX} aliases of __typename, counting each fragment wherever it is used")]
    TypenameAliases,
    /// See [`INTROSPECTION_COST_MAX`].
    #[error("the query asks for {0} fields of the schema, counting the entries of lists: {INTROSPECTION_COST_MAX} are allowed")]
    Introspection(usize),
    /// See [`ALIAS_BYTES_MAX`].
    #[error("the query has an alias of more than {ALIAS_BYTES_MAX} characters")]
    Alias,
    /// See [`FIELD_DIRECTIVES_MAX`].
    #[error("the query has more than {FIELD_DIRECTIVES_MAX} directives on a field or a fragment")]
    Directives,
    /// See [`QUERY_RECURSION_MAX`].
    #[error("the query nests selections and fragments more than {QUERY_RECURSION_MAX} deep")]
    Recursion,
}

/// Refuses a text on which the parser's recursion could use up the stack.
pub fn check_text(query: &str) -> Result<(), Excess> {
    let mut depth = 0_usize;
    let mut rest = query.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = match byte {
            b'{' | b'[' | b'(' => {
                depth += 1;
                if depth > BRACKETS_DEPTH_MAX {
                    return Err(Excess::Brackets);
                }
                tail
            }
            b'}' | b']' | b')' => {
                depth = depth.saturating_sub(1);
                tail
            }
            b'#' => after(tail, |text| matches!(text, [b'\n' | b'\r', ..])),
            // One that is not closed is an empty string to the parser, and goes on behind that.
            b'"' if tail.starts_with(b"\"\"") => skip_block_string(&tail[2..]).unwrap_or(&tail[1..]),
            b'"' => skip_string(tail),
            _ => tail,
        };
    }
    Ok(())
}

/// What follows the first place of which `is_end` holds, that place itself included.
fn after(text: &[u8], is_end: impl Fn(&[u8]) -> bool) -> &[u8] {
    (0..text.len()).map(|at| &text[at..]).find(|rest| is_end(rest)).unwrap_or_default()
}

fn skip_string(mut text: &[u8]) -> &[u8] {
    loop {
        let length = match text {
            // A string cannot span lines. What follows an unclosed one is not a query anyway, but it is text to the parser.
            [b'"' | b'\n' | b'\r', tail @ ..] => return tail,
            [b'\\', _, ..] => 2,
            [_, ..] => 1,
            [] => return text,
        };
        text = &text[length..];
    }
}

/// What follows the string; none if it does not end.
fn skip_block_string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        let length = match text {
            [b'"', b'"', b'"', tail @ ..] => return Some(tail),
            [b'\\', b'"', b'"', b'"', ..] => 4,
            [_, ..] => 1,
            [] => return None,
        };
        text = &text[length..];
    }
}

/// Refuses a document whose fragments, put in place, make it too large or too deep. Takes time in proportion to the text, however
/// large the result would be; the checks of async-graphql walk that result.
pub fn check_document(document: &ExecutableDocument) -> Result<(), Excess> {
    let mut walk = Walk { document, known: HashMap::new() };
    let mut total = Size::default();
    for (_, operation) in document.operations.iter() {
        total = total.and(walk.measure(&operation.node.selection_set.node, 1)?);
    }
    // Also those that nothing uses: validation puts the others in their places as well.
    for fragment in document.fragments.keys() {
        total.fields = total.fields.max(walk.fragment(fragment, 1)?.fields);
    }
    match total {
        Size { fields, .. } if fields > QUERY_FIELDS_MAX => Err(Excess::Fields),
        Size { typename_aliases, .. } if typename_aliases > TYPENAME_ALIASES_MAX => Err(Excess::TypenameAliases),
        Size { introspection, .. } if introspection > INTROSPECTION_COST_MAX => Err(Excess::Introspection(introspection)),
        _ => Ok(()),
    }
}

/// How many entries a field of the schema's own types is assumed to list, on the whole. async-graphql takes each for one.
fn listed(field: &str) -> usize {
    match field {
        "types" => 64,
        "fields" | "inputFields" | "enumValues" | "directives" => 8,
        "possibleTypes" => 3,
        "args" => 2,
        _ => 1,
    }
}

/// How large and how deep a selection set is with every fragment in place.
#[derive(Clone, Copy, Default)]
struct Size {
    /// A fragment counts itself, too: one without fields, or that does not exist, is walked as often as it is used.
    fields: usize,
    depth: usize,
    typename_aliases: usize,
    /// What the selections cost, were they made on the schema's own types.
    as_introspection: usize,
    /// What of them is asked of the schema.
    introspection: usize,
}

impl Size {
    /// Of both, next to one another.
    fn and(self, other: Self) -> Self {
        Self {
            fields: self.fields.saturating_add(other.fields),
            depth: self.depth.max(other.depth),
            typename_aliases: self.typename_aliases.saturating_add(other.typename_aliases),
            as_introspection: self.as_introspection.saturating_add(other.as_introspection),
            introspection: self.introspection.saturating_add(other.introspection),
        }
    }

    /// Of something that has this within.
    fn below(self) -> Self {
        Self { fields: self.fields.saturating_add(1), depth: self.depth + 1, ..self }
    }

    /// Of a field that has this within.
    fn below_field(self, field: &Field) -> Self {
        let name = field.name.node.as_str();
        let cost = self.as_introspection.saturating_mul(listed(name)).saturating_add(1);
        Self {
            typename_aliases: self.typename_aliases.saturating_add(usize::from(name == "__typename" && field.alias.is_some())),
            as_introspection: cost,
            introspection: if matches!(name, "__schema" | "__type") { cost } else { self.introspection },
            ..self.below()
        }
    }
}

struct Walk<'a> {
    document: &'a ExecutableDocument,
    // Each fragment is measured once, so that fragments which double cost no more than their text.
    known: HashMap<&'a Name, Size>,
}

impl<'a> Walk<'a> {
    /// `level` is that of `selections`. Going no deeper than the limit bounds the stack and ends a cycle of fragments.
    fn measure(&mut self, selections: &'a SelectionSet, level: usize) -> Result<Size, Excess> {
        if level > QUERY_RECURSION_MAX {
            return Err(Excess::Recursion);
        }
        let mut total = Size { depth: 1, ..Size::default() };
        for selection in &selections.items {
            if let Selection::Field(field) = &selection.node
                && field.node.alias.as_ref().is_some_and(|alias| alias.node.len() > ALIAS_BYTES_MAX)
            {
                return Err(Excess::Alias);
            }
            let directives = match &selection.node {
                Selection::Field(field) => &field.node.directives,
                Selection::InlineFragment(fragment) => &fragment.node.directives,
                Selection::FragmentSpread(spread) => &spread.node.directives,
            };
            if directives.len() > FIELD_DIRECTIVES_MAX {
                return Err(Excess::Directives);
            }
            total = total.and(match &selection.node {
                Selection::Field(field) if field.node.selection_set.node.items.is_empty() => {
                    Size::default().below_field(&field.node)
                }
                Selection::Field(field) => self.measure(&field.node.selection_set.node, level + 1)?.below_field(&field.node),
                Selection::InlineFragment(fragment) => self.measure(&fragment.node.selection_set.node, level + 1)?.below(),
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node, level + 1)?.below(),
            });
        }
        Ok(total)
    }

    fn fragment(&mut self, name: &'a Name, level: usize) -> Result<Size, Excess> {
        if let Some(size) = self.known.get(name) {
            return if level + size.depth > QUERY_RECURSION_MAX + 1 { Err(Excess::Recursion) } else { Ok(*size) };
        }
        // Validation has the better words for a fragment that does not exist.
        let Some(fragment) = self.document.fragments.get(name) else { return Ok(Size::default()) };
        let size = self.measure(&fragment.node.selection_set.node, level)?;
        self.known.insert(name, size);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use async_graphql::parser::parse_query;
    use proptest::prelude::*;

    use super::*;

    fn check(query: &str) -> Result<(), Excess> {
        check_document(&parse_query(query).expect("a query that parses"))
    }

    #[test]
    fn brackets_count_outside_of_strings_and_comments_only() {
        let deep = "[".repeat(BRACKETS_DEPTH_MAX + 1);
        assert_eq!(check_text(&deep), Err(Excess::Brackets));
        assert_eq!(check_text(&"{a}".repeat(10_000)), Ok(()));
        assert_eq!(check_text(&format!("{{a(b:\"\\\"{deep}\")}} # {deep}\n{{a}}")), Ok(()));
        assert_eq!(check_text(&format!("{{a(b:\"\"\"\\\"\"\" \" {deep}\"\"\")}}")), Ok(()));
        assert_eq!(check_text(&format!("# comment\n{deep}")), Err(Excess::Brackets));
        assert_eq!(check_text(&format!("\"open\n{deep}")), Err(Excess::Brackets));
    }

    #[test]
    fn brackets_count_behind_a_block_string_that_does_not_end() {
        let deep = "[".repeat(BRACKETS_DEPTH_MAX + 1);
        for open in ["\"\"\"x\" ", "\"\"\"\" ", "\"\"\"x\\\"\" ", "\"\"\"x\n"] {
            assert_eq!(check_text(&format!("{{a(b:[{open}{deep}")), Err(Excess::Brackets), "{open}");
        }
        assert_eq!(check_text(&format!("{{a(b:\"\"\"x\\\"\"\"{deep}\"\"\")}}")), Ok(()));
    }

    proptest! {
        /// Else it would use up the stack, which ends the process.
        #[test]
        fn what_passes_the_check_can_be_parsed(beginning in "[\"\\\\ #x\n]{0,12}", behind in "[\"\\\\ #x\n]{0,8}") {
            let query = format!("{{a(b:[{beginning}{}{behind}", "[".repeat(20_000));
            if check_text(&query).is_ok() {
                drop(parse_query(query));
            }
        }
    }

    #[test]
    fn fragments_that_double_are_measured_without_being_expanded() {
        let mut doubling = String::new();
        for n in 1..=25 {
            write!(doubling, " fragment F{} on Query {{ ...F{n} ...F{n} }}", n - 1).expect("a string takes all");
        }
        for last in
            [" fragment F25 on Query { a }", " fragment F25 on Query { ...Missing }", " fragment F25 on Query { ... { a } }", ""]
        {
            assert_eq!(check(&format!("{{ ...F0 }}{doubling}{last}")), Err(Excess::Fields), "{last}");
            assert_eq!(check(&format!("{{ a }}{doubling}{last}")), Err(Excess::Fields), "unused: {last}");
        }
    }

    #[test]
    fn aliases_count() {
        let aliases = |count| (0..count).fold(String::from("{"), |query, n| query + &format!(" a{n}: a")) + " }";
        assert_eq!(check(&aliases(QUERY_FIELDS_MAX)), Ok(()));
        assert_eq!(check(&aliases(QUERY_FIELDS_MAX + 1)), Err(Excess::Fields));
    }

    #[test]
    fn aliases_of_typename_count_wherever_a_fragment_is_used() {
        let aliases = |count| (0..count).fold(String::new(), |query, n| query + &format!(" a{n}: __typename"));
        let used_twice = |count| format!("{{ a {{ ...F }} b {{ ...F }} }} fragment F on T {{ __typename {} }}", aliases(count));
        assert_eq!(check(&used_twice(TYPENAME_ALIASES_MAX / 2)), Ok(()));
        assert_eq!(check(&used_twice(TYPENAME_ALIASES_MAX / 2 + 1)), Err(Excess::TypenameAliases));
        assert_eq!(check(&format!("{{ {} }}", "__typename ".repeat(100))), Ok(()));
    }

    #[test]
    fn what_is_asked_of_the_schema_counts_with_its_lists() {
        let tools = parse_query(include_str!("../tests/it/introspection.graphql")).expect("a query that parses");
        let mut walk = Walk { document: &tools, known: HashMap::new() };
        let (_, operation) = tools.operations.iter().next().expect("one operation");
        let cost = walk.measure(&operation.node.selection_set.node, 1).expect("it is not too deep").introspection;
        assert!(cost > INTROSPECTION_COST_MAX / 2 && cost < INTROSPECTION_COST_MAX * 2 / 3, "{cost}");
        assert_eq!(check_document(&tools), Ok(()));
        let nested = |pairs: usize, within: &str| {
            let (open, close) = ("possibleTypes { interfaces { ".repeat(pairs), "} } ".repeat(pairs));
            format!("{{ ...S }} fragment S on Query {{ __type(name: \"Node\") {{ {open} {within} {close} }} }}")
        };
        assert_eq!(check(&nested(2, "name fields { name }")), Ok(()));
        let twenty = (0..20).fold(String::new(), |query, n| query + &format!(" a{n}: name"));
        let excess = check(&nested(6, &format!("possibleTypes {{ fields {{ {twenty} }} }}"))).unwrap_err();
        assert!(matches!(excess, Excess::Introspection(cost) if cost > 2_187 * 8 * 20), "{excess}");
        // Of anything else a field may have such a name.
        assert_eq!(check(&nested(6, "name").replace("__type(", "a(")), Ok(()));
    }

    #[test]
    fn an_alias_has_a_length() {
        let named = |bytes| format!("{{ a {{ {}: b }} }}", "x".repeat(bytes));
        assert_eq!(check(&named(ALIAS_BYTES_MAX)), Ok(()));
        assert_eq!(check(&named(ALIAS_BYTES_MAX + 1)), Err(Excess::Alias));
    }

    #[test]
    fn cycles_and_long_chains_of_fragments_end() {
        assert_eq!(check("{ ...A } fragment A on Query { ...B ...B } fragment B on Query { ...A ...A }"), Err(Excess::Recursion));
        let chain = |length: usize| {
            let fragment = |n| format!("fragment F{n} on Query {{ ...F{} }}", n + 1);
            let fragments: Vec<_> = (0..length).map(fragment).collect();
            format!("{{ ...F0 }} {} fragment F{length} on Query {{ a }}", fragments.join(" "))
        };
        assert_eq!(check(&chain(QUERY_RECURSION_MAX - 2)), Ok(()));
        assert_eq!(check(&chain(QUERY_RECURSION_MAX - 1)), Err(Excess::Recursion));
        assert_eq!(check(&chain(3_000)), Err(Excess::Recursion));
    }
}
