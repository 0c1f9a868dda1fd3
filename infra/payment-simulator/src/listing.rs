//! Lists and searches.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{api_error::ApiError, ledger::Ledger, params::Params, payment_intent::Intent};

const PAGE_DEFAULT: usize = 10;
const PAGE_MAX: i64 = 100;

/// `GET /v1/payment_intents`: newest first.
pub(crate) fn intents(ledger: &Ledger, params: &Params) -> Result<Value, ApiError> {
    params.only(&["created", "ending_before", "limit", "starting_after"])?;
    let since = since(params)?;
    let ids: Vec<&Arc<Intent>> =
        ledger.intents().iter().rev().filter(|intent| intent.created_at.unix_timestamp() >= since).collect();
    let page = Page::parse(params)?;
    let (page, has_more) = page.cut(&ids, |intent| &intent.id, "payment_intent")?;
    let data: Vec<_> = page.iter().map(|intent| intent.object()).collect();
    Ok(list("/v1/payment_intents", &data, has_more))
}

/// `GET /v1/refunds`: newest first, all or those of one PaymentIntent.
pub(crate) fn refunds(ledger: &Ledger, params: &Params) -> Result<Value, ApiError> {
    params.only(&["created", "ending_before", "limit", "payment_intent", "starting_after"])?;
    let since = since(params)?;
    let intent = params.get("payment_intent");
    let refunds: Vec<_> = ledger
        .refunds()
        .iter()
        .rev()
        .filter(|refund| intent.is_none_or(|intent| refund.payment_intent == intent))
        .filter(|refund| refund.created_at.unix_timestamp() >= since)
        .collect();
    let page = Page::parse(params)?;
    let (page, has_more) = page.cut(&refunds, |refund| &refund.id, "refund")?;
    let data: Vec<_> = page.iter().map(|refund| refund.object()).collect();
    Ok(list("/v1/refunds", &data, has_more))
}

fn list(url: &str, data: &[Value], has_more: bool) -> Value {
    json!({"object": "list", "url": url, "has_more": has_more, "data": data})
}

/// Which part of a list is wanted.
struct Page<'a> {
    limit: usize,
    after: Option<&'a str>,
    before: Option<&'a str>,
}

impl<'a> Page<'a> {
    fn parse(params: &'a Params) -> Result<Self, ApiError> {
        let limit = limit(params)?;
        Ok(Self { limit, after: params.get("starting_after"), before: params.get("ending_before") })
    }

    /// The page, and whether there is more beyond its end (with `ending_before`: before its beginning).
    fn cut<'l, T>(&self, newest_first: &'l [T], id: impl Fn(&T) -> &String, kind: &str) -> Result<(&'l [T], bool), ApiError> {
        let find = |wanted: &str, param| {
            newest_first.iter().position(|item| id(item) == wanted).ok_or_else(|| ApiError::no_such(kind, wanted, param))
        };
        if let Some(before) = self.before {
            let end = find(before, "ending_before")?;
            let start = end.saturating_sub(self.limit);
            return Ok((&newest_first[start..end], start > 0));
        }
        let start = match self.after {
            Some(after) => find(after, "starting_after")? + 1,
            None => 0,
        };
        let end = newest_first.len().min(start + self.limit);
        Ok((&newest_first[start..end], end < newest_first.len()))
    }
}

/// In seconds since 1970, from which on what was made is listed.
fn since(params: &Params) -> Result<i64, ApiError> {
    Ok(params.positive("created[gte]")?.unwrap_or(0))
}

fn limit(params: &Params) -> Result<usize, ApiError> {
    match params.positive("limit")? {
        None => Ok(PAGE_DEFAULT),
        Some(limit @ 1..=PAGE_MAX) => Ok(usize::try_from(limit).expect("at most 100")),
        Some(_) => Err(ApiError::invalid(format!("This value must be less than or equal to {PAGE_MAX}."))
            .code("parameter_invalid_integer")
            .param("limit")),
    }
}

/// `GET /v1/payment_intents/search`: newest first.
///
/// The query is one or more of `metadata['key']:'value'`, `status:'…'`, `amount:n` and `currency:'…'`, joined with AND.
///
/// What was made after `indexed_until` is not found yet.
pub(crate) fn search(ledger: &Ledger, params: &Params, indexed_until: OffsetDateTime) -> Result<Value, ApiError> {
    params.only(&["limit", "page", "query"])?;
    let limit = limit(params)?;
    let skip: usize = match params.get("page") {
        None => 0,
        Some(page) => page.parse().map_err(|_| ApiError::invalid("Invalid page").param("page"))?,
    };
    let clauses = parse_query(params.required("query")?)?;
    let mut by_metadata = clauses.iter().filter_map(|clause| match clause {
        Clause::Metadata(key, value) => Some(ledger.intents_with(key, value)),
        _ => None,
    });
    // One clause by the index, the others by looking at what it found.
    let found: Vec<Arc<Intent>> = by_metadata
        .next()
        .unwrap_or_else(|| ledger.intents().to_vec())
        .into_iter()
        .rev()
        .filter(|intent| intent.created_at <= indexed_until && clauses.iter().all(|clause| clause.holds_for(intent)))
        .collect();
    let data: Vec<_> = found.iter().skip(skip).take(limit).map(|intent| intent.object()).collect();
    let end = skip.saturating_add(data.len());
    let has_more = end < found.len();
    Ok(json!({
        "object": "search_result",
        "url": "/v1/payment_intents/search",
        "has_more": has_more,
        "next_page": has_more.then(|| end.to_string()),
        "data": data,
    }))
}

