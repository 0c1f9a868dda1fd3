//! Scalars of our own, and how large numbers become GraphQL's 32-bit `Int`.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(pub(super) u64);

/// A place in the log: 1 is the first event, 0 is before it. Written as a decimal string, because it can outgrow the 53 bits that
/// JavaScript numbers have; read from a string or an integer.
#[Scalar]
impl ScalarType for Position {
    fn parse(value: Value) -> InputValueResult<Self> {
        let position = match &value {
            // `parse` alone would also take a plus sign.
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        position
            .map(Self)
            .ok_or_else(|| InputValueError::custom("not a decimal number from 0 to 18446744073709551615, such as \"42\""))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

impl Position {
    /// As Postgres holds it. No position is beyond what a `bigint` holds, so a larger one is as good as that.
    pub(super) fn to_bigint(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// From what Postgres holds, which is never below zero.
    pub(super) fn from_bigint(position: i64) -> Self {
        Self(u64::try_from(position).unwrap_or_default())
    }
}

/// An exact decimal number.
pub(super) struct Decimal(pub(super) rust_decimal::Decimal);

/// An exact decimal number, written as a string such as "25.00".
#[Scalar]
impl ScalarType for Decimal {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => rust_decimal::Decimal::from_str_exact(text).map(Self).map_err(InputValueError::custom),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// A number as an `Int`. What does not fit, which takes two thousand million events of one aggregate, is cut off at its end.
pub(super) fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_from_a_string_or_an_integer_and_written_as_a_string() {
        let read = |value: Value| Position::parse(value).ok().map(|position| position.0);
        assert_eq!(read(Value::from("18446744073709551615")), Some(u64::MAX));
        assert_eq!(read(Value::from(7)), Some(7));
        for bad in [Value::from("+7"), Value::from(""), Value::from("x"), Value::from(-1), Value::from(1.5), Value::Null] {
            assert_eq!(read(bad), None);
        }
        assert_eq!(Position(7).to_value(), Value::from("7"));
    }
}
