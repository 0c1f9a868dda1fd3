//! Currencies and amounts as Stripe takes them.

use crate::api_error::ApiError;

/// The largest amount of one charge: eight digits in the smallest unit.
const AMOUNT_MAX: i64 = 99_999_999;

/// The currencies that can be charged (<https://docs.stripe.com/currencies>).
const SUPPORTED: &str = "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn \
    bzd cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl \
    htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt \
    mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd \
    scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xof \
    xpf yer zar zmw";

/// A currency that can be charged, in lower case.
pub(crate) fn supported(currency: &str) -> Result<String, ApiError> {
    let lower = currency.to_ascii_lowercase();
    if SUPPORTED.split_whitespace().any(|known| known == lower) {
        Ok(lower)
    } else {
        Err(ApiError::invalid(format!(
            "Invalid currency: {currency}. Stripe currently supports these currencies: {}",
            SUPPORTED.split_whitespace().collect::<Vec<_>>().join(", ")
        ))
        .param("currency"))
    }
}

/// Refuses an amount that no card can be charged with.
pub(crate) fn check_amount(amount: i64, currency: &str) -> Result<(), ApiError> {
    let minimum = minimum(currency);
    if amount < minimum {
        return Err(ApiError::invalid(format!("Amount must be at least {minimum} {currency} in the currency's smallest unit"))
            .code("amount_too_small")
            .param("amount"));
    }
    if amount > AMOUNT_MAX {
        return Err(ApiError::invalid(format!(
            "Amount must be no more than {AMOUNT_MAX} {currency} in the currency's smallest unit"
        ))
        .code("amount_too_large")
        .param("amount"));
    }
    let granularity = match currency {
        // Without decimals in practice, but with two of them in the API.
        "isk" | "ugx" => 100,
        // Three decimals, of which the last is always 0.
        "bhd" | "jod" | "kwd" | "omr" | "tnd" => 10,
        _ => 1,
    };
    if amount % granularity != 0 {
        return Err(ApiError::invalid(format!(
            "Invalid amount. An amount in {currency} must be evenly divisible by {granularity}."
        ))
        .code("invalid_charge_amount")
        .param("amount"));
    }
    Ok(())
}

/// The smallest charge per currency (<https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>).
fn minimum(currency: &str) -> i64 {
    match currency {
        "gbp" => 30,
        "usd" | "eur" | "aud" | "brl" | "cad" | "chf" | "inr" | "jpy" | "nzd" | "sgd" => 50,
        "bgn" => 100,
        "aed" | "myr" | "pln" | "ron" => 200,
        "dkk" => 250,
        "nok" | "sek" => 300,
        "hkd" => 400,
        "mxn" | "thb" => 1_000,
        "czk" => 1_500,
        "huf" => 17_500,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_held_to_the_limits_of_their_currency() {
        assert!(check_amount(50, "eur").is_ok());
        assert!(check_amount(49, "eur").is_err());
        assert!(check_amount(99_999_999, "eur").is_ok());
        assert!(check_amount(100_000_000, "eur").is_err());
        assert!(check_amount(1_234, "kwd").is_err());
        assert!(check_amount(500, "isk").is_ok());
        assert!(check_amount(501, "isk").is_err());
    }

    #[test]
    fn currencies_are_known_in_any_case() {
        assert_eq!(supported("EUR").expect("known"), "eur");
        assert!(supported("xyz").is_err());
        assert!(supported("").is_err());
    }
}
