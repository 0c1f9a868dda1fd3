//! What a span costs where nothing is recorded: `cargo run --release -p telemetry --example cost_of_a_span`.
//!
//! Prints nanoseconds for what happens around each event that is sent (a producer span, and its context as text), and around each that is
//! handled (the context from text, a consumer span with its attributes).

use std::{hint::black_box, time::Instant};

use telemetry::trace::{Span, TraceContext};

const ROUNDS: u32 = 2_000_000;

fn main() {
    let context = TraceContext::new();
    let text = context.to_string();
    report("sent", || drop(black_box(Span::send("EVENTS", Some(black_box(context))).traceparent())));
    report("handled", || {
        let span = Span::process("EVENTS", "payments", Some(black_box(&text)));
        drop(black_box(span.with_display("contrail.event.position", 42)));
    });
}

fn report(what: &str, work: impl Fn()) {
    let started = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    println!("{what}: {:.0} ns", started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
}
