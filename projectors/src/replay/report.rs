//! What a replay tells when it is done.

use std::{fmt, time::Duration};

use comfy_table::{Table, presets};
use read_store::projections::ProjectionName;
use serde::Serialize;
use serde_json::json;

use super::Comparison;
use crate::output::Output;

/// What one replay did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Which read model.
    pub projection: ProjectionName,
    /// Up to which event it was built.
    pub position: u64,
    /// How many events were folded in, this time.
    pub events: u64,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// Events per second.
    pub events_per_s: f64,
    /// Whether the new tables are live now.
    pub swapped: bool,
    /// How the new tables compare with the live ones, if they were compared.
    pub comparison: Option<Comparison>,
}

impl Report {
    pub(super) fn new(
        projection: ProjectionName,
        resumed_from: u64,
        position: u64,
        elapsed: Duration,
        comparison: Option<Comparison>,
    ) -> Self {
        let events = position - resumed_from;
        let elapsed_s = elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people, and counts below 2^52")]
        let events_per_s = if elapsed_s > 0.0 { events as f64 / elapsed_s } else { 0.0 };
        Self { projection, position, events, elapsed_s, events_per_s, swapped: comparison.is_none(), comparison }
    }

    /// Whether the live tables were what the log says; true if they were not compared.
    pub fn agrees(&self) -> bool {
        self.comparison.as_ref().is_none_or(|comparison| comparison.differing == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { projection, position, events, elapsed_s, .. } = self;
        match &self.comparison {
            None => write!(f, "{projection} is rebuilt to position {position} from {events} events in {elapsed_s:.1} s"),
            Some(Comparison { differing: 0, rows, .. }) => {
                write!(f, "{projection} agrees with the log at position {position}: {rows} rows compared")
            }
            Some(comparison) => write!(
                f,
                "{projection} does not agree with the log at position {position}: {} of {} rows differ",
                comparison.differing, comparison.rows
            ),
        }
    }
}

/// What the command prints.
pub fn render(reports: &[Report], output: Output) -> String {
    match output {
        Output::Json => json!({ "replays": reports }).to_string(),
        Output::Table => {
            let mut text = table(["projection", "position", "events", "seconds", "events/s", "result"], reports.iter().map(row));
            let differences: Vec<_> = reports.iter().flat_map(differences).collect();
            if !differences.is_empty() {
                text = format!("{text}\n{}", table(["projection", "row", "difference", "columns"], differences));
            }
            text
        }
    }
}

fn row(report: &Report) -> [String; 6] {
    let result = match &report.comparison {
        None => "swapped in".to_owned(),
        Some(comparison) if comparison.differing == 0 => format!("{} rows agree", comparison.rows),
        Some(comparison) => format!("{} of {} rows differ", comparison.differing, comparison.rows),
    };
    [
        report.projection.to_string(),
        report.position.to_string(),
        report.events.to_string(),
        format!("{:.1}", report.elapsed_s),
        format!("{:.0}", report.events_per_s),
        result,
    ]
}

fn differences(report: &Report) -> impl Iterator<Item = [String; 4]> {
    let differences = report.comparison.iter().flat_map(|comparison| &comparison.differences);
    differences.map(|difference| {
        let key = if difference.key.is_empty() { "(checkpoint)" } else { &difference.key };
        [report.projection.to_string(), key.to_owned(), difference.kind.as_str().to_owned(), difference.columns.join(", ")]
    })
}

fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table.to_string()
}
