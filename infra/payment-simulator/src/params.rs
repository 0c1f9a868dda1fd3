//! Form-encoded parameters, in bodies and in query strings.

use std::collections::BTreeMap;

use crate::api_error::ApiError;

/// The parameters of one request by name, nested ones as Stripe writes them (`metadata[order_id]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Parses `application/x-www-form-urlencoded`. Of a name that is given twice the last value counts.
    pub(crate) fn parse(encoded: &str) -> Result<Self, ApiError> {
        encoded
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                decode(name).zip(decode(value)).ok_or_else(|| ApiError::invalid("The request is not valid form encoding."))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter that must be there and not empty.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| ApiError::invalid(format!("Missing required param: {name}.")).code("parameter_missing").param(name))
    }

    /// `true` or `false`; false if it is not there.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::invalid(format!("Invalid boolean: {other}")).param(name)),
        }
    }

    /// A whole number of at least 1.
    pub(crate) fn positive(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let mistake = |message: String| ApiError::invalid(message).code("parameter_invalid_integer").param(name);
        let number: i64 = value.parse().map_err(|_| mistake(format!("Invalid integer: {value}")))?;
        if number < 1 {
            return Err(mistake("This value must be greater than or equal to 1.".to_owned()));
        }
        Ok(Some(number))
    }

    /// Everything under `name[…]`, without the prefix.
    pub(crate) fn nested(&self, name: &str) -> BTreeMap<String, String> {
        self.0
            .iter()
            .filter_map(|(key, value)| {
                let inner = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
                Some((inner.to_owned(), value.clone()))
            })
            .collect()
    }

    /// Refuses parameters whose name, up to the first bracket, is not in the list.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let root = |name: &str| name.split('[').next().unwrap_or_default().to_owned();
        match self.0.keys().find(|name| !known.contains(&root(name).as_str())) {
            None => Ok(()),
            Some(unknown) => Err(ApiError::invalid(format!("Received unknown parameter: {}", root(unknown)))
                .code("parameter_unknown")
                .param(unknown)),
        }
    }

    /// One text for equal parameters, whatever their order was: what an idempotency key is bound to.
    pub(crate) fn fingerprint(&self) -> String {
        serde_json::to_string(&self.0).expect("a map of strings is JSON")
    }
}

/// Undoes form encoding; none if an escape is cut short or the result is not UTF-8.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).expect("two hexadecimal digits fit a byte")
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_encoding_is_undone() {
        let params = Params::parse("amount=1250&metadata%5Border_id%5D=a+b%2F%C3%A9&confirm=true&").expect("valid");
        assert_eq!(params.get("amount"), Some("1250"));
        assert_eq!(params.nested("metadata"), BTreeMap::from([("order_id".to_owned(), "a b/é".to_owned())]));
        assert!(params.flag("confirm").expect("a flag"));
        assert!(Params::parse("a=%4").is_err());
        assert!(Params::parse("a=%FF").is_err());
    }

    #[test]
    fn the_order_of_parameters_does_not_matter() {
        let one = Params::parse("a=1&b=2").expect("valid");
        let other = Params::parse("b=2&a=1").expect("valid");
        assert_eq!(one.fingerprint(), other.fingerprint());
        let different = Params::parse("a=1%26b=2").expect("valid");
        assert_ne!(one.fingerprint(), different.fingerprint());
    }

    #[test]
    fn unknown_parameters_are_named() {
        let params = Params::parse("metadata[a]=1&amuont=3").expect("valid");
        let error = params.only(&["metadata", "amount"]).expect_err("a typo");
        assert!(error.message().contains("amuont"), "{error:?}");
    }
}