#[derive(Debug, PartialEq, Eq)]
enum Clause {
    Metadata(String, String),
    Status(String),
    Currency(String),
    Amount(i64),
}

impl Clause {
    fn holds_for(&self, intent: &Intent) -> bool {
        match self {
            Self::Metadata(key, value) => intent.metadata.get(key) == Some(value),
            Self::Status(status) => intent.status() == status,
            Self::Currency(currency) => intent.currency.eq_ignore_ascii_case(currency),
            Self::Amount(amount) => intent.amount == *amount,
        }
    }
}

fn parse_query(query: &str) -> Result<Vec<Clause>, ApiError> {
    let mistake = || {
        ApiError::invalid(format!(
            "We were unable to parse your search query: {query}. Clauses have the form field:'value' or \
             metadata['key']:'value', and are joined with AND."
        ))
        .param("query")
    };
    let mut clauses = Vec::new();
    let mut rest = query.trim();
    loop {
        let (field, after) = rest.split_at(rest.find([':', '[']).ok_or_else(mistake)?);
        let (clause, after) = match (field, &after[..1]) {
            ("metadata", "[") => {
                let (key, after) = quoted(&after[1..]).ok_or_else(mistake)?;
                let after = after.strip_prefix("]:").ok_or_else(mistake)?;
                let (value, after) = quoted(after).ok_or_else(mistake)?;
                (Clause::Metadata(key, value), after)
            }
            ("amount", ":") => {
                let after = &after[1..];
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let amount = after[..end].parse().map_err(|_| mistake())?;
                (Clause::Amount(amount), &after[end..])
            }
            ("status" | "currency", ":") => {
                let (value, after) = quoted(&after[1..]).ok_or_else(mistake)?;
                let clause = if field == "status" { Clause::Status(value) } else { Clause::Currency(value) };
                (clause, after)
            }
            _ => return Err(mistake()),
        };
        clauses.push(clause);
        rest = after.trim_start();
        if rest.is_empty() {
            return Ok(clauses);
        }
        rest = rest.strip_prefix("AND ").or_else(|| rest.strip_prefix("and ")).ok_or_else(mistake)?.trim_start();
    }
}

/// A text in single or double quotes with backslash escapes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().filter(|(_, c)| matches!(c, '\'' | '"'))?;
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            c if c == quote => return Some((value, &text[at + c.len_utf8()..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_clauses_joined_with_and() {
        let metadata = |value: &str| Clause::Metadata("order_id".to_owned(), value.to_owned());
        assert_eq!(parse_query("metadata['order_id']:'o-1'").expect("valid"), [metadata("o-1")]);
        assert_eq!(
            parse_query(r#"status:"succeeded" AND metadata["order_id"]:"it\"s" AND amount:5"#).expect("valid"),
            [Clause::Status("succeeded".to_owned()), metadata("it\"s"), Clause::Amount(5)]
        );
        for wrong in [
            "",
            "order_id",
            "metadata['order_id']",
            "metadata['order_id']:'o-1' OR status:'x'",
            "metadata['order_id']:'o-1",
            "colour:'red'",
            "amount:x",
        ] {
            assert!(parse_query(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap() {
        let ids: Vec<String> = ["e", "d", "c", "b", "a"].map(str::to_owned).to_vec();
        let page = |encoded: &str| {
            let params = Params::parse(encoded).expect("form encoding");
            Page::parse(&params)
                .expect("valid")
                .cut(&ids, |id| id, "letter")
                .map(|(page, more)| (page.concat(), more))
                .map_err(|error| error.message().to_owned())
        };
        assert_eq!(page("limit=2"), Ok(("ed".to_owned(), true)));
        assert_eq!(page("limit=2&starting_after=d"), Ok(("cb".to_owned(), true)));
        assert_eq!(page("limit=2&starting_after=b"), Ok(("a".to_owned(), false)));
        assert_eq!(page("limit=2&ending_before=b"), Ok(("dc".to_owned(), true)));
        assert_eq!(page("starting_after=z"), Err("No such letter: 'z'".to_owned()));
    }
}
