//! Reading a JSON object field by field, noting every mistake instead of stopping at the first.
//!
//! A reader asks for all its fields first and builds its value afterwards. What it did not ask for is an unknown field.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use serde_json::{Map, Value};

use crate::problem::{FieldError, FieldErrors, echo};

/// What [`Fields::text`] takes, but for the length, as a regular expression of JSON Schema: no control character anywhere, and
/// somewhere one that is not white space either.
pub(crate) const TEXT_PATTERN: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f]*",
    r"[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]",
    r"[^\u0000-\u001f\u007f-\u009f]*$",
);

/// One JSON object, and the mistakes found in it so far.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pointer: String,
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
    errors: &'a mut FieldErrors,
}

/// Reads `value`, which must be an object; `None` if it is not, or if `read` says so.
pub(crate) fn read_object<T>(
    value: &Value,
    pointer: String,
    errors: &mut FieldErrors,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Option<T> {
    let Value::Object(object) = value else {
        errors.push(wrong_type(pointer, "an object", value));
        return None;
    };
    let mut fields = Fields { pointer, object, known: Vec::new(), errors };
    let result = read(&mut fields);
    fields.refuse_unknown();
    result
}

impl Fields<'_> {
    /// A text of 1 to `chars_max` characters that is not blank and holds no control characters: those have no place in a line of
    /// text, break mail headers, and NUL cannot be stored by the read models.
    pub(crate) fn text(&mut self, name: &'static str, chars_max: usize) -> Option<String> {
        let text = self.string(name)?;
        let chars = text.chars().count();
        if !(1..=chars_max).contains(&chars) {
            return self.refuse(name, "out-of-range", format!("must be 1 to {chars_max} characters long, and has {chars}"));
        }
        if text.trim().is_empty() {
            return self.refuse(name, "wrong-format", "must not be blank");
        }
        if text.chars().any(char::is_control) {
            return self.refuse(name, "wrong-format", "must not hold control characters");
        }
        Some(text.to_owned())
    }

    /// A whole number in `range`. However it is written: `2.0` and `2e0` are integers (JSON Schema 2020-12, section 6.1.1).
    pub(crate) fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(name)?;
        let Value::Number(number) = value else {
            return self.refuse_type(name, "a whole number", value);
        };
        let float = number.as_f64().unwrap_or(f64::NAN);
        if number.is_f64() && float.fract() != 0.0 {
            return self.refuse(name, "wrong-type", "must be a whole number");
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number, and what is beyond 64 bits is out of range as their bound, too"
        )]
        let integer = number.as_i64().unwrap_or(float as i64);
        if range.contains(&integer) {
            return Some(integer);
        }
        self.refuse(name, "out-of-range", format!("must be {} to {}", range.start(), range.end()))
    }

    /// A text that parses as `T`; its error tells what it must be.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        match self.string(name)?.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => self.refuse(name, "wrong-format", error.to_string()),
        }
    }

    /// An object within this one.
    pub(crate) fn object<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Fields<'_>) -> Option<T>) -> Option<T> {
        let value = self.value(name)?;
        read_object(value, self.pointer_to(name), self.errors, read)
    }

    /// A list of objects. Of one that is too long nothing but the length is checked.
    pub(crate) fn list<T>(
        &mut self,
        name: &'static str,
        length: RangeInclusive<usize>,
        mut read: impl FnMut(&mut Fields<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.value(name)?;
        let Value::Array(items) = value else {
            return self.refuse_type(name, "a list", value);
        };
        if !length.contains(&items.len()) {
            let detail = format!("must have {} to {} items, and has {}", length.start(), length.end(), items.len());
            return self.refuse(name, "out-of-range", detail);
        }
        let pointer = self.pointer_to(name);
        // Every item is read, so that the mistakes of all of them are noted, before one that is missing makes it `None`.
        let items: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| read_object(item, format!("{pointer}/{index}"), self.errors, &mut read))
            .collect();
        items.into_iter().collect()
    }

    /// Whether there is a field `name`, which may be left out.
    pub(crate) fn has(&mut self, name: &'static str) -> bool {
        self.known.push(name);
        self.object.contains_key(name)
    }

    /// Notes a mistake in the field `name`; always `None`.
    pub(crate) fn refuse<T>(&mut self, name: &'static str, code: &'static str, detail: impl Into<String>) -> Option<T> {
        let pointer = self.pointer_to(name);
        self.errors.push(FieldError::at(pointer, code, detail));
        None
    }

    fn refuse_type<T>(&mut self, name: &'static str, wanted: &str, found: &Value) -> Option<T> {
        let pointer = self.pointer_to(name);
        self.errors.push(wrong_type(pointer, wanted, found));
        None
    }

    fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, escape(name))
    }

    fn refuse_unknown(&mut self) {
        let (pointer, known) = (self.pointer.as_str(), self.known.as_slice());
        for name in self.object.keys().filter(|name| !known.contains(&name.as_str())) {
            self.errors.push_with(|| {
                // The client chose the name, and may have chosen a very long one.
                let pointer = format!("{pointer}/{}", escape(&echo(name)));
                let detail = match known {
                    [] => "is not a known field; there are none here".to_owned(),
                    known => format!("is not a known field; known here: {}", known.join(", ")),
                };
                FieldError::at(pointer, "unknown-field", detail)
            });
        }
    }
}

impl<'a> Fields<'a> {
    /// Any text at all.
    pub(crate) fn string(&mut self, name: &'static str) -> Option<&'a str> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            other => self.refuse_type(name, "a text", other),
        }
    }

    fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        let value = self.object.get(name);
        if value.is_none() {
            return self.refuse(name, "missing", "is missing");
        }
        value
    }
}

fn wrong_type(pointer: String, wanted: &str, found: &Value) -> FieldError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    FieldError::at(pointer, "wrong-type", format!("must be {wanted}, not {found}"))
}

/// A name as a JSON Pointer's token (RFC 6901, section 3).
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
