//! Amounts.

use async_graphql::SimpleObject;

use super::scalars::Decimal;

/// An amount of one currency.
#[derive(SimpleObject)]
pub(super) struct Money {
    /// The amount in the currency's main unit, with exactly the currency's own number of decimals: "25.00" EUR, "2500" JPY.
    amount: Decimal,
    /// The ISO 4217 code, for example EUR.
    currency_code: &'static str,
    /// The amount in the currency's minor unit (cents for EUR, yen for JPY), as a decimal string.
    minor_units: String,
}

impl From<domain::Money> for Money {
    fn from(money: domain::Money) -> Self {
        Self {
            amount: Decimal(rust_decimal::Decimal::new(money.minor_units, money.currency.decimals())),
            currency_code: money.currency.code(),
            minor_units: money.minor_units.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::ScalarType;

    use super::*;

    #[test]
    fn an_amount_is_exact_and_has_its_currencys_decimals() {
        let amount = |minor_units, currency: &str| {
            let money = Money::from(domain::Money::new(minor_units, currency.parse().expect("a currency")));
            money.amount.to_value().to_string()
        };
        assert_eq!(amount(2_500, "EUR"), "\"25.00\"");
        assert_eq!(amount(2_500, "JPY"), "\"2500\"");
        assert_eq!(amount(2_500, "KWD"), "\"2.500\"");
        assert_eq!(amount(-5, "EUR"), "\"-0.05\"");
        assert_eq!(amount(i64::MAX, "EUR"), "\"92233720368547758.07\"");
    }
}
