//! What a replay tells when it is done.

use std::{fmt, time::Duration};

use comfy_table::{Table, presets};
use read_store::projections::ProjectionName;
use serde::Serialize;
use serde_json::json;

use super::{Comparison, Difference};
use telemetry::output::Output;

/// Most characters of a value in a table.
const VALUE_CHARS_MAX: usize = 60;

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
                write!(f, "{projection} agrees with the log at position {position}: {} compared", counted(*rows))
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
                text = format!("{text}\n{}", table(["table", "row", "difference", "column", "live", "replayed"], differences));
            }
            text
        }
    }
}

/// What the command prints of the replays that were abandoned.
pub fn render_abandoned(abandoned: &[ProjectionName], output: Output) -> String {
    match output {
        Output::Json => json!({ "abandoned": abandoned }).to_string(),
        Output::Table if abandoned.is_empty() => "no interrupted replay has left anything".to_owned(),
        Output::Table => {
            let names: Vec<_> = abandoned.iter().map(|name| name.as_str()).collect();
            format!("dropped what interrupted replays of {} had left", names.join(", "))
        }
    }
}

fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

fn row(report: &Report) -> [String; 6] {
    let result = match &report.comparison {
        None => "swapped in".to_owned(),
        Some(comparison) if comparison.differing == 0 => format!("{} the same", counted(comparison.rows)),
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

fn differences(report: &Report) -> Vec<[String; 6]> {
    let Some(comparison) = &report.comparison else { return Vec::new() };
    let name = report.projection.to_string();
    let mut rows = Vec::new();
    for Difference { key, kind, columns } in &comparison.differences {
        let key = if key.is_empty() { "(checkpoint)" } else { key };
        let row = |column: &str, live: Option<&str>, replayed: Option<&str>| {
            [name.clone(), key.to_owned(), kind.as_str().to_owned(), column.to_owned(), shortened(live), shortened(replayed)]
        };
        rows.extend(
            columns.iter().map(|differing| row(&differing.column, differing.live.as_deref(), differing.replayed.as_deref())),
        );
        if columns.is_empty() {
            rows.push(row("", None, None));
        }
    }
    let listed = comparison.differences.len() as u64;
    if comparison.differing > listed {
        let rest = format!("and {} rows more", comparison.differing - listed);
        rows.push([name, rest, String::new(), String::new(), String::new(), String::new()]);
    }
    rows
}

/// A value as it fits a table; `--output json` has all of it.
fn shortened(value: Option<&str>) -> String {
    let Some(value) = value else { return String::new() };
    match value.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table.to_string()
}
