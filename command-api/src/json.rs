//! JSON whose objects name each field once.
//!
//! RFC 8259 (section 4) leaves open what a name that is there twice means, and parsers differ: what one of them checked and
//! another one carried out need not be the same. So nobody here chooses between the two.

use std::{fmt, iter};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Deserializer, Map, Number, Value};

use crate::{
    fields::escape,
    problem::{FieldError, FieldErrors, echo},
};

/// Deeper names are not spelt out in the place of a mistake; nothing that is known to the API is as deep.
const PLACE_DEPTH_MAX: usize = 8;

/// Reads one JSON value, no deeper than `serde_json` goes, and notes every name that an object has more than once, with its
/// place. The value has what such a name stood for last.
///
/// # Errors
///
/// It is not JSON.
pub(crate) fn read(bytes: &[u8], errors: &mut FieldErrors) -> Result<Value, serde_json::Error> {
    let mut deserializer = Deserializer::from_slice(bytes);
    let value = ValueReader { place: &Place::Root, errors }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Where a value is, from the inside out, so that it costs nothing until there is a mistake.
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        let places: Vec<_> = iter::successors(Some(self), |place| match place {
            Place::Root => None,
            Place::Field(outer, _) | Place::Item(outer, _) => Some(outer),
        })
        .collect();
        let within_root = places.into_iter().rev().skip(1);
        let tokens = within_root.take(PLACE_DEPTH_MAX).map(|place| match place {
            Place::Root => String::new(),
            Place::Field(_, name) => escape(&echo(name)),
            Place::Item(_, index) => index.to_string(),
        });
        tokens.flat_map(|token| ["/".to_owned(), token]).collect()
    }
}

/// Builds the value at a place.
struct ValueReader<'a> {
    place: &'a Place<'a>,
    errors: &'a mut FieldErrors,
}

impl<'de> DeserializeSeed<'de> for ValueReader<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueReader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let place = Place::Item(self.place, items.len());
            match seq.next_element_seed(ValueReader { place: &place, errors: &mut *self.errors })? {
                Some(item) => items.push(item),
                None => return Ok(items.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let place = Place::Field(self.place, &name);
            let value = map.next_value_seed(ValueReader { place: &place, errors: &mut *self.errors })?;
            if fields.contains_key(&name) {
                self.errors.push_with(|| FieldError::at(place.pointer(), "repeated-field", "is there more than once"));
            }
            fields.insert(name, value);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{limits::FIELD_ERRORS_BYTES_MAX, problem::Code};

    /// The value, and the places of the names that are there more than once.
    fn read_all(json: &str) -> Result<(Value, Vec<String>), String> {
        let mut errors = FieldErrors::default();
        let value = read(json.as_bytes(), &mut errors).map_err(|error| error.to_string())?;
        let errors = errors.finish(Code::InvalidFields, Some(())).err().map(|problem| problem.errors).unwrap_or_default();
        Ok((value, errors.into_iter().filter_map(|error| error.pointer).collect()))
    }

    #[test]
    fn a_name_that_is_there_twice_is_found_wherever_it_is() {
        let json = r#"{"a":1,"b":[{"c/d":1,"e":2,"c\/d":3}],"\u0061":{"x":{"y":1,"y":1,"y":1}}}"#;
        let places = ["/b/0/c~1d", "/a/x/y", "/a/x/y", "/a"].map(str::to_owned).to_vec();
        assert_eq!(read_all(json), Ok((json!({"a": {"x": {"y": 1}}, "b": [{"c/d": 3, "e": 2}]}), places)));
        assert_eq!(read_all(r#"[{"a":1},{"a":2}]"#).unwrap().1, Vec::<String>::new());
    }

    #[test]
    fn however_deep_and_long_the_names_are_the_mistakes_are_short() {
        let name = "\\u0000".repeat(300);
        let twice = format!("{{\"{name}\":1,\"{name}\":1}}");
        let deep = (0..100).fold(twice, |inner, _| format!("{{\"{name}\":{inner}}}"));
        let (_, places) = read_all(&deep).unwrap();
        assert_eq!(places.len(), 1);
        assert!(places[0].len() < FIELD_ERRORS_BYTES_MAX / 8);
    }

    #[test]
    fn a_mistake_that_is_not_listed_costs_nothing() {
        let mut errors = FieldErrors::default();
        let mut made = 0;
        for _ in 0..50_000 {
            errors.push_with(|| {
                made += 1;
                FieldError::at("/a", "repeated-field", "is there more than once")
            });
        }
        let problem = errors.finish(Code::InvalidFields, Some(())).unwrap_err();
        assert!(made <= problem.errors.len() + 1, "{made} were made and {} are listed", problem.errors.len());
        assert!(problem.detail.contains("50000 mistakes"), "{}", problem.detail);
    }

    #[test]
    fn what_is_not_json_or_too_deep_is_refused_as_before() {
        let deep = "[".repeat(200);
        for bad in ["", "{", "{} {}", "NaN", "1e999", "{1:2}", "\"\\ud800\"", deep.as_str()] {
            let expected = serde_json::from_str::<Value>(bad).unwrap_err().to_string();
            assert_eq!(read_all(bad), Err(expected), "{bad:?}");
        }
    }

    fn a_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".*", inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_without_repetitions_is_what_serde_json_reads(value in a_value()) {
            let json = value.to_string();
            prop_assert_eq!(read_all(&json), Ok((serde_json::from_str(&json).unwrap(), vec![])));
        }
    }
}
