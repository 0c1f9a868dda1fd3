//! Which dead letters are meant.

use std::{convert::Infallible, fmt, str::FromStr};

use event_store::DeadLetter;
use time::OffsetDateTime;

/// A dead letter by name: `payments-17`, or `17` for whatever reactors gave up on the event at position 17.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterName(String);

impl FromStr for LetterName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LetterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl LetterName {
    pub(super) fn is_of(&self, letter: &DeadLetter) -> bool {
        self.0 == letter.id() || self.0 == letter.position.to_string()
    }
}

/// Which dead letters: those that meet all that is said here.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these; any, if empty.
    pub names: Vec<LetterName>,
    /// Only what this reactor gave up on.
    pub reactor: Option<String>,
    /// Only events of this type.
    pub event_type: Option<String>,
    /// Only events of this aggregate, for example an order.
    pub aggregate_id: Option<String>,
    /// Only where some error of the chain holds this text.
    pub error: Option<String>,
    /// Only what was given up at this time or later.
    pub after: Option<OffsetDateTime>,
    /// Only what was given up earlier than this.
    pub before: Option<OffsetDateTime>,
}

impl Selection {
    /// Whether nothing is said, so that every letter is meant.
    pub fn is_everything(&self) -> bool {
        let Self { names, reactor, event_type, aggregate_id, error, after, before } = self;
        let texts = [reactor, event_type, aggregate_id, error];
        names.is_empty() && texts.iter().all(|text| text.is_none()) && [after, before].iter().all(|time| time.is_none())
    }

    pub(super) fn selects(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| is == Some(wanted));
        (self.names.is_empty() || self.names.iter().any(|name| name.is_of(letter)))
            && is(&self.reactor, Some(&letter.reactor))
            && is(&self.event_type, Some(&letter.event_type))
            && is(&self.aggregate_id, letter.aggregate_id.as_deref())
            && self.error.as_deref().is_none_or(|text| letter.error_chain.iter().any(|error| error.contains(text)))
            && self.after.is_none_or(|after| letter.died_at >= after)
            && self.before.is_none_or(|before| letter.died_at < before)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            reactor: "payments".to_owned(),
            position: 17,
            event_type: "contrail.order.cancelled.v1".to_owned(),
            aggregate_id: Some("o-1".to_owned()),
            correlation_id: None,
            error_chain: vec!["refund an order".to_owned(), "the gateway answered 400".to_owned()],
            attempts: 1,
            redrives: 0,
            first_died_at: None,
            died_at: datetime!(2026-11-21 12:00 UTC),
        }
    }

    #[test]
    fn a_letter_must_meet_all_that_is_said() {
        let some = |text: &str| Some(text.to_owned());
        let name = |text: &str| text.parse().expect("any text is a name");
        let all = Selection {
            names: vec![name("99"), name("payments-17")],
            reactor: some("payments"),
            event_type: some("contrail.order.cancelled.v1"),
            aggregate_id: some("o-1"),
            error: some("answered 4"),
            after: Some(datetime!(2026-11-21 12:00 UTC)),
            before: Some(datetime!(2026-11-21 12:01 UTC)),
        };
        assert!(all.selects(&letter()) && !all.is_everything());
        assert!(Selection::default().selects(&letter()) && Selection::default().is_everything());
        assert!(Selection { names: vec![name("17")], ..Selection::default() }.selects(&letter()));
        let others = [
            Selection { names: vec![name("payments-1")], ..all.clone() },
            Selection { reactor: some("allocator"), ..all.clone() },
            Selection { event_type: some("contrail.order.cancelled"), ..all.clone() },
            Selection { aggregate_id: some("o-2"), ..all.clone() },
            Selection { error: some("500"), ..all.clone() },
            Selection { after: Some(datetime!(2026-11-21 12:00:01 UTC)), ..all.clone() },
            Selection { before: Some(datetime!(2026-11-21 12:00 UTC)), ..all },
        ];
        for other in others {
            assert!(!other.selects(&letter()) && !other.is_everything(), "{other:?}");
        }
    }
}
