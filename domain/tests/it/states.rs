//! A snapshot written by one build is read by another, so a state's shape and meaning belong to its version.
//!
//! Each file holds what fixed histories fold to, one JSON document a line, as snapshots store it. When a test fails here, raise
//! that aggregate's `SNAPSHOT_VERSION` and run once with `UPDATE_GOLDEN=1`, which writes the files that are missing.

use std::{env, fs, path::PathBuf};

use domain::{SnapshotState, notification::Notification, order::Order, payment::Payment, stock::Stock};

use crate::given::{
    adjusted, allocation, cancelled, captured, confirmed, declined, delivered, failed, given_up, placed, received, refunded,
    rejected, reserved, sent, shipped, stock_released, stock_reserved, stock_shipped,
};

fn check<A: SnapshotState>(histories: &[Vec<A::Event>]) {
    let mut text = String::new();
    for history in histories {
        let mut state = A::default();
        for event in history {
            state.apply(event.clone());
        }
        let snapshot = serde_json::to_string(&state).unwrap();
        let read: A = serde_json::from_str(&snapshot).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), snapshot, "it reads as it was");
        text += &snapshot;
        text.push('\n');
    }
    let (aggregate_type, version) = (A::TYPE, A::SNAPSHOT_VERSION);
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/states/{aggregate_type}.v{version}.jsonl"));
    if !file.exists() && env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let golden = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}; after a raise, run once with UPDATE_GOLDEN=1", file.display()));
    assert_eq!(text, golden, "the state of {aggregate_type} is no longer what version {version} was: raise its SNAPSHOT_VERSION");
}

#[test]
fn an_orders_state_is_what_its_version_says() {
    check::<Order>(&[
        vec![placed().into(), reserved().into(), confirmed().into(), shipped().into(), delivered().into()],
        vec![placed().into(), reserved().into(), cancelled().into()],
        vec![placed().into(), rejected().into()],
    ]);
}

#[test]
fn a_stocks_state_is_what_its_version_says() {
    let [one, two, three] = [allocation(1, 2), allocation(2, 3), allocation(3, 1)];
    check::<Stock>(&[vec![
        received(10).into(),
        stock_reserved(&[one, two, three]),
        adjusted(-3).into(),
        stock_released(&[two]),
        stock_shipped(&[one]),
    ]]);
}

#[test]
fn a_payments_state_is_what_its_version_says() {
    check::<Payment>(&[
        vec![captured().into(), refunded().into()],
        vec![declined().into()],
        vec![captured().into(), given_up().into()],
    ]);
}

#[test]
fn a_notifications_state_is_what_its_version_says() {
    check::<Notification>(&[vec![sent().into()], vec![failed().into()], vec![]]);
}
