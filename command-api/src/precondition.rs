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

/// The versions on which a command may be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IfMatch(Tags);

impl IfMatch {
    /// The condition, if the client set one.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, FieldError> {
        if !headers.contains_key(IF_MATCH) {
            return Ok(None);
        }
        let malformed = || FieldError::in_header("If-Match", "wrong-format", "must be *, or entity tags such as \"3\" in quotes");
        Tags::read(headers, &IF_MATCH).map(|tags| Some(Self(tags))).ok_or_else(malformed)
    }

    /// Whether it holds for a resource of this version; version 0 is a resource that does not exist, for which none holds.
    pub(crate) fn check(&self, version: u64) -> Result<(), Problem> {
        let strong = |tag: &Tag| !tag.weak && tag.opaque == version.to_string();
        let holds = version > 0
            && match &self.0 {
                Tags::Any => true,
                Tags::Listed(tags) => tags.iter().any(strong),
            };
        if holds {
            return Ok(());
        }
        let detail = match version {
            0 => "If-Match cannot hold: it does not exist yet".to_owned(),
            version => format!("the version is {version} and If-Match does not list it"),
        };
        Err(Problem::new(Code::PreconditionFailed, detail))
    }
}

/// Whether `If-None-Match` says that the client has this version already. What cannot be read is taken as absent: a full
/// answer is always right.
pub(crate) fn is_known_to_client(headers: &HeaderMap, version: u64) -> bool {
    match Tags::read(headers, &IF_NONE_MATCH) {
        Some(Tags::Any) => true,
        Some(Tags::Listed(tags)) => tags.iter().any(|tag| tag.opaque == version.to_string()),
        None => false,
    }
}

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

impl Tags {
    /// All values of the header as one list; `None` if there is none or it is malformed.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        let mut any = false;
        for value in headers.get_all(name) {
            let mut rest = value.to_str().ok()?.trim();
            any |= rest == "*";
            if rest == "*" {
                continue;
            }
            while !rest.is_empty() {
                let (tag, after) = Tag::parse(rest)?;
                tags.push(tag);
                rest = after.trim_start();
                if !rest.is_empty() {
                    rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t', ',']);
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
        let good = opaque.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| (Self { weak, opaque: opaque.to_owned() }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_match(values: &[&str]) -> Result<Option<IfMatch>, FieldError> {
        IfMatch::read(&values.iter().map(|value| (IF_MATCH, value.parse().unwrap())).collect())
    }

    fn holds(value: &str, version: u64) -> bool {
        if_match(&[value]).unwrap().unwrap().check(version).is_ok()
    }

    #[test]
    fn a_listed_version_matches() {
        assert!(holds("\"3\"", 3));
        assert!(holds("\"1\", \"3\"", 3));
        assert!(holds("\"1\",,\"3\" ,", 3));
        assert!(holds("*", 3));
        assert!(if_match(&["\"1\"", "\"3\""]).unwrap().unwrap().check(3).is_ok());
        assert_eq!(if_match(&[]), Ok(None));
    }

    #[test]
    fn another_version_does_not() {
        assert!(!holds("\"3\"", 4));
        assert!(!holds("\"03\"", 3));
        assert!(!holds("\"\"", 3));
        assert!(!holds("W/\"3\"", 3), "a weak tag never matches strongly");
        assert!(!holds("*", 0), "what does not exist matches nothing");
        assert!(!holds("\"0\"", 0));
    }

    #[test]
    fn what_is_no_list_of_tags_is_malformed() {
        for bad in ["", "3", "\"3", "\"3\" \"4\"", "*, \"3\"", "\"a b\"", ","] {
            assert!(if_match(&[bad]).is_err(), "{bad:?}");
        }
        assert!(if_match(&["*", "\"3\""]).is_err());
    }

    #[test]
    fn if_none_match_compares_weakly_and_forgives() {
        let known = |value: &str| is_known_to_client(&HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]), 3);
        assert!(known("\"3\"") && known("W/\"3\"") && known("*") && known("\"2\", \"3\""));
        assert!(!known("\"2\"") && !known("3") && !known(""));
        assert!(!is_known_to_client(&HeaderMap::new(), 3));
    }
}
