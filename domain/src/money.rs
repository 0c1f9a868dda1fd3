//! Money: integer minor units and an ISO 4217 currency. No floats, no silent overflow.

use std::{borrow::Cow, fmt, str::FromStr};

use iso_currency::IntoEnumIterator as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An ISO 4217 currency, written as its three-letter code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

impl Currency {
    /// Every currency that has a minor unit, and so can be charged.
    pub fn all() -> impl Iterator<Item = Self> {
        iso_currency::Currency::iter().filter(|currency| currency.exponent().is_some()).map(Self)
    }

    /// The three-letter code, for example `EUR`.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many digits of the minor unit stand after the decimal point: 2 for EUR, 0 for JPY, 3 for KWD.
    pub fn decimals(self) -> u32 {
        self.0.exponent().map_or(0, u32::from)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let unknown = || MoneyError::UnknownCurrency(text.chars().take(16).collect());
        let currency = iso_currency::Currency::from_code(text).ok_or_else(unknown)?;
        // Codes without a minor unit (gold, test codes, "no currency") cannot be charged.
        if currency.exponent().is_none() {
            return Err(unknown());
        }
        Ok(Self(currency))
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Currency {
    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }

    /// No list of the codes: ISO 4217 gets new ones, and an event with one of them is no other event.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An ISO 4217 currency with a minor unit, as its three-letter code.",
            "pattern": "^[A-Z]{3}$",
        })
    }
}

/// An amount of one currency in its minor unit (cents for EUR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Money {
    /// Minor units; cents for EUR, yen for JPY.
    pub minor_units: i64,
    /// What they are units of.
    pub currency: Currency,
}

impl Money {
    /// `minor_units` of `currency`.
    pub const fn new(minor_units: i64, currency: Currency) -> Self {
        Self { minor_units, currency }
    }

    /// The sum, or why there is none.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch { left: self.currency, right: other.currency });
        }
        let minor_units = self.minor_units.checked_add(other.minor_units).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor_units, ..self })
    }

    /// This amount `quantity` times, or [`MoneyError::Overflow`].
    pub fn checked_mul(self, quantity: u32) -> Result<Self, MoneyError> {
        let minor_units = self.minor_units.checked_mul(i64::from(quantity)).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor_units, ..self })
    }
}

impl fmt::Display for Money {
    /// As a decimal with the currency's own number of digits: `25.00 EUR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = self.currency.decimals();
        if decimals == 0 {
            return write!(f, "{} {}", self.minor_units, self.currency);
        }
        let unit = 10_u64.pow(decimals);
        let magnitude = self.minor_units.unsigned_abs();
        let sign = if self.minor_units < 0 { "-" } else { "" };
        let width = decimals as usize;
        write!(f, "{sign}{}.{:0width$} {}", magnitude / unit, magnitude % unit, self.currency)
    }
}

/// Why an amount could not be formed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not an ISO 4217 code of a currency that can be charged.
    #[error("{0:?} is not an ISO 4217 currency code such as \"EUR\"")]
    UnknownCurrency(String),
    /// Two currencies in one sum.
    #[error("amounts in {left} and {right} cannot be added")]
    CurrencyMismatch {
        /// The first amount's.
        left: Currency,
        /// The second amount's.
        right: Currency,
    },
    /// The amount does not fit 64 bits.
    #[error("the amount is too large")]
    Overflow,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(minor_units: i64, code: &str) -> Money {
        Money::new(minor_units, code.parse().unwrap())
    }

    #[test]
    fn display_uses_the_currencys_own_decimals() {
        assert_eq!(money(2500, "EUR").to_string(), "25.00 EUR");
        assert_eq!(money(-5, "EUR").to_string(), "-0.05 EUR");
        assert_eq!(money(2500, "JPY").to_string(), "2500 JPY");
        assert_eq!(money(2500, "KWD").to_string(), "2.500 KWD");
        assert_eq!(money(i64::MIN, "EUR").to_string(), "-92233720368547758.08 EUR");
    }

    #[test]
    fn arithmetic_never_overflows_silently() {
        assert_eq!(money(i64::MAX, "EUR").checked_add(money(1, "EUR")), Err(MoneyError::Overflow));
        assert_eq!(money(i64::MAX, "EUR").checked_mul(2), Err(MoneyError::Overflow));
        assert!(money(1, "EUR").checked_add(money(1, "USD")).is_err());
    }

    #[test]
    fn codes_that_cannot_be_charged_are_refused() {
        for code in ["eur", "EURO", "", "XXX", "XAU", "ZZZ"] {
            assert!(code.parse::<Currency>().is_err(), "{code:?}");
        }
    }
}
