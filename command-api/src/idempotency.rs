//! Recognising a retried command: the key, the digest of what was asked, and the id that both give the request.

use std::fmt::Write as _;

use axum::http::HeaderMap;
use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{headers::IDEMPOTENCY_KEY, limits::IDEMPOTENCY_KEY_CHARS_MAX, problem::FieldError};

/// Namespace of request ids. A constant of the contract: changing it would carry out every retried command again.
const REQUEST_NAMESPACE: Uuid = Uuid::from_u128(0x8f1c_2a6e_37d4_5b90_a1e5_6c0d_94b2_3f07);

/// A client's name for one command: 1 to [`IDEMPOTENCY_KEY_CHARS_MAX`] visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads the header, as a structured-field string (`"key"`, RFC 9651) or bare (`key`): both are the same key.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, FieldError> {
        let refused = |code, detail: &str| Err(FieldError::in_header(IDEMPOTENCY_KEY, code, detail));
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return refused("missing", "is missing; every POST needs one") };
        if values.next().is_some() {
            return refused("wrong-format", "must be sent once");
        }
        let Ok(value) = value.to_str() else { return refused("wrong-format", "must be visible ASCII characters") };
        let key = match value.trim().strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                Some(key) => key,
                None => return refused("wrong-format", "begins with a quote and is not a quoted string"),
            },
            None => value.trim().to_owned(),
        };
        Self::new(key).or_else(|(code, detail)| refused(code, &detail))
    }

    /// This very key, if it can be one; else what code the mistake has, and what would be right.
    pub(crate) fn new(key: String) -> Result<Self, (&'static str, String)> {
        let length = key.chars().count();
        if !(1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&length) {
            return Err(("out-of-range", format!("must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters long, and has {length}")));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(("wrong-format", "must be visible ASCII characters".to_owned()));
        }
        Ok(Self(key))
    }

    /// The key itself.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the request that this key names on one aggregate.
    pub(crate) fn request_id(&self, aggregate_type: &str, aggregate_id: &str) -> Uuid {
        // Neither a type nor an id can hold a slash, so no two triples have the same name.
        Uuid::new_v5(&REQUEST_NAMESPACE, format!("{aggregate_type}/{aggregate_id}/{}", self.0).as_bytes())
    }
}

/// What a structured-field string says, given what follows its opening quote (RFC 9651, section 4.2.5).
fn unquote(quoted: &str) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(text),
            '\\' => text.push(chars.next().filter(|char| matches!(char, '"' | '\\'))?),
            char => text.push(char),
        }
    }
}

/// SHA-256, in hex, of the route and the body's canonical form, in which neither white space nor the order of fields nor how a
/// whole number is written matters. Stored in the log: what it is computed from never changes.
pub(crate) fn digest(route: &str, body: &Value) -> String {
    let mut canonical = format!("{route}\n");
    write_canonical(body, &mut canonical);
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(canonical.as_bytes()) {
        write!(hex, "{byte:02x}").expect("writing to a string never fails");
    }
    hex
}

/// Sorted by hand, because whether `serde_json` sorts depends on the features that other crates ask of it.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| name.as_str());
            text.push('{');
            for (name, value) in fields {
                write_canonical(&Value::String(name.clone()), text);
                text.push(':');
                write_canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Number(number) => match whole(number) {
            Some(whole) => text.push_str(&whole.to_string()),
            None => text.push_str(&number.to_string()),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

/// A whole number that was written as `2.0` or `2e0`: to who reads fields it is `2`. Beyond 2^53 a fraction may have been lost,
/// and nothing that is asked for is as large.
fn whole(number: &Number) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and far from the ends of 64 bits")]
    Some(float as i64)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn read(value: &str) -> Result<String, &'static str> {
        let headers =
            HeaderMap::from_iter([(IDEMPOTENCY_KEY.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())]);
        IdempotencyKey::read(&headers).map(|key| key.0).map_err(|error| error.code)
    }

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        assert_eq!(read("k-1"), Ok("k-1".to_owned()));
        assert_eq!(read("\"k-1\""), Ok("k-1".to_owned()));
        assert_eq!(read(" \"k-1\" "), Ok("k-1".to_owned()));
        assert_eq!(read(r#""a\"b\\c""#), Ok(r#"a"b\c"#.to_owned()));
        assert_eq!(read(r#"a"b\c"#), Ok(r#"a"b\c"#.to_owned()));
        assert!(read(&"k".repeat(IDEMPOTENCY_KEY_CHARS_MAX)).is_ok());
        assert!(read(&format!("\"{}\"", "k".repeat(IDEMPOTENCY_KEY_CHARS_MAX))).is_ok());
    }

    #[test]
    fn a_key_that_is_no_key_is_refused() {
        for bad in ["\"", "\"a", "\"a\"b", "\"a\";p=1", r#""a\b""#, "a b", "\"a b\"", "\"é\"", "é"] {
            assert_eq!(read(bad), Err("wrong-format"), "{bad:?}");
        }
        for bad in ["", "\"\"", "  ", &"k".repeat(IDEMPOTENCY_KEY_CHARS_MAX + 1)] {
            assert_eq!(read(bad), Err("out-of-range"), "{bad:?}");
        }
        assert_eq!(IdempotencyKey::read(&HeaderMap::new()).map_err(|error| error.code), Err("missing"));
    }

    #[test]
    fn a_digest_sees_what_was_asked_and_not_how_it_was_written() {
        let one = serde_json::from_str(r#"{"a":1,"b":{"x":"y","z":[1,2]}}"#).unwrap();
        let other = serde_json::from_str(r#" { "b" : { "z" : [ 1 , 2 ], "x" : "y" }, "a" : 1 } "#).unwrap();
        assert_eq!(digest("POST /r", &one), digest("POST /r", &other));
        assert_ne!(digest("POST /r", &one), digest("POST /s", &one));
        assert_ne!(digest("POST /r", &json!({"a": [1, 2]})), digest("POST /r", &json!({"a": [2, 1]})));
        assert_ne!(digest("POST /r", &json!({"a": "1"})), digest("POST /r", &json!({"a": 1})));
    }

    #[test]
    fn a_whole_number_is_the_same_however_it_is_written() {
        let digest_of = |number: &str| digest("POST /r", &serde_json::from_str(&format!("{{\"n\":[{number}]}}")).unwrap());
        for (one, other) in [("2", "2.0"), ("2", "2e0"), ("-7", "-70e-1"), ("0", "-0.0"), ("99999999999", "9.9999999999e10")] {
            assert_eq!(digest_of(one), digest_of(other), "{one} and {other}");
        }
        for (one, other) in [("2", "2.5"), ("2.5", "2.25"), ("1e300", "1e301"), ("18446744073709551615", "1e19")] {
            assert_ne!(digest_of(one), digest_of(other), "{one} and {other}");
        }
    }

    #[test]
    fn digests_and_request_ids_are_stored_and_never_change() {
        assert_eq!(
            digest("POST /r", &json!({"b": [1, "x\n"], "a": null})),
            "62a544338c452481dc2999b68f479216a717ebb7566303267920baa16dfc9a73"
        );
        assert_eq!(
            digest("POST /r", &json!({"n": [0, -3, 2.5, u64::MAX]})),
            "7a29ee887c610a3b0b1c255970c4cf0723c3f23db9352d62da7c385b793c51da"
        );
        let request_id = IdempotencyKey("k".to_owned()).request_id("order", "1");
        assert_eq!(request_id.to_string(), "27897b61-da86-5caa-99da-e23620e058b6");
    }
}
