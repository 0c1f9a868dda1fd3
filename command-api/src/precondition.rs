//! Entity tags and the conditions on them (RFC 9110, sections 8.8.3 and 13.1). A resource's tag is its version, quoted.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{IF_MATCH, IF_NONE_MATCH},
};

use crate::problem::{Code, FieldError, Problem};

/// The entity tag of a version.
pub(crate) fn etag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("quoted digits are a header value")
}

/// The versions on which a command may be carried out, or may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Precondition {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl Precondition {
    /// What the client has set.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, FieldError> {
        let read = |name: HeaderName, shown: &'static str| {
            let malformed = || FieldError::in_header(shown, "wrong-format", "must be *, or entity tags such as \"3\" in quotes");
            let is_there = headers.contains_key(&name);
            is_there.then(|| Tags::read(headers, &name).ok_or_else(malformed)).transpose()
        };
        Ok(Self { if_match: read(IF_MATCH, "If-Match")?, if_none_match: read(IF_NONE_MATCH, "If-None-Match")? })
    }

    /// Whether it holds for a resource of this version; version 0 is a resource that does not exist, which matches nothing.
    pub(crate) fn check(&self, version: u64) -> Result<(), Problem> {
        let failed = |detail: String| Err(Problem::new(Code::PreconditionFailed, detail));
        match &self.if_match {
            Some(_) if version == 0 => return failed("If-Match cannot hold: it does not exist yet".to_owned()),
            Some(tags) if !tags.has(version, Comparison::Strong) => {
                return failed(format!("the version is {version} and If-Match does not list it"));
            }
            _ => {}
        }
        match &self.if_none_match {
            Some(tags) if version > 0 && tags.has(version, Comparison::Weak) => {
                failed(format!("the version is {version}, which is what If-None-Match excludes"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `If-None-Match` says that the client has this version already. What cannot be read is taken as absent: a full
/// answer is always right.
pub(crate) fn is_known_to_client(headers: &HeaderMap, version: u64) -> bool {
    Tags::read(headers, &IF_NONE_MATCH).is_some_and(|tags| tags.has(version, Comparison::Weak))
}

const SPACE: [char; 2] = [' ', '\t'];
const SPACE_OR_COMMA: [char; 3] = [' ', '\t', ','];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: String,
}

/// How tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

impl Tags {
    /// Whether the tag of that version is among them.
    fn has(&self, version: u64, comparison: Comparison) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => {
                let is_it = |tag: &Tag| tag.opaque == version.to_string() && (comparison == Comparison::Weak || !tag.weak);
                tags.iter().any(is_it)
            }
        }
    }

    /// All values of the header as one list; `None` if there is none or it is malformed.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        let mut any = false;
        for value in headers.get_all(name) {
            // A tag may hold bytes beyond ASCII, of no encoding; ours do not.
            let text: String = value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
            let mut rest = text.trim_matches(SPACE);
            any |= rest == "*";
            if rest == "*" {
                continue;
            }
            // An element of a list may be empty (RFC 9110, section 5.6.1.2).
            rest = rest.trim_start_matches(SPACE_OR_COMMA);
            while !rest.is_empty() {
                let (tag, after) = Tag::parse(rest)?;
                tags.push(tag);
                rest = after.trim_start_matches(SPACE);
                if !rest.is_empty() {
                    rest = rest.strip_prefix(',')?.trim_start_matches(SPACE_OR_COMMA);
                }
            }
        }
        match (any, tags.is_empty()) {
            (true, true) => Some(Self::Any),
            (false, false) => Some(Self::Listed(tags)),
            _ => None,
        }
    }
}

impl Tag {
    /// The tag at the beginning of `text`, and what follows it.
    fn parse(text: &str) -> Option<(Self, &str)> {
        let (weak, text) = text.strip_prefix("W/").map_or((false, text), |text| (true, text));
        let (opaque, rest) = text.strip_prefix('"')?.split_once('"')?;
        let good = opaque.chars().all(|char| char.is_ascii_graphic() || char >= '\u{80}');
        good.then(|| (Self { weak, opaque: opaque.to_owned() }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &HeaderName, values: &[&str]) -> Result<Precondition, FieldError> {
        Precondition::read(&values.iter().map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect())
    }

    fn if_match(values: &[&str]) -> Result<Precondition, FieldError> {
        read(&IF_MATCH, values)
    }

    fn holds(value: &str, version: u64) -> bool {
        if_match(&[value]).unwrap().check(version).is_ok()
    }

    #[test]
    fn a_listed_version_matches() {
        assert!(holds("\"3\"", 3));
        assert!(holds("\"1\", \"3\"", 3));
        assert!(holds("\"1\",,\"3\" ,", 3));
        assert!(holds("*", 3));
        assert!(holds(", \"3\"", 3) && holds(",,\t\"3\"", 3));
        assert!(if_match(&["\"1\"", "\"3\""]).unwrap().check(3).is_ok());
        assert!(if_match(&["", "\"3\""]).unwrap().check(3).is_ok());
        assert_eq!(if_match(&[]), Ok(Precondition::default()));
    }

    #[test]
    fn another_version_does_not() {
        assert!(!holds("\"3\"", 4));
        assert!(!holds("\"03\"", 3));
        assert!(!holds("\"\"", 3));
        assert!(!holds("W/\"3\"", 3), "a weak tag never matches strongly");
        assert!(!holds("*", 0), "what does not exist matches nothing");
        assert!(!holds("\"0\"", 0));
        assert!(!holds("\"é\"", 3), "nor do we give such tags, but they are tags");
    }

    #[test]
    fn what_is_no_list_of_tags_is_malformed() {
        for bad in ["", "3", "\"3", "\"3\" \"4\"", "*, \"3\"", "\"a b\"", ","] {
            assert!(if_match(&[bad]).is_err(), "{bad:?}");
        }
        assert!(if_match(&["*", "\"3\""]).is_err());
    }

    #[test]
    fn what_is_excluded_is_refused_and_what_does_not_exist_is_not_excluded() {
        let allowed = |value: &str, version: u64| read(&IF_NONE_MATCH, &[value]).unwrap().check(version).is_ok();
        assert!(!allowed("*", 3) && !allowed("\"3\"", 3) && !allowed("W/\"3\"", 3) && !allowed("\"2\", \"3\"", 3));
        assert!(allowed("*", 0) && allowed("\"0\"", 0) && allowed("\"2\"", 3));
        assert!(read(&IF_NONE_MATCH, &["3"]).is_err());
    }

    #[test]
    fn if_none_match_compares_weakly_and_forgives() {
        let known = |value: &str| is_known_to_client(&HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]), 3);
        assert!(known("\"3\"") && known("W/\"3\"") && known("*") && known("\"2\", \"3\""));
        assert!(!known("\"2\"") && !known("3") && !known(""));
        assert!(!is_known_to_client(&HeaderMap::new(), 3));
    }
}
