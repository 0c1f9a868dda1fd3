//! The demo's result for people.

use std::fmt::Write as _;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Summary;
use crate::invariants::Report;
use crate::shop::HistoryEvent;

/// Counts, rates, latencies, and the verdict.
pub(super) fn summary(summary: &Summary, report: &Report, delivered: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("orders", summary.orders.to_string());
    row("  confirmed", format!("{} ({delivered} of them delivered)", summary.confirmed));
    row("  rejected, out of stock", summary.rejected.to_string());
    row("  cancelled, or declined", summary.cancelled.to_string());
    row("lost, duplicated, oversold", format!("{}, {}, {}", summary.lost, summary.duplicated, summary.oversold));
    row("time", format!("{:.1} s", summary.elapsed_s));
    row("orders per minute", format!("{:.0}", summary.orders_per_min));
    row("POST to 2xx", percentiles(summary.place_ms));
    row("POST to CONFIRMED seen", percentiles(summary.confirmed_ms));
    row("events in the log", report.events.to_string());
    row("audit root", report.audit_root.clone());
    row("audit trail", if summary.audit_verified { "verified against the log" } else { "NOT VERIFIED" }.to_owned());
    row("invariants", if report.violations.is_empty() { "all hold" } else { "VIOLATED" }.to_owned());
    if let Some(values) = table.column_mut(1) {
        values.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn percentiles(percentiles: crate::latency::Percentiles) -> String {
    format!("p50 {:.1} ms, p99 {:.1} ms", percentiles.p50, percentiles.p99)
}

/// One order's events, each with the time since the first.
pub(super) fn timeline(order_id: &str, events: &[HistoryEvent]) -> anyhow::Result<String> {
    let times = events.iter().map(|event| OffsetDateTime::parse(&event.time, &Rfc3339));
    let times: Vec<_> = times.collect::<Result<_, _>>().context("read the time of an event")?;
    let mut text = format!("order {order_id}\n");
    for (event, time) in events.iter().zip(&times) {
        let offset_ms = (*time - times[0]).as_seconds_f64() * 1_000.0;
        let name = event.event_type.strip_prefix("contrail.").unwrap_or(&event.event_type);
        let name = name.rsplit_once('.').map_or(name, |(name, _version)| name);
        writeln!(text, "  {offset_ms:>+10.1} ms  {name:<22} position {}", event.position).expect("a string takes everything");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_counts_from_the_first_event() {
        let event = |position: &str, event_type: &str, time: &str| HistoryEvent {
            position: position.to_owned(),
            event_type: event_type.to_owned(),
            time: time.to_owned(),
        };
        let events = [
            event("7", "contrail.order.placed.v1", "2026-11-20T12:00:00.5Z"),
            event("9", "contrail.payment.captured.v1", "2026-11-20T12:00:00.512Z"),
        ];
        let text = timeline("o-1", &events).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "order o-1");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["+0.0", "ms", "order.placed", "position", "7"]);
        assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["+12.0", "ms", "payment.captured", "position", "9"]);
    }
}
