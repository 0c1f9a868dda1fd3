//! What is wrong, without drowning the reader in a thousand lines of the same kind.

use std::collections::BTreeMap;

/// How many of a kind are told in full; the others are counted.
const SHOWN_PER_KIND_MAX: usize = 5;

/// Violations by kind.
#[derive(Debug, Default)]
pub(super) struct Violations(BTreeMap<&'static str, Kind>);

#[derive(Debug, Default)]
struct Kind {
    shown: Vec<String>,
    count: usize,
}

impl Violations {
    /// Notes one.
    pub(super) fn add(&mut self, kind: &'static str, what: impl Into<String>) {
        let kind = self.0.entry(kind).or_default();
        kind.count += 1;
        if kind.shown.len() < SHOWN_PER_KIND_MAX {
            kind.shown.push(what.into());
        }
    }

    /// Notes one unless `holds`.
    pub(super) fn require(&mut self, holds: bool, kind: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.add(kind, what());
        }
    }

    /// All, a line each.
    pub(super) fn into_lines(self) -> Vec<String> {
        let lines = self.0.into_iter().flat_map(|(name, kind)| {
            let hidden = kind.count - kind.shown.len();
            let more = (hidden > 0).then(|| format!("{name}: … and {hidden} more"));
            kind.shown.into_iter().map(move |what| format!("{name}: {what}")).chain(more)
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_of_a_kind_are_counted() {
        let mut violations = Violations::default();
        for number in 0..7 {
            violations.add("wrong", number.to_string());
        }
        violations.require(true, "fine", || unreachable!());
        let lines = violations.into_lines();
        assert_eq!(lines.len(), 6);
        assert_eq!((lines[0].as_str(), lines[5].as_str()), ("wrong: 0", "wrong: … and 2 more"));
    }
}
