//! The names in a PromQL expression. It is not parsed (`promtool` does that), only cut into tokens.

use std::collections::BTreeSet;

/// What an expression asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Each metric, with the names of the labels by which its series are picked.
    pub metrics: Vec<(String, BTreeSet<String>)>,
    /// The labels that an aggregation keeps or drops, or that two sides are matched by.
    pub grouped_by: BTreeSet<String>,
}

/// Words that are followed by a list of labels.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Those of them that follow the name of an aggregation.
const AGGREGATING: [&str; 2] = ["by", "without"];
/// Words that stand by themselves.
const OPERATORS: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];

/// The names in `expression`.
///
/// # Errors
///
/// If a text, a selector or a range in it does not end.
pub fn names(expression: &str) -> Result<Names, String> {
    let mut names = Names::default();
    let mut tokens = Tokens(expression).peekable();
    while let Some(token) = tokens.next() {
        let token = token?;
        let lower = token.to_ascii_lowercase();
        let next = tokens.peek().and_then(|next| next.as_ref().ok().copied());
        if !is_name(token) || OPERATORS.contains(&lower.as_str()) {
            if token == "{" {
                return Err(format!("a selector without a metric's name: {expression}"));
            }
        } else if GROUPING.contains(&lower.as_str()) {
            // group_left may stand alone.
            if next == Some("(") {
                names.grouped_by.extend(labels_until(")", &mut tokens, expression)?);
            }
        } else if !next.is_some_and(|next| next == "(" || AGGREGATING.contains(&next.to_ascii_lowercase().as_str())) {
            let labels = if next == Some("{") { labels_until("}", &mut tokens, expression)? } else { BTreeSet::new() };
            names.metrics.push((token.to_owned(), labels));
        }
    }
    Ok(names)
}

/// The names up to `end`; what labels are compared with is no name.
fn labels_until<'e>(
    end: &str,
    tokens: &mut impl Iterator<Item = Result<&'e str, String>>,
    expression: &str,
) -> Result<BTreeSet<String>, String> {
    let mut labels = BTreeSet::new();
    for token in tokens {
        match token? {
            token if token == end => return Ok(labels),
            token if is_name(token) => drop(labels.insert(token.to_owned())),
            _ => {}
        }
    }
    Err(format!("there is no {end} any more: {expression}"))
}

fn is_name(token: &str) -> bool {
    token.starts_with(|char: char| char.is_ascii_alphabetic() || matches!(char, '_' | ':'))
}

/// Names, numbers, texts as a whole, ranges as a whole, and single characters.
struct Tokens<'e>(&'e str);

impl<'e> Iterator for Tokens<'e> {
    type Item = Result<&'e str, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_start();
        let first = rest.chars().next()?;
        let length = match first {
            '"' | '\'' => {
                let mut escaped = false;
                let end = rest[1..].find(|char| {
                    let is_end = char == first && !escaped;
                    escaped = char == '\\' && !escaped;
                    is_end
                });
                end.map(|end| end + 2)
            }
            '[' => rest.find(']').map(|end| end + 1),
            // A variable of Grafana's, such as $__rate_interval.
            _ if first.is_ascii_alphanumeric() || matches!(first, '_' | ':' | '.' | '$') => {
                let end = rest[1..].find(|char: char| !(char.is_ascii_alphanumeric() || matches!(char, '_' | ':' | '.')));
                Some(end.map_or(rest.len(), |end| end + 1))
            }
            _ => Some(first.len_utf8()),
        };
        let Some(length) = length else {
            self.0 = "";
            return Some(Err(format!("it does not end: {rest}")));
        };
        let (token, rest) = rest.split_at(length);
        self.0 = rest;
        Some(Ok(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_from_functions_labels_and_words() {
        let names = names(
            "histogram_quantile(0.99, sum by (job, le) (rate(wait_seconds_bucket{kind=\"a, b{c}\", job=~\"x|y\"}[5m])))
               > 1e3 and on (job) up == 1 or (a:b:rate5m offset 5m unless vector(0)) * ignoring (x) group_left c[1h:5m]",
        )
        .unwrap();
        let labels = |labels: &[&str]| labels.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let metric = |name: &str, picked_by: &[&str]| (name.to_owned(), labels(picked_by));
        assert_eq!(
            names.metrics,
            [metric("wait_seconds_bucket", &["job", "kind"]), metric("up", &[]), metric("a:b:rate5m", &[]), metric("c", &[])]
        );
        assert_eq!(names.grouped_by, labels(&["job", "le", "x"]));
    }

    #[test]
    fn what_does_not_end_is_refused() {
        for wrong in ["a{b=\"c}", "a{b=\"c\"", "a[5m", "sum by (a", "{job=\"x\"}"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
