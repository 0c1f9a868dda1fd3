//! Which events are exported.

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::trail::Columns;
use crate::audit::row::{Attributes, TrailRow};

/// What an event has to be to be exported. What is `None` excludes nothing. Serialized, it is signed with a partial export: a
/// field that is added, or means something else, needs another version of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// At this position or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_position: Option<u64>,
    /// At this position or earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_position: Option<u64>,
    /// Appended then or later.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub after: Option<OffsetDateTime>,
    /// Appended earlier than this.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub before: Option<OffsetDateTime>,
    /// Of this kind of aggregate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate_type: Option<String>,
    /// Of the aggregate of this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate_id: Option<String>,
    /// Of this type.
    #[serde(skip_serializing_if = "Option::is_none", rename = "type")]
    pub event_type: Option<String>,
    /// Asked for by this actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Of this story.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

impl Filter {
    /// Whether it may leave out an event before its last position, so that the file alone does not have the root that was signed.
    pub fn is_partial(&self) -> bool {
        self.from_position.is_some_and(|position| position > 1) || self.asks_for_attributes()
    }

    /// Whether it asks for anything but positions.
    pub(super) fn asks_for_attributes(&self) -> bool {
        let Self { from_position, to_position, .. } = *self;
        *self != Self { from_position, to_position, ..Self::default() }
    }

    /// Whether it wants the event: the same as [`statement`](Self::statement), but told from a row that may have been checked,
    /// and not by the database. A row without attributes is wanted by those who ask for positions only.
    pub(super) fn wants(&self, row: &TrailRow) -> bool {
        let is_within =
            self.from_position.is_none_or(|from| row.position >= from) && self.to_position.is_none_or(|to| row.position <= to);
        let has = |attributes: &Attributes| {
            self.after.is_none_or(|after| attributes.time >= to_the_microsecond(after))
                && self.before.is_none_or(|before| attributes.time < to_the_microsecond(before))
                && [
                    (&self.aggregate_type, Some(&attributes.aggregate_type)),
                    (&self.aggregate_id, Some(&attributes.aggregate_id)),
                    (&self.event_type, Some(&attributes.event_type)),
                    (&self.actor, attributes.actor.as_ref()),
                    (&self.correlation_id, Some(&attributes.correlation_id)),
                ]
                .into_iter()
                .all(|(wanted, found)| wanted.is_none() || wanted.as_ref() == found)
        };
        is_within && (!self.asks_for_attributes() || row.attributes.as_ref().is_some_and(has))
    }

    /// The statement that gives these columns of the events that are wanted after `after` and up to `to`, in the order of the log. COPY
    /// takes no parameters, so the server itself quotes them.
    pub(super) async fn statement(
        &self,
        executor: impl PgExecutor<'_>,
        columns: Columns,
        after: u64,
        to: u64,
    ) -> Result<String, sqlx::Error> {
        let from = self.from_position.unwrap_or_default().saturating_sub(1).max(after);
        let mut format = format!("SELECT {} FROM contrail.audit WHERE position > {from} AND position <= {to}", columns.names());
        let time = |time: OffsetDateTime| to_the_microsecond(time).format(&Rfc3339).ok();
        let conditions = [
            ("time >= %L::timestamptz", self.after.and_then(time)),
            ("time < %L::timestamptz", self.before.and_then(time)),
            ("aggregate_type = %L", self.aggregate_type.clone()),
            ("aggregate_id = %L", self.aggregate_id.clone()),
            ("event_type = %L", self.event_type.clone()),
            ("actor = %L", self.actor.clone()),
            ("correlation_id = %L", self.correlation_id.clone()),
        ];
        let mut values = Vec::new();
        for (condition, value) in conditions {
            if let Some(value) = value {
                format.push_str(" AND ");
                format.push_str(condition);
                values.push(value);
            }
        }
        format.push_str(" ORDER BY position");
        sqlx::query_scalar("SELECT format($1, VARIADIC $2::text[])").bind(format).bind(values).fetch_one(executor).await
    }
}

/// The first time of whole microseconds, as the table has them, that is not before `time`.
fn to_the_microsecond(time: OffsetDateTime) -> OffsetDateTime {
    let beyond = time.nanosecond() % 1_000;
    if beyond == 0 { time } else { time.saturating_add(Duration::nanoseconds(1_000 - i64::from(beyond))) }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_partial_if_something_before_its_end_may_be_missing() {
        let whole = Filter::default();
        assert!(!whole.is_partial());
        assert!(!Filter { to_position: Some(3), ..whole.clone() }.is_partial());
        assert!(!Filter { from_position: Some(1), ..whole.clone() }.is_partial());
        assert!(Filter { from_position: Some(2), ..whole.clone() }.is_partial());
        assert!(Filter { actor: Some("operator:o-1".to_owned()), ..whole }.is_partial());
    }
}
