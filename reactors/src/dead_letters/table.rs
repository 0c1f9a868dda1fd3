//! Dead letters as they are printed.

use comfy_table::{Table, presets};
use event_store::{DeadLetter, KeptLetter};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Outcome;

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

fn time(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// For people: one row a letter.
pub fn letters(kept: &[KeptLetter]) -> String {
    let mut rows = table(["id", "event", "of", "tries", "redrives", "given up", "error"]);
    for KeptLetter { letter, .. } in kept {
        rows.add_row([
            letter.id(),
            letter.event_type.clone(),
            letter.aggregate_id.clone().unwrap_or_default(),
            letter.attempts.to_string(),
            letter.redrives.to_string(),
            time(letter.died_at),
            letter.error_chain.join(": "),
        ]);
    }
    rows.to_string()
}

/// For programs: `{"dead_letters": [...]}`.
pub fn letters_as_json(kept: &[KeptLetter]) -> Value {
    json!({ "dead_letters": kept.iter().map(|kept| row(&kept.letter)).collect::<Vec<_>>() })
}

fn row(letter: &DeadLetter) -> Value {
    let mut row = serde_json::to_value(letter).expect("a letter has string keys and times of our clocks");
    row["id"] = letter.id().into();
    row
}

/// One letter with its event, as the log has it; for programs, and for people.
pub fn one_letter(kept: &KeptLetter, event: &[u8]) -> (Value, String) {
    let letter = &kept.letter;
    let mut text = table(["what", ""]);
    text.add_row(["id", &letter.id()]);
    text.add_row(["reactor", &letter.reactor]);
    text.add_row(["position", &letter.position.to_string()]);
    text.add_row(["event", &letter.event_type]);
    text.add_row(["of", letter.aggregate_id.as_deref().unwrap_or("?")]);
    text.add_row(["story", letter.correlation_id.as_deref().unwrap_or("?")]);
    text.add_row(["tries", &letter.attempts.to_string()]);
    text.add_row(["redrives", &letter.redrives.to_string()]);
    if let Some(first) = letter.first_died_at.filter(|first| *first != letter.died_at) {
        text.add_row(["first given up", &time(first)]);
    }
    text.add_row(["given up", &time(letter.died_at)]);
    for (depth, error) in letter.error_chain.iter().enumerate() {
        text.add_row([if depth == 0 { "error" } else { "because" }, error]);
    }
    let stored = String::from_utf8_lossy(event);
    text.add_row(["stored", &stored]);
    let mut json = row(letter);
    // What is no JSON is shown as the text that it is.
    json["event"] = serde_json::from_slice(event).unwrap_or_else(|_| Value::String(stored.into_owned()));
    (json, text.to_string())
}

/// What became of each; for programs, and for people.
pub fn outcomes(outcomes: &[Outcome]) -> (Value, String) {
    let mut text = table(["id", "event", "outcome", "why"]);
    for Outcome { id, event_type, outcome, error_chain, .. } in outcomes {
        text.add_row([id, event_type, &outcome.to_string(), &error_chain.join(": ")]);
    }
    (json!({ "dead_letters": outcomes }), text.to_string())
}
